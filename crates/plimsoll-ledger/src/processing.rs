//! How the requests of a queue are processed: in batches, or with a promise that each is; and what a grant of a class counts for
//! (`docs/semantics.md` 5.17 to 5.19).
//!
//! Invariants: in each interval a queue with batches is granted at most `size` requests, all of them submitted before the interval began; what is
//! granted in a queue of guaranteed processing ends by its holder, its lease or its duration, never because others or a node took its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, Resources};

use crate::limits::{
    MAX_BATCH, MAX_BATCH_INTERVAL_MS, MAX_ITEMS, MAX_MULTIPLIER_MILLI, MAX_TTL_MS, MIN_TTL_MS,
};
use crate::{
    Blocker, Class, Ledger, OnPreempt, PolicyName, PolicyObject, Pool, PreemptionRule, Queue, Reason,
    Request, Reservation, Wait, date_of,
};

/// First ledger version that knows batches, guaranteed processing, intervals of rebalancing, and multipliers and guarantees of classes.
pub(crate) const SINCE_VERSION: u32 = 9;

/// A queue's requests are decided together, so many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Batch {
    /// Most grants in one interval; 1 to [`MAX_BATCH`].
    pub size: u32,
    /// Length of the intervals, which follow each other from 1970 on, in milliseconds; up to [`MAX_BATCH_INTERVAL_MS`].
    pub interval_ms: u64,
}

impl Batch {
    /// When the interval began that `at` is in.
    pub fn begun_at(self, at: LedgerTime) -> LedgerTime {
        interval_begun(self.interval_ms, at)
    }

    /// When the next interval begins.
    pub fn next_after(self, at: LedgerTime) -> LedgerTime {
        self.begun_at(at).plus_ms(self.interval_ms)
    }
}

/// When the interval began that `at` is in, where intervals of this length follow each other from 1970 on.
fn interval_begun(interval_ms: u64, at: LedgerTime) -> LedgerTime {
    LedgerTime(at.0 - at.0 % interval_ms.max(1))
}

impl Pool {
    /// From when on somebody who was submitted at `submitted_at` may take back what others borrowed: at once, or from the next interval on.
    pub fn reclaims_from(&self, submitted_at: LedgerTime) -> LedgerTime {
        match self.rebalance_interval_ms {
            0 => submitted_at,
            interval_ms => interval_begun(interval_ms, submitted_at).plus_ms(interval_ms),
        }
    }
}

impl Class {
    /// What a grant of the class counts for in hours and cost, in thousandths of what it has.
    pub fn counts_milli(&self) -> u32 {
        self.multiplier_milli.unwrap_or(1_000)
    }
}

impl Ledger {
    /// What keeps a request of a queue that decides in batches from being granted now, beside `booked` grants of the queue on their way. `None`
    /// where the queue has none, and for advance reservations, which have a time of their own. O(log intervals).
    pub fn batch_blocker(&self, request: &Request, submitted_at: LedgerTime, booked: u64) -> Option<Blocker> {
        let batch = self.batch_of(&request.queue).filter(|_| request.start_at_ms == 0)?;
        let now = self.clock();
        let begun = batch.begun_at(now);
        let size = u64::from(batch.size);
        let granted = self.batched.get(&request.queue).and_then(|intervals| intervals.get(&begun));
        let left = size.saturating_sub(granted.copied().unwrap_or(0)).saturating_sub(booked);
        let came_before = submitted_at < begun;
        if came_before && left > 0 {
            return None;
        }
        let available = if came_before { left } else { 0 };
        let subject =
            format!("queue {}: the next batch begins {}", request.queue, told(batch.next_after(now)));
        Some(Blocker { limit: size, ..Blocker::new(Reason::AwaitsBatch, subject, 1, available) })
    }

    /// When somebody of a queue that decides in batches may start who may not now: at the next batch. `None` where nobody waits in such a
    /// queue. O(queues with batches).
    pub fn next_batch_at(&self) -> Option<LedgerTime> {
        let waits = |queue: &&String| self.pending_of_queue(queue) > 0;
        let queues = self.batched.keys().filter(waits);
        queues.filter_map(|queue| self.batch_of(queue)).map(|batch| batch.next_after(self.clock())).min()
    }

