//! Policy objects.

use std::collections::BTreeMap;

use plimsoll_ledger::limits::{MAX_ITEMS, MAX_MULTIPLIER_MILLI, MAX_TTL_MS, MAX_WEIGHT_MILLI, MIN_TTL_MS};
use plimsoll_ledger::{
    Class, ClassOrder, Fairness, Ledger, MAX_POINTS, NodeLimits, PolicyName, PolicyObject, Pool, Preemption,
    PriorityWeights, QueueDiscipline, QueueOrder, Strategy,
};
use plimsoll_types::{Resources, Revision};

use super::check::Check;
use super::elastic::{self, elasticity_to_v1};
use super::queue::{queue, queue_to_v1};
use super::schedule::{schedule, schedule_to_v1};
use super::{Violation, resources, resources_to_v1, selector_to_v1, spot, topology, usage};
use crate::limits::MAX_POLICY_OBJECTS;
use crate::v1;

/// A strategy; `Unspecified` is the default. `None` for a number that this build does not know.
pub fn strategy_from_v1(from: i32) -> Option<Strategy> {
    Some(match v1::Strategy::try_from(from).ok()? {
        v1::Strategy::Unspecified => Strategy::default(),
        v1::Strategy::Greedy => Strategy::Greedy,
        v1::Strategy::Balanced => Strategy::Balanced,
        v1::Strategy::Priority => Strategy::Priority,
        v1::Strategy::FirstFit => Strategy::FirstFit,
        v1::Strategy::BestFit => Strategy::BestFit,
        v1::Strategy::WorstFit => Strategy::WorstFit,
        v1::Strategy::FirstFitDecreasing => Strategy::FirstFitDecreasing,
        v1::Strategy::Random => Strategy::Random,
        v1::Strategy::Fragmentation => Strategy::Fragmentation,
        v1::Strategy::Optimized => Strategy::Optimized,
    })
}

/// A strategy as a message has it.
pub fn strategy_to_v1(from: Strategy) -> v1::Strategy {
    match from {
        Strategy::Greedy => v1::Strategy::Greedy,
        Strategy::Balanced => v1::Strategy::Balanced,
        Strategy::Priority => v1::Strategy::Priority,
        Strategy::FirstFit => v1::Strategy::FirstFit,
        Strategy::BestFit => v1::Strategy::BestFit,
        Strategy::WorstFit => v1::Strategy::WorstFit,
        Strategy::FirstFitDecreasing => v1::Strategy::FirstFitDecreasing,
        Strategy::Random => v1::Strategy::Random,
        Strategy::Fragmentation => v1::Strategy::Fragmentation,
        Strategy::Optimized => v1::Strategy::Optimized,
    }
}

/// Fairness between queues; `Unspecified` is the default. `None` for a number that this build does not know.
pub fn fairness_from_v1(from: i32) -> Option<Fairness> {
    Some(match v1::Fairness::try_from(from).ok()? {
        v1::Fairness::Unspecified | v1::Fairness::Priority => Fairness::Priority,
        v1::Fairness::Fair => Fairness::Fair,
        v1::Fairness::Quota => Fairness::Quota,
        v1::Fairness::Weighted => Fairness::Weighted,
        v1::Fairness::FairTree => Fairness::FairTree,
    })
}

/// Order of classes; `Unspecified` is the default. `None` for a number that this build does not know.
fn class_order_from_v1(from: i32) -> Option<ClassOrder> {
    Some(match v1::ClassOrder::try_from(from).ok()? {
        v1::ClassOrder::Unspecified | v1::ClassOrder::Strict => ClassOrder::Strict,
        v1::ClassOrder::Weighted => ClassOrder::Weighted,
    })
}

/// Order of classes as a message has it.
pub fn class_order_to_v1(from: ClassOrder) -> v1::ClassOrder {
    match from {
        ClassOrder::Strict => v1::ClassOrder::Strict,
        ClassOrder::Weighted => v1::ClassOrder::Weighted,
    }
}

/// What may be taken back; `Unspecified` is the default. `None` for a number that this build does not know.
pub fn preemption_from_v1(from: i32) -> Option<Preemption> {
    Some(match v1::Preemption::try_from(from).ok()? {
        v1::Preemption::Unspecified | v1::Preemption::Any => Preemption::Any,
        v1::Preemption::Never => Preemption::Never,
        v1::Preemption::LowerClass => Preemption::LowerClass,
        v1::Preemption::Reclaim => Preemption::Reclaim,
    })
}

