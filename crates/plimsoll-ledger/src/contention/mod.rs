//! Contention: those who wait for a pool ask for more of a resource than is open. What is measured, how severe it is, the object that keeps
//! its history, and what a pool does about it (`docs/semantics.md` 5.12).
//!
//! Invariants: an open contention is the only open one of its pool and resource; nothing but `ObserveContention` (and the end of the pool) opens,
//! moves or ends one, and it measures again in apply.

mod book;
mod checks;
mod measure;
mod next;
mod object;
mod policy;
mod severity;

pub(crate) use book::Contentions;
pub use measure::{Contended, PoolDemand};
pub use object::{Contention, Resolution};
pub use policy::{ContentionPolicy, Resolve};
pub(crate) use policy::{REDISTRIBUTE_SINCE_VERSION, is_of_contention, redistributes, validate_contention};
pub use severity::{Rung, Severity, pressure_permille};

/// First ledger version that knows contention.
pub(crate) const SINCE_VERSION: u32 = 8;
