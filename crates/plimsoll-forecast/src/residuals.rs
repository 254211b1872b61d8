//! Errors of one forecaster at one distance, in order of time and of size.

use std::collections::VecDeque;

/// Most errors that are kept: the chance of one in a thousand is the smallest that is told apart.
pub(crate) const MOST: usize = 1000;
/// Fewest errors before they say anything.
pub(crate) const FEWEST: usize = 30;

/// The last errors. Adding one is O(most).
#[derive(Clone, Debug, Default)]
pub(crate) struct Residuals {
    by_time: VecDeque<f64>,
    by_size: Vec<f64>,
}

impl Residuals {
    pub(crate) fn add(&mut self, error: f64) {
        if !error.is_finite() {
            return;
        }
        if self.by_time.len() >= MOST
            && let Some(oldest) = self.by_time.pop_front()
        {
            let at = self.by_size.partition_point(|other| *other < oldest);
            self.by_size.remove(at);
        }
        self.by_time.push_back(error);
        let at = self.by_size.partition_point(|other| *other < error);
        self.by_size.insert(at, error);
    }

    /// Ascending; `None` while there are too few.
    pub(crate) fn sorted(&self) -> Option<&[f64]> {
        (self.by_size.len() >= FEWEST).then_some(&self.by_size)
    }

    /// The error that a share of errors does not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let sorted = self.sorted()?;
        let index = (share * sorted.len() as f64) as usize;
        sorted.get(index.min(sorted.len() - 1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_ones_in_order(errors in prop::collection::vec(-50i32..50, 0..2500)) {
            let mut residuals = Residuals::default();
            errors.iter().for_each(|error| residuals.add(f64::from(*error)));
            let mut wanted: Vec<f64> = errors.iter().rev().take(MOST).map(|error| f64::from(*error)).collect();
            wanted.sort_by(f64::total_cmp);
            prop_assert_eq!(residuals.sorted().unwrap_or_default(), if wanted.len() < FEWEST { &[] } else { &wanted[..] });
        }
    }
}
