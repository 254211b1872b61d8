//! What applied commands changed, gathered for the leader's loop. Bounded: a set of nodes, and flags.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use plimsoll_types::NodeId;
use tokio::sync::Notify;

/// What changed since the loop last looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Nodes whose facts or free amounts changed.
    pub(super) nodes: BTreeSet<NodeId>,
    /// More nodes changed than are listed: look at all.
    pub(super) all_nodes: bool,
    /// Pools, classes, limits or the set of nodes changed, or the whole ledger was replaced.
    pub(super) policies: bool,
}

/// Changes gathered until the leader's loop takes them. Waking costs nothing where no loop waits.
pub(super) struct AppliedNotice {
    changes: Mutex<Changes>,
    wake: Arc<Notify>,
}

/// Past this many nodes a full look is no dearer.
const MOST_NODES: usize = 4_096;

impl AppliedNotice {
    pub(super) fn new(wake: Arc<Notify>) -> AppliedNotice {
        AppliedNotice { changes: Mutex::default(), wake }
    }

    /// Adds changes; [`AppliedNotice::wake`] tells of them.
    pub(super) fn add(&self, new: Changes) {
        let mut changes = self.changes.lock();
        changes.policies |= new.policies;
        changes.all_nodes |= new.all_nodes;
        if !changes.all_nodes {
            changes.nodes.extend(new.nodes);
            changes.all_nodes = changes.nodes.len() > MOST_NODES;
        }
        if changes.all_nodes {
            changes.nodes.clear();
        }
    }

    /// Wakes the loop.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// All changes since the last call.
    pub(super) fn take(&self) -> Changes {
        std::mem::take(&mut self.changes.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_add_up_and_stay_bounded() {
        let notice = AppliedNotice::new(Arc::default());
        notice.add(Changes { nodes: [NodeId(1)].into(), ..Changes::default() });
        notice.add(Changes { nodes: [NodeId(2)].into(), policies: true, ..Changes::default() });
        let taken = notice.take();
        assert_eq!(taken, Changes { nodes: [NodeId(1), NodeId(2)].into(), all_nodes: false, policies: true });
        assert_eq!(notice.take(), Changes::default());
        notice.add(Changes { nodes: (0..5_000).map(NodeId).collect(), ..Changes::default() });
        let taken = notice.take();
        assert!(taken.all_nodes && taken.nodes.is_empty());
    }
}
