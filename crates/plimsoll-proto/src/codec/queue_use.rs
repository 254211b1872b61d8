//! What queues used over time, to bytes and back.

use plimsoll_ledger::QueueUse;
use plimsoll_types::LedgerTime;

use super::CodecError;
use super::decode::Result;
use crate::log;

/// Low half of a sum.
const LOW_BITS: u32 = 64;

pub(super) fn encode(row: &QueueUse) -> log::QueueUse {
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    let spent = row.spent.iter().map(|(resource, spent)| log::SpentAmount {
        resource: resource.clone(),
        high: half(*spent >> LOW_BITS),
        low: half(*spent),
    });
    log::QueueUse {
        queue: row.queue.clone(),
        pool: row.pool.clone(),
        spent: spent.collect(),
        stamp_ms: row.stamp.0,
    }
}

pub(super) fn decode(from: log::QueueUse) -> Result<QueueUse> {
    let value = |one: &log::SpentAmount| u128::from(one.high) << LOW_BITS | u128::from(one.low);
    if !from.spent.is_sorted_by(|a, b| a.resource < b.resource)
        || from.spent.iter().any(|one| value(one) == 0)
    {
        return Err(CodecError::NotCanonical { what: "use of a queue" });
    }
    Ok(QueueUse {
        queue: from.queue,
        pool: from.pool,
        spent: from
            .spent
            .into_iter()
            .map(|one| (value(&one), one.resource))
            .map(|(sum, name)| (name, sum))
            .collect(),
        stamp: LedgerTime(from.stamp_ms),
    })
}
