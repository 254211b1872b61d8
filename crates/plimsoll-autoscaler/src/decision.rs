//! A decision with all that led to it, as values; their display is the explanation.

use std::fmt;

use crate::horizontal::{MetricError, Proposal};
use crate::policy::Metric;
use crate::signals::FloorSource;

/// How many there should be, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleDecision {
    /// When it was made, in milliseconds.
    pub at_ms: u64,
    /// Asked for until now.
    pub current: u64,
    /// To be asked for from now.
    pub desired: u64,
    /// In the order in which they were applied.
    pub reasons: Vec<Reason>,
}

/// One input or rule of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// What a metric asks for.
    Metric {
        /// Which metric.
        metric: Metric,
        /// What it asks for.
        proposal: Proposal,
    },
    /// A metric says nothing; the number may not fall.
    MetricFailed {
        /// Which metric.
        metric: Metric,
        /// Why.
        error: MetricError,
    },
    /// A stabilization window held the number.
    Stabilized {
        /// What the metrics ask for.
        recommended: u64,
        /// What the window leaves.
        held_at: u64,
        /// Which window, in milliseconds.
        window_ms: u64,
    },
    /// A forecast raised the number, or would have been content with less.
    Forecast {
        /// Which forecaster.
        forecaster: String,
        /// Its error over that of the naive one, in thousandths.
        score_permille: u64,
        /// What it asks for.
        replicas: u64,
        /// Chance of too little capacity at that number, in thousandths.
        miss_permille: u64,
        /// Price of a missed step, in thousandths of a replica-step.
        miss_price_milli: u64,
    },
    /// No forecast is to be had: a fixed utilization is aimed at.
    NoForecast {
        /// What it asks for.
        replicas: u64,
        /// Utilization aimed at, in thousandths.
        utilization_permille: u32,
    },
    /// A floor is in force.
    Floor {
        /// Who asked.
        source: FloorSource,
        /// At least so many.
        replicas: u64,
        /// Until then, in milliseconds.
        until_ms: u64,
    },
    /// The direction has to wait.
    Cooldown {
        /// What is wanted.
        wanted: u64,
        /// Until then, in milliseconds.
        until_ms: u64,
    },
    /// The rate policies let it go only so far.
    RateLimited {
        /// What is wanted.
        wanted: u64,
        /// What they allow now.
        allowed: u64,
    },
    /// The bounds moved it.
    Bounded {
        /// What is wanted.
        wanted: u64,
        /// What min and max leave.
        allowed: u64,
    },
    /// The power left allows no more.
    PowerBounded {
        /// What is wanted.
        wanted: u64,
        /// What the power allows.
        allowed: u64,
    },
    /// It may not sleep because of this.
    Awake {
        /// What is active.
        signal: String,
    },
    /// All is quiet, not yet for long enough.
    SleepCooldown {
        /// Until then, in milliseconds.
        until_ms: u64,
    },
    /// All is quiet: zero.
    Asleep,
}

impl ScaleDecision {
    /// Whether anything changes.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.desired != self.current
    }
}

impl fmt::Display for ScaleDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.changes() {
            true => write!(f, "from {} to {}", self.current, self.desired)?,
            false => write!(f, "stays at {}", self.current)?,
        }
        self.reasons.iter().try_for_each(|reason| write!(f, "\n- {reason}"))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Metric { metric, proposal } => {
                let Proposal { replicas, ratio_permille, corrected } = proposal;
                let (whole, part) = (ratio_permille / 1000, ratio_permille % 1000);
                write!(f, "{metric} is {whole}.{part:03} of its target: {replicas}")?;
                if *corrected { f.write_str(", some replicas without reading") } else { Ok(()) }
            }
            Reason::MetricFailed { metric, error } => write!(f, "{metric}: {error}, so no fall"),
            Reason::Stabilized { recommended, held_at, window_ms } => {
                write!(f, "held at {held_at} instead of {recommended} by the last {window_ms} ms")
            }
            Reason::Forecast { forecaster, score_permille, replicas, miss_permille, miss_price_milli } => {
                let (whole, part) = (score_permille / 1000, score_permille % 1000);
                write!(f, "forecast {forecaster} ({whole}.{part:03} of the naive error): {replicas}, ")?;
                write!(
                    f,
                    "chance of a miss {miss_permille}/1000 at a price of {} replica-steps",
                    miss_price_milli / 1000
                )
            }
            Reason::NoForecast { replicas, utilization_permille } => {
                write!(f, "no forecast yet, utilization {utilization_permille}/1000: {replicas}")
            }
            Reason::Floor { source, replicas, until_ms } => match source {
                FloorSource::Schedule(name) => {
                    write!(f, "schedule {name}: at least {replicas} until {until_ms} ms")
                }
                FloorSource::Manual(by) => write!(f, "set by {by}: at least {replicas} until {until_ms} ms"),
                FloorSource::Waiting(requests) => {
                    write!(f, "{requests} requests wait and would fit: at least {replicas}")
                }
                FloorSource::TurnedAway(requests) => {
                    write!(f, "{requests} requests of late found no endpoint: at least {replicas}")
                }
                FloorSource::Contention(resource) => {
                    write!(f, "contention of {resource}: at least {replicas}")
                }
                FloorSource::InUse => write!(f, "in use: at least {replicas}"),
                FloorSource::Kept => write!(f, "kept for the calendar: at least {replicas}"),
            },
            Reason::Cooldown { wanted, until_ms } => {
                write!(f, "{wanted} has to wait until {until_ms} ms: cooldown")
            }
            Reason::RateLimited { wanted, allowed } => {
                write!(f, "{allowed} instead of {wanted}: rate policy")
            }
            Reason::Bounded { wanted, allowed } => write!(f, "{allowed} instead of {wanted}: min and max"),
            Reason::PowerBounded { wanted, allowed } => {
                write!(f, "{allowed} instead of {wanted}: power left")
            }
            Reason::Awake { signal } => write!(f, "awake: {signal}"),
            Reason::SleepCooldown { until_ms } => write!(f, "quiet, sleeps not before {until_ms} ms"),
            Reason::Asleep => f.write_str("asleep: every signal is quiet"),
        }
    }
}
