//! The reservation: what the ledger promised, to whom, where and until when.

use std::sync::Arc;

use plimsoll_types::{LedgerTime, NodeId, ReservationId, Resources, Revision};

use crate::{Aside, Blocker, Endpoint, Evicted, MemberPlacement, Reason, Repaired, Request, Tab};

/// States of `docs/semantics.md` 4. RELEASING is reserved for later ledger versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// In a queue, with a list of blockers.
    Pending,
    /// Has a place that others are leaving. From ledger version 4 on.
    Planned,
    /// Devices taken, confirm deadline running.
    Held,
    /// Confirmed; renewals due.
    Active,
    /// Confirmed with fewer members than the gang's maximum.
    Partial,
    /// Notice given, grace running. From ledger version 4 on.
    Preempting,
    /// Told to stop, not yet acknowledged.
    Releasing,
    /// A node of it is silent and the lease is not yet safe to end.
    Unknown,
    /// Given back by its holder.
    Released,
    /// The holder did not confirm, renew or wait any longer.
    Expired,
    /// Its node was lost, fenced, failed or removed.
    Failed,
    /// Taken back by the scheduler or an operator's drain.
    Preempted,
    /// Cancelled before it was granted, or refused from the queue.
    Rejected,
}

/// Why a reservation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// Its holder released it.
    Released,
    /// It was cancelled.
    Cancelled,
    /// Not confirmed within `hold_ms`.
    NotConfirmed,
    /// Not renewed within `ttl_ms` and the slack.
    NotRenewed,
    /// `max_duration_ms` is over.
    MaxDuration,
    /// Waited in the queue past its deadline.
    WaitedTooLong,
    /// A node of it was lost: silent past the safe end of its leases.
    NodeLost,
    /// A node of it was fenced: confirmed off by an operator.
    NodeFenced,
    /// A node of it failed.
    NodeFailed,
    /// The drain of a node of it reached its deadline.
    Drained,
    /// Its place was taken back for another reservation.
    Preempted,
    /// A window opened for which it was cut short.
    WindowOpened,
    /// Its start and all its time went by without a place for it.
    NeverStarted,
    /// It lost members, and was still below its minimum when its time to be repaired was over.
    NotRepaired,
}

/// By which rule a grant was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PreemptionRule {
    /// For a higher class.
    LowerClass,
    /// For a queue within its own quota, from one that borrows.
    Reclaim,
    /// For one that is backed, from one that took what was idle. From ledger version 7 on.
    BestEffort,
    /// To go elsewhere, so that its pool is less fragmented. From ledger version 8 on.
    Relocation,
    /// For nobody: the provider of its node takes that back. From ledger version 11 on.
    Interruption,
    /// For nobody: its node measured fuller than its class stays for. From ledger version 9 on.
    Threshold,
}

/// How a grant was taken back, the latest time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preempted {
    /// For which reservation; itself where it was relocated, and 0 where it was for nobody.
    pub by: ReservationId,
    /// By which rule.
    pub rule: PreemptionRule,
    /// When notice was given.
    pub at: LedgerTime,
    /// Revision of the entry that gave notice.
    pub revision: Revision,
    /// Time to stop, in milliseconds.
    pub grace_ms: u64,
    /// The node on which there was a place for it, where it was relocated. From ledger version 8 on.
    pub to: Option<NodeId>,
    /// What its node measured, by [`PreemptionRule::Threshold`]; `None` by all others. From ledger version 9 on.
    pub evicted: Option<Evicted>,
}

impl PreemptionRule {
    /// Lower-case name, as screens and files show it.
    pub fn name(self) -> &'static str {
        match self {
            PreemptionRule::LowerClass => "lower_class",
            PreemptionRule::Reclaim => "reclaim",
            PreemptionRule::BestEffort => "best_effort",
            PreemptionRule::Relocation => "relocation",
            PreemptionRule::Interruption => "interruption",
            PreemptionRule::Threshold => "threshold",
        }
    }
}

