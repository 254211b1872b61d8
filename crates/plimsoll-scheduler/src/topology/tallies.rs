//! Trees of domains, one per shape of request, kept for the shapes asked lately.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use plimsoll_ledger::Request;
use plimsoll_types::NodeId;

use crate::topology::tree::Tree;

/// Most trees kept at a time; the one unused for longest goes first.
const MOST_TREES: usize = 64;

/// Most changes kept that some tree has not seen.
const MOST_CHANGES: usize = 1 << 20;

/// Trees by shape, and which nodes changed since each was last asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tallies {
    trees: BTreeMap<u64, Kept>,
    /// Nodes that changed, in order; numbered from `first_change` on.
    changes: Vec<NodeId>,
    first_change: u64,
    uses: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    tree: Tree,
    /// Changes that it knows of.
    seen: u64,
    used_at: u64,
}

impl Tallies {
    /// A node changed in what it could take. O(1).
    pub(crate) fn note(&mut self, node: NodeId) {
        if self.changes.len() >= MOST_CHANGES {
            // Nobody asked for long.
            self.forget();
        } else if !self.trees.is_empty() {
            self.changes.push(node);
        }
    }

    /// Everything changed.
    pub(crate) fn forget(&mut self) {
        *self = Tallies::default();
    }

    /// The tree of a shape, brought up to date by `update` with the nodes that changed since; `None` where it is to be made anew: it is not
    /// there, or more changed than the `nodes` that there are.
    pub(crate) fn take(
        &mut self,
        shape: u64,
        nodes: usize,
        update: impl FnOnce(&mut Tree, &[NodeId]),
    ) -> Option<Tree> {
        let mut kept = self.trees.remove(&shape)?;
        let known = kept.seen.checked_sub(self.first_change)? as usize;
        let mut changed = self.changes.get(known..)?.to_vec();
        if changed.len() > nodes.max(64) {
            return None;
        }
        changed.sort_unstable();
        changed.dedup();
        update(&mut kept.tree, &changed);
        Some(kept.tree)
    }

    /// Keeps a tree that is up to date.
    pub(crate) fn keep(&mut self, shape: u64, tree: Tree, nodes: usize) {
        self.uses += 1;
        let seen = self.first_change + self.changes.len() as u64;
        self.trees.insert(shape, Kept { tree, seen, used_at: self.uses });
        if self.trees.len() > MOST_TREES
            && let Some(oldest) =
                self.trees.iter().min_by_key(|(_, kept)| kept.used_at).map(|(shape, _)| *shape)
        {
            self.trees.remove(&oldest);
        }
        // Whoever has not seen what is dropped here is made anew.
        if self.changes.len() > 4 * nodes.max(64) {
            let drop = self.changes.len() - nodes.max(64);
            self.changes.drain(..drop);
            self.first_change += drop as u64;
        }
    }
}

/// Requests of equal shape here take as many members everywhere in a pool with these levels.
pub(crate) fn shape_of(request: &Request, levels: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let topology = &request.topology;
    (&request.pool, &request.requirements.amounts, &request.requirements.gpu, &request.requirements.required)
        .hash(&mut hasher);
    (levels, request.gang.spread).hash(&mut hasher);
    (&topology.required, topology.slice_size, &topology.slice_level).hash(&mut hasher);
    hasher.finish()
}
