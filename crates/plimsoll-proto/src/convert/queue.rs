//! Queues and their quotas.

use std::collections::BTreeMap;

use plimsoll_ledger::limits::{
    MAX_BATCH, MAX_BATCH_INTERVAL_MS, MAX_ITEMS, MAX_PATTERN_BYTES, MAX_WEIGHT_MILLI, MIN_TTL_MS,
};
use plimsoll_ledger::{Batch, Expectations, Ledger, Overflow, Queue, Quota, Share};
use plimsoll_types::{Amount, Revision};

use super::Violation;
use super::check::Check;
use super::spot::{spot, spot_to_v1};
use crate::v1;

/// Weight of a queue that names none, in thousandths.
const USUAL_WEIGHT_MILLI: u32 = 1_000;

/// A queue from its message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn queue_from_v1(from: &v1::Queue) -> Result<Queue, Vec<Violation>> {
    let mut check = Check::new();
    let queue = queue(&mut check, from);
    check.finish(queue)
}

/// A queue as a message.
pub fn queue_to_v1(from: &Queue) -> v1::Queue {
    let quota = |(resource, quota): (&String, &Quota)| {
        let quota = v1::Quota {
            guaranteed: quota.guaranteed.0,
            nominal: quota.nominal.0,
            limit: quota.limit.map(|limit| limit.0),
        };
        (resource.clone(), quota)
    };
    let pools = from.quotas.iter().map(|(pool, quotas)| v1::PoolQuotas {
        pool: pool.clone(),
        resources: quotas.iter().map(quota).collect(),
    });
    v1::Queue {
        name: from.name.clone(),
        labels: from.labels.clone(),
        parent: from.parent.clone(),
        weight_milli: Some(from.weight_milli),
        quotas: pools.collect(),
        max_pending: from.max_pending,
        admins: from.admins.clone(),
        batch: from.batch.map(|batch| v1::Batch { size: batch.size, interval_ms: batch.interval_ms }),
        guaranteed_processing: from.guaranteed_processing,
        spot: from.spot.as_ref().map(spot_to_v1),
        overflow: overflow_to_v1(from.overflow).into(),
        revision: from.changed.0,
    }
}

/// What a queue looks like now. O(pools x resources x depth).
pub fn queue_status(from: &Queue, ledger: &Ledger, expected: &Expectations) -> v1::QueueStatus {
    let (tree, aside) = (ledger.quota(), ledger.overflow_of(&from.name));
    let Share(share) = tree.share(&from.name, &ledger.prices_milli(), true);
    let quotas = tree.cells(&from.name).map(|(pool, resource, cell)| v1::QuotaStatus {
        pool: pool.to_owned(),
        resource: resource.to_owned(),
        quota: cell.subtree.0,
        used: cell.usage.0,
        borrowed: cell.borrowed().0,
        available: tree.available(&from.name, pool, resource).map_or(0, |left| left.0),
        expected: expected
            .get(&(from.name.clone(), pool.to_owned(), resource.to_owned()))
            .copied()
            .unwrap_or_default(),
    });
    v1::QueueStatus {
        pending: ledger.pending_of_queue(&from.name) as u64,
        quotas: quotas.collect(),
        share_ppm: u64::try_from(share / 1_000).unwrap_or(u64::MAX),
        spilled: aside.spilled,
        compressed: aside.compressed,
        spilled_bytes: aside.spilled_bytes,
        compressed_bytes: aside.compressed_bytes,
        over_time: over_time(&from.name, ledger),
    }
}

/// Of the queue and those below it. O(queues below x resources) for each pool that counts it.
fn over_time(queue: &str, ledger: &Ledger) -> Vec<v1::UseOverTime> {
    let counted = ledger.pools().filter(|pool| pool.fades_in_ms().is_some());
    let mut all = Vec::new();
    for pool in counted {
        let mut sum: BTreeMap<String, u64> = BTreeMap::new();
        let mut left = vec![queue.to_owned()];
        while let Some(queue) = left.pop() {
            for (resource, amount) in ledger.average_use(&queue, &pool.name).iter() {
                let sum = sum.entry(resource.to_owned()).or_default();
                *sum = sum.saturating_add(amount.0);
            }
            left.extend(ledger.quota().below(&queue).map(str::to_owned));
        }
        let one = |(resource, average)| v1::UseOverTime { pool: pool.name.clone(), resource, average };
        all.extend(sum.into_iter().map(one));
    }
    all
}

