//! Loads to expect, and the number of replicas at which one more would cost more than it saves.
//!
//! The owner names a price for a step with too little capacity, as a multiple of what the mean load costs in a step. For
//! each step ahead the number `n` of replicas is taken that makes `n + price × P(load > n × capacity)` least. This is the newsvendor's choice (Arrow, Harris and
//! Marschak 1951) for a fixed penalty per shortage instead of one per missing unit. A fixed quantile covers calm and wild
//! hours alike; this rule covers calm hours nearly always and leaves the wildest peaks uncovered, where one miss avoided
//! would cost more than its price. So it holds a share of missed steps at the least total cost.

/// Loads to expect until a replica that is asked for now would serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Which forecaster this is from.
    pub forecaster: String,
    /// Its error over that of the naive one, in thousandths; less than 1000 is better than naive.
    pub score_permille: u64,
    /// Mean of the recent loads, in thousandths. A load of less than one replica counts as one.
    pub mean_load_milli: u64,
    /// For each step ahead: equally likely loads in thousandths, ascending. An empty step says nothing.
    pub steps: Vec<Vec<u64>>,
}

/// What an outlook asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) replicas: u64,
    /// Chance of too little capacity at that number in the step that asks for most, in thousandths.
    pub(crate) miss_permille: u64,
    /// Price of a miss, in thousandths of a replica-step.
    pub(crate) price_milli: u64,
}

impl Outlook {
    /// The most that any step asks for; `None` where no step says anything. O(loads).
    pub(crate) fn need(&self, capacity_milli: u64, miss_price_permille: u64) -> Option<Need> {
        let capacity_milli = capacity_milli.max(1);
        let mean = u128::from(self.mean_load_milli.max(capacity_milli));
        let price = mean.saturating_mul(miss_price_permille.into()) / u128::from(capacity_milli);
        let price_milli = u64::try_from(price).unwrap_or(u64::MAX);
        let needs = self.steps.iter().filter_map(|loads| cheapest(loads, capacity_milli, price_milli));
        needs.max_by_key(|need| need.replicas)
    }
}

/// The cheapest number for one step. It is 0 or just enough for one of the loads.
fn cheapest(loads: &[u64], capacity_milli: u64, price_milli: u64) -> Option<Need> {
    let samples = loads.len() as u128;
    if samples == 0 {
        return None;
    }
    let numbers = std::iter::once(0).chain(loads.iter().map(|load| load.div_ceil(capacity_milli)));
    let mut best: Option<(u128, u64, u64)> = None;
    let mut last = None;
    for replicas in numbers {
        if last.replace(replicas) == Some(replicas) {
            continue;
        }
        let covered = u128::from(replicas) * u128::from(capacity_milli);
        let missed = loads.len() - loads.partition_point(|load| u128::from(*load) <= covered);
        let cost =
            (u128::from(replicas) * samples * 1000).saturating_add(u128::from(price_milli) * missed as u128);
        if best.is_none_or(|(least, ..)| cost < least) {
            best = Some((cost, replicas, missed as u64));
        }
    }
    let (_, replicas, missed) = best?;
    Some(Need { replicas, miss_permille: missed * 1000 / loads.len() as u64, price_milli })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// At a mean load of one replica, so that the price is in replica-steps.
    fn need(loads: &[u64], capacity: u64, price: u64) -> Option<(u64, u64)> {
        let outlook = Outlook { steps: vec![loads.to_vec()], ..Outlook::default() };
        outlook.need(capacity, price.saturating_mul(1000)).map(|need| (need.replicas, need.miss_permille))
    }

    #[test]
    fn a_peak_is_covered_only_while_the_price_is_worth_it() {
        let loads = [10, 10, 10, 10, 10, 10, 10, 10, 10, 200];
        assert_eq!(need(&loads, 10, 100), Some((1, 100)), "19 more replicas for a tenth of 100");
        assert_eq!(need(&loads, 10, 200), Some((20, 0)), "19 more replicas for a tenth of 200");
        assert_eq!(need(&loads, 10, 0), Some((0, 1000)), "a miss that costs nothing is never avoided");
    }

    #[test]
    fn the_step_that_asks_for_most_counts_and_an_empty_one_says_nothing() {
        let outlook = Outlook { steps: vec![vec![5], vec![], vec![25], vec![15]], ..Outlook::default() };
        assert_eq!(outlook.need(10, 1_000_000).map(|need| need.replicas), Some(3));
        assert_eq!(Outlook::default().need(10, 1000), None);
        assert_eq!(
            need(&[7], 0, 10).map(|(replicas, _)| replicas),
            Some(7),
            "no capacity counts as one thousandth"
        );
    }

    #[test]
    fn the_price_grows_with_the_mean_load() {
        let of = |scale: u64| Outlook {
            mean_load_milli: 20 * scale,
            steps: vec![(1..=100).map(|load| load * scale).collect()],
            ..Outlook::default()
        };
        let (small, large) = (of(10).need(10, 10_000), of(1000).need(10, 10_000));
        let small = small.expect("there are loads");
        let large = large.expect("there are loads");
        assert_eq!((large.replicas, large.miss_permille), (100 * small.replicas, small.miss_permille));
        assert_eq!((small.price_milli, large.price_milli), (200_000, 20_000_000));
    }

    proptest! {
        #[test]
        fn no_number_is_cheaper(
            mut loads in prop::collection::vec(0u64..300, 1..40), capacity in 1u64..50, price in 0u64..500,
        ) {
            loads.sort_unstable();
            let cost = |n: u64| {
                n * loads.len() as u64 + price * loads.iter().filter(|load| **load > n * capacity).count() as u64
            };
            let (chosen, _) = need(&loads, capacity, price).expect("there are loads");
            prop_assert_eq!(cost(chosen), (0..=300).map(cost).min().expect("some number"));
        }

        #[test]
        fn a_higher_price_never_asks_for_less(
            mut loads in prop::collection::vec(any::<u64>(), 1..40), capacity in any::<u64>(), price in 0u64..u64::MAX,
        ) {
            loads.sort_unstable();
            prop_assert!(need(&loads, capacity, price) .map(|need| need.0) <= need(&loads, capacity, price + 1).map(|need| need.0));
        }
    }
}
