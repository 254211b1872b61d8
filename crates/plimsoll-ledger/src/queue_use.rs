//! What queues used over time, for pools whose `fairness` is `fair_tree`: use that counts half after each half-life.
//!
//! Invariants: such a pool has a row for each queue whose own grants take something of it, or took something since it is such a pool; no other
//! pool has any. A row is brought up to ledger time just before what its queue takes changes, so that nothing is written in between, and
//! [`Ledger::average_use`] adds the rest. Inner queues have no rows: theirs is the sum of those below.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{Amount, LedgerTime, ResourceName, Resources};

use crate::limits::{MAX_TTL_MS, MIN_HALF_LIFE_MS};
use crate::quota::{DecayedUse, LN2_PPB};
use crate::{Blocker, Fairness, Ledger, PolicyObject, Pool, RowPlace};

/// First ledger version that knows use over time.
pub(crate) const SINCE_VERSION: u32 = 13;
/// Where a pool says none: a week, as Slurm's PriorityDecayHalfLife.
pub const USUAL_HALF_LIFE_MS: u64 = 7 * 86_400_000;

/// What a queue's own grants used of a pool, as of a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueUse {
    /// The queue.
    pub queue: String,
    /// Of which pool.
    pub pool: String,
    /// Amount x milliseconds by resource, faded as of `stamp`; nothing of what is 0.
    pub spent: BTreeMap<ResourceName, u128>,
    /// When it was brought up to.
    pub stamp: LedgerTime,
}

impl QueueUse {
    /// What there was until `now`, with `held` taken since the stamp. O(resources).
    fn advance(&mut self, now: LedgerTime, held: &Resources, half_life_ms: u64) {
        let held_ms = now.ms_since(self.stamp);
        if held_ms == 0 {
            return;
        }
        for (resource, _) in held.iter() {
            self.spent.entry(resource.to_owned()).or_default();
        }
        for (resource, spent) in &mut self.spent {
            let mut faded = DecayedUse { value: *spent, stamp: self.stamp };
            faded.charge(now, held.get(resource).0, held_ms, half_life_ms);
            *spent = faded.value;
        }
        self.spent.retain(|_, spent| *spent > 0);
        self.stamp = now;
    }

    /// The mean of what was held, each moment counting half after a half-life: for something held for ever just that.
    fn average(&self, half_life_ms: u64) -> Resources {
        let mut average = Resources::default();
        for (resource, spent) in &self.spent {
            // Divided in between, and not to whole units: the product of all need not fit.
            let halves_milli = spent.saturating_mul(1_000) / u128::from(half_life_ms.max(1));
            let mean = halves_milli * LN2_PPB / 1_000_000_000_000;
            average.set(resource, Amount(u64::try_from(mean).unwrap_or(u64::MAX)));
        }
        average
    }
}

impl Pool {
    /// How long it takes until use counts half; `None` where use over time is not counted.
    pub fn fades_in_ms(&self) -> Option<u64> {
        let half_life_ms = if self.half_life_ms == 0 { USUAL_HALF_LIFE_MS } else { self.half_life_ms };
        (self.fairness == Fairness::FairTree || self.weighs_past_use()).then_some(half_life_ms)
    }
}

impl Ledger {
    /// What the queue's own grants used of a pool on average, as of ledger time, each moment counting half after a half-life. Nothing where the pool does not
    /// count it. O(resources).
    pub fn average_use(&self, queue: &str, pool: &str) -> Resources {
        let half_life_ms = self.pools.get(pool).and_then(|pool| pool.fades_in_ms());
        let row = self.queue_uses.get(&(queue.to_owned(), pool.to_owned()));
        let (Some(half_life_ms), Some(row)) = (half_life_ms, row) else { return Resources::default() };
        let mut row = QueueUse::clone(row);
        row.advance(self.clock(), &self.own_use(queue, pool), half_life_ms);
        row.average(half_life_ms)
    }

    /// Counts what a queue has held of a pool up to now, before that changes.
    pub(crate) fn count_use(&mut self, queue: &str, pool: &str) {
        let Some(half_life_ms) = self.pools.get(pool).and_then(|pool| pool.fades_in_ms()) else { return };
        if queue.is_empty() || mutant!("forget-past-use") {
            return;
        }
        let (now, held) = (self.clock(), self.own_use(queue, pool));
        let key = (queue.to_owned(), pool.to_owned());
        self.touched.row(RowPlace::QueueUse(queue.to_owned(), pool.to_owned()));
        let row = self.queue_uses.entry(key).or_insert_with(|| Arc::new(begun(queue, pool, now)));
        Arc::make_mut(row).advance(now, &held, half_life_ms);
    }

    /// The pools that count use over time, with their half-lives.
    pub(crate) fn fair_trees(&self) -> BTreeMap<String, u64> {
        let all = self.pools.values();
        all.filter_map(|pool| Some((pool.name.clone(), pool.fades_in_ms()?))).collect()
    }

    /// After a change of policy: pools that begin to count begin from now, those that end forget, and what faded at another pace until now keeps what it is.
    /// O(rows + queues) where any of that changed.
    pub(crate) fn follow_fair_trees(&mut self, before: &BTreeMap<String, u64>) {
        let after = self.fair_trees();
        let now = self.clock();
        let keys: Vec<(String, String)> = self.queue_uses.keys().cloned().collect();
        for (queue, pool) in keys {
            let kept = self.queues.contains_key(&queue) && after.contains_key(&pool);
            if kept && before.get(&pool) == after.get(&pool) {
                continue;
            }
            self.touched.row(RowPlace::QueueUse(queue.clone(), pool.clone()));
            let held = self.own_use(&queue, &pool);
            let key = (queue, pool);
            match (before.get(&key.1), self.queue_uses.get_mut(&key)) {
                (Some(half_life_ms), Some(row)) if kept => {
                    Arc::make_mut(row).advance(now, &held, *half_life_ms);
                }
                _ => drop(self.queue_uses.remove(&key)),
            }
        }
        let new: Vec<&String> = after.keys().filter(|pool| !before.contains_key(*pool)).collect();
        for pool in new {
            let holding = self.queues.keys().filter(|queue| self.quota.own_use(queue, pool).is_some());
            for queue in holding.cloned().collect::<Vec<_>>() {
                self.count_use(&queue, pool);
            }
        }
    }

    pub(crate) fn put_queue_use(&mut self, row: Arc<QueueUse>) {
        self.queue_uses.insert((row.queue.clone(), row.pool.clone()), row);
    }

    pub(crate) fn check_fair_trees(&self, put: &[PolicyObject], blockers: &mut Vec<Blocker>) {
        if put.iter().any(is_of_fair_trees) {
            self.knows(SINCE_VERSION, "use over time", blockers);
        }
    }

    fn own_use(&self, queue: &str, pool: &str) -> Resources {
        self.quota.own_use(queue, pool).cloned().unwrap_or_default()
    }
}

fn begun(queue: &str, pool: &str, now: LedgerTime) -> QueueUse {
    QueueUse { queue: queue.to_owned(), pool: pool.to_owned(), spent: BTreeMap::new(), stamp: now }
}

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn is_of_fair_trees(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::Pool(pool) if pool.fairness == Fairness::FairTree || pool.half_life_ms > 0)
}

/// Field, value, least and most of a pool's half-life.
pub(crate) fn pool_bounds(pool: &Pool) -> Option<(&'static str, u64, u64, u64)> {
    (pool.half_life_ms > 0).then_some(("pool.half_life_ms", pool.half_life_ms, MIN_HALF_LIFE_MS, MAX_TTL_MS))
}
