//! Nodes and policy objects into the generated forms of their messages: they are written seldom.

use std::collections::BTreeMap;

use plimsoll_ledger::{
    Class, Device, DeviceGrant, FencePending, Node, NodeAdmin, NodeLimits, PolicyName, PolicyObject, Pool,
    PriorityWeights, Queue as PolicyQueue, Quota, Registration, RemovedDevice, RemovedNode, Rule, Validator,
};
use plimsoll_types::{Amount, Labels, Resources, Selector, Term};

use super::{contention, eviction, mig, names, scale, service, spot, usage};
use crate::log;

fn device_grants(grants: &[DeviceGrant]) -> Vec<log::DeviceGrant> {
    let one = |grant: &DeviceGrant| log::DeviceGrant {
        device: grant.device.0.into(),
        milli: grant.milli.into(),
        memory_bytes: grant.memory_bytes,
        slices: grant.slices.as_ref().map(mig::encode_slices),
    };
    grants.iter().map(one).collect()
}

pub(super) fn node(node: &Node) -> log::Node {
    use log::node::Admin;
    let pending = |pending: &FencePending| log::FencePending {
        reservation: pending.reservation.0,
        token: pending.token.0,
        amounts: Some(resources(&pending.amounts)),
        devices: device_grants(&pending.devices),
    };
    log::Node {
        id: node.id.0,
        registration: Some(registration(&node.registration)),
        epoch: node.epoch.0,
        pool: node.pool.clone(),
        allocatable: Some(resources(&node.allocatable)),
        admin: Some(match &node.admin {
            NodeAdmin::Schedulable => Admin::Schedulable(log::Schedulable {}),
            NodeAdmin::Cordoned { reason } => Admin::Cordoned(log::Cordon { reason: reason.clone() }),
            NodeAdmin::Draining { reason, deadline } => {
                Admin::Draining(log::Drain { reason: reason.clone(), deadline_ms: deadline.0 })
            }
        }),
        health: names::encode_health(node.health),
        health_since_ms: node.health_since.0,
        fence_pending: node.fence_pending.iter().map(pending).collect(),
        moved: node.moved.as_deref().map(|moved| log::Moved {
            home: moved.home.clone(),
            from: moved.from.clone(),
            at_ms: moved.at.0,
        }),
        interruption: node.interruption.map(spot::encode_interruption),
        changed: node.changed.0,
    }
}

pub(super) fn removed_node(removed: &RemovedNode) -> log::RemovedNode {
    let device = |device: &RemovedDevice| log::RemovedDevice {
        uuid: device.uuid.clone(),
        model: device.model.clone(),
    };
    log::RemovedNode {
        id: removed.id.0,
        name: removed.name.clone(),
        devices: removed.devices.iter().map(device).collect(),
        removed_at_ms: removed.removed_at.0,
    }
}

pub(super) fn registration(registration: &Registration) -> log::Registration {
    let device = |device: &Device| log::Device {
        uuid: device.uuid.clone(),
        model: device.model.clone(),
        memory_bytes: device.memory_bytes,
        failed: device.failed,
        mig: device.mig.as_ref().map(mig::encode_layout),
    };
    log::Registration {
        name: registration.name.clone(),
        incarnation: registration.incarnation,
        pool: registration.pool.clone(),
        labels: labels(&registration.labels),
        capacity: Some(resources(&registration.capacity)),
        devices: registration.devices.iter().map(device).collect(),
        self_fencing: registration.self_fencing,
        running: registration.running.iter().map(|id| id.0).collect(),
    }
}