pub(super) fn queue(check: &mut Check, from: &v1::Queue) -> Queue {
    check.name("name", &from.name);
    if !from.parent.is_empty() {
        check.name("parent", &from.parent);
    }
    let weight_milli = from.weight_milli.unwrap_or(USUAL_WEIGHT_MILLI);
    if weight_milli > MAX_WEIGHT_MILLI {
        check.fail("weight_milli", format!("{weight_milli} is above {MAX_WEIGHT_MILLI}"));
    }
    let mut quotas = BTreeMap::new();
    for (pool, given) in check.each("quotas", &from.quotas, MAX_ITEMS, pool_quotas) {
        if quotas.insert(pool.clone(), given).is_some() {
            check.fail("quotas", format!("pool {pool:?} is there more than once"));
        }
    }
    for (index, admin) in from.admins.iter().enumerate() {
        if from.admins[..index].contains(admin) {
            check.fail(&format!("admins[{index}]"), format!("{admin:?} is there already"));
        }
    }
    let overflow = overflow_from_v1(from.overflow).unwrap_or_else(|| {
        check.fail("overflow", format!("{} is not a kind of overflow", from.overflow));
        Overflow::default()
    });
    if overflow != Overflow::Reject && from.max_pending == 0 {
        check.fail("overflow", "needs max_pending: without a bound nothing is past it");
    }
    Queue {
        name: from.name.clone(),
        labels: check.labels("labels", &from.labels),
        parent: from.parent.clone(),
        weight_milli,
        quotas,
        max_pending: from.max_pending,
        admins: check.each("admins", &from.admins, MAX_ITEMS, |check, admin| {
            if admin.is_empty() || admin.len() > MAX_PATTERN_BYTES {
                check.fail("", format!("has {} bytes, must have 1 to {MAX_PATTERN_BYTES}", admin.len()));
            }
            admin.clone()
        }),
        batch: from.batch.map(|given| check.within("batch", |check| batch(check, given))),
        guaranteed_processing: from.guaranteed_processing,
        spot: from.spot.as_ref().map(|from| check.within("spot", |check| spot(check, from))),
        overflow,
        changed: Revision(0),
    }
}

fn overflow_from_v1(from: i32) -> Option<Overflow> {
    Some(match v1::Overflow::try_from(from).ok()? {
        v1::Overflow::Unspecified | v1::Overflow::Reject => Overflow::Reject,
        v1::Overflow::SpillToDisk => Overflow::SpillToDisk,
        v1::Overflow::Compress => Overflow::Compress,
    })
}

fn overflow_to_v1(from: Overflow) -> v1::Overflow {
    match from {
        Overflow::Reject => v1::Overflow::Reject,
        Overflow::SpillToDisk => v1::Overflow::SpillToDisk,
        Overflow::Compress => v1::Overflow::Compress,
    }
}

fn batch(check: &mut Check, from: v1::Batch) -> Batch {
    check.range("size", from.size.into(), 1, MAX_BATCH.into());
    check.range("interval_ms", from.interval_ms, MIN_TTL_MS, MAX_BATCH_INTERVAL_MS);
    Batch { size: from.size, interval_ms: from.interval_ms }
}

fn pool_quotas(check: &mut Check, from: &v1::PoolQuotas) -> (String, BTreeMap<String, Quota>) {
    check.name("pool", &from.pool);
    if from.resources.is_empty() || from.resources.len() > MAX_ITEMS {
        let many = from.resources.len();
        check.fail("resources", format!("1 to {MAX_ITEMS} are taken, {many} are given"));
    }
    let mut quotas = BTreeMap::new();
    for (resource, given) in &from.resources {
        let quota = Quota {
            guaranteed: Amount(given.guaranteed),
            nominal: Amount(given.nominal),
            limit: given.limit.map(Amount),
        };
        let field = |which: &str| format!("resources[{resource:?}].{which}");
        if given.nominal > u64::MAX >> 1 || given.limit.is_some_and(|limit| limit > u64::MAX >> 1) {
            check.fail(&field("nominal"), "is above 2^63 - 1");
        }
        if quota.guaranteed > quota.nominal {
            let (guaranteed, nominal) = (given.guaranteed, given.nominal);
            check.fail(&field("guaranteed"), format!("{guaranteed} is more than the nominal {nominal}"));
        }
        if let Some(limit) = given.limit.filter(|limit| *limit < given.nominal) {
            check.fail(&field("limit"), format!("{limit} is less than the nominal {}", given.nominal));
        }
        quotas.insert(resource.clone(), quota);
    }
    (from.pool.clone(), quotas)
}
