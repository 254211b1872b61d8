//! What each queue may expect of a contested amount: water-filling (KAI's fair share; Armada's adjusted fair share).
//!
//! First each gets the smaller of its own quota and its demand; the rest is dealt by weight among the unsatisfied, again and again, until
//! nothing is left or nobody wants more.

/// One queue's part in the dealing, in any one unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its own quota.
    pub nominal: u64,
    /// What it holds and waits for.
    pub demand: u64,
    /// Its weight among the claims; 0 gets nothing beyond its quota.
    pub weight: u32,
}

/// What each claim may expect of `total`, in their order. Never more than its demand, never more than `total` in all; where quotas exceed the
/// total, they are cut in their order. Whole units: what rounding leaves goes to the first that want it. O(claims^2) at worst.
pub fn entitlements(total: u64, claims: &[Claim]) -> Vec<u64> {
    let mut left = total;
    let mut given: Vec<u64> = Vec::with_capacity(claims.len());
    for claim in claims {
        let first = claim.nominal.min(claim.demand).min(left);
        given.push(first);
        left -= first;
    }
    loop {
        let hungry: Vec<usize> =
            (0..claims.len()).filter(|&i| given[i] < claims[i].demand && claims[i].weight > 0).collect();
        let weights: u128 = hungry.iter().map(|&i| u128::from(claims[i].weight)).sum();
        if left == 0 || hungry.is_empty() {
            return given;
        }
        let round = left;
        for &i in &hungry {
            let part = u128::from(round) * u128::from(claims[i].weight) / weights;
            let part = u64::try_from(part).unwrap_or(u64::MAX).min(claims[i].demand - given[i]);
            given[i] += part;
            left -= part;
        }
        if left == round {
            // Less is left than there are shares of: unit by unit.
            for &i in hungry.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                given[i] += 1;
                left -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(nominal: u64, demand: u64, weight: u32) -> Claim {
        Claim { nominal, demand, weight }
    }

    #[test]
    fn quota_first_then_the_rest_by_weight() {
        assert_eq!(entitlements(100, &[claim(20, 100, 1), claim(20, 100, 3)]), [35, 65]);
        assert_eq!(
            entitlements(100, &[claim(20, 30, 1), claim(20, 100, 1)]),
            [30, 70],
            "what one does not want goes on"
        );
        assert_eq!(entitlements(10, &[claim(0, 9, 1), claim(0, 9, 1), claim(0, 9, 1)]), [4, 3, 3]);
        assert_eq!(
            entitlements(10, &[claim(8, 8, 1), claim(8, 8, 1)]),
            [8, 2],
            "quotas beyond the total are cut"
        );
        assert_eq!(entitlements(10, &[claim(0, 8, 0)]), [0]);
    }

    proptest! {
        #[test]
        fn nothing_is_dealt_twice_and_nothing_wanted_is_left(
            total in 0u64..1_000,
            claims in prop::collection::vec((0u64..200, 0u64..300, 0u32..5).prop_map(|(n, d, w)| claim(n, d, w)), 0..8),
        ) {
            let given = entitlements(total, &claims);
            let sum: u64 = given.iter().sum();
            prop_assert!(sum <= total);
            for (given, claim) in given.iter().zip(&claims) {
                prop_assert!(*given <= claim.demand);
            }
            let wanting = given.iter().zip(&claims).any(|(given, claim)| claim.weight > 0 && *given < claim.demand);
            prop_assert!(sum == total || !wanting);
            // Of two that want more and got beyond their quota, neither has a unit and more too few for its weight.
            for (a, one) in claims.iter().enumerate() {
                for (b, other) in claims.iter().enumerate() {
                    if one.weight == 0 || other.weight == 0 || given[a] >= one.demand || given[b] >= other.demand {
                        continue;
                    }
                    let beyond = |i: usize| u128::from(given[i] - claims[i].nominal.min(given[i]));
                    let slack = u128::from(one.weight.max(other.weight)) * 10;
                    prop_assert!(beyond(a) * u128::from(other.weight) <= beyond(b) * u128::from(one.weight) + slack);
                }
            }
        }
    }
}
