//! The domains that a node is in.

use std::sync::Arc;

use plimsoll_types::{Labels, NodeId};

/// The innermost level, which every pool has: the node itself.
pub const NODE_LEVEL: &str = "node";

/// All nodes of a pool that are together at some level.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// Those with these values of the pool's levels, outermost first.
    Path(Arc<[String]>),
    /// One node.
    Node(NodeId),
}

/// The domains that a node is in, outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Pool of the node.
    pub pool: String,
    /// Levels of the pool, outermost first, without `node`.
    pub levels: Arc<[String]>,
    /// Domain of each level, as far as the node's labels name them without a gap.
    pub domains: Vec<Domain>,
}

impl Chain {
    /// The chain of a node with these labels, in a pool with these levels.
    pub fn new(pool: &str, levels: &Arc<[String]>, labels: &Labels) -> Chain {
        let values: Vec<String> = levels.iter().map_while(|level| labels.get(level).cloned()).collect();
        let domains = (1..=values.len()).map(|depth| Domain::Path(values[..depth].into())).collect();
        Chain { pool: pool.to_owned(), levels: Arc::clone(levels), domains }
    }

    /// The node's domain at a level; `None` where it is in none.
    pub fn at(&self, node: NodeId, level: &str) -> Option<Domain> {
        if level == NODE_LEVEL {
            return Some(Domain::Node(node));
        }
        let depth = self.levels.iter().position(|known| known == level)?;
        self.domains.get(depth).cloned()
    }
}

impl Domain {
    /// Name for people; `name_of` says what a node is called.
    pub fn name(&self, name_of: impl Fn(NodeId) -> String) -> String {
        match self {
            Domain::Path(values) => values.join("/"),
            Domain::Node(id) => name_of(*id),
        }
    }
}
