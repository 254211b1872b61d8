//! `kind: Quota`: limits, budgets and rates of users.

use std::collections::BTreeMap;

use plimsoll_ledger::{MICRO, Measure, Meter, Reset, Scope};
use plimsoll_proto::convert::meter_to_v1;
use plimsoll_proto::v1;
use plimsoll_types::quantity::{
    QuantityError, parse_bits_per_second, parse_bytes, parse_count, parse_duration_ms,
};

use super::{labels, name};
use crate::context::{Block, Context};
use crate::node::{Node, Value};

/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 2] = ["name", "labels"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 11] = [
    "queue", "tenant", "tier", "perUser", "perRun", "together", "budget", "rate", "nominal", "borrow", "lend",
];
/// Keys of a tier.
const TIER: [&str; 3] = ["group", "rank", "users"];
/// Blocks of limits, and for whom each counts.
pub(crate) const SCOPES: [(&str, Scope); 3] =
    [("perUser", Scope::User), ("perRun", Scope::Run), ("together", Scope::Together)];
/// What a block of limits may bound. `daily` is short for `starts: { day: ... }`.
pub(crate) const MEASURES: [(&str, Measure); 7] = [
    ("concurrent", Measure::Concurrent),
    ("storage", Measure::Storage),
    ("starts", Measure::Starts),
    ("cpuHours", Measure::CpuHours),
    ("gpuHours", Measure::GpuHours),
    ("memoryHours", Measure::MemoryHours),
    ("cost", Measure::Cost),
];
const DAILY: &str = "daily";
const LIMITS: [&str; 8] =
    ["concurrent", "storage", "starts", DAILY, "cpuHours", "gpuHours", "memoryHours", "cost"];
/// Keys of `budget`.
const BUDGET: [&str; 5] = ["daily", "monthly", "total", "currency", "onExhausted"];
/// Parts of a budget, and when each starts anew.
pub(crate) const BUDGETS: [(&str, Reset); 3] =
    [("daily", Reset::Day), ("monthly", Reset::Month), ("total", Reset::Never)];
/// When a limit starts anew, as files write it; a half-life is written as a duration.
pub(crate) const RESETS: [(&str, Reset); 3] =
    [("day", Reset::Day), ("month", Reset::Month), ("total", Reset::Never)];