pub(super) fn policy_object(object: &PolicyObject) -> log::PolicyObject {
    use log::policy_object::Object;
    let object = match object {
        PolicyObject::Pool(object) => Object::Pool(pool(object)),
        PolicyObject::Class(object) => Object::Class(class(object)),
        PolicyObject::NodeLimits(object) => Object::NodeLimits(node_limits(object)),
        PolicyObject::Queue(object) => Object::Queue(queue(object)),
        PolicyObject::Quota(object) => Object::Quota(usage::encode_quota(object)),
        PolicyObject::Validator(object) => Object::Validator(validator(object)),
        PolicyObject::Schedule(object) => Object::Schedule(super::schedule::encode(object)),
        PolicyObject::Service(object) => Object::Service(service::encode(object)),
        PolicyObject::ScalingPolicy(object) => Object::ScalingPolicy(scale::encode(object)),
    };
    log::PolicyObject { object: Some(object) }
}

pub(super) fn policy_name(name: &PolicyName) -> log::PolicyName {
    use log::policy_name::Name;
    let name = match name {
        PolicyName::Pool(name) => Name::Pool(name.clone()),
        PolicyName::Class(name) => Name::Class(name.clone()),
        PolicyName::NodeLimits(name) => Name::NodeLimits(name.clone()),
        PolicyName::Queue(name) => Name::Queue(name.clone()),
        PolicyName::Quota(name) => Name::Quota(name.clone()),
        PolicyName::Validator(name) => Name::Validator(name.clone()),
        PolicyName::Schedule(name) => Name::Schedule(name.clone()),
        PolicyName::Service(name) => Name::Service(name.clone()),
        PolicyName::ScalingPolicy(name) => Name::ScalingPolicy(name.clone()),
    };
    log::PolicyName { name: Some(name) }
}

pub(super) fn pool(pool: &Pool) -> log::Pool {
    log::Pool {
        name: pool.name.clone(),
        labels: labels(&pool.labels),
        select: selector(&pool.select),
        strategy: names::encode_strategy(pool.strategy),
        countables: amounts(&pool.countables),
        queue_order: names::encode_order(pool.queue_order),
        max_pending: pool.max_pending,
        changed: pool.changed.0,
        fairness: names::encode_fairness(pool.fairness),
        price_milli: pool.price_milli,
        elasticity: names::encode_elasticity(pool.elastic.elasticity),
        min_nodes: pool.elastic.min_nodes,
        max_nodes: pool.elastic.max_nodes,
        growth_nodes: pool.elastic.growth_nodes,
        growth_ms: pool.elastic.growth_ms,
        idle_timeout_ms: pool.elastic.idle_timeout_ms,
        fragmentation_permille: pool.elastic.fragmentation_permille,
        spot: pool.spot.as_ref().map(spot::encode_policy),
        preemption: names::encode_preemption(pool.preemption),
        max_preemptions_per_hour: pool.max_preemptions_per_hour,
        prices: named(&pool.prices),
        currency: pool.currency.clone(),
        topology: pool.topology.clone(),
        queueing: pool.queueing.to_string(),
        starvation_bound_ms: pool.starvation_bound_ms,
        oversubscription: named(
            &pool
                .oversubscription
                .iter()
                .map(|(name, permille)| (name.clone(), (*permille).into()))
                .collect(),
        ),
        contention: pool.contention.as_ref().map(contention::encode_policy),
        rebalance_interval_ms: pool.rebalance_interval_ms,
        power_budget_watts: pool.power_budget_watts,
        half_life_ms: pool.half_life_ms,
        class_order: names::encode_class_order(pool.class_order),
        priority_weights: pool.priority_weights.as_ref().map(priority_weights),
    }
}

fn priority_weights(weights: &PriorityWeights) -> log::PriorityWeights {
    let resources = weights.resources.iter().map(|(name, points)| (name.clone(), u64::from(*points)));
    log::PriorityWeights {
        age: weights.age,
        max_age_ms: weights.max_age_ms,
        size: weights.size,
        fair_share: weights.fair_share,
        qos: weights.qos,
        resources: named(&resources.collect()),
    }
}

