//! How a replica is.

use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_consensus::GroupStatus;
use plimsoll_types::{LedgerTime, Revision};
use prometheus_client::metrics::histogram::Histogram;

/// How a replica and its group are, at one moment.
#[derive(Clone, Debug)]
pub struct CoreStatus {
    /// What consensus knows: id, term, role, leader, log positions, membership, lag.
    pub group: GroupStatus,
    /// Name of the cluster.
    pub cluster_id: String,
    /// Ledger version in force.
    pub ledger_version: u32,
    /// Revision of the latest command applied here.
    pub revision: Revision,
    /// Ledger time of that command.
    pub log_time: LedgerTime,
    /// Chain hash up to that command.
    pub chain: [u8; 32],
    /// Oldest revision of which a record is kept here.
    pub first_revision: Revision,
    /// Commands that wait in the intake.
    pub waiting: u64,
    /// The leader's loop is ready: its `BecomeLeader` is applied.
    pub serving: bool,
    /// Agents with a session here.
    pub agents: u64,
}

/// Numbers for `/metrics`. Counters only grow; gauges are marked.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commands applied here.
    pub applied: AtomicU64,
    /// Commands applied here that were refused.
    pub refused: AtomicU64,
    /// Commands applied here that repeated an earlier one.
    pub replayed: AtomicU64,
    /// Reservations granted by commands applied here.
    pub granted: AtomicU64,
    /// Raft entries proposed by this leader.
    pub entries_proposed: AtomicU64,
    /// Commands proposed by this leader.
    pub commands_proposed: AtomicU64,
    /// Commands turned away because the intake was full.
    pub overloaded: AtomicU64,
    /// Commands that went back to planning after apply refused their place.
    pub replanned: AtomicU64,
    /// Terms in which this replica began to lead.
    pub leaderships: AtomicU64,
    /// Invariants that a command applied here broke.
    pub violations: AtomicU64,
    /// How long this leader's raft entries took from proposal to application.
    pub commits: CommitTimes,
    /// Nanoseconds spent planning.
    pub planning_ns: AtomicU64,
    /// Nanoseconds spent applying.
    pub applying_ns: AtomicU64,
    /// Gauge: commands that wait in the intake.
    pub waiting: AtomicU64,
    /// Gauge: raft entries in flight.
    pub in_flight: AtomicU64,
    /// Gauge: open watches.
    pub watchers: AtomicU64,
}

/// How long raft entries took: a histogram, in seconds.
#[derive(Clone, Debug)]
pub struct CommitTimes {
    pub(crate) seconds: Histogram,
}

impl Default for CommitTimes {
    fn default() -> CommitTimes {
        let bounds = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
        CommitTimes { seconds: Histogram::new(bounds) }
    }
}

impl Counters {
    /// Adds to a counter.
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    /// Reads a counter or gauge.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
