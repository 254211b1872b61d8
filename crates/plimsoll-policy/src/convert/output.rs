//! Objects as they come together, from several blocks each.

use plimsoll_ledger::limits::MAX_RULES;
use serde_json::{Map, Value, json};

use super::tree::At;
use crate::document::API_VERSION;

/// Objects as they come together.
#[derive(Debug, Default)]
pub(super) struct Output {
    objects: Vec<Object>,
}

#[derive(Debug)]
struct Object {
    kind: &'static str,
    name: String,
    labels: Map<String, Value>,
    spec: Map<String, Value>,
}

impl Output {
    /// The spec of an object; the same object each time.
    pub(super) fn object(&mut self, kind: &'static str, name: &str) -> &mut Map<String, Value> {
        &mut self.entry(kind, name).spec
    }

    /// True where some block said something of the object.
    pub(super) fn has(&self, kind: &str, name: &str) -> bool {
        self.objects.iter().any(|object| object.kind == kind && object.name == name)
    }

    /// Puts a label on an object.
    pub(super) fn label(&mut self, kind: &'static str, name: &str, key: &str, value: &str) {
        self.entry(kind, name).labels.insert(key.to_owned(), value.into());
    }

    /// Adds to a block of an object, where there is something to add.
    pub(super) fn merge(&mut self, kind: &'static str, name: &str, key: &str, block: Map<String, Value>) {
        if block.is_empty() {
            return;
        }
        let there = self.object(kind, name).entry(key).or_insert_with(|| Value::Object(Map::new()));
        if let Some(there) = there.as_object_mut() {
            there.extend(block);
        }
    }

    /// Adds a rule to a validator of requests; to the next one of its name where it is full.
    pub(super) fn rule(&mut self, validator: &str, expression: String, message: String, path: &str) {
        let names = std::iter::once(validator.to_owned()).chain((2..).map(|n| format!("{validator}-{n}")));
        for name in names {
            let spec = self.object("Validator", &name);
            spec.entry("for").or_insert_with(|| "Reservation".into());
            let rules = spec.entry("rules").or_insert_with(|| Value::Array(Vec::new()));
            if let Some(rules) = rules.as_array_mut().filter(|rules| rules.len() < MAX_RULES) {
                return rules.push(json!({ "expression": expression, "message": message, "path": path }));
            }
        }
    }

    /// All of them as documents.
    pub(super) fn finish(self) -> Vec<Value> {
        self.objects.into_iter().map(Object::document).collect()
    }

    fn entry(&mut self, kind: &'static str, name: &str) -> &mut Object {
        let known = self.objects.iter().position(|object| object.kind == kind && object.name == name);
        let index = known.unwrap_or_else(|| {
            let (labels, spec) = (Map::new(), Map::new());
            self.objects.push(Object { kind, name: name.to_owned(), labels, spec });
            self.objects.len() - 1
        });
        &mut self.objects[index]
    }
}

impl Object {
    fn document(self) -> Value {
        let mut metadata = json!({ "name": self.name });
        if !self.labels.is_empty() {
            metadata["labels"] = self.labels.into();
        }
        json!({ "apiVersion": API_VERSION, "kind": self.kind, "metadata": metadata, "spec": self.spec })
    }
}

/// A name as objects have them: lower case, and nothing that names cannot have.
pub(super) fn object_name(at: &At<'_, '_>, text: &str) -> Option<String> {
    let name = text.to_lowercase().replace(' ', "-");
    if plimsoll_types::check_name(&name).is_ok() {
        return Some(name);
    }
    at.tell(format!("{text:?} is not a name that an object can have"));
    None
}
