//! Pools, classes and node limits: changed together or not at all.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_types::Revision;

use super::queues::touches_queues;
use crate::ledger::Context;
use crate::topology::{self, is_of_topology};
use crate::validate::validate_policy_of;
use crate::{
    Blocker, DEFAULT_CLASS, DEFAULT_POOL, EventObject, Ledger, Node, Outcome, PolicyName, PolicyObject,
    Reason, Refusal, Request, RowPlace,
};

impl Ledger {
    pub(crate) fn apply_policy(
        &mut self,
        context: &mut Context<'_>,
        put: &[PolicyObject],
        delete: &[PolicyName],
        if_revision: Revision,
    ) -> Result<Outcome, Refusal> {
        let changed = self.meta.policy_changed;
        if if_revision.0 > 0 && changed > if_revision {
            return Err(Refusal::one(Reason::RevisionMoved, "policy", if_revision.0, changed.0));
        }
        self.check_policy(context.actor, put, delete)?;
        let countables_before = self.countable_names();
        let levels_before = self.levels();
        let fair_trees_before = self.fair_trees();
        let touches_pools = put.iter().any(|object| matches!(object, PolicyObject::Pool(_)))
            || delete.iter().any(|name| matches!(name, PolicyName::Pool(_)));
        for object in put {
            self.put_policy(context, object);
        }
        for name in delete {
            self.delete_policy(context, name);
        }
        self.meta.policy_changed = context.revision;
        if self.countable_names() != countables_before {
            self.recount_usage();
        }
        if self.levels() != levels_before {
            self.recount_work();
        }
        self.follow_spot_policies();
        self.follow_fair_trees(&fair_trees_before);
        if touches_pools {
            self.recount_by_class();
        }
        if touches_queues(put, delete) {
            self.remake_quota();
            self.recount_batches();
        }
        self.review_nodes(context);
        if !self.schedules.is_empty() || !self.calendar.is_empty() || self.guarantees().next().is_some() {
            self.recount_calendar();
        }
        Ok(Outcome::Done)
    }

    fn check_policy(&self, actor: &str, put: &[PolicyObject], delete: &[PolicyName]) -> Result<(), Refusal> {
        let mut blockers: Vec<Blocker> =
            put.iter().flat_map(|object| validate_policy_of(self.meta.version, object)).collect();
        self.check_administration(actor, put, delete, &mut blockers);
        self.check_queues(put, delete, &mut blockers);
        if put.iter().any(super::preempt::is_of_preemption) {
            self.knows(super::preempt::SINCE_VERSION, "preemption", &mut blockers);
        }
        if put.iter().any(is_of_topology) {
            self.knows(topology::SINCE_VERSION, "topology of pools", &mut blockers);
        }
        if put.iter().any(super::evict::is_of_eviction) {
            self.knows(crate::eviction::SINCE_VERSION, "eviction thresholds", &mut blockers);
        }
        self.check_spot_policy(put, &mut blockers);
        self.check_overflow(put, &mut blockers);
        self.check_queueing(put, &mut blockers);
        self.check_processing(put, delete, &mut blockers);
        self.check_fair_trees(put, &mut blockers);
        self.check_class_order(put, &mut blockers);
        self.check_priority_weights(put, &mut blockers);
        self.check_qos_policy(put, &mut blockers);
        self.check_contention_policy(put, &mut blockers);
        self.check_elastic(put, delete, &mut blockers);
        self.check_quotas(put, delete, &mut blockers);
        self.check_validators(put, delete, &mut blockers);
        self.check_schedules(put, delete, &mut blockers);
        self.check_services(put, delete, &mut blockers);
        self.check_scaling_policies(put, delete, &mut blockers);
        for name in delete {
            let label = format!("{} {}", name.kind(), name.name());
            if !self.has_policy(name) {
                blockers.push(Blocker::new(Reason::NotFound, label.as_str(), 1, 0));
            }
            match name {
                PolicyName::Pool(pool) => {
                    let live = self.live_of(|request| request.pool == *pool);
                    if live > 0 || pool == DEFAULT_POOL {
                        blockers.push(Blocker::new(Reason::InUse, label, 0, live));
                    }
                }
                PolicyName::Class(class) if class == DEFAULT_CLASS => {
                    blockers.push(Blocker::new(Reason::InUse, label, 0, 1));
                }
                PolicyName::Queue(queue) => {
                    let live = self.live_of(|request| request.queue == *queue);
                    if live > 0 {
                        blockers.push(Blocker::new(Reason::InUse, label, 0, live));
                    }
                }
                PolicyName::Service(service) => {
                    let live = self.live_of(|request| request.service == *service);
                    if live > 0 {
                        blockers.push(Blocker::new(Reason::InUse, label, 0, live));
                    }
                }
                PolicyName::Class(_)
                | PolicyName::NodeLimits(_)
                | PolicyName::Quota(_)
                | PolicyName::Validator(_)
                | PolicyName::Schedule(_)
                | PolicyName::ScalingPolicy(_) => {}
            }
        }
        blockers.sort_by_key(|blocker| blocker.reason);
        match blockers.first() {
            None => Ok(()),
            Some(first) => Err(Refusal { reason: first.reason, blockers }),
        }
    }

    /// True where a policy object of this kind and name is there.
    pub(super) fn has_policy(&self, name: &PolicyName) -> bool {
        match name {
            PolicyName::Pool(name) => self.pools.contains_key(name),
            PolicyName::Class(name) => self.classes.contains_key(name),
            PolicyName::NodeLimits(name) => self.node_limits.contains_key(name),
            PolicyName::Queue(name) => self.queues.contains_key(name),
            PolicyName::Quota(name) => self.quota_policies.contains_key(name),
            PolicyName::Validator(name) => self.validators.contains_key(name),
            PolicyName::Schedule(name) => self.schedules.contains_key(name),
            PolicyName::Service(name) => self.services.contains_key(name),
            PolicyName::ScalingPolicy(name) => self.scaling_policies.contains_key(name),
        }
    }

