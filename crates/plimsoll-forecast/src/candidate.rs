//! One forecaster with what it has said, how far it was off, and what that cost.

use std::collections::VecDeque;

use crate::forecasters::Forecaster;
use crate::residuals::Residuals;

/// Quantiles whose pinball loss is the score: the middle and the two that capacity is bought for.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.98];
/// How much a loss counts one step later: half after 693 steps.
const FADING: f64 = 0.999;

/// A forecaster that runs beside others.
pub(crate) struct Candidate {
    pub(crate) forecaster: Box<dyn Forecaster + Send + Sync>,
    /// By distance, from 1.
    distances: Vec<Distance>,
    /// Faded losses of this one and of the reference, over the same steps.
    loss: f64,
    reference: f64,
    pub(crate) used_steps: u64,
}

#[derive(Clone, Default)]
struct Distance {
    /// What was said, oldest first.
    said: VecDeque<Option<f64>>,
    residuals: Residuals,
}

impl Candidate {
    pub(crate) fn new(forecaster: impl Forecaster + Send + Sync + 'static, horizon: usize) -> Candidate {
        let distances = vec![Distance::default(); horizon];
        Candidate { forecaster: Box::new(forecaster), distances, loss: 0.0, reference: 0.0, used_steps: 0 }
    }

    /// The history has a new end. What was said of it is scored, and what comes next is said; the loss at the longest
    /// distance is returned. `bounds` keep a forecast near what was ever seen.
    pub(crate) fn observe(&mut self, history: &[f64], bounds: (f64, f64)) -> Option<f64> {
        let value = *history.last()?;
        let mut loss = None;
        for (index, distance) in self.distances.iter_mut().enumerate() {
            if distance.said.len() <= index {
                continue;
            }
            if let Some(error) = distance.said.pop_front().flatten().map(|said| value - said) {
                // Scored with the band as it was known: the error itself joins it afterwards.
                loss = pinball(&distance.residuals, error);
                distance.residuals.add(error);
            } else {
                loss = None;
            }
        }
        self.forecaster.observe(history);
        for (index, distance) in self.distances.iter_mut().enumerate() {
            let said = self.forecaster.predict(history, index + 1).filter(|said| said.is_finite());
            distance.said.push_back(said.map(|said| said.clamp(bounds.0, bounds.1)));
        }
        // The last distance has spoken last; before all are filled it has not.
        let all = self.distances.last().is_some_and(|last| last.said.len() >= self.distances.len());
        loss.filter(|_| all)
    }

    /// Takes a step's losses into the score.
    pub(crate) fn score(&mut self, own: f64, reference: f64) {
        self.loss = self.loss * FADING + own;
        self.reference = self.reference * FADING + reference;
    }

    /// Loss over that of the reference; `None` before the first score.
    pub(crate) fn ratio(&self) -> Option<f64> {
        (self.reference > 0.0).then(|| self.loss / self.reference)
    }

    /// For each distance: what was said last, and the errors around it. `None` where one of them is unknown.
    pub(crate) fn band(&self) -> Option<Vec<(f64, &[f64])>> {
        let known = self.distances.iter().map(|distance| {
            let said = (*distance.said.back()?)?;
            Some((said, distance.residuals.sorted()?))
        });
        known.collect()
    }
}

/// Pinball loss of the band at the quantiles, where the band is known.
fn pinball(residuals: &Residuals, error: f64) -> Option<f64> {
    let losses = QUANTILES.iter().map(|share| {
        let off = error - residuals.quantile(*share)?;
        Some((share * off).max((share - 1.0) * off))
    });
    losses.sum()
}