pub(super) fn class(class: &Class) -> log::Class {
    let of_pool = |(pool, kept): (&String, &Resources)| log::PoolResources {
        pool: pool.clone(),
        resources: Some(resources(kept)),
    };
    log::Class {
        name: class.name.clone(),
        priority: class.priority,
        preemptible: class.preemptible,
        default_ttl_ms: class.default_ttl_ms,
        grace_ms: class.grace_ms,
        min_run_ms: class.min_run_ms,
        default_duration_ms: class.default_duration_ms,
        qos: names::encode_qos(class.qos),
        latency_target_ms: class.latency_target_ms,
        multiplier_milli: class.multiplier_milli,
        weight_milli: class.weight_milli,
        guaranteed: class.guaranteed.iter().map(of_pool).collect(),
        evict_when: eviction::encode_when(class.evict_when),
        changed: class.changed.0,
    }
}

pub(super) fn validator(object: &Validator) -> log::Validator {
    let rule = |rule: &Rule| log::ValidatorRule {
        expression: rule.expression.clone(),
        message: rule.message.clone(),
        path: rule.path.clone(),
    };
    log::Validator {
        name: object.name.clone(),
        subject: object.subject.clone(),
        pools: object.pools.iter().cloned().collect(),
        queues: object.queues.iter().cloned().collect(),
        rules: object.rules.iter().map(rule).collect(),
        changed: object.changed.0,
    }
}

pub(super) fn queue(queue: &PolicyQueue) -> log::QuotaQueue {
    let quota = |(resource, quota): (&String, &Quota)| log::ResourceQuota {
        resource: resource.clone(),
        guaranteed: quota.guaranteed.0,
        nominal: quota.nominal.0,
        limit: quota.limit.map(|limit| log::QuotaLimit { amount: limit.0 }),
    };
    let quotas = queue.quotas.iter().map(|(pool, quotas)| log::PoolQuotas {
        pool: pool.clone(),
        quotas: quotas.iter().map(quota).collect(),
    });
    log::QuotaQueue {
        name: queue.name.clone(),
        labels: labels(&queue.labels),
        parent: queue.parent.clone(),
        weight_milli: queue.weight_milli,
        quotas: quotas.collect(),
        max_pending: queue.max_pending,
        admins: queue.admins.clone(),
        batch: queue.batch.map(|batch| log::Batch { size: batch.size, interval_ms: batch.interval_ms }),
        guaranteed_processing: queue.guaranteed_processing,
        spot: queue.spot.as_ref().map(spot::encode_policy),
        overflow: names::encode_overflow(queue.overflow),
        changed: queue.changed.0,
    }
}

pub(super) fn node_limits(limits: &NodeLimits) -> log::NodeLimits {
    log::NodeLimits {
        name: limits.name.clone(),
        select: selector(&limits.select),
        max: Some(resources(&limits.max)),
        changed: limits.changed.0,
    }
}

pub(super) fn resources(resources: &Resources) -> log::Resources {
    log::Resources {
        cpu_millis: resources.cpu_millis.0,
        memory_bytes: resources.memory_bytes.0,
        other: amounts(&resources.other),
    }
}

fn amounts(amounts: &BTreeMap<String, Amount>) -> Vec<log::NamedAmount> {
    amounts.iter().map(|(name, amount)| log::NamedAmount { name: name.clone(), amount: amount.0 }).collect()
}

pub(super) fn named(amounts: &BTreeMap<String, u64>) -> Vec<log::NamedAmount> {
    amounts.iter().map(|(name, amount)| log::NamedAmount { name: name.clone(), amount: *amount }).collect()
}

pub(super) fn labels(labels: &Labels) -> Vec<log::Label> {
    labels.iter().map(|(key, value)| log::Label { key: key.clone(), value: value.clone() }).collect()
}

fn selector(selector: &Selector) -> Vec<log::Term> {
    selector.terms.iter().map(term).collect()
}

fn term(term: &Term) -> log::Term {
    log::Term {
        key: term.key.clone(),
        operator: names::encode_operator(term.operator),
        values: term.values.clone(),
    }
}