    fn put_policy(&mut self, context: &mut Context<'_>, object: &PolicyObject) {
        match object {
            PolicyObject::Pool(pool) => {
                let pool = Arc::new(crate::Pool { changed: context.revision, ..pool.clone() });
                self.put_pool(Arc::clone(&pool));
                context.event("policy/put", EventObject::Pool(pool));
            }
            PolicyObject::Class(class) => {
                let class = Arc::new(crate::Class { changed: context.revision, ..class.clone() });
                self.put_class(Arc::clone(&class));
                context.event("policy/put", EventObject::Class(class));
            }
            PolicyObject::Queue(queue) => {
                let queue = Arc::new(crate::Queue { changed: context.revision, ..queue.clone() });
                self.put_queue(Arc::clone(&queue));
                context.event("policy/put", EventObject::Queue(queue));
            }
            PolicyObject::Quota(quota) => {
                let quota = Arc::new(crate::QuotaPolicy { changed: context.revision, ..quota.clone() });
                self.put_quota_policy(Arc::clone(&quota));
                context.event("policy/put", EventObject::Quota(quota));
            }
            PolicyObject::Validator(object) => {
                let object = Arc::new(crate::Validator { changed: context.revision, ..object.clone() });
                self.put_validator(Arc::clone(&object));
                context.event("policy/put", EventObject::Validator(object));
            }
            PolicyObject::Schedule(schedule) => {
                let schedule = Arc::new(self.renewed_schedule(schedule, context.revision));
                self.put_schedule(Arc::clone(&schedule));
                context.event("policy/put", EventObject::Schedule(schedule));
            }
            PolicyObject::Service(service) => {
                let service = Arc::new(crate::Service { changed: context.revision, ..service.clone() });
                self.put_service(Arc::clone(&service));
                context.event("policy/put", EventObject::Service(service));
            }
            PolicyObject::ScalingPolicy(policy) => self.store_scaling_policy(context, policy),
            PolicyObject::NodeLimits(limits) => {
                let limits = Arc::new(crate::NodeLimits { changed: context.revision, ..limits.clone() });
                self.put_node_limits(Arc::clone(&limits));
                context.event("policy/put", EventObject::NodeLimits(limits));
            }
        }
    }

    fn delete_policy(&mut self, context: &mut Context<'_>, name: &PolicyName) {
        match name {
            PolicyName::Pool(name) => {
                self.pools.remove(name);
                self.touched.row(RowPlace::Pool(name.clone()));
                context.event("policy/delete", EventObject::PoolDeleted(name.clone()));
                self.end_contentions_of(context, name);
            }
            PolicyName::Class(name) => {
                self.classes.remove(name);
                self.touched.row(RowPlace::Class(name.clone()));
                context.event("policy/delete", EventObject::ClassDeleted(name.clone()));
            }
            PolicyName::Queue(name) => {
                self.remove_queue(name);
                context.event("policy/delete", EventObject::QueueDeleted(name.clone()));
            }
            PolicyName::Quota(name) => {
                self.remove_usage_of(name);
                self.remove_quota_policy(name);
                context.event("policy/delete", EventObject::QuotaDeleted(name.clone()));
            }
            PolicyName::Validator(name) => {
                self.remove_validator(name);
                context.event("policy/delete", EventObject::ValidatorDeleted(name.clone()));
            }
            PolicyName::Schedule(name) => {
                self.remove_schedule(name);
                context.event("policy/delete", EventObject::ScheduleDeleted(name.clone()));
            }
            PolicyName::Service(name) => {
                self.remove_service(name);
                context.event("policy/delete", EventObject::ServiceDeleted(name.clone()));
            }
            PolicyName::ScalingPolicy(name) => {
                self.remove_scaling_policy(name);
                context.event("policy/delete", EventObject::ScalingPolicyDeleted(name.clone()));
            }
            PolicyName::NodeLimits(name) => {
                self.node_limits.remove(name);
                self.touched.row(RowPlace::NodeLimits(name.clone()));
                context.event("policy/delete", EventObject::NodeLimitsDeleted(name.clone()));
            }
        }
    }

    /// Pools and limits decide where a node is and what it offers: every node is looked at again.
    fn review_nodes(&mut self, context: &mut Context<'_>) {
        let nodes: Vec<Arc<Node>> = self.nodes().cloned().collect();
        for node in nodes {
            let (pool, moved) = self.place_of(&node.registration, Some(&node));
            let allocatable = self.allocatable_of(&node.registration);
            if pool != node.pool || moved != node.moved || allocatable != node.allocatable {
                let node = Node { pool, moved, allocatable, ..Node::clone(&node) };
                self.store_node(context, "policy/node", node);
            }
        }
    }

    /// Reservations that have not ended and whose request is such. O(reservations).
    fn live_of(&self, is_such: impl Fn(&Request) -> bool) -> u64 {
        self.reservations.values().filter(|r| !r.state.is_final() && is_such(&r.request)).count() as u64
    }

    fn levels(&self) -> Vec<(String, Vec<String>)> {
        let named = self.pools.values().filter(|pool| !pool.topology.is_empty());
        named.map(|pool| (pool.name.clone(), pool.topology.clone())).collect()
    }

    fn countable_names(&self) -> BTreeSet<(String, String)> {
        let names = |pool: &Arc<crate::Pool>| {
            pool.countables.keys().map(|name| (pool.name.clone(), name.clone())).collect::<Vec<_>>()
        };
        self.pools.values().flat_map(names).collect()
    }
}
