//! Where members are beside each other and beside other work: levels of a pool, domains of its nodes, affinity to other requests.
//!
//! A pool names its levels, outermost first, as keys of node labels; `node` is always the innermost. A domain of a level is all nodes with
//! the same values from the outermost level down to it: two racks of one name in two zones are two domains. A node that lacks a level's
//! label is in no domain of that level, nor of those inside it, but for itself.

mod ask;
mod chain;
mod checks;
mod index;
mod rules;
mod work;

pub use ask::{Affinity, Topology};
pub use chain::{Chain, Domain, NODE_LEVEL};
pub use rules::{Conflict, ConflictKind, Surroundings};
pub use work::WorkIndex;

pub(crate) use checks::{asks_for_topology, is_of_topology, validate_levels, validate_place};
pub(crate) use index::Work;

/// First ledger version that knows levels, topology of requests, and affinity to other work.
pub(crate) const SINCE_VERSION: u32 = 4;
