//! Nodes and policy objects from the generated forms of their messages. Refuses what is missing, unknown, out of range or out of order.

use std::collections::BTreeMap;

use plimsoll_ledger::{
    Batch, Class, Device, DeviceGrant, Elastic, FencePending, Moved, Node, NodeAdmin, NodeLimits, PolicyName,
    PolicyObject, Pool, PriorityWeights, Queue as PolicyQueue, Quota, Registration, RemovedDevice,
    RemovedNode, Rule, Validator,
};
use plimsoll_types::{
    Amount, DeviceIndex, Labels, LedgerTime, NodeEpoch, NodeId, ReservationId, Resources, Revision, Selector,
    Term,
};

use super::{CodecError, contention, eviction, mig, names, scale, service, spot, usage};
use crate::log;

pub(super) type Result<T> = std::result::Result<T, CodecError>;

pub(super) fn removed_node(from: log::RemovedNode) -> RemovedNode {
    let device = |device: log::RemovedDevice| RemovedDevice { uuid: device.uuid, model: device.model };
    RemovedNode {
        id: NodeId(from.id),
        name: from.name,
        devices: from.devices.into_iter().map(device).collect(),
        removed_at: LedgerTime(from.removed_at_ms),
    }
}

fn device_grant(from: log::DeviceGrant) -> Result<DeviceGrant> {
    Ok(DeviceGrant {
        device: DeviceIndex(small(from.device, "grant.device")?),
        milli: small(from.milli, "grant.milli")?,
        memory_bytes: from.memory_bytes,
        slices: from.slices.map(mig::decode_slices).transpose()?,
    })
}

pub(super) fn node(from: log::Node) -> Result<Node> {
    use log::node::Admin as From;
    let pending = |from: log::FencePending| {
        Ok(FencePending {
            reservation: ReservationId(from.reservation),
            token: Revision(from.token),
            amounts: resources(from.amounts)?,
            devices: all(from.devices, device_grant)?,
        })
    };
    Ok(Node {
        id: NodeId(from.id),
        registration: registration(need(from.registration, "node.registration")?)?,
        epoch: NodeEpoch(from.epoch),
        pool: from.pool,
        allocatable: resources(from.allocatable)?,
        admin: match from.admin.ok_or(CodecError::UnknownKind { what: "node admin" })? {
            From::Schedulable(_) => NodeAdmin::Schedulable,
            From::Cordoned(from) => NodeAdmin::Cordoned { reason: from.reason },
            From::Draining(from) => {
                NodeAdmin::Draining { reason: from.reason, deadline: LedgerTime(from.deadline_ms) }
            }
        },
        health: names::decode_health(from.health)?,
        health_since: LedgerTime(from.health_since_ms),
        fence_pending: all(from.fence_pending, pending)?,
        interruption: from.interruption.map(spot::decode_interruption),
        moved: from
            .moved
            .map(|moved| Box::new(Moved { home: moved.home, from: moved.from, at: LedgerTime(moved.at_ms) })),
        changed: Revision(from.changed),
    })
}

pub(super) fn registration(from: log::Registration) -> Result<Registration> {
    let device = |from: log::Device| {
        Ok(Device {
            uuid: from.uuid,
            model: from.model,
            memory_bytes: from.memory_bytes,
            failed: from.failed,
            mig: from.mig.map(mig::decode_layout).transpose()?,
        })
    };
    Ok(Registration {
        name: from.name,
        incarnation: from.incarnation,
        pool: from.pool,
        labels: labels(from.labels)?,
        capacity: resources(from.capacity)?,
        devices: all(from.devices, device)?,
        self_fencing: from.self_fencing,
        running: from.running.into_iter().map(ReservationId).collect(),
    })
}

pub(super) fn policy_object(from: log::PolicyObject) -> Result<PolicyObject> {
    use log::policy_object::Object as From;
    Ok(match from.object.ok_or(CodecError::UnknownKind { what: "policy object" })? {
        From::Pool(from) => PolicyObject::Pool(pool(from)?),
        From::Class(from) => PolicyObject::Class(class(from)?),
        From::NodeLimits(from) => PolicyObject::NodeLimits(node_limits(from)?),
        From::Queue(from) => PolicyObject::Queue(queue(from)?),
        From::Quota(from) => PolicyObject::Quota(usage::decode_quota(from)?),
        From::Validator(from) => PolicyObject::Validator(validator(from)?),
        From::Schedule(from) => PolicyObject::Schedule(super::schedule::decode(from)?),
        From::Service(from) => PolicyObject::Service(service::decode(from)?),
        From::ScalingPolicy(from) => PolicyObject::ScalingPolicy(scale::decode(from)?),
    })
}

