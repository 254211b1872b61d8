//! Validators: conditions that requests and policy objects must meet, kept as text.
//!
//! The ledger stores them and bounds their size. What they mean is decided where commands are proposed, never where they are applied: an
//! expression is evaluated with a library whose next release may see it in another way, and replicas must not.

use std::collections::BTreeSet;

use plimsoll_types::Revision;

/// Conditions on objects of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validator {
    /// Unique name.
    pub name: String,
    /// Kind of the objects that it looks at, as files write it: `Reservation`, `Pool`, `Queue`.
    pub subject: String,
    /// Pools whose objects it looks at; empty for all.
    pub pools: BTreeSet<String>,
    /// Queues whose objects it looks at; empty for all.
    pub queues: BTreeSet<String>,
    /// What must hold, in the order of the file.
    pub rules: Vec<Rule>,
    /// Revision of the latest change.
    pub changed: Revision,
}

/// One condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The condition, in CEL; at most [`MAX_EXPRESSION_BYTES`](crate::limits::MAX_EXPRESSION_BYTES).
    pub expression: String,
    /// What is said where it does not hold.
    pub message: String,
    /// Field that it is about, as files write it; may be empty.
    pub path: String,
}
