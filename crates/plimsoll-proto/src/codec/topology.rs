//! Topology of requests and rules about other work, as they are stored.

use plimsoll_ledger::{Affinity, Topology};

use crate::log;

/// Absent where any place will do.
pub(super) fn encode(topology: &Topology) -> Option<log::Topology> {
    (!topology.is_unconstrained()).then(|| log::Topology {
        required: topology.required.clone(),
        preferred: topology.preferred.clone(),
        slice_size: topology.slice_size,
        slice_level: topology.slice_level.clone(),
    })
}

pub(super) fn decode(from: Option<log::Topology>) -> Topology {
    let from = from.unwrap_or_default();
    Topology {
        required: from.required,
        preferred: from.preferred,
        slice_size: from.slice_size,
        slice_level: from.slice_level,
    }
}

pub(super) fn encode_rule(rule: &Affinity) -> log::Affinity {
    log::Affinity {
        key: rule.key.clone(),
        value: rule.value.clone(),
        level: rule.level.clone(),
        weight: rule.weight,
        anti: rule.anti,
    }
}

pub(super) fn decode_rule(from: log::Affinity) -> Affinity {
    Affinity { key: from.key, value: from.value, level: from.level, weight: from.weight, anti: from.anti }
}
