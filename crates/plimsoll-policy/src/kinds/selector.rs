//! Selectors of nodes: a list of conditions on labels.

use plimsoll_proto::v1;
use plimsoll_proto::v1::SelectorOperator as Operator;

use super::places;
use crate::context::{Block, Context};
use crate::node::Node;

/// Operators as Kubernetes writes them.
pub(crate) const OPERATORS: [(&str, Operator); 6] = [
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
    ("Gt", Operator::Gt),
    ("Lt", Operator::Lt),
];

/// What a list of conditions looks like, for messages.
const EXAMPLE: &str = "[{ key: zone, operator: In, values: [a, b] }]";

/// What a list of weighed conditions looks like, for messages.
const WISH: &str = "[{ weight: 10, key: zone, operator: In, values: [a] }]";

/// The conditions of `spec.select`.
pub(crate) fn select(context: &mut Context<'_>, node: &Node, wire: &str) -> Vec<v1::NodeSelectorTerm> {
    conditions(context, node, "spec.select", &format!("{wire}.select"))
}

/// Conditions on labels under any key.
pub(crate) fn conditions(
    context: &mut Context<'_>,
    node: &Node,
    path: &str,
    wire: &str,
) -> Vec<v1::NodeSelectorTerm> {
    context.locate(wire, node.mark, path);
    let terms = context.list(node, path, EXAMPLE);
    let mut read = Vec::with_capacity(terms.len());
    for (position, node) in terms.iter().enumerate() {
        let (path, wire) = (format!("{path}[{position}]"), format!("{wire}[{position}]"));
        read.push(context.part(&wire, |context| {
            let block = context.block(node, &path, &["key", "operator", "values"]);
            term(context, &block, &path, &wire)
        }));
    }
    read
}

/// Conditions with a weight each, under `spec.prefer`: a place where one holds scores so much more.
pub(crate) fn wishes(
    context: &mut Context<'_>,
    node: &Node,
    path: &str,
    wire: &str,
) -> Vec<v1::PreferredTerm> {
    context.locate(wire, node.mark, path);
    let mut read = Vec::new();
    for (position, node) in context.list(node, path, WISH).iter().enumerate() {
        let (path, wire) = (format!("{path}[{position}]"), format!("{wire}[{position}]"));
        read.push(context.part(&wire, |context| {
            let block = context.block(node, &path, &["weight", "key", "operator", "values"]);
            context.locate(format!("{wire}.weight"), block.mark_of("weight"), format!("{path}.weight"));
            let weight = places::weight(context, &block, &path);
            let term = term(context, &block, &path, &format!("{wire}.term"));
            v1::PreferredTerm { weight, term: Some(term) }
        }));
    }
    read
}

fn term(context: &mut Context<'_>, block: &Block<'_>, path: &str, wire: &str) -> v1::NodeSelectorTerm {
    for field in ["key", "operator", "values"] {
        context.locate(format!("{wire}.{field}"), block.mark_of(field), format!("{path}.{field}"));
    }
    let key = block.get("key").and_then(|node| context.text(node, &format!("{path}.key")));
    let operator = block
        .get("operator")
        .and_then(|node| context.word(node, &format!("{path}.operator"), &OPERATORS))
        .unwrap_or(Operator::Unspecified);
    let mut values = Vec::new();
    if let Some(list) = block.get("values") {
        let items = context.list(list, &format!("{path}.values"), "[a, b]");
        for (position, item) in items.iter().enumerate() {
            let path = format!("{path}.values[{position}]");
            context.locate(format!("{wire}.values[{position}]"), item.mark, path.clone());
            values.extend(context.text(item, &path));
        }
    }
    v1::NodeSelectorTerm { key: key.unwrap_or_default(), operator: operator.into(), values }
}
