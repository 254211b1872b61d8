//! `Relocate`: notice to a grant that is to go elsewhere in its pool, so that the pool is less fragmented, or one who waits fits where it was.

use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::ReservationId;

use super::preempt::Notice;
use crate::ledger::Context;
use crate::relocation::SINCE_VERSION;
use crate::{Ledger, Outcome, Placement, Reason, Refusal, Resolve};

impl Ledger {
    /// The law once more, then the place: with the grant gone it is admitted there, by what will be taken once those who were given notice have left.
    /// Nothing is kept there: the leader looks at that node first when the grant waits again.
    pub(crate) fn apply_relocate(
        &mut self,
        context: &mut Context<'_>,
        id: ReservationId,
        placement: &Placement,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "relocation")?;
        let old = Arc::clone(self.find(id)?);
        if !mutant!("relocate-anyone") {
            self.may_relocate(&old)?;
        }
        let pool = &old.request.pool;
        if self.preemptions_left(pool) == 0 {
            let most = self.pool(pool).map_or(0, |pool| u64::from(pool.max_preemptions_per_hour));
            let subject = format!("preemptions of pool {pool} in an hour, all {most} taken");
            return Err(Refusal::one(Reason::NotPreemptible, subject, 1, 0));
        }
        let is_here = placement.members.iter().any(|to| old.members.iter().any(|from| from.node == to.node));
        let ([to], false) = (placement.members.as_slice(), is_here) else {
            let subject = format!("{id}: a relocation is to one other node");
            return Err(Refusal::one(Reason::InvalidArgument, subject, placement.members.len() as u64, 1));
        };
        let mut moved = (*old).clone();
        moved.request = Arc::new(old.request_as_held());
        self.without(&[Arc::clone(&old)], |ledger| ledger.admit_later(&moved, placement))?;
        let from = old.members.first().and_then(|from| self.node(from.node)).map_or("", |node| node.name());
        let subject = format!("{id} from {from} to {}", self.node(to.node).map_or("", |node| node.name()));
        let outcome = self.give_notice(context, &old, Notice::GoTo(to.node));
        self.note_resolved(context, &old.request.pool, Resolve::Redistribute, &subject);
        Ok(outcome)
    }
}
