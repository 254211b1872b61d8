//! Levels of pools, topology of requests, and rules about other work.

use plimsoll_ledger::limits::{MAX_AFFINITY, MAX_LEVELS};
use plimsoll_ledger::{Affinity, Gang, NODE_LEVEL, Topology};

use super::check::Check;
use crate::limits::MAX_LABEL_BYTES;
use crate::v1;

/// Levels of a pool: keys of labels, each once, without `node`.
pub(super) fn levels(check: &mut Check, from: &[String]) -> Vec<String> {
    check.count("topology", from.len(), MAX_LEVELS);
    for (position, level) in from.iter().enumerate() {
        let field = format!("topology[{position}]");
        label_key(check, &field, level);
        if level == NODE_LEVEL {
            check.fail(&field, "is node, which is inside the last level of every pool and not named");
        }
        if from[..position].contains(level) {
            check.fail(&field, format!("is {level:?}, which is there already"));
        }
    }
    from.to_vec()
}

/// The topology of a request of this gang.
pub(super) fn topology(check: &mut Check, from: Option<&v1::Topology>, gang: Gang) -> Topology {
    let Some(from) = from else { return Topology::default() };
    for (field, level) in
        [("required", &from.required), ("preferred", &from.preferred), ("slice_level", &from.slice_level)]
    {
        if !level.is_empty() {
            label_key(check, field, level);
        }
    }
    match (from.slice_size, from.slice_level.is_empty()) {
        (0, false) => check.fail("slice_size", "is missing, but slice_level is there"),
        (1.., true) => check.fail("slice_level", "is missing, but slice_size is there"),
        (size @ 1.., false)
            if !gang.min_members.is_multiple_of(size) || !gang.max_members.is_multiple_of(size) =>
        {
            let (least, most) = (gang.min_members, gang.max_members);
            check.fail(
                "slice_size",
                format!("is {size}, of which {least} to {most} members are no whole groups"),
            );
        }
        _ => {}
    }
    Topology {
        required: from.required.clone(),
        preferred: from.preferred.clone(),
        slice_size: from.slice_size,
        slice_level: from.slice_level.clone(),
    }
}

/// The rules of a request about other work.
pub(super) fn affinity(check: &mut Check, from: &[v1::Affinity]) -> Vec<Affinity> {
    check.each("affinity", from, MAX_AFFINITY, |check, rule| {
        label_key(check, "key", &rule.key);
        if rule.value.len() > MAX_LABEL_BYTES {
            check.fail(
                "value",
                format!("has {} bytes, at most {MAX_LABEL_BYTES} are allowed", rule.value.len()),
            );
        }
        let level = if rule.level.is_empty() { NODE_LEVEL } else { &rule.level };
        label_key(check, "level", level);
        check.range("weight", rule.weight.into(), 0, 100);
        Affinity {
            key: rule.key.clone(),
            value: rule.value.clone(),
            level: level.to_owned(),
            weight: rule.weight,
            anti: rule.anti,
        }
    })
}

/// Absent where any place will do.
pub(super) fn topology_to_v1(from: &Topology) -> Option<v1::Topology> {
    (!from.is_unconstrained()).then(|| v1::Topology {
        required: from.required.clone(),
        preferred: from.preferred.clone(),
        slice_size: from.slice_size,
        slice_level: from.slice_level.clone(),
    })
}

pub(super) fn rule_to_v1(from: &Affinity) -> v1::Affinity {
    v1::Affinity {
        key: from.key.clone(),
        value: from.value.clone(),
        level: from.level.clone(),
        weight: from.weight,
        anti: from.anti,
    }
}

fn label_key(check: &mut Check, field: &str, key: &str) {
    if key.is_empty() || key.len() > MAX_LABEL_BYTES {
        check.fail(field, format!("has {} bytes, a label's key has 1 to {MAX_LABEL_BYTES}", key.len()));
    }
}
