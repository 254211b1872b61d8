//! Rows: the stored form of the state, one per object. `Ledger::from_rows(ledger.rows()) == ledger`.

use std::sync::Arc;

use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

use crate::{
    Answer, Body, Class, Contention, Intent, Load, Node, NodeLimits, Pool, Queue, QueueUse, QuotaPolicy,
    RemovedNode, Reservation, Scaling, ScalingPolicy, Schedule, Service, Usage, UsageKey, Validator,
};

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
    /// A removed node.
    RemovedNode(NodeId),
    /// A queue, by name.
    Queue(String),
    /// A schedule, by name.
    Schedule(String),
    /// A quota of users, by name.
    Quota(String),
    /// A validator, by name.
    Validator(String),
    /// What is spent and committed.
    Usage(UsageKey),
    /// A service, by name.
    Service(String),
    /// The load of an endpoint, by its reservation.
    Load(ReservationId),
    /// A scaling policy, by name.
    ScalingPolicy(String),
    /// What its target wants, by its name.
    Scaling(String),
    /// An intent, by its number.
    Intent(Revision),
    /// A contention, by its number.
    Contention(Revision),
    /// What one that is set aside asked, by its reservation: no part of the state's digest, since the reservation's own row has its hash.
    Body(ReservationId),
    /// What a queue used over time, by queue and pool.
    QueueUse(String, String),
}

/// A place for a row in a store: short, and in the order in which rows come to be, so that new ones go to the end. Order
/// here is not the canonical order of rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowPlace {
    /// Counters and clocks of the ledger itself.
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
    /// A remembered answer, by the revision of its command: no two have the same.
    Answer(Revision),
    /// A removed node.
    RemovedNode(NodeId),
    /// A queue, by name.
    Queue(String),
    /// A quota of users, by name.
    Quota(String),
    /// A validator, by name.
    Validator(String),
    /// What is spent and committed.
    Usage(UsageKey),
    /// A schedule, by name.
    Schedule(String),
    /// A service, by name.
    Service(String),
    /// The load of an endpoint, by its reservation.
    Load(ReservationId),
    /// A scaling policy, by name.
    ScalingPolicy(String),
    /// What its target wants, by its name.
    Scaling(String),
    /// An intent, by its number.
    Intent(Revision),
    /// A contention, by its number.
    Contention(Revision),
    /// What one that is set aside asked, by its reservation.
    Body(ReservationId),
    /// What a queue used over time, by queue and pool.
    QueueUse(String, String),
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
    /// What is kept of a removed node. From ledger version 2 on.
    RemovedNode(Arc<RemovedNode>),
    /// A queue. From ledger version 3 on.
    Queue(Arc<Queue>),
    /// A quota of users. From ledger version 4 on.
    Quota(Arc<QuotaPolicy>),
    /// What is spent and committed. From ledger version 4 on.
    Usage(Arc<Usage>),
    /// A validator. From ledger version 4 on.
    Validator(Arc<Validator>),
    /// A schedule. From ledger version 4 on.
    Schedule(Arc<Schedule>),
    /// A service. From ledger version 5 on.
    Service(Arc<Service>),
    /// The load of an endpoint. From ledger version 5 on.
    Load(Load),
    /// A scaling policy. From ledger version 6 on.
    ScalingPolicy(Arc<ScalingPolicy>),
    /// What a target of scaling wants. From ledger version 6 on.
    Scaling(Arc<Scaling>),
    /// A machine to be started or removed, or that is there. From ledger version 6 on.
    Intent(Arc<Intent>),
    /// What those who wait for a pool lack, or lacked. From ledger version 8 on.
    Contention(Arc<Contention>),
    /// What one that is set aside asked. From ledger version 11 on.
    Body(Arc<Body>),
    /// What a queue used over time. From ledger version 13 on.
    QueueUse(Arc<QueueUse>),
}

/// A row as a store gives it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredRow {
    /// In full.
    Whole(Row),
    /// A remembered answer without its outcome: that is the reservation of this id, as its own row has it.
    Answer(Remembered, ReservationId),
}

impl Row {
    /// Where a store keeps it.
    pub fn place(&self) -> RowPlace {
        match self {
            Row::Meta(_) => RowPlace::Meta,
            Row::Pool(pool) => RowPlace::Pool(pool.name.clone()),
            Row::Class(class) => RowPlace::Class(class.name.clone()),
            Row::NodeLimits(limits) => RowPlace::NodeLimits(limits.name.clone()),
            Row::Node(node) => RowPlace::Node(node.id),
            Row::Reservation(reservation) => RowPlace::Reservation(reservation.id),
            Row::Idempotency(remembered) => RowPlace::Answer(remembered.answer.revision),
            Row::RemovedNode(removed) => RowPlace::RemovedNode(removed.id),
            Row::Queue(queue) => RowPlace::Queue(queue.name.clone()),
            Row::Quota(quota) => RowPlace::Quota(quota.name.clone()),
            Row::Usage(usage) => RowPlace::Usage(usage.key.clone()),
            Row::Validator(object) => RowPlace::Validator(object.name.clone()),
            Row::Schedule(schedule) => RowPlace::Schedule(schedule.name.clone()),
            Row::Service(service) => RowPlace::Service(service.name.clone()),
            Row::Load(load) => RowPlace::Load(load.report.reservation),
            Row::ScalingPolicy(policy) => RowPlace::ScalingPolicy(policy.name.clone()),
            Row::Scaling(scaling) => RowPlace::Scaling(scaling.policy.clone()),
            Row::Intent(intent) => RowPlace::Intent(intent.id),
            Row::Contention(contention) => RowPlace::Contention(contention.id),
            Row::Body(body) => RowPlace::Body(body.reservation),
            Row::QueueUse(row) => RowPlace::QueueUse(row.queue.clone(), row.pool.clone()),
        }
    }
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
