//! Free-form resource blocks (`resources:`, `scheduling:`, `multi_tenancy:` ...) to documents of the kinds that exist.
//!
//! Every value of the input is either in a document or in a remark with its path: nothing is dropped in silence.

mod sections;
mod tenants;
mod tree;
mod work;

use std::fmt;

use serde_json::{Map, Value};

use crate::document::API_VERSION;
use crate::node;
use crate::problem::{Place, Problem, Source};
use crate::write::yaml;
use tree::{At, Tree};

/// What became of a file.
#[derive(Clone, Debug, Default)]
pub struct Converted {
    /// Documents, in the order of the file; what several blocks say of one object is in one.
    pub documents: Vec<Value>,
    /// What is in no document, in the order of the file.
    pub remarks: Vec<Remark>,
}

/// A part of the input that is in no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Where it stands.
    pub place: Place,
    /// Its path: `steps[0].resources`.
    pub path: String,
    /// Why, and what there is instead.
    pub why: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.path, self.why)
    }
}

impl Converted {
    /// The documents as a file.
    pub fn to_yaml(&self) -> String {
        self.documents.iter().map(yaml).collect::<Vec<_>>().join("---\n")
    }
}

/// Reads every document of the sources.
///
/// # Errors
/// Where a source is not YAML.
pub fn convert(sources: &[Source]) -> Result<Converted, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut converted = Converted::default();
    for source in sources {
        let mut out = Output::default();
        for document in node::read(source, &mut problems) {
            let tree = Tree::new(source, &document);
            sections::read(&tree, &mut out);
            converted.remarks.extend(tree.remarks());
        }
        converted.documents.extend(out.finish());
    }
    if problems.is_empty() { Ok(converted) } else { Err(problems) }
}

/// Objects as they come together.
#[derive(Debug, Default)]
struct Output {
    objects: Vec<(&'static str, String, Map<String, Value>)>,
}

impl Output {
    /// The spec of an object; the same object each time.
    fn object(&mut self, kind: &'static str, name: &str) -> &mut Map<String, Value> {
        let known = self.objects.iter().position(|(of, known, _)| *of == kind && known == name);
        let index = known.unwrap_or_else(|| {
            self.objects.push((kind, name.to_owned(), Map::new()));
            self.objects.len() - 1
        });
        &mut self.objects[index].2
    }

    /// Adds a rule to a validator of requests.
    fn rule(&mut self, validator: &str, expression: String, message: String, path: &str) {
        let spec = self.object("Validator", validator);
        spec.entry("for").or_insert_with(|| "Reservation".into());
        let rules = spec.entry("rules").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(rules) = rules.as_array_mut() {
            rules.push(serde_json::json!({ "expression": expression, "message": message, "path": path }));
        }
    }

    fn finish(self) -> Vec<Value> {
        let document = |(kind, name, spec): (&str, String, Map<String, Value>)| serde_json::json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": { "name": name }, "spec": spec });
        self.objects.into_iter().map(document).collect()
    }
}

/// A name as objects have them: lower case, and nothing that names cannot have.
fn object_name(at: &At<'_, '_>, text: &str) -> Option<String> {
    let name = text.to_lowercase().replace(' ', "-");
    if plimsoll_types::check_name(&name).is_ok() {
        return Some(name);
    }
    at.tell(format!("{text:?} is not a name that an object can have"));
    None
}
