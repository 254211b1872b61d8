//! What a proposal in flight adds to the work that is around.

use plimsoll_ledger::{Chain, Ledger, Placement, Request, WorkIndex};
use plimsoll_types::NodeId;

use crate::planner::Label;

/// Labels and rules of a booked request, and the domains of its nodes as they were when it was booked.
#[derive(Clone, Debug)]
pub(crate) struct BookedWork {
    request: Request,
    members: Vec<(NodeId, Chain)>,
}

impl BookedWork {
    /// `None` where nobody can heed it.
    pub(crate) fn of(ledger: &Ledger, request: &Request, placement: &Placement) -> Option<BookedWork> {
        if request.labels.is_empty() && request.affinity.is_empty() {
            return None;
        }
        let chain = |node: NodeId| Some((node, ledger.chain(node)?.clone()));
        let request = Request {
            labels: request.labels.clone(),
            affinity: request.affinity.clone(),
            ..Request::default()
        };
        let members = placement.members.iter().filter_map(|member| chain(member.node)).collect();
        Some(BookedWork { request, members })
    }

    /// True where it is work of that pool with that label.
    pub(crate) fn carries(&self, pool: &str, (of_pool, key, value): &Label) -> bool {
        pool == of_pool && self.request.labels.get(key) == Some(value)
    }

    /// Counts it, or takes it off.
    pub(crate) fn count(&self, index: &mut WorkIndex, add: bool) {
        for (node, chain) in &self.members {
            index.change(&self.request, chain, *node, (true, true), add);
        }
    }
}
