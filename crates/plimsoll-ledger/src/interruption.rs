//! A node that its provider takes back: the notice, and what becomes of the work on it (`docs/semantics.md` 5.22).

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, NodeId};

use crate::{Ledger, OnInterruption, OnPreempt, Reservation, Wait};

/// First ledger version that knows interruptions.
pub(crate) const SINCE_VERSION: u32 = crate::capacity::SINCE_VERSION;

/// That a provider takes a node back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// When its notice came.
    pub noticed_at: LedgerTime,
    /// When the node goes.
    pub deadline: LedgerTime,
}

impl Reservation {
    /// True where a gang goes on without the members that it has on a node that goes: it may be repaired, and has others.
    pub(crate) fn outlives(&self, node: NodeId) -> bool {
        self.request.repair_within_ms > 0 && self.members.iter().any(|member| member.node != node)
    }
}

impl Ledger {
    /// True where one that a node's going takes with it waits again.
    pub(crate) fn waits_after_interruption(&self, old: &Reservation) -> bool {
        let would_wait = matches!(old.request.wait, Wait::Queue { .. });
        match old.request.on_interruption {
            Some(OnInterruption::Fail) if !mutant!("retry-what-fails") => false,
            Some(_) => would_wait || self.is_promised(old),
            None => would_wait && old.request.on_preempt == OnPreempt::Requeue || self.is_promised(old),
        }
    }
}
