//! Limits, budgets and rates, and what is spent of them, in their stored forms and back.

use std::collections::BTreeMap;

use plimsoll_ledger::{
    Charge, Measure, Meter, QuotaPolicy, Rate, Reset, Scope, Tab, Tier, Tokens, Usage, UsageKey, UsageOf,
};
use plimsoll_types::{LedgerTime, Revision};

use super::decode::{Result, all, labels, need};
use super::key::{escaped, split_actor};
use super::{CodecError, encode};
use crate::log;

const SCOPES: [(Scope, log::UsageScope); 3] = [
    (Scope::Together, log::UsageScope::Together),
    (Scope::User, log::UsageScope::User),
    (Scope::Run, log::UsageScope::Run),
];

const MEASURES: [(Measure, log::UsageMeasure); 7] = [
    (Measure::Concurrent, log::UsageMeasure::Concurrent),
    (Measure::Storage, log::UsageMeasure::Storage),
    (Measure::Starts, log::UsageMeasure::Starts),
    (Measure::CpuHours, log::UsageMeasure::CpuHours),
    (Measure::GpuHours, log::UsageMeasure::GpuHours),
    (Measure::MemoryHours, log::UsageMeasure::MemoryHours),
    (Measure::Cost, log::UsageMeasure::Cost),
];

pub(super) fn encode_quota(quota: &QuotaPolicy) -> log::UsageQuota {
    let limit =
        |(meter, limit): (&Meter, &u64)| log::UsageLimit { meter: Some(encode_meter(meter)), limit: *limit };
    let rate = |(name, rate): (&String, &Rate)| log::UsageRate {
        name: name.clone(),
        tokens: rate.tokens,
        period_ms: rate.period_ms,
        burst: rate.burst,
    };
    log::UsageQuota {
        name: quota.name.clone(),
        labels: encode::labels(&quota.labels),
        queue: quota.queue.clone(),
        tenant: quota.tenant.clone(),
        limits: quota.limits.iter().map(limit).collect(),
        queue_when_exhausted: quota.queue_when_exhausted,
        currency: quota.currency.clone(),
        rates: quota.rates.iter().map(rate).collect(),
        changed: quota.changed.0,
        tier: quota.tier.as_ref().map(|tier| log::UsageTier {
            group: tier.group.clone(),
            rank: tier.rank,
            users: tier.users.clone(),
        }),
    }
}

pub(super) fn decode_quota(from: log::UsageQuota) -> Result<QuotaPolicy> {
    let limit = |from: log::UsageLimit| Ok((decode_meter(need(from.meter, "limit.meter")?)?, from.limit));
    let limits: Vec<(Meter, u64)> = all(from.limits, limit)?;
    if !limits.is_sorted_by(|a, b| a.0 < b.0) || !from.rates.is_sorted_by(|a, b| a.name < b.name) {
        return Err(CodecError::NotCanonical { what: "map of a quota" });
    }
    let rate = |from: log::UsageRate| {
        (from.name, Rate { tokens: from.tokens, period_ms: from.period_ms, burst: from.burst })
    };
    Ok(QuotaPolicy {
        name: from.name,
        labels: labels(from.labels)?,
        queue: from.queue,
        tenant: from.tenant,
        limits: limits.into_iter().collect(),
        queue_when_exhausted: from.queue_when_exhausted,
        currency: from.currency,
        rates: from.rates.into_iter().map(rate).collect::<BTreeMap<_, _>>(),
        changed: Revision(from.changed),
        tier: from.tier.map(|tier| Tier { group: tier.group, rank: tier.rank, users: tier.users }),
    })
}

pub(super) fn encode_usage(usage: &Usage) -> log::Usage {
    log::Usage {
        key: Some(encode_usage_key(&usage.key)),
        period: usage.period,
        spent: usage.spent,
        committed: usage.committed,
        stamp_ms: usage.stamp.0,
    }
}

pub(super) fn decode_usage(from: log::Usage) -> Result<Usage> {
    Ok(Usage {
        key: decode_usage_key(need(from.key, "usage.key")?)?,
        period: from.period,
        spent: from.spent,
        committed: from.committed,
        stamp: LedgerTime(from.stamp_ms),
    })
}

pub(super) fn encode_tab(tab: &Tab) -> log::Tab {
    let charge = |charge: &Charge| log::Charge {
        key: Some(encode_usage_key(&charge.key)),
        period: charge.period,
        from_ms: charge.from.0,
        per_hour: charge.per_hour,
        flat: charge.flat,
    };
    log::Tab { until_ms: tab.until.0, charges: tab.charges.iter().map(charge).collect() }
}

pub(super) fn decode_tab(from: log::Tab) -> Result<Tab> {
    let charge = |from: log::Charge| {
        Ok(Charge {
            key: decode_usage_key(need(from.key, "charge.key")?)?,
            period: from.period,
            from: LedgerTime(from.from_ms),
            per_hour: from.per_hour,
            flat: from.flat,
        })
    };
    let charges = all(from.charges, charge)?;
    if !charges.is_sorted_by(|a, b| a.key < b.key) {
        return Err(CodecError::NotCanonical { what: "charges of a tab" });
    }
    Ok(Tab { until: LedgerTime(from.until_ms), charges })
}

