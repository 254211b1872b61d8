//! Whether the queues make a tree after a change of policy.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{MAX_QUEUE_DEPTH, MAX_QUEUES};
use crate::{Blocker, Fairness, Ledger, PolicyName, PolicyObject, Queue, Reason, Strategy};

/// First ledger version that knows queues, fairness between them, prices of pools, and the strategies `fragmentation` and `optimized`.
pub(crate) const SINCE_VERSION: u32 = 3;

impl Ledger {
    /// Everything that keeps the queues from being a tree over pools that exist, once all is put and deleted.
    pub(crate) fn check_queues(
        &self,
        put: &[PolicyObject],
        delete: &[PolicyName],
        blockers: &mut Vec<Blocker>,
    ) {
        if put.iter().any(is_of_queues) && !self.knows(SINCE_VERSION, "queues", blockers) {
            return;
        }
        if !touches_queues(put, delete) && !delete.iter().any(|name| matches!(name, PolicyName::Pool(_))) {
            return;
        }
        let after = self.queues_after(put, delete);
        if after.len() > MAX_QUEUES {
            let (count, most) = (after.len() as u64, MAX_QUEUES as u64);
            blockers.push(Blocker {
                limit: most,
                ..Blocker::new(Reason::InvalidArgument, "queues", count, most)
            });
        }
        let pools = self.pools_after(put, delete);
        for queue in after.values() {
            // One more than allowed where it goes in circles.
            let path = up_from(|name| after.get(name).copied(), &queue.name);
            let depth = path.take(MAX_QUEUE_DEPTH + 1).count();
            if !queue.parent.is_empty() && !after.contains_key(queue.parent.as_str()) {
                blockers.push(orphan(queue, delete));
            } else if depth > MAX_QUEUE_DEPTH {
                let subject = format!("depth of queue {}: a circle, or too deep", queue.name);
                blockers.push(Blocker::new(
                    Reason::InvalidArgument,
                    subject,
                    depth as u64,
                    MAX_QUEUE_DEPTH as u64,
                ));
            }
            for pool in queue.quotas.keys().filter(|pool| !pools.contains(pool.as_str())) {
                let deleted =
                    delete.iter().any(|name| matches!(name, PolicyName::Pool(gone) if gone == pool));
                let reason = if deleted { Reason::InUse } else { Reason::PoolNotFound };
                blockers.push(Blocker::new(reason, format!("pool {pool} in queue {}", queue.name), 1, 0));
            }
        }
    }

    pub(super) fn queues_after<'a>(
        &'a self,
        put: &'a [PolicyObject],
        delete: &[PolicyName],
    ) -> BTreeMap<&'a str, &'a Queue> {
        let mut after: BTreeMap<&str, &Queue> =
            self.queues.iter().map(|(name, queue)| (name.as_str(), queue.as_ref())).collect();
        for object in put {
            if let PolicyObject::Queue(queue) = object {
                after.insert(&queue.name, queue);
            }
        }
        for name in delete {
            if let PolicyName::Queue(name) = name {
                after.remove(name.as_str());
            }
        }
        after
    }

    pub(crate) fn pools_after<'a>(
        &'a self,
        put: &'a [PolicyObject],
        delete: &[PolicyName],
    ) -> BTreeSet<&'a str> {
        let mut pools: BTreeSet<&str> = self.pools.keys().map(String::as_str).collect();
        for object in put {
            if let PolicyObject::Pool(pool) = object {
                pools.insert(&pool.name);
            }
        }
        for name in delete {
            if let PolicyName::Pool(name) = name {
                pools.remove(name.as_str());
            }
        }
        pools
    }
}

/// True where a change puts or deletes queues, so that the tree has to be made anew.
pub(crate) fn touches_queues(put: &[PolicyObject], delete: &[PolicyName]) -> bool {
    put.iter().any(|object| matches!(object, PolicyObject::Queue(_)))
        || delete.iter().any(|name| matches!(name, PolicyName::Queue(_)))
}

/// True for what ledgers before [`SINCE_VERSION`] do not know.
pub(super) fn is_of_queues(object: &PolicyObject) -> bool {
    match object {
        PolicyObject::Queue(_) => true,
        PolicyObject::Pool(pool) => {
            pool.fairness != Fairness::default()
                || pool.price_milli != 0
                || matches!(pool.strategy, Strategy::Fragmentation | Strategy::Optimized)
        }
        PolicyObject::Class(_)
        | PolicyObject::NodeLimits(_)
        | PolicyObject::Quota(_)
        | PolicyObject::Validator(_)
        | PolicyObject::Service(_)
        | PolicyObject::ScalingPolicy(_)
        | PolicyObject::Schedule(_) => false,
    }
}

/// A queue whose parent is missing: because it goes with this change, or because it never was there.
fn orphan(queue: &Queue, delete: &[PolicyName]) -> Blocker {
    let deleted = delete.iter().any(|name| matches!(name, PolicyName::Queue(gone) if *gone == queue.parent));
    if deleted {
        return Blocker::new(
            Reason::InUse,
            format!("queue {}: {} is below it", queue.parent, queue.name),
            0,
            1,
        );
    }
    Blocker::new(Reason::QueueNotFound, format!("{}, the parent of queue {}", queue.parent, queue.name), 1, 0)
}

/// A queue and those above it, up to its root, as `find` knows them: without end where it goes in circles, which only a change that is refused does.
pub(super) fn up_from<'a, F: Fn(&str) -> Option<&'a Queue>>(
    find: F,
    queue: &str,
) -> impl Iterator<Item = &'a Queue> + use<'a, F> {
    std::iter::successors(find(queue), move |queue| find(&queue.parent))
}
