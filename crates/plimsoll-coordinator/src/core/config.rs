//! What a core needs to be told.

use std::path::PathBuf;
use std::sync::Arc;

use plimsoll_store::{Engine, Wal};

/// All that a core needs to be told.
#[derive(Clone)]
pub struct CoreConfig {
    /// Id of this replica: unique in the group, for ever.
    pub node_id: u64,
    /// Name of the cluster; peers of another one are refused.
    pub cluster_id: String,
    /// Address at which other coordinators reach this one.
    pub peer_address: String,
    /// Which life of this replica its data are from: random, made with the data. A data directory says so itself;
    /// given for other stores, where empty means that it is not told and nobody checks.
    pub incarnation: String,
    /// Where data is kept.
    pub data: Data,
    /// Begin a new group with this replica as its only voter, unless its stores already hold one.
    pub bootstrap: bool,
    /// Durations.
    pub timings: Timings,
    /// Bounds of the intake.
    pub intake: IntakeLimits,
    /// How many calls one caller may make.
    pub calls: CallLimits,
    /// Most revisions kept in history.
    pub history_revisions: u64,
    /// Most recent revisions kept in memory for watchers.
    pub watch_ring: usize,
    /// Raft entries between snapshots.
    pub snapshot_every: u64,
    /// Raft entries kept after a snapshot, for followers that lag.
    pub keep_logs: u64,
    /// How often all data on the disk are read again, in milliseconds; 0 for never.
    pub scrub_every_ms: u64,
    /// Seed of all that is random: election timeouts, the planner's random strategy.
    pub seed: u64,
    /// Newest ledger version that this replica applies. Less than this build's own only where an older build is played
    /// (simulation, tests); no setting of a process leads here.
    pub newest_version: u32,
}

/// Where data is kept.
#[derive(Clone)]
pub enum Data {
    /// In this directory, on RocksDB.
    Directory(PathBuf),
    /// In memory: gone with the process. No thread is used.
    Memory,
    /// In stores made by the caller (simulation). No thread is used.
    Custom(Stores),
}

/// Stores of one replica.
#[derive(Clone)]
pub struct Stores {
    /// The raft log.
    pub wal: Arc<dyn Wal>,
    /// The ledger's rows.
    pub engine: Arc<dyn Engine>,
    /// Records of applied commands.
    pub history: Arc<dyn Engine>,
}

/// Durations, all in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Raft heartbeat interval.
    pub heartbeat_ms: u64,
    /// Shortest and longest election timeout.
    pub election_ms: (u64, u64),
    /// A node that is silent for this long is suspect.
    pub suspect_after_ms: u64,
    /// How often silent nodes are looked for.
    pub node_check_ms: u64,
    /// How often the leader looks at what is scaled.
    pub scaling_ms: u64,
    /// Longest wait of a read for a leader or a revision.
    pub read_timeout_ms: u64,
}

/// Bounds of the intake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeLimits {
    /// Most commands that wait.
    pub max_waiting: usize,
    /// Most bytes that wait, estimated.
    pub max_waiting_bytes: usize,
    /// Most commands in one raft entry.
    pub max_entry_commands: usize,
    /// Most raft entries in flight.
    pub max_in_flight: usize,
}

/// How many calls one caller may make who shows a certificate. Renewals, confirmations and releases are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Calls per second in the long run; 0 for no limit.
    pub per_second: u64,
    /// Calls at once after a rest.
    pub burst: u64,
}

impl CoreConfig {
    /// A single replica with everything at its default.
    pub fn new(
        node_id: u64,
        cluster_id: impl Into<String>,
        peer_address: impl Into<String>,
        data: Data,
    ) -> CoreConfig {
        CoreConfig {
            node_id,
            cluster_id: cluster_id.into(),
            peer_address: peer_address.into(),
            incarnation: String::new(),
            data,
            bootstrap: false,
            timings: Timings::default(),
            intake: IntakeLimits::default(),
            calls: CallLimits::default(),
            history_revisions: 1_000_000,
            watch_ring: 65_536,
            snapshot_every: 50_000,
            keep_logs: 10_000,
            scrub_every_ms: 24 * 3_600_000,
            seed: 0,
            newest_version: plimsoll_ledger::LATEST_VERSION,
        }
    }
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            heartbeat_ms: 100,
            election_ms: (300, 600),
            suspect_after_ms: 10_000,
            node_check_ms: 500,
            scaling_ms: 1_000,
            read_timeout_ms: 5_000,
        }
    }
}

impl Default for CallLimits {
    fn default() -> CallLimits {
        // Far above what a person or a scheduler does by single calls, and far below what fills the intake.
        CallLimits { per_second: 2_000, burst: 4_000 }
    }
}

impl Default for IntakeLimits {
    fn default() -> IntakeLimits {
        IntakeLimits {
            max_waiting: 65_536,
            max_waiting_bytes: 64 << 20,
            max_entry_commands: 1_024,
            max_in_flight: 8,
        }
    }
}