/// Periods of rates as files write them; others are written as durations.
pub(crate) const PERIODS: [(&str, u64); 4] =
    [("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("day", 86_400_000)];
/// Other words for the same periods.
const OTHER_PERIODS: [(&str, u64); 6] = [
    ("sec", 1_000),
    ("second", 1_000),
    ("m", 60_000),
    ("minute", 60_000),
    ("hour", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a quota.
pub(crate) fn read(context: &mut Context<'_>, metadata: &Block<'_>, spec: &Block<'_>) -> v1::UsageQuota {
    let mut quota = v1::UsageQuota {
        name: name(context, metadata, "quota"),
        labels: labels(context, metadata, "quota"),
        ..v1::UsageQuota::default()
    };
    for key in ["nominal", "borrow", "lend"] {
        if spec.get(key).is_some() {
            let message = format!(
                "spec.{key} belongs to a queue: write kind: Queue with quotas, of the same name if you like"
            );
            context.fail(spec.mark_of(key), message);
        }
    }
    for (key, field) in [("queue", &mut quota.queue), ("tenant", &mut quota.tenant)] {
        if let Some(node) = spec.get(key) {
            context.locate(format!("quota.{key}"), node.mark, format!("spec.{key}"));
            *field = context.text(node, &format!("spec.{key}")).unwrap_or_default();
        }
    }
    quota.tier = spec.get("tier").map(|node| tier(context, node));
    for (key, scope) in SCOPES {
        if let Some(node) = spec.get(key) {
            limits(context, node, &format!("spec.{key}"), scope, &mut quota.limits);
        }
    }
    if let Some(node) = spec.get("budget") {
        budget(context, node, &mut quota);
    }
    if let Some(node) = spec.get("rate") {
        quota.rates = rates(context, node);
    }
    quota
}

/// `tier: { rank: 2, users: [ada, "research-*"] }`.
fn tier(context: &mut Context<'_>, node: &Node) -> v1::UsageTier {
    context.locate("quota.tier", node.mark, "spec.tier");
    let block = context.block(node, "spec.tier", &TIER);
    for key in TIER {
        context.locate(format!("quota.tier.{key}"), block.mark_of(key), format!("spec.tier.{key}"));
    }
    let rank = block.get("rank").and_then(|node| context.integer(node, "spec.tier.rank", 0, u32::MAX.into()));
    let group = block.get("group").and_then(|node| context.text(node, "spec.tier.group"));
    let users = block.get("users").map(|node| {
        let items = context.list(node, "spec.tier.users", "users: [ada, \"research-*\"]");
        items.iter().filter_map(|item| context.text(item, "spec.tier.users")).collect()
    });
    v1::UsageTier {
        group: group.unwrap_or_default(),
        rank: rank.and_then(|rank| u32::try_from(rank).ok()).unwrap_or_default(),
        users: users.unwrap_or_default(),
    }
}

/// A block of limits for one scope.
fn limits(
    context: &mut Context<'_>,
    node: &Node,
    path: &str,
    scope: Scope,
    limits: &mut Vec<v1::UsageLimit>,
) {
    let block = context.block(node, path, &LIMITS);
    if let Some(node) = block.get(DAILY) {
        let meter = Meter::new(scope, Measure::Starts, Reset::Day);
        add(context, node, &format!("{path}.{DAILY}"), meter, limits);
    }
    for (key, measure) in MEASURES {
        let Some(node) = block.get(key) else { continue };
        let path = format!("{path}.{key}");
        if measure.is_live() || matches!(node.value, Value::Scalar(_)) {
            add(context, node, &path, Meter::new(scope, measure, usual_reset(scope, measure)), limits);
            continue;
        }
        for (word, mark, node) in context.entries(node, &path) {
            let path = format!("{path}.{word}");
            let known = RESETS.iter().find(|(known, _)| *known == word).map(|(_, reset)| *reset);
            let half_life = || parse_duration_ms(&word).ok().filter(|ms| *ms > 0).map(Reset::Rolling);
            match known.or_else(half_life) {
                Some(reset) => add(context, node, &path, Meter::new(scope, measure, reset), limits),
                None => context
                    .fail(mark, format!("{path}: there are day, month, total, or a half-life such as 7d")),
            }
        }
    }
}

/// When a limit that is written as one number starts anew.
pub(crate) fn usual_reset(scope: Scope, measure: Measure) -> Reset {
    match (measure.is_live(), scope) {
        (true, _) => Reset::Live,
        (false, Scope::Run) => Reset::Never,
        (false, Scope::User | Scope::Together) => Reset::Month,
    }
}

fn add(context: &mut Context<'_>, node: &Node, path: &str, meter: Meter, limits: &mut Vec<v1::UsageLimit>) {
    let limit = context.quantity(node, path, |text| match meter.measure {
        Measure::Storage => parse_bytes(text),
        Measure::Concurrent | Measure::Starts => parse_count(text),
        Measure::MemoryHours => parse_memory_hours(text),
        Measure::CpuHours | Measure::GpuHours | Measure::Cost => parse_micros(text),
    });
    let Some(limit) = limit else { return };
    let wire = format!("quota.limits[{}]", limits.len());
    context.locate(wire.clone(), node.mark, path);
    for field in ["limit", "meter", "meter.half_life_ms"] {
        context.locate(format!("{wire}.{field}"), node.mark, path);
    }
    limits.push(v1::UsageLimit { meter: Some(meter_to_v1(&meter)), limit });
}

fn budget(context: &mut Context<'_>, node: &Node, quota: &mut v1::UsageQuota) {
    let block = context.block(node, "spec.budget", &BUDGET);
    for (key, reset) in BUDGETS {
        if let Some(node) = block.get(key) {
            let meter = Meter::new(Scope::Together, Measure::Cost, reset);
            add(context, node, &format!("spec.budget.{key}"), meter, &mut quota.limits);
        }
    }
    if let Some(node) = block.get("currency") {
        context.locate("quota.currency", node.mark, "spec.budget.currency");
        quota.currency = context.text(node, "spec.budget.currency").unwrap_or_default();
    }
    if let Some(node) = block.get("onExhausted") {
        let words = [("reject", false), ("queue", true)];
        quota.queue_when_exhausted =
            context.word(node, "spec.budget.onExhausted", &words).unwrap_or_default();
    }
}

fn rates(context: &mut Context<'_>, node: &Node) -> BTreeMap<String, v1::UsageRate> {
    let mut rates = BTreeMap::new();
    for (name, mark, node) in context.entries(node, "spec.rate") {
        let path = format!("spec.rate.{name}");
        for field in ["name", "tokens", "period_ms", "burst"] {
            context.locate(format!("quota.rates[{name:?}].{field}"), mark, path.clone());
        }
        let Some(text) = context.text(node, &path) else { continue };
        match parse_rate(&text) {
            Some(rate) => drop(rates.insert(name, rate)),
            None => context.fail(
                node.mark,
                format!("{path}: {text:?} is not a rate: rates are written 60/min burst 10, 5/s, 100/30s or 50Mbps"),
            ),
        }
    }
    rates
}

/// `60/min burst 10`, `5/s`, `100/30s`, `50Mbps`. Without a burst: what a second brings, at least one.
fn parse_rate(text: &str) -> Option<v1::UsageRate> {
    let (rate, burst) = match text.split_once(" burst ") {
        Some((rate, burst)) => (rate.trim(), Some(parse_count(burst.trim()).ok()?)),
        None => (text.trim(), None),
    };
    let (tokens, period_ms) = match rate.split_once('/') {
        Some((tokens, period)) => {
            let mut words = PERIODS.iter().chain(&OTHER_PERIODS);
            let known = words.find(|(word, _)| *word == period.trim()).map(|(_, ms)| *ms);
            (parse_count(tokens.trim()).ok()?, known.or_else(|| parse_duration_ms(period.trim()).ok())?)
        }
        None => (parse_bits_per_second(rate).ok().filter(|_| rate.ends_with("bps"))?, 1_000),
    };
    let per_second = u128::from(tokens) * 1_000 / u128::from(period_ms.max(1));
    let burst = burst.unwrap_or_else(|| u64::try_from(per_second).unwrap_or(u64::MAX).max(1));
    Some(v1::UsageRate { tokens, period_ms, burst })
}

/// A decimal number with at most six places into millionths: money, hours.
///
/// # Errors
/// Where it is not such a number.
pub fn parse_micros(text: &str) -> Result<u64, QuantityError> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let read = || {
        if whole.is_empty() || part.len() > 6 || !digits(whole) || !digits(part) {
            return None;
        }
        let part: u64 = format!("{part:0<6}").parse().ok()?;
        whole.parse::<u64>().ok()?.checked_mul(MICRO)?.checked_add(part).filter(|sum| *sum <= u64::MAX >> 1)
    };
    read().ok_or_else(|| QuantityError {
        text: text.to_owned(),
        expected: "a number of hours or of money",
        hint: "such numbers are written 100, 2.5 or 0.000001".to_owned(),
    })
}

/// Prices: as money, and more than nothing.
pub(crate) fn parse_price(text: &str) -> Result<u64, QuantityError> {
    parse_micros(text)
}

/// GiB x hours: a plain number counts GiB, a size is what it says.
fn parse_memory_hours(text: &str) -> Result<u64, QuantityError> {
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return parse_micros(text);
    }
    let micros = u128::from(parse_bytes(text)?) * u128::from(MICRO) / (1 << 30);
    Ok(u64::try_from(micros).unwrap_or(u64::MAX))
}
