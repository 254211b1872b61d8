//! Policy files: YAML documents of kind Pool, Class, NodeLimits, Queue and Quota to policy objects and back.
//! Policy files: YAML documents of kind Pool, Class, NodeLimits, Queue and Validator to policy objects and back.
//!
//! [`parse`] reads sources and either gives every object or every problem, each with file, line, column, the line itself
//! and, where one is near, the word that was probably meant. What an object may hold is decided by the same conversion
//! that the server uses, so `plimsoll validate` and the server agree. [`to_yaml`] writes objects in their canonical form,
//! and [`changes`] compares two of them field by field. Nothing here does I/O.

mod changes;
mod context;
mod convert;
mod document;
mod kinds;
mod label;
mod node;
mod problem;
mod suggest;
mod variables;
mod write;
mod write_quota;
mod write_scaling;
mod write_spot;

pub use changes::{Change, changes};
pub use convert::{Converted, Remark, convert};
pub use document::{API_VERSION, Contents, Parsed, Requested, parse, parse_all, parse_with};
pub use kinds::quota::parse_micros;
pub use kinds::reservation::USUAL_LONGEST_WAIT_MS;
pub use kinds::scaling_policy::parse_scaling_policy;
pub use label::{kind_word, label};
pub use problem::{Place, Problem, Source};
pub use suggest::nearest;
pub use variables::Lookup;
pub use write::{to_document, to_yaml};
