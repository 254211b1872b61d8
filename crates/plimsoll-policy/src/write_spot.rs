//! What pools and queues say of spot nodes, as files write it.

use plimsoll_ledger::SpotPolicy;
use plimsoll_types::quantity::format_cpu_millis;
use serde_json::{Map, Value, json};

use crate::write::number;

/// The block `spot`, where something is said.
pub(crate) fn spot_part(policy: Option<&SpotPolicy>, spec: &mut Map<String, Value>) {
    let Some(policy) = policy else { return };
    let mut block = json!({ "share": share(policy.share_permille) });
    if policy.base > 0 {
        block["base"] = json!(policy.base);
    }
    if !policy.fallback.is_empty() {
        block["fallback"] = json!(policy.fallback.iter().map(|kind| kind.name()).collect::<Vec<_>>());
    }
    if policy.max_price_permille > 0 {
        block["maxPriceIncrease"] = number(format_cpu_millis(policy.max_price_permille.into()));
    }
    if !policy.suitable_for.is_empty() {
        block["suitableFor"] = json!(policy.suitable_for);
    }
    if let Some(what) = policy.on_interruption {
        block["onInterruption"] = json!(what.name());
    }
    if policy.max_in_one_permille > 0 {
        block["maxInOnePool"] = json!(share(policy.max_in_one_permille));
    }
    spec.insert("spot".to_owned(), block);
}

/// `70%`, `12.5%`.
fn share(permille: u32) -> String {
    plimsoll_ledger::percent(permille)
}
