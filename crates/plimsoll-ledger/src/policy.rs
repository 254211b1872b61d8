//! Policy objects: pools, priority classes, node limits.

use std::collections::BTreeMap;

use plimsoll_types::{Amount, Labels, ResourceName, Resources, Revision, Selector};

/// Pool that exists from the start and takes every node that no other pool takes.
pub const DEFAULT_POOL: &str = "default";
/// Class of requests that name none.
pub const DEFAULT_CLASS: &str = "standard";

/// A set of like nodes that requests take from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Unique name.
    pub name: String,
    /// Labels of the pool itself.
    pub labels: Labels,
    /// Nodes that belong to it, unless their agent names a pool. An empty selector selects none.
    pub select: Selector,
    /// How nodes are chosen.
    pub strategy: Strategy,
    /// Countables of the pool as a whole (licences, model slots): their totals.
    pub countables: BTreeMap<ResourceName, Amount>,
    /// Whether a blocked request holds back those behind it.
    pub queue_order: QueueOrder,
    /// Most pending requests; 0 for the ledger's own bound.
    pub max_pending: u32,
    /// Revision of the latest change.
    pub changed: Revision,
}

/// How a node is chosen among those that fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strategy {
    /// The node with the most free GPUs, then the most free cpu: quick, spreads load.
    Greedy,
    /// The node whose fullest resource stays lowest.
    Balanced,
    /// Best fit, with batches ordered by class, then size.
    Priority,
    /// The lowest-numbered node that fits.
    FirstFit,
    /// The node with the least left over.
    #[default]
    BestFit,
    /// The node with the most left over.
    WorstFit,
    /// First fit, with batches ordered by size, largest first.
    FirstFitDecreasing,
    /// Any node that fits, from a seed: a baseline to compare with.
    Random,
}

/// Whether a blocked request holds back those behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QueueOrder {
    /// Requests behind it may start.
    #[default]
    BestEffortFifo,
    /// Nobody behind it starts first.
    StrictFifo,
}

/// Who goes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Unique name.
    pub name: String,
    /// Higher goes first.
    pub priority: i32,
    /// Whether its grants may be taken back for a higher class (used from ledger version 2 on).
    pub preemptible: bool,
    /// Lease length for requests that name none, in milliseconds; 0 for the ledger's own default.
    pub default_ttl_ms: u64,
    /// Revision of the latest change.
    pub changed: Revision,
}

/// A cap on what selected nodes offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLimits {
    /// Unique name.
    pub name: String,
    /// Nodes that it caps; an empty selector caps every node.
    pub select: Selector,
    /// Most of each resource that is named here.
    pub max: Resources,
    /// Revision of the latest change.
    pub changed: Revision,
}

/// Any policy object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyObject {
    /// A pool.
    Pool(Pool),
    /// A priority class.
    Class(Class),
    /// Node limits.
    NodeLimits(NodeLimits),
}

/// Kind and name of a policy object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyName {
    /// A pool.
    Pool(String),
    /// A priority class.
    Class(String),
    /// Node limits.
    NodeLimits(String),
}

impl PolicyObject {
    /// Kind and name.
    pub fn name(&self) -> PolicyName {
        match self {
            PolicyObject::Pool(pool) => PolicyName::Pool(pool.name.clone()),
            PolicyObject::Class(class) => PolicyName::Class(class.name.clone()),
            PolicyObject::NodeLimits(limits) => PolicyName::NodeLimits(limits.name.clone()),
        }
    }
}

/// Classes that exist from the start: name, priority, preemptible.
pub const GENESIS_CLASSES: [(&str, i32, bool); 5] = [
    ("critical", 100, false),
    ("high", 75, false),
    (DEFAULT_CLASS, 50, false),
    ("low", 25, true),
    ("batch", 10, true),
];
