//! I4: nothing is granted beyond what a queue, and each above it, may take. Quotas may be cut below what is taken; then nothing more is.

use std::collections::BTreeMap;

use plimsoll_ledger::Quota;

use super::{Findings, Invariant, members_take};
use crate::oracle::{Picture, Step};

/// See the module.
pub(super) struct Quotas;

/// Taken by the reservations of each queue themselves, of one resource of one pool.
pub(super) type Taken = BTreeMap<String, i128>;

impl Invariant for Quotas {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        if step.after.queues.is_empty() {
            return;
        }
        let grown =
            step.moved().filter(|(_, after)| !after.request.queue.is_empty() && after.state.is_occupying());
        for (_, reservation) in grown {
            let (queue, pool) = (&reservation.request.queue, &reservation.request.pool);
            if !step.after.queues.contains_key(queue) {
                let detail = format!("{} takes from queue {queue}, which is not there", reservation.id);
                findings.add("I4", step.revision, detail);
                continue;
            }
            for resource in resources(&step.after, pool) {
                let (before, after) =
                    (taken(&step.before, pool, &resource), taken(&step.after, pool, &resource));
                let own = |taken: &Taken| taken.get(queue).copied().unwrap_or(0);
                if own(&after) <= own(&before) {
                    continue;
                }
                let view = View { picture: &step.after, pool, resource: &resource, taken: &after };
                if let Some(over) = view.over(queue) {
                    let detail =
                        format!("{} takes {resource} of {pool} beyond what queue {over} may", reservation.id);
                    findings.add("I4", step.revision, detail);
                }
            }
        }
    }
}

/// Resources of the pool of which any queue says something.
fn resources(picture: &Picture, pool: &str) -> Vec<String> {
    let quotas = picture.queues.values().filter_map(|queue| queue.quotas.get(pool));
    let mut names: Vec<String> = quotas.flat_map(|quotas| quotas.keys().cloned()).collect();
    names.sort();
    names.dedup();
    names
}

fn taken(picture: &Picture, pool: &str, resource: &str) -> Taken {
    let mut taken = Taken::new();
    for reservation in picture.occupying().filter(|one| one.request.pool == pool) {
        let mut amount = members_take(reservation, resource, |_| true) as i128;
        if resource == "gpu" {
            let grants = reservation.members.iter().flat_map(|member| &member.devices);
            amount += grants.map(|grant| i128::from(grant.milli)).sum::<i128>();
        }
        *taken.entry(reservation.request.queue.clone()).or_default() += amount;
    }
    taken
}

/// One resource of one pool in the tree of queues.
pub(super) struct View<'a> {
    pub(super) picture: &'a Picture,
    pub(super) pool: &'a str,
    pub(super) resource: &'a str,
    pub(super) taken: &'a Taken,
}

