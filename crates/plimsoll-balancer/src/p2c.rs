//! Power of two choices: two at random, the better of them (Mitzenmacher 2001; Envoy's least request with its default of two choices).
//!
//! Constant cost at any number of endpoints: two draws, two reads, one comparison.

use crate::mix::below;

/// What is read of an endpoint on every pick; a line of the cache holds four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Requests that were given to it and have not ended.
    pub(crate) outstanding: u32,
    /// Requests of others there, by its last report.
    pub(crate) others: u32,
    /// Its weight at present, slow start included; 0 where it may not be picked.
    pub(crate) weight: u32,
    /// How often its number was given out before.
    pub(crate) generation: u32,
}

impl Load {
    /// All that it has to do, as far as is known.
    pub(crate) const fn requests(self) -> u32 {
        self.outstanding.saturating_add(self.others)
    }

    /// Whether it has less to do than another for its weight, one request more counted: `(requests + 1) / weight`.
    pub(crate) const fn is_below(self, other: Load) -> bool {
        (self.requests() as u64 + 1) * (other.weight as u64)
            < (other.requests() as u64 + 1) * (self.weight as u64)
    }
}

/// Two different places of a list, or the only one twice; `None` of an empty list.
pub(crate) fn two(available: &[u32], draw: u64) -> Option<(u32, u32)> {
    let count = available.len() as u32;
    let first = below(draw as u32, count);
    let second = below((draw >> 32) as u32, count.saturating_sub(1));
    // The second is drawn among the others: what lies at or above the first moves up by one.
    let second = second + u32::from(second >= first && count > 1);
    Some((*available.get(first as usize)?, *available.get(second as usize)?))
}

/// The less loaded of two.
pub(crate) fn least_loaded(available: &[u32], loads: &[Load], draw: u64) -> Option<u32> {
    let (first, second) = two(available, draw)?;
    let is_second = loads[second as usize].is_below(loads[first as usize]);
    Some(if is_second { second } else { first })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_two_differ_and_are_of_the_list(count in 1_u32..50, draw: u64) {
            let available: Vec<u32> = (100..100 + count).collect();
            let (first, second) = two(&available, draw).unwrap();
            prop_assert!(available.contains(&first) && available.contains(&second));
            prop_assert!(first != second || count == 1);
        }

        #[test]
        fn the_less_loaded_for_its_weight_wins(outstanding in prop::collection::vec(0_u32..20, 2), others in prop::collection::vec(0_u32..20, 2), weights in prop::collection::vec(1_u32..10, 2), draw: u64) {
            let load = |index: usize| Load { outstanding: outstanding[index], others: others[index], weight: weights[index], generation: 0 };
            let loads = [load(0), load(1)];
            let picked = least_loaded(&[0, 1], &loads, draw).unwrap() as usize;
            let of = |index: usize| f64::from(outstanding[index] + others[index] + 1) / f64::from(weights[index]);
            prop_assert!(of(picked) <= of(1 - picked) + 1e-9);
        }
    }

    #[test]
    fn every_pair_is_as_likely() {
        let available = [0, 1, 2, 3];
        let mut counts = [[0_u32; 4]; 4];
        for draw in 0..40_000_u64 {
            let (first, second) = two(&available, crate::mix::mix(draw)).unwrap();
            counts[first as usize][second as usize] += 1;
        }
        for (first, row) in counts.iter().enumerate() {
            for (second, count) in row.iter().enumerate() {
                let is_near = (3_000..3_700).contains(count);
                assert_eq!(is_near, first != second, "{counts:?}");
            }
        }
        assert_eq!(two(&[], 7), None);
    }
}