/// One reservation. Never changed in place once shared: the ledger replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Its id: the revision of the submit command.
    pub id: ReservationId,
    /// What was asked.
    pub request: Arc<Request>,
    /// Who asked (the actor of the submit command).
    pub requester: String,
    /// Priority of its class when it was submitted; orders the queue, higher first.
    pub priority: i32,
    /// Where it stands.
    pub state: State,
    /// While `Unknown`: the state to return to when its nodes are back. Otherwise equal to `state`.
    pub resume_state: State,
    /// What each member has now: the request's amounts, or those of the latest resize.
    pub amounts: Resources,
    /// Where its members are; while `Planned`, where they will be. Empty otherwise.
    pub members: Vec<MemberPlacement>,
    /// Fencing token: the revision of the grant; 0 before.
    pub token: Revision,
    /// Length of lease that the latest confirm or renew bought, in milliseconds.
    pub ttl_ms: u64,
    /// When it was submitted.
    pub submitted_at: LedgerTime,
    /// When it was granted; 0 before.
    pub granted_at: LedgerTime,
    /// Pending or planned: end of the wait; held: confirm deadline; active: end of the lease; preempting: end of the grace. 0 for none.
    pub deadline: LedgerTime,
    /// The grant ends here whatever is renewed; 0 for no such end.
    pub hard_end: LedgerTime,
    /// When it ended; 0 before.
    pub ended_at: LedgerTime,
    /// Why it ended.
    pub end_reason: Option<EndReason>,
    /// Revision of the latest change.
    pub changed: Revision,
    /// Pending: what stood in the way when the leader last looked.
    pub blockers: Vec<Blocker>,
    /// How its grant was taken back, the latest time; `None` where it never was.
    pub preempted: Option<Box<Preempted>>,
    /// While granted: what is committed of quotas and budgets; `None` where nothing counts it. From ledger version 4 on.
    pub tab: Option<Arc<Tab>>,
    /// Once ended: what it cost, in millionths of the currency of its pool.
    pub cost_micros: u64,
    /// Where it listens, as a replica of its service; `None` where it said nothing, and once its grant is over. From ledger version 5 on.
    pub endpoint: Option<Arc<Endpoint>>,
    /// What it lost, and the tokens of what took its place; `None` for nearly all, which lost nothing. From ledger version 7 on.
    pub repaired: Option<Box<Repaired>>,
    /// While it is pending, that it is set aside from its queue, and once it ended, that it was: what it asked is in its body then. From ledger version 11 on.
    pub aside: Option<Box<Aside>>,
}

impl Reservation {
    /// True where it takes amounts now and was given no notice, or will take them once others have left: what new grants have to leave
    /// alone for longer than a grace.
    pub(crate) fn is_staying(&self) -> bool {
        let leaving = self.resume_state == State::Preempting;
        self.state.is_occupying() && !leaving || self.state == State::Planned
    }

    /// Its request, for the amounts that it has now, which a resize may have changed.
    pub fn request_as_held(&self) -> Request {
        let mut request = Request::clone(&self.request);
        request.requirements.amounts = self.amounts.clone();
        request
    }

    /// True where another node might help one that waits: it is not best effort, which takes what is idle and no more, and no quota, limit, budget,
    /// licence, batch or hour is what it waits for.
    pub fn lacks_nodes(&self) -> bool {
        let elsewhere = |blocker: &Blocker| {
            matches!(
                blocker.reason,
                Reason::QuotaExceeded
                    | Reason::LimitExceeded
                    | Reason::BudgetExhausted
                    | Reason::CountableExhausted
                    | Reason::AwaitsBatch
                    | Reason::AwaitsHours
            )
        };
        !self.is_best_effort() && !self.blockers.iter().any(elsewhere)
    }

    /// How its grant was taken back, the latest time.
    pub fn preempted(&self) -> Option<Preempted> {
        self.preempted.as_deref().copied()
    }

    /// The node that it was asked to go to, while it waits to be placed again.
    pub fn relocates_to(&self) -> Option<NodeId> {
        self.preempted().filter(|_| self.state == State::Pending)?.to
    }

    /// True for those that wait: in a queue, of which they are not set aside, or for a place that others are leaving. An advance reservation waits for its start alone, in no
    /// queue.
    pub fn is_waiting(&self) -> bool {
        self.state == State::Pending && self.aside.is_none()
            || self.state == State::Planned && !self.members.is_empty()
    }

    /// True for an advance reservation that has no place yet: what it will take is kept in the calendar of its pool.
    pub fn is_advance(&self) -> bool {
        self.state == State::Planned && self.members.is_empty()
    }
}

impl State {
    /// All states, in order of their declaration.
    pub const ALL: [State; 13] = [
        State::Pending,
        State::Planned,
        State::Held,
        State::Active,
        State::Partial,
        State::Preempting,
        State::Releasing,
        State::Unknown,
        State::Released,
        State::Expired,
        State::Failed,
        State::Preempted,
        State::Rejected,
    ];

    /// True for states that never change again.
    pub fn is_final(self) -> bool {
        matches!(self, State::Released | State::Expired | State::Failed | State::Preempted | State::Rejected)
    }

    /// True for states before a grant.
    pub fn is_ungranted(self) -> bool {
        matches!(self, State::Pending | State::Planned)
    }

    /// True for states that take amounts of nodes and devices.
    pub fn is_occupying(self) -> bool {
        matches!(
            self,
            State::Held
                | State::Active
                | State::Partial
                | State::Preempting
                | State::Releasing
                | State::Unknown
        )
    }

    /// Lower-case name, as screens and files show it.
    pub fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Planned => "planned",
            State::Held => "held",
            State::Active => "active",
            State::Partial => "partial",
            State::Preempting => "preempting",
            State::Releasing => "releasing",
            State::Unknown => "unknown",
            State::Released => "released",
            State::Expired => "expired",
            State::Failed => "failed",
            State::Preempted => "preempted",
            State::Rejected => "rejected",
        }
    }
}
