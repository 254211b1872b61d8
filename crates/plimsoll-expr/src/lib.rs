//! Conditions as people write them: CEL, with quantities (`memory_available < 1Gi`, `memory > 90%`, `request.ttl <= 2h`).
//!
//! [`Expression::parse`] checks everything before anything is evaluated: length, tokens and nesting before the CEL library sees the text (it can
//! abort the process on deep or long input), then names, types and units, each problem with its line, column and what would be right. What was
//! parsed is small and flat enough to be evaluated on any thread. Expressions are evaluated at the edge, never where the ledger applies commands.

mod check;
mod expression;
mod lexer;
mod literal;
mod names;
mod problem;
mod run;
mod value;

pub use expression::{Expression, Fault};
pub use lexer::{MAX_BYTES, MAX_NESTING, MAX_TOKENS};
pub use names::{Names, Type, Unit};
pub use problem::Problem;
pub use value::Value;
