//! Priority classes, and node limits.

use plimsoll_expr::{Unit, Value};
use plimsoll_ledger::{Class, NodeLimits, Qos};

use super::{Field, cpu, flag, list, memory, number, numbers, other, text, texts, word};

pub(super) fn fields() -> Vec<Field<Class>> {
    vec![
        text("name", |of| Value::text(&of.name)),
        number("priority", Unit::Plain, |of| Value::Number(of.priority.into())),
        flag("preemptible", |of| Value::Bool(of.preemptible)),
        number("default_ttl", Unit::Seconds, |of| Value::milli(of.default_ttl_ms)),
        number("default_duration", Unit::Seconds, |of| Value::milli(of.default_duration_ms)),
        number("grace", Unit::Seconds, |of| Value::milli(of.grace_ms)),
        number("min_run", Unit::Seconds, |of| Value::milli(of.min_run_ms)),
        text("qos", |of| of.qos.map_or_else(|| Value::text(""), |qos| word(&Qos::NAMED, &qos))),
        flag("has_latency_target", |of| Value::Bool(of.latency_target_ms.is_some())),
        number("latency_target", Unit::Seconds, |of| Value::milli(of.latency_target_ms.unwrap_or(0))),
        number("multiplier", Unit::Plain, |of| Value::milli(of.multiplier_milli.unwrap_or(1_000).into())),
        number("weight", Unit::Plain, |of| Value::milli(of.weight_milli.unwrap_or(1_000).into())),
        list("guaranteed_pools", |of| texts(of.guaranteed.keys())),
        flag("evicts", |of| Value::Bool(of.evict_when.is_some())),
    ]
}

pub(super) fn of_limits() -> Vec<Field<NodeLimits>> {
    vec![
        text("name", |of| Value::text(&of.name)),
        number("cpu", Unit::Cores, |of| cpu(&of.max)),
        number("memory", Unit::Bytes, |of| memory(&of.max)),
        numbers("other", |of| other(&of.max)),
    ]
}
