//! I9: what a client was told is done is in the log for ever, and a grant it holds is there until an entry ends it.

use plimsoll_ledger::{Outcome, Row};
use plimsoll_types::ReservationId;

use super::{Findings, Invariant};
use crate::history::{Call, Done};
use crate::oracle::{Brief, Case};
use crate::request::Request;

/// See the module.
pub(super) struct Acknowledged;

impl Invariant for Acknowledged {
    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        for call in case.calls {
            let Some(done) = call.answer.done() else { continue };
            if !matches!(call.request, Request::Read(_)) {
                check_entry(case, call, done, findings);
            }
            if let Some(id) = granted(done) {
                check_rows(case, id, done.revision, findings);
            }
        }
    }
}

/// The entry that the client was told of is there, is its own, and came to what it was told.
fn check_entry(case: &Case<'_>, call: &Call, done: &Done, findings: &mut Findings) {
    let revision = plimsoll_types::Revision(done.revision);
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

/// Every replica has the grant, or the entry that ended it.
fn check_rows(case: &Case<'_>, id: ReservationId, revision: u64, findings: &mut Findings) {
    let revision = plimsoll_types::Revision(revision);
    let ended = |step: &Brief| step.ended.contains(&id);
    let was_ended = case.steps.values().any(ended);
    for replica in &case.evidence.replicas {
        let rows = match replica.read_rows() {
            Ok(rows) => rows,
            Err(error) => return findings.add("I9", revision, error.to_string()),
        };
        let row = rows.iter().find_map(|row| match row {
            Row::Reservation(one) if one.id == id => Some(one),
            _ => None,
        });
        let there = row.is_some_and(|one| one.state.is_occupying());
        if !there && !was_ended {
            let detail = format!("{id} was granted, nothing ended it, and c{} does not have it", replica.id);
            findings.add("I9", revision, detail);
        }
    }
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
