//! Validators: conditions that requests and policy objects must meet before they are proposed.
//!
//! The ledger keeps them as text ([`plimsoll_ledger::Validator`]). Here they are compiled, once per change of the policy, and evaluated: by the
//! coordinator that leads, and by `plimsoll validate` on files. Every rule that does not hold is told, with its path and message.

mod compiled;
mod fields;
mod set;
mod subject;

pub use compiled::{Compiled, Wrong};
pub use set::{Broken, Validators};
pub use subject::Subject;
