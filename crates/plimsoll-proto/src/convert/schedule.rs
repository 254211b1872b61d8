//! Schedules.

use plimsoll_calendar::Recurrence;
use plimsoll_ledger::limits::{MAX_ITEMS, MAX_PATTERN_BYTES, MAX_RULE_BYTES};
use plimsoll_ledger::{DEFAULT_POOL, Ledger, Schedule, Users};
use plimsoll_types::{Resources, Revision};

use super::Violation;
use super::check::Check;
use crate::v1;

/// A schedule from its message, its rule in canonical words.
///
/// # Errors
/// Everything that is wrong with it.
pub fn schedule_from_v1(from: &v1::Schedule) -> Result<Schedule, Vec<Violation>> {
    let mut check = Check::new();
    let schedule = schedule(&mut check, from);
    check.finish(schedule)
}

/// A schedule as a message.
pub fn schedule_to_v1(from: &Schedule) -> v1::Schedule {
    v1::Schedule {
        name: from.name.clone(),
        labels: from.labels.clone(),
        pool: from.pool.clone(),
        resources: from.resources.iter().map(|(name, amount)| (name.to_owned(), amount.0)).collect(),
        rule: from.rule.clone(),
        pipelines: from.users.pipelines.clone(),
        queues: from.users.queues.clone(),
        tenants: from.users.tenants.clone(),
        classes: from.users.classes.clone(),
        shorten: from.shorten,
        revision: from.changed.0,
    }
}

/// What a schedule looks like now. O(its windows).
pub fn schedule_status(from: &Schedule, ledger: &Ledger) -> v1::ScheduleStatus {
    let now = ledger.clock();
    let ahead = from.windows.iter().filter(|window| window.end > now);
    let used = ledger.calendar().held_by(&from.pool, &from.name);
    v1::ScheduleStatus {
        windows: ahead
            .map(|window| v1::ScheduleWindow { start_ms: window.start.0, end_ms: window.end.0 })
            .collect(),
        open: from.open_at(now).is_some(),
        opened_until_ms: from.opened_until.0,
        used: used.iter().map(|(name, amount)| (name.to_owned(), amount.0)).collect(),
    }
}

pub(super) fn schedule(check: &mut Check, from: &v1::Schedule) -> Schedule {
    check.name("name", &from.name);
    let pool = if from.pool.is_empty() { DEFAULT_POOL.to_owned() } else { from.pool.clone() };
    check.name("pool", &pool);
    let says_whose =
        [&from.pipelines, &from.queues, &from.tenants, &from.classes].iter().any(|some| !some.is_empty());
    // One that keeps nothing only says when, for requests that prefer its hours.
    let resources = match from.resources.is_empty() && !says_whose && !from.shorten {
        true => Resources::default(),
        false => super::resources::kept(check, &from.resources),
    };
    check.text("rule", &from.rule, MAX_RULE_BYTES);
    let rule = match from.rule.parse::<Recurrence>() {
        Ok(rule) => rule.to_string(),
        Err(error) => {
            check.fail("rule", error.to_string());
            String::new()
        }
    };
    let mut patterns = |field: &str, given: &[String]| -> Vec<String> {
        if given.len() > MAX_ITEMS {
            check.fail(field, format!("at most {MAX_ITEMS} are taken, {} are given", given.len()));
        }
        for pattern in given {
            if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
                check.fail(field, format!("{pattern:?} is not 1 to {MAX_PATTERN_BYTES} bytes long"));
            }
        }
        given.to_vec()
    };
    let users = Users {
        pipelines: patterns("pipelines", &from.pipelines),
        queues: patterns("queues", &from.queues),
        tenants: patterns("tenants", &from.tenants),
        classes: patterns("classes", &from.classes),
    };
    Schedule {
        name: from.name.clone(),
        labels: check.labels("labels", &from.labels),
        pool,
        resources,
        rule,
        users,
        shorten: from.shorten,
        changed: Revision(0),
        ..Schedule::default()
    }
}
