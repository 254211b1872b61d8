//! What the owner of a pool or service has asked for. Plain values: reading files is the policy crate's business.

use std::fmt;

/// How one pool or service is scaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Fewest replicas (or nodes) while the workload is active.
    pub min: u64,
    /// Most replicas (or nodes).
    pub max: u64,
    /// What is to be held. Several: the largest proposal counts.
    pub targets: Vec<Target>,
    /// No action while the ratio of metric to target is this near to 1.
    pub tolerance_permille: u32,
    /// How it grows.
    pub up: Behavior,
    /// How it shrinks.
    pub down: Behavior,
    /// May sleep at zero; `None` where it never does.
    pub activation: Option<Activation>,
    /// Raised by forecasts; `None` where it is purely reactive.
    pub predictive: Option<Predictive>,
}

/// One metric and what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which metric.
    pub metric: Metric,
    /// What it should be.
    pub aim: Aim,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Processor time used of what was requested.
    Cpu,
    /// Memory used of what was requested.
    Memory,
    /// Device time used.
    Gpu,
    /// Requests that wait.
    QueueDepth,
    /// How long they wait, in milliseconds.
    WaitTime,
    /// Share of requests that found their first choice taken.
    Contention,
    /// Any other, by name.
    Custom(String),
}

/// What a metric should be, with the forms of autoscaling/v2 and the two thresholds of simpler systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Mean over replicas, in thousandths of the metric's unit (`Utilization` and the `Pods` type).
    Average {
        /// Target, in thousandths; for a utilization in percent, 70 % is `70_000`.
        target_milli: u64,
    },
    /// The whole, shared among replicas (`AverageValue` of an external or object metric).
    PerReplica {
        /// Share of one replica, in thousandths.
        target_milli: u64,
    },
    /// The whole, as it is (`Value`): the number of replicas follows its ratio to the target.
    Value {
        /// Target, in thousandths.
        target_milli: u64,
    },
    /// One step up above a threshold, one step down below another.
    Thresholds {
        /// Above it grows.
        above_milli: u64,
        /// Below it shrinks.
        below_milli: u64,
        /// Replicas added at once.
        increment: u64,
        /// Replicas removed at once.
        decrement: u64,
    },
}

/// How a direction is taken: autoscaling/v2 `scaleUp` and `scaleDown`, and a cooldown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behavior {
    /// Up takes the lowest, down the highest recommendation of this time.
    pub stabilization_ms: u64,
    /// After any change, this direction waits so long.
    pub cooldown_ms: u64,
    /// Which of the policies counts.
    pub select: Select,
    /// How much may change in how long. None: no limit.
    pub policies: Vec<RatePolicy>,
}

/// Which of several rate policies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The one that allows the largest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// This direction is closed.
    Disabled,
}

/// At most so much change in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatePolicy {
    /// How much.
    pub amount: Amount,
    /// In how long.
    pub period_ms: u64,
}

/// An amount of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Replicas (`Pods`).
    Replicas(u64),
    /// Percent of the number at the period's beginning.
    Percent(u64),
}

/// When a workload sleeps at zero, and what wakes it. Separate from scaling, as in KEDA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// A metric above its threshold wakes, in thousandths of its unit. A metric without entry wakes above 0.
    pub above_milli: Vec<(Metric, u64)>,
    /// How long every signal must have been quiet.
    pub cooldown_ms: u64,
}

/// How forecasts raise the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predictive {
    /// Load that one replica serves in one step, in thousandths of the load's unit.
    pub capacity_milli: u64,
    /// What a step with too little capacity is worth, in thousandths of what the mean load costs in a step. So the same
    /// price suits a small and a large workload. See [`Outlook`](crate::Outlook).
    pub miss_price_permille: u64,
    /// While no forecast is trusted: the utilization that is aimed at, in thousandths.
    pub fallback_utilization_permille: u32,
}

impl Behavior {
    /// Kubernetes' default for growing: at once, at most 100 % or 4 replicas in 15 s, whichever is more.
    #[must_use]
    pub fn default_up() -> Behavior {
        let policy = |amount| RatePolicy { amount, period_ms: 15_000 };
        Behavior {
            stabilization_ms: 0,
            cooldown_ms: 0,
            select: Select::Max,
            policies: vec![policy(Amount::Percent(100)), policy(Amount::Replicas(4))],
        }
    }

    /// Kubernetes' default for shrinking: to the highest recommendation of 5 minutes, then all at once.
    #[must_use]
    pub fn default_down() -> Behavior {
        Behavior {
            stabilization_ms: 300_000,
            cooldown_ms: 0,
            select: Select::Max,
            policies: vec![RatePolicy { amount: Amount::Percent(100), period_ms: 15_000 }],
        }
    }

    /// Anything at once.
    #[must_use]
    pub fn unlimited() -> Behavior {
        Behavior { stabilization_ms: 0, cooldown_ms: 0, select: Select::Max, policies: Vec::new() }
    }
}

impl Default for Policy {
    /// 1 to 10 with Kubernetes' default behaviour and no target.
    fn default() -> Policy {
        Policy {
            min: 1,
            max: 10,
            targets: Vec::new(),
            tolerance_permille: 100,
            up: Behavior::default_up(),
            down: Behavior::default_down(),
            activation: None,
            predictive: None,
        }
    }
}

impl Metric {
    /// The metric that is written so; any other name is a custom one.
    #[must_use]
    pub fn named(name: &str) -> Metric {
        match name {
            "cpu" => Metric::Cpu,
            "memory" => Metric::Memory,
            "gpu" => Metric::Gpu,
            "queue_depth" => Metric::QueueDepth,
            "wait_time" => Metric::WaitTime,
            "contention" => Metric::Contention,
            other => Metric::Custom(other.to_owned()),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Metric::Cpu => "cpu",
            Metric::Memory => "memory",
            Metric::Gpu => "gpu",
            Metric::QueueDepth => "queue_depth",
            Metric::WaitTime => "wait_time",
            Metric::Contention => "contention",
            Metric::Custom(name) => name,
        })
    }
}
