//! What may be on spot nodes, and nodes that are taken back, in stored messages.

use plimsoll_ledger::{CapacityType, Interruption, OnInterruption, SpotPolicy};
use plimsoll_types::LedgerTime;

use super::CodecError;
use super::decode::Result;
use crate::log;

const INTERRUPTIONS: [OnInterruption; 3] =
    [OnInterruption::CheckpointAndRetry, OnInterruption::Requeue, OnInterruption::Fail];
const CAPACITIES: [CapacityType; 3] = [CapacityType::OnDemand, CapacityType::Reserved, CapacityType::Spot];

/// Nothing said is 0: requests had no word for it before ledger version 11.
pub(super) fn encode_on_interruption(what: Option<OnInterruption>) -> i32 {
    let number = match what {
        None => log::OnInterruption::Unspecified,
        Some(OnInterruption::CheckpointAndRetry) => log::OnInterruption::CheckpointAndRetry,
        Some(OnInterruption::Requeue) => log::OnInterruption::Requeue,
        Some(OnInterruption::Fail) => log::OnInterruption::Fail,
    };
    number as i32
}

/// The other way.
pub(super) fn decode_on_interruption(number: i32) -> Result<Option<OnInterruption>> {
    let all = std::iter::once(None).chain(INTERRUPTIONS.map(Some));
    let mut found = all.filter(|what| encode_on_interruption(*what) == number);
    found.next().ok_or(CodecError::UnknownKind { what: "on_interruption" })
}

pub(super) fn encode_capacity(kind: CapacityType) -> i32 {
    let number = match kind {
        CapacityType::OnDemand => log::CapacityType::OnDemand,
        CapacityType::Reserved => log::CapacityType::Reserved,
        CapacityType::Spot => log::CapacityType::Spot,
    };
    number as i32
}

pub(super) fn decode_capacity(number: i32) -> Result<CapacityType> {
    let found = CAPACITIES.into_iter().find(|kind| encode_capacity(*kind) == number);
    found.ok_or(CodecError::UnknownKind { what: "capacity type" })
}

pub(super) fn encode_policy(policy: &SpotPolicy) -> log::SpotPolicy {
    log::SpotPolicy {
        share_permille: policy.share_permille,
        base: policy.base,
        fallback: policy.fallback.iter().map(|kind| encode_capacity(*kind)).collect(),
        max_price_permille: policy.max_price_permille,
        suitable_for: policy.suitable_for.clone(),
        on_interruption: encode_on_interruption(policy.on_interruption),
        max_in_one_permille: policy.max_in_one_permille,
    }
}

pub(super) fn decode_policy(from: log::SpotPolicy) -> Result<SpotPolicy> {
    Ok(SpotPolicy {
        share_permille: from.share_permille,
        base: from.base,
        fallback: from.fallback.into_iter().map(decode_capacity).collect::<Result<_>>()?,
        max_price_permille: from.max_price_permille,
        suitable_for: from.suitable_for,
        on_interruption: decode_on_interruption(from.on_interruption)?,
        max_in_one_permille: from.max_in_one_permille,
    })
}

pub(super) fn encode_interruption(of: Interruption) -> log::Interruption {
    log::Interruption { noticed_at_ms: of.noticed_at.0, deadline_ms: of.deadline.0 }
}

pub(super) fn decode_interruption(from: log::Interruption) -> Interruption {
    Interruption { noticed_at: LedgerTime(from.noticed_at_ms), deadline: LedgerTime(from.deadline_ms) }
}
