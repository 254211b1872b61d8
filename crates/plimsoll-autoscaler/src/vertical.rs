//! Vertical: what one replica should request, from a decaying histogram of what it used.
//!
//! Buckets grow by a factor, so that the relative error is bounded, and a sample's weight halves every `half_life_ms`:
//! the scheme of the Kubernetes Vertical Pod Autoscaler's decaying histogram (VPA design proposal, "Recommendation
//! model": exponential buckets, half-life of 24 hours, percentile with a safety margin of 15 %). Here a newer sample weighs
//! more instead of all older ones less, which is the same ratio, and the bounds of buckets are integers.

/// How a recommendation is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerticalPolicy {
    /// Share of use that the request should cover, in thousandths.
    pub quantile_permille: u32,
    /// Added on top, in thousandths.
    pub margin_permille: u32,
    /// Least recommendation, in the resource's unit.
    pub min: u64,
    /// Largest recommendation, in the resource's unit: what the quota leaves.
    pub max: u64,
    /// Fewest samples before anything is recommended.
    pub min_samples: u64,
}

/// What to request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recommendation {
    /// In the resource's unit, within the policy's bounds.
    pub request: u64,
    /// Use at the quantile, before margin and bounds: the upper bound of its bucket.
    pub quantile_use: u64,
    /// Samples seen.
    pub samples: u64,
}

impl Default for VerticalPolicy {
    /// 95 % of use plus 15 %, from 8 samples on.
    fn default() -> VerticalPolicy {
        VerticalPolicy { quantile_permille: 950, margin_permille: 150, min: 0, max: u64::MAX, min_samples: 8 }
    }
}

/// Weights of use, by bucket. Bounded: 1,000 buckets of 5 % reach from 1 to beyond 2^64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    half_life_ms: u64,
    /// Weights double from here on at every half-life.
    reference_ms: u64,
    /// Weight of each bucket.
    weights: Vec<u128>,
    samples: u64,
}

/// Weight of a sample at the reference moment; 20 bits for the decay between two half-lives.
const UNIT: u128 = 1 << 20;
/// Doublings before all weights are shifted back.
const MOST_DOUBLINGS: u64 = 40;

impl Histogram {
    /// An empty histogram. A half-life of 0 counts as 1 ms.
    #[must_use]
    pub fn new(half_life_ms: u64) -> Histogram {
        Histogram { half_life_ms: half_life_ms.max(1), reference_ms: 0, weights: Vec::new(), samples: 0 }
    }

    /// One measurement in the resource's unit (millicores, bytes). O(log of the value).
    pub fn add(&mut self, value: u64, at_ms: u64) {
        if self.samples == 0 {
            self.reference_ms = at_ms;
        }
        self.shift(at_ms);
        let index = bucket(value);
        if self.weights.len() <= index {
            self.weights.resize(index + 1, 0);
        }
        let weight = self.weight(at_ms);
        self.weights[index] = self.weights[index].saturating_add(weight);
        self.samples = self.samples.saturating_add(1);
    }

    /// What to request; `None` with too few samples. O(buckets).
    #[must_use]
    pub fn recommend(&self, policy: &VerticalPolicy) -> Option<Recommendation> {
        let whole: u128 = self.weights.iter().sum();
        if whole == 0 || self.samples < policy.min_samples {
            return None;
        }
        let quantile = u128::from(policy.quantile_permille.min(1000));
        let wanted = (whole * quantile).div_ceil(1000).max(1);
        let mut reached = 0;
        let index = self.weights.iter().position(|weight| {
            reached += weight;
            reached >= wanted
        })?;
        let quantile_use = upper_bound(index);
        let margin = u128::from(quantile_use) * (1000 + u128::from(policy.margin_permille)) / 1000;
        let request = u64::try_from(margin).unwrap_or(u64::MAX).max(policy.min).min(policy.max);
        Some(Recommendation { request, quantile_use, samples: self.samples })
    }

