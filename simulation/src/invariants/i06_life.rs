//! I6: final states are final; time ends nothing before its time, and only through `Expire`; a renewal never shortens.

use plimsoll_ledger::{Command, EndReason, Reservation, State};
use plimsoll_types::LedgerTime;

use super::{Findings, Invariant};
use crate::oracle::Step;

/// See the module.
pub(super) struct Life;

impl Invariant for Life {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        let now = step.after.log_time;
        for (before, after) in step.moved() {
            let Some(before) = before else { continue };
            if before.state.is_final() {
                let detail = format!("{} was {}, now {}", after.id, before.state.name(), after.state.name());
                findings.add("I6", step.revision, detail);
            }
            if let Some(due) = after.end_reason.and_then(|reason| due(before, reason)) {
                let by_expire = matches!(step.entry.command, Command::Expire { .. });
                if !by_expire || now < due {
                    let detail = format!(
                        "{} ended {:?} at {now}, due {due}, by {:?}",
                        after.id, after.end_reason, step.entry.command
                    );
                    findings.add("I6", step.revision, detail);
                }
            }
            let renewed =
                matches!(&step.entry.command, Command::Renew { reservation, .. } if *reservation == after.id);
            if renewed && step.has_effect() && after.resume_state != State::Preempting {
                let bought = cap(now.plus_ms(after.ttl_ms), after.hard_end);
                if after.deadline < bought || after.deadline < before.deadline {
                    let detail = format!("{} renewed to {}, not {bought}", after.id, after.deadline);
                    findings.add("I6", step.revision, detail);
                }
            }
        }
        let gone =
            step.before.reservations.iter().filter(|(id, _)| !step.after.reservations.contains_key(id));
        for (id, before) in gone.filter(|(_, before)| !before.state.is_final()) {
            findings.add("I6", step.revision, format!("{id} vanished while {}", before.state.name()));
        }
    }
}

/// The moment before which time may not end a reservation for this reason; `None` for reasons that are not time.
fn due(before: &Reservation, reason: EndReason) -> Option<LedgerTime> {
    match reason {
        EndReason::NotConfirmed | EndReason::NotRenewed | EndReason::WaitedTooLong => Some(before.deadline),
        EndReason::MaxDuration => Some(before.hard_end),
        EndReason::NotRepaired => Some(before.repair().map_or(LedgerTime(u64::MAX), |repair| repair.until)),
        _ => None,
    }
}

fn cap(deadline: LedgerTime, hard_end: LedgerTime) -> LedgerTime {
    if hard_end.0 > 0 { deadline.min(hard_end) } else { deadline }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};
    use crate::oracle::Picture;

    fn after(before: Reservation, after: Reservation) -> Step {
        let mut step = step(&[node(0)], &[after]);
        let reservations = [(before.id, Arc::new(before))].into();
        step.before = Arc::new(Picture { reservations, ..Picture::default() });
        step
    }

    #[test]
    fn what_is_over_stays_over() {
        let mut over = reservation(1);
        over.state = State::Released;
        assert_eq!(found(&mut Life, &after(over, reservation(1))), ["I6"]);
    }

    #[test]
    fn an_early_end_or_one_without_an_entry_is_found() {
        let mut ended = reservation(1);
        (ended.state, ended.end_reason) = (State::Expired, Some(EndReason::NotRenewed));
        let mut early = after(reservation(1), ended);
        early.entry.command = Command::Expire { limit: 1 };
        assert_eq!(found(&mut Life, &early), ["I6"]);
        early.after_mut().log_time = LedgerTime(1_000_000);
        assert_eq!(found(&mut Life, &early), Vec::<&str>::new());
        early.entry.command = Command::Upgrade { to: 1 };
        assert_eq!(found(&mut Life, &early), ["I6"]);
    }

    #[test]
    fn a_live_reservation_does_not_vanish() {
        let mut gone = after(reservation(1), reservation(2));
        gone.after_mut().reservations.clear();
        assert_eq!(found(&mut Life, &gone), ["I6"]);
    }
}
