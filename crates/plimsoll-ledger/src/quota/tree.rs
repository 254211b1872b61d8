//! The tree of queues with its quotas and what is taken, kept up to date grant by grant.
//!
//! Invariants: `usage` of an inner queue is the sum of `in_parent` of those below it; `subtree` is its own nominal and the sum of
//! `lendable` of those below it. Both are re-made from the leaves' usage at every change of policy.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_mutants::mutant;
use plimsoll_types::{Amount, Resources};

use super::Cell;
use crate::Queue;

/// A resource of which a queue, or one above it, has too little left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The queue whose quota binds: the one asked, or one above it.
    pub queue: String,
    /// Of which resource.
    pub resource: String,
    /// Asked.
    pub asked: Amount,
    /// Left for the queue that was asked.
    pub free: Amount,
    /// Most that the queue that was asked could ever have: its quota with all that it may borrow.
    pub limit: Amount,
}

/// Queues, their quotas, and what is taken of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaTree {
    queues: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) parent: String,
    pub(super) children: BTreeSet<String>,
    pub(super) weight_milli: u32,
    /// Taken by the queue's own grants, per pool.
    own_use: BTreeMap<String, Resources>,
    /// Per pool and resource, for all that anything in the same tree is given of.
    pub(super) cells: BTreeMap<String, BTreeMap<String, Cell>>,
}