pub(super) fn policy_name(from: log::PolicyName) -> Result<PolicyName> {
    use log::policy_name::Name as From;
    Ok(match from.name.ok_or(CodecError::UnknownKind { what: "policy name" })? {
        From::Pool(name) => PolicyName::Pool(name),
        From::Class(name) => PolicyName::Class(name),
        From::NodeLimits(name) => PolicyName::NodeLimits(name),
        From::Queue(name) => PolicyName::Queue(name),
        From::Quota(name) => PolicyName::Quota(name),
        From::Validator(name) => PolicyName::Validator(name),
        From::Schedule(name) => PolicyName::Schedule(name),
        From::Service(name) => PolicyName::Service(name),
        From::ScalingPolicy(name) => PolicyName::ScalingPolicy(name),
    })
}

pub(super) fn pool(from: log::Pool) -> Result<Pool> {
    Ok(Pool {
        name: from.name,
        labels: labels(from.labels)?,
        select: selector(from.select)?,
        strategy: names::decode_strategy(from.strategy)?,
        countables: amounts(from.countables)?,
        queue_order: names::decode_order(from.queue_order)?,
        max_pending: from.max_pending,
        changed: Revision(from.changed),
        fairness: names::decode_fairness(from.fairness)?,
        price_milli: from.price_milli,
        elastic: Elastic {
            elasticity: names::decode_elasticity(from.elasticity)?,
            min_nodes: from.min_nodes,
            max_nodes: from.max_nodes,
            growth_nodes: from.growth_nodes,
            growth_ms: from.growth_ms,
            idle_timeout_ms: from.idle_timeout_ms,
            fragmentation_permille: from.fragmentation_permille,
        },
        spot: from.spot.map(spot::decode_policy).transpose()?,
        preemption: names::decode_preemption(from.preemption)?,
        max_preemptions_per_hour: from.max_preemptions_per_hour,
        prices: amounts(from.prices)?.into_iter().map(|(name, amount)| (name, amount.0)).collect(),
        currency: from.currency,
        topology: from.topology,
        queueing: from.queueing.parse().map_err(|()| CodecError::UnknownKind { what: "queue discipline" })?,
        starvation_bound_ms: from.starvation_bound_ms,
        oversubscription: amounts(from.oversubscription)?
            .into_iter()
            .map(|(name, amount)| {
                let field = "pool.oversubscription";
                let permille =
                    u32::try_from(amount.0).map_err(|_| CodecError::OutOfRange { field, value: amount.0 })?;
                Ok((name, permille))
            })
            .collect::<Result<_>>()?,
        contention: from.contention.map(contention::decode_policy).transpose()?,
        rebalance_interval_ms: from.rebalance_interval_ms,
        power_budget_watts: from.power_budget_watts,
        half_life_ms: from.half_life_ms,
        class_order: names::decode_class_order(from.class_order)?,
        priority_weights: from.priority_weights.map(priority_weights).transpose()?,
    })
}

fn priority_weights(from: log::PriorityWeights) -> Result<PriorityWeights> {
    let field = "pool.priority_weights.resources";
    let points = |(name, amount): (String, Amount)| match u32::try_from(amount.0) {
        Ok(points) => Ok((name, points)),
        Err(_) => Err(CodecError::OutOfRange { field, value: amount.0 }),
    };
    Ok(PriorityWeights {
        age: from.age,
        max_age_ms: from.max_age_ms,
        size: from.size,
        fair_share: from.fair_share,
        qos: from.qos,
        resources: amounts(from.resources)?.into_iter().map(points).collect::<Result<_>>()?,
    })
}

pub(super) fn class(from: log::Class) -> Result<Class> {
    if !from.guaranteed.is_sorted_by(|a, b| a.pool < b.pool) {
        return Err(CodecError::NotCanonical { what: "map of guarantees" });
    }
    Ok(Class {
        name: from.name,
        priority: from.priority,
        preemptible: from.preemptible,
        default_ttl_ms: from.default_ttl_ms,
        grace_ms: from.grace_ms,
        min_run_ms: from.min_run_ms,
        default_duration_ms: from.default_duration_ms,
        changed: Revision(from.changed),
        qos: names::decode_qos(from.qos)?,
        latency_target_ms: from.latency_target_ms,
        multiplier_milli: from.multiplier_milli,
        weight_milli: from.weight_milli,
        guaranteed: from
            .guaranteed
            .into_iter()
            .map(|kept| Ok((kept.pool, resources(kept.resources)?)))
            .collect::<Result<_>>()?,
        evict_when: eviction::decode_when(&from.evict_when)?,
    })
}

