//! What may be written to the ledger log.

use plimsoll_types::{DeviceIndex, LedgerTime, NodeEpoch, NodeId, ReservationId, Resources, Revision};

use crate::{
    Announcement, Blocker, IntentStep, LoadReport, NodeHealth, Overload, Placement, PolicyName, PolicyObject,
    Registration, Request, ScaleDecided, ScalingTarget, SetAsideOne, Window,
};

/// Identity of the command being applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its place in the ledger log: one more than the command before.
    pub revision: Revision,
    /// When the leader proposed it. The ledger clamps this, so that its own time never goes back.
    pub proposed_at: LedgerTime,
}

/// A command with its origin: one entry of the ledger log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who caused it: a client's identity, or `system` for the leader's own commands.
    pub actor: String,
    /// Idempotency key chosen by the client, scoped to the actor; empty for none.
    pub request_id: String,
    /// Hash of what the client asked, to tell a repeat from another request under the same key.
    pub request_hash: [u8; 32],
    /// What to do.
    pub command: Command,
}

/// Every change of the ledger. Numbers on the wire are given apart and only ever appended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most entries are submits: a box would cost each of them an allocation"
)]
pub enum Command {
    /// A new request, with the place that the leader found for it, or what stood in the way.
    Submit {
        /// What is asked.
        request: Request,
        /// What the leader's planner found.
        verdict: Verdict,
    },
    /// The leader found a place for a pending reservation.
    Place {
        /// Which.
        reservation: ReservationId,
        /// Where.
        placement: Placement,
    },
    /// The leader found a place that is free once others left it: gives them notice, and keeps the place. From ledger version 4 on.
    Preempt {
        /// For which pending or planned reservation.
        reservation: ReservationId,
        /// Where it will be. Without members: what was kept for it is kept no more, and it waits on.
        placement: Placement,
        /// Who has to leave, in the order in which the rules are asked; nobody where no place is kept.
        victims: Vec<ReservationId>,
    },
    /// The leader's own: a node measures too full, and a grant of a class that leaves such a node is given notice. From ledger version 9 on.
    Evict {
        /// Who has to leave.
        reservation: ReservationId,
        /// What was seen of the node.
        overload: Overload,
    },
    /// The holder takes up a held grant.
    Confirm {
        /// Which.
        reservation: ReservationId,
        /// Its fencing token.
        token: Revision,
    },
    /// The holder is alive: the lease runs a full length from now.
    Renew {
        /// Which.
        reservation: ReservationId,
        /// Its fencing token.
        token: Revision,
        /// New lease length in milliseconds; 0 keeps the present one.
        ttl_ms: u64,
    },
    /// New amounts per member, on the same nodes; devices stay.
    Resize {
        /// Which.
        reservation: ReservationId,
        /// Its fencing token.
        token: Revision,
        /// New amounts per member.
        amounts: Resources,
    },
    /// The holder gives the grant back.
    Release {
        /// Which.
        reservation: ReservationId,
        /// Its fencing token.
        token: Revision,
    },
    /// Who was given notice is out before the grace is over, and waits again where it would. From ledger version 4 on.
    Requeue {
        /// Which.
        reservation: ReservationId,
        /// Its fencing token.
        token: Revision,
    },
    /// Ends a reservation in any state, without its token: by its owner or an operator.
    Cancel {
        /// Which.
        reservation: ReservationId,
    },
    /// Ends what is due by ledger time: waits, holds, leases, drains; forgets what is past its retention.
    Expire {
        /// Most reservations to end.
        limit: u32,
    },
    /// An agent reports its node.
    RegisterNode(Registration),
    /// The leader, an agent or an operator says how a node is.
    SetNodeHealth {
        /// Which.
        node: NodeId,
        /// Incarnation that this is about; another is refused.
        epoch: NodeEpoch,
        /// How it is.
        health: NodeHealth,
    },
    /// An operator says whether a node takes new work.
    SetNodeAdmin {
        /// Which.
        node: NodeId,
        /// The operator's word. A drain's deadline is milliseconds from the entry's time; 0 for none.
        admin: AdminChange,
    },
    /// An agent or operator says whether a device may be granted.
    SetDeviceHealth {
        /// Which node.
        node: NodeId,
        /// Which device.
        device: DeviceIndex,
        /// It may not be granted.
        failed: bool,
    },
    /// An operator takes a node out of the ledger. Refused while it is available and holds leases.
    RemoveNode {
        /// Which.
        node: NodeId,
    },
    /// Changes policy objects, all or nothing.
    ApplyPolicy {
        /// Objects to create or replace.
        put: Vec<PolicyObject>,
        /// Objects to delete.
        delete: Vec<PolicyName>,
        /// Refuse unless no policy object changed after this revision; 0 for no such condition.
        if_revision: Revision,
    },
    /// The leader worked out when a schedule's rule opens it: these windows replace those it had.
    OpenWindows {
        /// Which.
        schedule: String,
        /// Revision of the policy that the rule was read at; refused where the schedule has changed since.
        changed: Revision,
        /// Its windows, ascending, apart from each other.
        windows: Vec<Window>,
        /// They are all that there are before this.
        until: LedgerTime,
    },
    /// A new leader begins: every live lease runs a full length from here before anything may expire.
    BecomeLeader {
        /// Coordinator id of the leader.
        leader: u64,
    },
    /// Takes tokens of a rate, all or none. From ledger version 4 on.
    TakeTokens {
        /// The quota that has the rate.
        quota: String,
        /// The rate's name.
        rate: String,
        /// For whom or what; takers of different names do not share. May be empty.
        scope: String,
        /// How many.
        tokens: u64,
    },
    /// A replica of a service says where it listens. From ledger version 5 on.
    SetEndpoint {
        /// Its reservation.
        reservation: ReservationId,
        /// Its fencing token.
        token: Revision,
        /// Where, and with what weight; `None` where it listens no more.
        announced: Option<Announcement>,
    },
    /// The leader's own: what endpoints said of their load since its last such entry. From ledger version 5 on.
    ReportLoad {
        /// One of an endpoint at most, ascending by reservation.
        reports: Vec<LoadReport>,
    },
    /// The leader's own: what a target of scaling wants from now on. From ledger version 6 on.
    SetDesired(ScaleDecided),
    /// A person says what a target of scaling has, for a time. From ledger version 6 on.
    PinScale {
        /// What is scaled.
        target: ScalingTarget,
        /// So many; `None` takes an earlier word back.
        to: Option<u64>,
        /// For so many milliseconds.
        for_ms: u64,
    },
    /// The leader's own: a machine is to be started or removed. From ledger version 6 on.
    OpenIntent {
        /// Policy that wants it.
        policy: String,
        /// The intent of the machine that goes; `None` for a new one.
        machine: Option<Revision>,
        /// Which of the policy's templates a new one is of; empty where the policy has the one. From ledger version 12 on.
        template: String,
    },
    /// The leader's own: the next step of an intent. From ledger version 6 on.
    StepIntent {
        /// Which.
        intent: Revision,
        /// Its attempts as the leader knew them; refused where there were more since.
        attempts: u32,
        /// What comes next.
        step: IntentStep,
    },
    /// The leader's own: what those who wait lack of a resource is to be measured, for its contention. From ledger version 8 on.
    ObserveContention {
        /// Pool.
        pool: String,
        /// Name of the resource.
        resource: String,
    },
    /// A grant is to go elsewhere in its pool, so that the pool is less fragmented: it is given notice and waits again. From ledger version 8 on.
    Relocate {
        /// Which.
        reservation: ReservationId,
        /// Where there is a place for it.
        placement: Placement,
    },
    /// The leader's own: an empty node goes from one elastic pool to another. From ledger version 9 on.
    MoveNode {
        /// Which.
        node: NodeId,
        /// The pool that it is in.
        from: String,
        /// The pool that it goes to.
        to: String,
    },
    /// The provider of a node takes it back. From ledger version 11 on.
    InterruptNode {
        /// Which.
        node: NodeId,
        /// Incarnation that this is about; another is refused.
        epoch: NodeEpoch,
        /// It goes so many milliseconds after this entry.
        in_ms: u64,
    },
    /// The leader's own: the last of a queue are set aside, past its `max_pending`. From ledger version 11 on.
    SetAside {
        /// Which, the last first.
        aside: Vec<SetAsideOne>,
    },
    /// The leader's own: the first of those that are aside wait in their queue again. From ledger version 11 on.
    Return {
        /// Which, the first first, with what they asked.
        requests: Vec<(ReservationId, Request)>,
    },
    /// Raises the ledger version: the only way that behaviour changes.
    Upgrade {
        /// New version.
        to: u32,
    },
}

/// What the leader's planner found for a new request. Re-checked in apply where it names a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A place that fits.
    Place(Placement),
    /// Nothing fits now: all that stands in the way.
    Blocked(Vec<Blocker>),
    /// Nothing that exists can ever hold it: all that stands in the way.
    Infeasible(Vec<Blocker>),
}

/// Change of an operator's word on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminChange {
    /// Takes new work again.
    Uncordon,
    /// Takes no new work.
    Cordon {
        /// Why.
        reason: String,
    },
    /// Takes no new work; what runs must leave.
    Drain {
        /// Why.
        reason: String,
        /// What still runs so many milliseconds after this entry is ended; 0 for no such end.
        deadline_ms: u64,
    },
}

impl Entry {
    /// A command of the leader's own, without a key.
    pub fn system(command: Command) -> Entry {
        Entry { actor: SYSTEM_ACTOR.to_owned(), request_id: String::new(), request_hash: [0; 32], command }
    }
}

/// Actor of the leader's own commands.
pub const SYSTEM_ACTOR: &str = "system";
