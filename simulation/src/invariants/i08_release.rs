//! I8: what is released returns, and returns exactly once.

use std::collections::BTreeSet;

use plimsoll_ledger::Command;
use plimsoll_types::ReservationId;

use super::{Findings, Invariant};
use crate::oracle::Step;

/// See the module.
#[derive(Default)]
pub(super) struct Release {
    ended: BTreeSet<ReservationId>,
}

impl Invariant for Release {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        let returned = step.moved().filter(|(before, after)| {
            after.state.is_final() && before.is_some_and(|before| before.state.is_occupying())
        });
        for (_, after) in returned {
            if !self.ended.insert(after.id) {
                findings.add("I8", step.revision, format!("{} returned twice", after.id));
            }
        }
        if let Command::Release { reservation: id, .. } | Command::Cancel { reservation: id } =
            step.entry.command
            && step.has_effect()
        {
            let over = step.after.reservations.get(&id).is_none_or(|one| one.state.is_final());
            let held = step.after.usage.values().any(|usage| usage.holders.contains(&id));
            if !over || held {
                findings.add("I8", step.revision, format!("{id} was released and still holds something"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_types::Revision;

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    #[test]
    fn a_release_that_frees_nothing_is_found() {
        let mut kept = step(&[node(0)], &[reservation(1)]);
        kept.entry.command = Command::Release { reservation: ReservationId(1), token: Revision(10) };
        assert_eq!(found(&mut Release::default(), &kept), ["I8"]);
    }

    #[test]
    fn a_second_return_is_found() {
        let mut over = reservation(1);
        over.state = plimsoll_ledger::State::Released;
        let before = step(&[node(0)], &[reservation(1)]).after;
        let mut twice = step(&[node(0)], &[over]);
        twice.before = before;
        let mut release = Release::default();
        assert_eq!(found(&mut release, &twice), Vec::<&str>::new());
        assert_eq!(found(&mut release, &twice), ["I8"]);
    }
}
