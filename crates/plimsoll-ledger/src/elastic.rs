//! Elastic pools: whole empty nodes that move from one to another, and the law of that (`docs/semantics.md` 5.15). One law for the leader, which looks
//! for nodes to move, and for apply, which judges them again.
//!
//! Invariants (I65): a node that moved has as its home the pool that its registration gives it, and is lent by that to another, both elastic; `MoveNode` moves it only
//! while nothing is on it, and takes no pool below its least number of nodes or above its most.

use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, NodeId};

use crate::calendar::{Ask, Room};
use crate::limits::{MAX_POOL_NODES, MAX_TTL_MS, MIN_TTL_MS};
use crate::{
    Blocker, Ledger, Node, PolicyObject, Pool, Reason, Refusal, Registration, Request, ScalingTarget,
};

/// First ledger version that knows elastic pools.
pub(crate) const SINCE_VERSION: u32 = 9;
/// Growth of an elastic pool that says nothing: one node in any minute.
const DEFAULT_GROWTH: (u64, u64) = (1, 60_000);
/// After so many milliseconds without work a node of a pool that says nothing is idle.
const DEFAULT_IDLE_MS: u64 = 300_000;

/// Whether policy changes how many nodes a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Elasticity {
    /// A scaling policy may start and remove machines: what a pool is that says nothing.
    #[default]
    Dynamic,
    /// Nodes neither come nor go by policy.
    Static,
    /// As dynamic, and idle nodes move between such pools.
    Elastic,
}

/// How a pool's nodes come and go. From ledger version 9 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elastic {
    /// Whether they do.
    pub elasticity: Elasticity,
    /// No move leaves it fewer nodes.
    pub min_nodes: u32,
    /// No move gives it more nodes; 0 for no such bound.
    pub max_nodes: u32,
    /// Most nodes that move to it within any `growth_ms`; 0 for one.
    pub growth_nodes: u32,
    /// The time in which `growth_nodes` may come, in milliseconds; 0 for a minute.
    pub growth_ms: u64,
    /// A node that had nothing on it for so many milliseconds is idle, and one that came stays at least as long; 0 for 5 min.
    pub idle_timeout_ms: u64,
    /// Where so many thousandths of the free GPU of a class of device are stranded, the pool is said to be fragmented; 0 for no such line.
    pub fragmentation_permille: u32,
}

/// That a node moved, and from where it is lent. Stored with the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The pool that its registration gives it.
    pub home: String,
    /// The pool that it came from, the latest time.
    pub from: String,
    /// When it came.
    pub at: LedgerTime,
}

impl Elastic {
    /// True where nodes move to and from it.
    pub fn is_elastic(&self) -> bool {
        self.elasticity == Elasticity::Elastic
    }

    /// Most nodes, `u64::MAX` for no bound.
    pub fn most_nodes(&self) -> u64 {
        if self.max_nodes == 0 { u64::MAX } else { self.max_nodes.into() }
    }

    /// How many nodes may come in how many milliseconds.
    pub fn growth(&self) -> (u64, u64) {
        let nodes = if self.growth_nodes == 0 { DEFAULT_GROWTH.0 } else { self.growth_nodes.into() };
        (nodes, if self.growth_ms == 0 { DEFAULT_GROWTH.1 } else { self.growth_ms })
    }

    /// After how many milliseconds without work a node is idle.
    pub fn idle_timeout(&self) -> u64 {
        if self.idle_timeout_ms == 0 { DEFAULT_IDLE_MS } else { self.idle_timeout_ms }
    }
}

impl Elasticity {
    /// All of them, by the names that people write.
    pub const NAMED: [(&str, Elasticity); 3] =
        [("dynamic", Elasticity::Dynamic), ("static", Elasticity::Static), ("elastic", Elasticity::Elastic)];
}

impl Node {
    /// The pool that has lent it, where it is in another one.
    pub fn lent_by(&self) -> Option<&str> {
        self.moved.as_ref().map(|moved| moved.home.as_str()).filter(|home| *home != self.pool)
    }
}

impl Ledger {
    /// Nodes of a pool that are heard of: those that its bounds are about. O(nodes).
    pub fn nodes_heard(&self, pool: &str) -> u64 {
        self.nodes().filter(|node| node.pool == pool && node.health.is_heard()).count() as u64
    }

