//! What queues have left: `docs/semantics.md`, section 5.1, as it is written there, by recursion.

use plimsoll_ledger::{Queue, Quota, Request};

use super::scene::{Scene, charge_of};

/// True where a queue, or one above it, has less left than the charge.
pub(crate) fn is_short(scene: &Scene<'_>, request: &Request, charge: &[(String, u64)]) -> bool {
    if request.queue.is_empty() {
        return false;
    }
    let queues: Vec<&Queue> = scene.ledger.queues().map(AsRef::as_ref).collect();
    charge.iter().any(|(resource, amount)| {
        let tree = Tree { scene, queues: &queues, pool: &request.pool, resource };
        tree.is_limited(&request.queue) && *amount as i128 > tree.left(&request.queue)
    })
}

/// One resource of one pool.
struct Tree<'a> {
    scene: &'a Scene<'a>,
    queues: &'a [&'a Queue],
    pool: &'a str,
    resource: &'a str,
}

impl Tree<'_> {
    fn queue(&self, name: &str) -> &Queue {
        self.queues.iter().find(|queue| queue.name == name).expect("requests name queues that are there")
    }

    fn below(&self, name: &str) -> impl Iterator<Item = &str> {
        self.queues.iter().filter(move |queue| queue.parent == name).map(|queue| queue.name.as_str())
    }

    fn quota(&self, name: &str) -> Option<&Quota> {
        self.queue(name).quotas.get(self.pool)?.get(self.resource)
    }

    /// Some queue of the same tree says something of the resource.
    fn is_limited(&self, name: &str) -> bool {
        let parent = &self.queue(name).parent;
        if !parent.is_empty() {
            return self.is_limited(parent);
        }
        self.is_said(name)
    }

    fn is_said(&self, name: &str) -> bool {
        self.quota(name).is_some() || self.below(name).any(|below| self.is_said(below))
    }

    fn nominal(&self, name: &str) -> i128 {
        self.quota(name).map_or(0, |quota| quota.nominal.0.into())
    }

    fn guaranteed(&self, name: &str) -> i128 {
        self.quota(name).map_or(0, |quota| quota.guaranteed.0.into())
    }

    fn subtree(&self, name: &str) -> i128 {
        let lent: i128 = self.below(name).map(|below| self.subtree(below) - self.local(below)).sum();
        self.nominal(name) + lent
    }

    fn local(&self, name: &str) -> i128 {
        match self.guaranteed(name) {
            0 => 0,
            kept => (self.subtree(name) - (self.nominal(name) - kept)).max(0),
        }
    }

    fn usage(&self, name: &str) -> i128 {
        let own =
            self.scene.held.iter().filter(|one| one.request.queue == name && one.request.pool == self.pool);
        let own = own.flat_map(|one| charge_of(&one.amounts, &one.members));
        let own: i128 = own.filter(|(of, _)| of == self.resource).map(|(_, amount)| i128::from(amount)).sum();
        let borrowed: i128 =
            self.below(name).map(|below| (self.usage(below) - self.local(below)).max(0)).sum();
        own + borrowed
    }

    fn left(&self, name: &str) -> i128 {
        let parent = &self.queue(name).parent;
        if parent.is_empty() {
            return (self.subtree(name) - self.usage(name)).max(0);
        }
        let (local, usage) = (self.local(name), self.usage(name));
        let mut above = self.left(parent);
        if let Some(limit) = self.quota(name).and_then(|quota| quota.limit) {
            let borrow = i128::from(limit.0) - self.nominal(name);
            above = above.min(self.subtree(name) - local - (usage - local).max(0) + borrow);
        }
        (local - usage).max(0) + above.max(0)
    }
}
