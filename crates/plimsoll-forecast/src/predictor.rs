//! Follows a series and gives the band of the forecaster that has done best.

use std::collections::VecDeque;

use crate::band::{Band, Score};
use crate::candidate::Candidate;
use crate::forecasters::{LastValue, Linear, MstlEts, SeasonalNaive};
use crate::seasons::seasonal_periods;

/// Most values that are kept: three weeks of minutes. When it is full, the oldest quarter goes.
const MOST_VALUES: usize = 32_768;
/// Seasons are first looked for at this length, then whenever the series has grown by a quarter.
const FIRST_LOOK: usize = 64;
/// Another forecaster takes over only where it is better by so much.
const MARGIN: f64 = 0.98;
/// Values that are recent: a week of 5-minute steps.
const RECENT: usize = 2016;
/// Milli-units in a unit.
const MILLI: f64 = 1000.0;

/// What a predictor is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time of one step in milliseconds; 0 where it is unknown.
    pub step_ms: u64,
    /// Differences below this do not matter, in thousandths of the unit: about half of what one replica serves.
    pub resolution_milli: u64,
    /// Steps ahead, at least 1.
    pub horizon: usize,
}

/// Follows one series.
pub struct Predictor {
    settings: Settings,
    /// The last values as they came, oldest first, and their sum.
    recent_milli: VecDeque<u64>,
    recent_sum: u128,
    /// `ln(value + resolution)`, oldest first.
    history: Vec<f64>,
    periods: Vec<usize>,
    /// Length at which seasons are looked for again.
    next_look: usize,
    /// The last value is the first of them: the reference.
    candidates: Vec<Candidate>,
    chosen: usize,
}

impl Predictor {
    /// Without any value yet.
    #[must_use]
    pub fn new(settings: Settings) -> Predictor {
        let settings = Settings { horizon: settings.horizon.max(1), ..settings };
        let candidates = candidates(&[], settings.horizon);
        Predictor {
            settings,
            recent_milli: VecDeque::new(),
            recent_sum: 0,
            history: Vec::new(),
            periods: Vec::new(),
            next_look: FIRST_LOOK,
            candidates,
            chosen: 0,
        }
    }

    /// The next value, in thousandths of the unit. Mostly O(horizon × features²); at times a fit, or, where other seasons
    /// were found, a run over the whole history.
    pub fn observe(&mut self, value_milli: u64) {
        self.recent_milli.push_back(value_milli);
        self.recent_sum += u128::from(value_milli);
        if self.recent_milli.len() > RECENT
            && let Some(oldest) = self.recent_milli.pop_front()
        {
            self.recent_sum -= u128::from(oldest);
        }
        self.history.push((value_milli as f64 / MILLI + self.resolution()).ln());
        self.step(self.history.len());
        self.candidates[self.chosen].used_steps += 1;
        if self.history.len() >= self.next_look {
            self.look_for_seasons();
        }
        if self.history.len() >= MOST_VALUES {
            self.history.drain(..MOST_VALUES / 4);
            self.next_look = self.history.len() + MOST_VALUES / 8;
        }
    }

    /// What to expect in the next steps; `None` while there is too little to know any error.
    #[must_use]
    pub fn band(&self) -> Option<Band> {
        let candidate = &self.candidates[self.chosen];
        let load = |value: f64| ((value.exp() - self.resolution()) * MILLI).round() as u64;
        let steps = candidate.band()?.into_iter();
        let steps = steps.map(|(said, errors)| errors.iter().map(|error| load(said + error)).collect());
        let score_permille = permille(candidate.ratio().unwrap_or(1.0));
        let mean = self.recent_sum / self.recent_milli.len().max(1) as u128;
        let mean_milli = u64::try_from(mean).unwrap_or(u64::MAX);
        Some(Band {
            forecaster: candidate.forecaster.name(),
            score_permille,
            mean_milli,
            steps: steps.collect(),
        })
    }

    /// How every forecaster has done, the reference first.
    #[must_use]
    pub fn scores(&self) -> Vec<Score> {
        let score = |candidate: &Candidate| Score {
            forecaster: candidate.forecaster.name(),
            score_permille: candidate.ratio().map(permille),
            used_steps: candidate.used_steps,
        };
        self.candidates.iter().map(score).collect()
    }

    /// Seasons found so far, in steps, ascending.
    #[must_use]
    pub fn periods(&self) -> &[usize] {
        &self.periods
    }

    fn resolution(&self) -> f64 {
        self.settings.resolution_milli.max(1) as f64 / MILLI
    }

    /// Lets every candidate see the history up to `end`, scores them and chooses.
    fn step(&mut self, end: usize) {
        let history = &self.history[..end];
        let bounds = bounds(history);
        let losses: Vec<Option<f64>> =
            self.candidates.iter_mut().map(|candidate| candidate.observe(history, bounds)).collect();
        let Some(reference) = losses.first().copied().flatten() else { return };
        for (candidate, loss) in self.candidates.iter_mut().zip(losses) {
            if let Some(loss) = loss {
                candidate.score(loss, reference);
            }
        }
        self.choose();
    }