    /// Until when a node that came to its pool stays there; the beginning of time for one that never moved.
    pub fn stays_until(&self, node: &Node) -> LedgerTime {
        let timeout_ms = self.pool(&node.pool).map_or(0, |pool| pool.elastic.idle_timeout());
        node.moved.as_ref().map_or(LedgerTime(0), |moved| moved.at.plus_ms(timeout_ms))
    }

    /// How many nodes may come to a pool now, by its growth. O(nodes).
    pub fn growth_left(&self, pool: &Pool) -> u64 {
        let (nodes, within_ms) = pool.elastic.growth();
        let since = LedgerTime(self.clock().0.saturating_sub(within_ms));
        let lately = |node: &&Arc<Node>| {
            node.pool == pool.name && node.moved.as_ref().is_some_and(|moved| moved.at > since)
        };
        nodes.saturating_sub(self.nodes().filter(lately).count() as u64)
    }

    /// Whether a node may move from one pool to another now. Whether that is of any use is the leader's affair. O(nodes + intents).
    ///
    /// # Errors
    /// The first thing that stands in the way.
    pub fn may_move(&self, id: NodeId, from: &str, to: &str) -> Result<(), Refusal> {
        let node =
            self.node(id).ok_or_else(|| Refusal::one(Reason::NotFound, format!("node #{}", id.0), 1, 0))?;
        let pool = |name: &str| {
            self.pool(name).ok_or_else(|| Refusal::one(Reason::PoolNotFound, format!("pool {name}"), 1, 0))
        };
        let (source, target) = (pool(from)?, pool(to)?);
        if node.pool != from || from == to {
            return Err(in_no_state(format!("node {} is in pool {}", node.name(), node.pool)));
        }
        for pool in [source, target] {
            if !pool.elastic.is_elastic() {
                return Err(in_no_state(format!("pool {} is not elastic", pool.name)));
            }
        }
        self.may_go(node)?;
        self.may_spare(source)?;
        self.may_take(target)?;
        self.spares_calendar(node, from)
    }

    /// Whether a node is free to go, whoever wants it: it takes work, nothing is on it, and it has stayed for long enough. O(intents).
    ///
    /// # Errors
    /// The first thing that keeps it.
    pub fn may_go(&self, node: &Node) -> Result<(), Refusal> {
        if !node.is_eligible() {
            return Err(in_no_state(format!("node {} is {}", node.name(), node.state_name())));
        }
        if !node.fence_pending.is_empty() {
            return Err(in_no_state(format!("what ran on node {} may still run", node.name())));
        }
        // The policy that started it counts it, and removes it.
        if let Some(machine) = self.machine_of_node(node.name()) {
            let subject = format!("node {} belongs to scaling policy {}", node.name(), machine.policy);
            return Err(in_no_state(subject));
        }
        if self.holds_something(node) && !mutant!("move-a-busy-node") {
            let holders = self.usage(node.id).map_or(0, |usage| usage.holders.len() as u64);
            let subject = format!("work on node {}", node.name());
            return Err(Refusal::one(Reason::InUse, subject, 0, holders.max(1)));
        }
        let (now, until) = (self.clock(), self.stays_until(node));
        if now < until {
            let subject = format!("node {} stays until then", node.name());
            return Err(Refusal::one(Reason::WrongState, subject, now.0, until.0));
        }
        Ok(())
    }

    /// Whether a pool has a node to spare: more than its least, and more than a scaling policy wants of it, which would buy another. O(nodes + intents).
    ///
    /// # Errors
    /// What it is short of.
    pub fn may_spare(&self, pool: &Pool) -> Result<(), Refusal> {
        let (have, least) = (self.nodes_heard(&pool.name), u64::from(pool.elastic.min_nodes));
        if have <= least && !mutant!("move-below-the-least") {
            let subject = format!("min nodes of pool {}", pool.name);
            return Err(Refusal::one(Reason::LimitExceeded, subject, least, have));
        }
        let target = ScalingTarget::Pool(pool.name.clone());
        let Some(policy) = self.scaling_policy_of(&target) else { return Ok(()) };
        let desired = self.scaling(&policy.name).map_or(0, |state| state.desired);
        let counted = self.fleet(policy).counted();
        if counted <= desired {
            let subject = format!("nodes that scaling policy {} wants", policy.name);
            return Err(Refusal::one(Reason::WrongState, subject, desired, counted));
        }
        Ok(())
    }

