//! Collects everything that is wrong with a message, with paths.

use std::collections::BTreeMap;
use std::fmt;

use plimsoll_types::{Labels, check_name};

use crate::limits::{MAX_LABEL_BYTES, MAX_LABELS, MAX_TEXT_BYTES};

/// A field that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field inside the message that was checked, such as `requirements.gpu.milli`. Empty for the whole of it.
    pub field: String,
    /// What is wrong and what is expected, with the numbers.
    pub description: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

/// What was found so far, and where in the message we are.
#[derive(Debug, Default)]
pub(super) struct Check {
    violations: Vec<Violation>,
    path: Vec<String>,
}

impl Check {
    pub(super) fn new() -> Check {
        Check::default()
    }

    /// `value` where nothing was found.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Vec<Violation>> {
        if self.violations.is_empty() { Ok(value) } else { Err(self.violations) }
    }

    /// Looks at a field inside the present message.
    pub(super) fn within<T>(&mut self, field: impl Into<String>, look: impl FnOnce(&mut Check) -> T) -> T {
        self.path.push(field.into());
        let value = look(self);
        self.path.pop();
        value
    }

    /// Looks at each entry of a list; `most` bounds it.
    pub(super) fn each<A, B>(
        &mut self,
        field: &str,
        list: &[A],
        most: usize,
        mut look: impl FnMut(&mut Check, &A) -> B,
    ) -> Vec<B> {
        self.count(field, list.len(), most);
        let entries = list.iter().take(most).enumerate();
        entries
            .map(|(position, entry)| self.within(format!("{field}[{position}]"), |check| look(check, entry)))
            .collect()
    }

    /// Something is wrong with a field of the present message; an empty name means the message itself.
    pub(super) fn fail(&mut self, field: &str, description: impl Into<String>) {
        let mut path = self.path.join(".");
        if !path.is_empty() && !field.is_empty() {
            path.push('.');
        }
        path.push_str(field);
        self.violations.push(Violation { field: path, description: description.into() });
    }

    /// At most so many entries.
    pub(super) fn count(&mut self, field: &str, count: usize, most: usize) {
        if count > most {
            self.fail(field, format!("has {count} entries, at most {most} are allowed"));
        }
    }

    /// A number between two bounds, both included.
    pub(super) fn range(&mut self, field: &str, value: u64, least: u64, most: u64) {
        if value < least || value > most {
            self.fail(field, format!("is {value}, must be {least} to {most}"));
        }
    }

    /// As [`Check::range`], and 0 stands for the default.
    pub(super) fn range_or_default(&mut self, field: &str, value: u64, least: u64, most: u64) {
        if value != 0 && (value < least || value > most) {
            self.fail(field, format!("is {value}, must be {least} to {most}, or 0 for the default"));
        }
    }

    /// The name of an object.
    pub(super) fn name(&mut self, field: &str, value: &str) {
        if value.is_empty() {
            self.fail(field, "is missing");
        } else if let Err(error) = check_name(value) {
            self.fail(field, error.to_string());
        }
    }

    /// Free text on one line.
    pub(super) fn text(&mut self, field: &str, value: &str, most_bytes: usize) {
        if value.len() > most_bytes {
            self.fail(field, format!("has {} bytes, at most {most_bytes} are allowed", value.len()));
        }
        if value.chars().any(char::is_control) {
            self.fail(field, "has control characters");
        }
    }

    /// Free text of the usual length.
    pub(super) fn short_text(&mut self, field: &str, value: &str) {
        self.text(field, value, MAX_TEXT_BYTES);
    }

    /// Labels.
    pub(super) fn labels(&mut self, field: &str, labels: &BTreeMap<String, String>) -> Labels {
        self.count(field, labels.len(), MAX_LABELS);
        for (key, value) in labels.iter().take(MAX_LABELS) {
            let path = format!("{field}[{key:?}]");
            if key.is_empty() {
                self.fail(field, "has an empty key");
            }
            self.text(&path, key, MAX_LABEL_BYTES);
            self.text(&path, value, MAX_LABEL_BYTES);
        }
        labels.clone()
    }
}
