//! The tab of a grant: what it has committed of each meter, until when.

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, Resources};

use std::collections::BTreeMap;

use super::{Measure, Meter, Reset, UsageKey, UsageOf};
use crate::quota::GPU;

/// Millionths that make one: of a currency, of a core-hour, of a device-hour, of a GiB-hour.
pub const MICRO: u64 = 1_000_000;
const HOUR_MS: u128 = 3_600_000;
const GIB: u128 = 1 << 30;

/// What a live grant has committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tab {
    /// It is paid for up to this moment.
    pub until: LedgerTime,
    /// What is committed, by ascending key.
    pub charges: Vec<Charge>,
}

/// What a live grant has committed of one meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Which meter of which quota, for whom. An empty quota: only noted, for the grant's own cost.
    pub key: UsageKey,
    /// The period that it is charged to.
    pub period: u64,
    /// The present stretch began here.
    pub from: LedgerTime,
    /// What an hour takes.
    pub per_hour: u64,
    /// What is taken whatever the time: 1 for counts, bytes for storage, earlier stretches for what grows with time.
    pub flat: u64,
}

impl Charge {
    /// All that is committed where the grant is paid for up to `until`.
    pub fn amount(&self, until: LedgerTime) -> u64 {
        self.flat.saturating_add(stretch(self.per_hour, until.ms_since(self.from)))
    }

    /// What was used up to `now` of what is committed up to `until`.
    pub fn used(&self, now: LedgerTime, until: LedgerTime) -> u64 {
        if self.meter().is_some_and(|meter| meter.reset == Reset::Live) {
            return 0;
        }
        self.amount(now.min(until).max(self.from))
    }

    /// Its meter; charges are never of a rate.
    pub fn meter(&self) -> Option<Meter> {
        match &self.key.of {
            UsageOf::Meter(meter) => Some(*meter),
            UsageOf::Rate(_) => None,
        }
    }

    /// True for the grant's own cost, which counts against no quota.
    pub fn is_own_cost(&self) -> bool {
        self.key.quota.is_empty()
    }
}

impl Tab {
    /// What the grant costs where it ends at `now`, in millionths; 0 where its pool has no prices.
    pub fn cost_micros(&self, now: LedgerTime) -> u64 {
        let own = self.charges.iter().find(|charge| charge.is_own_cost());
        own.map_or(0, |charge| charge.used(now, self.until))
    }

    /// What is committed of the grant's own cost.
    pub fn committed_cost_micros(&self) -> u64 {
        let own = self.charges.iter().find(|charge| charge.is_own_cost());
        own.map_or(0, |charge| charge.amount(self.until))
    }
}

/// What a stretch takes, rounded up to a whole millionth.
pub(super) fn stretch(per_hour: u64, length_ms: u64) -> u64 {
    let product = u128::from(per_hour) * u128::from(length_ms);
    u64::try_from(product.div_ceil(HOUR_MS)).unwrap_or(u64::MAX)
}

/// What an hour of all members' amounts takes of a measure, in millionths; rounded up, and at the top where it does not fit.
pub(super) fn per_hour(measure: Measure, total: &Resources, prices: &BTreeMap<String, u64>) -> u64 {
    match measure {
        Measure::CpuHours => scaled(total.cpu_millis.0, MICRO, 1_000),
        Measure::GpuHours => scaled(total.get(GPU).0, MICRO, 1_000),
        Measure::MemoryHours => scaled(total.memory_bytes.0, MICRO, GIB),
        Measure::Cost => price_per_hour(total, prices),
        Measure::Concurrent | Measure::Storage | Measure::Starts => 0,
    }
}

/// What the price of its nodes makes of money, in thousandths; rounded up. Hours are hours everywhere.
pub(super) fn at_price(measure: Measure, per_hour: u64, permille: u32) -> u64 {
    if measure == Measure::Cost && !mutant!("one-price-for-all") {
        scaled(per_hour, permille.into(), 1_000)
    } else {
        per_hour
    }
}

/// What a class makes of it, in thousandths; rounded up.
pub(super) fn multiplied(per_hour: u64, factor_milli: u32) -> u64 {
    if mutant!("count-classes-alike") { per_hour } else { scaled(per_hour, factor_milli.into(), 1_000) }
}

/// What is taken whatever the time.
pub(super) fn flat(measure: Measure, total: &Resources) -> u64 {
    match measure {
        Measure::Concurrent | Measure::Starts => 1,
        Measure::Storage => {
            let stored = total.iter().filter(|(name, _)| *name == "storage" || name.starts_with("storage/"));
            stored.fold(0, |sum: u64, (_, amount)| sum.saturating_add(amount.0))
        }
        _ => 0,
    }
}

/// What an hour of these amounts costs, in millionths of the currency. Prices are per core, GiB of memory or storage, device, or piece, and hour.
pub fn price_per_hour(total: &Resources, prices: &BTreeMap<String, u64>) -> u64 {
    let cost = |(name, price): (&String, &u64)| {
        let whole = match name.as_str() {
            "cpu" | GPU => 1_000,
            "memory" | "storage" => GIB,
            name if name.starts_with("storage/") => GIB,
            _ => 1,
        };
        scaled(total.get(name).0, *price, whole)
    };
    prices.iter().map(cost).fold(0, u64::saturating_add)
}

fn scaled(amount: u64, factor: u64, whole: u128) -> u64 {
    u64::try_from((u128::from(amount) * u128::from(factor)).div_ceil(whole)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_and_prices_are_what_one_works_out_by_hand() {
        let total = Resources::new(2_500, 3 << 30).with(GPU, 500);
        let prices = BTreeMap::from([("cpu".to_owned(), 40_000), (GPU.to_owned(), 2_500_000)]);
        assert_eq!(per_hour(Measure::CpuHours, &total, &prices), 2_500_000);
        assert_eq!(per_hour(Measure::GpuHours, &total, &prices), 500_000);
        assert_eq!(per_hour(Measure::MemoryHours, &total, &prices), 3_000_000);
        assert_eq!(per_hour(Measure::Cost, &total, &prices), 100_000 + 1_250_000);
        assert_eq!(stretch(1_350_000, 1_800_000), 675_000);
        assert_eq!(stretch(1, 1), 1, "rounded up");
        assert_eq!(stretch(u64::MAX, u64::MAX), u64::MAX);
    }
}