/// What may be taken back, as a message has it.
pub fn preemption_to_v1(from: Preemption) -> v1::Preemption {
    match from {
        Preemption::Any => v1::Preemption::Any,
        Preemption::Never => v1::Preemption::Never,
        Preemption::LowerClass => v1::Preemption::LowerClass,
        Preemption::Reclaim => v1::Preemption::Reclaim,
    }
}

/// Fairness as a message has it.
pub fn fairness_to_v1(from: Fairness) -> v1::Fairness {
    match from {
        Fairness::Priority => v1::Fairness::Priority,
        Fairness::Fair => v1::Fairness::Fair,
        Fairness::Quota => v1::Fairness::Quota,
        Fairness::Weighted => v1::Fairness::Weighted,
        Fairness::FairTree => v1::Fairness::FairTree,
    }
}

/// Reservations that [`class_status`] looks at.
const CLASS_LOOKS: usize = 100_000;

/// A pool from its message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn pool_from_v1(from: &v1::Pool) -> Result<Pool, Vec<Violation>> {
    let mut check = Check::new();
    let pool = pool(&mut check, from);
    check.finish(pool)
}

/// A pool as a message.
pub fn pool_to_v1(from: &Pool) -> v1::Pool {
    v1::Pool {
        name: from.name.clone(),
        labels: from.labels.clone(),
        select: selector_to_v1(&from.select),
        strategy: strategy_to_v1(from.strategy).into(),
        countables: from.countables.iter().map(|(name, amount)| (name.clone(), amount.0)).collect(),
        queue_order: match from.queue_order {
            QueueOrder::BestEffortFifo => v1::QueueOrder::BestEffortFifo,
            QueueOrder::StrictFifo => v1::QueueOrder::StrictFifo,
        }
        .into(),
        max_pending: from.max_pending,
        revision: from.changed.0,
        fairness: fairness_to_v1(from.fairness).into(),
        price_milli: from.price_milli,
        elasticity: elasticity_to_v1(from.elastic.elasticity).into(),
        min_nodes: from.elastic.min_nodes,
        max_nodes: from.elastic.max_nodes,
        growth_nodes: from.elastic.growth_nodes,
        growth_ms: from.elastic.growth_ms,
        idle_timeout_ms: from.elastic.idle_timeout_ms,
        fragmentation_permille: from.elastic.fragmentation_permille,
        preemption: preemption_to_v1(from.preemption).into(),
        max_preemptions_per_hour: from.max_preemptions_per_hour,
        prices: from.prices.clone(),
        currency: from.currency.clone(),
        topology: from.topology.clone(),
        queueing: from.queueing.to_string(),
        starvation_bound_ms: from.starvation_bound_ms,
        oversubscription_permille: from.oversubscription.clone(),
        contention: from.contention.as_ref().map(super::contention::contention_policy_to_v1),
        rebalance_interval_ms: from.rebalance_interval_ms,
        power_budget_watts: from.power_budget_watts,
        half_life_ms: from.half_life_ms,
        class_order: class_order_to_v1(from.class_order).into(),
        priority_weights: from.priority_weights.as_ref().map(priority_weights_to_v1),
        spot: from.spot.as_ref().map(spot::spot_to_v1),
    }
}

/// What a pool looks like now. Looks at every node.
pub fn pool_status(from: &Pool, ledger: &Ledger) -> v1::PoolStatus {
    let mut status = v1::PoolStatus { pending: ledger.pending_len(&from.name) as u64, ..Default::default() };
    let mut allocatable = Resources { other: from.countables.clone(), ..Resources::default() };
    let mut used = ledger.countables_used(&from.name);
    for node in ledger.nodes().filter(|node| node.pool == from.name) {
        status.nodes += 1;
        status.nodes_available += u32::from(node.is_eligible());
        status.devices += u32::try_from(node.registration.devices.len()).unwrap_or(u32::MAX);
        saturating_add(&mut allocatable, &node.allocatable);
        if let Some(usage) = ledger.usage(node.id) {
            saturating_add(&mut used, &usage.used);
            status.used_device_milli +=
                usage.devices.iter().map(|device| u64::from(device.milli)).sum::<u64>();
        }
    }
    status.allocatable = Some(resources_to_v1(&allocatable));
    status.used = Some(resources_to_v1(&used));
    status
}

/// A class from its message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn class_from_v1(from: &v1::Class) -> Result<Class, Vec<Violation>> {
    let mut check = Check::new();
    let class = class(&mut check, from);
    check.finish(class)
}

