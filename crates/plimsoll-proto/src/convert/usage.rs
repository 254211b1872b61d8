//! Limits, budgets and rates of users; prices.

use std::collections::BTreeMap;

use plimsoll_ledger::limits::{MAX_ITEMS, MAX_TTL_MS};
use plimsoll_ledger::{Ledger, Measure, Meter, QuotaPolicy, Rate, Reset, Scope, Seen, Tier, UsageOf};
use plimsoll_types::Revision;

use super::Violation;
use super::check::Check;
use crate::v1;

/// Longest name of a currency, in bytes.
const LONGEST_CURRENCY: usize = 16;
/// Most tokens of a rate.
const MOST_TOKENS: u64 = 1_000_000_000_000;
/// Shortest half-life, in milliseconds.
const LEAST_HALF_LIFE_MS: u64 = 1_000;

/// A quota from its message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn quota_from_v1(from: &v1::UsageQuota) -> Result<QuotaPolicy, Vec<Violation>> {
    let mut check = Check::new();
    let quota = quota(&mut check, from);
    check.finish(quota)
}

/// A quota as a message.
pub fn quota_to_v1(from: &QuotaPolicy) -> v1::UsageQuota {
    let limit =
        |(meter, limit): (&Meter, &u64)| v1::UsageLimit { meter: Some(meter_to_v1(meter)), limit: *limit };
    let rate = |(name, rate): (&String, &Rate)| {
        let rate = v1::UsageRate { tokens: rate.tokens, period_ms: rate.period_ms, burst: rate.burst };
        (name.clone(), rate)
    };
    v1::UsageQuota {
        name: from.name.clone(),
        labels: from.labels.clone(),
        queue: from.queue.clone(),
        tenant: from.tenant.clone(),
        limits: from.limits.iter().map(limit).collect(),
        queue_when_exhausted: from.queue_when_exhausted,
        currency: from.currency.clone(),
        rates: from.rates.iter().map(rate).collect(),
        revision: from.changed.0,
        tier: from.tier.as_ref().map(|tier| v1::UsageTier {
            group: tier.group.clone(),
            rank: tier.rank,
            users: tier.users.clone(),
        }),
    }
}

/// What a quota looks like now. O(meters, users and runs of which anything is taken).
pub fn quota_status(from: &QuotaPolicy, ledger: &Ledger) -> v1::UsageQuotaStatus {
    let one = |seen: Seen| {
        let UsageOf::Meter(meter) = &seen.key.of else { return None };
        Some(v1::UsageStatus {
            meter: Some(meter_to_v1(meter)),
            who: seen.key.who.clone(),
            spent: seen.spent,
            committed: seen.committed,
            limit: seen.limit,
            resets_at_ms: seen.resets_at.map_or(0, |at| at.0),
        })
    };
    v1::UsageQuotaStatus { usage: ledger.usage_of(&from.name).into_iter().filter_map(one).collect() }
}

/// A meter as a message.
pub fn meter_to_v1(from: &Meter) -> v1::UsageMeter {
    let scope = match from.scope {
        Scope::Together => v1::UsageScope::Together,
        Scope::User => v1::UsageScope::User,
        Scope::Run => v1::UsageScope::Run,
    };
    let measure = match from.measure {
        Measure::Concurrent => v1::UsageMeasure::Concurrent,
        Measure::Storage => v1::UsageMeasure::Storage,
        Measure::Starts => v1::UsageMeasure::Starts,
        Measure::CpuHours => v1::UsageMeasure::CpuHours,
        Measure::GpuHours => v1::UsageMeasure::GpuHours,
        Measure::MemoryHours => v1::UsageMeasure::MemoryHours,
        Measure::Cost => v1::UsageMeasure::Cost,
    };
    let (reset, half_life_ms) = match from.reset {
        Reset::Live => (v1::UsageReset::Live, 0),
        Reset::Day => (v1::UsageReset::Day, 0),
        Reset::Month => (v1::UsageReset::Month, 0),
        Reset::Never => (v1::UsageReset::Never, 0),
        Reset::Rolling(half_life_ms) => (v1::UsageReset::Rolling, half_life_ms),
    };
    v1::UsageMeter { scope: scope.into(), measure: measure.into(), reset: reset.into(), half_life_ms }
}

/// A meter of a message; `None` where a part of it is not known, or is not given.
pub fn meter_from_v1(from: &v1::UsageMeter) -> Option<Meter> {
    Some(Meter {
        scope: scope_from_v1(from.scope)?,
        measure: measure_from_v1(from.measure)?,
        reset: reset_from_v1(from.reset, from.half_life_ms)?,
    })
}

/// For whom a meter counts.
pub fn scope_from_v1(from: i32) -> Option<Scope> {
    match v1::UsageScope::try_from(from).ok()? {
        v1::UsageScope::Unspecified => None,
        v1::UsageScope::Together => Some(Scope::Together),
        v1::UsageScope::User => Some(Scope::User),
        v1::UsageScope::Run => Some(Scope::Run),
    }
}

