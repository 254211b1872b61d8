//! What a workload says of its own load: its agent passes it on with the next heartbeat.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The load of an endpoint, by its own word. What is left out is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadLoad {
    /// Of what it can do, in thousandths. Above 1,000 where it is overloaded.
    pub utilization_permille: u32,
    /// Requests answered, in thousandths a second.
    pub rate_milli: u64,
    /// Of them failed, in thousandths a second.
    pub errors_milli: u64,
    /// Requests that it works on.
    pub in_flight: u32,
    /// Requests that wait for it.
    pub queue_depth: u32,
    /// Time of an answer, in microseconds. 0 where none was measured.
    pub latency_us: u64,
    /// What else it measures, in thousandths, by a name of its own choice. At most 13.
    pub metrics_milli: BTreeMap<String, u64>,
}

/// The load of one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseLoad {
    /// Id of the reservation.
    pub reservation: String,
    /// Its fencing token.
    pub token: u64,
    /// What it said last.
    pub load: WorkloadLoad,
}
