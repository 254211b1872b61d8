//! The form of simpler systems: two thresholds, fixed steps, cooldowns. A policy of the same engine.

use crate::policy::{Aim, Amount, Behavior, Metric, Policy, RatePolicy, Select, Target};

/// Two thresholds with steps and cooldowns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedPreset {
    /// What is watched, each in percent.
    pub metrics: Vec<Metric>,
    /// Above it grows, in percent.
    pub above_percent: u32,
    /// Below it shrinks, in percent.
    pub below_percent: u32,
    /// Replicas added at once.
    pub increment: u64,
    /// Replicas removed at once.
    pub decrement: u64,
    /// Wait before growing, in milliseconds.
    pub up_cooldown_ms: u64,
    /// Wait before shrinking, in milliseconds.
    pub down_cooldown_ms: u64,
    /// Fewest.
    pub min: u64,
    /// Most.
    pub max: u64,
    /// Most steps of one direction in an hour; `None` for no limit.
    pub max_steps_per_hour: Option<u64>,
}

const HOUR_MS: u64 = 3_600_000;

impl Default for SeedPreset {
    /// 70 % and 30 % of cpu, 2 up after 60 s, 1 down after 300 s, 1 to 10.
    fn default() -> SeedPreset {
        SeedPreset {
            metrics: vec![Metric::Cpu],
            above_percent: 70,
            below_percent: 30,
            increment: 2,
            decrement: 1,
            up_cooldown_ms: 60_000,
            down_cooldown_ms: 300_000,
            min: 1,
            max: 10,
            max_steps_per_hour: None,
        }
    }
}

/// The preset as a policy.
#[must_use]
pub fn seed_policy(preset: &SeedPreset) -> Policy {
    let aim = Aim::Thresholds {
        above_milli: u64::from(preset.above_percent) * 1000,
        below_milli: u64::from(preset.below_percent) * 1000,
        increment: preset.increment,
        decrement: preset.decrement,
    };
    let behavior = |cooldown_ms, step: u64| Behavior {
        stabilization_ms: 0,
        cooldown_ms,
        select: Select::Min,
        policies: preset.max_steps_per_hour.map_or_else(Vec::new, |steps| {
            vec![RatePolicy { amount: Amount::Replicas(step.saturating_mul(steps)), period_ms: HOUR_MS }]
        }),
    };
    Policy {
        min: preset.min,
        max: preset.max,
        targets: preset.metrics.iter().map(|metric| Target { metric: metric.clone(), aim }).collect(),
        tolerance_permille: 0,
        up: behavior(preset.up_cooldown_ms, preset.increment),
        down: behavior(preset.down_cooldown_ms, preset.decrement),
        activation: None,
        predictive: None,
    }
}