impl View<'_> {
    /// The first queue from this one up that has more than it may; none where nobody in its tree is given any of the resource.
    fn over(&self, queue: &str) -> Option<String> {
        let mut path = vec![queue];
        while let Some(above) =
            self.picture.queues.get(*path.last()?).filter(|queue| !queue.parent.is_empty())
        {
            path.push(&above.parent);
        }
        let root = *path.last()?;
        if !self.is_managed(root) {
            return None;
        }
        let over = |queue: &&&str| {
            let (quota, local, usage) = (self.quota(queue), self.local(queue), self.usage(queue));
            let subtree = self.subtree(queue);
            if **queue == root {
                return usage > subtree;
            }
            let most =
                quota.limit.map(|limit| subtree - local + i128::from(limit.0) - i128::from(quota.nominal.0));
            most.is_some_and(|most| usage - local > most.max(0))
        };
        // What a queue keeps to itself it takes of nobody above, who may have been cut meanwhile.
        let reaches = |queue: &&str| self.usage(queue) > self.local(queue);
        let last = path.iter().position(|queue| !reaches(queue)).unwrap_or(path.len());
        path.iter().take(last + 1).find(over).map(|queue| (*queue).to_owned())
    }

    pub(super) fn is_managed(&self, queue: &str) -> bool {
        let here = self.picture.queues.get(queue).and_then(|queue| queue.quotas.get(self.pool));
        here.is_some_and(|quotas| quotas.contains_key(self.resource))
            || self.below(queue).any(|child| self.is_managed(child))
    }

    fn below<'b>(&'b self, queue: &'b str) -> impl Iterator<Item = &'b str> {
        self.picture
            .queues
            .values()
            .filter(move |child| child.parent == queue)
            .map(|child| child.name.as_str())
    }

    pub(super) fn quota(&self, queue: &str) -> Quota {
        let quotas = self.picture.queues.get(queue).and_then(|queue| queue.quotas.get(self.pool));
        quotas.and_then(|quotas| quotas.get(self.resource)).copied().unwrap_or_default()
    }

    fn subtree(&self, queue: &str) -> i128 {
        let lent = self.below(queue).map(|child| self.subtree(child) - self.local(child));
        i128::from(self.quota(queue).nominal.0) + lent.sum::<i128>()
    }

    fn local(&self, queue: &str) -> i128 {
        let quota = self.quota(queue);
        if quota.guaranteed.0 == 0 {
            return 0;
        }
        (self.subtree(queue) - i128::from(quota.nominal.0) + i128::from(quota.guaranteed.0)).max(0)
    }

    pub(super) fn usage(&self, queue: &str) -> i128 {
        let borrowed = self.below(queue).map(|child| (self.usage(child) - self.local(child)).max(0));
        self.taken.get(queue).copied().unwrap_or(0) + borrowed.sum::<i128>()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plimsoll_ledger::{Queue, Request, Reservation};
    use plimsoll_types::{Amount, ReservationId};

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    /// A step that grants a core to queue `a`, which is below `org`.
    fn looked_at(nominal: u64, limit: Option<u64>, root: u64) -> Vec<&'static str> {
        found(&mut Quotas, &granted(nominal, limit, root))
    }

    fn granted(nominal: u64, limit: Option<u64>, root: u64) -> Step {
        let mut one = reservation(1);
        one.request =
            Arc::new(Request { pool: "default".to_owned(), queue: "a".to_owned(), ..Request::default() });
        let mut step = step(&[node(0)], &[one]);
        step.before_mut().reservations.clear();
        let queue = |name: &str, parent: &str, nominal: u64, limit: Option<u64>| {
            let quota = Quota { guaranteed: Amount(0), nominal: Amount(nominal), limit: limit.map(Amount) };
            let quotas = [("default".to_owned(), [("cpu".to_owned(), quota)].into())].into();
            Arc::new(Queue { name: name.into(), parent: parent.into(), quotas, ..Queue::default() })
        };
        let queues = &mut step.after_mut().queues;
        queues.insert("org".into(), queue("org", "", root, None));
        queues.insert("a".into(), queue("a", "org", nominal, limit));
        step
    }

    #[test]
    fn what_goes_beyond_a_limit_or_all_there_is_is_found() {
        let nothing = Vec::<&str>::new();
        assert_eq!(looked_at(1_000, None, 0), nothing);
        assert_eq!(looked_at(0, None, 1_000), nothing);
        assert_eq!(looked_at(500, Some(1_000), 500), nothing);
        assert_eq!(looked_at(500, Some(999), 500), ["I4"]);
        assert_eq!(looked_at(500, None, 499), ["I4"]);
    }

    #[test]
    fn what_a_queue_keeps_to_itself_is_no_matter_of_those_above() {
        let mut step = granted(1_000, None, 0);
        let mut taken = Reservation::clone(&step.after.reservations[&ReservationId(1)]);
        taken.id = ReservationId(2);
        taken.request = Arc::new(Request { queue: "org".to_owned(), ..Request::clone(&taken.request) });
        let taken = Arc::new(taken);
        step.before_mut().reservations.insert(taken.id, Arc::clone(&taken));
        step.after_mut().reservations.insert(taken.id, taken);
        assert_eq!(found(&mut Quotas, &step), ["I4"]);
        let queues = &mut step.after_mut().queues;
        let mut keeps = Queue::clone(&queues["a"]);
        let quota = keeps.quotas.get_mut("default").and_then(|quotas| quotas.get_mut("cpu"));
        quota.expect("it has one").guaranteed = Amount(1_000);
        queues.insert("a".to_owned(), Arc::new(keeps));
        assert_eq!(found(&mut Quotas, &step), Vec::<&str>::new());
    }
}