    /// The one with the least loss; the reference where none is better than it.
    fn choose(&mut self) {
        let usable = |candidate: &Candidate| candidate.ratio().filter(|_| candidate.band().is_some());
        let ratio = |index: usize| usable(&self.candidates[index]).unwrap_or(f64::INFINITY);
        let best = (0..self.candidates.len()).min_by(|a, b| ratio(*a).total_cmp(&ratio(*b))).unwrap_or(0);
        let present = ratio(self.chosen);
        if present > 1.0 || ratio(best) < present * MARGIN {
            self.chosen = best;
        }
    }

    /// Looks for seasons; where they are others than before, everything that depends on them starts anew.
    fn look_for_seasons(&mut self) {
        self.next_look = self.history.len() + self.history.len() / 4;
        let periods = seasonal_periods(&self.history, self.settings.step_ms);
        if periods == self.periods {
            return;
        }
        let used = self.scores();
        self.candidates = candidates(&periods, self.settings.horizon);
        for candidate in &mut self.candidates {
            let before = used.iter().find(|score| score.forecaster == candidate.forecaster.name());
            candidate.used_steps = before.map_or(0, |score| score.used_steps);
        }
        self.periods = periods;
        self.chosen = 0;
        for end in 1..=self.history.len() {
            self.step(end);
        }
    }
}

fn candidates(periods: &[usize], horizon: usize) -> Vec<Candidate> {
    let mut candidates =
        vec![Candidate::new(LastValue, horizon), Candidate::new(Linear::new(periods, horizon), horizon)];
    if let Some(longest) = periods.last() {
        candidates.push(Candidate::new(SeasonalNaive::new(*longest), horizon));
        candidates.push(Candidate::new(MstlEts::new(periods, horizon), horizon));
    }
    candidates
}

/// A forecast stays within the recent values, and a doubling or halving beyond.
fn bounds(history: &[f64]) -> (f64, f64) {
    let recent = &history[history.len().saturating_sub(RECENT)..];
    let low = recent.iter().copied().fold(f64::INFINITY, f64::min);
    let high = recent.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (low - std::f64::consts::LN_2, high + std::f64::consts::LN_2)
}

fn permille(ratio: f64) -> u64 {
    (ratio * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Settings = Settings { step_ms: 1_800_000, resolution_milli: 500, horizon: 2 };

    fn followed(values: impl IntoIterator<Item = u64>) -> Predictor {
        let mut predictor = Predictor::new(SETTINGS);
        values.into_iter().for_each(|value| predictor.observe(value));
        predictor
    }

    fn day(at: u64) -> u64 {
        let wave = (at as f64 / 48.0 * std::f64::consts::TAU).sin();
        (20_000.0 + 15_000.0 * wave) as u64 + at * 7919 % 1000
    }

    #[test]
    fn a_daily_series_is_forecast_better_than_naively_and_its_band_holds() {
        let mut predictor = followed((0..1000).map(day));
        assert_eq!(predictor.periods().first(), Some(&48));
        let mut within = 0;
        for at in 1000..1200 {
            let band = predictor.band().expect("it has errors");
            assert!(band.score_permille < 300, "{band:?}");
            let step = &band.steps[0];
            within += usize::from(day(at) <= step[step.len() * 95 / 100]);
            predictor.observe(day(at));
        }
        assert!((170..=200).contains(&within), "95 % were to be below: {within} of 200");
    }

    #[test]
    fn where_nothing_can_be_foretold_no_forecast_is_much_better_than_the_last_value() {
        // A random walk: each step is 5 % up or down by the bits of a hash.
        let mut load = 10_000u64;
        let walk = (0..1500u64).map(|at| {
            let up = (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33).count_ones() % 2 == 0;
            load = if up { load * 105 / 100 } else { load * 100 / 105 }.clamp(1000, 1_000_000);
            load
        });
        let predictor = followed(walk.collect::<Vec<_>>());
        let band = predictor.band().expect("it has errors");
        assert!((800..=1000).contains(&band.score_permille), "{}", band.score_permille);
    }

    #[test]
    fn a_forecaster_that_gets_worse_than_naive_is_switched_off() {
        let mut predictor = followed((0..1000).map(day));
        assert_ne!(predictor.band().expect("it has errors").forecaster, "last_value");
        // The season is gone, and every 20 steps the level is another by the bits of a hash (splitmix64): only the last value knows it at once.
        let is_low = |at: u64| {
            let bits = (at / 20).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (bits >> 40).is_multiple_of(2)
        };
        (0..6000u64).for_each(|at| predictor.observe(if is_low(at) { 5_000 } else { 200_000 }));
        let scores = predictor.scores();
        let band = predictor.band().expect("it has errors");
        assert!(band.score_permille <= 1000, "{scores:?}");
        let worse = scores.iter().filter(|score| score.score_permille.is_some_and(|score| score > 1000));
        assert!(worse.clone().count() > 0 && worse.clone().all(|score| score.forecaster != band.forecaster));
    }

    #[test]
    fn before_enough_errors_are_known_there_is_no_band() {
        assert_eq!(followed((0..30).map(day)).band(), None);
        assert!(followed((0..40).map(day)).band().is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_series_gives_ascending_loads_and_the_same_again(
            values in prop::collection::vec(prop_oneof![0u64..10, 0u64..1_000_000, any::<u64>()], 0..300),
        ) {
            let band = followed(values.iter().copied()).band();
            prop_assert_eq!(&band, &followed(values.iter().copied()).band());
            for step in band.iter().flat_map(|band| &band.steps) {
                prop_assert!(step.is_sorted());
            }
        }
    }
}
