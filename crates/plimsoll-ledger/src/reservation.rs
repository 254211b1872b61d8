//! The reservation: what the ledger promised, to whom, where and until when.

use std::sync::Arc;

use plimsoll_types::{LedgerTime, ReservationId, Resources, Revision};

use crate::{Blocker, MemberPlacement, Request};

/// States of `docs/semantics.md` 1. PLANNED, PREEMPTING and RELEASING are reserved for later ledger versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// In a queue, with a list of blockers.
    Pending,
    /// Has a rectangle in the future.
    Planned,
    /// Devices taken, confirm deadline running.
    Held,
    /// Confirmed; renewals due.
    Active,
    /// Confirmed with fewer members than the gang's maximum.
    Partial,
    /// Notice given, grace running.
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
    /// Where its members are; empty before the grant and after the end.
    pub members: Vec<MemberPlacement>,
    /// Fencing token: the revision of the grant; 0 before.
    pub token: Revision,
    /// Length of lease that the latest confirm or renew bought, in milliseconds.
    pub ttl_ms: u64,
    /// When it was submitted.
    pub submitted_at: LedgerTime,
    /// When it was granted; 0 before.
    pub granted_at: LedgerTime,
    /// Pending: end of the wait; held: confirm deadline; active: end of the lease. 0 for none.
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
