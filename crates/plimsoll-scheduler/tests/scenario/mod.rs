//! Scenarios: files that say a fleet, its policy and what happens, played on ledger and planner in the time of the file.
//!
//! `docs/scenarios.md` says how to read and to add one.

pub(crate) mod boards;
pub(crate) mod clock;
pub(crate) mod file;
pub(crate) mod leader;
pub(crate) mod play;
pub(crate) mod report;
