//! Nodes that were removed, as far as answers still name them: from ledger version 2 on.
//!
//! Answers hold numbers of nodes and of their devices. Whoever repeats a request while its answer is remembered is shown the
//! same names as at first, so the names are kept as long as any answer that needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_types::{DeviceIndex, LedgerTime, NodeId};

use crate::limits::{MAX_REMOVED, REMEMBER_MS};
use crate::{Ledger, Node, RowPlace};

/// First ledger version in which removed nodes leave something.
pub(crate) const SINCE_VERSION: u32 = 2;

/// What is kept of a node that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedNode {
    /// Its id, which no other node gets.
    pub id: NodeId,
    /// Its name, which another node may have by now.
    pub name: String,
    /// Its devices, at the index that grants name them by.
    pub devices: Vec<RemovedDevice>,
    /// Ledger time of its removal.
    pub removed_at: LedgerTime,
}

/// What is kept of a device of a removed node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedDevice {
    /// Its unique id.
    pub uuid: String,
    /// Its model.
    pub model: String,
}

impl RemovedNode {
    /// What is kept of this node, removed at this time.
    pub(crate) fn of(node: &Node, removed_at: LedgerTime) -> RemovedNode {
        let device =
            |device: &crate::Device| RemovedDevice { uuid: device.uuid.clone(), model: device.model.clone() };
        RemovedNode {
            id: node.id,
            name: node.name().to_owned(),
            devices: node.registration.devices.iter().map(device).collect(),
            removed_at,
        }
    }

    /// A sweep from here on forgets it.
    pub fn keep_until(&self) -> LedgerTime {
        self.removed_at.plus_ms(REMEMBER_MS)
    }
}

/// All that are kept, by id and in the order in which they go. Invariant: both hold the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemovedNodes {
    by_id: BTreeMap<NodeId, Arc<RemovedNode>>,
    by_end: BTreeSet<(LedgerTime, NodeId)>,
}

impl RemovedNodes {
    fn put(&mut self, node: Arc<RemovedNode>) {
        self.by_end.insert((node.keep_until(), node.id));
        if let Some(old) = self.by_id.insert(node.id, Arc::clone(&node))
            && old.keep_until() != node.keep_until()
        {
            self.by_end.remove(&(old.keep_until(), old.id));
        }
    }

    fn remove(&mut self, id: NodeId) {
        if let Some(old) = self.by_id.remove(&id) {
            self.by_end.remove(&(old.keep_until(), id));
        }
    }

    fn first(&self) -> Option<(LedgerTime, NodeId)> {
        self.by_end.first().copied()
    }
}

impl Ledger {
    /// What is kept of a removed node; `None` where it never was removed, or is forgotten by now.
    pub fn removed_node(&self, id: NodeId) -> Option<&Arc<RemovedNode>> {
        self.removed.by_id.get(&id)
    }

    /// All removed nodes that are still known, by ascending id.
    pub fn removed_nodes(&self) -> impl Iterator<Item = &Arc<RemovedNode>> {
        self.removed.by_id.values()
    }

    /// Name of a node, present or removed; `None` where the ledger no longer knows it.
    pub fn node_name(&self, id: NodeId) -> Option<&str> {
        let present = self.node(id).map(|node| node.name());
        present.or_else(|| self.removed_node(id).map(|removed| removed.name.as_str()))
    }

    /// Unique id and model of a device of a node, present or removed.
    pub fn device_names(&self, node: NodeId, index: DeviceIndex) -> Option<(&str, &str)> {
        let index = usize::from(index.0);
        if let Some(node) = self.node(node) {
            let device = node.registration.devices.get(index)?;
            return Some((&device.uuid, &device.model));
        }
        let device = self.removed_node(node)?.devices.get(index)?;
        Some((&device.uuid, &device.model))
    }

    pub(crate) fn put_removed(&mut self, node: Arc<RemovedNode>) {
        self.touched.row(RowPlace::RemovedNode(node.id));
        self.removed.put(node);
        if self.removed.by_id.len() > MAX_REMOVED
            && let Some((_, first)) = self.removed.first()
        {
            self.forget_removed(first);
        }
    }

    pub(crate) fn forget_removed(&mut self, id: NodeId) {
        self.touched.row(RowPlace::RemovedNode(id));
        self.removed.remove(id);
    }

    /// The removed node that goes first, and when it may.
    pub(crate) fn first_removed(&self) -> Option<(LedgerTime, NodeId)> {
        self.removed.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(id: u32, at: u64) -> Arc<RemovedNode> {
        let devices = vec![RemovedDevice { uuid: "GPU-a".into(), model: "t4".into() }];
        Arc::new(RemovedNode { id: NodeId(id), name: "a".into(), devices, removed_at: LedgerTime(at) })
    }

    #[test]
    fn the_one_removed_first_goes_first_and_the_table_has_an_end() {
        let mut ledger = Ledger::new();
        for id in 0..=u32::try_from(MAX_REMOVED).expect("small") {
            ledger.put_removed(removed(id, 10 + u64::from(id)));
        }
        assert_eq!(ledger.removed_nodes().count(), MAX_REMOVED);
        assert!(ledger.removed_node(NodeId(0)).is_none());
        assert_eq!(ledger.first_removed(), Some((LedgerTime(11 + REMEMBER_MS), NodeId(1))));
        assert_eq!(ledger.node_name(NodeId(1)), Some("a"));
        assert_eq!(ledger.device_names(NodeId(1), DeviceIndex(0)), Some(("GPU-a", "t4")));
        assert_eq!(ledger.device_names(NodeId(1), DeviceIndex(1)), None);
    }
}
