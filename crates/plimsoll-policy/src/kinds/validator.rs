//! `kind: Validator`.

use plimsoll_expr::{Expression, Problem as ExpressionProblem};
use plimsoll_proto::v1;
use plimsoll_validators::Subject;

use super::name;
use crate::context::{Block, Context};
use crate::node::{Node, Value};
use crate::problem::Mark;

/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 1] = ["name"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 3] = ["for", "match", "rules"];
/// Keys of a rule.
const RULE: [&str; 3] = ["expression", "message", "path"];
/// What rules look like, for messages.
const EXAMPLE: &str = "[{ expression: request.gpu <= 8, message: at most 8, path: spec.resources.gpu }]";

/// Reads a validator, its expressions checked.
pub(crate) fn read(context: &mut Context<'_>, metadata: &Block<'_>, spec: &Block<'_>) -> v1::Validator {
    let mut object = v1::Validator { name: name(context, metadata, "validator"), ..v1::Validator::default() };
    context.locate("validator.subject", spec.mark_of("for"), "spec.for");
    let subject = spec.get("for").and_then(|node| context.word(node, "spec.for", &Subject::WORDS));
    if let Some(subject) = subject {
        object.subject = word(subject).to_owned();
    }
    if let Some(node) = spec.get("match") {
        let block = context.block(node, "spec.match", &["pool", "queue"]);
        if subject.is_some_and(|subject| !subject.has_places()) {
            context.fail(node.mark, "spec.match: objects of this kind belong to no pool or queue");
        }
        object.pools = names(context, &block, "pool", "pools");
        object.queues = names(context, &block, "queue", "queues");
    }
    context.locate("validator.rules", spec.mark_of("rules"), "spec.rules");
    if let Some(node) = spec.get("rules") {
        for (index, node) in context.list(node, "spec.rules", EXAMPLE).iter().enumerate() {
            let rule = rule(context, node, index, subject);
            object.rules.push(rule);
        }
    }
    object
}

/// The word of a kind.
pub(crate) fn word(subject: Subject) -> &'static str {
    Subject::WORDS.iter().find(|(_, known)| *known == subject).map_or("", |(word, _)| *word)
}

/// One name, or a list of them.
fn names(context: &mut Context<'_>, block: &Block<'_>, key: &str, wire: &str) -> Vec<String> {
    let Some(node) = block.get(key) else { return Vec::new() };
    let path = format!("spec.match.{key}");
    let list = match &node.value {
        Value::Scalar(_) => std::slice::from_ref(node),
        _ => context.list(node, &path, "[a, b]"),
    };
    let mut names = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        context.locate(format!("validator.{wire}[{index}]"), item.mark, path.clone());
        names.extend(context.text(item, &path));
    }
    names
}

fn rule(context: &mut Context<'_>, node: &Node, index: usize, subject: Option<Subject>) -> v1::ValidatorRule {
    let path = format!("spec.rules[{index}]");
    let block = context.block(node, &path, &RULE);
    let mut rule = v1::ValidatorRule::default();
    for (key, field) in
        [("expression", &mut rule.expression), ("message", &mut rule.message), ("path", &mut rule.path)]
    {
        let place = format!("{path}.{key}");
        context.locate(format!("validator.rules[{index}].{key}"), block.mark_of(key), place.clone());
        *field = block.get(key).and_then(|node| context.text(node, &place)).unwrap_or_default();
    }
    let written = block.get("expression");
    if let (Some(subject), Some(node)) = (subject, written.filter(|_| !rule.expression.trim().is_empty()))
        && let Err(problem) = Expression::parse(&rule.expression, &subject.names())
    {
        let mark = mark(context, node.mark, &rule.expression, &problem);
        context.fail(mark, format!("{path}.expression: {}", problem.sentence()));
    }
    rule
}

/// The place of a problem in the file, where the expression stands in one line as it is written; else that of the expression.
fn mark(context: &Context<'_>, written: Mark, expression: &str, problem: &ExpressionProblem) -> Mark {
    let line = context.source.text.lines().nth(written.line as usize - 1).unwrap_or_default();
    let rest: String = line.chars().skip(written.column as usize - 1).collect();
    let quotes = u32::from(rest.starts_with(['"', '\'']));
    if problem.line != 1 || !rest[quotes as usize..].starts_with(expression) {
        return written;
    }
    Mark { line: written.line, column: written.column + quotes + problem.column - 1, width: problem.width }
}