/// What a meter counts.
pub fn measure_from_v1(from: i32) -> Option<Measure> {
    match v1::UsageMeasure::try_from(from).ok()? {
        v1::UsageMeasure::Unspecified => None,
        v1::UsageMeasure::Concurrent => Some(Measure::Concurrent),
        v1::UsageMeasure::Storage => Some(Measure::Storage),
        v1::UsageMeasure::Starts => Some(Measure::Starts),
        v1::UsageMeasure::CpuHours => Some(Measure::CpuHours),
        v1::UsageMeasure::GpuHours => Some(Measure::GpuHours),
        v1::UsageMeasure::MemoryHours => Some(Measure::MemoryHours),
        v1::UsageMeasure::Cost => Some(Measure::Cost),
    }
}

/// When a meter starts anew.
pub fn reset_from_v1(from: i32, half_life_ms: u64) -> Option<Reset> {
    match v1::UsageReset::try_from(from).ok()? {
        v1::UsageReset::Unspecified => None,
        v1::UsageReset::Live => Some(Reset::Live),
        v1::UsageReset::Day => Some(Reset::Day),
        v1::UsageReset::Month => Some(Reset::Month),
        v1::UsageReset::Never => Some(Reset::Never),
        v1::UsageReset::Rolling => Some(Reset::Rolling(half_life_ms)),
    }
}

pub(super) fn quota(check: &mut Check, from: &v1::UsageQuota) -> QuotaPolicy {
    check.name("name", &from.name);
    if !from.queue.is_empty() {
        check.name("queue", &from.queue);
    }
    check.short_text("tenant", &from.tenant);
    let mut limits = BTreeMap::new();
    for limit in check.each("limits", &from.limits, MAX_ITEMS, limit) {
        let Some((meter, most)) = limit else { continue };
        if limits.insert(meter, most).is_some() {
            check.fail("limits", format!("{} is there more than once", meter.measure.name()));
        }
    }
    check.count("rates", from.rates.len(), MAX_ITEMS);
    let mut rates = BTreeMap::new();
    for (name, rate) in &from.rates {
        let field = |which: &str| format!("rates[{name:?}].{which}");
        check.short_text(&field("name"), name);
        if name.is_empty() {
            check.fail("rates", "has a rate without a name");
        }
        check.range(&field("tokens"), rate.tokens, 1, MOST_TOKENS);
        check.range(&field("period_ms"), rate.period_ms, 1, MAX_TTL_MS);
        check.range(&field("burst"), rate.burst, 1, MOST_TOKENS);
        rates
            .insert(name.clone(), Rate { tokens: rate.tokens, period_ms: rate.period_ms, burst: rate.burst });
    }
    QuotaPolicy {
        name: from.name.clone(),
        labels: check.labels("labels", &from.labels),
        queue: from.queue.clone(),
        tenant: from.tenant.clone(),
        limits,
        queue_when_exhausted: from.queue_when_exhausted,
        currency: currency(check, &from.currency),
        rates,
        tier: from.tier.as_ref().map(|tier| self::tier(check, from, tier)),
        changed: Revision(0),
    }
}

fn tier(check: &mut Check, quota: &v1::UsageQuota, from: &v1::UsageTier) -> Tier {
    check.short_text("tier.group", &from.group);
    if from.users.is_empty() {
        check.fail(
            "tier.users",
            "says nobody: name users, or \"*\" for all who are in no higher tier".to_owned(),
        );
    }
    check.count("tier.users", from.users.len(), MAX_ITEMS);
    for user in &from.users {
        check.short_text("tier.users", user);
        if user.is_empty() {
            check.fail("tier.users", "has a user without a name".to_owned());
        }
    }
    for (field, text) in [("queue", &quota.queue), ("tenant", &quota.tenant)] {
        if !text.is_empty() {
            check.fail(
                field,
                format!("is {text:?}, but the users of its tier are whom it is about: leave one of them out"),
            );
        }
    }
    Tier { group: from.group.clone(), rank: from.rank, users: from.users.clone() }
}

/// Prices of a pool's message.
pub(super) fn prices(check: &mut Check, from: &v1::Pool) -> BTreeMap<String, u64> {
    check.count("prices", from.prices.len(), MAX_ITEMS);
    for (resource, price) in &from.prices {
        check.short_text(&format!("prices[{resource:?}]"), resource);
        check.range(&format!("prices[{resource:?}]"), *price, 1, u64::MAX >> 1);
    }
    from.prices.clone()
}

/// The name of a currency.
pub(super) fn currency(check: &mut Check, from: &str) -> String {
    check.text("currency", from, LONGEST_CURRENCY);
    from.to_owned()
}

fn limit(check: &mut Check, from: &v1::UsageLimit) -> Option<(Meter, u64)> {
    let Some(meter) = from.meter.as_ref().and_then(meter_from_v1) else {
        check.fail("meter", "is missing, or has a scope, measure or reset that is not known");
        return None;
    };
    if !meter.makes_sense() {
        let measure = meter.measure.name();
        check.fail(
            "meter.reset",
            format!(
                "does not go with {measure}: what is counted while it lives is LIVE, and nothing else is"
            ),
        );
    }
    if let Reset::Rolling(half_life_ms) = meter.reset {
        check.range("meter.half_life_ms", half_life_ms, LEAST_HALF_LIFE_MS, MAX_TTL_MS);
    }
    check.range("limit", from.limit, 0, u64::MAX >> 1);
    Some((meter, from.limit))
}
