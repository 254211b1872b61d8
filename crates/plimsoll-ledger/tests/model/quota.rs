//! Quotas of the model: the formulae of `docs/semantics.md` 5.1, worked out from the reservations each time.

use std::collections::BTreeMap;

use plimsoll_ledger::{DeviceGrant, PolicyName, PolicyObject, Pool, Queue, Quota, Reason, Strategy};
use plimsoll_types::Resources;

use super::Model;

/// What members take of a quota: amounts of all, and `gpu` in thousandths.
pub(super) fn taken(amounts: &Resources, members: &[(u32, Vec<DeviceGrant>)], name: &str) -> u64 {
    let milli =
        members.iter().flat_map(|(_, grants)| grants).map(|grant| u64::from(grant.milli)).sum::<u64>();
    amounts.get(name).0 * members.len() as u64 + if name == "gpu" { milli } else { 0 }
}

impl Model {
    /// Resources of which the queue has too little left for what would be held beyond `before`.
    pub(super) fn quota_short(
        &self,
        (queue, pool): (&str, &str),
        before: (&Resources, &[(u32, Vec<DeviceGrant>)]),
        after: (&Resources, &[(u32, Vec<DeviceGrant>)]),
    ) -> bool {
        let names = after.0.iter().map(|(name, _)| name).chain(["gpu"]);
        let short = |name: &str| {
            let asked = taken(after.0, after.1, name).saturating_sub(taken(before.0, before.1, name));
            let left = self.left(queue, pool, name);
            left.is_some_and(|left| asked > 0 && i128::from(asked) > left.max(0))
        };
        !queue.is_empty() && names.into_iter().any(short)
    }

    /// `None` where nothing in the queue's tree is given any.
    pub(super) fn left(&self, queue: &str, pool: &str, name: &str) -> Option<i128> {
        let given = |of: &Queue| of.quotas.get(pool).is_some_and(|quotas| quotas.contains_key(name));
        let managed = self.queues.values().any(|of| given(of) && self.root(&of.name) == self.root(queue));
        managed.then(|| self.available(queue, pool, name))
    }

    pub(super) fn root<'a>(&'a self, mut queue: &'a str) -> &'a str {
        while !self.queues[queue].parent.is_empty() {
            queue = &self.queues[queue].parent;
        }
        queue
    }

    pub(super) fn quota(&self, queue: &str, pool: &str, name: &str) -> Quota {
        let quotas = self.queues[queue].quotas.get(pool);
        quotas.and_then(|quotas| quotas.get(name)).copied().unwrap_or_default()
    }

    fn children(&self, queue: &str) -> impl Iterator<Item = &str> {
        self.queues.values().filter(move |of| of.parent == queue).map(|of| of.name.as_str())
    }

    pub(super) fn subtree(&self, queue: &str, pool: &str, name: &str) -> i128 {
        let lent = |child| self.subtree(child, pool, name) - self.local(child, pool, name);
        i128::from(self.quota(queue, pool, name).nominal.0) + self.children(queue).map(lent).sum::<i128>()
    }

    fn local(&self, queue: &str, pool: &str, name: &str) -> i128 {
        let quota = self.quota(queue, pool, name);
        if quota.guaranteed.0 == 0 {
            return 0;
        }
        (self.subtree(queue, pool, name) - i128::from(quota.nominal.0 - quota.guaranteed.0)).max(0)
    }

    pub(super) fn usage(&self, queue: &str, pool: &str, name: &str) -> i128 {
        let own = self
            .counted()
            .filter(|r| r.request.queue == queue && r.request.pool == pool)
            .map(|r| i128::from(taken(&r.amounts, &r.members, name)));
        let below = |child| (self.usage(child, pool, name) - self.local(child, pool, name)).max(0);
        own.sum::<i128>() + self.children(queue).map(below).sum::<i128>()
    }

    fn available(&self, queue: &str, pool: &str, name: &str) -> i128 {
        let (subtree, usage) = (self.subtree(queue, pool, name), self.usage(queue, pool, name));
        let parent = &self.queues[queue].parent;
        if parent.is_empty() {
            return (subtree - usage).max(0);
        }
        let (local, quota) = (self.local(queue, pool, name), self.quota(queue, pool, name));
        let mut above = self.available(parent, pool, name);
        if let Some(limit) = quota.limit {
            let borrow = i128::from(limit.0 - quota.nominal.0);
            above = above.min(((subtree - local) - (usage - local).max(0) + borrow).max(0));
        }
        (local - usage).max(0) + above
    }

    /// What keeps the queues from being a tree over pools that are there.
    pub(super) fn queue_reasons(&self, put: &[PolicyObject], delete: &[PolicyName]) -> Vec<Reason> {
        let news = |object: &PolicyObject| match object {
            PolicyObject::Queue(_) => true,
            PolicyObject::Pool(pool) => {
                let new = matches!(pool.strategy, Strategy::Fragmentation | Strategy::Optimized);
                new || pool.fairness != Pool::default().fairness || pool.price_milli > 0
            }
            _ => false,
        };
        if self.version < 3 && put.iter().any(news) {
            return vec![Reason::UnsupportedVersion];
        }
        let mut queues: BTreeMap<&str, &Queue> =
            self.queues.iter().map(|(name, queue)| (name.as_str(), queue)).collect();
        let mut pools: Vec<&str> = self.pools.keys().map(String::as_str).collect();
        for object in put {
            match object {
                PolicyObject::Queue(queue) => drop(queues.insert(&queue.name, queue)),
                PolicyObject::Pool(pool) => pools.push(&pool.name),
                _ => {}
            }
        }
        let deleted = |name: PolicyName| delete.contains(&name);
        queues.retain(|name, _| !deleted(PolicyName::Queue((*name).to_owned())));
        pools.retain(|name| !deleted(PolicyName::Pool((*name).to_owned())));
        let mut reasons = Vec::new();
        for queue in queues.values() {
            let gone = deleted(PolicyName::Queue(queue.parent.clone()));
            if !queue.parent.is_empty() && !queues.contains_key(queue.parent.as_str()) {
                reasons.push(if gone { Reason::InUse } else { Reason::QueueNotFound });
                continue;
            }
            let (mut at, mut steps) = (queue.parent.as_str(), 1);
            while let Some(above) = queues.get(at).filter(|_| steps <= 16) {
                (at, steps) = (&above.parent, steps + 1);
            }
            if steps > 16 {
                reasons.push(Reason::InvalidArgument);
            }
        }
        for pool in queues
            .values()
            .flat_map(|queue| queue.quotas.keys())
            .filter(|pool| !pools.contains(&pool.as_str()))
        {
            let gone = deleted(PolicyName::Pool(pool.clone()));
            reasons.push(if gone { Reason::InUse } else { Reason::PoolNotFound });
        }
        reasons
    }
}
