//! Where the members of a request are: levels of the pool's topology, and other work that they are with or apart from.

use plimsoll_proto::v1;

use super::text;
use crate::context::{Block, Context};
use crate::node::Node;

/// How rules about other work look, for messages.
const EXAMPLE: &str = "[{ key: app, value: db, level: rack }]";

/// `topology: { required: zone, preferred: rack, slices: 8@rack }`, as `--topology` has it.
pub(super) fn topology(context: &mut Context<'_>, spec: &Block<'_>) -> Option<v1::Topology> {
    let node = spec.get("topology")?;
    context.locate("topology", node.mark, "spec.topology");
    let block = context.block(node, "spec.topology", &["required", "preferred", "slices"]);
    let mut topology = v1::Topology {
        required: text(context, &block, "required", "topology.required", "spec.topology.required"),
        preferred: text(context, &block, "preferred", "topology.preferred", "spec.topology.preferred"),
        ..v1::Topology::default()
    };
    for wire in ["topology.slice_size", "topology.slice_level"] {
        context.locate(wire, block.mark_of("slices"), "spec.topology.slices");
    }
    if let Some(node) = block.get("slices") {
        let slices = context.text(node, "spec.topology.slices")?;
        let parts = slices.split_once('@').and_then(|(size, level)| Some((size.parse::<u32>().ok()?, level)));
        match parts {
            Some((size @ 1.., level)) if !level.is_empty() => {
                (topology.slice_size, topology.slice_level) = (size, level.to_owned());
            }
            _ => context
                .fail(node.mark, format!("spec.topology.slices {slices:?} is not SIZE@LEVEL, as in 8@rack")),
        }
    }
    (topology != v1::Topology::default()).then_some(topology)
}

/// `affinity` and `antiAffinity`: lists of rules, that must hold without a weight and should with one.
pub(super) fn affinity(context: &mut Context<'_>, spec: &Block<'_>) -> Vec<v1::Affinity> {
    let mut rules = Vec::new();
    for (key, anti) in [("affinity", false), ("antiAffinity", true)] {
        let Some(list) = spec.get(key) else { continue };
        context.locate("affinity", list.mark, format!("spec.{key}"));
        for (position, node) in context.list(list, &format!("spec.{key}"), EXAMPLE).iter().enumerate() {
            let wire = format!("affinity[{}]", rules.len());
            let path = format!("spec.{key}[{position}]");
            rules.push(context.part(&wire, |context| rule(context, node, &path, &wire, anti)));
        }
    }
    rules
}

fn rule(context: &mut Context<'_>, node: &Node, path: &str, wire: &str, anti: bool) -> v1::Affinity {
    context.locate(wire, node.mark, path);
    let block = context.block(node, path, &["key", "value", "level", "weight"]);
    let [key, value, level] = ["key", "value", "level"]
        .map(|field| text(context, &block, field, &format!("{wire}.{field}"), &format!("{path}.{field}")));
    v1::Affinity { key, value, level, weight: weight(context, &block, path), anti }
}

/// The weight of a wish, 1 to 100; 0 where none is given.
pub(super) fn weight(context: &mut Context<'_>, block: &Block<'_>, path: &str) -> u32 {
    let node = block.get("weight");
    let weight = node.and_then(|node| context.integer(node, &format!("{path}.weight"), 1, 100));
    weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or_default()
}
