//! Schedules as rows.

use std::collections::BTreeMap;

use plimsoll_client::v1::{Schedule, ScheduleStatus};
use serde_json::Value;

use super::document;
use super::queue::amount;
use crate::output::{Column, Shown, absolute, left};

/// A schedule with what it looks like now.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScheduleRow {
    /// The schedule.
    pub(crate) schedule: Schedule,
    /// What it looks like.
    pub(crate) status: ScheduleStatus,
}

impl Shown for ScheduleRow {
    const COLUMNS: &'static [Column<ScheduleRow>] = &[
        Column::new("SCHEDULE", |s, _| s.schedule.name.clone()),
        Column::new("POOL", |s, _| s.schedule.pool.clone()),
        Column::new("KEEPS", |s, _| amounts(&s.schedule.resources)),
        Column::new("WHEN", |s, _| s.schedule.rule.clone()),
        Column::new("STATE", |s, _| if s.status.open { "open" } else { "closed" }.to_owned()),
        Column::new("NEXT", |s, view| match s.status.windows.first() {
            None => String::new(),
            Some(window) if !s.status.open => format!("opens {}", absolute(window.start_ms, view.utc)),
            Some(window) if window.end_ms == u64::MAX => "stays open".to_owned(),
            Some(window) => format!("closes in {}", left(window.end_ms, view.now_ms)),
        }),
        Column::new("USED", |s, _| amounts(&s.status.used)),
        Column::new("FOR", |s, _| s.users()),
        Column::wide("OTHERS", |s, _| if s.schedule.shorten { "cut" } else { "refused" }.to_owned()),
        Column::wide("REVISION", |s, _| s.schedule.revision.to_string()),
    ];

    fn id(&self) -> String {
        self.schedule.name.clone()
    }

    fn json(&self) -> Value {
        let mut schedule = document(&self.schedule);
        schedule["status"] = document(&self.status);
        schedule
    }
}

impl ScheduleRow {
    fn users(&self) -> String {
        let lists = [
            ("", &self.schedule.pipelines),
            ("queue ", &self.schedule.queues),
            ("tenant ", &self.schedule.tenants),
            ("class ", &self.schedule.classes),
        ];
        let all = lists.iter().flat_map(|(what, list)| list.iter().map(move |one| format!("{what}{one}")));
        let all: Vec<String> = all.collect();
        if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
    }
}

fn amounts(of: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> =
        of.iter().map(|(name, kept)| format!("{} {name}", amount(name, *kept))).collect();
    parts.join(", ")
}