    /// True where a queue decides in batches.
    pub fn has_batches(&self) -> bool {
        !self.batched.is_empty()
    }

    /// The batches of a queue.
    pub fn batch_of(&self, queue: &str) -> Option<Batch> {
        self.queue(queue).and_then(|queue| queue.batch)
    }

    /// True where what is granted in the queue goes back to it when it is interrupted.
    pub fn is_processed_for_sure(&self, queue: &str) -> bool {
        self.queue(queue).is_some_and(|queue| queue.guaranteed_processing)
    }

    /// True where a grant that is interrupted, by whatever, has to be processed all the same.
    pub(crate) fn is_promised(&self, granted: &Reservation) -> bool {
        let waits = matches!(granted.request.wait, Wait::Queue { .. });
        waits && self.is_processed_for_sure(&granted.request.queue) && !mutant!("break-the-promise")
    }

    /// True where a grant that is taken back waits again in its old place, and does not end.
    pub(crate) fn waits_again(&self, granted: &Reservation) -> bool {
        if granted.preempted().is_some_and(|known| known.rule == PreemptionRule::Interruption) {
            return self.waits_after_interruption(granted);
        }
        let request = &granted.request;
        let asks_to = matches!(request.wait, Wait::Queue { .. }) && request.on_preempt == OnPreempt::Requeue;
        asks_to || self.is_promised(granted)
    }

    /// Keeps the grants of queues with batches: counts this one in its interval, or takes it out.
    pub(crate) fn count_in_batch(&mut self, reservation: &Reservation, is_there: bool) {
        let queue = &reservation.request.queue;
        let Some(batch) = self.batch_of(queue).filter(|_| reservation.granted_at.0 > 0) else { return };
        let Some(intervals) = self.batched.get_mut(queue) else { return };
        let begun = batch.begun_at(reservation.granted_at);
        let granted = intervals.entry(begun).or_default();
        if is_there {
            *granted += 1;
            return;
        }
        *granted = granted.saturating_sub(1);
        if *granted == 0 {
            intervals.remove(&begun);
        }
    }

    /// The same from nothing: queues were put or deleted, or all rows are there. O(reservations) where a queue has batches.
    pub(crate) fn recount_batches(&mut self) {
        let with_batches = self.queues.values().filter(|queue| queue.batch.is_some());
        self.batched = with_batches.map(|queue| (queue.name.clone(), BTreeMap::new())).collect();
        if self.batched.is_empty() {
            return;
        }
        let of_batches = |one: &&Arc<Reservation>| self.batched.contains_key(&one.request.queue);
        let all: Vec<Arc<Reservation>> = self.reservations.values().filter(of_batches).cloned().collect();
        for reservation in &all {
            self.count_in_batch(reservation, true);
        }
    }

    /// What is wrong with the processing that is put.
    pub(crate) fn check_processing(
        &self,
        put: &[PolicyObject],
        delete: &[PolicyName],
        blockers: &mut Vec<Blocker>,
    ) {
        let what = "batches, guaranteed processing, multipliers and guarantees of classes";
        if put.iter().any(is_of_processing) && !self.knows(SINCE_VERSION, what, blockers) {
            return;
        }
        let pools = self.pools_after(put, delete);
        let mut classes: BTreeMap<&str, &Class> =
            self.classes.values().map(|class| (class.name.as_str(), class.as_ref())).collect();
        classes.extend(put.iter().filter_map(|object| match object {
            PolicyObject::Class(class) => Some((class.name.as_str(), class)),
            _ => None,
        }));
        classes.retain(|name, _| {
            !delete.iter().any(|gone| matches!(gone, PolicyName::Class(gone) if gone == name))
        });
        for (class, pool) in
            classes.values().flat_map(|class| class.guaranteed.keys().map(move |pool| (class, pool)))
        {
            if !pools.contains(pool.as_str()) {
                let deleted = self.pools.contains_key(pool);
                let reason = if deleted { Reason::InUse } else { Reason::PoolNotFound };
                let subject = format!("pool {pool}, of which class {} is guaranteed something", class.name);
                blockers.push(Blocker::new(reason, subject, 1, 0));
            }
        }
    }
}

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn is_of_processing(object: &PolicyObject) -> bool {
    match object {
        PolicyObject::Queue(queue) => queue.batch.is_some() || queue.guaranteed_processing,
        PolicyObject::Class(class) => class.multiplier_milli.is_some() || !class.guaranteed.is_empty(),
        PolicyObject::Pool(pool) => pool.rebalance_interval_ms > 0,
        PolicyObject::Schedule(schedule) => !schedule.users.classes.is_empty(),
        PolicyObject::NodeLimits(_)
        | PolicyObject::Quota(_)
        | PolicyObject::Service(_)
        | PolicyObject::ScalingPolicy(_)
        | PolicyObject::Validator(_) => false,
    }
}

