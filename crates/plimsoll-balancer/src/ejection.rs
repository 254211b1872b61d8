//! Outlier ejection: an endpoint that fails far more than the others is left alone for a while (gRFC A50, which is Envoy's success rate and
//! failure percentage ejection).
//!
//! A share of successes is in parts per million. The deviation is the population's, as in Envoy.

use crate::mix::{below, mix_pair};

/// When endpoints are ejected, and for how long. The defaults are those of gRFC A50.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionSettings {
    /// Time between two sweeps.
    pub interval_us: u64,
    /// An ejection takes so long, times how often the endpoint was ejected.
    pub base_us: u64,
    /// But not longer than this, or than `base_us` where that is more.
    pub max_us: u64,
    /// No more are ejected while more than this share is; one always may be.
    pub max_ejected_percent: u32,
    /// Ejection of those that succeed far less than the others.
    pub success_rate: Option<SuccessRate>,
    /// Ejection of those that fail nearly always.
    pub failure_percentage: Option<FailurePercentage>,
}

/// Ejection below `mean - factor × standard deviation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// The factor, in thousandths.
    pub stdev_factor_permille: u32,
    /// Chance that an outlier is ejected.
    pub enforcement_percent: u32,
    /// Endpoints with enough requests that it takes.
    pub minimum_hosts: u32,
    /// Requests in an interval that are enough.
    pub request_volume: u32,
}

/// Ejection above a share of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    /// The share.
    pub threshold_percent: u32,
    /// Chance that an outlier is ejected.
    pub enforcement_percent: u32,
    /// Endpoints that it takes.
    pub minimum_hosts: u32,
    /// Requests in an interval that are enough.
    pub request_volume: u32,
}

impl Default for EjectionSettings {
    fn default() -> EjectionSettings {
        EjectionSettings {
            interval_us: 10_000_000,
            base_us: 30_000_000,
            max_us: 300_000_000,
            max_ejected_percent: 10,
            success_rate: Some(SuccessRate {
                stdev_factor_permille: 1_900,
                enforcement_percent: 100,
                minimum_hosts: 5,
                request_volume: 100,
            }),
            failure_percentage: Some(FailurePercentage {
                threshold_percent: 85,
                enforcement_percent: 100,
                minimum_hosts: 5,
                request_volume: 50,
            }),
        }
    }
}

const WHOLE_PPM: u64 = 1_000_000;

/// What one endpoint's calls came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outlier {
    successes: u32,
    failures: u32,
    ejected_at_us: Option<u64>,
    /// How often it was ejected, less the sweeps that it passed since.
    multiplier: u32,
}

impl Outlier {
    /// Counts a call that ended.
    pub(crate) fn count(&mut self, is_success: bool) {
        let counter = if is_success { &mut self.successes } else { &mut self.failures };
        *counter = counter.saturating_add(1);
    }

    /// Whether it is left alone at present.
    pub(crate) const fn is_ejected(&self) -> bool {
        self.ejected_at_us.is_some()
    }

    fn volume(&self) -> u32 {
        self.successes.saturating_add(self.failures)
    }

    fn success_ppm(&self) -> u64 {
        u64::from(self.successes) * WHOLE_PPM / u64::from(self.volume().max(1))
    }
}

/// One sweep over the calls since the last one: ejects, counts multipliers down, takes back. `draw` decides where enforcement is below 100 %.
pub(crate) fn sweep(outliers: &mut [&mut Outlier], now_us: u64, draw: u64, settings: &EjectionSettings) {
    if let Some(rule) = &settings.success_rate {
        by_success_rate(outliers, now_us, mix_pair(draw, 1), settings, rule);
    }
    if let Some(rule) = &settings.failure_percentage {
        by_failure_percentage(outliers, now_us, mix_pair(draw, 2), settings, rule);
    }
    for outlier in outliers {
        match outlier.ejected_at_us {
            None => outlier.multiplier = outlier.multiplier.saturating_sub(1),
            Some(at_us) => {
                let length_us = settings.base_us.saturating_mul(u64::from(outlier.multiplier));
                let length_us = length_us.min(settings.base_us.max(settings.max_us));
                if now_us > at_us.saturating_add(length_us) {
                    outlier.ejected_at_us = None;
                }
            }
        }
        (outlier.successes, outlier.failures) = (0, 0);
    }
}

fn by_success_rate(
    outliers: &mut [&mut Outlier],
    now_us: u64,
    draw: u64,
    settings: &EjectionSettings,
    rule: &SuccessRate,
) {
    let rates: Vec<u64> = outliers
        .iter()
        .filter(|outlier| outlier.volume() >= rule.request_volume)
        .map(|outlier| outlier.success_ppm())
        .collect();
    let count = rates.len() as u64;
    if count == 0 || count < u64::from(rule.minimum_hosts) {
        return;
    }
    let mean = rates.iter().sum::<u64>() / count;
    let variance = rates.iter().map(|rate| rate.abs_diff(mean).pow(2)).sum::<u64>() / count;
    let margin = variance.isqrt() * u64::from(rule.stdev_factor_permille) / 1_000;
    let Some(threshold) = mean.checked_sub(margin) else { return };
    eject(outliers, now_us, draw, settings, rule.enforcement_percent, |outlier| {
        outlier.volume() >= rule.request_volume && outlier.success_ppm() < threshold
    });
}

fn by_failure_percentage(
    outliers: &mut [&mut Outlier],
    now_us: u64,
    draw: u64,
    settings: &EjectionSettings,
    rule: &FailurePercentage,
) {
    if outliers.len() < rule.minimum_hosts as usize {
        return;
    }
    eject(outliers, now_us, draw, settings, rule.enforcement_percent, |outlier| {
        let is_above = u64::from(outlier.failures) * 100
            > u64::from(rule.threshold_percent) * u64::from(outlier.volume());
        outlier.volume() >= rule.request_volume && is_above
    });
}

