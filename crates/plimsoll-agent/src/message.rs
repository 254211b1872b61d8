//! What an agent and a coordinator say to each other, apart from how it is encoded.

use plimsoll_types::{Labels, Resources};

use crate::gpu::MigBoard;
use crate::lease::Lease;
use crate::load::LeaseLoad;
use crate::meter::LeaseUse;
use crate::sample::Sample;

/// A node as its agent presents it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Unique name, normally the host name.
    pub name: String,
    /// Another value than last time says that the node starts from nothing.
    pub incarnation: u64,
    /// Pool that the node is for; empty lets the pools' selectors decide.
    pub pool: String,
    /// Labels.
    pub labels: Labels,
    /// What the node offers.
    pub capacity: Resources,
    /// Devices, in an order that never changes while the incarnation lasts.
    pub devices: Vec<RegisteredDevice>,
    /// The agent ends workloads by itself when their lease runs out.
    pub self_fencing: bool,
    /// Ids of reservations that may still run here, ascending.
    pub running: Vec<String>,
}

/// A device as its agent presents it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredDevice {
    /// Vendor's unique id.
    pub uuid: String,
    /// Short model name.
    pub model: String,
    /// Memory that may be granted, in bytes.
    pub memory_bytes: u64,
    /// It was there and is not any more, or does not work.
    pub failed: bool,
    /// What it may be cut into: then it is granted by profile.
    pub mig: Option<MigBoard>,
}

/// One node's part of a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeHeartbeat {
    /// Which node.
    pub node: String,
    /// The registration that it lives under.
    pub epoch: u64,
    /// What it measures. Absent for simulated nodes and before the first sample.
    pub sample: Option<Sample>,
    /// What its workloads said of their load since the last one.
    pub loads: Vec<LeaseLoad>,
    /// What its workloads use, where it measured that now.
    pub uses: Vec<LeaseUse>,
}

/// A message of an agent. Answers repeat its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToCoordinator {
    /// Counts the messages of a conversation, from 1.
    pub sequence: u64,
    /// What it says.
    pub what: Report,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// These nodes are mine.
    Register(Vec<Registration>),
    /// These nodes are alive.
    Heartbeat(Vec<NodeHeartbeat>),
    /// The agent ended a lease by itself, and nothing runs under it any more.
    WorkloadEnded {
        /// Where.
        node: String,
        /// The registration that the node lives under.
        epoch: u64,
        /// Which reservation.
        reservation: String,
        /// Its fencing token.
        token: u64,
    },
}

/// A message of a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromCoordinator {
    /// Revision that it follows from.
    pub revision: u64,
    /// Number of the message that it answers; 0 where it answers none.
    pub sequence: u64,
    /// What it says.
    pub what: Word,
}

/// What a coordinator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// What became of registrations.
    Registered {
        /// One answer for each node.
        nodes: Vec<RegisterAnswer>,
        /// The pace that the coordinator wants, in milliseconds; 0 for any.
        heartbeat_interval_ms: u64,
    },
    /// A heartbeat message arrived.
    HeartbeatSeen {
        /// Ledger time when it answered, in milliseconds; 0 where it did not say.
        clock_ms: u64,
        /// Nodes that have to register again.
        refused: Vec<String>,
    },
    /// A lease is new on a node, or has changed.
    Lease {
        /// Which node.
        node: String,
        /// The lease as it is now.
        news: LeaseNews,
    },
    /// A lease is over.
    LeaseEnded {
        /// Which node.
        node: String,
        /// Which reservation.
        reservation: String,
        /// Its fencing token.
        token: u64,
        /// Why, in words.
        reason: String,
    },
    /// The ledger sees a node in another state.
    NodeState {
        /// Which node.
        node: String,
        /// Name of the state.
        state: String,
    },
}

/// What became of the registration of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterAnswer {
    /// Which node.
    pub node: String,
    /// What the ledger has now, or why it has not taken it.
    pub result: Result<Registered, RegisterFailure>,
}

/// A node that is in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Revision of the first registration of this incarnation.
    pub epoch: u64,
    /// All leases that are alive on the node.
    pub leases: Vec<LeaseNews>,
}

/// A registration that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterFailure {
    /// Why, in words.
    pub message: String,
    /// The ledger has decided so; otherwise the same registration may succeed in a moment.
    pub definite: bool,
}

/// A lease and until when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseNews {
    /// What may be used.
    pub lease: Lease,
    /// Time left when the coordinator sent this, in milliseconds; absent for a lease without an end.
    pub remaining_ms: Option<u64>,
    /// Ledger time at which it ends, in milliseconds; 0 where that was not told.
    pub end_ms: u64,
    /// The holder is asked to stop before the end.
    pub stopping: bool,
}