    /// Whether a pool may get another node now, by its most and by its growth. O(nodes).
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn may_take(&self, pool: &Pool) -> Result<(), Refusal> {
        let (have, most) = (self.nodes_heard(&pool.name), pool.elastic.most_nodes());
        if have >= most {
            let subject = format!("max nodes of pool {}", pool.name);
            return Err(Refusal::one(Reason::LimitExceeded, subject, have + 1, most));
        }
        if self.growth_left(pool) == 0 {
            let (nodes, within_ms) = pool.elastic.growth();
            let subject = format!("growth of pool {}, nodes in {within_ms} ms", pool.name);
            return Err(Refusal::one(Reason::RateExceeded, subject, nodes + 1, nodes));
        }
        Ok(())
    }

    /// What the calendar keeps of a pool stays there: now, and at the start of each window and advance reservation.
    fn spares_calendar(&self, node: &Node, pool: &str) -> Result<(), Refusal> {
        // As one who may use nothing that is kept, and takes all of the node for ever.
        let request = Request { pool: pool.to_owned(), ..Request::default() };
        let amounts = self.offered_by(node);
        let (from, until) = (self.clock(), LedgerTime(u64::MAX));
        let ask = Ask { request: &request, amounts: &amounts, from, until, plan: None, may_cut: false };
        match self.calendar.judge(&ask) {
            Room::Short(blockers) => Err(Refusal { reason: Reason::ReservedByCalendar, blockers }),
            Room::Free | Room::Until(_) => Ok(()),
        }
    }

    /// The pool of a node that registers so, or is looked at again, and whether it moved: one that is lent stays lent while its home is the same and
    /// both pools are elastic.
    pub(crate) fn place_of(
        &self,
        registration: &Registration,
        known: Option<&Node>,
    ) -> (String, Option<Box<Moved>>) {
        let home = self.pool_of(registration);
        let is_elastic = |name: &str| self.pool(name).is_some_and(|pool| pool.elastic.is_elastic());
        let stays = |known: &&Node| {
            let same = known.moved.as_ref().is_some_and(|moved| moved.home == home);
            same && is_elastic(&home) && is_elastic(&known.pool)
        };
        match known.filter(stays) {
            Some(known) => (known.pool.clone(), known.moved.clone()),
            None => (home, None),
        }
    }
}

fn in_no_state(subject: String) -> Refusal {
    Refusal::one(Reason::WrongState, subject, 1, 0)
}

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn is_of_elastic(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::Pool(pool) if pool.elastic != Elastic::default())
}

/// Every way in which what a pool says of its nodes makes no sense.
pub(crate) fn validate_elastic(pool: &Pool) -> Vec<Blocker> {
    let elastic = &pool.elastic;
    let mut bad = Vec::new();
    let mut check = |field: &str, value: u64, least: u64, most: u64| {
        if !(least..=most).contains(&value) {
            let bound = if value < least { least } else { most };
            bad.push(Blocker::new(Reason::InvalidArgument, format!("pool.{field}"), value, bound));
        }
    };
    let (min, max) = (u64::from(elastic.min_nodes), u64::from(elastic.max_nodes));
    check("max_nodes", max, 0, MAX_POOL_NODES);
    check("min_nodes", min, 0, if max == 0 { MAX_POOL_NODES } else { max });
    check("growth_nodes", elastic.growth_nodes.into(), 0, MAX_POOL_NODES);
    for (field, value) in [("growth_ms", elastic.growth_ms), ("idle_timeout_ms", elastic.idle_timeout_ms)] {
        check(field, value, if value == 0 { 0 } else { MIN_TTL_MS }, MAX_TTL_MS);
    }
    check("fragmentation_permille", elastic.fragmentation_permille.into(), 0, 1_000);
    let of_moves = Elastic { fragmentation_permille: 0, elasticity: Elasticity::default(), ..*elastic };
    if !elastic.is_elastic() && of_moves != Elastic::default() {
        // Bounds that bound nothing would be believed in.
        bad.push(Blocker::new(Reason::InvalidArgument, "pool.elasticity", 1, 0));
    }
    bad
}
