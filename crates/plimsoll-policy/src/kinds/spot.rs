//! What `kind: Pool` and `kind: Queue` say of spot nodes.

use plimsoll_proto::v1;
use plimsoll_proto::v1::{CapacityType, OnInterruption};
use plimsoll_types::quantity::{QuantityError, parse_cpu_millis};

use super::elastic::parse_permille;
use crate::context::{Block, Context};

/// Keys of the block.
const SPOT: [&str; 7] =
    ["share", "base", "fallback", "maxPriceIncrease", "suitableFor", "onInterruption", "maxInOnePool"];

/// Where work goes when there is no spot node, as files write it.
pub(crate) const FALLBACK: [(&str, CapacityType); 2] =
    [("on_demand", CapacityType::OnDemand), ("reserved", CapacityType::Reserved)];

/// What becomes of work whose node is taken back, as files write it.
pub(crate) const ON_INTERRUPTION: [(&str, OnInterruption); 3] = [
    ("checkpoint_and_retry", OnInterruption::CheckpointAndRetry),
    ("requeue", OnInterruption::Requeue),
    ("fail", OnInterruption::Fail),
];

/// Reads `spec.spot` of an object that is called so on the wire: `pool`, `queue`.
pub(crate) fn read(context: &mut Context<'_>, spec: &Block<'_>, wire: &str) -> Option<v1::SpotPolicy> {
    let node = spec.get("spot")?;
    let path = "spec.spot";
    let block = context.block(node, path, &SPOT);
    for (key, field) in [
        ("share", "share_permille"),
        ("base", "base"),
        ("fallback", "fallback"),
        ("maxPriceIncrease", "max_price_permille"),
        ("suitableFor", "suitable_for"),
        ("onInterruption", "on_interruption"),
        ("maxInOnePool", "max_in_one_permille"),
    ] {
        context.locate(format!("{wire}.spot.{field}"), block.mark_of(key), format!("{path}.{key}"));
    }
    let at = |key: &str| format!("{path}.{key}");
    if block.get("share").is_none() {
        context.fail(
            node.mark,
            "spec.spot.share is missing: how much of the work may be on spot nodes, as in 70%",
        );
    }
    let mut permille = |key: &str, read: fn(&str) -> Result<u64, QuantityError>| {
        let read = block.get(key).and_then(|node| context.quantity(node, &at(key), read));
        u32::try_from(read.unwrap_or_default()).unwrap_or(u32::MAX)
    };
    let share_permille = permille("share", parse_permille);
    let max_in_one_permille = permille("maxInOnePool", parse_permille);
    // Thousandths, written as cpu is: 2.0.
    let max_price_permille = permille("maxPriceIncrease", parse_cpu_millis);
    let base = block.get("base").and_then(|node| context.integer(node, &at("base"), 0, u32::MAX.into()));
    let mut fallback = Vec::new();
    if let Some(node) = block.get("fallback") {
        for (index, one) in context.list(node, &at("fallback"), "[reserved, on_demand]").iter().enumerate() {
            context.locate(
                format!("{wire}.spot.fallback[{index}]"),
                one.mark,
                format!("{path}.fallback[{index}]"),
            );
            let read = context.word(one, &format!("{path}.fallback[{index}]"), &FALLBACK);
            fallback.extend(read.map(i32::from));
        }
    }
    let mut suitable_for = Vec::new();
    if let Some(node) = block.get("suitableFor") {
        for (index, one) in context.list(node, &at("suitableFor"), "[batch_processing]").iter().enumerate() {
            let path = format!("{path}.suitableFor[{index}]");
            context.locate(format!("{wire}.spot.suitable_for[{index}]"), one.mark, path.clone());
            suitable_for.extend(context.text(one, &path));
        }
    }
    let what = block
        .get("onInterruption")
        .and_then(|node| context.word(node, &at("onInterruption"), &ON_INTERRUPTION));
    Some(v1::SpotPolicy {
        share_permille,
        base: base.and_then(|base| u32::try_from(base).ok()).unwrap_or_default(),
        fallback,
        max_price_permille,
        suitable_for,
        on_interruption: what.unwrap_or_default().into(),
        max_in_one_permille,
    })
}
