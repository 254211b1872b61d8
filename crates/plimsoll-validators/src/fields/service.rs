//! Services, and scaling policies.

use plimsoll_expr::{Unit, Value};
use plimsoll_ledger::{Balancing, ProviderKind, ScalingPolicy, ScalingTarget, Service};

use super::{Field, flag, labels, list, number, text, word, words};

pub(super) fn fields() -> Vec<Field<Service>> {
    vec![
        text("name", |of| Value::text(&of.name)),
        words("labels", |of| labels(&of.labels)),
        text("pool", |of| Value::text(&of.pool)),
        text("class", |of| Value::text(&of.class)),
        text("balancing", |of| word(&Balancing::NAMED, &of.balancing)),
        number("load_bound", Unit::Plain, |of| Value::milli(of.load_bound_permille.into())),
        number("subset_size", Unit::Plain, |of| Value::count(of.subset_size.into())),
        number("slow_start", Unit::Seconds, |of| Value::milli(of.slow_start_ms)),
    ]
}

pub(super) fn of_scaling() -> Vec<Field<ScalingPolicy>> {
    vec![
        text("name", |of| Value::text(&of.name)),
        words("labels", |of| labels(&of.labels)),
        text("pool", |of| match &of.target {
            ScalingTarget::Pool(name) => Value::text(name),
            ScalingTarget::Service(_) => Value::text(""),
        }),
        text("service", |of| match &of.target {
            ScalingTarget::Service(name) => Value::text(name),
            ScalingTarget::Pool(_) => Value::text(""),
        }),
        number("min", Unit::Plain, |of| Value::count(of.rules.min)),
        number("max", Unit::Plain, |of| Value::count(of.rules.max)),
        list("metrics", |of| {
            let metrics = of.rules.targets.iter().map(|target| target.metric.to_string());
            Value::List(metrics.map(Value::text).collect())
        }),
        flag("predictive", |of| Value::Bool(of.rules.predictive.is_some())),
        flag("sleeps", |of| Value::Bool(of.rules.activation.is_some())),
        text("provider", |of| {
            Value::text(match of.provider.as_ref().map(|provider| &provider.kind) {
                None => "",
                Some(ProviderKind::Process) => "process",
                Some(ProviderKind::Exec { .. }) => "exec",
                Some(ProviderKind::Webhook { .. }) => "webhook",
                Some(ProviderKind::ExternalGrpc { .. }) => "externalgrpc",
            })
        }),
        number("max_leaving", Unit::Plain, |of| Value::count(of.max_leaving.into())),
        number("drain", Unit::Seconds, |of| Value::milli(of.drain_ms)),
    ]
}
