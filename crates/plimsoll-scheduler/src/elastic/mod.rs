//! Which nodes are to move between elastic pools, and why others are not (`docs/elastic-pools.md`).
//!
//! A node moves only where somebody who waits would be placed with it, by the planner's own rules on a copy of the ledger, or where a pool has less
//! than its least number of nodes; and only while nobody waits at home who could use it. What is decided here is judged again by
//! [`plimsoll_ledger::Ledger::may_move`], in apply.

mod decide;
mod idle;

pub use decide::{ElasticLook, NodeMove, look, may_be_lent, may_want_moves};
pub use idle::IdleWatch;
