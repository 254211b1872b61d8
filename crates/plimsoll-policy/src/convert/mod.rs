//! Free-form resource blocks (`resources:`, `scheduling:`, `multi_tenancy:` ...) to documents of the kinds that exist.
//!
//! Every value of the input is either in a document or in a remark with its path: nothing is dropped in silence. Where a block leaves open what
//! a document has to say (who is premium, how much there is), a remark says what is to be decided. Every document that comes out is valid.

mod asks;
mod classes;
mod limits;
mod network;
mod output;
mod places;
mod queues;
mod requests;
mod scaling;
mod sections;
mod tenants;
mod tree;

use std::fmt;

use plimsoll_ledger::validate_policy;
use serde_json::Value;

use crate::document::parse_all;
use crate::node;
use crate::problem::{Place, Problem, Source};
use crate::write::yaml;
use output::Output;
use tree::Tree;

/// What became of a file.
#[derive(Clone, Debug, Default)]
pub struct Converted {
    /// Documents, in the order of the files; what several blocks say of one object is in one.
    pub documents: Vec<Value>,
    /// What is in no document, and what those documents leave to be decided, in the order of the files.
    pub remarks: Vec<Remark>,
}

/// A part of the input of which not everything is in a document.
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
    let mut out = Output::default();
    for source in sources {
        for document in node::read(source, &mut problems) {
            let tree = Tree::new(source, &document);
            let mut said = Output::default();
            sections::read(&tree, &mut said);
            converted.remarks.extend(tree.remarks());
            converted.remarks.extend(out.join(said, &document.mark.place(source)));
        }
    }
    for (path, place, document) in out.finish() {
        match (fault(&document), place) {
            (Some(why), Some(place)) => converted.remarks.push(Remark { place, path, why }),
            _ => converted.documents.push(document),
        }
    }
    if problems.is_empty() { Ok(converted) } else { Err(problems) }
}

/// What is wrong with a document that came out; what was asked for may be such that no document can say it.
fn fault(document: &Value) -> Option<String> {
    let source = Source { name: String::new(), text: yaml(document) };
    let found = match parse_all(&[source], &|_| None) {
        Ok(contents) => {
            let faults = contents.objects.iter().flat_map(|parsed| validate_policy(&parsed.object));
            faults.map(|fault| format!("{} is {}", fault.subject, fault.asked)).collect::<Vec<_>>()
        }
        Err(problems) => problems.into_iter().map(|problem| problem.message).collect(),
    };
    (!found.is_empty()).then(|| format!("is left out, since it would be refused: {}", found.join("; ")))
}
