//! A node that its provider takes back: the notice, and what becomes of the work on it (`docs/semantics.md` 5.22).

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, ReservationId, Revision};

use crate::{
    Ledger, MemberPlacement, OnInterruption, OnPreempt, Preempted, PreemptionRule, Reservation, Wait,
};

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

impl Preempted {
    /// Taken back by the provider of its node, which left it so much time.
    pub(crate) fn by_provider(at: LedgerTime, revision: Revision, grace_ms: u64) -> Preempted {
        let (by, rule) = (ReservationId(0), PreemptionRule::Interruption);
        Preempted { by, rule, at, revision, grace_ms, to: None, evicted: None }
    }
}

impl Ledger {
    /// When the first of the nodes of these members goes; `None` where none is taken back.
    pub(crate) fn goes_at(&self, members: &[MemberPlacement]) -> Option<LedgerTime> {
        let nodes = members.iter().filter_map(|member| self.node(member.node));
        nodes.filter_map(|node| node.interruption).map(|known| known.deadline).min()
    }

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
