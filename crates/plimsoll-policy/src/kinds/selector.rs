//! Selectors of nodes: a list of conditions on labels.

use plimsoll_proto::v1;
use plimsoll_proto::v1::SelectorOperator as Operator;

use crate::context::Context;
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
        read.push(term(context, node, &path, &wire));
    }
    read
}

fn term(context: &mut Context<'_>, node: &Node, path: &str, wire: &str) -> v1::NodeSelectorTerm {
    let problems = context.problems.len();
    let block = context.block(node, path, &["key", "operator", "values"]);
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
    if context.problems.len() > problems {
        context.spoil(wire);
    }
    v1::NodeSelectorTerm { key: key.unwrap_or_default(), operator: operator.into(), values }
}
