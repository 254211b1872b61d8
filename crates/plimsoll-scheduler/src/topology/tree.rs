//! Domains of a pool and how many members each could take.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Chain, Domain};
use plimsoll_types::NodeId;

/// A domain in a tree.
pub(crate) type SpotId = u32;

/// The pool itself: the domain around all others.
pub(crate) const ROOT: SpotId = 0;

/// One domain: the pool, a domain of a level, or a node.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    /// `None` for the pool.
    pub(crate) domain: Option<Domain>,
    /// 0 for the pool, then its levels; a node is one inside the last.
    pub(crate) depth: usize,
    parent: SpotId,
    /// Sum over what is inside; of a node, what it takes.
    sum: u32,
    /// Those right inside that take any: by how many, then by id.
    pub(crate) inside: BTreeSet<(u32, SpotId)>,
}

/// Domains with the members that each could take. Groups of members count only where a whole group fits.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    levels: usize,
    group: u32,
    /// Depth of the domains that a group must be in.
    group_depth: Option<usize>,
    /// Depth of the domain that all members must be in: 0 for the pool.
    required: usize,
    spots: Vec<Spot>,
    ids: BTreeMap<Domain, SpotId>,
    /// Per depth, the domains that take any.
    by_depth: Vec<BTreeSet<(u32, SpotId)>>,
}

impl Tree {
    /// A tree without nodes, of a pool with so many levels. `group`: members of a group, and the depth of its domains.
    pub(crate) fn new(levels: usize, required: usize, group: Option<(u32, usize)>) -> Tree {
        let root = Spot { domain: None, depth: 0, parent: ROOT, sum: 0, inside: BTreeSet::new() };
        Tree {
            levels,
            group: group.map_or(1, |(size, _)| size.max(1)),
            group_depth: group.map(|(_, depth)| depth),
            required,
            spots: vec![root],
            ids: BTreeMap::new(),
            by_depth: vec![BTreeSet::new(); levels + 2],
        }
    }

    /// Sets what a node takes, in the domains that it is in now. O(levels x log domains).
    pub(crate) fn set(&mut self, node: NodeId, chain: &Chain, members: u32) {
        let parent = self.enter(chain);
        let node = Domain::Node(node);
        let id = match self.ids.get(&node) {
            Some(id) if self.spots[*id as usize].parent == parent => *id,
            Some(id) => {
                let id = *id;
                self.change(id, 0);
                self.spots[id as usize].parent = parent;
                id
            }
            None if members == 0 => return,
            None => self.add(node, self.levels + 1, parent),
        };
        self.change(id, members);
    }

    /// The node takes nothing any more, wherever it was.
    pub(crate) fn unset(&mut self, node: NodeId) {
        if let Some(id) = self.ids.get(&Domain::Node(node)).copied() {
            self.change(id, 0);
        }
    }

    /// The tightest domain of a depth that takes so many.
    pub(crate) fn tightest(&self, depth: usize, members: u32) -> Option<SpotId> {
        let all = self.by_depth.get(depth)?;
        all.range((members.max(1), 0)..).next().map(|(_, id)| *id)
    }

    /// The domain of a depth that takes most, and how many.
    pub(crate) fn roomiest(&self, depth: usize) -> Option<(SpotId, u32)> {
        self.by_depth.get(depth)?.last().map(|(members, id)| (*id, *members))
    }

    pub(crate) fn spot(&self, id: SpotId) -> &Spot {
        &self.spots[id as usize]
    }

    /// Members that a domain takes: whole groups, from the groups' own depth outwards. None where it is in no domain that a group, or all
    /// members, must be in.
    pub(crate) fn takes(&self, id: SpotId) -> u32 {
        let spot = self.spot(id);
        let around = self.spot(spot.parent).depth;
        let is_skipped = |depth: usize| around < depth && depth < spot.depth;
        match self.group_depth {
            _ if is_skipped(self.required) => 0,
            Some(depth) if spot.depth == depth => spot.sum / self.group * self.group,
            Some(depth) if is_skipped(depth) => 0,
            _ => spot.sum,
        }
    }

    fn enter(&mut self, chain: &Chain) -> SpotId {
        let mut parent = ROOT;
        for (index, domain) in chain.domains.iter().enumerate() {
            parent = match self.ids.get(domain) {
                Some(id) => *id,
                None => self.add(domain.clone(), index + 1, parent),
            };
        }
        parent
    }

    fn add(&mut self, domain: Domain, depth: usize, parent: SpotId) -> SpotId {
        let id = self.spots.len() as SpotId;
        self.ids.insert(domain.clone(), id);
        self.spots.push(Spot { domain: Some(domain), depth, parent, sum: 0, inside: BTreeSet::new() });
        id
    }

    fn change(&mut self, mut id: SpotId, mut sum: u32) {
        loop {
            let before = self.takes(id);
            self.spots[id as usize].sum = sum;
            let (now, depth, parent) = (self.takes(id), self.spot(id).depth, self.spot(id).parent);
            if now == before {
                return;
            }
            replace(&mut self.by_depth[depth], before, now, id);
            if id == ROOT {
                return;
            }
            let around = &mut self.spots[parent as usize];
            replace(&mut around.inside, before, now, id);
            sum = around.sum - before + now;
            id = parent;
        }
    }
}

fn replace(all: &mut BTreeSet<(u32, SpotId)>, before: u32, now: u32, id: SpotId) {
    all.remove(&(before, id));
    if now > 0 {
        all.insert((now, id));
    }
}
