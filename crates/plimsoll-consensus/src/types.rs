//! The one place that names openraft's type parameters.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::impls::leader_id_adv;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;

/// What a replicated group agrees on: opaque bytes. `decoded` is the proposer's own form, kept beside them so that the
/// node that proposed need not decode; it is never stored or sent.
#[derive(Clone, Default)]
pub struct Payload {
    /// What is stored, sent and hashed.
    pub bytes: Bytes,
    /// The same, as the proposer had it in memory.
    pub decoded: Option<Arc<dyn Any + Send + Sync>>,
}

/// What applying one payload yields.
pub type Reply = Vec<plimsoll_ledger::Answer>;

/// Where a member is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Address of its peer port.
    pub address: String,
    /// Which life of that node this is: a wiped disk is another incarnation.
    pub incarnation: String,
}

/// Runtime with random choices from a seed, so that a simulation repeats (docs/adr/0004).
pub(crate) type Runtime = DeterministicRng<TokioRuntime>;

openraft::declare_raft_types!(
    /// openraft's parameters for our group.
    pub TypeConfig:
        D = Payload,
        R = Reply,
        NodeId = u64,
        Node = NodeInfo,
        AsyncRuntime = Runtime,
);

pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, u64>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type EntryPayload = openraft::EntryPayload<Payload, u64, NodeInfo>;
pub(crate) type Membership = openraft::Membership<u64, NodeInfo>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot =
    openraft::type_config::alias::SnapshotOf<TypeConfig, crate::snapshot::SnapshotData>;

impl fmt::Display for NodeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.bytes.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        self.bytes == other.bytes
    }
}
