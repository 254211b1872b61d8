//! Limits, budgets and rates of users. A limit goes by for whom, what and when it starts anew, as files write them: `perUser.concurrent`,
//! `perRun.cost.total`, `together.gpuHours.month`; a half-life is `rolling`.

use std::collections::BTreeMap;

use plimsoll_expr::{Unit, Value};
use plimsoll_ledger::{Measure, Meter, QuotaPolicy, Rate, Reset, Scope};

use super::{Field, flag, labels, list, micros, number, numbers, text, texts, words};

pub(super) fn fields() -> Vec<Field<QuotaPolicy>> {
    vec![
        text("name", |of| Value::text(&of.name)),
        words("labels", |of| labels(&of.labels)),
        text("queue", |of| Value::text(&of.queue)),
        text("tenant", |of| Value::text(&of.tenant)),
        flag("has_tier", |of| Value::Bool(of.tier.is_some())),
        text("tier_group", |of| Value::text(of.tier.as_ref().map_or("", |tier| &tier.group))),
        number("tier_rank", Unit::Plain, |of| {
            Value::count(of.tier.as_ref().map_or(0, |tier| tier.rank.into()))
        }),
        list("tier_users", |of| texts(of.tier.iter().flat_map(|tier| &tier.users))),
        numbers("limits", |of| {
            let mut least: BTreeMap<String, (Meter, u64)> = BTreeMap::new();
            for (meter, limit) in &of.limits {
                let named = least.entry(limit_name(*meter)).or_insert((*meter, *limit));
                named.1 = named.1.min(*limit);
            }
            Value::object(least.into_iter().map(|(name, (meter, limit))| (name, bound(meter, limit))))
        }),
        numbers("rates_per_second", |of| {
            let per_second = |rate: &Rate| rate.tokens as f64 * 1_000.0 / rate.period_ms.max(1) as f64;
            Value::object(of.rates.iter().map(|(name, rate)| (name, Value::Number(per_second(rate)))))
        }),
        text("currency", |of| Value::text(&of.currency)),
        flag("waits_when_exhausted", |of| Value::Bool(of.queue_when_exhausted)),
    ]
}

fn limit_name(meter: Meter) -> String {
    let scope = match meter.scope {
        Scope::Together => "together",
        Scope::User => "perUser",
        Scope::Run => "perRun",
    };
    let measure = match meter.measure {
        Measure::Concurrent => "concurrent",
        Measure::Storage => "storage",
        Measure::Starts => "starts",
        Measure::CpuHours => "cpuHours",
        Measure::GpuHours => "gpuHours",
        Measure::MemoryHours => "memoryHours",
        Measure::Cost => "cost",
    };
    let reset = match meter.reset {
        Reset::Live => "",
        Reset::Day => ".day",
        Reset::Month => ".month",
        Reset::Never => ".total",
        Reset::Rolling(_) => ".rolling",
    };
    format!("{scope}.{measure}{reset}")
}

fn bound(meter: Meter, limit: u64) -> Value {
    if meter.measure.is_timed() { micros(limit) } else { Value::count(limit) }
}
