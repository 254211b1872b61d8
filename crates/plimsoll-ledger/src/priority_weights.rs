//! What counts how much for a request's place in a queue that goes by points (`docs/semantics.md` 5.27), and what a request gives up of them.
//!
//! The ledger keeps both and decides nothing by them: the leader's planner counts the points, and explain says of what they are.

use std::collections::BTreeMap;

use plimsoll_types::ResourceName;

use crate::limits::{MAX_ITEMS, MAX_TTL_MS, MIN_TTL_MS};
use crate::{Blocker, Ledger, PolicyObject, Pool, QueueDiscipline, Reason, Refusal, Request};

/// First ledger version that knows weights of points.
pub(crate) const SINCE_VERSION: u32 = 15;
/// Most points of one weight, and most that a request gives up.
pub const MAX_POINTS: u32 = 1_000_000_000;

/// Points for each of the things that count, at the most: a request has the part of each that it fulfils. Slurm's multifactor, with the words of
/// `PriorityWeight*`; its site factor and partition factor are left to classes, which go before all points.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PriorityWeights {
    /// For having waited `max_age_ms`.
    pub age: u32,
    /// From this wait on, in milliseconds, age counts in whole.
    pub max_age_ms: u64,
    /// For smallness: a twentieth less for each doubling of what is asked.
    pub size: u32,
    /// For the queue that used least of the pool over time for its weight, less by rank for those after it. The pool counts use over time then.
    pub fair_share: u32,
    /// For guaranteed service; half for burstable.
    pub qos: u32,
    /// For asking all that the pool has of a resource.
    pub resources: BTreeMap<ResourceName, u32>,
}

impl Default for PriorityWeights {
    /// Age, all of it after a week, and half as much for smallness.
    fn default() -> PriorityWeights {
        PriorityWeights {
            age: 1_000_000,
            max_age_ms: 7 * 24 * 3_600_000,
            size: 500_000,
            fair_share: 0,
            qos: 0,
            resources: BTreeMap::new(),
        }
    }
}

impl Pool {
    /// What counts how much in its queue; `None` where it does not go by points.
    pub fn points(&self) -> Option<PriorityWeights> {
        (self.queueing == QueueDiscipline::Priority)
            .then(|| self.priority_weights.clone().unwrap_or_default())
    }

    /// True where points are given for little use over time.
    pub(crate) fn weighs_past_use(&self) -> bool {
        self.priority_weights.as_ref().is_some_and(|weights| weights.fair_share > 0)
    }
}

impl Ledger {
    /// What is wrong with weights that are put.
    pub(crate) fn check_priority_weights(&self, put: &[PolicyObject], blockers: &mut Vec<Blocker>) {
        if put.iter().any(is_of_points) {
            self.knows(SINCE_VERSION, "weights of points", blockers);
        }
    }

    /// Refuses a request that gives up points where nobody knows them yet.
    pub(crate) fn check_nice(&self, request: &Request) -> Result<(), Refusal> {
        if gives_up_points(request) { self.require_version(SINCE_VERSION, "nice") } else { Ok(()) }
    }
}

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn is_of_points(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::Pool(pool) if pool.priority_weights.is_some())
}

/// True for requests that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn gives_up_points(request: &Request) -> bool {
    request.nice > 0
}

/// Every way in which a pool's weights make no sense.
pub(crate) fn validate_priority_weights(pool: &Pool) -> Vec<Blocker> {
    let Some(weights) = &pool.priority_weights else { return Vec::new() };
    let mut bad = Vec::new();
    if pool.queueing != QueueDiscipline::Priority {
        let queueing = pool.discipline_name();
        let subject = format!("pool.priority_weights with queueing {queueing}: only priority goes by points");
        bad.push(Blocker::new(Reason::InvalidArgument, subject, 1, 0));
    }
    let mut most = |field: String, value: u64, least: u64, most: u64| {
        if !(least..=most).contains(&value) {
            let bound = if value < least { least } else { most };
            bad.push(Blocker::new(Reason::InvalidArgument, field, value, bound));
        }
    };
    let of = |name: &str| format!("pool.priority_weights.{name}");
    for (name, points) in [
        ("age", weights.age),
        ("size", weights.size),
        ("fair_share", weights.fair_share),
        ("qos", weights.qos),
    ] {
        most(of(name), points.into(), 0, MAX_POINTS.into());
    }
    most(of("max_age_ms"), weights.max_age_ms, MIN_TTL_MS, MAX_TTL_MS);
    most(of("resources"), weights.resources.len() as u64, 0, MAX_ITEMS as u64);
    for (resource, points) in &weights.resources {
        most(of(&format!("resources.{resource}")), (*points).into(), 0, MAX_POINTS.into());
    }
    bad
}