impl QuotaTree {
    /// A tree in which nothing is taken. The parents must be there and lead to a root. O(queues x depth x quotas).
    pub fn new<'a>(policy: impl IntoIterator<Item = &'a Queue>) -> QuotaTree {
        let policy: Vec<&Queue> = policy.into_iter().collect();
        let mut tree = QuotaTree::default();
        for queue in &policy {
            let entry =
                Entry { parent: queue.parent.clone(), weight_milli: queue.weight_milli, ..Entry::default() };
            tree.queues.insert(queue.name.clone(), entry);
        }
        let mut managed: BTreeMap<String, BTreeSet<(&str, &str)>> = BTreeMap::new();
        for queue in &policy {
            if let Some(parent) = tree.queues.get_mut(&queue.parent) {
                parent.children.insert(queue.name.clone());
            }
            let kinds = queue.quotas.iter().flat_map(|(pool, quotas)| {
                quotas.keys().map(move |resource| (pool.as_str(), resource.as_str()))
            });
            managed.entry(tree.root_of(&queue.name)).or_default().extend(kinds);
        }
        for queue in &policy {
            let kinds = managed.get(&tree.root_of(&queue.name)).into_iter().flatten();
            let Some(entry) = tree.queues.get_mut(&queue.name) else { continue };
            for &(pool, resource) in kinds {
                let quota = queue.quotas.get(pool).and_then(|quotas| quotas.get(resource));
                let cell = Cell { quota: quota.copied().unwrap_or_default(), ..Cell::default() };
                entry.cells.entry(pool.to_owned()).or_default().insert(resource.to_owned(), cell);
            }
        }
        tree.remake();
        tree
    }

    /// The same use under another policy. What queues that are gone had taken is dropped with them.
    pub fn with_policy<'a>(&self, policy: impl IntoIterator<Item = &'a Queue>) -> QuotaTree {
        let mut tree = QuotaTree::new(policy);
        for (name, old) in &self.queues {
            if let Some(new) = tree.queues.get_mut(name) {
                new.own_use.clone_from(&old.own_use);
            }
        }
        tree.remake();
        tree
    }

    /// True where there are no queues.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// True where there is such a queue.
    pub fn contains(&self, queue: &str) -> bool {
        self.queues.contains_key(queue)
    }

    /// What is given, taken and lent of one resource of one pool; `None` where nothing in the tree is given any.
    pub fn cell(&self, queue: &str, pool: &str, resource: &str) -> Option<&Cell> {
        self.queues.get(queue)?.cells.get(pool)?.get(resource)
    }

    /// Everything of which the queue's tree is given any: pool, resource, and where the queue stands.
    pub fn cells<'a>(&'a self, queue: &str) -> impl Iterator<Item = (&'a str, &'a str, &'a Cell)> {
        let pools = self.queues.get(queue).into_iter().flat_map(|entry| &entry.cells);
        pools.flat_map(|(pool, cells)| {
            cells.iter().map(move |(resource, cell)| (pool.as_str(), resource.as_str(), cell))
        })
    }

    /// What the queue's own grants take of a pool.
    pub fn own_use(&self, queue: &str, pool: &str) -> Option<&Resources> {
        self.queues.get(queue)?.own_use.get(pool)
    }

    /// What the queue could still take; `None` where its tree gives nothing of the resource, so that quota does not bind.
    /// Kueue's `available`. O(depth).
    pub fn available(&self, queue: &str, pool: &str, resource: &str) -> Option<Amount> {
        let cell = self.cell(queue, pool, resource)?;
        let parent = &self.queues.get(queue)?.parent;
        let Some(above) = self.available(parent, pool, resource) else {
            return Some(cell.subtree.saturating_sub(cell.usage));
        };
        let above = if mutant!("forget-a-level") { Amount(u64::MAX >> 1) } else { above };
        let own = cell.local().saturating_sub(cell.usage);
        Some(Amount(own.0.saturating_add(cell.reachable(above).0)))
    }

    /// What the queue could have if nobody took anything. O(depth).
    pub fn potential(&self, queue: &str, pool: &str, resource: &str) -> Option<Amount> {
        let cell = Cell { usage: Amount::ZERO, ..*self.cell(queue, pool, resource)? };
        let parent = &self.queues.get(queue)?.parent;
        let Some(above) = self.potential(parent, pool, resource) else { return Some(cell.subtree) };
        Some(Amount(cell.local().0.saturating_add(cell.reachable(above).0)))
    }

    /// All of which the queue has too little left for `asked` of a pool, in the order of `Resources::iter`. O(resources x depth).
    pub fn shortages(&self, queue: &str, pool: &str, asked: &Resources) -> Vec<Shortage> {
        let short = |(resource, asked): (&str, Amount)| {
            let free = self.available(queue, pool, resource)?;
            if asked <= free {
                return None;
            }
            let binding = self.binding(queue, pool, resource, asked);
            let limit = self.potential(queue, pool, resource).unwrap_or_default();
            Some(Shortage { queue: binding, resource: resource.to_owned(), asked, free, limit })
        };
        asked.iter().filter_map(short).collect()
    }

    /// Takes `amounts` of a pool for a grant of the queue, whether or not quota has room: admission was judged before.
    pub fn take(&mut self, queue: &str, pool: &str, amounts: &Resources) {
        let Some(entry) = self.queues.get_mut(queue).filter(|_| !amounts.is_zero()) else { return };
        let own = entry.own_use.entry(pool.to_owned()).or_default();
        // Grants were checked against capacity, so that a sum past 64 bits cannot be.
        let _fits = own.add_assign(amounts);
        for (resource, amount) in amounts.iter() {
            self.shift(queue, pool, resource, |usage| usage.checked_add(amount).unwrap_or(Amount(u64::MAX)));
        }
    }

    /// Gives back what [`QuotaTree::take`] took.
    pub fn give_back(&mut self, queue: &str, pool: &str, amounts: &Resources) {
        let Some(entry) = self.queues.get_mut(queue) else { return };
        if let Some(own) = entry.own_use.get_mut(pool) {
            own.saturating_sub_assign(amounts);
            if own.is_zero() {
                entry.own_use.remove(pool);
            }
        }
        for (resource, amount) in amounts.iter() {
            self.shift(queue, pool, resource, |usage| usage.saturating_sub(amount));
        }
    }

    /// A queue's weight among its siblings, in thousandths; `None` where there is no such queue.
    pub fn weight_milli(&self, queue: &str) -> Option<u32> {
        self.queues.get(queue).map(|entry| entry.weight_milli)
    }

    /// True where the queue takes more than it has of any of `asked`'s resources of the pool, once `asked` is added.
    pub fn would_borrow(&self, queue: &str, pool: &str, asked: &Resources) -> bool {
        asked.iter().any(|(resource, amount)| {
            self.cell(queue, pool, resource)
                .is_some_and(|cell| cell.usage.0.saturating_add(amount.0) > cell.subtree.0)
        })
    }

    /// True where both are of one tree, or neither names a queue.
    pub fn same_root(&self, one: &str, other: &str) -> bool {
        self.path(one).last() == self.path(other).last()
    }

    /// True where the first queue may have back what the second has borrowed: up to where their ways to the root meet, the first stays within
    /// its quota once it takes `asked`, while every queue on the second's way borrows some of the `contested` resources and does not fall below
    /// its own quota of any of them without `taken`. O(depth x resources).
    pub fn may_reclaim(
        &mut self,
        (owner, asked): (&str, &Resources),
        (borrower, taken): (&str, &Resources),
        pool: &str,
        contested: &BTreeSet<String>,
    ) -> bool {
        if owner == borrower || !self.contains(owner) || !self.contains(borrower) {
            return false;
        }
        let above_owner: BTreeSet<String> = self.path(owner).map(str::to_owned).collect();
        let up: Vec<String> =
            self.path(borrower).take_while(|name| !above_owner.contains(*name)).map(str::to_owned).collect();
        let above_borrower: BTreeSet<String> = self.path(borrower).map(str::to_owned).collect();
        let own: Vec<String> =
            self.path(owner).take_while(|name| !above_borrower.contains(*name)).map(str::to_owned).collect();
        // One above the other takes from its own family: what it may have there is a matter of quota, not of borrowing.
        let (Some(top), false) = (own.last(), up.is_empty()) else { return false };
        let names: Vec<&str> =
            taken.iter().map(|(name, _)| name).filter(|name| contested.contains(*name)).collect();
        let borrowed = |tree: &QuotaTree, queue: &str, name: &str| {
            tree.cell(queue, pool, name).is_some_and(|cell| cell.usage > cell.subtree)
        };
        let within = |tree: &QuotaTree, queue: &str, name: &str| {
            tree.cell(queue, pool, name).is_none_or(|cell| cell.usage >= cell.subtree)
        };
        let does_borrow = names.iter().any(|name| up.iter().all(|queue| borrowed(self, queue, name)));
        if !does_borrow {
            return false;
        }
        let crossed: Vec<(&String, &str)> = up
            .iter()
            .flat_map(|queue| names.iter().map(move |name| (queue, *name)))
            .filter(|(queue, name)| within(self, queue, name))
            .collect();
        self.give_back(borrower, pool, taken);
        let keeps = crossed.iter().all(|(queue, name)| within(self, queue, name));
        self.take(owner, pool, asked);
        let stays = asked
            .iter()
            .filter(|(name, _)| contested.contains(*name))
            .all(|(name, _)| self.cell(top, pool, name).is_none_or(|cell| cell.usage <= cell.subtree));
        self.give_back(owner, pool, asked);
        self.take(borrower, pool, taken);
        (keeps || mutant!("reclaim-own-quota")) && stays
    }

    /// The first queue on the way up, as far as what it takes reaches, that has more than its quota and what it may borrow allow: I4. `None` where
    /// all is well. What a queue keeps to itself it takes of nobody above, who may have been cut meanwhile.
    pub fn over(&self, queue: &str, pool: &str, resource: &str) -> Option<&str> {
        for name in self.path(queue) {
            let cell = self.cell(name, pool, resource)?;
            let root = self.queues.get(name).is_some_and(|entry| !self.queues.contains_key(&entry.parent));
            if if root { cell.usage > cell.subtree } else { cell.is_over_limit() } {
                return Some(name);
            }
            if cell.in_parent().is_zero() {
                return None;
            }
        }
        None
    }

    /// The queues right below another, or the roots below the empty name.
    pub fn below<'a>(&'a self, queue: &str) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        match self.queues.get(queue) {
            Some(entry) => Box::new(entry.children.iter().map(String::as_str)),
            None => Box::new(self.roots()),
        }
    }

    /// The queue and those above it, from below to the root.
    pub fn path<'a>(&'a self, queue: &str) -> impl Iterator<Item = &'a str> {
        let first = self.queues.get_key_value(queue);
        std::iter::successors(first, |(_, queue)| self.queues.get_key_value(&queue.parent))
            .map(|(name, _)| name.as_str())
    }

    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.queues.get(name)
    }

    /// The lowest queue on the way up whose own bound is what stops `asked`: its limit, or at the root what is there at all.
    fn binding(&self, queue: &str, pool: &str, resource: &str, asked: Amount) -> String {
        let mut need = asked;
        let mut last = queue;
        for name in self.path(queue) {
            let Some(cell) = self.cell(name, pool, resource) else { break };
            last = name;
            need = need.saturating_sub(cell.local().saturating_sub(cell.usage));
            if cell.reachable(need) < need {
                break;
            }
        }
        last.to_owned()
    }

    /// Changes a leaf's usage, and above it what goes beyond what each queue keeps to itself.
    fn shift(&mut self, queue: &str, pool: &str, resource: &str, change: impl Fn(Amount) -> Amount) {
        let mut name = queue.to_owned();
        let mut old_share = Amount::ZERO;
        let mut new_share = Amount::ZERO;
        let mut first = true;
        while let Some(entry) = self.queues.get_mut(&name) {
            let Some(cell) = entry.cells.get_mut(pool).and_then(|cells| cells.get_mut(resource)) else {
                return;
            };
            let before = cell.in_parent();
            cell.usage = if first {
                change(cell.usage)
            } else {
                Amount((cell.usage.0 - old_share.0).saturating_add(new_share.0))
            };
            (old_share, new_share, first) = (before, cell.in_parent(), false);
            if old_share == new_share {
                return;
            }
            name.clone_from(&entry.parent);
        }
    }

    fn root_of(&self, queue: &str) -> String {
        self.path(queue).last().unwrap_or(queue).to_owned()
    }

    fn roots(&self) -> impl Iterator<Item = &str> {
        let tops = self.queues.iter().filter(|(_, entry)| !self.queues.contains_key(&entry.parent));
        tops.map(|(name, _)| name.as_str())
    }

    /// Quotas of subtrees and use, from the leaves up.
    fn remake(&mut self) {
        let roots: Vec<String> = self.roots().map(str::to_owned).collect();
        for root in roots {
            self.remake_below(&root);
        }
    }

    fn remake_below(&mut self, name: &str) {
        let children: Vec<String> =
            self.queues.get(name).into_iter().flat_map(|queue| queue.children.iter().cloned()).collect();
        let mut from_below: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for child in &children {
            self.remake_below(child);
            let cells = self.queues.get(child).into_iter().flat_map(|queue| &queue.cells);
            for (pool, cells) in cells {
                for (resource, cell) in cells {
                    let sum = from_below.entry((pool.clone(), resource.clone())).or_default();
                    sum.0 = sum.0.saturating_add(cell.lendable().0);
                    sum.1 = sum.1.saturating_add(cell.in_parent().0);
                }
            }
        }
        let Some(queue) = self.queues.get_mut(name) else { return };
        for (pool, cells) in &mut queue.cells {
            for (resource, cell) in cells {
                let (lent, taken) =
                    from_below.get(&(pool.clone(), resource.clone())).copied().unwrap_or_default();
                let own = queue.own_use.get(pool).map(|own| own.get(resource)).unwrap_or_default();
                cell.subtree = Amount(cell.quota.nominal.0.saturating_add(lent));
                cell.usage = Amount(own.0.saturating_add(taken));
            }
        }
    }
}
