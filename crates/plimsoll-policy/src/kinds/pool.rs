//! `kind: Pool`.

use plimsoll_proto::v1;
use plimsoll_proto::v1::{QueueOrder, Strategy};

use super::{amounts, labels, name, selector};
use crate::context::{Block, Context};

/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 2] = ["name", "labels"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 5] = ["select", "strategy", "countables", "queueOrder", "maxPending"];

/// Strategies as files write them.
pub(crate) const STRATEGIES: [(&str, Strategy); 8] = [
    ("greedy", Strategy::Greedy),
    ("balanced", Strategy::Balanced),
    ("priority", Strategy::Priority),
    ("first_fit", Strategy::FirstFit),
    ("best_fit", Strategy::BestFit),
    ("worst_fit", Strategy::WorstFit),
    ("first_fit_decreasing", Strategy::FirstFitDecreasing),
    ("random", Strategy::Random),
];

/// Queue orders as files write them.
pub(crate) const QUEUE_ORDERS: [(&str, QueueOrder); 2] =
    [("best_effort_fifo", QueueOrder::BestEffortFifo), ("strict_fifo", QueueOrder::StrictFifo)];

/// Reads a pool.
pub(crate) fn read(context: &mut Context<'_>, metadata: &Block<'_>, spec: &Block<'_>) -> v1::Pool {
    let mut pool = v1::Pool {
        name: name(context, metadata, "pool"),
        labels: labels(context, metadata, "pool"),
        ..v1::Pool::default()
    };
    if let Some(node) = spec.get("select") {
        pool.select = selector::select(context, node, "pool");
    }
    if let Some(strategy) =
        spec.get("strategy").and_then(|node| context.word(node, "spec.strategy", &STRATEGIES))
    {
        pool.strategy = strategy.into();
    }
    if let Some(node) = spec.get("countables") {
        context.locate("pool.countables", node.mark, "spec.countables");
        for (name, mark, _) in context.entries(node, "spec.countables") {
            if matches!(name.as_str(), "cpu" | "memory" | "gpu") {
                context
                    .fail(mark, format!("spec.countables.{name}: {name} is counted on nodes, not in a pool"));
            }
        }
        pool.countables =
            amounts(context, node, "spec.countables", |name| format!("pool.countables[{name:?}]"));
    }
    if let Some(order) =
        spec.get("queueOrder").and_then(|node| context.word(node, "spec.queueOrder", &QUEUE_ORDERS))
    {
        pool.queue_order = order.into();
    }
    let most =
        spec.get("maxPending").and_then(|node| context.integer(node, "spec.maxPending", 0, u32::MAX.into()));
    pool.max_pending = most.and_then(|most| u32::try_from(most).ok()).unwrap_or_default();
    pool
}