/// A class as a message.
pub fn class_to_v1(from: &Class) -> v1::Class {
    v1::Class {
        name: from.name.clone(),
        priority: from.priority,
        preemptible: from.preemptible,
        default_ttl_ms: from.default_ttl_ms,
        grace_ms: from.grace_ms,
        min_run_ms: from.min_run_ms,
        default_duration_ms: from.default_duration_ms,
        revision: from.changed.0,
        qos: super::qos_to_v1(from.qos).into(),
        latency_target_ms: from.latency_target_ms,
        multiplier_milli: from.multiplier_milli,
        guaranteed: from.guaranteed.iter().map(pool_amounts_to_v1).collect(),
        evict_when: from.evict_when.map(|when| when.to_string()).unwrap_or_default(),
        weight_milli: from.weight_milli,
    }
}

fn pool_amounts_to_v1((pool, kept): (&String, &Resources)) -> v1::PoolAmounts {
    let resources = kept.iter().map(|(name, amount)| (name.to_owned(), amount.0));
    v1::PoolAmounts { pool: pool.clone(), resources: resources.collect() }
}

/// What came of a class lately. Looks at the latest 100,000 reservations.
pub fn class_status(from: &Class, ledger: &Ledger) -> v1::ClassStatus {
    let latest = ledger.reservations().rev().take(CLASS_LOOKS);
    let waits = latest
        .filter(|reservation| reservation.request.class == from.name)
        .filter_map(|reservation| reservation.first_wait_ms());
    let mut status = v1::ClassStatus::default();
    for wait_ms in waits {
        status.grants += 1;
        status.latency_target_missed += u64::from(from.misses(wait_ms) == Some(true));
        status.longest_wait_ms = status.longest_wait_ms.max(wait_ms);
    }
    status
}

/// Node limits from their message.
///
/// # Errors
/// Everything that is wrong with them.
pub fn node_limits_from_v1(from: &v1::NodeLimits) -> Result<NodeLimits, Vec<Violation>> {
    let mut check = Check::new();
    let limits = node_limits(&mut check, from);
    check.finish(limits)
}

/// Node limits as a message.
pub fn node_limits_to_v1(from: &NodeLimits) -> v1::NodeLimits {
    v1::NodeLimits {
        name: from.name.clone(),
        select: selector_to_v1(&from.select),
        max: Some(resources_to_v1(&from.max)),
        revision: from.changed.0,
    }
}

/// Any policy object from its message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn policy_object_from_v1(from: &v1::PolicyObject) -> Result<PolicyObject, Vec<Violation>> {
    let mut check = Check::new();
    match object(&mut check, from) {
        Some(object) => check.finish(object),
        None => Err(check.finish(()).expect_err("an object that is missing was reported")),
    }
}

/// A list of policy objects, with paths such as `objects[2].pool.name`. The same object twice is wrong too.
///
/// # Errors
/// Everything that is wrong with any of them.
pub fn policy_objects_from_v1(from: &[v1::PolicyObject]) -> Result<Vec<PolicyObject>, Vec<Violation>> {
    let mut check = Check::new();
    let objects = check.each("objects", from, MAX_POLICY_OBJECTS, object);
    let objects: Vec<PolicyObject> = objects.into_iter().flatten().collect();
    let mut names: Vec<PolicyName> = objects.iter().map(PolicyObject::name).collect();
    names.sort();
    for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        check.fail("objects", format!("{:?} is there more than once", pair[0]));
    }
    check.finish(objects)
}

/// Any policy object as a message.
pub fn policy_object_to_v1(from: &PolicyObject) -> v1::PolicyObject {
    use v1::policy_object::Object;
    let object = match from {
        PolicyObject::Pool(from) => Object::Pool(pool_to_v1(from)),
        PolicyObject::Class(from) => Object::Class(class_to_v1(from)),
        PolicyObject::NodeLimits(from) => Object::NodeLimits(node_limits_to_v1(from)),
        PolicyObject::Queue(from) => Object::Queue(queue_to_v1(from)),
        PolicyObject::Quota(from) => Object::Quota(usage::quota_to_v1(from)),
        PolicyObject::Validator(from) => Object::Validator(super::validator_to_v1(from)),
        PolicyObject::Schedule(from) => Object::Schedule(schedule_to_v1(from)),
        PolicyObject::Service(from) => Object::Service(super::service_to_v1(from)),
        PolicyObject::ScalingPolicy(from) => Object::ScalingPolicy(super::scaling_policy_to_v1(from)),
    };
    v1::PolicyObject { object: Some(object) }
}