pub(super) fn encode_tokens(told: &Tokens) -> log::Tokens {
    log::Tokens { taken: told.taken, left: told.left, retry_after_ms: told.retry_after_ms }
}

pub(super) fn decode_tokens(from: log::Tokens) -> Tokens {
    Tokens { taken: from.taken, left: from.left, retry_after_ms: from.retry_after_ms }
}

/// The bytes of a row's key; their order is that of the keys.
pub(super) fn encode_key(bytes: &mut Vec<u8>, key: &UsageKey) {
    escaped(bytes, &key.quota);
    match &key.of {
        UsageOf::Meter(meter) => {
            let (reset, half_life_ms) = reset_number(meter.reset);
            bytes.extend_from_slice(&[
                1,
                scope_number(meter.scope) as u8,
                measure_number(meter.measure) as u8,
            ]);
            bytes.push(reset as u8);
            bytes.extend_from_slice(&half_life_ms.to_be_bytes());
        }
        UsageOf::Rate(name) => {
            bytes.push(2);
            escaped(bytes, name);
        }
    }
    bytes.extend_from_slice(key.who.as_bytes());
}

/// The other way; `None` where the bytes are damaged.
pub(super) fn decode_key(bytes: &[u8]) -> Option<UsageKey> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let (quota, rest) = split_actor(bytes)?;
    let (of, who) = match rest.split_first()? {
        (1, rest) => {
            let (numbers, rest) = rest.split_at_checked(3)?;
            let (half_life, who) = rest.split_at_checked(8)?;
            let meter = log::UsageMeter {
                scope: i32::from(numbers[0]),
                measure: i32::from(numbers[1]),
                reset: i32::from(numbers[2]),
                half_life_ms: u64::from_be_bytes(half_life.try_into().ok()?),
            };
            (UsageOf::Meter(decode_meter(meter).ok()?), who)
        }
        (2, rest) => {
            let (name, who) = split_actor(rest)?;
            (UsageOf::Rate(text(&name)?), who)
        }
        _ => return None,
    };
    Some(UsageKey { quota: text(&quota)?, of, who: text(who)? })
}

fn encode_usage_key(key: &UsageKey) -> log::UsageKey {
    let of = match &key.of {
        UsageOf::Meter(meter) => log::usage_key::Of::Meter(encode_meter(meter)),
        UsageOf::Rate(name) => log::usage_key::Of::Rate(name.clone()),
    };
    log::UsageKey { quota: key.quota.clone(), of: Some(of), who: key.who.clone() }
}

fn decode_usage_key(from: log::UsageKey) -> Result<UsageKey> {
    let of = match from.of.ok_or(CodecError::UnknownKind { what: "usage" })? {
        log::usage_key::Of::Meter(meter) => UsageOf::Meter(decode_meter(meter)?),
        log::usage_key::Of::Rate(name) => UsageOf::Rate(name),
    };
    Ok(UsageKey { quota: from.quota, of, who: from.who })
}

fn encode_meter(meter: &Meter) -> log::UsageMeter {
    let (reset, half_life_ms) = reset_number(meter.reset);
    log::UsageMeter {
        scope: scope_number(meter.scope),
        measure: measure_number(meter.measure),
        reset,
        half_life_ms,
    }
}

fn decode_meter(from: log::UsageMeter) -> Result<Meter> {
    let unknown = |field: &'static str, value: i32| CodecError::UnknownValue { field, value };
    let scope = SCOPES.iter().find(|(_, number)| *number as i32 == from.scope);
    let measure = MEASURES.iter().find(|(_, number)| *number as i32 == from.measure);
    let reset = match (log::UsageReset::try_from(from.reset), from.half_life_ms) {
        (Ok(log::UsageReset::Live), 0) => Reset::Live,
        (Ok(log::UsageReset::Day), 0) => Reset::Day,
        (Ok(log::UsageReset::Month), 0) => Reset::Month,
        (Ok(log::UsageReset::Never), 0) => Reset::Never,
        (Ok(log::UsageReset::Rolling), half_life_ms) => Reset::Rolling(half_life_ms),
        _ => return Err(unknown("reset", from.reset)),
    };
    Ok(Meter {
        scope: scope.ok_or_else(|| unknown("scope", from.scope))?.0,
        measure: measure.ok_or_else(|| unknown("measure", from.measure))?.0,
        reset,
    })
}

fn scope_number(scope: Scope) -> i32 {
    SCOPES.iter().find(|(known, _)| *known == scope).map_or(0, |(_, number)| *number as i32)
}

fn measure_number(measure: Measure) -> i32 {
    MEASURES.iter().find(|(known, _)| *known == measure).map_or(0, |(_, number)| *number as i32)
}

fn reset_number(reset: Reset) -> (i32, u64) {
    match reset {
        Reset::Live => (log::UsageReset::Live as i32, 0),
        Reset::Day => (log::UsageReset::Day as i32, 0),
        Reset::Month => (log::UsageReset::Month as i32, 0),
        Reset::Never => (log::UsageReset::Never as i32, 0),
        Reset::Rolling(half_life_ms) => (log::UsageReset::Rolling as i32, half_life_ms),
    }
}
