//! The engine and the forecasts of a cluster on a recorded load, step by step.
//!
//! Loads are in thousandths of what one replica serves in a step, rounded up, so that comparing them with whole replicas
//! is exact. A decision is made at the end of a step and knows its load; nothing looks further. What is asked for in
//! step `t` is paid from step `t` on and serves from step `t + startup` on, if it is still asked for then; what is no
//! longer asked for is gone at the next step. So `ready(t)` is the least `desired` of the `startup` steps before `t`, and
//! a step costs the larger of `desired` and `ready`.

use plimsoll_autoscaler::{
    Aim, Behavior, Metric, Outlook, Policy, Predictive, Reading, Reason, ScaleMemory, Signals, Target, decide,
};
use plimsoll_forecast::{Predictor, Score, Settings};

/// What one replica serves, in the thousandths that loads are in.
pub(crate) const REPLICA_MILLI: u64 = 1000;
/// Most replicas of the policies here: more than any recorded load needs.
const MOST_REPLICAS: u64 = 1_000_000;
/// Share of a series, in percent, that is not scored: it is there to learn from.
const LEARNED_PERCENT: usize = 60;

/// What a course depends on besides load and policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Steps from the decision until a new replica serves, at least 1.
    pub(crate) startup_steps: usize,
    /// Time of one step, in milliseconds.
    pub(crate) step_ms: u64,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) desired: u64,
    pub(crate) ready: u64,
}

/// What a policy made of a load.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub(crate) steps: Vec<Step>,
    /// Scored steps with more load than the ready replicas serve.
    pub(crate) missed: usize,
    /// Scored steps.
    pub(crate) scored: usize,
    /// Replica-steps paid in the scored steps.
    pub(crate) paid: u64,
    /// How the forecasters have done; empty without prediction.
    pub(crate) scores: Vec<Score>,
    /// Seasons that were found, in steps.
    pub(crate) periods: Vec<usize>,
    /// Steps in which a fixed utilization stood in for a forecast.
    pub(crate) without_forecast: usize,
}

impl Course {
    /// Share of scored steps with too little capacity.
    pub(crate) fn missed_share(&self) -> f64 {
        self.missed as f64 / self.scored.max(1) as f64
    }
}

/// Predictive with a reactive floor: follows a load that lasts for two steps, and whatever a forecast finds worth its price.
pub(crate) fn default_policy(step_ms: u64) -> Policy {
    Policy {
        min: 1,
        max: MOST_REPLICAS,
        targets: vec![Target { metric: load(), aim: Aim::PerReplica { target_milli: REPLICA_MILLI } }],
        tolerance_permille: 0,
        up: Behavior { stabilization_ms: step_ms + step_ms / 2, ..Behavior::unlimited() },
        down: Behavior::unlimited(),
        activation: None,
        predictive: Some(Predictive {
            capacity_milli: REPLICA_MILLI,
            miss_price_permille: 6000,
            fallback_utilization_permille: 600,
        }),
    }
}

/// Kubernetes' HPA with a target utilization and a window for shrinking. Its rate policies are left out: they are for a
/// loop of 15 seconds, and would hold it back at one decision in a step of minutes.
pub(crate) fn hpa(utilization_percent: u64, stabilization_ms: u64) -> Policy {
    let target_milli = utilization_percent * REPLICA_MILLI / 100;
    Policy {
        max: MOST_REPLICAS,
        targets: vec![Target { metric: load(), aim: Aim::PerReplica { target_milli } }],
        up: Behavior::unlimited(),
        down: Behavior { stabilization_ms, ..Behavior::unlimited() },
        ..Policy::default()
    }
}

fn load() -> Metric {
    Metric::Custom("load".to_owned())
}

