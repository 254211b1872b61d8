//! Policies about spot nodes that make sense.

use plimsoll_ledger::{CapacityType, Interruption, OnInterruption, SpotPolicy};
use plimsoll_types::LedgerTime;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::number;

pub(super) fn on_interruption() -> impl Strategy<Value = Option<OnInterruption>> {
    prop::option::of(select(OnInterruption::NAMED.map(|(_, what)| what).to_vec()))
}

pub(super) fn spot_policy() -> impl Strategy<Value = SpotPolicy> {
    let fallback = subsequence(vec![CapacityType::Reserved, CapacityType::OnDemand], 0..=2).prop_shuffle();
    let ceiling = prop_oneof![Just(0), 1_000..=1_000_000u32];
    let words = vec("[a-z_]{1,9}", 0..3);
    (0..=1_000u32, any::<u32>(), fallback, ceiling, words, on_interruption(), 0..=1_000u32).prop_map(
        |(share_permille, base, fallback, max_price_permille, suitable_for, on_interruption, in_one)| {
            SpotPolicy {
                share_permille,
                base,
                fallback,
                max_price_permille,
                suitable_for,
                on_interruption,
                max_in_one_permille: in_one,
            }
        },
    )
}

pub(super) fn interruption() -> impl Strategy<Value = Interruption> {
    (number(), number()).prop_map(|(noticed_at, deadline)| Interruption {
        noticed_at: LedgerTime(noticed_at),
        deadline: LedgerTime(deadline),
    })
}
