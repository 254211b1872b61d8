//! When schedules open: the leader reads their rules with its calendar and proposes the windows of the next weeks, so that time zones never
//! enter the ledger.

use plimsoll_calendar::Recurrence;
use plimsoll_ledger::limits::MAX_WINDOWS;
use plimsoll_ledger::{Command, Ledger, Schedule, Window};
use plimsoll_types::LedgerTime;

/// How far ahead windows are worked out, in milliseconds.
const HORIZON_MS: u64 = 35 * 24 * 3_600_000;
/// Windows that suffice for now: with fewer ahead, and less than half of the horizon, they are worked out anew.
const ENOUGH: usize = MAX_WINDOWS / 2;

/// Windows of every schedule that has too few ahead. O(schedules), and O(days of the horizon) for each of those.
pub(super) fn due(ledger: &Ledger, now: LedgerTime) -> Vec<Command> {
    ledger.schedules().filter(|schedule| is_due(schedule, now)).filter_map(|one| open(one, now)).collect()
}

fn is_due(schedule: &Schedule, now: LedgerTime) -> bool {
    if schedule.opened_until.0 == 0 {
        return true;
    }
    let ahead = schedule.windows.iter().filter(|window| window.end > now).count();
    schedule.opened_until < now.plus_ms(HORIZON_MS / 2) && ahead < ENOUGH
}

/// `None` where the rule is in words that this build does not know: the windows stay as they are.
fn open(schedule: &Schedule, now: LedgerTime) -> Option<Command> {
    let rule = match schedule.rule.parse::<Recurrence>() {
        Ok(rule) => rule,
        Err(error) => {
            tracing::debug!(schedule = schedule.name, %error, "a rule that this build cannot read");
            return None;
        }
    };
    let horizon = now.plus_ms(HORIZON_MS);
    let found = rule.occurrences(now.0, horizon.0, MAX_WINDOWS);
    let until = match found.last() {
        Some(last) if last.end_ms == u64::MAX => LedgerTime(u64::MAX),
        Some(last) if found.len() >= MAX_WINDOWS => LedgerTime(last.start_ms),
        _ => horizon,
    };
    let window = |found: &plimsoll_calendar::Window| Window {
        start: LedgerTime(found.start_ms),
        end: LedgerTime(found.end_ms),
    };
    Some(Command::OpenWindows {
        schedule: schedule.name.clone(),
        changed: schedule.changed,
        windows: found.iter().map(window).collect(),
        until,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 3_600_000;

    fn opened(rule: &str, now: LedgerTime) -> Schedule {
        let schedule = Schedule { rule: rule.to_owned(), ..Schedule::default() };
        let Some(Command::OpenWindows { windows, until, .. }) = open(&schedule, now) else {
            panic!("{rule} opens")
        };
        Schedule { windows, opened_until: until, ..schedule }
    }

    #[test]
    fn what_was_worked_out_is_enough_for_a_while_whatever_the_rule() {
        let now = LedgerTime(1_800_000_000_000);
        for rule in [
            "always",
            "22:00-06:00 UTC",
            "rrule FREQ=DAILY;BYHOUR=0,4,8,12,16,20 for 1h UTC",
            "rrule FREQ=MONTHLY;BYDAY=5MO for 1h UTC",
            "at 2020-01-01T00:00:00Z for 1h",
        ] {
            let schedule = opened(rule, now);
            assert!(is_due(&Schedule { rule: rule.to_owned(), ..Schedule::default() }, now));
            assert!(!is_due(&schedule, now), "{rule}");
            assert!(!is_due(&schedule, now.plus_ms(2 * DAY_MS)), "{rule}");
        }
        assert!(is_due(&opened("22:00-06:00 UTC", now), now.plus_ms(30 * DAY_MS)));
        assert!(!is_due(&opened("always", now), now.plus_ms(3_000 * DAY_MS)));
    }

    #[test]
    fn a_rule_of_other_words_is_left_alone() {
        let schedule = Schedule { rule: "every full moon".to_owned(), ..Schedule::default() };
        assert_eq!(open(&schedule, LedgerTime(0)), None);
    }
}
