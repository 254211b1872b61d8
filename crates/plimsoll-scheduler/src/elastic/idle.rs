//! Since when nodes have had nothing on them: the leader's own, forgotten with it. A new leader begins anew, so that nothing moves early.

use std::collections::BTreeMap;

use plimsoll_ledger::Ledger;
use plimsoll_types::{LedgerTime, NodeId};

/// Since when each node of an elastic pool has been empty.
#[derive(Clone, Debug, Default)]
pub struct IdleWatch {
    since: BTreeMap<NodeId, LedgerTime>,
}

impl IdleWatch {
    /// Looks at the nodes of elastic pools. A node that came to another pool begins anew. O(nodes).
    pub fn look(&mut self, ledger: &Ledger, now: LedgerTime) {
        let elastic = |pool: &str| ledger.pool(pool).is_some_and(|pool| pool.elastic.is_elastic());
        let empty = ledger.nodes().filter(|node| elastic(&node.pool) && !ledger.holds_something(node));
        let before = std::mem::take(&mut self.since);
        for node in empty {
            let known = before.get(&node.id).copied().unwrap_or(now);
            let came = node.moved.as_ref().map_or(LedgerTime(0), |moved| moved.at);
            self.since.insert(node.id, known.max(came));
        }
    }

    /// For how long a node has been empty; `None` where it is not, or its pool is not elastic.
    pub fn idle_ms(&self, node: NodeId, now: LedgerTime) -> Option<u64> {
        self.since.get(&node).map(|since| now.ms_since(*since))
    }
}
