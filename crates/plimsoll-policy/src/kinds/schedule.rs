//! `kind: Schedule`. What files say in several keys becomes the one line of text that a rule is.

use plimsoll_calendar::Recurrence;
use plimsoll_proto::v1;

use super::{kept, labels, name};
use crate::context::{Block, Context};
use crate::node::{Node, Value};
use crate::problem::Mark;

/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 2] = ["name", "labels"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 16] = [
    "pool",
    "resources",
    "window",
    "days",
    "rrule",
    "duration",
    "from",
    "timezone",
    "at",
    "for",
    "except",
    "pipelines",
    "queues",
    "tenants",
    "classes",
    "shorten",
];
/// Keys of a window that is a block.
const WINDOW: [&str; 4] = ["start", "end", "timezone", "days"];

/// Reads a schedule.
pub(crate) fn read(context: &mut Context<'_>, metadata: &Block<'_>, spec: &Block<'_>) -> v1::Schedule {
    let mut schedule = v1::Schedule {
        name: name(context, metadata, "schedule"),
        labels: labels(context, metadata, "schedule"),
        ..v1::Schedule::default()
    };
    if let Some(node) = spec.get("pool") {
        context.locate("schedule.pool", node.mark, "spec.pool");
        schedule.pool = context.text(node, "spec.pool").unwrap_or_default();
    }
    context.locate("schedule.resources", spec.mark_of("resources"), "spec.resources");
    if let Some(node) = spec.get("resources") {
        schedule.resources = kept(context, node, "spec.resources", "schedule.resources");
    }
    let rule = rule(context, spec);
    rule.locate(context, spec.mark);
    schedule.rule = rule.text();
    for (key, patterns) in [
        ("pipelines", &mut schedule.pipelines),
        ("queues", &mut schedule.queues),
        ("tenants", &mut schedule.tenants),
        ("classes", &mut schedule.classes),
    ] {
        if let Some(node) = spec.get(key) {
            let path = format!("spec.{key}");
            context.locate(format!("schedule.{key}"), node.mark, path.clone());
            let example = format!("{key}: [\"production_*\"]");
            let items = context.list(node, &path, &example);
            *patterns = items.iter().filter_map(|item| context.text(item, &path)).collect();
        }
    }
    schedule.shorten =
        spec.get("shorten").and_then(|node| context.boolean(node, "spec.shorten")).unwrap_or_default();
    schedule
}

/// Words of a rule in their order, each with where it stands in the file.
#[derive(Default)]
struct Rule {
    parts: Vec<(String, Mark, String)>,
    /// What is wrong with the keys alone was told here: the rule that is missing for it is not.
    told_at: Option<Mark>,
}

impl Rule {
    fn text(&self) -> String {
        let words: Vec<&str> = self.parts.iter().map(|(text, ..)| text.as_str()).collect();
        words.join(" ")
    }

    /// Puts what is wrong with the rule where it stands.
    fn locate(&self, context: &mut Context<'_>, spec: Mark) {
        if let Some(mark) = self.told_at {
            return context.locate("schedule.rule", mark, "spec");
        }
        let wrong = self.text().parse::<Recurrence>().err().map(|error| error.word);
        let holds =
            |(text, ..): &&(String, Mark, String)| wrong.as_ref().is_some_and(|word| text.contains(word));
        let found = self.parts.iter().find(holds).or_else(|| self.parts.first());
        let (mark, path) =
            found.map_or_else(|| (spec, "spec.window".to_owned()), |(_, mark, path)| (*mark, path.clone()));
        context.locate("schedule.rule", mark, path);
    }

    fn add(&mut self, words: &str, text: &str, mark: Mark, path: &str) {
        self.parts.push((format!("{words}{text}"), mark, path.to_owned()));
    }

    /// Adds a key's text, with words before it.
    fn take(&mut self, context: &mut Context<'_>, block: &Block<'_>, key: &str, path: &str, words: &str) {
        let path = format!("{path}.{key}");
        if let Some(node) = block.get(key)
            && let Some(text) = joined(context, node, &path)
        {
            self.add(words, &text, node.mark, &path);
        }
    }
}

fn rule(context: &mut Context<'_>, spec: &Block<'_>) -> Rule {
    let mut rule = Rule::default();
    let given: Vec<&str> =
        ["window", "rrule", "at"].into_iter().filter(|key| spec.get(key).is_some()).collect();
    match given.as_slice() {
        ["window"] => window(context, spec, &mut rule),
        ["rrule"] => {
            if let Some(node) = spec.get("rrule")
                && let Some(text) = context.text(node, "spec.rrule")
            {
                let text: String = text.split_whitespace().collect();
                rule.add("rrule ", &text, node.mark, "spec.rrule");
            }
            rule.take(context, spec, "duration", "spec", "for ");
            rule.take(context, spec, "from", "spec", "from ");
            match spec.get("timezone") {
                Some(_) => rule.take(context, spec, "timezone", "spec", ""),
                None => rule.add("", "UTC", spec.mark_of("rrule"), "spec.rrule"),
            }
        }
        [_] => {
            rule.take(context, spec, "at", "spec", "at ");
            rule.take(context, spec, "for", "spec", "for ");
            rule.take(context, spec, "timezone", "spec", "");
        }
        [] => {
            let ways = "window: \"22:00-06:00 UTC\", window: always, rrule with duration, or at with for";
            context.fail(spec.mark, format!("spec says not when: write {ways}"));
            rule.told_at = Some(spec.mark);
        }
        [first, second, ..] => {
            let mark = spec.mark_of(second);
            context.fail(mark, format!("spec.{second} stands beside spec.{first}: leave one of them out"));
            rule.told_at = Some(mark);
        }
    }
    rule.take(context, spec, "except", "spec", "except ");
    rule
}

/// A line of text, or start and end with a time zone and days.
fn window(context: &mut Context<'_>, spec: &Block<'_>, rule: &mut Rule) {
    let Some(node) = spec.get("window") else { return };
    if let Value::Scalar(text) = &node.value {
        rule.add("", text, node.mark, "spec.window");
        return rule.take(context, spec, "days", "spec", "");
    }
    let block = context.block(node, "spec.window", &WINDOW);
    let mut clock = |key: &str| {
        let path = format!("spec.window.{key}");
        block.get(key).and_then(|node| context.text(node, &path)).unwrap_or_default()
    };
    let times = format!("{}-{}", clock("start"), clock("end"));
    rule.add("", &times, node.mark, "spec.window");
    rule.take(context, &block, "timezone", "spec.window", "");
    rule.take(context, &block, "days", "spec.window", "");
    rule.take(context, spec, "days", "spec", "");
}

/// A word, or the words of a list with commas between.
fn joined(context: &mut Context<'_>, node: &Node, path: &str) -> Option<String> {
    match &node.value {
        Value::List(items) => {
            let words: Vec<String> = items.iter().filter_map(|item| context.text(item, path)).collect();
            (!words.is_empty()).then(|| words.join(","))
        }
        _ => context.text(node, path),
    }
}