/// Kind and name of a policy object from its message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn policy_name_from_v1(from: &v1::PolicyName) -> Result<PolicyName, Vec<Violation>> {
    let mut check = Check::new();
    check.name("name", &from.name);
    let name = from.name.clone();
    let name = match v1::PolicyKind::try_from(from.kind) {
        Ok(v1::PolicyKind::Pool) => PolicyName::Pool(name),
        Ok(v1::PolicyKind::Class) => PolicyName::Class(name),
        Ok(v1::PolicyKind::NodeLimits) => PolicyName::NodeLimits(name),
        Ok(v1::PolicyKind::Queue) => PolicyName::Queue(name),
        Ok(v1::PolicyKind::Quota) => PolicyName::Quota(name),
        Ok(v1::PolicyKind::Validator) => PolicyName::Validator(name),
        Ok(v1::PolicyKind::Schedule) => PolicyName::Schedule(name),
        Ok(v1::PolicyKind::Service) => PolicyName::Service(name),
        Ok(v1::PolicyKind::ScalingPolicy) => PolicyName::ScalingPolicy(name),
        Ok(v1::PolicyKind::Unspecified) | Err(_) => {
            check.fail("kind", format!("{} is not a kind of policy object", from.kind));
            PolicyName::Pool(name)
        }
    };
    check.finish(name)
}

/// Kind and name of a policy object as a message.
pub fn policy_name_to_v1(from: &PolicyName) -> v1::PolicyName {
    let (kind, name) = match from {
        PolicyName::Pool(name) => (v1::PolicyKind::Pool, name),
        PolicyName::Class(name) => (v1::PolicyKind::Class, name),
        PolicyName::NodeLimits(name) => (v1::PolicyKind::NodeLimits, name),
        PolicyName::Queue(name) => (v1::PolicyKind::Queue, name),
        PolicyName::Quota(name) => (v1::PolicyKind::Quota, name),
        PolicyName::Validator(name) => (v1::PolicyKind::Validator, name),
        PolicyName::Schedule(name) => (v1::PolicyKind::Schedule, name),
        PolicyName::Service(name) => (v1::PolicyKind::Service, name),
        PolicyName::ScalingPolicy(name) => (v1::PolicyKind::ScalingPolicy, name),
    };
    v1::PolicyName { kind: kind.into(), name: name.clone() }
}

fn object(check: &mut Check, from: &v1::PolicyObject) -> Option<PolicyObject> {
    use v1::policy_object::Object;
    match &from.object {
        Some(Object::Pool(from)) => Some(PolicyObject::Pool(check.within("pool", |check| pool(check, from)))),
        Some(Object::Class(from)) => {
            Some(PolicyObject::Class(check.within("class", |check| class(check, from))))
        }
        Some(Object::NodeLimits(from)) => {
            Some(PolicyObject::NodeLimits(check.within("node_limits", |check| node_limits(check, from))))
        }
        Some(Object::Quota(from)) => {
            Some(PolicyObject::Quota(check.within("quota", |check| usage::quota(check, from))))
        }
        Some(Object::Queue(from)) => {
            Some(PolicyObject::Queue(check.within("queue", |check| queue(check, from))))
        }
        Some(Object::Validator(from)) => Some(PolicyObject::Validator(
            check.within("validator", |check| super::validator::validator(check, from)),
        )),
        Some(Object::Schedule(from)) => {
            Some(PolicyObject::Schedule(check.within("schedule", |check| schedule(check, from))))
        }
        Some(Object::Service(from)) => {
            Some(PolicyObject::Service(check.within("service", |check| super::service::service(check, from))))
        }
        Some(Object::ScalingPolicy(from)) => {
            let read = check.within("scaling_policy", |check| super::scaling::scaling_policy(check, from));
            Some(PolicyObject::ScalingPolicy(read))
        }
        None => {
            check.fail(
                "object",
                "is missing: give a pool, class, node_limits, queue, quota, schedule, service, scaling_policy or validator",
            );
            None
        }
    }
}

