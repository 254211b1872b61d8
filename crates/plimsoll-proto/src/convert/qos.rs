//! Quality of service and oversubscription.

use std::collections::BTreeMap;

use plimsoll_ledger::limits::{MAX_ITEMS, MAX_OVERSUBSCRIPTION_PERMILLE};
use plimsoll_ledger::{EvictWhen, GPU, Qos};

use super::check::Check;
use crate::v1;

/// Quality of service as a message says it; nothing said is 0.
pub fn qos_to_v1(from: Option<Qos>) -> v1::Qos {
    match from {
        None => v1::Qos::Unspecified,
        Some(Qos::Guaranteed) => v1::Qos::Guaranteed,
        Some(Qos::Burstable) => v1::Qos::Burstable,
        Some(Qos::BestEffort) => v1::Qos::BestEffort,
    }
}

pub(super) fn qos(check: &mut Check, from: i32) -> Option<Qos> {
    match v1::Qos::try_from(from) {
        Ok(v1::Qos::Unspecified) => None,
        Ok(v1::Qos::Guaranteed) => Some(Qos::Guaranteed),
        Ok(v1::Qos::Burstable) => Some(Qos::Burstable),
        Ok(v1::Qos::BestEffort) => Some(Qos::BestEffort),
        Err(_) => {
            check.fail("qos", format!("{from} is not a quality of service"));
            None
        }
    }
}

/// The eviction threshold of a class.
pub(super) fn evict_when(check: &mut Check, from: &v1::Class) -> Option<EvictWhen> {
    if from.evict_when.is_empty() {
        return None;
    }
    if from.qos() == v1::Qos::Guaranteed {
        check.fail("evict_when", "what is guaranteed leaves no node for what it measures");
    }
    let read = from.evict_when.parse::<EvictWhen>();
    read.map_err(|error| check.fail("evict_when", error.to_string())).ok()
}

pub(super) fn oversubscription(check: &mut Check, from: &v1::Pool) -> BTreeMap<String, u32> {
    let ratios = &from.oversubscription_permille;
    check.count("oversubscription_permille", ratios.len(), MAX_ITEMS);
    for (resource, permille) in ratios {
        let field = format!("oversubscription_permille[{resource:?}]");
        check.short_text(&field, resource);
        if resource == GPU {
            check.fail(&field, "gpu cannot be promised twice: two cannot have one device, nor its memory");
        } else if from.countables.contains_key(resource) {
            check.fail(&field, format!("{resource} is counted in the pool, and cannot be promised twice"));
        }
        check.range(&field, (*permille).into(), 1_000, MAX_OVERSUBSCRIPTION_PERMILLE.into());
    }
    ratios.clone()
}