pub(super) fn validator(from: log::Validator) -> Result<Validator> {
    let is_set = |names: &[String]| names.is_sorted_by(|a, b| a < b);
    if !is_set(&from.pools) || !is_set(&from.queues) {
        return Err(CodecError::NotCanonical { what: "set of names" });
    }
    let rule = |rule: log::ValidatorRule| Rule {
        expression: rule.expression,
        message: rule.message,
        path: rule.path,
    };
    Ok(Validator {
        name: from.name,
        subject: from.subject,
        pools: from.pools.into_iter().collect(),
        queues: from.queues.into_iter().collect(),
        rules: from.rules.into_iter().map(rule).collect(),
        changed: Revision(from.changed),
    })
}

pub(super) fn queue(from: log::QuotaQueue) -> Result<PolicyQueue> {
    let quota = |from: log::ResourceQuota| {
        let quota = Quota {
            guaranteed: Amount(from.guaranteed),
            nominal: Amount(from.nominal),
            limit: from.limit.map(|limit| Amount(limit.amount)),
        };
        (from.resource, quota)
    };
    let in_order = from.quotas.is_sorted_by(|a, b| a.pool < b.pool)
        && from.quotas.iter().all(|pool| pool.quotas.is_sorted_by(|a, b| a.resource < b.resource));
    if !in_order {
        return Err(CodecError::NotCanonical { what: "map of quotas" });
    }
    let pools = from.quotas.into_iter().map(|from| (from.pool, from.quotas.into_iter().map(quota).collect()));
    Ok(PolicyQueue {
        name: from.name,
        labels: labels(from.labels)?,
        parent: from.parent,
        weight_milli: from.weight_milli,
        quotas: pools.collect(),
        max_pending: from.max_pending,
        admins: from.admins,
        batch: from.batch.map(|batch| Batch { size: batch.size, interval_ms: batch.interval_ms }),
        guaranteed_processing: from.guaranteed_processing,
        spot: from.spot.map(spot::decode_policy).transpose()?,
        overflow: names::decode_overflow(from.overflow)?,
        changed: Revision(from.changed),
    })
}

pub(super) fn node_limits(from: log::NodeLimits) -> Result<NodeLimits> {
    Ok(NodeLimits {
        name: from.name,
        select: selector(from.select)?,
        max: resources(from.max)?,
        changed: Revision(from.changed),
    })
}

pub(super) fn resources(from: Option<log::Resources>) -> Result<Resources> {
    let from = need(from, "resources")?;
    let other = amounts(from.other)?;
    if other.values().any(|amount| amount.is_zero()) {
        return Err(CodecError::NotCanonical { what: "resources" });
    }
    Ok(Resources { cpu_millis: Amount(from.cpu_millis), memory_bytes: Amount(from.memory_bytes), other })
}

fn amounts(from: Vec<log::NamedAmount>) -> Result<BTreeMap<String, Amount>> {
    Ok(named(from)?.into_iter().map(|(name, amount)| (name, Amount(amount))).collect())
}

pub(super) fn named(from: Vec<log::NamedAmount>) -> Result<BTreeMap<String, u64>> {
    if !from.is_sorted_by(|a, b| a.name < b.name) {
        return Err(CodecError::NotCanonical { what: "map of amounts" });
    }
    Ok(from.into_iter().map(|entry| (entry.name, entry.amount)).collect())
}

pub(super) fn labels(from: Vec<log::Label>) -> Result<Labels> {
    if !from.is_sorted_by(|a, b| a.key < b.key) {
        return Err(CodecError::NotCanonical { what: "map of labels" });
    }
    Ok(from.into_iter().map(|entry| (entry.key, entry.value)).collect())
}

fn selector(from: Vec<log::Term>) -> Result<Selector> {
    Ok(Selector { terms: all(from, term)? })
}

fn term(from: log::Term) -> Result<Term> {
    Ok(Term { key: from.key, operator: names::decode_operator(from.operator)?, values: from.values })
}

pub(super) fn need<T>(from: Option<T>, field: &'static str) -> Result<T> {
    from.ok_or(CodecError::Missing { field })
}

fn small(from: u32, field: &'static str) -> Result<u16> {
    u16::try_from(from).map_err(|_| CodecError::OutOfRange { field, value: from.into() })
}

pub(super) fn all<A, B>(from: Vec<A>, one: impl Fn(A) -> Result<B>) -> Result<Vec<B>> {
    from.into_iter().map(one).collect()
}
