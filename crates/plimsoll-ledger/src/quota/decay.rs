//! Use that fades: what was taken long ago counts less, by half each half-life.
//!
//! `U(t) = sum of use x 0.5^((t - t_use) / h)`, HTCondor's and Slurm's half-life decay. A replicated state machine has no floats: the value is
//! kept with its stamp and decayed when it is read, by shifts for whole half-lives and a table of 2^(-i/256) for the rest.

use plimsoll_types::LedgerTime;

/// Use with the time it was worked out for. In resource-milliseconds (for example millicores x ms), as of `stamp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecayedUse {
    /// Decayed use as of `stamp`.
    pub value: u128,
    /// Ledger time it was worked out for.
    pub stamp: LedgerTime,
}

impl DecayedUse {
    /// The use as of `now`; as of its stamp where that is later.
    pub fn at(&self, now: LedgerTime, half_life_ms: u64) -> u128 {
        decay(self.value, now.0.saturating_sub(self.stamp.0), half_life_ms)
    }

    /// Adds `amount` held over the last `held_ms` up to `now`, as HTCondor does it: the older part of it has faded already.
    /// Independent of how often it is called, to the precision of the table.
    pub fn charge(&mut self, now: LedgerTime, amount: u64, held_ms: u64, half_life_ms: u64) {
        let before = self.at(now, half_life_ms);
        // The integral of amount x 0.5^(x/h) over the time held: amount x h / ln 2 x (1 - 0.5^(held/h)).
        let unfaded = u128::from(amount) * u128::from(half_life_ms) * 1_000_000_000 / LN2_PPB;
        let added = if half_life_ms == 0 { 0 } else { unfaded - decay(unfaded, held_ms, half_life_ms) };
        *self = DecayedUse { value: before.saturating_add(added), stamp: now.max(self.stamp) };
    }

    /// Adds use that counts as of `now` at once: the entry penalty of a grant, before its time is held.
    pub fn add(&mut self, now: LedgerTime, use_: u128, half_life_ms: u64) {
        *self =
            DecayedUse { value: self.at(now, half_life_ms).saturating_add(use_), stamp: now.max(self.stamp) };
    }
}

/// The natural logarithm of 2, in billionths.
pub(crate) const LN2_PPB: u128 = 693_147_181;
/// Steps of the table in one half-life.
const STEPS: u64 = 256;

/// `value x 0.5^(elapsed / half_life)`, rounded down; with a half-life of 0 nothing fades. Off by at most one part in a million.
pub fn decay(value: u128, elapsed_ms: u64, half_life_ms: u64) -> u128 {
    if half_life_ms == 0 {
        return value;
    }
    let halves = elapsed_ms / half_life_ms;
    if halves >= 128 {
        return 0;
    }
    let whole = value >> halves;
    // Position in the half-life in 2^-24 parts: the upper 8 bits choose from the table, the lower 16 go between two of its values.
    let part = u128::from(elapsed_ms % half_life_ms) * (u128::from(STEPS) << 16) / u128::from(half_life_ms);
    let (step, between) = ((part >> 16) as u64, part & 0xffff);
    let (high, low) = (power(step), power(step + 1));
    let factor = high - (((high - low) * between) >> 16);
    mul_shift(whole, factor, 40)
}

/// 2^(-step/256) in 40 binary places, by squaring what is known exactly: `step` in binary picks the roots of a half.
fn power(step: u64) -> u128 {
    let mut factor: u128 = 1 << 40;
    for (bit, root) in ROOTS.iter().enumerate() {
        if (step >> bit) & 1 == 1 {
            factor = (factor * root) >> 40;
        }
    }
    factor
}

/// 2^(-2^bit / 256) in 40 binary places, rounded to nearest, for bit 0 to 8.
const ROOTS: [u128; 9] = [
    1_096_538_610_001,
    1_093_573_631_100,
    1_087_667_703_029,
    1_075_951_360_882,
    1_052_895_941_925,
    1_008_256_608_221,
    924_575_386_327,
    777_472_127_994,
    549_755_813_888,
];

/// `value x factor >> shift` without overflow for any value.
fn mul_shift(value: u128, factor: u128, shift: u32) -> u128 {
    let (high, low) = (value >> 64, value & u128::from(u64::MAX));
    ((high * factor) << (64 - shift)) + ((low * factor) >> shift)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn half_is_left_after_a_half_life() {
        assert_eq!(decay(1_000_000, DAY_MS, DAY_MS), 500_000);
        assert_eq!(decay(1_000_000, 3 * DAY_MS, DAY_MS), 125_000);
        assert_eq!(decay(1_000_000_000, DAY_MS / 2, DAY_MS), 707_106_781, "a root of a half");
        assert_eq!(decay(u128::MAX, 128 * DAY_MS, DAY_MS), 0);
        assert_eq!(decay(7, DAY_MS, 0), 7, "nothing fades without a half-life");
    }

    #[test]
    fn steady_use_tends_to_use_times_half_life_over_ln_2() {
        let mut fine = DecayedUse::default();
        let mut coarse = DecayedUse::default();
        for hour in 1..=24 * 20 {
            fine.charge(LedgerTime(hour * DAY_MS / 24), 1_000, DAY_MS / 24, DAY_MS);
            if hour % 48 == 0 {
                coarse.charge(LedgerTime(hour * DAY_MS / 24), 1_000, 2 * DAY_MS, DAY_MS);
            }
        }
        let limit = 1_000.0 * DAY_MS as f64 / std::f64::consts::LN_2;
        for use_ in [fine, coarse] {
            assert!((use_.value as f64 / limit - 1.0).abs() < 1e-5, "{} {limit}", use_.value);
        }
    }

    proptest! {
        #[test]
        fn it_is_as_good_as_floats(value in 0u128..1 << 100, elapsed in 0u64..20 * DAY_MS, half in 1u64..10 * DAY_MS) {
            let exact = value as f64 * 0.5f64.powf(elapsed as f64 / half as f64);
            let ours = decay(value, elapsed, half) as f64;
            prop_assert!((ours - exact).abs() <= exact * 1.1e-6 + 2.0, "{ours} {exact}");
        }

        #[test]
        fn later_is_never_more(value in any::<u128>(), elapsed in 0u64..20 * DAY_MS, more in 0u64..DAY_MS) {
            prop_assert!(decay(value, elapsed + more, DAY_MS) <= decay(value, elapsed, DAY_MS));
        }
    }
}
