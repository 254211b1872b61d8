//! What a pool may say about the walk over its queue, and from which version on.

use crate::limits::{MAX_TTL_MS, MIN_TTL_MS};
use crate::{Blocker, Ledger, PolicyObject, Pool, QueueDiscipline, Reason};

/// First ledger version that knows queue disciplines and bounds on waiting.
pub(crate) const SINCE_VERSION: u32 = 4;

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(super) fn is_of_queueing(object: &PolicyObject) -> bool {
    let says = |pool: &Pool| pool.queueing != QueueDiscipline::default() || pool.starvation_bound_ms > 0;
    matches!(object, PolicyObject::Pool(pool) if says(pool))
}

impl Ledger {
    /// What is wrong with the queueing of the pools that are put.
    pub(crate) fn check_queueing(&self, put: &[PolicyObject], blockers: &mut Vec<Blocker>) {
        if put.iter().any(is_of_queueing) {
            self.knows(SINCE_VERSION, "queueing", blockers);
        }
        for object in put {
            let PolicyObject::Pool(pool) = object else { continue };
            let bound_ms = pool.starvation_bound_ms;
            if bound_ms > 0 && !(MIN_TTL_MS..=MAX_TTL_MS).contains(&bound_ms) {
                let most = if bound_ms < MIN_TTL_MS { MIN_TTL_MS } else { MAX_TTL_MS };
                blockers.push(Blocker::new(Reason::InvalidArgument, "starvation_bound_ms", bound_ms, most));
            }
            if let QueueDiscipline::Backfill { depth } = pool.queueing
                && depth > QueueDiscipline::MOST_PLACES
            {
                let most = QueueDiscipline::MOST_PLACES.into();
                blockers.push(Blocker::new(Reason::InvalidArgument, "queueing", depth.into(), most));
            }
        }
    }
}