fn pool(check: &mut Check, from: &v1::Pool) -> Pool {
    check.name("name", &from.name);
    let strategy = strategy_from_v1(from.strategy).unwrap_or_else(|| {
        check.fail("strategy", format!("{} is not a strategy", from.strategy));
        Strategy::default()
    });
    let queue_order = match v1::QueueOrder::try_from(from.queue_order) {
        Ok(v1::QueueOrder::Unspecified) => QueueOrder::default(),
        Ok(v1::QueueOrder::BestEffortFifo) => QueueOrder::BestEffortFifo,
        Ok(v1::QueueOrder::StrictFifo) => QueueOrder::StrictFifo,
        Err(_) => {
            check.fail("queue_order", format!("{} is not an order", from.queue_order));
            QueueOrder::default()
        }
    };
    let fairness = fairness_from_v1(from.fairness).unwrap_or_else(|| {
        check.fail("fairness", format!("{} is not a fairness", from.fairness));
        Fairness::default()
    });
    let preemption = preemption_from_v1(from.preemption).unwrap_or_else(|| {
        check.fail("preemption", format!("{} is not a kind of preemption", from.preemption));
        Preemption::default()
    });
    let queueing = from.queueing.parse().unwrap_or_else(|()| {
        let names = plimsoll_ledger::QueueDiscipline::NAMES.join(", ");
        check.fail("queueing", format!("{:?} is not a discipline; there are: {names}", from.queueing));
        plimsoll_ledger::QueueDiscipline::default()
    });
    let contention = from.contention.as_ref().map(|contention| {
        check.within("contention", |check| super::contention::contention_policy(check, contention))
    });
    check.range_or_default("rebalance_interval_ms", from.rebalance_interval_ms, MIN_TTL_MS, MAX_TTL_MS);
    let class_order = class_order_from_v1(from.class_order).unwrap_or_else(|| {
        check.fail("class_order", format!("{} is not known", from.class_order));
        ClassOrder::default()
    });
    let is_planned =
        !matches!(queueing, QueueDiscipline::ByQueueOrder | QueueDiscipline::Strict | QueueDiscipline::Skip);
    if class_order == ClassOrder::Weighted && is_planned {
        check.fail(
            "class_order",
            format!("is weighted, and queueing {queueing} plans by class: give queueing strict or skip, or leave it out"),
        );
    }
    check.range_or_default(
        "half_life_ms",
        from.half_life_ms,
        plimsoll_ledger::limits::MIN_HALF_LIFE_MS,
        MAX_TTL_MS,
    );
    check.range("power_budget_watts", from.power_budget_watts, 0, crate::limits::MAX_AMOUNT);
    check.range_or_default("starvation_bound_ms", from.starvation_bound_ms, MIN_TTL_MS, MAX_TTL_MS);
    Pool {
        name: from.name.clone(),
        labels: check.labels("labels", &from.labels),
        select: resources::selector(check, "select", &from.select),
        strategy,
        countables: resources::amounts(check, "countables", &from.countables),
        queue_order,
        max_pending: from.max_pending,
        changed: Revision(0),
        fairness,
        price_milli: from.price_milli,
        preemption,
        max_preemptions_per_hour: from.max_preemptions_per_hour,
        prices: usage::prices(check, from),
        currency: usage::currency(check, &from.currency),
        topology: topology::levels(check, &from.topology),
        queueing,
        starvation_bound_ms: from.starvation_bound_ms,
        oversubscription: super::qos::oversubscription(check, from),
        contention,
        rebalance_interval_ms: from.rebalance_interval_ms,
        power_budget_watts: from.power_budget_watts,
        half_life_ms: from.half_life_ms,
        class_order,
        priority_weights: priority_weights(check, from, queueing),
        elastic: elastic::elastic(check, from),
        spot: from.spot.as_ref().map(|from| check.within("spot", |check| spot::spot(check, from))),
    }
}

fn priority_weights(
    check: &mut Check,
    pool: &v1::Pool,
    queueing: QueueDiscipline,
) -> Option<PriorityWeights> {
    let from = pool.priority_weights.as_ref()?;
    if queueing != QueueDiscipline::Priority {
        let hint = "only queueing priority goes by points: give that, or leave the weights out";
        check.fail("priority_weights", format!("are given, and {hint}"));
    }
    check.within("priority_weights", |check| {
        let points =
            [("age", from.age), ("size", from.size), ("fair_share", from.fair_share), ("qos", from.qos)];
        for (name, points) in points {
            check.range(name, points.into(), 0, MAX_POINTS.into());
        }
        check.range("max_age_ms", from.max_age_ms, MIN_TTL_MS, MAX_TTL_MS);
        for (resource, points) in &from.resources {
            check.range(&format!("resources.{resource}"), (*points).into(), 0, MAX_POINTS.into());
        }
        Some(PriorityWeights {
            age: from.age,
            max_age_ms: from.max_age_ms,
            size: from.size,
            fair_share: from.fair_share,
            qos: from.qos,
            resources: from.resources.clone(),
        })
    })
}

