//! `kind: Queue`.

use plimsoll_proto::v1;
use plimsoll_types::quantity::{QuantityError, parse_cpu_millis, parse_duration_ms, parse_resource};

use super::{labels, name, resources};
use crate::context::{Block, Context};
use crate::node::{Node, Value};

/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 2] = ["name", "labels"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 10] = [
    "parent",
    "weight",
    "quotas",
    "maxPending",
    "maxSize",
    "overflow",
    "admins",
    "batch",
    "guaranteedProcessing",
    "spot",
];
/// Keys of a batch.
const BATCH: [&str; 2] = ["size", "interval"];
/// Keys of one quota.
const QUOTA: [&str; 3] = ["guaranteed", "nominal", "limit"];

/// Reads a queue.
pub(crate) fn read(context: &mut Context<'_>, metadata: &Block<'_>, spec: &Block<'_>) -> v1::Queue {
    let mut queue = v1::Queue {
        name: name(context, metadata, "queue"),
        labels: labels(context, metadata, "queue"),
        ..v1::Queue::default()
    };
    if let Some(node) = spec.get("parent") {
        context.locate("queue.parent", node.mark, "spec.parent");
        queue.parent = context.text(node, "spec.parent").unwrap_or_default();
    }
    if let Some(node) = spec.get("weight") {
        context.locate("queue.weight_milli", node.mark, "spec.weight");
        // Thousandths, written as cpu is: 2, 0.4.
        let weight = context.quantity(node, "spec.weight", parse_cpu_millis);
        queue.weight_milli = weight.map(|weight| u32::try_from(weight).unwrap_or(u32::MAX));
    }
    if let Some(node) = spec.get("quotas") {
        for (index, (pool, mark, quotas)) in context.entries(node, "spec.quotas").into_iter().enumerate() {
            let path = format!("spec.quotas.{pool}");
            context.locate(format!("queue.quotas[{index}].pool"), mark, path.clone());
            context.locate(format!("queue.quotas[{index}].resources"), mark, path.clone());
            let resources = resources(context, quotas, &path)
                .into_iter()
                .filter_map(|(resource, mark, node)| {
                    let path = format!("{path}.{resource}");
                    for field in QUOTA {
                        let wire = format!("queue.quotas[{index}].resources[{resource:?}].{field}");
                        context.locate(wire, mark, format!("{path}.{field}"));
                    }
                    Some((resource.clone(), quota(context, node, &path, &resource)?))
                })
                .collect();
            queue.quotas.push(v1::PoolQuotas { pool, resources });
        }
    }
    let most =
        spec.get("maxPending").and_then(|node| context.integer(node, "spec.maxPending", 0, u32::MAX.into()));
    let size = spec.get("maxSize").and_then(|node| context.integer(node, "spec.maxSize", 0, u32::MAX.into()));
    if most.is_some() && size.is_some() {
        context.fail(
            spec.mark_of("maxSize"),
            "spec.maxSize is another word for spec.maxPending: give one of them",
        );
    }
    queue.max_pending = most.or(size).and_then(|most| u32::try_from(most).ok()).unwrap_or_default();
    if let Some(node) = spec.get("admins") {
        context.locate("queue.admins", node.mark, "spec.admins");
        for (index, one) in context.list(node, "spec.admins", "- ada").iter().enumerate() {
            context.locate(format!("queue.admins[{index}]"), one.mark, format!("spec.admins[{index}]"));
            queue.admins.extend(context.text(one, &format!("spec.admins[{index}]")));
        }
    }
    if let Some(node) = spec.get("overflow") {
        context.locate("queue.overflow", node.mark, "spec.overflow");
        let words = [
            ("reject", v1::Overflow::Reject),
            ("spill_to_disk", v1::Overflow::SpillToDisk),
            ("compress", v1::Overflow::Compress),
        ];
        queue.overflow = context.word(node, "spec.overflow", &words).unwrap_or_default().into();
    }
    queue.batch = spec.get("batch").map(|node| batch(context, node));
    let promised =
        spec.get("guaranteedProcessing").and_then(|node| context.boolean(node, "spec.guaranteedProcessing"));
    queue.guaranteed_processing = promised.unwrap_or_default();
    queue.spot = super::spot::read(context, spec, "queue");
    queue
}

/// How many at a time, and when.
fn batch(context: &mut Context<'_>, node: &Node) -> v1::Batch {
    let path = "spec.batch";
    let block = context.block(node, path, &BATCH);
    context.locate("queue.batch.size", block.mark_of("size"), format!("{path}.size"));
    context.locate("queue.batch.interval_ms", block.mark_of("interval"), format!("{path}.interval"));
    let size =
        block.get("size").and_then(|node| context.integer(node, &format!("{path}.size"), 0, u32::MAX.into()));
    let interval = block
        .get("interval")
        .and_then(|node| context.quantity(node, &format!("{path}.interval"), parse_duration_ms));
    v1::Batch {
        size: size.and_then(|size| u32::try_from(size).ok()).unwrap_or_default(),
        interval_ms: interval.unwrap_or_default(),
    }
}

/// A quota: a block of its parts, or the nominal amount alone.
fn quota(context: &mut Context<'_>, node: &Node, path: &str, resource: &str) -> Option<v1::Quota> {
    let read = |text: &str| read_amount(resource, text);
    if let Value::Scalar(_) = node.value {
        let nominal = context.quantity(node, path, read)?;
        return Some(v1::Quota { nominal, ..v1::Quota::default() });
    }
    let block = context.block(node, path, &QUOTA);
    let mut part =
        |key: &str| block.get(key).and_then(|node| context.quantity(node, &format!("{path}.{key}"), read));
    let (guaranteed, nominal, limit) = (part("guaranteed"), part("nominal"), part("limit"));
    // A guarantee alone is all that the queue has.
    let nominal = nominal.or(guaranteed).unwrap_or_default();
    Some(v1::Quota { guaranteed: guaranteed.unwrap_or_default(), nominal, limit })
}

/// Devices are written as people count them and kept in thousandths.
pub(super) fn read_amount(resource: &str, text: &str) -> Result<u64, QuantityError> {
    if resource == "gpu" { parse_cpu_millis(text) } else { parse_resource(resource, text) }
}
