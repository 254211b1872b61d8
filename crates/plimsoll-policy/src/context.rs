//! Reads blocks of keys and single values of one source, and collects what is wrong with them.

use std::collections::BTreeMap;

use plimsoll_proto::convert::Violation;
use plimsoll_types::quantity::QuantityError;

use crate::node::{Node, Value};
use crate::problem::{Mark, Problem, Source};
use crate::suggest::hint;

/// One source, the problems found in it, and where the present object's fields stand.
#[derive(Debug)]
pub(crate) struct Context<'s> {
    pub(crate) source: &'s Source,
    pub(crate) problems: Vec<Problem>,
    /// Path of a field in the API's message, its place and its path in the file.
    fields: BTreeMap<String, (Mark, String)>,
    /// Paths in the message whose contents could not all be read: what its checks say of them would mislead.
    spoiled: Vec<String>,
}

/// Keys of a block that are known, with their values.
#[derive(Debug)]
pub(crate) struct Block<'n> {
    /// Where the block begins.
    pub(crate) mark: Mark,
    entries: BTreeMap<&'static str, &'n Node>,
}

impl<'n> Block<'n> {
    /// The value of a key; a key without value counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.get(key).copied().filter(|node| !matches!(node.value, Value::Null))
    }

    /// Where a key's value stands, or the block where the key is absent.
    pub(crate) fn mark_of(&self, key: &str) -> Mark {
        self.entries.get(key).map_or(self.mark, |node| node.mark)
    }
}

impl<'s> Context<'s> {
    pub(crate) fn new(source: &'s Source) -> Context<'s> {
        Context { source, problems: Vec::new(), fields: BTreeMap::new(), spoiled: Vec::new() }
    }

    /// Something is wrong at a place.
    pub(crate) fn fail(&mut self, mark: Mark, message: impl Into<String>) {
        self.problems.push(Problem::new(self.source, mark, message));
    }

    /// A new object begins.
    pub(crate) fn begin(&mut self) {
        self.fields.clear();
        self.spoiled.clear();
    }

    /// Remembers where a field of the message stands.
    pub(crate) fn locate(&mut self, wire: impl Into<String>, mark: Mark, path: impl Into<String>) {
        self.fields.insert(wire.into(), (mark, path.into()));
    }

    /// Reads a part of the message. Where not all of it could be read, and that was told, its checks are not asked.
    pub(crate) fn part<T>(&mut self, wire: &str, read: impl FnOnce(&mut Context<'s>) -> T) -> T {
        let problems = self.problems.len();
        let part = read(self);
        if self.problems.len() > problems {
            self.spoiled.push(format!("{wire}."));
        }
        part
    }

    /// Takes over what the API's own checks found. A place that has a problem already gets no second one.
    pub(crate) fn violations(&mut self, object: Mark, violations: Vec<Violation>) {
        for violation in violations {
            if self.spoiled.iter().any(|path| violation.field.starts_with(path.as_str())) {
                continue;
            }
            let (mark, path) = self.place_of(&violation.field).unwrap_or((object, violation.field));
            let known = |problem: &Problem| problem.place == mark.place(self.source);
            if self.problems.iter().any(known) {
                continue;
            }
            // Some descriptions begin with the value, others are the rest of a sentence about the field.
            let separator = if violation.description.starts_with('"') { ": " } else { " " };
            self.fail(mark, format!("{path}{separator}{}", violation.description));
        }
    }

    /// The place of a field, or of the nearest one around it.
    fn place_of(&self, wire: &str) -> Option<(Mark, String)> {
        let mut path = wire;
        loop {
            if let Some(found) = self.fields.get(path) {
                return Some(found.clone());
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// A block of keys, all of which must be known. Nothing at all is an empty block.
    pub(crate) fn block<'n>(&mut self, node: &'n Node, path: &str, known: &[&'static str]) -> Block<'n> {
        let mut entries = BTreeMap::new();
        match &node.value {
            Value::Null => {}
            Value::Map(pairs) => {
                for (key, value) in pairs {
                    let text = key_text(key);
                    match known.iter().find(|candidate| **candidate == text) {
                        Some(name) => drop(entries.insert(*name, value)),
                        None => {
                            let place = if path.is_empty() { String::new() } else { format!(" in {path}") };
                            let hint = hint(&text, known);
                            self.fail(key.mark, format!("unknown key {text:?}{place}{hint}"));
                        }
                    }
                }
            }
            other => {
                let what = if path.is_empty() { "a document" } else { path };
                self.fail(node.mark, format!("{what} is {}, a block of keys is expected", other.describe()));
            }
        }
        Block { mark: node.mark, entries }
    }

    /// Keys of any name with their values, in the order of the file.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node, path: &str) -> Vec<(String, Mark, &'n Node)> {
        match &node.value {
            Value::Null => Vec::new(),
            Value::Map(pairs) => pairs.iter().map(|(key, value)| (key_text(key), key.mark, value)).collect(),
            other => {
                self.fail(node.mark, format!("{path} is {}, a block of keys is expected", other.describe()));
                Vec::new()
            }
        }
    }

    /// The entries of a list.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, path: &str, example: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Null => &[],
            other => {
                self.fail(
                    node.mark,
                    format!("{path} is {}, a list is expected: {example}", other.describe()),
                );
                &[]
            }
        }
    }

    /// Text; numbers and words are text as they are written.
    pub(crate) fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.value {
            Value::Scalar(text) => Some(text.clone()),
            other => {
                self.fail(node.mark, format!("{path} is {}, one word is expected", other.describe()));
                None
            }
        }
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        node: &Node,
        path: &str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(node, path)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.fail(node.mark, format!("{path} {text:?} is not known{}", hint(&text, &known)));
        }
        found
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, node: &Node, path: &str) -> Option<bool> {
        match &node.value {
            Value::Scalar(text) if text == "true" => Some(true),
            Value::Scalar(text) if text == "false" => Some(false),
            other => {
                self.fail(node.mark, format!("{path} is {}, true or false is expected", other.describe()));
                None
            }
        }
    }

    /// A whole number between two bounds, both included.
    pub(crate) fn integer(&mut self, node: &Node, path: &str, least: i64, most: i64) -> Option<i64> {
        let number = match &node.value {
            Value::Scalar(text) => text.parse::<i64>().ok(),
            _ => None,
        };
        match number {
            Some(number) if (least..=most).contains(&number) => Some(number),
            Some(number) => {
                self.fail(node.mark, format!("{path} is {number}, must be {least} to {most}"));
                None
            }
            None => {
                let found = node.value.describe();
                self.fail(node.mark, format!("{path} is {found}, a whole number is expected"));
                None
            }
        }
    }

    /// A quantity in the grammar of `read`.
    pub(crate) fn quantity(
        &mut self,
        node: &Node,
        path: &str,
        read: impl FnOnce(&str) -> Result<u64, QuantityError>,
    ) -> Option<u64> {
        let text = match &node.value {
            Value::Scalar(text) => text,
            other => {
                self.fail(node.mark, format!("{path} is {}, a quantity is expected", other.describe()));
                return None;
            }
        };
        read(text).map_err(|error| self.fail(node.mark, format!("{path}: {error}"))).ok()
    }
}

fn key_text(key: &Node) -> String {
    match &key.value {
        Value::Scalar(text) => text.clone(),
        Value::Null | Value::List(_) | Value::Map(_) => String::new(),
    }
}
