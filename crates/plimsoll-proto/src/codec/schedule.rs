//! Schedules and their windows, into their stored forms and back.

use plimsoll_ledger::{Command, Schedule, Users, Window};
use plimsoll_types::{LedgerTime, Revision};

use super::{CodecError, decode, encode};
use crate::log;

pub(super) fn encode(schedule: &Schedule) -> log::Schedule {
    log::Schedule {
        name: schedule.name.clone(),
        labels: encode::labels(&schedule.labels),
        pool: schedule.pool.clone(),
        resources: Some(encode::resources(&schedule.resources)),
        rule: schedule.rule.clone(),
        pipelines: schedule.users.pipelines.clone(),
        queues: schedule.users.queues.clone(),
        tenants: schedule.users.tenants.clone(),
        classes: schedule.users.classes.clone(),
        shorten: schedule.shorten,
        windows: schedule.windows.iter().map(encode_window).collect(),
        opened_until_ms: schedule.opened_until.0,
        swept_until_ms: schedule.swept_until.0,
        changed: schedule.changed.0,
    }
}

pub(super) fn decode(from: log::Schedule) -> Result<Schedule, CodecError> {
    Ok(Schedule {
        name: from.name,
        labels: decode::labels(from.labels)?,
        pool: from.pool,
        resources: decode::resources(from.resources)?,
        rule: from.rule,
        users: Users {
            pipelines: from.pipelines,
            queues: from.queues,
            tenants: from.tenants,
            classes: from.classes,
        },
        shorten: from.shorten,
        windows: from.windows.into_iter().map(decode_window).collect(),
        opened_until: LedgerTime(from.opened_until_ms),
        swept_until: LedgerTime(from.swept_until_ms),
        changed: Revision(from.changed),
    })
}

pub(super) fn encode_open(
    schedule: &str,
    changed: Revision,
    windows: &[Window],
    until: LedgerTime,
) -> log::OpenWindows {
    log::OpenWindows {
        schedule: schedule.to_owned(),
        changed: changed.0,
        windows: windows.iter().map(encode_window).collect(),
        until_ms: until.0,
    }
}

pub(super) fn decode_open(from: log::OpenWindows) -> Command {
    Command::OpenWindows {
        schedule: from.schedule,
        changed: Revision(from.changed),
        windows: from.windows.into_iter().map(decode_window).collect(),
        until: LedgerTime(from.until_ms),
    }
}

fn encode_window(window: &Window) -> log::Window {
    log::Window { start_ms: window.start.0, end_ms: window.end.0 }
}

fn decode_window(from: log::Window) -> Window {
    Window { start: LedgerTime(from.start_ms), end: LedgerTime(from.end_ms) }
}
