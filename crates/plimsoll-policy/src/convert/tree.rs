//! A document of which every value is accounted for: taken into an object, or told.

use std::cell::RefCell;
use std::collections::BTreeMap;

use plimsoll_types::quantity::{
    QuantityError, format_bytes, format_cpu_millis, format_duration_ms, parse_bytes, parse_cpu_millis,
    parse_duration_ms, parse_resource,
};
use serde_json::{Map, Value};

use super::Remark;
use crate::kinds::meant;
use crate::node::{Node, Value as NodeValue};
use crate::problem::Source;

/// What is said of values that nobody looked at.
const NO_COUNTERPART: &str = "has no counterpart yet";

/// A document, and what became of its values.
pub(super) struct Tree<'s> {
    source: &'s Source,
    root: &'s Node,
    /// Paths that are dealt with, with all below them; with a remark where they are in no document.
    done: RefCell<BTreeMap<String, Option<String>>>,
    /// What is said beside of places, whatever becomes of their values.
    notes: RefCell<Vec<(String, String)>>,
}

/// A place in a document.
pub(super) struct At<'t, 's> {
    tree: &'t Tree<'s>,
    pub(super) path: String,
    node: &'s Node,
}

impl<'s> Tree<'s> {
    pub(super) fn new(source: &'s Source, root: &'s Node) -> Tree<'s> {
        Tree { source, root, done: RefCell::default(), notes: RefCell::default() }
    }

    /// The whole document.
    pub(super) fn root(&self) -> At<'_, 's> {
        At { tree: self, path: String::new(), node: self.root }
    }

    /// Everything that is in no document, and every note.
    pub(super) fn remarks(&self) -> Vec<Remark> {
        let mut remarks = Vec::new();
        self.collect(self.root, "", &mut remarks);
        remarks
    }

    fn collect(&self, node: &Node, path: &str, remarks: &mut Vec<Remark>) {
        let done = self.done.borrow();
        let mut remark = |why: &str| {
            let shown = if path.is_empty() { "the document" } else { path };
            remarks.push(Remark {
                place: node.mark.place(self.source),
                path: shown.to_owned(),
                why: why.to_owned(),
            });
        };
        for (_, why) in self.notes.borrow().iter().filter(|(noted, _)| noted == path) {
            remark(why);
        }
        match done.get(path) {
            Some(Some(why)) => return remark(why),
            Some(None) => return,
            None => {}
        }
        let below = |known: &String| {
            known.len() > path.len()
                && known.starts_with(path)
                && (path.is_empty() || known[path.len()..].starts_with(['.', '[']))
        };
        if !path.is_empty() && !done.keys().any(below) {
            return remark(NO_COUNTERPART);
        }
        drop(done);
        match &node.value {
            NodeValue::Map(pairs) => {
                for (key, value) in pairs {
                    self.collect(value, &join(path, &text_of(key)), remarks);
                }
            }
            NodeValue::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.collect(item, &format!("{path}[{index}]"), remarks);
                }
            }
            NodeValue::Null => {}
            NodeValue::Scalar(_) => {
                remarks.push(Remark {
                    place: node.mark.place(self.source),
                    path: if path.is_empty() { "the document".to_owned() } else { path.to_owned() },
                    why: NO_COUNTERPART.to_owned(),
                });
            }
        }
    }
}

impl<'t, 's> At<'t, 's> {
    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<At<'t, 's>> {
        let NodeValue::Map(pairs) = &self.node.value else { return None };
        let (_, node) = pairs.iter().find(|(known, _)| text_of(known) == key)?;
        Some(At { tree: self.tree, path: join(&self.path, key), node })
    }

    /// The value at the end of a way of keys.
    pub(super) fn at(&self, way: &[&str]) -> Option<At<'t, 's>> {
        let (first, rest) = way.split_first()?;
        let next = self.get(first)?;
        if rest.is_empty() { Some(next) } else { next.at(rest) }
    }

