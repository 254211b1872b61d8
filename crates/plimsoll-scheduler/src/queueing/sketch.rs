//! A quantile sketch of durations in integers: counts per quarter of an octave, so that any quantile or mean is right to
//! within 10 %, whatever the range.

/// Quarters of octaves from 1 s on; the last holds all that is longer than 2^28 s.
pub(crate) const BUCKETS: usize = 112;
/// One observation of full weight.
pub(crate) const ONE: u64 = 1 << 16;
/// Below this a run counts as this long where slowness is judged: the bound of the bounded slowdown, in milliseconds
/// (Feitelson and Rudolph 1998).
pub const SLOWDOWN_BOUND_MS: u64 = 10_000;

/// Weights of durations. All operations are O([`BUCKETS`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    weights: [u64; BUCKETS],
}

/// What a sketch says of the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Expected length, in milliseconds.
    pub mean_ms: u64,
    /// Expected 1 / max(length, [`SLOWDOWN_BOUND_MS`]), in 2^-40 per millisecond: how much each millisecond of wait slows it down.
    pub urgency: u64,
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch { weights: [0; BUCKETS] }
    }
}

impl Sketch {
    /// Adds one observation of weight `weight` (in 2^-16).
    pub fn add(&mut self, duration_ms: u64, weight: u64) {
        let cell = &mut self.weights[bucket(duration_ms)];
        *cell = cell.saturating_add(weight);
    }

    /// Fades everything: each weight times `keep` / 2^16, rounded down.
    pub fn fade(&mut self, keep: u64) {
        for weight in &mut self.weights {
            *weight = ((u128::from(*weight) * u128::from(keep)) >> 16) as u64;
        }
    }

    /// Adds another sketch times `factor` / 2^16.
    pub fn add_all(&mut self, other: &Sketch, factor: u64) {
        for (weight, more) in self.weights.iter_mut().zip(&other.weights) {
            *weight = weight.saturating_add(((u128::from(*more) * u128::from(factor)) >> 16) as u64);
        }
    }

    /// Adds another sketch scaled to the weight `total` in all.
    pub fn add_as(&mut self, other: &Sketch, total: u64) {
        let whole = other.weight();
        if whole == 0 {
            return;
        }
        for (weight, more) in self.weights.iter_mut().zip(&other.weights) {
            *weight = weight.saturating_add((u128::from(*more) * u128::from(total) / whole) as u64);
        }
    }

    /// Adds what `base` says of a run that is known to last longer than `elapsed_ms`, with the weight `total` in all: what
    /// is running has no length yet, only a least one (the redistribution to the right of Efron 1967). A run longer than
    /// all known ones is expected to last as long again (Lindy's rule for heavy tails).
    pub fn add_beyond(&mut self, base: &Sketch, elapsed_ms: u64, total: u64) {
        let first = bucket(elapsed_ms);
        let whole: u128 = base.weights[first..].iter().map(|weight| u128::from(*weight)).sum();
        if whole == 0 {
            self.add(elapsed_ms.saturating_mul(2), total);
            return;
        }
        for (weight, more) in self.weights[first..].iter_mut().zip(&base.weights[first..]) {
            *weight = weight.saturating_add((u128::from(*more) * u128::from(total) / whole) as u64);
        }
    }

    /// Sum of the weights, in 2^-16.
    pub fn weight(&self) -> u128 {
        self.weights.iter().map(|weight| u128::from(*weight)).sum()
    }

    /// The length that `permille` of the runs do not exceed, in milliseconds; `None` of nothing.
    pub fn quantile_ms(&self, permille: u64) -> Option<u64> {
        let whole = self.weight();
        let mut seen = 0;
        let reached = |weight: &u64| {
            seen += u128::from(*weight) * 1_000;
            seen >= whole * u128::from(permille.min(1_000)) && seen > 0
        };
        (whole > 0).then(|| self.weights.iter().position(reached).map(middle_ms)).flatten()
    }

