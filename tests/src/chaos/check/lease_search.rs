//! Each lease by itself, without revisions: is there an order of what its clients saw that a lease allows?

use std::collections::BTreeMap;

use plimsoll_proto::log::State;

use super::search::{Interval, Verdict, search};
use super::{Evidence, Findings, Judge, Replay};
use crate::chaos::history::{Call, NEVER_US, Operation, Outcome};

/// A lease is not taken for over before this much of its length has passed by the observer's clock, in hundredths: the ledger's clock may
/// run a little faster.
const LEAST_LENGTH: u64 = 95;

/// See the module.
pub(super) struct LeaseSearch;

#[derive(Clone, Debug)]
enum Step {
    Granted,
    Renewed,
    Ended,
    SeenLive,
    SeenEnded,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Lease {
    Absent,
    Live,
    Over,
}

impl Judge for LeaseSearch {
    fn name(&self) -> &'static str {
        "search by lease"
    }

    fn judge(&self, evidence: &Evidence, _: &Replay, findings: &mut Findings) {
        for (id, operations) in by_lease(&evidence.history) {
            let Some(steps) = steps(&operations) else { continue };
            if let Verdict::Impossible(fitting) = search(&steps, Lease::Absent, allowed) {
                let told: Vec<String> =
                    operations.iter().map(|one| format!("{:?} {:?}", one.call, one.outcome)).collect();
                findings
                    .add(format!("{id}: only {fitting} of its operations fit together: {}", told.join("; ")));
            }
        }
    }
}

fn allowed(lease: &Lease, step: &Step) -> Option<Lease> {
    match (lease, step) {
        (Lease::Absent, Step::Granted) => Some(Lease::Live),
        (Lease::Live, Step::Renewed | Step::SeenLive) => Some(Lease::Live),
        (Lease::Live, Step::Ended) => Some(Lease::Over),
        (Lease::Over, Step::SeenEnded) => Some(Lease::Over),
        _ => None,
    }
}

/// Operations by reservation. Calls with one key are one operation, from its first call to its first answer.
pub(super) fn by_lease(history: &[Operation]) -> BTreeMap<u64, Vec<Operation>> {
    let mut by_key: BTreeMap<&str, Operation> = BTreeMap::new();
    let mut all = Vec::new();
    for operation in history {
        if operation.request_id.is_empty() {
            all.push(operation.clone());
            continue;
        }
        let Some(one) = by_key.get_mut(operation.request_id.as_str()) else {
            by_key.insert(&operation.request_id, operation.clone());
            continue;
        };
        one.called_us = one.called_us.min(operation.called_us);
        let better = match (&one.outcome, &operation.outcome) {
            (Outcome::Done { .. }, Outcome::Done { .. }) => operation.returned_us < one.returned_us,
            (Outcome::Done { .. }, _) => false,
            (_, Outcome::Done { .. }) => true,
            // One call may be refused while the effect of another is on its way.
            _ => {
                (one.outcome, one.returned_us) = (Outcome::Unknown, NEVER_US);
                false
            }
        };
        if better {
            (one.outcome, one.returned_us) = (operation.outcome.clone(), operation.returned_us);
        }
    }
    all.extend(by_key.into_values());
    let mut leases: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for operation in all {
        let created = operation.outcome.done().map(|(_, seen)| seen.id);
        if let Some(id) = operation.call.reservation().or(created) {
            leases.entry(id).or_default().push(operation);
        }
    }
    leases
}

/// When a lease may be over by time at the earliest, by the observer's clock.
pub(super) fn lapse_us(operations: &[Operation]) -> Option<u64> {
    let ttl_ms = operations.iter().find_map(|one| match one.call {
        Call::Create { ttl_ms } => Some(ttl_ms),
        _ => None,
    })?;
    let bought = |one: &&Operation| {
        one.outcome.done().is_some() && matches!(one.call, Call::Create { .. } | Call::Renew { .. })
    };
    let last_us = operations.iter().filter(bought).map(|one| one.called_us).max()?;
    Some(last_us + ttl_ms * 1_000 / 100 * LEAST_LENGTH)
}

/// The steps of one lease; `None` for one that this judge does not understand: it waited, or its grant is not known.
fn steps(operations: &[Operation]) -> Option<Vec<Interval<Step>>> {
    let granted = |one: &Operation| {
        let active = one.outcome.done().is_some_and(|(_, seen)| is_live(seen.state));
        matches!(one.call, Call::Create { .. }) && active
    };
    if !operations.iter().any(granted) {
        return None;
    }
    let token = operations.iter().find(|one| granted(one)).and_then(|one| one.outcome.done())?.1.token;
    let mut steps = Vec::new();
    for one in operations {
        let named = match &one.call {
            Call::Renew { token, .. } | Call::Release { token, .. } => *token,
            _ => token,
        };
        let step = match (&one.call, &one.outcome) {
            (_, Outcome::Refused { reason }) if reason == "WRONG_STATE" && named == token => {
                Some(Step::SeenEnded)
            }
            (_, Outcome::Refused { .. }) | (Call::Get { .. }, Outcome::Unknown) => None,
            (Call::Create { .. }, _) => Some(Step::Granted),
            // A token that is not that of the grant must never do anything.
            (Call::Renew { .. } | Call::Release { .. }, Outcome::Unknown) if named != token => None,
            (Call::Renew { .. }, _) => Some(Step::Renewed),
            (Call::Release { .. } | Call::Cancel { .. }, _) => Some(Step::Ended),
            (Call::Get { .. }, Outcome::Done { seen, .. }) if is_live(seen.state) => Some(Step::SeenLive),
            (Call::Get { .. }, Outcome::Done { .. }) => Some(Step::SeenEnded),
        };
        if named != token && one.outcome.done().is_some() {
            // No order explains it: the lease would have to have two tokens.
            steps.push(Interval {
                called_us: one.called_us,
                returned_us: one.called_us,
                operation: Step::Granted,
            });
        }
        let (called_us, returned_us) = (one.called_us, one.returned_us);
        steps.extend(step.map(|operation| Interval { called_us, returned_us, operation }));
    }
    if let Some(called_us) = lapse_us(operations) {
        steps.push(Interval { called_us, returned_us: NEVER_US, operation: Step::Ended });
    }
    Some(steps)
}

fn is_live(state: i32) -> bool {
    [State::Held, State::Active, State::Partial].iter().any(|one| i32::from(*one) == state)
}
