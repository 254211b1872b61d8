//! Log and engine in memory, for `--ephemeral`: everything is gone with the process.

mod engine;
mod wal;

pub use engine::MemoryEngine;
pub(crate) use engine::{MapView, Rowset};
pub use wal::MemoryWal;
