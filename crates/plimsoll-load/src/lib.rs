//! Load for benchmarks: the same loops for Plimsoll and for its peers, so that a ratio compares systems and not loaders.
//!
//! A closed loop keeps a number of operations in flight; an open loop begins them at a given rate, whether or not earlier
//! ones are done, and counts latency from the moment at which each was due (no coordinated omission).

mod floors;
mod loops;
mod measured;
mod process;

pub use floors::fdatasync_per_s;
pub use loops::{Done, LoopConfig, closed_loop, open_loop};
pub use measured::Measured;
pub use process::{cpu_us, resident_bytes};
