//! Nodes of one pool and device kind, kept so that a placement looks at tens of them, not at all.
//!
//! Two structures over the same nodes: levels of free GPU with nodes by free cpu inside (best and worst fit walk these),
//! and a tree of maxima by node id (first fit, and the exact answer where a bounded walk found nothing).

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_types::NodeId;

use crate::fit::NodeView;

/// What a request needs at least, in the terms of the index. Necessary, not sufficient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) cpu_millis: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) whole: u32,
    pub(crate) share_milli: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    cpu_millis: u64,
    memory_bytes: u64,
    whole: u32,
    share_milli: u32,
}

impl Room {
    fn of(view: &NodeView) -> Room {
        if !view.node.is_eligible() {
            return Room::default();
        }
        Room {
            cpu_millis: view.free.cpu_millis.0,
            memory_bytes: view.free.memory_bytes.0,
            whole: view.free_whole(),
            share_milli: (0..view.devices.len())
                .map(|index| view.device_free_milli(index))
                .max()
                .unwrap_or(0),
        }
    }

    fn max(self, other: Room) -> Room {
        Room {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            whole: self.whole.max(other.whole),
            share_milli: self.share_milli.max(other.share_milli),
        }
    }

    fn may_hold(&self, need: &Need) -> bool {
        self.cpu_millis >= need.cpu_millis
            && self.memory_bytes >= need.memory_bytes
            && self.whole >= need.whole
            && self.share_milli >= need.share_milli
    }
}

impl Need {
    /// Free GPU that a node must have in all, in thousandths.
    fn milli(&self) -> u64 {
        u64::from(self.whole) * 1_000 + u64::from(self.share_milli)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    levels: BTreeMap<u64, BTreeSet<(u64, NodeId)>>,
    keys: BTreeMap<NodeId, (u64, u64)>,
    positions: BTreeMap<NodeId, usize>,
    nodes: Vec<NodeId>,
    /// Leaves from `nodes.len().next_power_of_two()` on.
    tree: Vec<Room>,
}

impl Index {
    /// Builds over nodes ascending by id. O(n log n).
    pub(crate) fn build<'a>(views: impl Iterator<Item = &'a NodeView>) -> Index {
        let mut index = Index::default();
        let mut rooms = Vec::new();
        for view in views {
            index.positions.insert(view.node.id, index.nodes.len());
            index.nodes.push(view.node.id);
            rooms.push(Room::of(view));
            index.enter(view);
        }
        let width = rooms.len().next_power_of_two();
        index.tree = vec![Room::default(); 2 * width];
        index.tree[width..width + rooms.len()].copy_from_slice(&rooms);
        for at in (1..width).rev() {
            index.tree[at] = index.tree[2 * at].max(index.tree[2 * at + 1]);
        }
        index
    }

    /// Takes note of a changed node. O(log n).
    pub(crate) fn update(&mut self, view: &NodeView) {
        let id = view.node.id;
        if let Some((milli, cpu)) = self.keys.remove(&id) {
            if let Some(level) = self.levels.get_mut(&milli) {
                level.remove(&(cpu, id));
                if level.is_empty() {
                    self.levels.remove(&milli);
                }
            }
        }
        self.enter(view);
        let Some(position) = self.positions.get(&id) else { return };
        let mut at = self.tree.len() / 2 + position;
        self.tree[at] = Room::of(view);
        while at > 1 {
            at /= 2;
            self.tree[at] = self.tree[2 * at].max(self.tree[2 * at + 1]);
        }
    }

    fn enter(&mut self, view: &NodeView) {
        if view.node.is_eligible() {
            let key = (view.free_milli(), view.free.cpu_millis.0);
            self.levels.entry(key.0).or_default().insert((key.1, view.node.id));
            self.keys.insert(view.node.id, key);
        }
    }

    /// Nodes with the least free GPU, then cpu, that may do.
    pub(crate) fn tightest(&self, need: Need) -> impl Iterator<Item = NodeId> + '_ {
        let levels = self.levels.range(need.milli()..);
        levels.flat_map(move |(_, nodes)| nodes.range((need.cpu_millis, NodeId(0))..).map(|(_, id)| *id))
    }

    /// Nodes with the most free GPU, then cpu.
    pub(crate) fn roomiest(&self, need: Need) -> impl Iterator<Item = NodeId> + '_ {
        let levels = self.levels.range(need.milli()..).rev();
        levels
            .flat_map(move |(_, nodes)| nodes.range((need.cpu_millis, NodeId(0))..).rev().map(|(_, id)| *id))
    }

    /// Nodes that may do, by id from a position on.
    pub(crate) fn from_position(&self, need: Need, position: usize) -> impl Iterator<Item = NodeId> + '_ {
        let mut next = position;
        std::iter::from_fn(move || {
            let found = self.first_at_or_after(next, &need)?;
            next = found + 1;
            self.nodes.get(found).copied()
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn first_at_or_after(&self, position: usize, need: &Need) -> Option<usize> {
        let width = self.tree.len() / 2;
        if position >= self.nodes.len() {
            return None;
        }
        let mut at = width + position;
        loop {
            if self.tree[at].may_hold(need) {
                if at >= width {
                    return Some(at - width).filter(|found| *found < self.nodes.len());
                }
                at *= 2;
                continue;
            }
            // On to the next subtree to the right; the root's right edge ends the search.
            while at % 2 == 1 {
                at /= 2;
                if at <= 1 {
                    return None;
                }
            }
            at += 1;
        }
    }
}
