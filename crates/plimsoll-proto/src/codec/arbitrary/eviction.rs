//! Evictions and their thresholds.

use plimsoll_ledger::{EvictWhen, Gauge, Overload};
use plimsoll_types::{NodeEpoch, NodeId};
use proptest::prelude::*;
use proptest::sample::select;

use super::number;

fn gauge() -> impl Strategy<Value = Gauge> {
    select(Gauge::NAMED.map(|(_, gauge)| gauge).to_vec())
}

pub(super) fn overload() -> impl Strategy<Value = Overload> {
    (any::<u32>(), number(), gauge(), any::<u32>(), number()).prop_map(
        |(node, epoch, gauge, measured_permille, over_ms)| Overload {
            node: NodeId(node),
            epoch: NodeEpoch(epoch),
            gauge,
            measured_permille,
            over_ms,
        },
    )
}

/// A threshold that makes sense.
pub(super) fn evict_when() -> impl Strategy<Value = EvictWhen> {
    (gauge(), 1..=999u32, 1_000..=3_600_000u64).prop_map(|(gauge, above_permille, for_ms)| EvictWhen {
        gauge,
        above_permille,
        for_ms,
    })
}
