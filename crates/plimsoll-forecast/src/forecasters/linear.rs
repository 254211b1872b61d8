//! Linear autoregression on recent values, moving averages and the same time in past seasons.
//!
//! One model for each distance, fitted by recursive least squares with forgetting (Haykin, "Adaptive Filter Theory",
//! chapter on the RLS algorithm): an update costs O(features²) and nothing is ever refitted. All features and the
//! value to forecast are taken relative to a slow moving average, so that a change of level does not have to be learned.

use std::collections::VecDeque;

use super::Forecaster;

/// Lengths of the moving averages in steps: short, medium and the slow one that everything is relative to.
const AVERAGES: [f64; 3] = [4.0, 16.0, 200.0];
/// How much an observation counts one step later: a memory of 2,000 steps.
const FORGETTING: f64 = 0.9995;
/// Variance of a weight before anything is known.
const PRIOR: f64 = 10.0;
/// No single error moves the weights as if it were larger than this.
const LARGEST_ERROR: f64 = 1.5;
/// Uncertainty beyond which nothing more is forgotten: a series that stands still teaches nothing.
const MOST_UNCERTAIN: f64 = 1e6;

/// Autoregression on recent values and past seasons.
#[derive(Clone, Debug)]
pub struct Linear {
    periods: Vec<usize>,
    averages: [f64; 3],
    seen: usize,
    /// By distance, from 1.
    models: Vec<Distance>,
}

/// The model of one distance.
#[derive(Clone, Debug)]
struct Distance {
    fit: LeastSquares,
    /// Features and level of the last forecasts, oldest first: one for each step of the distance.
    pending: VecDeque<(Vec<f64>, f64)>,
}

impl Linear {
    /// For distances up to `horizon` steps, with seasons of these periods.
    #[must_use]
    pub fn new(periods: &[usize], horizon: usize) -> Linear {
        let features = 6 + 2 * periods.len();
        let distance = Distance { fit: LeastSquares::new(features), pending: VecDeque::new() };
        Linear { periods: periods.to_vec(), averages: [0.0; 3], seen: 0, models: vec![distance; horizon] }
    }

    /// What the value `ahead` steps on is computed from, relative to the slow average.
    fn features(&self, history: &[f64], ahead: usize) -> Vec<f64> {
        let level = self.averages[2];
        let end = history.len();
        // Before the beginning it was as at the beginning; the future is as the present.
        let value = |index: usize| history[index.saturating_sub(1).min(end - 1)] - level;
        let mut features = vec![1.0, value(end), value(end - 1), value(end.saturating_sub(2))];
        features.extend(self.averages[..2].iter().map(|average| average - level));
        for period in &self.periods {
            let around =
                |index: usize| (value(index.saturating_sub(1)) + value(index) + value(index + 1)) / 3.0;
            features.push(around((end + ahead).saturating_sub(*period)));
            features.push(around(end.saturating_sub(*period)));
        }
        features
    }
}

impl Forecaster for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn observe(&mut self, history: &[f64]) {
        let Some(value) = history.last().copied() else { return };
        for (average, length) in self.averages.iter_mut().zip(AVERAGES) {
            *average =
                if self.seen == 0 { value } else { *average + (value - *average) * 2.0 / (length + 1.0) };
        }
        self.seen += 1;
        for ahead in 1..=self.models.len() {
            let features = self.features(history, ahead);
            let level = self.averages[2];
            let model = &mut self.models[ahead - 1];
            if model.pending.len() == ahead
                && let Some((features, level)) = model.pending.pop_front()
            {
                model.fit.learn(&features, value - level);
            }
            model.pending.push_back((features, level));
        }
    }

    fn predict(&self, _: &[f64], ahead: usize) -> Option<f64> {
        let model = self.models.get(ahead.checked_sub(1)?)?;
        let (features, level) = model.pending.back()?;
        Some(model.fit.value(features) + level)
    }
}

/// Recursive least squares.
#[derive(Clone, Debug)]
struct LeastSquares {
    weights: Vec<f64>,
    /// Row after row, symmetric.
    covariance: Vec<f64>,
}

impl LeastSquares {
    fn new(features: usize) -> LeastSquares {
        let mut covariance = vec![0.0; features * features];
        covariance.iter_mut().step_by(features + 1).for_each(|variance| *variance = PRIOR);
        LeastSquares { weights: vec![0.0; features], covariance }
    }

    fn value(&self, features: &[f64]) -> f64 {
        self.weights.iter().zip(features).map(|(weight, feature)| weight * feature).sum()
    }

    fn learn(&mut self, features: &[f64], value: f64) {
        let size = features.len();
        let dot = |row: &[f64]| row.iter().zip(features).map(|(a, b)| a * b).sum::<f64>();
        let gain: Vec<f64> = self.covariance.chunks(size).map(dot).collect();
        let uncertain = self.covariance.iter().step_by(size + 1).any(|variance| *variance > MOST_UNCERTAIN);
        let forgetting = if uncertain { 1.0 } else { FORGETTING };
        let spread = forgetting + dot(&gain);
        let error = (value - self.value(features)).clamp(-LARGEST_ERROR, LARGEST_ERROR);
        for (weight, gain) in self.weights.iter_mut().zip(&gain) {
            *weight += gain / spread * error;
        }
        // Both triangles get the same value, so that rounding never makes it unsymmetric.
        for row in 0..size {
            for column in 0..=row {
                let value =
                    (self.covariance[row * size + column] - gain[row] * gain[column] / spread) / forgetting;
                self.covariance[row * size + column] = value;
                self.covariance[column * size + row] = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_season_with_a_trend_is_learned() {
        let value = |at: usize| (at as f64 / 24.0 * std::f64::consts::TAU).sin() + at as f64 * 0.001;
        let history: Vec<f64> = (0..1000).map(value).collect();
        let mut linear = Linear::new(&[24], 3);
        (1..=history.len()).for_each(|end| linear.observe(&history[..end]));
        for ahead in 1..=3 {
            let (found, wanted) =
                (linear.predict(&history, ahead).expect("it has observed"), value(999 + ahead));
            assert!((found - wanted).abs() < 0.02, "{ahead} ahead: {found} for {wanted}");
        }
        assert_eq!(linear.predict(&history, 4), None, "beyond its horizon");
    }

    #[test]
    fn a_series_that_stands_still_stays_finite() {
        let history = vec![3.0; 60_000];
        let mut linear = Linear::new(&[7], 1);
        for end in 1..=history.len() {
            linear.observe(&history[end.saturating_sub(100)..end]);
        }
        let found = linear.predict(&history, 1).expect("it has observed");
        assert!((found - 3.0).abs() < 1e-6, "{found}");
    }
}
