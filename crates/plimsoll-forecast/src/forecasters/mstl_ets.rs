//! Seasons by MSTL, the rest by exponential smoothing (ETS), both from the library.
//!
//! A fit costs much more than a forecast. So it is made anew only once in a while; in between, its path is shifted by
//! what the last values were off.

use augurs::ets::AutoETS;
use augurs::mstl::MSTLModel;
use augurs::{Fit, Predict};

use super::Forecaster;

/// Most values that are fitted.
const WINDOW: usize = 2016;
/// Fewest whole periods of the longest season in the window.
const PERIODS: usize = 3;
/// Steps between two fits.
const REFIT: usize = 672;
/// Last values whose mean shifts the path.
const SHIFT: usize = 4;

/// Seasons by MSTL, level and trend by ETS.
#[derive(Clone, Debug)]
pub struct MstlEts {
    periods: Vec<usize>,
    horizon: usize,
    /// From the first step after the fit.
    path: Vec<f64>,
    /// Steps since the last attempt to fit; `None` before the first.
    since_fit: Option<usize>,
}

impl MstlEts {
    /// For distances up to `horizon` steps, with those of the periods that the window holds often enough.
    #[must_use]
    pub fn new(periods: &[usize], horizon: usize) -> MstlEts {
        let periods = periods.iter().copied().filter(|period| *period >= 2 && period * PERIODS <= WINDOW);
        MstlEts { periods: periods.collect(), horizon, path: Vec::new(), since_fit: None }
    }

    fn fit(&self, history: &[f64]) -> Option<Vec<f64>> {
        let window = &history[history.len().saturating_sub(WINDOW)..];
        let first = window.first()?;
        // There is nothing to decompose in a constant.
        if window.iter().all(|value| (value - first).abs() < 1e-9) {
            return None;
        }
        let model = MSTLModel::new(self.periods.clone(), AutoETS::non_seasonal().into_trend_model());
        let fit = model.fit(window).ok()?;
        let path = fit.predict(REFIT + self.horizon, None).ok()?.point;
        path.iter().all(|value| value.is_finite()).then_some(path)
    }
}

impl Forecaster for MstlEts {
    fn name(&self) -> &'static str {
        "mstl_ets"
    }

    fn observe(&mut self, history: &[f64]) {
        let Some(longest) = self.periods.last() else { return };
        if history.len() < longest * PERIODS {
            return;
        }
        let due = self.since_fit.is_none_or(|steps| steps + 1 >= REFIT);
        self.since_fit = Some(if due { 0 } else { self.since_fit.map_or(0, |steps| steps + 1) });
        if due {
            self.path = self.fit(history).unwrap_or_default();
        }
    }

    fn predict(&self, history: &[f64], ahead: usize) -> Option<f64> {
        let since = self.since_fit?;
        let next = self.path.get((since + ahead).checked_sub(1)?)?;
        let known = since.min(SHIFT);
        let pairs =
            history.iter().rev().zip(self.path[..since.min(self.path.len())].iter().rev()).take(known);
        let off: f64 = pairs.map(|(value, path)| value - path).sum();
        Some(next + if known == 0 { 0.0 } else { off / known as f64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_season_is_followed_between_two_fits() {
        let value = |at: usize| (at as f64 / 24.0 * std::f64::consts::TAU).sin();
        let history: Vec<f64> = (0..400).map(value).collect();
        let mut model = MstlEts::new(&[24], 3);
        for end in 1..=history.len() {
            model.observe(&history[..end]);
        }
        for ahead in 1..=3 {
            let found = model.predict(&history, ahead).expect("it has seen three periods");
            let wanted = value(399 + ahead);
            assert!((found - wanted).abs() < 0.1, "{ahead} ahead: {found} for {wanted}");
        }
        assert_eq!(MstlEts::new(&[24], 3).predict(&history, 1), None, "nothing observed");
        assert_eq!(MstlEts::new(&[1000], 3).periods, [0usize; 0], "too long for the window");
    }
}
