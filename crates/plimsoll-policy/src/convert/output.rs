//! Objects as they come together, from several blocks each.

use plimsoll_ledger::limits::MAX_RULES;
use serde_json::{Map, Value, json};

use super::Remark;
use super::tree::At;
use crate::document::API_VERSION;
use crate::problem::Place;

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
    /// Where the document begins that said it first, once it is joined to others.
    place: Option<Place>,
}

impl Output {
    /// The spec of an object; the same object each time.
    pub(super) fn object(&mut self, kind: &'static str, name: &str) -> &mut Map<String, Value> {
        &mut self.entry(kind, name).spec
    }

    /// True where some block said something of the object.
    pub(super) fn has(&self, kind: &str, name: &str) -> bool {
        self.position(kind, name).is_some()
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

    /// Adds what a document says that begins there. Of one object the first that is said of a key holds, and what is said otherwise is told;
    /// requests are many, and have names of their own.
    pub(super) fn join(&mut self, document: Output, place: &Place) -> Vec<Remark> {
        let mut told = Vec::new();
        for mut object in document.objects {
            object.place = Some(place.clone());
            let path = object.path();
            let known = self.position(object.kind, &object.name);
            match known {
                None => self.objects.push(object),
                Some(_) if object.kind == "Reservation" => {
                    let mut names = (2_u64..).map(|number| format!("{}-{number}", object.name));
                    let free = names.find(|name| !self.has(object.kind, name));
                    object.name = free.unwrap_or_default();
                    told.push((
                        path,
                        format!("there is a request of this name already: this one is {}", object.name),
                    ));
                    self.objects.push(object);
                }
                Some(index) => {
                    self.objects[index].labels.extend(object.labels);
                    add(&mut self.objects[index].spec, object.spec, &path, &mut told);
                }
            }
        }
        told.into_iter().map(|(path, why)| Remark { place: place.clone(), path, why }).collect()
    }

    /// All of them as documents, each with the name that remarks have for it and with its place, where that is known.
    pub(super) fn finish(self) -> Vec<(String, Option<Place>, Value)> {
        let document = |object: Object| (object.path(), object.place.clone(), object.document());
        self.objects.into_iter().map(document).collect()
    }

    fn position(&self, kind: &str, name: &str) -> Option<usize> {
        self.objects.iter().position(|object| object.kind == kind && object.name == name)
    }

    fn entry(&mut self, kind: &'static str, name: &str) -> &mut Object {
        let index = self.position(kind, name).unwrap_or_else(|| {
            let (labels, spec) = (Map::new(), Map::new());
            self.objects.push(Object { kind, name: name.to_owned(), labels, spec, place: None });
            self.objects.len() - 1
        });
        &mut self.objects[index]
    }
}

/// Adds keys to a block; rules to rules, and to a block within.
fn add(
    into: &mut Map<String, Value>,
    from: Map<String, Value>,
    path: &str,
    told: &mut Vec<(String, String)>,
) {
    for (key, value) in from {
        let Some(there) = into.get_mut(&key) else {
            into.insert(key, value);
            continue;
        };
        let path = format!("{path}.{key}");
        match (there, value) {
            (Value::Object(there), Value::Object(more)) => add(there, more, &path, told),
            (Value::Array(there), Value::Array(more)) if key == "rules" => {
                let new: Vec<Value> = more.into_iter().filter(|rule| !there.contains(rule)).collect();
                there.extend(new);
            }
            (there, more) if *there == more => {}
            (there, more) => {
                told.push((path, format!("is {more} here, and was {there} before, which holds")))
            }
        }
    }
}

impl Object {
    /// What remarks call it.
    fn path(&self) -> String {
        format!("{} {:?}", self.kind, self.name)
    }

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
