//! I9: what a client was told is done is in the log for ever, and a grant it holds is there until an entry ends it.

use std::collections::BTreeSet;

use plimsoll_ledger::{Outcome, Row};
use plimsoll_types::{ReservationId, Revision};

use super::{Findings, Invariant};
use crate::evidence::Unreadable;
use crate::history::{Call, Done};
use crate::oracle::Case;

/// See the module.
pub(super) struct Acknowledged;

impl Invariant for Acknowledged {
    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        let holders = match holders(case) {
            Ok(holders) => holders,
            Err(error) => return findings.add("I9", Revision(0), error.to_string()),
        };
        let ended: BTreeSet<ReservationId> =
            case.steps.values().flat_map(|step| step.ended.iter().copied()).collect();
        for call in case.calls {
            let Some(done) = call.answer.done() else { continue };
            if call.request.is_logged() {
                check_entry(case, call, done, findings);
            }
            let Some(id) = granted(done).filter(|id| !ended.contains(id)) else { continue };
            for (replica, _) in holders.iter().filter(|(_, held)| !held.contains(&id)) {
                let detail = format!("{id} was granted, nothing ended it, and c{replica} does not have it");
                findings.add("I9", Revision(done.revision), detail);
            }
        }
    }
}

/// What each replica says is granted.
fn holders(case: &Case<'_>) -> Result<Vec<(u64, BTreeSet<ReservationId>)>, Unreadable> {
    let mut holders = Vec::new();
    for replica in &case.evidence.replicas {
        let held = replica.read_rows()?.into_iter().filter_map(|row| match row {
            Row::Reservation(one) if one.state.is_occupying() => Some(one.id),
            _ => None,
        });
        holders.push((replica.id, held.collect()));
    }
    Ok(holders)
}

/// The entry that the client was told of is there, is its own, and came to what it was told.
fn check_entry(case: &Case<'_>, call: &Call, done: &Done, findings: &mut Findings) {
    let revision = Revision(done.revision);
    let id = call.request.request_id();
    let Some(step) = case.steps.get(&revision) else {
        findings.add("I9", revision, format!("{id} was acknowledged, and the log ends before"));
        return;
    };
    let same = step.request_id == id && !matches!(step.outcome, Outcome::Refused(_));
    let told = match (&step.outcome, &done.reservation) {
        (Outcome::Reservation(one), Some(told)) => {
            one.id.to_string() == told.id
                && one.token.0 == told.token
                && one.members.len() == told.allocations.len()
        }
        (_, None) => true,
        (_, Some(_)) => false,
    };
    if !same || !told {
        let detail = format!("{id} was acknowledged as {done:?}; the log has {step:?}");
        findings.add("I9", revision, detail);
    }
}

/// The reservation that an answer showed as granted.
fn granted(done: &Done) -> Option<ReservationId> {
    let told = done.reservation.as_ref().filter(|told| told.token > 0)?;
    told.id.parse().ok()
}

#[cfg(test)]
mod tests {
    use crate::invariants::fixture::Good;

    #[test]
    fn a_grant_that_a_replica_lost_is_found() {
        let mut good = Good::new();
        assert_eq!(good.judge(), Vec::<&str>::new());
        good.lose_row();
        assert!(good.judge().contains(&"I9"));
    }

    #[test]
    fn an_acknowledged_entry_that_is_not_in_the_log_is_found() {
        let mut good = Good::new();
        good.cut_log();
        assert!(good.judge().contains(&"I9"));
    }
}
