//! The forecasters and what they have in common.

mod linear;
mod mstl_ets;
mod naive;

pub use linear::Linear;
pub use mstl_ets::MstlEts;
pub use naive::{LastValue, SeasonalNaive};

/// Says how a series goes on.
///
/// `history` is the series so far on a logarithmic scale, oldest first, where equal differences are equal ratios. Its
/// beginning may be cut off between two calls; its end never changes.
pub trait Forecaster {
    /// Name for people.
    fn name(&self) -> &'static str;

    /// A value was added at the end of the history. Called once for each.
    fn observe(&mut self, history: &[f64]);

    /// The value `ahead` steps (1 is the next) after the end of the history that was observed last; `None` where it
    /// cannot be said.
    fn predict(&self, history: &[f64], ahead: usize) -> Option<f64>;
}
