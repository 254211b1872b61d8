//! When work runs: schedules that keep something or only say when, requests for later, and requests that would rather run in certain hours.

use std::collections::BTreeMap;

use plimsoll_client::v1;
use plimsoll_client::v1::policy_object::Object;

use crate::board::Board;
use crate::clock::EPOCH_MS;
use crate::rng::Rng;

/// Schedules that an operator puts and deletes: two that keep something, and one that only says when.
pub(super) const SCHEDULES: [&str; 3] = ["kept", "nightly", "off-peak"];
/// Minutes of the day at which a simulation begins, and seconds of that minute: 22:13:20 UTC.
const BEGIN_MINUTE: u64 = EPOCH_MS / 60_000 % 1_440;
/// The day of it.
const DAY: &str = "2023-11-14";

/// A schedule, with windows that open within some seconds and are soon over.
pub(super) fn schedule(rng: &mut Rng) -> v1::PolicyObject {
    let name = rng.weighted(&[(3, SCHEDULES[0]), (2, SCHEDULES[1]), (4, SCHEDULES[2])]).unwrap_or_default();
    let rule = rule(rng);
    let mut schedule = v1::Schedule { name: name.to_owned(), rule, ..Default::default() };
    if name != SCHEDULES[2] {
        let amounts = [("cpu", 1_000 * rng.between(2, 12)), ("gpu", 500 * rng.between(0, 4))];
        let some = amounts.into_iter().filter(|(_, amount)| *amount > 0);
        schedule.resources = some.map(|(name, amount)| (name.to_owned(), amount)).collect::<BTreeMap<_, _>>();
        schedule.shorten = rng.percent(40);
        let one = |text: &str| vec![text.to_owned()];
        match rng.between(0, 3) {
            0 => schedule.tenants = one("a*"),
            1 => schedule.queues = one("v*"),
            2 => schedule.pipelines = one("nightly-*"),
            // From everybody, as for maintenance.
            _ => {}
        }
    }
    v1::PolicyObject { object: Some(Object::Schedule(schedule)) }
}

/// Mostly once, in some seconds; else each day at the minute that comes next; now and then for ever.
fn rule(rng: &mut Rng) -> String {
    let now_ms = EPOCH_MS % 60_000 + Board::now_ms();
    let minute = BEGIN_MINUTE + now_ms / 60_000;
    let clock = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    match rng.weighted(&[(6, 0), (2, 1), (2, 2), (1, 3)]).unwrap_or(0) {
        0 => {
            let second = now_ms / 1_000 + rng.between(0, 12);
            let (minute, length) = (BEGIN_MINUTE + second / 60, rng.between(2, 12));
            format!("at {DAY}T{}:{:02}Z for {length}s", clock(minute), second % 60)
        }
        1 => format!("{}-{} UTC", clock(minute + 1), clock(minute + 2)),
        2 => {
            let (hour, minute) = ((minute + 1) / 60 % 24, (minute + 1) % 60);
            format!("rrule FREQ=DAILY;BYHOUR={hour};BYMINUTE={minute} for {}s UTC", rng.between(5, 40))
        }
        _ => "always".to_owned(),
    }
}

/// Makes a request one for later, or one that would rather run in certain hours, now and then.
pub(super) fn perhaps(rng: &mut Rng, spec: &mut v1::ReservationSpec) {
    if rng.percent(8) {
        spec.labels.insert("pipeline".to_owned(), "nightly-1".to_owned());
    }
    match rng.weighted(&[(84, 0), (5, 1), (11, 2)]).unwrap_or(0) {
        1 => {
            spec.start_at_ms = EPOCH_MS + Board::now_ms() + rng.between(500, 8_000);
            spec.max_duration_ms = rng.between(1_000, 6_000);
        }
        2 => {
            let schedule = rng.weighted(&[(1, SCHEDULES[0]), (6, SCHEDULES[2])]).unwrap_or_default();
            let longest_wait_ms = rng.between(1_000, 9_000);
            spec.hours = Some(v1::PreferredHours { schedule: schedule.to_owned(), longest_wait_ms });
            let deadline_ms = if rng.percent(50) { 0 } else { rng.between(2_000, 12_000) };
            spec.wait = Some(v1::WaitPolicy { queue: true, deadline_ms });
        }
        _ => {}
    }
}
