//! Rates with bursts: the generic cell rate algorithm, with one integer of state.
//!
//! The state is the theoretical arrival: when the bucket would be full again, in nanoseconds since the Unix epoch. A take moves it on by the
//! time that its tokens need, and is allowed while it stays within a full burst of now. Times are rounded up, so that never more passes.

use plimsoll_mutants::mutant;
use plimsoll_types::LedgerTime;

/// So many tokens per period, and so many at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per period; at least 1.
    pub tokens: u64,
    /// The period, in milliseconds; at least 1.
    pub period_ms: u64,
    /// Most tokens at once; at least 1.
    pub burst: u64,
}

/// What a take came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens taken: all that were asked, or none.
    pub taken: u64,
    /// Tokens that are left now.
    pub left: u64,
    /// Where none were taken: so many milliseconds from now they may be; `u64::MAX` where they never may, being more than the burst.
    pub retry_after_ms: u64,
}

const NS_PER_MS: u128 = 1_000_000;

impl Rate {
    /// Takes tokens at a moment: what came of it, and the theoretical arrival afterwards.
    pub fn take(&self, arrival_ns: u64, now: LedgerTime, asked: u64) -> (Tokens, u64) {
        let now_ns = u128::from(now.0) * NS_PER_MS;
        let before = u128::from(arrival_ns).max(now_ns);
        let after = before + self.time_for(asked);
        let full = self.time_for(self.burst);
        if asked > self.burst {
            let left = self.left(before - now_ns);
            return (Tokens { taken: 0, left, retry_after_ms: u64::MAX }, arrival_ns);
        }
        if after > now_ns + full && !mutant!("tokens-for-all") {
            let wait_ms = (after - now_ns - full).div_ceil(NS_PER_MS);
            let retry_after_ms = u64::try_from(wait_ms).unwrap_or(u64::MAX);
            return (Tokens { taken: 0, left: self.left(before - now_ns), retry_after_ms }, arrival_ns);
        }
        let arrival_ns = u64::try_from(after).unwrap_or(u64::MAX);
        (Tokens { taken: asked, left: self.left(after - now_ns), retry_after_ms: 0 }, arrival_ns)
    }

    /// Tokens left at a moment.
    pub fn available(&self, arrival_ns: u64, now: LedgerTime) -> u64 {
        let now_ns = u128::from(now.0) * NS_PER_MS;
        self.left(u128::from(arrival_ns).saturating_sub(now_ns))
    }

    /// Tokens for which there is time left, where the bucket is full again in `ahead_ns`.
    fn left(&self, ahead_ns: u128) -> u64 {
        let free_ns = self.time_for(self.burst).saturating_sub(ahead_ns);
        let tokens = free_ns * u128::from(self.tokens) / (u128::from(self.period_ms.max(1)) * NS_PER_MS);
        u64::try_from(tokens).unwrap_or(u64::MAX).min(self.burst)
    }

    /// The time that tokens need, in nanoseconds, rounded up.
    fn time_for(&self, tokens: u64) -> u128 {
        let period_ns = u128::from(self.period_ms) * NS_PER_MS;
        (u128::from(tokens) * period_ns).div_ceil(u128::from(self.tokens.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_then_one_per_interval() {
        let rate = Rate { tokens: 60, period_ms: 60_000, burst: 10 };
        let now = LedgerTime(1_795_000_000_000);
        let (first, arrival) = rate.take(0, now, 10);
        assert_eq!(first, Tokens { taken: 10, left: 0, retry_after_ms: 0 });
        assert_eq!(rate.take(arrival, now, 1).0, Tokens { taken: 0, left: 0, retry_after_ms: 1_000 });
        let (third, arrival) = rate.take(arrival, now.plus_ms(2_000), 1);
        assert_eq!(third, Tokens { taken: 1, left: 1, retry_after_ms: 0 });
        assert_eq!(rate.take(arrival, now.plus_ms(2_000), 11).0.retry_after_ms, u64::MAX);
        assert_eq!(rate.available(arrival, now.plus_ms(3_600_000)), 10, "no more than the burst gathers");
    }

    proptest! {
        #[test]
        fn never_more_passes_than_the_burst_and_what_the_time_brings(
            tokens in 1..10_000u64,
            period_ms in 1..100_000u64,
            burst in 1..1_000u64,
            takes in proptest::collection::vec((0..5_000u64, 1..1_200u64), 1..60),
        ) {
            let rate = Rate { tokens, period_ms, burst };
            let start = 1_795_000_000_000;
            let (mut now, mut arrival, mut sum) = (start, 0, 0u128);
            for (later, asked) in takes {
                now += later;
                let (told, next) = rate.take(arrival, LedgerTime(now), asked);
                if told.taken == 0 && told.retry_after_ms < u64::MAX {
                    let then = LedgerTime(now + told.retry_after_ms);
                    prop_assert_eq!(rate.take(arrival, then, asked).0.taken, asked, "the advice holds");
                    let early = LedgerTime(now + told.retry_after_ms - 1);
                    prop_assert_eq!(rate.take(arrival, early, asked).0.taken, 0, "and is no longer than it must be");
                }
                arrival = next;
                sum += u128::from(told.taken);
                let brought = u128::from(now - start) * u128::from(tokens) / u128::from(period_ms);
                prop_assert!(sum <= u128::from(burst) + brought, "{} of {} + {}", sum, burst, brought);
            }
        }
    }
}
