//! `kind: Pool`.

use plimsoll_proto::v1;
use plimsoll_proto::v1::{
    ClassOrder, ContentionResolve, ContentionSeverity, Fairness, Preemption, QueueOrder, Strategy,
};
use plimsoll_types::quantity::{QuantityError, parse_cpu_millis, parse_duration_ms};

use super::quota::parse_price;
use super::{amounts, labels, name, points, selector};
use crate::context::{Block, Context};
use crate::node::Node;

/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 2] = ["name", "labels"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 29] = [
    "select",
    "strategy",
    "countables",
    "queueOrder",
    "maxPending",
    "fairness",
    "price",
    "preemption",
    "maxPreemptionsPerHour",
    "prices",
    "currency",
    "topology",
    "queueing",
    "starvationBound",
    "rebalanceInterval",
    "oversubscription",
    "contention",
    "elasticity",
    "minNodes",
    "maxNodes",
    "growthNodes",
    "growthPeriod",
    "idleTimeout",
    "fragmentationThreshold",
    "spot",
    "powerBudget",
    "halfLife",
    "classOrder",
    "priorityWeights",
];
const CONTENTION: [&str; 3] = ["resolve", "after", "from"];

/// Strategies as files write them.
pub(crate) const STRATEGIES: [(&str, Strategy); 10] = [
    ("greedy", Strategy::Greedy),
    ("balanced", Strategy::Balanced),
    ("priority", Strategy::Priority),
    ("first_fit", Strategy::FirstFit),
    ("best_fit", Strategy::BestFit),
    ("worst_fit", Strategy::WorstFit),
    ("first_fit_decreasing", Strategy::FirstFitDecreasing),
    ("random", Strategy::Random),
    ("fragmentation", Strategy::Fragmentation),
    ("optimized", Strategy::Optimized),
];

/// Queue orders as files write them.
pub(crate) const QUEUE_ORDERS: [(&str, QueueOrder); 2] =
    [("best_effort_fifo", QueueOrder::BestEffortFifo), ("strict_fifo", QueueOrder::StrictFifo)];

/// Ways of being fair between queues as files write them.
pub(crate) const FAIRNESS: [(&str, Fairness); 5] = [
    ("priority", Fairness::Priority),
    ("fair", Fairness::Fair),
    ("quota", Fairness::Quota),
    ("weighted", Fairness::Weighted),
    ("fair_tree", Fairness::FairTree),
];

/// Orders of classes as files write them.
pub(crate) const CLASS_ORDERS: [(&str, ClassOrder); 2] =
    [("strict", ClassOrder::Strict), ("weighted", ClassOrder::Weighted)];

/// What may be taken back, as files write it.
pub(crate) const PREEMPTION: [(&str, Preemption); 4] = [
    ("any", Preemption::Any),
    ("never", Preemption::Never),
    ("lower_class", Preemption::LowerClass),
    ("reclaim", Preemption::Reclaim),
];

/// What is done about contention, as files write it.
pub(crate) const RESOLVE: [(&str, ContentionResolve); 5] = [
    ("wait", ContentionResolve::Wait),
    ("priority", ContentionResolve::Priority),
    ("preempt", ContentionResolve::Preempt),
    ("scale", ContentionResolve::Scale),
    ("redistribute", ContentionResolve::Redistribute),
];

