//! Forecasts of load. [`Predictor`] follows a series, lets several [`Forecaster`]s run side by side, scores each as its
//! forecasts come true, and gives the [`Band`] of the best one, or none while nothing is known.
//!
//! Deterministic: no clock, no randomness, no I/O. Floats stay inside: values come in and bands go out as integers in
//! thousandths of the series' unit. Invariants:
//!
//! - A forecast depends only on values that were observed before it.
//! - A forecaster that does worse than the last value is not used; the last value with its own error band is.
//! - Memory is bounded, whatever the length of the series.

mod band;
mod candidate;
mod forecasters;
mod predictor;
mod residuals;
mod seasons;

pub use band::{Band, Score};
pub use forecasters::{Forecaster, LastValue, Linear, MstlEts, SeasonalNaive};
pub use predictor::{Predictor, Settings};
pub use seasons::seasonal_periods;
