//! What leaves the crate: integers.

/// Loads to expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// Which forecaster.
    pub forecaster: &'static str,
    /// Its pinball loss over that of the last value, in thousandths.
    pub score_permille: u64,
    /// Mean of the last values, at most a week of 5-minute steps, in thousandths of the unit.
    pub mean_milli: u64,
    /// For each step ahead: equally likely loads in thousandths of the unit, ascending.
    pub steps: Vec<Vec<u64>>,
}

/// How a forecaster has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// Which forecaster.
    pub forecaster: &'static str,
    /// Its pinball loss over that of the last value, in thousandths; `None` while it has no forecasts to score.
    pub score_permille: Option<u64>,
    /// Steps for which it was the one in use.
    pub used_steps: u64,
}
