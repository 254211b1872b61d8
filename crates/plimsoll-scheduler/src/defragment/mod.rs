//! Fragmentation of a pool's free GPU, by class of device, and what could be done about it.
//!
//! It reads what the ledger has and changes nothing: neither placement nor admission looks at it.

mod measure;
mod plan;

pub use measure::{DeviceClass, Fragmentation};
pub(crate) use plan::bound;
pub use plan::{Cost, Defragmentation, LEAST_SCORE_PERMILLE, Move, Opening, Stay, Terrain, Why};
