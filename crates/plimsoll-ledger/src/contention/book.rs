//! Contentions that the ledger has, with their indexes, and the writers of their rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_types::{LedgerTime, Revision};

use super::{Contention, Resolve};
use crate::{Fairness, Ledger, Pool, Preemption, RowPlace};

/// All contentions: open ones, and those that ended and are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contentions {
    rows: BTreeMap<Revision, Arc<Contention>>,
    /// By pool and resource.
    open: BTreeMap<(String, String), Revision>,
    ended: BTreeSet<(LedgerTime, Revision)>,
}

impl Contentions {
    fn put(&mut self, new: Arc<Contention>) {
        self.remove(new.id);
        if new.is_open() {
            self.open.insert((new.pool.clone(), new.resource.clone()), new.id);
        } else {
            self.ended.insert((new.ended_at, new.id));
        }
        self.rows.insert(new.id, new);
    }

    fn remove(&mut self, id: Revision) {
        let Some(old) = self.rows.remove(&id) else { return };
        if old.is_open() {
            self.open.remove(&(old.pool.clone(), old.resource.clone()));
        } else {
            self.ended.remove(&(old.ended_at, id));
        }
    }

    pub(crate) fn get(&self, id: Revision) -> Option<&Arc<Contention>> {
        self.rows.get(&id)
    }

    pub(crate) fn rows(&self) -> impl DoubleEndedIterator<Item = &Arc<Contention>> {
        self.rows.values()
    }

    /// The one that ended first.
    pub(crate) fn first_ended(&self) -> Option<(LedgerTime, Revision)> {
        self.ended.first().copied()
    }

    pub(crate) fn ended_len(&self) -> usize {
        self.ended.len()
    }

    pub(crate) fn open_len(&self) -> usize {
        self.open.len()
    }

    fn open_of<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Arc<Contention>> {
        let from = (pool.to_owned(), String::new())..;
        let of = self.open.range(from).take_while(move |((of, _), _)| of == pool);
        of.filter_map(|(_, id)| self.rows.get(id))
    }
}

impl Ledger {
    /// A contention by its number, ended ones included until they are forgotten.
    pub fn contention(&self, id: Revision) -> Option<&Arc<Contention>> {
        self.contentions.get(id)
    }

    /// All contentions, in the order in which they opened.
    pub fn contentions(&self) -> impl DoubleEndedIterator<Item = &Arc<Contention>> {
        self.contentions.rows()
    }

    /// Open contentions of a pool, by resource.
    pub fn contentions_of<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Arc<Contention>> {
        self.contentions.open_of(pool)
    }

    /// The open contention of a resource of a pool.
    pub fn open_contention(&self, pool: &str, resource: &str) -> Option<&Arc<Contention>> {
        let id = self.contentions.open.get(&(pool.to_owned(), resource.to_owned()))?;
        self.contentions.get(*id)
    }

    /// Pools with an open contention.
    pub(crate) fn contended_now(&self) -> impl Iterator<Item = &str> {
        self.contentions.open.keys().map(|(pool, _)| pool.as_str())
    }

    /// True while this is being done about a contention of the pool, and its policy still says so. O(resources of the pool in contention).
    pub fn resolves_by(&self, pool: &Pool, kind: Resolve) -> bool {
        let says = pool.contention.as_ref().is_some_and(|policy| policy.resolve.contains(&kind));
        says && self.contentions_of(&pool.name).any(|one| one.resolving.contains(&kind))
    }

    /// What may be taken back in a pool now: what it says, but nothing outside of a contention where it preempts to resolve one.
    pub fn preemption_of(&self, pool: &Pool) -> Preemption {
        let only_then = pool.contention.as_ref().is_some_and(|one| one.resolve.contains(&Resolve::Preempt));
        if only_then && !self.resolves_by(pool, Resolve::Preempt) {
            Preemption::Never
        } else {
            pool.preemption
        }
    }

    /// Which queue's turn it is in a pool now: what it says, unless a contention is resolved by priority.
    pub fn fairness_of(&self, pool: &Pool) -> Fairness {
        if self.resolves_by(pool, Resolve::Priority) { Fairness::Priority } else { pool.fairness }
    }

    pub(crate) fn put_contention(&mut self, contention: Arc<Contention>) {
        self.touched.row(RowPlace::Contention(contention.id));
        self.contentions.put(contention);
    }

    pub(crate) fn remove_contention(&mut self, id: Revision) {
        self.touched.row(RowPlace::Contention(id));
        self.contentions.remove(id);
    }
}
