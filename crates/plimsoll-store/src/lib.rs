//! Where bytes live: a write-ahead log ([`wal::Wal`]) and an ordered key-value engine ([`engine::Engine`]).
//!
//! This crate knows nothing of raft or of the ledger. Three families implement both seams, and one conformance suite
//! holds them to the same behaviour:
//!
//! | family | for | survives |
//! | --- | --- | --- |
//! | [`rocks`] | production | what was synced, after a kill or a power cut; damage is reported, never skipped |
//! | [`memory`] | `--ephemeral` | nothing beyond the process |
//! | [`sim`] | the deterministic simulation | a seeded part of what was not synced yet |
#![forbid(unsafe_code)]

/// A place at which a test may let the process die; nothing outside of test builds.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(test)]
        $crate::failpoint::hit($name);
    };
}

pub mod engine;
mod error;
#[cfg(test)]
mod failpoint;
pub mod files;
mod frame;
mod log_state;
pub mod memory;
pub mod rocks;
pub mod sim;
pub mod wal;

#[cfg(test)]
mod conformance;

pub use engine::{Engine, View, WriteBatch};
pub use error::{Error, with_causes};
pub use wal::{Done, Loaded, Op, Wal};
