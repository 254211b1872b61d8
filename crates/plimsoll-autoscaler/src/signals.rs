//! What was seen: everything that a decision may depend on besides the policy and the memory.

use crate::outlook::Outlook;
use crate::policy::Metric;

/// The state of one pool or service at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Replicas that are asked for now, ready or not.
    pub current: u64,
    /// Of these, the ready ones.
    pub ready: u64,
    /// Readings, by metric. A target without reading counts as failed.
    pub readings: Vec<(Metric, Reading)>,
    /// Requests or sessions in progress: never to zero while there are any.
    pub in_progress: u64,
    /// Someone is starting or loading for this workload: never to zero meanwhile.
    pub starting: bool,
    /// Floors of the calendar and of people.
    pub floors: Vec<Floor>,
    /// Most replicas that the power left allows; `None` where it is not limited.
    pub power_ceiling: Option<u64>,
    /// Loads to expect, where a forecast is to be had.
    pub outlook: Option<Outlook>,
    /// Load of the last step in thousandths, for the predictive part; `None` where it is unknown.
    pub load_milli: Option<u64>,
}

/// One reading of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It could not be read.
    Failed,
    /// The whole, in thousandths of the unit.
    Whole(u64),
    /// By replica.
    Replicas(Vec<ReplicaReading>),
}

/// What one replica reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaReading {
    /// In thousandths of the unit; `None` where it is missing.
    pub value_milli: Option<u64>,
    /// It is ready. The value of one that is not does not count.
    pub ready: bool,
}

/// At least so many, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// At least so many.
    pub replicas: u64,
    /// First moment, in milliseconds.
    pub from_ms: u64,
    /// First moment after it, in milliseconds. A manual floor always ends.
    pub until_ms: u64,
    /// Who asked.
    pub source: FloorSource,
}

/// Who asked for a floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FloorSource {
    /// A schedule, by name.
    Schedule(String),
    /// A person.
    Manual(String),
    /// Requests that wait, and would fit on so many more.
    Waiting(u64),
    /// Requests to a service that had no endpoint for them.
    TurnedAway(u64),
    /// What those who wait for a resource lack of it, by its name.
    Contention(String),
    /// What is in use cannot go.
    InUse,
    /// What is kept for the calendar and for those who come.
    Kept,
}

impl Signals {
    /// The reading of a metric, where there is one.
    #[must_use]
    pub fn reading(&self, metric: &Metric) -> Option<&Reading> {
        self.readings.iter().find(|(name, _)| name == metric).map(|(_, reading)| reading)
    }
}