/// Ejects those that a rule finds, while the share of ejected ones allows it.
fn eject(
    outliers: &mut [&mut Outlier],
    now_us: u64,
    draw: u64,
    settings: &EjectionSettings,
    enforcement_percent: u32,
    is_outlier: impl Fn(&Outlier) -> bool,
) {
    let count = outliers.len() as u64;
    let mut ejected = outliers.iter().filter(|outlier| outlier.is_ejected()).count() as u64;
    for (index, outlier) in outliers.iter_mut().enumerate() {
        // One more must stay within the share; the first is always allowed (Envoy, and the comment on the field in gRFC A50).
        if ejected > 0 && (ejected + 1) * 100 > u64::from(settings.max_ejected_percent) * count {
            return;
        }
        if outlier.is_ejected() || !is_outlier(outlier) {
            continue;
        }
        if below((mix_pair(draw, index as u64) >> 32) as u32, 100) < enforcement_percent {
            outlier.ejected_at_us = Some(now_us);
            outlier.multiplier = outlier.multiplier.saturating_add(1);
            ejected += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn calls(successes: u32, failures: u32) -> Outlier {
        Outlier { successes, failures, ..Outlier::default() }
    }

    fn swept(outliers: &mut [Outlier], now_s: u64, settings: &EjectionSettings) -> Vec<usize> {
        sweep(&mut outliers.iter_mut().collect::<Vec<_>>(), now_s * SECOND, 42, settings);
        (0..outliers.len()).filter(|index| outliers[*index].is_ejected()).collect()
    }

    #[test]
    fn one_far_below_the_mean_is_ejected() {
        // Rates 1, 1, 1, 1, 0.5: mean 0.9, deviation 0.2, threshold 0.9 - 1.9 × 0.2 = 0.52.
        let mut outliers = [calls(100, 0), calls(100, 0), calls(100, 0), calls(100, 0), calls(50, 50)];
        assert_eq!(swept(&mut outliers, 10, &EjectionSettings::default()), [4]);
        // Rates 1, 1, 1, 1, 0.53: mean 0.906, deviation 0.188, threshold 0.5488.
        let mut outliers = [calls(100, 0), calls(100, 0), calls(100, 0), calls(100, 0), calls(53, 47)];
        assert_eq!(swept(&mut outliers, 10, &EjectionSettings::default()), [4]);
        // Two of five lie within 1.9 deviations of the mean: nobody is an outlier.
        let mut outliers = [calls(100, 0), calls(100, 0), calls(100, 0), calls(50, 50), calls(50, 50)];
        assert_eq!(swept(&mut outliers, 10, &EjectionSettings::default()), [0; 0]);
    }

    #[test]
    fn too_few_endpoints_or_calls_prove_nothing() {
        let mut few = [calls(100, 0), calls(100, 0), calls(100, 0), calls(0, 100)];
        assert_eq!(swept(&mut few, 10, &EjectionSettings::default()), [0; 0]);
        let mut quiet = [calls(100, 0), calls(100, 0), calls(100, 0), calls(100, 0), calls(0, 49)];
        assert_eq!(swept(&mut quiet, 10, &EjectionSettings::default()), [0; 0]);
        // 50 calls are enough for the share of failures, which must be above 85 %.
        for (failures, ejected) in [(42, false), (43, true)] {
            let mut some =
                [calls(100, 0), calls(100, 0), calls(100, 0), calls(100, 0), calls(50 - failures, failures)];
            let rule = EjectionSettings { success_rate: None, ..EjectionSettings::default() };
            assert_eq!(swept(&mut some, 10, &rule).contains(&4), ejected, "{failures}");
        }
    }

    #[test]
    fn an_ejection_takes_longer_each_time_and_is_forgiven() {
        let settings = EjectionSettings::default();
        let good = || [calls(100, 0), calls(100, 0), calls(100, 0), calls(100, 0)];
        let mut outliers = [calls(0, 100); 5];
        outliers[..4].copy_from_slice(&good());
        assert_eq!(swept(&mut outliers, 10, &settings), [4]);
        assert_eq!(swept(&mut outliers, 40, &settings), [4], "30 s are not over yet");
        assert_eq!(swept(&mut outliers, 41, &settings), [0; 0]);
        // Again at once: twice as long.
        outliers[..4].copy_from_slice(&good());
        outliers[4].failures = 100;
        assert_eq!(swept(&mut outliers, 50, &settings), [4]);
        assert_eq!(
            (swept(&mut outliers, 110, &settings), swept(&mut outliers, 111, &settings)),
            (vec![4], vec![])
        );
        // Two sweeps passed: as if it had never been.
        swept(&mut outliers, 121, &settings);
        swept(&mut outliers, 131, &settings);
        assert_eq!(outliers[4], Outlier::default());
    }

    #[test]
    fn no_more_than_the_share_is_ejected_but_always_one() {
        let rule = EjectionSettings { success_rate: None, ..EjectionSettings::default() };
        let mut five = [calls(0, 100); 5];
        assert_eq!(swept(&mut five, 10, &rule).len(), 1);
        let mut forty = [calls(0, 100); 40];
        assert_eq!(swept(&mut forty, 10, &rule).len(), 4);
        let never = FailurePercentage { enforcement_percent: 0, ..rule.failure_percentage.unwrap() };
        let mut all = [calls(0, 100); 40];
        assert_eq!(
            swept(&mut all, 10, &EjectionSettings { failure_percentage: Some(never), ..rule }).len(),
            0
        );
    }
}
