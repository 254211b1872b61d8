//! `kind: NodeLimits`.

use plimsoll_proto::v1;
use plimsoll_types::quantity::{QuantityError, parse_bytes, parse_cpu_millis};

use super::{amounts, name, selector};
use crate::context::{Block, Context};

/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 1] = ["name"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 4] = ["select", "max", "maxCpu", "maxMemory"];

/// Reads node limits.
pub(crate) fn read(context: &mut Context<'_>, metadata: &Block<'_>, spec: &Block<'_>) -> v1::NodeLimits {
    let mut limits =
        v1::NodeLimits { name: name(context, metadata, "node_limits"), ..v1::NodeLimits::default() };
    if let Some(node) = spec.get("select") {
        limits.select = selector::select(context, node, "node_limits");
    }
    let mut max = v1::Quantities::default();
    if let Some(node) = spec.get("max") {
        context.locate("node_limits.max", node.mark, "spec.max");
        let entries = context.entries(node, "spec.max");
        let mut other = amounts(context, node, "spec.max", wire);
        for (name, mark, _) in entries {
            if name == "gpu" {
                context
                    .fail(mark, "spec.max.gpu: node limits do not cap GPUs, which are devices of their own");
                other.remove("gpu");
            } else if other.get(&name) == Some(&0) {
                // The ledger keeps no zero amounts: a cap of nothing would be no cap at all.
                context.fail(
                    mark,
                    format!(
                        "spec.max.{name} is 0, which would cap nothing: leave it out, or cordon the nodes"
                    ),
                );
            }
        }
        max.cpu_millis = other.remove("cpu").unwrap_or_default();
        max.memory_bytes = other.remove("memory").unwrap_or_default();
        max.other = other;
    }
    short(context, spec, "maxCpu", parse_cpu_millis, &mut max.cpu_millis);
    short(context, spec, "maxMemory", parse_bytes, &mut max.memory_bytes);
    limits.max = Some(max);
    limits
}

/// `maxCpu: 4` for `max: { cpu: 4 }`.
fn short(
    context: &mut Context<'_>,
    spec: &Block<'_>,
    key: &'static str,
    read: impl FnOnce(&str) -> Result<u64, QuantityError>,
    into: &mut u64,
) {
    let path = format!("spec.{key}");
    let Some(amount) = spec.get(key).and_then(|node| context.quantity(node, &path, read)) else { return };
    if amount == 0 {
        context.fail(
            spec.mark_of(key),
            format!("{path} is 0, which would cap nothing: leave it out, or cordon the nodes"),
        );
    } else if *into != 0 {
        context.fail(spec.mark_of(key), format!("{path} is there in spec.max too: give one of them"));
    }
    *into = amount;
}

fn wire(name: &str) -> String {
    match name {
        "cpu" => "node_limits.max.cpu_millis".to_owned(),
        "memory" => "node_limits.max.memory_bytes".to_owned(),
        _ => format!("node_limits.max.other[{name:?}]"),
    }
}
