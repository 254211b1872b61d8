//! Queues as rows.

use plimsoll_client::v1::{Queue, QueueStatus, QuotaStatus};
use plimsoll_types::quantity::{display_bytes, format_cpu_millis, format_duration_ms, format_resource};
use serde_json::Value;

use super::document;
use crate::output::{Column, Shown, share};

/// A queue with what it looks like now.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueRow {
    /// The queue.
    pub(crate) queue: Queue,
    /// What it looks like.
    pub(crate) status: QueueStatus,
}

impl Shown for QueueRow {
    const COLUMNS: &'static [Column<QueueRow>] =
        &[
            Column::new("QUEUE", |q, _| q.queue.name.clone()),
            Column::new("PARENT", |q, _| q.queue.parent.clone()),
            Column::new("WEIGHT", |q, _| format_cpu_millis(q.queue.weight_milli.unwrap_or(1_000).into())),
            Column::new("USED", |q, _| q.each(|quota| share_of(quota, quota.used, quota.quota))),
            Column::new("BORROWED", |q, _| {
                q.each(|quota| {
                    if quota.borrowed > 0 { amount(&quota.resource, quota.borrowed) } else { String::new() }
                })
            }),
            Column::new("PENDING", |q, _| q.status.pending.to_string()),
            Column::wide("ASIDE", |q, _| q.aside()),
            Column::wide("LEFT", |q, _| q.each(|quota| amount(&quota.resource, quota.available))),
            Column::wide("EXPECTS", |q, _| {
                q.each(|quota| match quota.expected {
                    0 => String::new(),
                    expected => amount(&quota.resource, expected),
                })
            }),
            Column::wide("SHARE", |q, _| match q.status.share_ppm {
                0 => String::new(),
                u64::MAX => "no weight".to_owned(),
                ppm => format!("{}.{}%", ppm / 10_000, ppm % 10_000 / 1_000),
            }),
            Column::wide("OVER TIME", |q, _| q.over_time()),
            Column::wide("BATCH", |q, _| {
                q.queue.batch.map_or_else(String::new, |batch| {
                    format!("{} every {}", batch.size, format_duration_ms(batch.interval_ms))
                })
            }),
            Column::wide("REVISION", |q, _| q.queue.revision.to_string()),
        ];

    fn id(&self) -> String {
        self.queue.name.clone()
    }

    fn json(&self) -> Value {
        let mut queue = document(&self.queue);
        queue["status"] = document(&self.status);
        queue
    }
}

impl QueueRow {
    /// Who is set aside, and what that takes: `12 spilled (3KiB)`.
    fn aside(&self) -> String {
        let kinds = [
            (self.status.spilled, "spilled", self.status.spilled_bytes),
            (self.status.compressed, "compressed", self.status.compressed_bytes),
        ];
        let some = kinds.into_iter().filter(|(count, ..)| *count > 0);
        let parts = some.map(|(count, how, bytes)| format!("{count} {how} ({})", display_bytes(bytes)));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// The mean of what it held of pools that go by use over time: `gpus/gpu 2.5`.
    fn over_time(&self) -> String {
        let each = self.status.over_time.iter();
        let each = each.map(|of| format!("{}/{} {}", of.pool, of.resource, amount(&of.resource, of.average)));
        each.collect::<Vec<_>>().join(", ")
    }

    /// Something of every quota that says anything: `gpus/gpu 3/4, gpus/cpu 12/16`.
    fn each(&self, text: impl Fn(&QuotaStatus) -> String) -> String {
        let parts =
            self.status.quotas.iter().map(|quota| (quota, text(quota))).filter(|(_, text)| !text.is_empty());
        parts
            .map(|(quota, text)| format!("{}/{} {text}", quota.pool, quota.resource))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn share_of(quota: &QuotaStatus, part: u64, whole: u64) -> String {
    match quota.resource.as_str() {
        "cpu" | "gpu" => share(part, whole, format_cpu_millis),
        "memory" => share(part, whole, display_bytes),
        _ => share(part, whole, |amount| amount.to_string()),
    }
}

pub(super) fn amount(resource: &str, amount: u64) -> String {
    match resource {
        "gpu" => format_cpu_millis(amount),
        "memory" => display_bytes(amount),
        _ => format_resource(resource, amount),
    }
}