    /// What it says of the next run; `None` of nothing.
    pub fn outlook(&self) -> Option<Outlook> {
        let whole = self.weight();
        if whole == 0 {
            return None;
        }
        let (mut length, mut urgency) = (0u128, 0u128);
        for (index, weight) in self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            let middle = u128::from(middle_ms(index));
            length += u128::from(*weight) * middle;
            urgency += u128::from(*weight) * ((1 << 40) / middle.max(u128::from(SLOWDOWN_BOUND_MS)));
        }
        let mean = |sum: u128| u64::try_from(sum / whole).unwrap_or(u64::MAX).max(1);
        Some(Outlook { mean_ms: mean(length), urgency: mean(urgency) })
    }
}

/// Expected rest of a run: what is left of its expected length, or, past that, part of its age.
pub(crate) fn rest_ms(mean_ms: u64, elapsed_ms: u64) -> u64 {
    let least = mean_ms / 5;
    match mean_ms.checked_sub(elapsed_ms) {
        Some(left) if left > 0 => left.max(least),
        _ => (elapsed_ms / 10).saturating_mul(7).saturating_add(least),
    }
}

/// Quarter of an octave: two bits after the leading one, in seconds; all below a second in the first.
fn bucket(duration_ms: u64) -> usize {
    // In 1/1024 s, so that quarters of the first octaves are told apart.
    let fine = (u128::from(duration_ms) * 1_024 / 1_000).max(1_024) as u64;
    let octave = fine.ilog2() - 10;
    let mantissa = fine >> octave;
    // Borders at 2^10 times 2^(1/4), 2^(1/2) and 2^(3/4).
    let quarter = [1_218, 1_448, 1_722].iter().filter(|border| mantissa >= **border).count();
    ((octave as usize) * 4 + quarter).min(BUCKETS - 1)
}

/// Geometric middle of a bucket, in milliseconds: 2^(1/8), 2^(3/8), 2^(5/8), 2^(7/8) s times the octave.
fn middle_ms(bucket: usize) -> u64 {
    [1_091, 1_297, 1_542, 1_834][bucket % 4] << (bucket / 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quantiles_and_means_are_right_to_a_tenth(
            mut lengths in prop::collection::vec(1_000u64..10_000_000_000, 1..60),
            permille in 0u64..=1_000,
        ) {
            let mut sketch = Sketch::default();
            for length in &lengths {
                sketch.add(*length, ONE);
            }
            lengths.sort_unstable();
            let rank = (lengths.len() as u64 * permille).div_ceil(1_000).max(1) as usize;
            let (exact, told) = (lengths[rank - 1], sketch.quantile_ms(permille).unwrap());
            prop_assert!(told.abs_diff(exact) * 10 <= exact, "{told} for {exact}");
            let mean = lengths.iter().sum::<u64>() / lengths.len() as u64;
            let outlook = sketch.outlook().unwrap();
            prop_assert!(outlook.mean_ms.abs_diff(mean) * 10 <= mean);
        }

        #[test]
        fn a_run_that_goes_on_is_expected_to_go_on(elapsed in 0u64..1_000_000_000, known in 0u64..1_000_000_000) {
            let mut base = Sketch::default();
            base.add(known, ONE);
            let mut sketch = Sketch::default();
            sketch.add_beyond(&base, elapsed, ONE);
            prop_assert!(sketch.weight() > 0);
            prop_assert!(sketch.quantile_ms(0).unwrap() >= elapsed / 10 * 8);
        }
    }

    #[test]
    fn nothing_known_says_nothing_and_old_runs_fade() {
        assert_eq!((Sketch::default().outlook(), Sketch::default().quantile_ms(500)), (None, None));
        let mut sketch = Sketch::default();
        sketch.add(10_000, ONE);
        for _ in 0..64 {
            sketch.fade(ONE / 2);
        }
        assert_eq!(sketch.outlook(), None);
    }

    #[test]
    fn short_runs_are_urgent() {
        let of = |length: u64| {
            let mut sketch = Sketch::default();
            sketch.add(length, ONE);
            sketch.outlook().unwrap().urgency
        };
        assert!(of(60_000) > 50 * of(3_600_000));
        assert_eq!(of(1_000), of(8_000), "below the bound they are alike");
    }
}