    /// Weight of a sample: doubles at every half-life, straight in between. One from before the reference counts little.
    fn weight(&self, at_ms: u64) -> u128 {
        let Some(age_ms) = at_ms.checked_sub(self.reference_ms) else {
            let halvings = (self.reference_ms - at_ms) / self.half_life_ms;
            return UNIT.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0);
        };
        let (doublings, rest_ms) = (age_ms / self.half_life_ms, age_ms % self.half_life_ms);
        let part = UNIT * u128::from(rest_ms) / u128::from(self.half_life_ms);
        (UNIT + part) << doublings.min(MOST_DOUBLINGS)
    }

    /// Moves the reference on before weights grow too large.
    fn shift(&mut self, at_ms: u64) {
        let doublings = at_ms.saturating_sub(self.reference_ms) / self.half_life_ms;
        if doublings < MOST_DOUBLINGS {
            return;
        }
        self.reference_ms = self.reference_ms.saturating_add(doublings.saturating_mul(self.half_life_ms));
        let bits = u32::try_from(doublings).unwrap_or(u32::MAX);
        for weight in &mut self.weights {
            *weight = weight.checked_shr(bits).unwrap_or(0);
        }
    }
}

/// First bucket whose upper bound is at least the value.
fn bucket(value: u64) -> usize {
    let mut bound = 1u64;
    let mut index = 0;
    while bound < value {
        bound = next_bound(bound);
        index += 1;
    }
    index
}

fn upper_bound(index: usize) -> u64 {
    (0..index).fold(1, |bound, _| next_bound(bound))
}

/// 5 % more, and at least one more.
fn next_bound(bound: u64) -> u64 {
    bound.saturating_add((bound / 20).max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new(DAY_MS);
        values.into_iter().for_each(|value| histogram.add(value, 0));
        histogram
    }

    #[test]
    fn the_request_is_the_quantile_with_margin_inside_its_bounds() {
        let histogram = of(1..=100);
        let found = histogram.recommend(&VerticalPolicy::default()).expect("enough samples");
        assert!((95..=100).contains(&found.quantile_use), "{found:?}");
        assert_eq!(found.request, found.quantile_use * 1150 / 1000);
        let bounded = VerticalPolicy { max: 50, ..VerticalPolicy::default() };
        assert_eq!(
            histogram.recommend(&bounded).map(|found| found.request),
            Some(50),
            "never across a quota"
        );
        assert_eq!(of(1..=7).recommend(&VerticalPolicy::default()), None, "too few samples");
    }

    #[test]
    fn old_use_fades() {
        let mut histogram = of(std::iter::repeat_n(1000, 100));
        for sample in 0..100 {
            histogram.add(100, 10 * DAY_MS + sample);
        }
        let found = histogram.recommend(&VerticalPolicy::default()).expect("enough samples");
        assert!(found.quantile_use <= 105, "ten half-lives ago is a thousandth: {found:?}");
        histogram.add(7, 1000 * DAY_MS);
        let found = histogram.recommend(&VerticalPolicy::default()).expect("enough samples");
        assert!(found.quantile_use <= 8, "{found:?}");
    }

    proptest! {
        #[test]
        fn it_covers_its_quantile_within_a_bucket(
            mut values in prop::collection::vec(0u64..1_000_000_000, 8..200), quantile_permille in 1u32..=1000,
        ) {
            let policy = VerticalPolicy { quantile_permille, margin_permille: 0, ..VerticalPolicy::default() };
            let found = of(values.iter().copied()).recommend(&policy).expect("enough samples").request;
            values.sort_unstable();
            let exact = values[(values.len() * quantile_permille as usize).div_ceil(1000) - 1];
            prop_assert!(found >= exact && found <= exact + exact / 19 + 2, "{found} for {exact}");
        }

        #[test]
        fn no_value_and_no_time_panics(samples in prop::collection::vec((any::<u64>(), any::<u64>()), 0..40), half_life in any::<u64>()) {
            let mut histogram = Histogram::new(half_life);
            samples.iter().for_each(|(value, at)| histogram.add(*value, *at));
            let policy = VerticalPolicy { min_samples: 0, quantile_permille: u32::MAX, margin_permille: u32::MAX, ..VerticalPolicy::default() };
            let _ = histogram.recommend(&policy);
        }
    }
}
