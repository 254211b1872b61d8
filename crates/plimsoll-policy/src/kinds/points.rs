//! `priorityWeights` of a pool: what counts how much for a place in its queue.

use plimsoll_ledger::{MAX_POINTS, PriorityWeights};
use plimsoll_proto::v1;
use plimsoll_types::quantity::parse_duration_ms;

use crate::context::Context;
use crate::node::Node;

const KEYS: [&str; 6] = ["age", "maxAge", "size", "fairShare", "qos", "resources"];
const PATH: &str = "spec.priorityWeights";

/// `priorityWeights: { age: 1000, maxAge: 7d, size: 500, resources: { gpu: 2000 } }`: what is left out counts for nothing.
pub(super) fn read(context: &mut Context<'_>, node: &Node) -> v1::PriorityWeights {
    context.locate("pool.priority_weights", node.mark, PATH);
    let block = context.block(node, PATH, &KEYS);
    let mut of = |key: &str, field: &str| {
        let path = format!("{PATH}.{key}");
        context.locate(format!("pool.priority_weights.{field}"), block.mark_of(key), path.clone());
        block.get(key).and_then(|node| points(context, node, &path)).unwrap_or_default()
    };
    let (age, size) = (of("age", "age"), of("size", "size"));
    let (fair_share, qos) = (of("fairShare", "fair_share"), of("qos", "qos"));
    let path = format!("{PATH}.maxAge");
    context.locate("pool.priority_weights.max_age_ms", block.mark_of("maxAge"), path.clone());
    let read = |node| context.quantity(node, &path, parse_duration_ms).unwrap_or_default();
    let max_age_ms = block.get("maxAge").map(read);
    let mut weights = v1::PriorityWeights {
        age,
        max_age_ms: max_age_ms.unwrap_or_else(|| PriorityWeights::default().max_age_ms),
        size,
        fair_share,
        qos,
        ..v1::PriorityWeights::default()
    };
    let path = format!("{PATH}.resources");
    let resources = block.get("resources").map(|node| context.entries(node, &path));
    for (name, mark, node) in resources.unwrap_or_default() {
        let path = format!("{path}.{name}");
        context.locate(format!("pool.priority_weights.resources.{name}"), mark, path.clone());
        weights.resources.extend(points(context, node, &path).map(|points| (name, points)));
    }
    weights
}

/// A number of points.
pub(super) fn points(context: &mut Context<'_>, node: &Node, path: &str) -> Option<u32> {
    let points = context.integer(node, path, 0, MAX_POINTS.into())?;
    u32::try_from(points).ok()
}
