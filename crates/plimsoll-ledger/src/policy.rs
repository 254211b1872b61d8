//! Policy objects: pools, priority classes, node limits, queues, validators.

use std::collections::BTreeMap;

use plimsoll_types::{Amount, Labels, ResourceName, Resources, Revision, Selector};

use crate::{
    Batch, ClassOrder, ContentionPolicy, Elastic, EvictWhen, Overflow, PriorityWeights, Qos, QueueDiscipline,
    Quota, QuotaPolicy, ScalingPolicy, Schedule, Service, SpotPolicy, Validator,
};

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
    /// Which queue's turn it is. From ledger version 3 on.
    pub fairness: Fairness,
    /// What the pool's resources cost beside those of other pools, in thousandths, for shares between queues; 0 for 1,000. From ledger
    /// version 3 on.
    pub price_milli: u32,
    /// What may be taken back for whom. From ledger version 4 on.
    pub preemption: Preemption,
    /// Most reservations of the pool that are preempted within any hour; 0 for no such bound. From ledger version 4 on.
    pub max_preemptions_per_hour: u32,
    /// What an hour of a resource costs, in millionths of the currency: of a core, a GiB of memory or storage, a device (`gpu`), or a piece. From
    /// ledger version 4 on.
    pub prices: BTreeMap<ResourceName, u64>,
    /// What the prices are counted in; empty where nobody says. From ledger version 4 on.
    pub currency: String,
    /// Its levels, outermost first, as keys of node labels; `node` is inside the last. From ledger version 4 on.
    pub topology: Vec<String>,
    /// How its queue is walked. From ledger version 4 on.
    pub queueing: QueueDiscipline,
    /// After so many milliseconds nobody overtakes one that waits; 0 for a day where the pool names a discipline, else for no bound. From
    /// ledger version 4 on.
    pub starvation_bound_ms: u64,
    /// How much of a resource is promised in all beside what nodes have, in thousandths, from 1,000 on: best-effort grants take what is beyond.
    /// From ledger version 7 on.
    pub oversubscription: BTreeMap<ResourceName, u32>,
    /// What is done about contention; `None` for nothing. From ledger version 8 on.
    pub contention: Option<ContentionPolicy>,
    /// What others borrowed is taken back for those who waited when the present interval of so many milliseconds began; 0 for at once. From ledger
    /// version 9 on.
    pub rebalance_interval_ms: u64,
    /// How its nodes come and go. From ledger version 9 on.
    pub elastic: Elastic,
    /// What of its work may be on spot nodes; `None` for anything. From ledger version 11 on.
    pub spot: Option<SpotPolicy>,
    /// No machine is started where its nodes and those on their way would draw more watts together; 0 for no such bound. From ledger version 12 on.
    pub power_budget_watts: u64,
    /// With [`Fairness::FairTree`], after so many milliseconds use counts half; 0 for a week. From ledger version 13 on.
    pub half_life_ms: u64,
    /// Which class goes first where several wait. From ledger version 14 on.
    pub class_order: ClassOrder,
    /// What counts how much where its queue goes by points; `None` for the usual. From ledger version 15 on.
    pub priority_weights: Option<PriorityWeights>,
    /// Revision of the latest change.
    pub changed: Revision,
}

/// What may be taken back of a pool's grants for those who wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Preemption {
    /// Both of the following.
    #[default]
    Any,
    /// Nothing.
    Never,
    /// Grants of a lower class that is preemptible.
    LowerClass,
    /// What other queues have borrowed, for a queue that stays within its own quota.
    Reclaim,
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
    /// The node on which the expected requests lose least of the GPU that they could use.
    Fragmentation,
    /// As `Fragmentation`; requests that arrive together are planned together, never worse than `Greedy` would.
    Optimized,
}

impl Strategy {
    /// All of them, by the names that people write.
    pub const NAMED: [(&str, Strategy); 10] = [
        ("greedy", Strategy::Greedy),
        ("balanced", Strategy::Balanced),
        ("priority", Strategy::Priority),
        ("first_fit", Strategy::FirstFit),
        ("best_fit", Strategy::BestFit),
        ("worst_fit", Strategy::WorstFit),
        ("first_fit_decreasing", Strategy::FirstFitDecreasing),
        ("random", Strategy::Random),
        ("fragmentation", Strategy::Fragmentation),
        ("optimized", Strategy::Optimized),
    ];
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

/// Which queue's turn it is where several have requests that wait. Inside a queue it is class, then age, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fairness {
    /// Class, then age, whichever queue it is.
    #[default]
    Priority,
    /// The lowest share of what is borrowed, level by level; weights count as equal.
    Fair,
    /// Those who stay within their own quota, then class and age.
    Quota,
    /// The lowest share by weight, level by level.
    Weighted,
    /// The least used over time by weight, level by level; who stays within the queue's own quota goes first. From ledger version 13 on.
    FairTree,
}

