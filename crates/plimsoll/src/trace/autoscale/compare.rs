//! A course beside those of Kubernetes' HPA at every target utilization, with and without its window for shrinking.

use serde_json::{Value, json};

use super::simulation::{Course, Setup, hpa, run};

/// Target utilizations that are tried, in percent.
const TARGETS: std::ops::RangeInclusive<u64> = 20..=100;
/// Of these, every so many percent is shown.
const SHOWN: u64 = 10;
/// Windows for shrinking that are tried, in milliseconds: none, and Kubernetes' 5 minutes with both ends.
const WINDOWS_MS: [u64; 2] = [0, 300_001];

/// The HPA at one target with one window.
#[derive(Clone, Copy, Debug)]
struct Setting {
    percent: u64,
    stabilization_s: u64,
    missed_share: f64,
    paid: u64,
}

/// What the HPA would have made of the same load.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    settings: Vec<Setting>,
    /// The cheapest that misses no more steps than ours.
    better: Option<Setting>,
    /// Our cost over its, in replica-steps.
    ratio: Option<f64>,
}

impl Comparison {
    pub(crate) fn new(loads_milli: &[u64], setup: Setup, ours: &Course) -> Comparison {
        let setting = |percent, window_ms| {
            let course = run(loads_milli, &hpa(percent, window_ms), setup);
            let stabilization_s = window_ms / 1000;
            Setting { percent, stabilization_s, missed_share: course.missed_share(), paid: course.paid }
        };
        let settings = TARGETS.flat_map(|percent| WINDOWS_MS.map(|window_ms| setting(percent, window_ms)));
        let settings: Vec<Setting> = settings.collect();
        let equal = settings.iter().filter(|setting| setting.missed_share <= ours.missed_share());
        let better = equal.min_by_key(|setting| setting.paid).copied();
        let ratio = better.map(|better| ours.paid as f64 / better.paid.max(1) as f64);
        Comparison { settings, better, ratio }
    }

    pub(crate) fn document(&self) -> Value {
        let settings = self.shown().map(|setting| {
            json!({
                "target_percent": setting.percent,
                "stabilization_s": setting.stabilization_s,
                "under_provisioned_share": setting.missed_share,
                "replica_steps": setting.paid,
            })
        });
        json!({
            "hpa": settings.collect::<Vec<_>>(),
            "equal_target_percent": self.better.map(|better| better.percent),
            "equal_stabilization_s": self.better.map(|better| better.stabilization_s),
            "equal_replica_steps": self.better.map(|better| better.paid),
            "cost_ratio": self.ratio,
        })
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::from("HPA target  stabilization  under-provisioned  replica-steps\n");
        for setting in self.shown() {
            let share = setting.missed_share * 100.0;
            let Setting { percent, stabilization_s, paid, .. } = setting;
            text.push_str(&format!("{percent:>9}%  {stabilization_s:>12}s  {share:>16.2}%  {paid:>13}\n"));
        }
        text.push_str(&match (self.better, self.ratio) {
            (Some(better), Some(ratio)) => format!(
                "cost {ratio:.3} of the HPA's at {}% and {} s, its cheapest with no more under-provisioned steps\n",
                better.percent, better.stabilization_s
            ),
            _ => "at no target has the HPA so few under-provisioned steps\n".to_owned(),
        });
        text
    }

    fn shown(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter().filter(|setting| setting.percent % SHOWN == 0)
    }
}
