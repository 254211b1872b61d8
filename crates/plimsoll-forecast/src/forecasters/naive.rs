//! The two naive forecasts that every other has to beat.

use super::Forecaster;

/// It stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastValue;

impl Forecaster for LastValue {
    fn name(&self) -> &'static str {
        "last_value"
    }

    fn observe(&mut self, _: &[f64]) {}

    fn predict(&self, history: &[f64], _: usize) -> Option<f64> {
        history.last().copied()
    }
}

/// It is as it was one season ago.
#[derive(Clone, Copy, Debug)]
pub struct SeasonalNaive {
    period: usize,
}

impl SeasonalNaive {
    /// With a period in steps, at least 1.
    #[must_use]
    pub fn new(period: usize) -> SeasonalNaive {
        SeasonalNaive { period: period.max(1) }
    }
}

impl Forecaster for SeasonalNaive {
    fn name(&self) -> &'static str {
        "seasonal_naive"
    }

    fn observe(&mut self, _: &[f64]) {}

    fn predict(&self, history: &[f64], ahead: usize) -> Option<f64> {
        let back = ahead.div_ceil(self.period).max(1) * self.period;
        let at = (history.len() + ahead).checked_sub(back + 1)?;
        history.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_season_ago_is_the_same_place_in_the_season() {
        let history: Vec<f64> = (0..10).map(|at| f64::from(at % 4)).collect();
        let naive = SeasonalNaive::new(4);
        let ahead: Vec<_> = (1..=6).map(|ahead| naive.predict(&history, ahead)).collect();
        assert_eq!(ahead, [2.0, 3.0, 0.0, 1.0, 2.0, 3.0].map(Some));
        assert_eq!(naive.predict(&history[..2], 1), None, "no season yet");
        assert_eq!(LastValue.predict(&history, 3), Some(1.0));
        assert_eq!(LastValue.predict(&[], 3), None);
    }
}
