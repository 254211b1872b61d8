//! A disk for the deterministic simulation: seeded delays, failures and crashes; no threads and no clock but tokio's.
//!
//! A [`SimDisk`] stays when the process on it dies. [`SimDisk::crash`] is the power cut: handles made before it are dead,
//! of what was not durable a seeded prefix survives, and new handles read what did. The same seed and the same calls
//! give the same disk.

mod disk;
mod engine;
mod rng;
#[cfg(test)]
mod tests;
mod wal;

pub use disk::{SimDisk, SimFaults};
pub use engine::SimEngine;
#[cfg(test)]
pub(crate) use rng::Rng;
pub use wal::SimWal;
