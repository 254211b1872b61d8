//! `kind: Class`.

use plimsoll_ledger::limits::{MAX_TTL_MS, MIN_TTL_MS};
use plimsoll_ledger::{DEFAULT_POOL, EvictWhen};
use plimsoll_proto::v1;
use plimsoll_types::quantity::{format_duration_ms, parse_cpu_millis, parse_duration_ms};

use super::{kept, name};
use crate::context::{Block, Context};
use crate::node::{Node, Value};

/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 1] = ["name"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 12] = [
    "priority",
    "preemptible",
    "defaultTtl",
    "defaultDuration",
    "grace",
    "minRun",
    "qos",
    "latencyTarget",
    "multiplier",
    "guaranteed",
    "evictWhen",
    "weight",
];

/// The latency target of 0.
pub(crate) const NOW: &str = "now";

/// Quality of service as files write it.
pub(crate) const QOS: [(&str, v1::Qos); 3] = [
    ("guaranteed", v1::Qos::Guaranteed),
    ("burstable", v1::Qos::Burstable),
    ("best_effort", v1::Qos::BestEffort),
];

/// Reads a class.
pub(crate) fn read(context: &mut Context<'_>, metadata: &Block<'_>, spec: &Block<'_>) -> v1::Class {
    let name = name(context, metadata, "class");
    if spec.get("priority").is_none() {
        context.fail(spec.mark, "spec.priority is missing: higher numbers go first, as in priority: 50");
    }
    let priority = spec
        .get("priority")
        .and_then(|node| context.integer(node, "spec.priority", i32::MIN.into(), i32::MAX.into()));
    let preemptible = spec.get("preemptible").and_then(|node| context.boolean(node, "spec.preemptible"));
    let ttl_ms =
        spec.get("defaultTtl").and_then(|node| context.quantity(node, "spec.defaultTtl", parse_duration_ms));
    let default_ttl_ms = ttl_ms.unwrap_or_default();
    if default_ttl_ms != 0 && !(MIN_TTL_MS..=MAX_TTL_MS).contains(&default_ttl_ms) {
        let [given, least, most] = [default_ttl_ms, MIN_TTL_MS, MAX_TTL_MS].map(format_duration_ms);
        context.fail(
            spec.mark_of("defaultTtl"),
            format!("spec.defaultTtl is {given}, must be {least} to {most}, or 0 for the default"),
        );
    }
    let mut duration = |key: &str| {
        let path = format!("spec.{key}");
        let given = spec.get(key).and_then(|node| context.quantity(node, &path, parse_duration_ms));
        let given_ms = given.unwrap_or_default();
        if given_ms > MAX_TTL_MS {
            let [given, most] = [given_ms, MAX_TTL_MS].map(format_duration_ms);
            context.fail(spec.mark_of(key), format!("{path} is {given}, must be at most {most}"));
        }
        given_ms
    };
    let (grace_ms, min_run_ms) = (duration("grace"), duration("minRun"));
    context.locate("class.default_ttl_ms", spec.mark_of("defaultTtl"), "spec.defaultTtl");
    let duration = spec.get("defaultDuration");
    let duration_ms =
        duration.and_then(|node| context.quantity(node, "spec.defaultDuration", parse_duration_ms));
    context.locate("class.default_duration_ms", spec.mark_of("defaultDuration"), "spec.defaultDuration");
    let qos = spec.get("qos").and_then(|node| context.word(node, "spec.qos", &QOS));
    context.locate("class.latency_target_ms", spec.mark_of("latencyTarget"), "spec.latencyTarget");
    let latency_target_ms = spec.get("latencyTarget").and_then(|node| latency_target(context, node));
    context.locate("class.multiplier_milli", spec.mark_of("multiplier"), "spec.multiplier");
    // Thousandths, written as cpu is: 0.5.
    let multiplier =
        spec.get("multiplier").and_then(|node| context.quantity(node, "spec.multiplier", parse_cpu_millis));
    context.locate("class.weight_milli", spec.mark_of("weight"), "spec.weight");
    let weight = spec.get("weight").and_then(|node| context.quantity(node, "spec.weight", parse_cpu_millis));
    let guaranteed = spec.get("guaranteed").map(|node| guarantees(context, node)).unwrap_or_default();
    context.locate("class.evict_when", spec.mark_of("evictWhen"), "spec.evictWhen");
    let evict_when = spec.get("evictWhen").and_then(|node| evict_when(context, node));
    v1::Class {
        name,
        priority: priority.and_then(|priority| i32::try_from(priority).ok()).unwrap_or_default(),
        preemptible: preemptible.unwrap_or_default(),
        default_ttl_ms,
        default_duration_ms: duration_ms.unwrap_or_default(),
        revision: 0,
        grace_ms,
        min_run_ms,
        qos: qos.unwrap_or_default().into(),
        latency_target_ms,
        multiplier_milli: multiplier.map(|milli| u32::try_from(milli).unwrap_or(u32::MAX)),
        guaranteed,
        evict_when: evict_when.unwrap_or_default(),
        weight_milli: weight.map(|milli| u32::try_from(milli).unwrap_or(u32::MAX)),
    }
}

/// A threshold, in the spelling that is stored.
fn evict_when(context: &mut Context<'_>, node: &Node) -> Option<String> {
    let path = "spec.evictWhen";
    match context.text(node, path)?.parse::<EvictWhen>() {
        Ok(when) => Some(when.to_string()),
        Err(error) => {
            context.fail(node.mark, format!("{path}: {error}"));
            None
        }
    }
}

/// What is kept for the class, by pool; amounts without a pool are of the default one.
fn guarantees(context: &mut Context<'_>, node: &Node) -> Vec<v1::PoolAmounts> {
    let path = "spec.guaranteed";
    let entries = context.entries(node, path);
    let is_amount = |node: &Node| matches!(node.value, Value::Scalar(_));
    if entries.iter().any(|(.., node)| is_amount(node)) {
        return vec![amounts_of(context, (0, DEFAULT_POOL), node, path)];
    }
    let pools = entries.into_iter().enumerate();
    let pools = pools.map(|(index, (pool, mark, node))| {
        let path = format!("{path}.{pool}");
        context.locate(format!("class.guaranteed[{index}].pool"), mark, path.clone());
        amounts_of(context, (index, &pool), node, &path)
    });
    pools.collect()
}

fn amounts_of(
    context: &mut Context<'_>,
    (index, pool): (usize, &str),
    node: &Node,
    path: &str,
) -> v1::PoolAmounts {
    let wire = format!("class.guaranteed[{index}].resources");
    context.locate(wire.clone(), node.mark, path);
    v1::PoolAmounts { pool: pool.to_owned(), resources: kept(context, node, path, &wire) }
}

/// `now`, or a duration.
fn latency_target(context: &mut Context<'_>, node: &Node) -> Option<u64> {
    let path = "spec.latencyTarget";
    if context.text(node, path)? == NOW {
        return Some(0);
    }
    context.quantity(node, path, parse_duration_ms)
}