/// Field, value, least and most of what a queue says of its processing.
pub(crate) fn queue_bounds(queue: &Queue) -> Vec<(&'static str, u64, u64, u64)> {
    let Some(batch) = queue.batch else { return Vec::new() };
    vec![
        ("queue.batch.size", batch.size.into(), 1, MAX_BATCH.into()),
        ("queue.batch.interval_ms", batch.interval_ms, MIN_TTL_MS, MAX_BATCH_INTERVAL_MS),
    ]
}

/// The same of a class.
pub(crate) fn class_bounds(class: &Class) -> Vec<(&'static str, u64, u64, u64)> {
    let kinds = |kept: &Resources| kept.iter().count() as u64;
    let mut bounds = vec![
        ("class.multiplier_milli", class.counts_milli().into(), 0, MAX_MULTIPLIER_MILLI.into()),
        ("class.guaranteed", class.guaranteed.len() as u64, 0, MAX_ITEMS as u64),
    ];
    bounds
        .extend(class.guaranteed.values().map(|kept| ("class.guaranteed", kinds(kept), 1, MAX_ITEMS as u64)));
    bounds
}

/// The same of a pool.
pub(crate) fn pool_bounds(pool: &Pool) -> Vec<(&'static str, u64, u64, u64)> {
    match pool.rebalance_interval_ms {
        0 => Vec::new(),
        interval_ms => vec![("pool.rebalance_interval_ms", interval_ms, MIN_TTL_MS, MAX_TTL_MS)],
    }
}

/// `2026-11-22 16:05:00 UTC`.
pub(crate) fn told(at: LedgerTime) -> String {
    let second = at.0 / 1_000 % 86_400;
    format!("{} {:02}:{:02}:{:02} UTC", date_of(at), second / 3_600, second / 60 % 60, second % 60)
}

/// Queues with batches: how many of their grants, as far as they are still known, were made in which interval, by its beginning.
pub(crate) type Batched = BTreeMap<String, BTreeMap<LedgerTime, u64>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_follow_each_other_from_1970_on() {
        let batch = Batch { size: 1, interval_ms: 60_000 };
        let at = |ms| (batch.begun_at(LedgerTime(ms)).0, batch.next_after(LedgerTime(ms)).0);
        assert_eq!(at(59_999), (0, 60_000));
        assert_eq!(at(60_000), (60_000, 120_000));
        assert_eq!(told(LedgerTime(86_400_000 + 3_661_000)), "1970-01-02 01:01:01 UTC");
    }

    #[test]
    fn who_came_in_an_interval_takes_back_from_the_next_on() {
        let pool = Pool { rebalance_interval_ms: 30_000, ..Pool::default() };
        assert_eq!(pool.reclaims_from(LedgerTime(30_000)), LedgerTime(60_000));
        assert_eq!(pool.reclaims_from(LedgerTime(29_999)), LedgerTime(30_000));
        assert_eq!(Pool::default().reclaims_from(LedgerTime(5)), LedgerTime(5));
    }
}
