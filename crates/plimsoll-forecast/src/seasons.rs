//! Which seasons a series has, found from its data.
//!
//! Candidates are an hour, a day and a week in steps of the series, and the peaks of a periodogram (Welch's method, from the library) that are
//! near none of those. One is accepted where the series resembles itself after that time and does not in between: the autocorrelation falls and
//! comes back. A longer season is kept beside a shorter one only where it explains more.

use augurs::seasons::{Detector, PeriodogramDetector};

const MINUTE_MS: u64 = 60_000;
/// An hour, a day, a week.
const USUAL_MS: [u64; 3] = [60 * MINUTE_MS, 24 * 60 * MINUTE_MS, 7 * 24 * 60 * MINUTE_MS];
/// Shortest season in steps.
const SHORTEST: usize = 4;
/// Least recovery of the autocorrelation.
const RECOVERY: f64 = 0.2;
/// How much more a longer season must explain.
const GAIN: f64 = 0.02;
/// Most seasons.
const MOST: usize = 2;

/// Periods in steps, ascending; empty where the series has no season or is too short to tell. O(n log n).
///
/// `step_ms` is the time of one step, 0 where it is unknown.
#[must_use]
pub fn seasonal_periods(series: &[f64], step_ms: u64) -> Vec<usize> {
    // Two whole periods at least.
    let longest = series.len() / 2;
    if longest < SHORTEST {
        return Vec::new();
    }
    let centred = centred(series);
    if centred.iter().all(|value| value.abs() < 1e-9) {
        return Vec::new();
    }
    let usual = USUAL_MS.iter().filter_map(|time_ms| time_ms.checked_div(step_ms));
    let mut candidates: Vec<usize> = usual.map(|period| period as usize).collect();
    let is_usual = |period: usize| candidates.iter().any(|usual| is_near(period, *usual));
    let found = PeriodogramDetector::builder().threshold(0.5).build().detect(&centred);
    let found: Vec<usize> =
        found.into_iter().map(|period| period as usize).filter(|period| !is_usual(*period)).collect();
    candidates.extend(found.into_iter().map(|period| sharpened(&centred, period)));
    candidates.retain(|period| (SHORTEST..=longest).contains(period));
    candidates.sort_unstable();
    candidates.dedup();
    let mut accepted: Vec<(usize, f64)> = Vec::new();
    for period in candidates {
        let here = autocorrelation(&centred, period);
        let between = (1..8).map(|part| autocorrelation(&centred, (period * part / 8).max(1)));
        let recovery = here - between.fold(f64::INFINITY, f64::min);
        if recovery < RECOVERY {
            continue;
        }
        match accepted.last_mut() {
            // Neighbours of a period are the same season, seen less sharply.
            Some(last) if is_near(period, last.0) => {
                *last = if here > last.1 { (period, here) } else { *last }
            }
            Some(last) if here < last.1 + GAIN => {}
            _ => accepted.push((period, here)),
        }
    }
    let surplus = accepted.len().saturating_sub(MOST);
    accepted.into_iter().skip(surplus).map(|(period, _)| period).collect()
}

/// Less than a quarter apart.
fn is_near(one: usize, other: usize) -> bool {
    one.max(other) * 4 < one.min(other) * 5
}

/// A periodogram knows a period only as well as its bins are wide: of the lags near it, the one at which the series resembles itself most.
fn sharpened(centred: &[f64], period: usize) -> usize {
    let reach = period / 10;
    let near = period - reach..=(period + reach).min(centred.len() / 2);
    let resembles = |lag: &usize| autocorrelation(centred, *lag);
    near.max_by(|a, b| resembles(a).total_cmp(&resembles(b))).unwrap_or(period)
}

fn centred(series: &[f64]) -> Vec<f64> {
    let mean = series.iter().sum::<f64>() / series.len() as f64;
    series.iter().map(|value| value - mean).collect()
}

/// Of a centred series, between -1 and 1.
fn autocorrelation(centred: &[f64], lag: usize) -> f64 {
    let whole: f64 = centred.iter().map(|value| value * value).sum();
    let shifted = centred.get(lag..).unwrap_or_default();
    let product: f64 = centred.iter().zip(shifted).map(|(a, b)| a * b).sum();
    // Of as many terms on both sides: a long lag must not look weak because it has fewer.
    product / shifted.len().max(1) as f64 * centred.len() as f64 / whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(period: usize, at: usize) -> f64 {
        (at as f64 / period as f64 * std::f64::consts::TAU).sin()
    }

    /// Noise without a generator, between -1 and 1: the bits of a hash (splitmix64).
    fn noise(at: usize) -> f64 {
        let mut bits = (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    #[test]
    fn a_day_and_a_week_are_found() {
        let series: Vec<f64> =
            (0..2000).map(|at| wave(48, at) + 0.5 * wave(336, at) + 0.3 * noise(at)).collect();
        assert_eq!(seasonal_periods(&series, 1_800_000), [48, 336]);
    }

    #[test]
    fn a_season_of_another_length_is_found_without_a_calendar() {
        let series: Vec<f64> = (0..2000).map(|at| wave(50, at) + 0.3 * noise(at)).collect();
        let found = seasonal_periods(&series, 0);
        assert_eq!(found.first(), Some(&50));
    }

    #[test]
    fn noise_a_trend_and_a_constant_have_none() {
        let noisy: Vec<f64> = (0..2000).map(noise).collect();
        let trend: Vec<f64> = (0..2000).map(|at| at as f64).collect();
        for series in [&noisy[..], &trend, &[7.0; 2000], &noisy[..5], &[]] {
            assert_eq!(seasonal_periods(series, 300_000), [0usize; 0]);
        }
    }
}
