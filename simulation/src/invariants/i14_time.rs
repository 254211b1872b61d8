//! I14: ledger time never goes back, and a new leader ends no lease for a full length.

use plimsoll_ledger::{Command, EndReason};
use plimsoll_types::LedgerTime;

use super::{Findings, Invariant};
use crate::oracle::Step;

/// See the module.
#[derive(Default)]
pub(super) struct Time {
    led_since: LedgerTime,
}

impl Invariant for Time {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        let (before, now) = (step.before.log_time, step.after.log_time);
        if now < before {
            findings.add("I14", step.revision, format!("time went back from {before} to {now}"));
        }
        let lapsed = step.moved().filter(|(_, after)| after.end_reason == Some(EndReason::NotRenewed));
        for (earlier, after) in lapsed {
            let Some(earlier) = earlier.filter(|earlier| !earlier.state.is_final()) else { continue };
            let mut safe = self.led_since.plus_ms(earlier.ttl_ms);
            if earlier.hard_end.0 > 0 {
                safe = safe.min(earlier.hard_end);
            }
            if earlier.granted_at < self.led_since && now < safe {
                let detail = format!("{} lapsed at {now}; its leader came at {}", after.id, self.led_since);
                findings.add("I14", step.revision, detail);
            }
        }
        if matches!(step.entry.command, Command::BecomeLeader { .. }) {
            self.led_since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    #[test]
    fn time_that_goes_back_is_found() {
        let mut back = step(&[node(0)], &[]);
        back.after_mut().log_time = LedgerTime(0);
        back.before_mut().log_time = LedgerTime(1);
        assert_eq!(found(&mut Time::default(), &back), ["I14"]);
    }

    #[test]
    fn a_lease_that_lapses_right_after_an_election_is_found() {
        let mut lapsed = reservation(1);
        (lapsed.state, lapsed.end_reason) = (plimsoll_ledger::State::Expired, Some(EndReason::NotRenewed));
        let mut step = step(&[node(0)], &[lapsed]);
        step.before_mut().reservations.insert(reservation(1).id, reservation(1).into());
        step.after_mut().log_time = LedgerTime(70_000);
        assert_eq!(found(&mut Time { led_since: LedgerTime(69_000) }, &step), ["I14"]);
        assert_eq!(found(&mut Time { led_since: LedgerTime(5_000) }, &step), Vec::<&str>::new());
    }
}