/// Severities as files write them.
pub(crate) const SEVERITIES: [(&str, ContentionSeverity); 4] = [
    ("low", ContentionSeverity::Low),
    ("medium", ContentionSeverity::Medium),
    ("high", ContentionSeverity::High),
    ("critical", ContentionSeverity::Critical),
];

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
    if let Some(fairness) =
        spec.get("fairness").and_then(|node| context.word(node, "spec.fairness", &FAIRNESS))
    {
        pool.fairness = fairness.into();
    }
    // Thousandths, written as cpu is: 3, 0.5.
    let price = spec.get("price").and_then(|node| context.quantity(node, "spec.price", parse_cpu_millis));
    pool.price_milli = price.map_or(0, |price| u32::try_from(price).unwrap_or(u32::MAX));
    let most =
        spec.get("maxPending").and_then(|node| context.integer(node, "spec.maxPending", 0, u32::MAX.into()));
    pool.max_pending = most.and_then(|most| u32::try_from(most).ok()).unwrap_or_default();
    if let Some(preemption) =
        spec.get("preemption").and_then(|node| context.word(node, "spec.preemption", &PREEMPTION))
    {
        pool.preemption = preemption.into();
    }
    let most = spec
        .get("maxPreemptionsPerHour")
        .and_then(|node| context.integer(node, "spec.maxPreemptionsPerHour", 0, u32::MAX.into()));
    pool.max_preemptions_per_hour = most.and_then(|most| u32::try_from(most).ok()).unwrap_or_default();
    if let Some(node) = spec.get("prices") {
        for (resource, mark, node) in super::resources(context, node, "spec.prices") {
            let path = format!("spec.prices.{resource}");
            context.locate(format!("pool.prices[{resource:?}]"), mark, path.clone());
            if let Some(price) = context.quantity(node, &path, parse_price) {
                pool.prices.insert(resource, price);
            }
        }
    }
    if let Some(node) = spec.get("currency") {
        context.locate("pool.currency", node.mark, "spec.currency");
        pool.currency = context.text(node, "spec.currency").unwrap_or_default();
    }
    if let Some(node) = spec.get("topology") {
        context.locate("pool.topology", node.mark, "spec.topology");
        for (position, level) in context.list(node, "spec.topology", "[zone, rack]").iter().enumerate() {
            let path = format!("spec.topology[{position}]");
            context.locate(format!("pool.topology[{position}]"), level.mark, path.clone());
            pool.topology.extend(context.text(level, &path));
        }
    }
    if let Some(node) = spec.get("queueing") {
        context.locate("pool.queueing", node.mark, "spec.queueing");
        pool.queueing = context.text(node, "spec.queueing").unwrap_or_default();
    }
    if let Some(node) = spec.get("starvationBound") {
        context.locate("pool.starvation_bound_ms", node.mark, "spec.starvationBound");
        let bound = context.quantity(node, "spec.starvationBound", parse_duration_ms);
        pool.starvation_bound_ms = bound.unwrap_or_default();
    }
    if let Some(node) = spec.get("oversubscription") {
        for (resource, mark, node) in super::resources(context, node, "spec.oversubscription") {
            let path = format!("spec.oversubscription.{resource}");
            context.locate(format!("pool.oversubscription_permille[{resource:?}]"), mark, path.clone());
            // Thousandths, written as cpu is: 1.5.
            if let Some(permille) = context.quantity(node, &path, parse_cpu_millis) {
                let permille = u32::try_from(permille).unwrap_or(u32::MAX);
                pool.oversubscription_permille.insert(resource, permille);
            }
        }
    }
    if let Some(node) = spec.get("rebalanceInterval") {
        context.locate("pool.rebalance_interval_ms", node.mark, "spec.rebalanceInterval");
        let interval = context.quantity(node, "spec.rebalanceInterval", parse_duration_ms);
        pool.rebalance_interval_ms = interval.unwrap_or_default();
    }
    pool.contention = spec.get("contention").map(|node| contention(context, node));
    super::elastic::read(context, spec, &mut pool);
    pool.spot = super::spot::read(context, spec, "pool");
    if let Some(node) = spec.get("classOrder") {
        context.locate("pool.class_order", node.mark, "spec.classOrder");
        pool.class_order = context.word(node, "spec.classOrder", &CLASS_ORDERS).unwrap_or_default().into();
    }
    pool.priority_weights = spec.get("priorityWeights").map(|node| points::read(context, node));
    if let Some(node) = spec.get("halfLife") {
        context.locate("pool.half_life_ms", node.mark, "spec.halfLife");
        pool.half_life_ms = context.quantity(node, "spec.halfLife", parse_duration_ms).unwrap_or_default();
    }
    if let Some(node) = spec.get("powerBudget") {
        context.locate("pool.power_budget_watts", node.mark, "spec.powerBudget");
        let watts = context.quantity(node, "spec.powerBudget", parse_watts);
        pool.power_budget_watts = watts.unwrap_or_default();
    }
    pool
}

/// `5000`, `5000W` or `5kW`, in watts.
fn parse_watts(text: &str) -> Result<u64, QuantityError> {
    if let Some(kilowatts) = text.strip_suffix("kW") {
        // Thousandths, written as cpu is: 4.8.
        return parse_cpu_millis(kilowatts.trim_end());
    }
    let digits = text.strip_suffix('W').unwrap_or(text).trim_end();
    digits.parse().map_err(|_| QuantityError {
        text: text.to_owned(),
        expected: "a power",
        hint: "power is written 5000, 5000W or 4.8kW".to_owned(),
    })
}

/// What is done about contention, and when.
fn contention(context: &mut Context<'_>, node: &Node) -> v1::ContentionPolicy {
    let path = "spec.contention";
    let block = context.block(node, path, &CONTENTION);
    let mut policy = v1::ContentionPolicy::default();
    context.locate("pool.contention.resolve", block.mark_of("resolve"), format!("{path}.resolve"));
    if let Some(node) = block.get("resolve") {
        for (position, kind) in
            context.list(node, &format!("{path}.resolve"), "[preempt, scale]").iter().enumerate()
        {
            let kind = context.word(kind, &format!("{path}.resolve[{position}]"), &RESOLVE);
            policy.resolve.extend(kind.map(i32::from));
        }
    }
    context.locate("pool.contention.after_ms", block.mark_of("after"), format!("{path}.after"));
    if let Some(node) = block.get("after") {
        policy.after_ms =
            context.quantity(node, &format!("{path}.after"), parse_duration_ms).unwrap_or_default();
    }
    if let Some(node) = block.get("from") {
        let severity = context.word(node, &format!("{path}.from"), &SEVERITIES);
        policy.from = severity.map_or(0, i32::from);
    }
    policy
}
