//! Share between queues at one moment: weighted dominant resource fairness on what is borrowed.
//!
//! `share(c) = max over resources of [ sum over pools of (usage beyond quota x price weight) / what c's parent could lend ] / weight(c)`
//! (Kueue KEP 1714; price weights by pool answer kueue #8902; DRF: Ghodsi et al., NSDI 2011). Who borrows nothing has share 0.

use std::collections::BTreeMap;

use super::QuotaTree;

/// A queue's share: billionths of what its parent could lend it, divided by its weight. Compares as the fraction does, to the billionth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(pub u128);

/// The share of who borrows and has no weight, or borrows what nobody lends: above all others.
const ENDLESS: Share = Share(u128::MAX);

impl QuotaTree {
    /// The share of a queue, by its weight or as if all had the same. `price_milli` weighs pools against each other in thousandths; 1,000
    /// where it says nothing. O(pools x resources x depth).
    pub fn share(&self, queue: &str, price_milli: &BTreeMap<String, u32>, weighted: bool) -> Share {
        let Some(entry) = self.entry(queue) else { return Share::default() };
        let mut borrowed: BTreeMap<&str, u128> = BTreeMap::new();
        let mut lendable: BTreeMap<&str, u128> = BTreeMap::new();
        for (of, cells) in &entry.cells {
            let price = u128::from(price_milli.get(of).copied().unwrap_or(1_000));
            for (resource, cell) in cells {
                *borrowed.entry(resource).or_default() += u128::from(cell.borrowed().0) * price;
                let above = self.potential(&entry.parent, of, resource).unwrap_or_default();
                *lendable.entry(resource).or_default() += u128::from(above.0) * price;
            }
        }
        let mut largest = Share::default();
        for (resource, borrowed) in borrowed {
            if borrowed == 0 {
                continue;
            }
            let lendable = lendable.get(resource).copied().unwrap_or_default();
            let weight = if weighted { u128::from(entry.weight_milli) } else { 1_000 };
            if lendable == 0 || weight == 0 {
                return ENDLESS;
            }
            // Below 2^64 x 2^32 x pools, so that there is room for the billion.
            largest = largest.max(Share(borrowed.saturating_mul(1_000_000_000) / lendable * 1_000 / weight));
        }
        largest
    }
}
