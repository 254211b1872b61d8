//! When a budget that fades has enough again: nothing happens then but the passing of time, so whoever waits for it has to be woken.

use plimsoll_types::LedgerTime;

use super::priced::Priced;
use super::{Meter, Reset};
use crate::quota::decay;
use crate::{Ledger, Request};

/// After so many half-lives nothing of any amount is left.
const MOST_HALVES: u64 = 64;

impl Ledger {
    /// True where some budget fades. O(quotas).
    pub fn has_fading_budgets(&self) -> bool {
        let fades = |meter: &Meter| matches!(meter.reset, Reset::Rolling(_));
        self.counts_usage() && self.quota_policies().any(|quota| quota.limits.keys().any(fades))
    }

    /// The first moment after now at which all that a grant of `total` now would commit has room, where only what fades has to fade for that.
    /// `None` where there is room now, where something else is short too, or where no fading is enough: then something else happens first.
    /// O(quotas about it x log of their half-lives).
    pub fn usage_fades_at(
        &self,
        request: &Request,
        requester: &str,
        total: Priced<'_>,
    ) -> Option<LedgerTime> {
        if !self.counts_usage() {
            return None;
        }
        let now = self.meta.clock;
        let until = self.paid_until(request, now);
        let mut enough_at = None;
        for charge in self.wanted(request, requester, total, now) {
            let Some(meter) = charge.meter().filter(|_| !charge.is_own_cost()) else { continue };
            let quota = self.quota_policies.get(&charge.key.quota);
            let Some(limit) = quota.and_then(|quota| quota.limits.get(&meter)).copied() else { continue };
            let Some(row) = self.book.get(&charge.key).map(|row| row.at(now)) else { continue };
            // Fading takes off what is spent: what is committed stays until its grants end.
            let most = limit.checked_sub(charge.amount(until))?.checked_sub(row.committed)?;
            if row.spent <= most {
                continue;
            }
            let Reset::Rolling(half_life_ms) = meter.reset else { return None };
            let at = now.plus_ms(fades_to(row.spent, most, half_life_ms));
            enough_at = enough_at.max(Some(at));
        }
        enough_at
    }
}

/// After how many milliseconds `spent` has faded to at most `most`, which is less.
fn fades_to(spent: u64, most: u64, half_life_ms: u64) -> u64 {
    let left = |ms: u64| decay(spent.into(), ms, half_life_ms) <= most.into();
    let (mut not_yet, mut enough) = (0, half_life_ms.saturating_mul(MOST_HALVES + 1));
    while enough - not_yet > 1 {
        let middle = not_yet + (enough - not_yet) / 2;
        if left(middle) { enough = middle } else { not_yet = middle }
    }
    enough
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_half_after_a_half_life_and_gone_after_many() {
        let hour_ms = 3_600_000;
        let after = |spent, most| fades_to(spent, most, hour_ms);
        // Rounded down as the book is: a millionth of a core-hour less than a half counts as one.
        for (most, halves) in [(4_000_000, 1), (2_000_000, 2)] {
            let at = after(8_000_000, most);
            assert!((halves * hour_ms - 10..=halves * hour_ms).contains(&at), "{at} ms for {most}");
        }
        assert!(after(u64::MAX, 0) <= 65 * hour_ms);
        // One moment before it is not enough yet.
        for most in [1, 3_000, 7_000] {
            let at = after(8_000, most);
            assert!(decay(8_000, at, hour_ms) <= most.into() && decay(8_000, at - 1, hour_ms) > most.into());
        }
    }
}
