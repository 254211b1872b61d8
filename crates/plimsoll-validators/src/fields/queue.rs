//! Queues. Their amounts are the nominal ones, all pools together.

use plimsoll_expr::{Unit, Value};
use plimsoll_ledger::{GPU, Overflow, Queue};

use super::{Field, flag, labels, list, number, text, texts, word, words};

const OVERFLOW: [(&str, Overflow); 3] = [
    ("reject", Overflow::Reject),
    ("spill_to_disk", Overflow::SpillToDisk),
    ("compress", Overflow::Compress),
];

pub(super) fn fields() -> Vec<Field<Queue>> {
    vec![
        text("name", |of| Value::text(&of.name)),
        words("labels", |of| labels(&of.labels)),
        text("parent", |of| Value::text(&of.parent)),
        number("weight", Unit::Plain, |of| Value::milli(of.weight_milli.into())),
        number("max_pending", Unit::Plain, |of| Value::count(of.max_pending.into())),
        text("overflow", |of| word(&OVERFLOW, &of.overflow)),
        list("admins", |of| texts(&of.admins)),
        flag("guaranteed_processing", |of| Value::Bool(of.guaranteed_processing)),
        number("batch_size", Unit::Plain, |of| Value::count(of.batch.map_or(0, |batch| batch.size.into()))),
        number("batch_interval", Unit::Seconds, |of| {
            Value::milli(of.batch.map_or(0, |batch| batch.interval_ms))
        }),
        flag("has_spot_policy", |of| Value::Bool(of.spot.is_some())),
        number("spot_share", Unit::Ratio, |of| {
            Value::milli(of.spot.as_ref().map_or(1_000, |spot| spot.share_permille.into()))
        }),
        list("pools", |of| texts(of.quotas.keys())),
        number("cpu", Unit::Cores, |of| Value::milli(nominal(of, "cpu"))),
        number("memory", Unit::Bytes, |of| Value::count(nominal(of, "memory"))),
        number("gpu", Unit::Plain, |of| Value::milli(nominal(of, GPU))),
    ]
}

fn nominal(queue: &Queue, resource: &str) -> u64 {
    let quotas = queue.quotas.values().filter_map(|quotas| quotas.get(resource));
    quotas.fold(0u64, |sum, quota| sum.saturating_add(quota.nominal.0))
}
