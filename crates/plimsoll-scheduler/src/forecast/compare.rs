//! The plan: what a change comes to, and whom it costs or helps. The future with it beside the one without.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_ledger::{
    Answer, Blocker, Command, Ledger, Outcome, PolicyName, PolicyObject, Refusal, Request, Reservation,
    RowError, State, Verdict,
};
use plimsoll_types::{LedgerTime, ReservationId, Revision};

use super::{Future, Notice};
use crate::Planner;

/// Most waiting requests of which it is asked whether they can ever start.
const MOST_ASKED: usize = 10_000;

/// Policy objects to put and to delete, all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// Created or replaced.
    pub put: Vec<PolicyObject>,
    /// Deleted.
    pub delete: Vec<PolicyName>,
    /// Refused where the policy changed after this revision; 0 for no such condition.
    pub if_revision: Revision,
}

/// What is to be tried: first the policy, then the requests in their order.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Nothing of it is changed where both lists are empty.
    pub policy: PolicyChange,
    /// Requests to submit.
    pub requests: Vec<Request>,
}

/// A change, and from where and how far to look.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// What is tried.
    pub change: Change,
    /// Who asks: limits and budgets go by it.
    pub requester: &'a str,
    /// When it is tried.
    pub now: LedgerTime,
    /// How far to look, in milliseconds.
    pub horizon_ms: u64,
    /// What the random strategy draws from.
    pub seed: u64,
}

/// What would happen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Revision of the state on which it was tried.
    pub revision: Revision,
    /// When it was tried.
    pub now: LedgerTime,
    /// How far both futures were run.
    pub until: LedgerTime,
    /// False where that was too much work: what happens later was not looked at.
    pub whole: bool,
    /// Why the policy would be refused; the requests were tried without it then.
    pub policy_refused: Option<Refusal>,
    /// What would become of the requests, in their order.
    pub requests: Vec<Planned>,
    /// What would be otherwise for those who are there already, by kind, then id.
    pub effects: Vec<Effect>,
    /// Quotas that are exceeded with the change.
    pub over_quota: Vec<QueueOver>,
    /// Nodes that would be in another pool: name, from, to.
    pub moved_nodes: Vec<(String, String, String)>,
}

/// What would become of a request.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The answer to its submission. A grant is as it was made; its id is one that another request may get.
    pub answer: Answer,
    /// As it is once the leader has done all it can at this moment; `None` where it was refused.
    pub reservation: Option<Arc<Reservation>>,
    /// When it would start; `None` where that is not within sight.
    pub expected_start: Option<LedgerTime>,
    /// Nothing that exists can ever hold it.
    pub never: bool,
}

/// What the change means for a reservation that is there already.
#[derive(Clone, Debug)]
pub struct Effect {
    /// As it is now.
    pub reservation: Arc<Reservation>,
    /// What changes for it.
    pub kind: EffectKind,
}

/// What changes for a reservation. The order is that of effects in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EffectKind {
    /// It would be made to leave, and is not otherwise.
    Preempted(Notice),
    /// It could never start any more: what stands in the way.
    NeverStarts(Vec<Blocker>),
    /// It would start later, or not within sight.
    Delayed {
        /// Otherwise.
        from: LedgerTime,
        /// With the change.
        to: Option<LedgerTime>,
    },
    /// It would start at once, and does not otherwise.
    StartsNow {
        /// Otherwise.
        from: Option<LedgerTime>,
    },
    /// It would start earlier.
    Earlier {
        /// Otherwise; `None` where that is not within sight.
        from: Option<LedgerTime>,
        /// With the change.
        to: LedgerTime,
    },
    /// It would stay, and is made to leave otherwise.
    Spared(Notice),
}

/// A quota of which more is taken than its queue may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueOver {
    /// Which queue.
    pub queue: String,
    /// Of which pool.
    pub pool: String,
    /// Which resource; `gpu` is counted in thousandths of a device.
    pub resource: String,
    /// What it takes.
    pub taken: u64,
    /// The most it could have.
    pub most: u64,
    /// It is so without the change too.
    pub before: bool,
}

/// Tries a change on a fork, and compares. O(futures): each step looks at what waits then.
///
/// # Errors
/// Where the fork cannot be copied: a fault.
pub fn plan(fork: Ledger, question: &Question<'_>) -> Result<Plan, RowError> {
    let (revision, now) = (fork.revision(), question.now.max(fork.clock()));
    let until = now.plus_ms(question.horizon_ms);
    let before = fork.fork()?;
    let mut without = Future::new(fork.fork()?, question.seed, now);
    without.run_until(until);

    let mut with = Future::new(fork, question.seed, now);
    let policy_refused = try_policy(&mut with, question);
    let is_policy = policy_refused.is_none() && question.change.policy != PolicyChange::default();
    // Who waits already has the first look at what policy changes, and keeps the starts that were promised to it.
    with.settle();
    let never = if is_policy { never_start(&before, with.ledger()) } else { BTreeMap::new() };
    let answers: Vec<Answer> =
        question.change.requests.iter().map(|request| with.submit(request, question.requester)).collect();
    with.settle();
    let requests: Vec<Option<Arc<Reservation>>> = answers
        .iter()
        .map(|answer| id_of(answer).and_then(|id| with.ledger().reservation(id).cloned()))
        .collect();
    let over_quota = over_quota(&before, with.ledger());
    let moved_nodes = moved_nodes(&before, with.ledger());
    with.run_until(until);

    let planned = answers.into_iter().zip(requests).map(|(answer, reservation)| Planned {
        expected_start: id_of(&answer).and_then(|id| start_of(&with, id)),
        never: matches!(&answer.outcome, Outcome::Refused(refusal)
            if refusal.reason == plimsoll_ledger::Reason::Infeasible),
        answer,
        reservation,
    });
    let whole = with.is_whole() && without.is_whole();
    Ok(Plan {
        revision,
        now,
        // Where nothing is left to happen, that holds to the horizon.
        until: if whole { until } else { with.now().min(without.now()).max(now) },
        whole,
        policy_refused,
        requests: planned.collect(),
        effects: effects(&before, &without, &with, never, now),
        over_quota,
        moved_nodes,
    })
}

