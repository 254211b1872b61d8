//! What a pool does about contention.

use std::collections::BTreeSet;

use super::Severity;
use crate::limits::MAX_TTL_MS;
use crate::{Blocker, PolicyObject, Pool, Reason};

/// What is done about a contention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolve {
    /// Nothing but to say so.
    Wait,
    /// The pool's queue goes by class and age alone, whatever its fairness says.
    Priority,
    /// Preemption, which the pool does not allow otherwise.
    Preempt,
    /// Machines are asked of the pool's scaling policy.
    Scale,
    /// Who would come back by itself goes to other nodes of the pool, so that one who waits fits where it was. From ledger version 10 on.
    Redistribute,
}

/// First ledger version that knows [`Resolve::Redistribute`].
pub(crate) const REDISTRIBUTE_SINCE_VERSION: u32 = 10;

impl Resolve {
    /// All of them, by the names that people write.
    pub const NAMED: [(&str, Resolve); 5] = [
        ("wait", Resolve::Wait),
        ("priority", Resolve::Priority),
        ("preempt", Resolve::Preempt),
        ("scale", Resolve::Scale),
        ("redistribute", Resolve::Redistribute),
    ];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Resolve::Wait => "wait",
            Resolve::Priority => "priority",
            Resolve::Preempt => "preempt",
            Resolve::Scale => "scale",
            Resolve::Redistribute => "redistribute",
        }
    }
}

/// What a pool does about contention, and when. From ledger version 8 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContentionPolicy {
    /// What is done.
    pub resolve: BTreeSet<Resolve>,
    /// Not before a contention has lasted so long, in milliseconds.
    pub after_ms: u64,
    /// Not below this severity.
    pub from: Severity,
}

/// Every way in which it makes no sense.
pub(crate) fn validate_contention(pool: &Pool) -> Vec<Blocker> {
    let Some(policy) = &pool.contention else { return Vec::new() };
    let mut bad = Vec::new();
    if policy.resolve.is_empty() {
        let field = "pool.contention.resolve";
        bad.push(Blocker {
            limit: Resolve::NAMED.len() as u64,
            ..Blocker::new(Reason::InvalidArgument, field, 0, 1)
        });
    }
    if policy.after_ms > MAX_TTL_MS {
        let field = "pool.contention.after_ms";
        let blocker = Blocker::new(Reason::InvalidArgument, field, policy.after_ms, MAX_TTL_MS);
        bad.push(Blocker { limit: MAX_TTL_MS, ..blocker });
    }
    bad
}

/// True for policy that ledgers before [`super::SINCE_VERSION`] do not know.
pub(crate) fn is_of_contention(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::Pool(pool) if pool.contention.is_some())
}

/// True for policy that ledgers before [`REDISTRIBUTE_SINCE_VERSION`] do not know.
pub(crate) fn redistributes(object: &PolicyObject) -> bool {
    let PolicyObject::Pool(pool) = object else { return false };
    pool.contention.as_ref().is_some_and(|policy| policy.resolve.contains(&Resolve::Redistribute))
}
