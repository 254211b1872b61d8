//! What a command came to: answers, refusals with their arithmetic, events, effects.

use std::sync::Arc;

use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

use crate::{
    Class, Contention, Intent, Node, NodeLimits, Pool, Queue, QuotaPolicy, Reservation, Scaling,
    ScalingPolicy, Schedule, Service, State, Tokens, Validator,
};

/// All that applying one entry yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What the caller is told.
    pub answer: Answer,
    /// The entry repeated an earlier request: `answer` is the earlier one and nothing changed.
    pub replayed: bool,
    /// What happened, for watchers and history; empty where nothing changed.
    pub events: Vec<Event>,
}

/// What the caller is told. A repeat of a request gets the very same answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Revision of the entry that had the effect.
    pub revision: Revision,
    /// Ledger time of that entry.
    pub log_time: LedgerTime,
    /// What it came to.
    pub outcome: Outcome,
}

/// What a command came to. Refusals are values: applying never fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, and there is nothing to show.
    Done,
    /// The reservation after the command.
    Reservation(Arc<Reservation>),
    /// The node after the command.
    Node(Arc<Node>),
    /// Reservations ended, and whether more are due.
    Expired {
        /// Number ended.
        ended: u32,
        /// More are due at the same time.
        more: bool,
    },
    /// What came of taking tokens. From ledger version 4 on.
    Tokens(Tokens),
    /// Nothing changed.
    Refused(Refusal),
}

/// Why a well-formed command was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The first reason that applies, in the order of declaration.
    pub reason: Reason,
    /// Everything that stands in the way, with numbers.
    pub blockers: Vec<Blocker>,
}

/// One thing that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// What kind of thing.
    pub reason: Reason,
    /// What it is about: a resource (`cpu`, `gpu`, `license/foo`), node, pool, token, field.
    pub subject: String,
    /// Amount asked (or the value given).
    pub asked: u64,
    /// Amount that is there now (or the value expected).
    pub available: u64,
    /// Most that there could ever be, where that is known; 0 otherwise.
    pub limit: u64,
    /// Nodes that this keeps out; 0 where it is not about nodes.
    pub nodes: u32,
}

/// Reasons of refusals and blockers, in order of precedence. The public registry (gRPC code, exit code, page) is in plimsoll-proto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The ledger is older than the command.
    UnsupportedVersion,
    /// The key was already used for another request.
    KeyConflict,
    /// Whoever asks may not do this.
    PermissionDenied,
    /// No such reservation, node or object.
    NotFound,
    /// No such pool.
    PoolNotFound,
    /// No such class.
    ClassNotFound,
    /// No such queue.
    QueueNotFound,
    /// No such service.
    ServiceNotFound,
    /// A value makes no sense: zero members, a share above a device, an overflow.
    InvalidArgument,
    /// Policy objects changed after the revision given.
    RevisionMoved,
    /// The token or incarnation is not the current one.
    Fenced,
    /// The state does not allow it.
    WrongState,
    /// Too late: the deadline has passed.
    Expired,
    /// The object is in use.
    InUse,
    /// The rules do not let it be taken back for that reservation, or not now.
    NotPreemptible,
    /// A rate has no tokens left now.
    RateExceeded,
    /// Nothing that exists can ever hold it.
    Infeasible,
    /// The node takes no new work.
    NodeNotAvailable,
    /// The node's labels do not fit.
    LabelMismatch,
    /// The device's model, memory, health or mode does not fit.
    DeviceMismatch,
    /// The node is in another pool.
    PoolMismatch,
    /// The members are not, or cannot be, near enough to each other.
    TopologyMismatch,
    /// Other work that has to be near is not there, or such is that must not be.
    AffinityConflict,
    /// The queue, or one above it, has not enough quota left.
    QuotaExceeded,
    /// A limit of a user, a run or a quota is reached.
    LimitExceeded,
    /// A budget of resource-hours or money has too little left.
    BudgetExhausted,
    /// What is left is kept for a schedule or an advance reservation.
    ReservedByCalendar,
    /// A countable of the pool is used up.
    CountableExhausted,
    /// There is not enough free.
    NoCapacity,
    /// An earlier request in a strict queue goes first.
    BehindInQueue,
    /// Another reservation was given notice and still has its place.
    AwaitsPreemption,
    /// Its queue decides in batches, and this one is full or began before it came.
    AwaitsBatch,
    /// It prefers hours that have not come, and has not waited long enough to start at others.
    AwaitsHours,
    /// Others of its queue go before it and are set aside, or it is itself.
    Overflowed,
    /// Its grant was taken back for another reservation.
    Preempted,
    /// So much of the same work is on spot nodes, or in one spot pool, as may be.
    SpotShare,
    /// The queue is full.
    QueueFull,
    /// A table of the ledger is full.
    TableFull,
}

