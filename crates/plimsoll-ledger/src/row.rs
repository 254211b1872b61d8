//! Rows: the stored form of the state, one per object. `Ledger::from_rows(ledger.rows()) == ledger`.

use std::sync::Arc;

use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

use crate::{Answer, Class, Node, NodeLimits, Pool, Reservation};

/// Key of a row. Order here is the canonical order of rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// Counters and clocks of the ledger itself: one row.
    Meta,
    /// A pool, by name.
    Pool(String),
    /// A class, by name.
    Class(String),
    /// Node limits, by name.
    NodeLimits(String),
    /// A node.
    Node(NodeId),
    /// A reservation.
    Reservation(ReservationId),
    /// A remembered answer: actor and request id.
    Idempotency(String, String),
}

/// A row. Shared, so that handing it to the store copies nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Counters and clocks.
    Meta(Meta),
    /// A pool.
    Pool(Arc<Pool>),
    /// A class.
    Class(Arc<Class>),
    /// Node limits.
    NodeLimits(Arc<NodeLimits>),
    /// A node.
    Node(Arc<Node>),
    /// A reservation.
    Reservation(Arc<Reservation>),
    /// A remembered answer.
    Idempotency(Arc<Remembered>),
}

/// Counters and clocks of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Ledger version: which rules are in force.
    pub version: u32,
    /// Revision of the latest entry.
    pub revision: Revision,
    /// Ledger time: the largest stamp so far.
    pub clock: LedgerTime,
    /// Every lease granted or renewed before this runs a full length from here (set at each change of leader).
    pub rearmed_at: LedgerTime,
    /// Coordinator that leads, as of the latest `BecomeLeader`; 0 for none yet.
    pub leader: u64,
    /// Next node id.
    pub next_node: u32,
    /// Revision of the latest change of a policy object.
    pub policy_changed: Revision,
}

/// A remembered answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Actor of the request.
    pub actor: String,
    /// Its idempotency key.
    pub request_id: String,
    /// Hash of what was asked.
    pub request_hash: [u8; 32],
    /// The answer given.
    pub answer: Answer,
    /// Not forgotten before this; moved on while the reservation it created lives.
    pub keep_until: LedgerTime,
}
