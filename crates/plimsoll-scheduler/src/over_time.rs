//! Share over time: which queue used least of a pool, each moment counting half after the pool's half-life, by its weight.
//!
//! `use(c) = max over resources of [ (2^(-1/8) x average + (1 - 2^(-1/8)) x (held + next)) / what the pool has ] / weight(c)`
//! What is held, and what the next request takes, counts as if it had been held for an eighth of a half-life already: without that a
//! queue that used nothing so far would be given everything at once (Kueue's entry penalty). The order between siblings is that of Slurm's Fair Tree,
//! level fairness S / U: use by weight is its inverse, but for a factor that siblings share.
//!
//! Invariant: `held` is, for each queue, what it and those below it held of the tree that was followed last.

use std::collections::BTreeMap;

use plimsoll_ledger::{Ledger, QuotaTree, Request, Share, least};
use plimsoll_types::Resources;

/// `2^(-1/8)`, in thousandths: what is left of the past after an eighth of a half-life.
pub(crate) const PAST_MILLI: u128 = 917;
/// A share is in billionths.
pub(crate) const WHOLE: u128 = 1_000_000_000;

/// Uses of one pool's queues, for one walk.
pub(crate) struct OverTime {
    pool: String,
    /// What the nodes of the pool have.
    total: BTreeMap<String, u128>,
    /// Per queue, of it and those below it.
    average: BTreeMap<String, Sums>,
    held: BTreeMap<String, Sums>,
    /// What the queue's own grants held when it was followed last.
    own: BTreeMap<String, Resources>,
}

type Sums = BTreeMap<String, u128>;

impl OverTime {
    /// As of the ledger's time, with what `tree` says is held. O(nodes + queues x depth x resources).
    pub(crate) fn new(ledger: &Ledger, tree: &QuotaTree, pool: &str) -> OverTime {
        let mut total = Sums::new();
        for node in ledger.nodes().filter(|node| node.pool == pool) {
            add(&mut total, &node.registration.capacity);
            *total.entry("gpu".to_owned()).or_default() += node.registration.devices.len() as u128 * 1_000;
        }
        let empty = BTreeMap::new;
        let mut uses =
            OverTime { pool: pool.to_owned(), total, average: empty(), held: empty(), own: BTreeMap::new() };
        for queue in ledger.queues() {
            let average = ledger.average_use(&queue.name, pool);
            for above in tree.path(&queue.name) {
                add(uses.average.entry(above.to_owned()).or_default(), &average);
            }
            uses.follow(tree, &queue.name);
        }
        uses
    }

    /// A queue's own grants may have changed. O(depth x resources).
    pub(crate) fn follow(&mut self, tree: &QuotaTree, queue: &str) {
        let now = tree.own_use(queue, &self.pool).cloned().unwrap_or_default();
        let before = self.own.get(queue).cloned().unwrap_or_default();
        if now == before {
            return;
        }
        for above in tree.path(queue) {
            let held = self.held.entry(above.to_owned()).or_default();
            for (resource, amount) in before.iter() {
                let sum = held.entry(resource.to_owned()).or_default();
                *sum = sum.saturating_sub(amount.0.into());
            }
            add(held, &now);
        }
        self.own.insert(queue.to_owned(), now);
    }

    /// The share that a queue, or one above it, would have with `next` granted: nothing while it stays within its own quota. O(depth x resources).
    pub(crate) fn share_with(&self, tree: &mut QuotaTree, queue: &str, next: &Request) -> Share {
        let Some(weight_milli) = tree.weight_milli(queue) else { return Share::default() };
        let taken = least(next);
        if self.is_its_own(tree, queue, next, &taken) {
            return Share::default();
        }
        let none = Sums::new();
        let average = self.average.get(queue).unwrap_or(&none);
        let mut held = self.held.get(queue).cloned().unwrap_or_default();
        add(&mut held, &taken);
        let of = |sums: &Sums, resource: &str| sums.get(resource).copied().unwrap_or_default();
        let part = |resource: &String| {
            let used = of(average, resource) * PAST_MILLI + of(&held, resource) * (1_000 - PAST_MILLI);
            match of(&self.total, resource) {
                0 => 0,
                total => used.saturating_mul(WHOLE / 1_000) / total,
            }
        };
        let largest = average.keys().chain(held.keys()).map(part).max().unwrap_or_default();
        match u128::from(weight_milli) {
            0 if largest > 0 => Share(u128::MAX),
            weight => Share(largest.saturating_mul(1_000) / weight.max(1)),
        }
    }

    /// True where all of `taken` is of the queue's own quota: that is never less for what was used before (KAI).
    fn is_its_own(&self, tree: &mut QuotaTree, queue: &str, next: &Request, taken: &Resources) -> bool {
        tree.take(&next.queue, &next.pool, taken);
        let mut kinds = taken.iter().filter(|(_, amount)| amount.0 > 0);
        let within = kinds.all(|(resource, _)| {
            tree.cell(queue, &self.pool, resource).is_some_and(|cell| cell.usage <= cell.subtree)
        });
        tree.give_back(&next.queue, &next.pool, taken);
        within && !taken.is_zero()
    }
}

/// Adds amounts up.
pub(crate) fn add(sums: &mut Sums, amounts: &Resources) {
    for (resource, amount) in amounts.iter() {
        *sums.entry(resource.to_owned()).or_default() += u128::from(amount.0);
    }
}
