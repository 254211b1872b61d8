//! What each queue may expect of what is contested, as people are told it: quotas dealt out from the roots down, by [`entitlements`].
//!
//! A root has the quota of its tree to deal, an inner queue what it was dealt, to itself and to those below it: first to each its own quota as far as it wants it, then
//! the rest by weight among those who want more. It is a forecast of shares and promises nothing: sizes of requests, places and classes come on top.

use std::collections::BTreeMap;

use plimsoll_types::Resources;

use super::{Claim, entitlements, least};
use crate::Ledger;

/// Most waiting requests of one queue and pool that are looked at: who wants as much as that wants more than there is.
const MOST_WAITING: usize = 1_000;
/// Weight of an inner queue's own requests beside the queues below it, in thousandths.
const OWN_WEIGHT_MILLI: u32 = 1_000;

/// Per queue, pool and resource.
pub type Expectations = BTreeMap<(String, String, String), u64>;

/// One resource of one pool in one tree.
struct Deal<'a> {
    ledger: &'a Ledger,
    pool: &'a str,
    resource: &'a str,
    /// What each queue itself holds and waits for.
    own: &'a BTreeMap<(String, String), Resources>,
    /// The same with what those below it want, as far as they may have it.
    wanted: BTreeMap<String, u64>,
}

impl Ledger {
    /// What each queue may expect, with all that hold and wait now, of everything that its tree is given. O(queues x depth x quotas), and a thousand requests of each
    /// queue.
    pub fn expectations(&self) -> Expectations {
        let own = self.own_demands();
        let mut all = Expectations::new();
        for root in self.quota().below("") {
            for (pool, resource, cell) in self.quota().cells(root) {
                let mut deal = Deal { ledger: self, pool, resource, own: &own, wanted: BTreeMap::new() };
                let wanted = deal.want(root);
                deal.deal(root, wanted.min(cell.subtree.0), &mut all);
            }
        }
        all
    }

    fn own_demands(&self) -> BTreeMap<(String, String), Resources> {
        let mut demands: BTreeMap<(String, String), Resources> = BTreeMap::new();
        for queue in self.queues() {
            for pool in self.pools() {
                let held = self.quota().own_use(&queue.name, &pool.name);
                let waiting = self.pending_in(&queue.name, &pool.name).take(MOST_WAITING);
                let asked = waiting.filter_map(|id| self.reservation(id)).map(|one| least(&one.request));
                let mut demand = held.cloned().unwrap_or_default();
                for asked in asked {
                    // Past 64 bits it is more than there is anyway.
                    let _fits = demand.add_assign(&asked);
                }
                if !demand.is_zero() {
                    demands.insert((queue.name.clone(), pool.name.clone()), demand);
                }
            }
        }
        demands
    }
}

impl Deal<'_> {
    fn own_demand(&self, queue: &str) -> u64 {
        let own = self.own.get(&(queue.to_owned(), self.pool.to_owned()));
        own.map_or(0, |own| own.get(self.resource).0)
    }

    /// What a queue and those below it want, no more than each could ever have.
    fn want(&mut self, queue: &str) -> u64 {
        let tree = self.ledger.quota();
        let below: Vec<String> = tree.below(queue).map(str::to_owned).collect();
        let below: u64 = below.iter().fold(0, |sum, child| sum.saturating_add(self.want(child)));
        let most = tree.potential(queue, self.pool, self.resource).map_or(u64::MAX, |most| most.0);
        let wanted = self.own_demand(queue).saturating_add(below).min(most);
        self.wanted.insert(queue.to_owned(), wanted);
        wanted
    }

    /// Deals out what a queue was dealt.
    fn deal(&self, queue: &str, dealt: u64, all: &mut Expectations) {
        let tree = self.ledger.quota();
        all.insert((queue.to_owned(), self.pool.to_owned(), self.resource.to_owned()), dealt);
        let below: Vec<&str> = tree.below(queue).collect();
        let claim = |child: &&str| Claim {
            nominal: tree.cell(child, self.pool, self.resource).map_or(0, |cell| cell.subtree.0),
            demand: self.wanted.get(*child).copied().unwrap_or_default(),
            weight: tree.weight_milli(child).unwrap_or_default(),
        };
        let own = Claim {
            nominal: tree.cell(queue, self.pool, self.resource).map_or(0, |cell| cell.quota.nominal.0),
            demand: self.own_demand(queue),
            weight: OWN_WEIGHT_MILLI,
        };
        let claims: Vec<Claim> = below.iter().map(claim).chain([own]).collect();
        for (child, dealt) in below.iter().zip(entitlements(dealt, &claims)) {
            self.deal(child, dealt, all);
        }
    }
}
