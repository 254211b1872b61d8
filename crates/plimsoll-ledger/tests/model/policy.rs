//! Policy of the model: `docs/semantics.md` 7.

use super::*;

impl Model {
    pub(super) fn policy(
        &mut self,
        put: &[PolicyObject],
        delete: &[PolicyName],
        if_revision: u64,
    ) -> Result<(), Reason> {
        if if_revision > 0 && self.policy_changed > if_revision {
            return Err(Reason::RevisionMoved);
        }
        let mut reasons = self.queue_reasons(put, delete);
        for name in delete {
            let there = match name {
                PolicyName::Pool(n) => self.pools.contains_key(n),
                PolicyName::Class(n) => self.classes.contains_key(n),
                PolicyName::NodeLimits(n) => self.limits.contains_key(n),
                PolicyName::Queue(n) => self.queues.contains_key(n),
            };
            if !there {
                reasons.push(Reason::NotFound);
            }
            let in_use = match name {
                PolicyName::Pool(n) => {
                    n == "default"
                        || self.reservations.values().any(|r| !r.state.is_final() && r.request.pool == *n)
                }
                PolicyName::Class(n) => n == "standard",
                PolicyName::Queue(n) => {
                    self.reservations.values().any(|r| !r.state.is_final() && r.request.queue == *n)
                }
                PolicyName::NodeLimits(_) => false,
            };
            if in_use {
                reasons.push(Reason::InUse);
            }
        }
        least(reasons)?;
        for object in put {
            match object.clone() {
                PolicyObject::Pool(p) => {
                    self.pools.insert(p.name.clone(), p);
                }
                PolicyObject::Class(c) => {
                    self.classes.insert(c.name.clone(), (c.priority, c.default_ttl_ms));
                }
                PolicyObject::Queue(q) => {
                    self.queues.insert(q.name.clone(), q);
                }
                PolicyObject::NodeLimits(l) => {
                    self.limits.insert(l.name.clone(), l);
                }
            }
        }
        for name in delete {
            match name {
                PolicyName::Pool(n) => drop(self.pools.remove(n)),
                PolicyName::Class(n) => drop(self.classes.remove(n)),
                PolicyName::NodeLimits(n) => drop(self.limits.remove(n)),
                PolicyName::Queue(n) => drop(self.queues.remove(n)),
            }
        }
        self.policy_changed = self.revision;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let reg = self.nodes[&id].reg.clone();
            let (pool, allocatable) = (self.pool_of(&reg), self.allocatable_of(&reg));
            let n = self.nodes.get_mut(&id).expect("listed above");
            n.pool = pool;
            n.allocatable = allocatable;
        }
        Ok(())
    }
}
