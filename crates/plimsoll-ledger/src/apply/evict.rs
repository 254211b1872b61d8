//! `Evict`: notice to a grant whose class leaves a node that measures too full.

use std::sync::Arc;

use plimsoll_types::{NodeId, ReservationId};

use super::preempt::Notice;
use crate::eviction::SINCE_VERSION;
use crate::ledger::Context;
use crate::{Ledger, Outcome, Overload, PolicyObject, Reason, Refusal};

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(super) fn is_of_eviction(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::Class(class) if class.evict_when.is_some())
}

impl Ledger {
    pub(crate) fn apply_evict(
        &mut self,
        context: &mut Context<'_>,
        id: ReservationId,
        overload: &Overload,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "eviction")?;
        let holder = Arc::clone(self.find(id)?);
        let NodeId(number) = overload.node;
        let node = self
            .node(overload.node)
            .ok_or_else(|| Refusal::one(Reason::NotFound, "node", number.into(), 0))?;
        if node.epoch != overload.epoch {
            return Err(Refusal::one(Reason::Fenced, "epoch", overload.epoch.0, node.epoch.0));
        }
        let evicted = self.eviction(&holder, overload)?;
        Ok(self.give_notice(context, &holder, Notice::TooFull(evicted)))
    }
}
