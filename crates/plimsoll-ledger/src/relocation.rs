//! Who may be asked to go elsewhere so that a pool is less fragmented: the law of relocations, one for the planner that proposes them and for apply,
//! which judges them again (`docs/semantics.md` 5.14).
//!
//! Invariants: nobody is relocated who could not be preempted by a higher class, who would not wait again by itself, or beyond what the pool may
//! preempt in an hour.

use crate::contention::REDISTRIBUTE_SINCE_VERSION;
use crate::{Ledger, OnPreempt, Preemption, Reason, Refusal, Request, Reservation, State, Wait};

/// First ledger version that knows relocations.
pub(crate) const SINCE_VERSION: u32 = 8;

impl Ledger {
    /// Whether a grant may be asked to go elsewhere in its pool. What its pool may still preempt in this hour is not asked:
    /// [`Ledger::preemptions_left`]. O(1).
    ///
    /// # Errors
    /// `NotPreemptible`, with the first thing that stands in the way.
    pub fn may_relocate(&self, one: &Reservation) -> Result<(), Refusal> {
        let no = |what: &str, asked: u64, available: u64| {
            Err(Refusal::one(Reason::NotPreemptible, format!("{}: {what}", one.id), asked, available))
        };
        if !matches!(one.state, State::Active | State::Partial) || one.repair().is_some() {
            return no(&format!("{} cannot leave", one.state.name()), 1, 0);
        }
        if one.members.len() != 1 || !one.request.roles.is_empty() {
            return no("a gang stays together, members", one.members.len() as u64, 1);
        }
        if !would_wait_again(&one.request) {
            return no("it would end instead of waiting again", 1, 0);
        }
        let allowed = self.pool(&one.request.pool).map_or(Preemption::Never, |pool| {
            // Where the pool preempts to resolve a contention, nothing is taken back outside of one.
            let by_now = self.meta.version >= REDISTRIBUTE_SINCE_VERSION;
            if by_now { self.preemption_of(pool) } else { pool.preemption }
        });
        let class = self.class(&one.request.class);
        let by_class = matches!(allowed, Preemption::Any | Preemption::LowerClass);
        let gives_way = one.is_best_effort() && allowed != Preemption::Never;
        let preemptible = by_class && class.is_some_and(|class| class.preemptible);
        if !gives_way && !preemptible {
            return no("neither of a preemptible class nor best effort, in a pool that preempts such", 1, 0);
        }
        let protected_until = self.protected_until(one);
        if self.clock() < protected_until {
            return no("protected from preemption until then", self.clock().0, protected_until.0);
        }
        Ok(())
    }
}

/// True for requests that wait again where their grant is taken back.
pub(crate) fn would_wait_again(request: &Request) -> bool {
    matches!(request.wait, Wait::Queue { .. }) && request.on_preempt == OnPreempt::Requeue
}
