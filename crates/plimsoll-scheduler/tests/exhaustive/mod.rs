//! A planner for small cases that tries everything, written from `docs/semantics.md` alone: no code of the planner, and of the ledger only its types.
//! What is taken is added up from the rows of reservations; whether a place is allowed is said by `rules` and `quota` here, not by `admit`.
//!
//! Exponential: for a few nodes, devices and members.

pub(crate) mod asks;
pub(crate) mod bounds;
pub(crate) mod cases;
pub(crate) mod judge;
mod leaving;
mod packing;
mod quality;
pub(crate) mod quota;
pub(crate) mod role_gangs;
pub(crate) mod rules;
pub(crate) mod scene;
pub(crate) mod search;
pub(crate) mod slices;
mod starts;
pub(crate) mod wrong;

pub(crate) const GIB: u64 = 1 << 30;
