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
        let of_preemption = |object: &PolicyObject| match object {
            PolicyObject::Pool(p) => {
                p.preemption != plimsoll_ledger::Preemption::Any
                    || p.max_preemptions_per_hour > 0
                    || !p.topology.is_empty()
            }
            PolicyObject::Class(c) => c.grace_ms > 0 || c.min_run_ms > 0,
            _ => false,
        };
        if self.version < 4 && put.iter().any(of_preemption) {
            reasons.push(Reason::UnsupportedVersion);
        }
        reasons.extend(self.overflow_reasons(put));
        reasons.extend(self.queueing_reasons(put));
        reasons.extend(self.qos_reasons(put));
        reasons.extend(self.processing_reasons(put, delete));
        reasons.extend(self.contention_reasons(put));
        reasons.extend(self.eviction_reasons(put));
        reasons.extend(self.elastic_reasons(put, delete));
        reasons.extend(self.spot_policy_reasons(put));
        reasons.extend(self.usage_reasons(put, delete));
        if self.version < 4 && put.iter().any(|object| matches!(object, PolicyObject::Validator(_))) {
            reasons.push(Reason::UnsupportedVersion);
        }
        reasons.extend(self.schedule_reasons(put, delete));
        reasons.extend(self.service_reasons(put, delete));
        reasons.extend(self.scaling_reasons(put, delete));
        for name in delete {
            let there = match name {
                PolicyName::Pool(n) => self.pools.contains_key(n),
                PolicyName::Class(n) => self.classes.contains_key(n),
                PolicyName::NodeLimits(n) => self.limits.contains_key(n),
                PolicyName::Queue(n) => self.queues.contains_key(n),
                PolicyName::Quota(n) => self.quotas.contains_key(n),
                PolicyName::Validator(n) => self.validators.contains(n),
                PolicyName::Schedule(n) => self.schedules.contains_key(n),
                PolicyName::Service(n) => self.services.contains_key(n),
                PolicyName::ScalingPolicy(n) => self.scaled.contains_key(n),
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
                PolicyName::Quota(n) => self.is_committed(n),
                PolicyName::Service(n) => {
                    self.reservations.values().any(|r| !r.state.is_final() && r.request.service == *n)
                }
                PolicyName::NodeLimits(_)
                | PolicyName::Schedule(_)
                | PolicyName::ScalingPolicy(_)
                | PolicyName::Validator(_) => false,
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
                    self.rules.insert(c.name.clone(), (c.preemptible, c.grace_ms, c.min_run_ms));
                    self.qos.insert(c.name.clone(), c.qos);
                    self.targets.insert(c.name.clone(), c.latency_target_ms);
                    self.multipliers.insert(c.name.clone(), c.multiplier_milli);
                    self.guaranteed.insert(c.name.clone(), c.guaranteed);
                    self.leaves.remove(&c.name);
                    self.leaves.extend(c.evict_when.map(|when| (c.name, when)));
                }
                PolicyObject::Queue(q) => {
                    self.queues.insert(q.name.clone(), q);
                }
                PolicyObject::Quota(q) => {
                    self.quotas.insert(q.name.clone(), q);
                }
                PolicyObject::Validator(v) => {
                    self.validators.insert(v.name);
                }
                PolicyObject::Schedule(s) => self.put_schedule(s),
                PolicyObject::ScalingPolicy(p) => self.put_scaled(p),
                PolicyObject::Service(s) => drop(self.services.insert(s.name.clone(), s)),
                PolicyObject::NodeLimits(l) => {
                    self.limits.insert(l.name.clone(), l);
                }
            }
        }
        for name in delete {
            match name {
                PolicyName::Pool(n) => {
                    self.pools.remove(n);
                    self.end_contentions(n);
                }
                PolicyName::Class(n) => {
                    self.classes.remove(n);
                    self.rules.remove(n);
                    self.qos.remove(n);
                    self.targets.remove(n);
                    self.multipliers.remove(n);
                    self.guaranteed.remove(n);
                    self.leaves.remove(n);
                }
                PolicyName::Quota(n) => {
                    self.quotas.remove(n);
                    self.spent.retain(|(line, _)| line.quota != *n);
                    self.arrivals.retain(|(quota, ..), _| quota != n);
                }
                PolicyName::NodeLimits(n) => drop(self.limits.remove(n)),
                PolicyName::Queue(n) => drop(self.queues.remove(n)),
                PolicyName::Validator(n) => drop(self.validators.remove(n)),
                PolicyName::Schedule(n) => drop(self.schedules.remove(n)),
                PolicyName::Service(n) => drop(self.services.remove(n)),
                PolicyName::ScalingPolicy(n) => self.delete_scaled(n),
            }
        }
        self.policy_changed = self.revision;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let reg = self.nodes[&id].reg.clone();
            let (was, allocatable) = (self.nodes[&id].clone(), self.allocatable_of(&reg));
            let (pool, lent) = self.place_of(&reg, was.lent.as_ref(), &was.pool);
            let n = self.nodes.get_mut(&id).expect("listed above");
            let moves = n.pool != pool;
            n.pool = pool;
            n.lent = lent;
            n.allocatable = allocatable;
            if moves {
                self.keep_no_places(id);
            }
        }
        Ok(())
    }

    /// What a pool says of its queue: section 7.
    fn queueing_reasons(&self, put: &[PolicyObject]) -> Vec<Reason> {
        let pools = || {
            put.iter()
                .filter_map(|object| if let PolicyObject::Pool(pool) = object { Some(pool) } else { None })
        };
        let mut reasons = Vec::new();
        let says = |pool: &plimsoll_ledger::Pool| {
            !pool.queueing.to_string().is_empty() || pool.starvation_bound_ms != 0
        };
        if self.version < 4 && pools().any(says) {
            reasons.push(Reason::UnsupportedVersion);
        }
        let bound = |pool: &plimsoll_ledger::Pool| {
            pool.starvation_bound_ms == 0 || (1_000..=366 * 86_400_000).contains(&pool.starvation_bound_ms)
        };
        if !pools().all(bound) {
            reasons.push(Reason::InvalidArgument);
        }
        reasons
    }
}