fn try_policy(with: &mut Future, question: &Question<'_>) -> Option<Refusal> {
    let PolicyChange { put, delete, if_revision } = &question.change.policy;
    if put.is_empty() && delete.is_empty() {
        return None;
    }
    let command =
        Command::ApplyPolicy { put: put.clone(), delete: delete.clone(), if_revision: *if_revision };
    match with.change(question.requester, command).outcome {
        Outcome::Refused(refusal) => Some(refusal),
        _ => None,
    }
}

fn id_of(answer: &Answer) -> Option<ReservationId> {
    match &answer.outcome {
        Outcome::Reservation(reservation) => Some(reservation.id),
        _ => None,
    }
}

fn start_of(future: &Future, id: ReservationId) -> Option<LedgerTime> {
    future.starts().get(&id).copied()
}

/// Those who wait and could have started one day, and no longer can under the new policy.
fn never_start(before: &Ledger, after: &Ledger) -> BTreeMap<ReservationId, Vec<Blocker>> {
    let (mut then, mut now) = (Planner::new(before, 0), Planner::new(after, 0));
    let waiting = after.reservations().filter(|reservation| reservation.state == State::Pending);
    let mut found = BTreeMap::new();
    for reservation in waiting.take(MOST_ASKED) {
        let (request, requester) = (&reservation.request, reservation.requester.as_str());
        if let Verdict::Infeasible(blockers) = now.place_for(after, request, requester)
            && !matches!(then.place_for(before, request, requester), Verdict::Infeasible(_))
        {
            found.insert(reservation.id, blockers);
        }
    }
    found
}

fn effects(
    before: &Ledger,
    without: &Future,
    with: &Future,
    mut never: BTreeMap<ReservationId, Vec<Blocker>>,
    now: LedgerTime,
) -> Vec<Effect> {
    let mut found = Vec::new();
    for reservation in before.reservations().filter(|reservation| !reservation.state.is_final()) {
        let id = reservation.id;
        let mut push = |kind| found.push(Effect { reservation: Arc::clone(reservation), kind });
        match (without.notices().get(&id), with.notices().get(&id)) {
            (None, Some(notice)) => push(EffectKind::Preempted(*notice)),
            (Some(notice), None) => push(EffectKind::Spared(*notice)),
            _ => {}
        }
        if !reservation.is_waiting() {
            continue;
        }
        if let Some(blockers) = never.remove(&id) {
            push(EffectKind::NeverStarts(blockers));
            continue;
        }
        match (start_of(without, id), start_of(with, id)) {
            (from, Some(to)) if to <= now && from.is_none_or(|from| from > now) => {
                push(EffectKind::StartsNow { from });
            }
            (Some(from), to) if to.is_none_or(|to| to > from) => push(EffectKind::Delayed { from, to }),
            (from, Some(to)) if from.is_none_or(|from| from > to) => push(EffectKind::Earlier { from, to }),
            _ => {}
        }
    }
    found.sort_by_key(|effect| (effect.kind.rank(), effect.reservation.id));
    found
}

impl EffectKind {
    fn rank(&self) -> u8 {
        match self {
            EffectKind::Preempted(_) => 0,
            EffectKind::NeverStarts(_) => 1,
            EffectKind::Delayed { .. } => 2,
            EffectKind::StartsNow { .. } => 3,
            EffectKind::Earlier { .. } => 4,
            EffectKind::Spared(_) => 5,
        }
    }
}

fn over_quota(before: &Ledger, after: &Ledger) -> Vec<QueueOver> {
    let mut found = Vec::new();
    for queue in after.queues() {
        let quota = after.quota();
        for (pool, resource, cell) in quota.cells(&queue.name) {
            let is_over = |ledger: &Ledger| {
                ledger.quota().over(&queue.name, pool, resource) == Some(queue.name.as_str())
            };
            if !is_over(after) {
                continue;
            }
            let most = quota.potential(&queue.name, pool, resource).unwrap_or_default();
            found.push(QueueOver {
                queue: queue.name.clone(),
                pool: pool.to_owned(),
                resource: resource.to_owned(),
                taken: cell.usage.0,
                most: most.0,
                before: before.queue(&queue.name).is_some() && is_over(before),
            });
        }
    }
    found
}

fn moved_nodes(before: &Ledger, after: &Ledger) -> Vec<(String, String, String)> {
    let moved = after.nodes().filter_map(|node| {
        let was = before.node(node.id)?;
        (was.pool != node.pool).then(|| (node.name().to_owned(), was.pool.clone(), node.pool.clone()))
    });
    moved.collect()
}