/// One thing that happened, in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Revision of the entry.
    pub revision: Revision,
    /// Its ledger time.
    pub log_time: LedgerTime,
    /// Who caused it.
    pub actor: String,
    /// Rule that led to it, such as `submit` or `expire/not-renewed`.
    pub rule: &'static str,
    /// What it happened to, as it is afterwards.
    pub object: EventObject,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventObject {
    /// A reservation changed; the state before (equal where only amounts or deadlines changed; `None` where it is new).
    Reservation(Arc<Reservation>, Option<State>),
    /// The ledger forgot a reservation past its retention.
    ReservationForgotten(ReservationId),
    /// A node changed.
    Node(Arc<Node>),
    /// A node was removed.
    NodeRemoved(NodeId, String),
    /// A pool was put.
    Pool(Arc<Pool>),
    /// A pool was deleted.
    PoolDeleted(String),
    /// A class was put.
    Class(Arc<Class>),
    /// A class was deleted.
    ClassDeleted(String),
    /// Node limits were put.
    NodeLimits(Arc<NodeLimits>),
    /// Node limits were deleted.
    NodeLimitsDeleted(String),
    /// A queue was put.
    Queue(Arc<Queue>),
    /// A queue was deleted.
    QueueDeleted(String),
    /// A quota of users was put.
    Quota(Arc<QuotaPolicy>),
    /// A quota of users was deleted.
    QuotaDeleted(String),
    /// A validator was put.
    Validator(Arc<Validator>),
    /// A validator was deleted.
    ValidatorDeleted(String),
    /// A schedule was put, its windows were opened, or room was made for one.
    Schedule(Arc<Schedule>),
    /// A schedule was deleted.
    ScheduleDeleted(String),
    /// A service was put.
    Service(Arc<Service>),
    /// A service was deleted.
    ServiceDeleted(String),
    /// A scaling policy was put.
    ScalingPolicy(Arc<ScalingPolicy>),
    /// A scaling policy was deleted.
    ScalingPolicyDeleted(String),
    /// What a target of scaling wants changed.
    Scaling(Arc<Scaling>),
    /// An intent to start or remove a machine came a step further; gone after `scale/removed` and `scale/dropped`.
    Intent(Arc<Intent>),
    /// A contention opened, moved, was looked at or resolved, or ended.
    Contention(Arc<Contention>),
    /// A new leader began.
    Leader(u64),
    /// The ledger version was raised.
    Version(u32),
}

impl Refusal {
    /// A refusal with one blocker that repeats its reason.
    pub fn one(reason: Reason, subject: impl Into<String>, asked: u64, available: u64) -> Refusal {
        Refusal { reason, blockers: vec![Blocker::new(reason, subject, asked, available)] }
    }
}

impl Blocker {
    /// A blocker that is not about nodes.
    pub fn new(reason: Reason, subject: impl Into<String>, asked: u64, available: u64) -> Blocker {
        Blocker { reason, subject: subject.into(), asked, available, limit: 0, nodes: 0 }
    }
}
