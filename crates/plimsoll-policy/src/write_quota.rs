//! `kind: Quota` and prices in their canonical form.

use std::collections::BTreeMap;

use plimsoll_ledger::{Measure, Meter, QuotaPolicy, Rate, Reset, Scope};
use plimsoll_proto::convert::decimal;
use plimsoll_types::quantity::{format_bytes, format_duration_ms};
use serde_json::{Map, Value, json};

use crate::kinds::quota::{BUDGETS, MEASURES, PERIODS, RESETS, SCOPES, usual_reset};
use crate::write::number;

/// Metadata and spec of a quota.
pub(crate) fn quota_parts(quota: &QuotaPolicy) -> (Value, Value) {
    let mut metadata = json!({ "name": quota.name });
    if !quota.labels.is_empty() {
        metadata["labels"] = json!(quota.labels);
    }
    let mut spec = Map::new();
    for (key, text) in [("queue", &quota.queue), ("tenant", &quota.tenant)] {
        if !text.is_empty() {
            spec.insert(key.to_owned(), json!(text));
        }
    }
    if let Some(tier) = &quota.tier {
        let mut block = json!({ "rank": tier.rank, "users": tier.users });
        if !tier.group.is_empty() {
            block["group"] = json!(tier.group);
        }
        spec.insert("tier".to_owned(), block);
    }
    for (key, scope) in SCOPES {
        let limits = limits_of(quota, scope);
        if !limits.is_empty() {
            spec.insert(key.to_owned(), Value::Object(limits));
        }
    }
    let budget = budget_of(quota);
    if !budget.is_empty() {
        spec.insert("budget".to_owned(), Value::Object(budget));
    }
    if !quota.rates.is_empty() {
        let rates = quota.rates.iter().map(|(name, rate)| (name.clone(), json!(rate_text(rate))));
        spec.insert("rate".to_owned(), json!(rates.collect::<BTreeMap<String, Value>>()));
    }
    (metadata, Value::Object(spec))
}

/// Prices by resource.
pub(crate) fn prices(prices: &BTreeMap<String, u64>) -> Value {
    let texts = prices.iter().map(|(name, price)| (name.clone(), number(decimal(*price))));
    json!(texts.collect::<BTreeMap<String, Value>>())
}

/// Limits of one scope: one number where it starts anew as usual, a block of them by reset else.
fn limits_of(quota: &QuotaPolicy, scope: Scope) -> Map<String, Value> {
    let mut block = Map::new();
    for (key, measure) in MEASURES {
        let resets: BTreeMap<Reset, Value> = quota
            .limits
            .iter()
            .filter(|(meter, _)| meter.scope == scope && meter.measure == measure && !is_budget(meter))
            .map(|(meter, limit)| (meter.reset, amount(measure, *limit)))
            .collect();
        let Some((first, value)) = resets.first_key_value().filter(|_| resets.len() == 1) else {
            if !resets.is_empty() {
                let by_reset = resets.into_iter().map(|(reset, value)| (reset_word(reset), value));
                block.insert(key.to_owned(), json!(by_reset.collect::<BTreeMap<String, Value>>()));
            }
            continue;
        };
        if measure == Measure::Starts && *first == Reset::Day {
            block.insert("daily".to_owned(), value.clone());
        } else if *first == usual_reset(scope, measure) {
            block.insert(key.to_owned(), value.clone());
        } else {
            block.insert(key.to_owned(), json!({ reset_word(*first): value }));
        }
    }
    block
}

/// Money of all together stands in the budget, but for what fades.
fn is_budget(meter: &Meter) -> bool {
    meter.scope == Scope::Together
        && meter.measure == Measure::Cost
        && BUDGETS.iter().any(|(_, reset)| *reset == meter.reset)
}

fn budget_of(quota: &QuotaPolicy) -> Map<String, Value> {
    let mut block = Map::new();
    for (key, reset) in BUDGETS {
        let meter = Meter::new(Scope::Together, Measure::Cost, reset);
        if let Some(limit) = quota.limits.get(&meter) {
            block.insert(key.to_owned(), amount(Measure::Cost, *limit));
        }
    }
    if !quota.currency.is_empty() {
        block.insert("currency".to_owned(), json!(quota.currency));
    }
    if quota.queue_when_exhausted {
        block.insert("onExhausted".to_owned(), json!("queue"));
    }
    block
}

fn amount(measure: Measure, limit: u64) -> Value {
    number(match measure {
        Measure::Storage => format_bytes(limit),
        Measure::Concurrent | Measure::Starts => limit.to_string(),
        Measure::CpuHours | Measure::GpuHours | Measure::MemoryHours | Measure::Cost => decimal(limit),
    })
}

fn reset_word(reset: Reset) -> String {
    match reset {
        Reset::Rolling(half_life_ms) => format_duration_ms(half_life_ms),
        // What lives now is always one number.
        Reset::Live => String::new(),
        other => RESETS.iter().find(|(_, known)| *known == other).map_or("", |(word, _)| *word).to_owned(),
    }
}

fn rate_text(rate: &Rate) -> String {
    let word = PERIODS.iter().find(|(_, ms)| *ms == rate.period_ms).map(|(word, _)| (*word).to_owned());
    let period = word.unwrap_or_else(|| format_duration_ms(rate.period_ms));
    format!("{}/{period} burst {}", rate.tokens, rate.burst)
}