/// Who may take how much: a node of the tree of queues. From ledger version 3 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Unique name.
    pub name: String,
    /// Labels of the queue itself.
    pub labels: Labels,
    /// The queue above it; empty for a root.
    pub parent: String,
    /// Weight among its siblings, in thousandths; 0 goes last.
    pub weight_milli: u32,
    /// Per pool and resource. `gpu` counts devices in thousandths.
    pub quotas: BTreeMap<String, BTreeMap<ResourceName, Quota>>,
    /// Most pending requests of its own; 0 for the pool's bound alone.
    pub max_pending: u32,
    /// Users who have a say over it and what is below it, by name or pattern; `*` stands for anything. From ledger version 8 on.
    pub admins: Vec<String>,
    /// Its requests are decided together, so many at a time; `None` for each as it comes. From ledger version 9 on.
    pub batch: Option<Batch>,
    /// Nobody overtakes those who wait in it, and who is interrupted waits again. From ledger version 9 on.
    pub guaranteed_processing: bool,
    /// What of its work, and that of queues below it, may be on spot nodes; `None` for what the queue above or the pool says. From ledger version 11 on.
    pub spot: Option<SpotPolicy>,
    /// What becomes of those past `max_pending`. From ledger version 11 on.
    pub overflow: Overflow,
    /// Revision of the latest change.
    pub changed: Revision,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            name: String::new(),
            labels: Labels::default(),
            parent: String::new(),
            weight_milli: 1_000,
            quotas: BTreeMap::new(),
            max_pending: 0,
            admins: Vec::new(),
            batch: None,
            guaranteed_processing: false,
            spot: None,
            overflow: Overflow::Reject,
            changed: Revision(0),
        }
    }
}

/// Who goes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Unique name.
    pub name: String,
    /// Higher goes first.
    pub priority: i32,
    /// Whether its grants may be taken back for a higher class (used from ledger version 4 on).
    pub preemptible: bool,
    /// Lease length for requests that name none, in milliseconds; 0 for the ledger's own default.
    pub default_ttl_ms: u64,
    /// Time that a preempted grant of this class has to stop, in milliseconds; 0 for the ledger's own default. From ledger version 4 on.
    pub grace_ms: u64,
    /// A grant of this class is not preempted before it has run this long, in milliseconds. From ledger version 4 on.
    pub min_run_ms: u64,
    /// Longest grant for requests that name none, in milliseconds; 0 for no such end. From ledger version 4 on.
    pub default_duration_ms: u64,
    /// What holders may count on whose requests name nothing; `None` for nothing said. From ledger version 7 on.
    pub qos: Option<Qos>,
    /// Within so many milliseconds after its submission a request of this class should have its grant, 0 for at once; `None` for no such
    /// target. From ledger version 7 on.
    pub latency_target_ms: Option<u64>,
    /// What a grant of this class counts for in hours and cost, in thousandths of what it has; `None` for 1,000. From ledger version 9 on.
    pub multiplier_milli: Option<u32>,
    /// What is kept of pools for requests of this class, whatever others want; `gpu` counts devices in thousandths. From ledger version 9 on.
    pub guaranteed: BTreeMap<String, Resources>,
    /// When its best-effort grants have to leave a node for what the node measures; `None` for never. From ledger version 9 on.
    pub evict_when: Option<EvictWhen>,
    /// Its weight beside other classes, in thousandths, where a pool goes by weights; 0 goes last, `None` for 1,000. From ledger version 14 on.
    pub weight_milli: Option<u32>,
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
    /// A queue.
    Queue(Queue),
    /// Limits, budgets and rates of users.
    Quota(QuotaPolicy),
    /// A validator.
    Validator(Validator),
    /// A schedule.
    Schedule(Schedule),
    /// A service.
    Service(Service),
    /// A scaling policy.
    ScalingPolicy(ScalingPolicy),
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
    /// A queue.
    Queue(String),
    /// Limits, budgets and rates of users.
    Quota(String),
    /// A validator.
    Validator(String),
    /// A schedule.
    Schedule(String),
    /// A service.
    Service(String),
    /// A scaling policy.
    ScalingPolicy(String),
}

impl PolicyObject {
    /// Kind and name.
    pub fn name(&self) -> PolicyName {
        match self {
            PolicyObject::Pool(pool) => PolicyName::Pool(pool.name.clone()),
            PolicyObject::Class(class) => PolicyName::Class(class.name.clone()),
            PolicyObject::NodeLimits(limits) => PolicyName::NodeLimits(limits.name.clone()),
            PolicyObject::Queue(queue) => PolicyName::Queue(queue.name.clone()),
            PolicyObject::Quota(quota) => PolicyName::Quota(quota.name.clone()),
            PolicyObject::Validator(object) => PolicyName::Validator(object.name.clone()),
            PolicyObject::Schedule(schedule) => PolicyName::Schedule(schedule.name.clone()),
            PolicyObject::Service(service) => PolicyName::Service(service.name.clone()),
            PolicyObject::ScalingPolicy(policy) => PolicyName::ScalingPolicy(policy.name.clone()),
        }
    }
}

impl PolicyName {
    /// The name alone.
    pub fn name(&self) -> &str {
        match self {
            PolicyName::Pool(name)
            | PolicyName::Class(name)
            | PolicyName::NodeLimits(name)
            | PolicyName::Queue(name)
            | PolicyName::Quota(name)
            | PolicyName::Schedule(name)
            | PolicyName::Service(name)
            | PolicyName::ScalingPolicy(name)
            | PolicyName::Validator(name) => name,
        }
    }

    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            PolicyName::Pool(_) => "pool",
            PolicyName::Class(_) => "class",
            PolicyName::NodeLimits(_) => "node limits",
            PolicyName::Queue(_) => "queue",
            PolicyName::Quota(_) => "quota",
            PolicyName::Validator(_) => "validator",
            PolicyName::Schedule(_) => "schedule",
            PolicyName::Service(_) => "service",
            PolicyName::ScalingPolicy(_) => "scaling policy",
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
