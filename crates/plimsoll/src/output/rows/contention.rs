//! Contentions as rows.

use plimsoll_client::v1::{Contention, ContentionResolve, ContentionSeverity};
use serde_json::Value;

use super::{document, word};
use crate::output::{Column, Shown, ago, short_duration};

impl Shown for Contention {
    const COLUMNS: &'static [Column<Contention>] = &[
        Column::new("CONTENTION", |one, _| format!("{}/{}", one.pool, one.resource)),
        Column::new("SEVERITY", |one, _| severity(one.severity())),
        Column::new("WAITING", |one, _| one.waiting.to_string()),
        Column::new("LONGEST", |one, _| short_duration(one.longest_wait_ms)),
        Column::new("MISSING", |one, _| amount(one, one.demand.saturating_sub(one.open))),
        Column::new("OPEN", |one, _| amount(one, one.open)),
        Column::new("CAPACITY", |one, _| amount(one, one.capacity)),
        Column::new("RESOLVED BY", |one, _| one.resolving().map(resolve).collect::<Vec<_>>().join(", ")),
        Column::new("SINCE", |one, view| ago(one.open_time_ms, view.now_ms)),
        Column::wide("ENDED", |one, view| ago(one.end_time_ms, view.now_ms)),
        Column::wide("PEAK", |one, _| severity(one.peak())),
        Column::wide("CLASSES", |one, _| one.classes.join(", ")),
        Column::wide("ELSEWHERE", |one, _| one.elsewhere.to_string()),
        Column::wide("REVISION", |one, _| one.revision.to_string()),
    ];

    fn id(&self) -> String {
        format!("{}/{}", self.pool, self.resource)
    }

    fn json(&self) -> Value {
        document(self)
    }
}

fn severity(of: ContentionSeverity) -> String {
    word(of.as_str_name(), "CONTENTION_SEVERITY_")
}

fn resolve(kind: ContentionResolve) -> String {
    word(kind.as_str_name(), "CONTENTION_RESOLVE_")
}

/// An amount of the resource in the unit in which people write it; GPUs in devices.
fn amount(one: &Contention, amount: u64) -> String {
    use plimsoll_types::quantity::{format_cpu_millis, format_resource};
    if one.resource == "gpu" { format_cpu_millis(amount) } else { format_resource(&one.resource, amount) }
}

/// One in a sentence: how bad it is, what is missing, and who waits.
pub(crate) fn contention_line(one: &Contention) -> String {
    let waits = if one.waiting == 1 { "1 request waits" } else { &format!("{} requests wait", one.waiting) };
    let missing = amount(one, one.demand.saturating_sub(one.open));
    let capacity = amount(one, one.capacity);
    let mut line = format!(
        "{}/{} is {}: {waits}, the longest for {}; {missing} more asked than open, of {capacity}",
        one.pool,
        one.resource,
        severity(one.severity()),
        short_duration(one.longest_wait_ms),
    );
    let resolving: Vec<String> = one.resolving().map(resolve).collect();
    if !resolving.is_empty() {
        line.push_str(&format!("; resolved by {}", resolving.join(", ")));
    }
    line
}
