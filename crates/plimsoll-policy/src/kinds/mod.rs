//! The kinds of objects, one file each: from the tree to the API's message, with the place of each field.

pub(crate) mod class;
pub(crate) mod elastic;
pub(crate) mod node_limits;
mod places;
mod points;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod quota;
pub(crate) mod reservation;
pub(crate) mod scaling_policy;
pub(crate) mod schedule;
mod selector;
pub(crate) mod service;
mod spot;
pub(crate) mod validator;

use std::collections::BTreeMap;

use plimsoll_types::quantity::parse_resource;

use crate::context::{Block, Context};
use crate::node::Node;
use crate::problem::Mark;

/// Words that people use for resources that have another name here.
const OTHER_WORDS: [(&str, &str); 8] = [
    ("mem", "memory"),
    ("ram", "memory"),
    ("cores", "cpu"),
    ("core", "cpu"),
    ("cpus", "cpu"),
    ("vcpu", "cpu"),
    ("cpu_millis", "cpu"),
    ("memory_bytes", "memory"),
];

/// The name of the object, from its metadata.
pub(crate) fn name(context: &mut Context<'_>, metadata: &Block<'_>, wire: &str) -> String {
    text(context, metadata, "name", &format!("{wire}.name"), "metadata.name")
}

/// The text under a key, which stands at `path` in the file and at `wire` in the message; empty where there is none.
fn text(context: &mut Context<'_>, block: &Block<'_>, key: &'static str, wire: &str, path: &str) -> String {
    context.locate(wire, block.mark_of(key), path);
    block.get(key).and_then(|node| context.text(node, path)).unwrap_or_default()
}

/// Labels, from the metadata.
pub(crate) fn labels(
    context: &mut Context<'_>,
    metadata: &Block<'_>,
    wire: &str,
) -> BTreeMap<String, String> {
    let Some(node) = metadata.get("labels") else { return BTreeMap::new() };
    context.locate(format!("{wire}.labels"), node.mark, "metadata.labels");
    let mut labels = BTreeMap::new();
    for (key, mark, value) in context.entries(node, "metadata.labels") {
        let path = format!("metadata.labels.{key}");
        context.locate(format!("{wire}.labels[{key:?}]"), mark, path.clone());
        if let Some(text) = context.text(value, &path) {
            labels.insert(key, text);
        }
    }
    labels
}

/// Amounts by resource name, each in the grammar of its resource; `wire` makes the message's path of a name.
pub(crate) fn amounts(
    context: &mut Context<'_>,
    node: &Node,
    path: &str,
    wire: impl Fn(&str) -> String,
) -> BTreeMap<String, u64> {
    let mut amounts = BTreeMap::new();
    for (name, mark, value) in resources(context, node, path) {
        let path = format!("{path}.{name}");
        context.locate(wire(&name), mark, path.clone());
        if let Some(amount) = context.quantity(value, &path, |text| parse_resource(&name, text)) {
            amounts.insert(name, amount);
        }
    }
    amounts
}

/// What is kept of a pool, by resource: devices as people count them. `wire` is the field of the message.
pub(crate) fn kept(context: &mut Context<'_>, node: &Node, path: &str, wire: &str) -> BTreeMap<String, u64> {
    let mut kept = BTreeMap::new();
    for (resource, mark, node) in resources(context, node, path) {
        let path = format!("{path}.{resource}");
        context.locate(format!("{wire}[{resource:?}]"), mark, path.clone());
        if let Some(amount) = context.quantity(node, &path, |text| queue::read_amount(&resource, text)) {
            kept.insert(resource, amount);
        }
    }
    kept
}

/// The resource that a word means which is written in another way, or is another word for it.
pub(crate) fn meant(name: &str) -> Option<&'static str> {
    let plain = name.to_lowercase();
    let other = OTHER_WORDS.iter().find(|(word, _)| *word == plain).map(|(_, meant)| *meant);
    other.or_else(|| ["cpu", "memory", "gpu"].into_iter().find(|known| *known == plain))
}

/// Entries of a block whose keys are resources; a key that means another resource is told and left out.
pub(crate) fn resources<'n>(
    context: &mut Context<'_>,
    node: &'n Node,
    path: &str,
) -> Vec<(String, Mark, &'n Node)> {
    let mut entries = context.entries(node, path);
    entries.retain(|(name, mark, _)| {
        let wrong = meant(name).filter(|meant| meant != name);
        if let Some(meant) = wrong {
            context.fail(*mark, format!("unknown resource {name:?}; did you mean {meant:?}?"));
        }
        wrong.is_none()
    });
    entries
}