    /// Keys with their values.
    pub(super) fn entries(&self) -> Vec<(String, At<'t, 's>)> {
        let NodeValue::Map(pairs) = &self.node.value else { return Vec::new() };
        let entry = |(key, node): &'s (Node, Node)| {
            let key = text_of(key);
            let path = join(&self.path, &key);
            (key, At { tree: self.tree, path, node })
        };
        pairs.iter().map(entry).collect()
    }

    /// Items of a list.
    pub(super) fn items(&self) -> Vec<At<'t, 's>> {
        let NodeValue::List(items) = &self.node.value else { return Vec::new() };
        let item = |(index, node)| At { tree: self.tree, path: format!("{}[{index}]", self.path), node };
        items.iter().enumerate().map(item).collect()
    }

    /// The text of a single value, without taking it.
    pub(super) fn peek(&self) -> Option<&'s str> {
        match &self.node.value {
            NodeValue::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// It is in a document, with all below it.
    pub(super) fn take(&self) {
        self.tree.done.borrow_mut().insert(self.path.clone(), None);
    }

    /// It is in no document, and this is said of it.
    pub(super) fn tell(&self, why: impl Into<String>) {
        self.tree.done.borrow_mut().insert(self.path.clone(), Some(why.into()));
    }

    /// This is said of it, whatever becomes of what is below it: what the documents leave to be decided.
    pub(super) fn note(&self, why: impl Into<String>) {
        self.tree.notes.borrow_mut().push((self.path.clone(), why.into()));
    }

    /// Where a key of it says so, this is said of that.
    pub(super) fn tell_of(&self, key: &str, why: &str) {
        if let Some(at) = self.get(key) {
            at.tell(why);
        }
    }

    /// Single text, taken.
    pub(super) fn text(&self) -> Option<String> {
        let text = self.peek()?;
        self.take();
        Some(text.to_owned())
    }

    /// A number or a text, as documents have it, taken.
    pub(super) fn value(&self) -> Option<Value> {
        self.text().map(|text| number(&text))
    }

    /// A whole number, taken; told where it is none.
    pub(super) fn whole(&self) -> Option<u64> {
        match self.peek()?.parse() {
            Ok(number) => {
                self.take();
                Some(number)
            }
            Err(_) => {
                self.tell("is not a whole number");
                None
            }
        }
    }

    /// A quantity in its canonical form, taken; told where it is none.
    pub(super) fn quantity(&self, read: impl Fn(&str) -> Result<String, QuantityError>) -> Option<Value> {
        match read(self.peek()?) {
            Ok(text) => {
                self.take();
                Some(number(&text))
            }
            Err(error) => {
                self.tell(error.to_string());
                None
            }
        }
    }

    /// An amount of a resource in its canonical form; a bandwidth as it is written.
    pub(super) fn amount(&self, resource: &str) -> Option<Value> {
        self.quantity(|text| match resource.split('/').next().unwrap_or_default() {
            "cpu" | "gpu" => parse_cpu_millis(text).map(format_cpu_millis),
            "memory" | "storage" => parse_bytes(text).map(format_bytes),
            _ => parse_resource(resource, text).map(|_| text.to_owned()),
        })
    }

    /// Amounts by resource, under the names that resources have here; none of what nothing is asked of.
    pub(super) fn amounts(&self) -> Map<String, Value> {
        let mut amounts = Map::new();
        for (resource, at) in self.entries() {
            // Another unit is no other word: it stays, and is refused.
            let other = meant(&resource).filter(|_| resource != "cpu_millis");
            let resource = other.map_or(resource, str::to_owned);
            amounts
                .extend(at.amount(&resource).filter(|amount| *amount != 0).map(|amount| (resource, amount)));
        }
        amounts
    }

    /// A number with at most three places, taken; told where it is none.
    pub(super) fn decimal(&self) -> Option<Value> {
        self.quantity(|text| parse_cpu_millis(text).map(|_| text.to_owned()))
    }

    /// A duration in its canonical form; bare numbers are seconds.
    pub(super) fn duration(&self) -> Option<String> {
        let value = self.quantity(|text| parse_duration_ms(text).map(format_duration_ms))?;
        value.as_str().map(str::to_owned)
    }

    /// True where it is switched off, which is said of the whole block; switched on is how every document is.
    pub(super) fn is_off(&self) -> bool {
        if self.is("enabled", "false") {
            self.tell("is switched off, and so in no document");
            return true;
        }
        self.is("enabled", "true");
        false
    }

    /// True where a key of it has this value, which is taken then.
    pub(super) fn is(&self, key: &str, text: &str) -> bool {
        let found = self.get(key).filter(|value| value.peek() == Some(text));
        if let Some(found) = &found {
            found.take();
        }
        found.is_some()
    }
}

/// A number where it is one, else the text.
pub(super) fn number(text: &str) -> Value {
    if let Ok(whole) = text.parse::<u64>() {
        return whole.into();
    }
    match text.parse::<f64>() {
        Ok(decimal) if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => decimal.into(),
        _ => text.into(),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn text_of(key: &Node) -> String {
    match &key.value {
        NodeValue::Scalar(text) => text.clone(),
        _ => String::new(),
    }
}
