//! What may be on spot nodes, and what becomes of work there.

use plimsoll_ledger::limits::{MAX_ITEMS, MAX_PRICE_PERMILLE, MAX_TAG_BYTES};
use plimsoll_ledger::{CapacityType, OnInterruption, SpotPolicy};

use super::check::Check;
use crate::v1;

/// What becomes of work whose node is taken back, as a message says it; nothing said is 0.
pub fn on_interruption_to_v1(from: Option<OnInterruption>) -> v1::OnInterruption {
    match from {
        None => v1::OnInterruption::Unspecified,
        Some(OnInterruption::CheckpointAndRetry) => v1::OnInterruption::CheckpointAndRetry,
        Some(OnInterruption::Requeue) => v1::OnInterruption::Requeue,
        Some(OnInterruption::Fail) => v1::OnInterruption::Fail,
    }
}

pub(super) fn on_interruption(check: &mut Check, from: i32) -> Option<OnInterruption> {
    match v1::OnInterruption::try_from(from) {
        Ok(v1::OnInterruption::Unspecified) => None,
        Ok(v1::OnInterruption::CheckpointAndRetry) => Some(OnInterruption::CheckpointAndRetry),
        Ok(v1::OnInterruption::Requeue) => Some(OnInterruption::Requeue),
        Ok(v1::OnInterruption::Fail) => Some(OnInterruption::Fail),
        Err(_) => {
            check.fail("on_interruption", format!("{from} is nothing that becomes of work"));
            None
        }
    }
}

/// A policy as a message.
pub(super) fn spot_to_v1(from: &SpotPolicy) -> v1::SpotPolicy {
    v1::SpotPolicy {
        share_permille: from.share_permille,
        base: from.base,
        fallback: from.fallback.iter().map(|kind| capacity_to_v1(*kind).into()).collect(),
        max_price_permille: from.max_price_permille,
        suitable_for: from.suitable_for.clone(),
        on_interruption: on_interruption_to_v1(from.on_interruption).into(),
        max_in_one_permille: from.max_in_one_permille,
    }
}

pub(super) fn spot(check: &mut Check, from: &v1::SpotPolicy) -> SpotPolicy {
    check.range("share_permille", from.share_permille.into(), 0, 1_000);
    check.range("max_in_one_permille", from.max_in_one_permille.into(), 0, 1_000);
    check.range_or_default(
        "max_price_permille",
        from.max_price_permille.into(),
        1_000,
        MAX_PRICE_PERMILLE.into(),
    );
    let fallback = check.each("fallback", &from.fallback, 2, |check, kind| {
        let known = capacity_from_v1(*kind).filter(|kind| *kind != CapacityType::Spot);
        known.unwrap_or_else(|| {
            check
                .fail("", "is not on_demand or reserved: that is where work goes when there is no spot node");
            CapacityType::OnDemand
        })
    });
    if fallback.len() == 2 && fallback[0] == fallback[1] {
        check.fail("fallback", format!("{} is there twice", fallback[0].name()));
    }
    SpotPolicy {
        share_permille: from.share_permille,
        base: from.base,
        fallback,
        max_price_permille: from.max_price_permille,
        suitable_for: check.each("suitable_for", &from.suitable_for, MAX_ITEMS, |check, tag| {
            if tag.is_empty() || tag.len() > MAX_TAG_BYTES {
                check.fail("", format!("has {} bytes, must have 1 to {MAX_TAG_BYTES}", tag.len()));
            }
            tag.clone()
        }),
        on_interruption: on_interruption(check, from.on_interruption),
        max_in_one_permille: from.max_in_one_permille,
    }
}

fn capacity_to_v1(from: CapacityType) -> v1::CapacityType {
    match from {
        CapacityType::OnDemand => v1::CapacityType::OnDemand,
        CapacityType::Reserved => v1::CapacityType::Reserved,
        CapacityType::Spot => v1::CapacityType::Spot,
    }
}

fn capacity_from_v1(from: i32) -> Option<CapacityType> {
    match v1::CapacityType::try_from(from).ok()? {
        v1::CapacityType::Unspecified => None,
        v1::CapacityType::OnDemand => Some(CapacityType::OnDemand),
        v1::CapacityType::Reserved => Some(CapacityType::Reserved),
        v1::CapacityType::Spot => Some(CapacityType::Spot),
    }
}
