//! What `kind: Pool` says of how its nodes come and go.

use plimsoll_proto::v1;
use plimsoll_proto::v1::Elasticity;
use plimsoll_types::quantity::{QuantityError, parse_cpu_millis, parse_duration_ms};

use crate::context::{Block, Context};

/// Ways in which nodes come and go, as files write them.
pub(crate) const ELASTICITY: [(&str, Elasticity); 3] =
    [("static", Elasticity::Static), ("dynamic", Elasticity::Dynamic), ("elastic", Elasticity::Elastic)];

/// Reads what a pool's `spec` says of it.
pub(crate) fn read(context: &mut Context<'_>, spec: &Block<'_>, pool: &mut v1::Pool) {
    if let Some(elasticity) =
        spec.get("elasticity").and_then(|node| context.word(node, "spec.elasticity", &ELASTICITY))
    {
        pool.elasticity = elasticity.into();
    }
    let numbers = [
        ("minNodes", "min_nodes", &mut pool.min_nodes),
        ("maxNodes", "max_nodes", &mut pool.max_nodes),
        ("growthNodes", "growth_nodes", &mut pool.growth_nodes),
    ];
    for (key, field, value) in numbers {
        if let Some(node) = spec.get(key) {
            let path = format!("spec.{key}");
            context.locate(format!("pool.{field}"), node.mark, path.clone());
            let read = context.integer(node, &path, 0, u32::MAX.into());
            *value = read.and_then(|read| u32::try_from(read).ok()).unwrap_or_default();
        }
    }
    let times = [
        ("growthPeriod", "growth_ms", &mut pool.growth_ms),
        ("idleTimeout", "idle_timeout_ms", &mut pool.idle_timeout_ms),
    ];
    for (key, field, value) in times {
        if let Some(node) = spec.get(key) {
            let path = format!("spec.{key}");
            context.locate(format!("pool.{field}"), node.mark, path.clone());
            *value = context.quantity(node, &path, parse_duration_ms).unwrap_or_default();
        }
    }
    if let Some(node) = spec.get("fragmentationThreshold") {
        let path = "spec.fragmentationThreshold";
        context.locate("pool.fragmentation_permille", node.mark, path);
        let permille = context.quantity(node, path, parse_permille).unwrap_or_default();
        pool.fragmentation_permille = u32::try_from(permille).unwrap_or(u32::MAX);
    }
}

/// `30%` or `0.3`, in thousandths.
pub(super) fn parse_permille(text: &str) -> Result<u64, QuantityError> {
    match text.strip_suffix('%') {
        Some(percent) => Ok(parse_cpu_millis(percent.trim())? / 100),
        None => parse_cpu_millis(text),
    }
}