fn priority_weights_to_v1(from: &PriorityWeights) -> v1::PriorityWeights {
    v1::PriorityWeights {
        age: from.age,
        max_age_ms: from.max_age_ms,
        size: from.size,
        fair_share: from.fair_share,
        qos: from.qos,
        resources: from.resources.clone(),
    }
}

fn class(check: &mut Check, from: &v1::Class) -> Class {
    check.name("name", &from.name);
    check.range_or_default("default_ttl_ms", from.default_ttl_ms, MIN_TTL_MS, MAX_TTL_MS);
    check.range("grace_ms", from.grace_ms, 0, MAX_TTL_MS);
    check.range("min_run_ms", from.min_run_ms, 0, MAX_TTL_MS);
    check.range("default_duration_ms", from.default_duration_ms, 0, MAX_TTL_MS);
    check.range("multiplier_milli", from.multiplier_milli().into(), 0, MAX_MULTIPLIER_MILLI.into());
    check.range("weight_milli", from.weight_milli().into(), 0, MAX_WEIGHT_MILLI.into());
    check.range("latency_target_ms", from.latency_target_ms(), 0, MAX_TTL_MS);
    Class {
        name: from.name.clone(),
        priority: from.priority,
        preemptible: from.preemptible,
        default_ttl_ms: from.default_ttl_ms,
        grace_ms: from.grace_ms,
        min_run_ms: from.min_run_ms,
        default_duration_ms: from.default_duration_ms,
        qos: super::qos::qos(check, from.qos),
        latency_target_ms: from.latency_target_ms,
        multiplier_milli: from.multiplier_milli,
        guaranteed: guarantees(check, &from.guaranteed),
        evict_when: super::qos::evict_when(check, from),
        weight_milli: from.weight_milli,
        changed: Revision(0),
    }
}

/// What is kept of each pool for a class.
fn guarantees(check: &mut Check, from: &[v1::PoolAmounts]) -> BTreeMap<String, Resources> {
    let mut guaranteed = BTreeMap::new();
    let kept = check.each("guaranteed", from, MAX_ITEMS, |check, from| {
        check.name("pool", &from.pool);
        (from.pool.clone(), resources::kept(check, &from.resources))
    });
    for (pool, kept) in kept {
        if guaranteed.insert(pool.clone(), kept).is_some() {
            check.fail("guaranteed", format!("pool {pool:?} is there more than once"));
        }
    }
    guaranteed
}

fn node_limits(check: &mut Check, from: &v1::NodeLimits) -> NodeLimits {
    check.name("name", &from.name);
    let max = from.max.clone().unwrap_or_default();
    NodeLimits {
        name: from.name.clone(),
        select: resources::selector(check, "select", &from.select),
        max: check.within("max", |check| resources::resources(check, &max)),
        changed: Revision(0),
    }
}

/// A sum over many nodes for a display: stays at the top where it does not fit.
fn saturating_add(sum: &mut Resources, more: &Resources) {
    for (name, amount) in more.iter() {
        let total = sum.get(name).checked_add(amount).unwrap_or(plimsoll_types::Amount(u64::MAX));
        sum.set(name, total);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::arbitrary;

    #[test]
    fn objects_are_checked_with_paths_and_repeats_are_found() {
        let pool = |name: &str| v1::PolicyObject {
            object: Some(v1::policy_object::Object::Pool(v1::Pool {
                name: name.into(),
                ..Default::default()
            })),
        };
        assert!(policy_objects_from_v1(&[pool("a"), pool("b")]).is_ok());
        let bad = [pool("A"), v1::PolicyObject::default(), pool("c"), pool("c")];
        let fields: Vec<String> =
            policy_objects_from_v1(&bad).unwrap_err().into_iter().map(|one| one.field).collect();
        assert_eq!(fields, ["objects[0].pool.name", "objects[1].object", "objects"]);
    }

    proptest! {
        #[test]
        fn objects_survive_the_api(object in arbitrary::valid_policy_object()) {
            prop_assert_eq!(policy_object_from_v1(&policy_object_to_v1(&object)), Ok(object));
        }

        #[test]
        fn names_survive_the_api(object in arbitrary::valid_policy_object()) {
            let name = object.name();
            prop_assert_eq!(policy_name_from_v1(&policy_name_to_v1(&name)), Ok(name));
        }
    }
}