/// Runs a policy over a load; the last 40 % of the steps are scored.
pub(crate) fn run(loads_milli: &[u64], policy: &Policy, setup: Setup) -> Course {
    let settings = Settings {
        step_ms: setup.step_ms,
        resolution_milli: REPLICA_MILLI / 2,
        horizon: setup.startup_steps,
    };
    let mut predictor = policy.predictive.map(|_| Predictor::new(settings));
    let mut memory = ScaleMemory::default();
    let first_scored = loads_milli.len() * LEARNED_PERCENT / 100;
    let mut course = Course {
        steps: Vec::with_capacity(loads_milli.len()),
        missed: 0,
        scored: loads_milli.len() - first_scored,
        paid: 0,
        scores: Vec::new(),
        periods: Vec::new(),
        without_forecast: 0,
    };
    for (index, load_milli) in loads_milli.iter().copied().enumerate() {
        let before = course.steps.iter().rev().take(setup.startup_steps).map(|step| step.desired);
        let ready = before.min().unwrap_or_else(|| policy.min.max(1));
        let outlook = predictor.as_mut().and_then(|predictor| {
            predictor.observe(load_milli);
            let band = predictor.band()?;
            let forecaster = band.forecaster.to_owned();
            Some(Outlook {
                forecaster,
                score_permille: band.score_permille,
                mean_load_milli: band.mean_milli,
                steps: band.steps,
            })
        });
        let signals = Signals {
            current: course.steps.last().map_or(ready, |step| step.desired),
            ready,
            readings: vec![(load(), Reading::Whole(load_milli))],
            outlook,
            load_milli: Some(load_milli),
            ..Signals::default()
        };
        let decision = decide(&signals, policy, &mut memory, index as u64 * setup.step_ms);
        let step = Step { desired: decision.desired, ready };
        course.steps.push(step);
        if index >= first_scored {
            course.missed += usize::from(load_milli > ready.saturating_mul(REPLICA_MILLI));
            course.paid = course.paid.saturating_add(step.desired.max(ready));
            let fallback = |reason: &Reason| matches!(reason, Reason::NoForecast { .. });
            course.without_forecast += usize::from(decision.reasons.iter().any(fallback));
        }
    }
    if let Some(predictor) = predictor {
        course.scores = predictor.scores();
        course.periods = predictor.periods().to_vec();
    }
    course
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETUP: Setup = Setup { startup_steps: 3, step_ms: 300_000 };

    fn waves(steps: u64) -> Vec<u64> {
        let wave = |at: u64| 5000.0 + 4000.0 * (at as f64 / 48.0 * std::f64::consts::TAU).sin();
        (0..steps).map(|at| wave(at) as u64 + at * 7919 % 500).collect()
    }

    #[test]
    fn what_comes_later_changes_nothing_before() {
        let loads = waves(600);
        let policy = default_policy(SETUP.step_ms);
        let whole = run(&loads, &policy, SETUP);
        for end in [10, 100, 400, 599] {
            let mut other = loads[..end].to_vec();
            other.extend([900_000; 50]);
            assert_eq!(run(&other, &policy, SETUP).steps[..end], whole.steps[..end], "until {end}");
        }
    }

    #[test]
    fn nothing_serves_before_it_has_started() {
        let course = run(&waves(300), &hpa(70, 0), SETUP);
        for (index, step) in course.steps.iter().enumerate().skip(3) {
            let asked = course.steps[index - 3..index].iter().map(|step| step.desired).min();
            assert_eq!(Some(step.ready), asked, "step {index}");
        }
        let scored = &course.steps[180..];
        assert_eq!(course.paid, scored.iter().map(|step| step.desired.max(step.ready)).sum::<u64>());
        assert_eq!((scored.len(), course.scored), (120, 120));
    }

    #[test]
    fn a_daily_load_is_served_for_less_than_by_the_hpa_with_as_many_misses() {
        let loads = waves(1500);
        let ours = run(&loads, &default_policy(SETUP.step_ms), SETUP);
        let better = (40..=100).map(|percent| run(&loads, &hpa(percent, 0), SETUP));
        let cheapest = better.filter(|course| course.missed <= ours.missed).map(|course| course.paid).min();
        let paid = cheapest.expect("at 40 % it misses little");
        assert!(ours.paid * 100 < paid * 85, "{} against {paid}, {} missed", ours.paid, ours.missed);
        assert_eq!(ours.periods.first(), Some(&48));
    }
}
