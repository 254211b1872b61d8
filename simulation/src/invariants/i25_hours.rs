//! I25 of hours: nobody who prefers the hours of a schedule is granted anything outside of them before the longest wait is over.

use std::sync::Arc;

use plimsoll_ledger::{Reservation, Schedule};
use plimsoll_types::LedgerTime;

use super::{Findings, Invariant};
use crate::oracle::Step;

/// See the module.
pub(super) struct Hours;

impl Invariant for Hours {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        for (before, after) in step.moved() {
            // A gang that gets back what it lost was granted before.
            let goes_on = before.is_some_and(|one| one.state.is_occupying());
            let granted = after.token == step.revision && after.state.is_occupying() && !goes_on;
            let Some(hours) = after.request.hours.as_ref().filter(|_| granted) else { continue };
            let now = step.after.log_time;
            let until = after.submitted_at.0.saturating_add(hours.longest_wait_ms);
            let schedule = step.before.schedules.get(&hours.schedule);
            if schedule.is_some_and(|schedule| !is_open(schedule, now)) && now.0 < until {
                findings.add("I25", step.revision, told(after, now, until));
            }
        }
    }
}

fn is_open(schedule: &Arc<Schedule>, now: LedgerTime) -> bool {
    schedule.windows.iter().any(|window| window.start <= now && now < window.end)
}

fn told(granted: &Reservation, now: LedgerTime, until: u64) -> String {
    let hours = granted.request.hours.as_ref().map_or("", |hours| &hours.schedule);
    format!("{} was granted at {} outside of {hours}, and would have waited until {until}", granted.id, now.0)
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{PreferredHours, Request, Window};

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    /// A grant at 1,000 of one that came then and waits so long for hours that begin and end there.
    fn granted(longest_wait_ms: u64, start: u64, end: u64) -> Step {
        let mut one = reservation(1);
        let hours = Some(PreferredHours { schedule: "off-peak".to_owned(), longest_wait_ms });
        one.request = Arc::new(Request { hours, ..Request::default() });
        let mut step = step(&[node(0)], &[one]);
        let windows = vec![Window { start: LedgerTime(start), end: LedgerTime(end) }];
        let schedule = Schedule { name: "off-peak".to_owned(), windows, ..Schedule::default() };
        step.before_mut().schedules.insert(schedule.name.clone(), Arc::new(schedule));
        step
    }

    #[test]
    fn who_starts_before_its_hours_or_as_they_end_is_found() {
        assert_eq!(found(&mut Hours, &granted(5_000, 1_000, 1_001)), Vec::<&str>::new());
        assert_eq!(found(&mut Hours, &granted(5_000, 1_001, 9_000)), ["I25"], "before");
        assert_eq!(found(&mut Hours, &granted(5_000, 500, 1_000)), ["I25"], "as they end");
    }

    #[test]
    fn who_has_waited_long_enough_starts_at_any_time_and_so_does_who_waits_for_a_schedule_that_is_gone() {
        assert_eq!(found(&mut Hours, &granted(0, 2_000, 9_000)), Vec::<&str>::new());
        let mut step = granted(5_000, 2_000, 9_000);
        step.before_mut().schedules.clear();
        assert_eq!(found(&mut Hours, &step), Vec::<&str>::new());
    }
}
