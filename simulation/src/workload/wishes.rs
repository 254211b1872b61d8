//! What clients ask for: mostly sensible amounts of everything, now and then more than there is or can be counted.

use plimsoll_client::v1;

use super::{calendar, places, replicas, rules};
use crate::rng::Rng;

/// Classes that exist from the beginning, and one that an operator makes and deletes.
const CLASSES: [(u64, &str); 5] = [(7, "standard"), (5, "high"), (5, "low"), (5, "batch"), (1, "sim")];
/// A pool that an operator makes and deletes.
pub const SIDE_POOL: &str = "side";
/// Queues that an operator makes, cuts and deletes, and what is above each: the first is above all others.
pub(super) const QUEUES: [(&str, &str); 4] =
    [("org", ""), ("vision", "org"), ("cv", "vision"), ("speech", "org")];
/// For whom requests are, and of which run; mostly nobody and none.
const TENANTS: [(u64, &str); 4] = [(5, ""), (2, "ada"), (2, "alan"), (1, "grace")];
const RUNS: [(u64, &str); 3] = [(6, ""), (2, "run-1"), (2, "run-2")];
/// A countable that is a pool's while an operator says so.
pub const COUNTABLE: &str = "seat/sim";

/// Ways to walk the queue that an operator sets.
const QUEUEING: [&str; 6] = ["", "", "skip", "backfill_1", "backfill_all", "learned"];

/// What an operator lets be taken back; mostly everything.
const PREEMPTION: [v1::Preemption; 6] = [
    v1::Preemption::Any,
    v1::Preemption::Any,
    v1::Preemption::Unspecified,
    v1::Preemption::LowerClass,
    v1::Preemption::Reclaim,
    v1::Preemption::Never,
];

/// A request of any shape: one or a gang, without, with whole or with shared devices, waiting or not.
pub fn spec(rng: &mut Rng) -> v1::ReservationSpec {
    let gpu = rng.weighted(&[(50, 0), (20, 1), (20, 2), (10, 3)]).and_then(|form| match form {
        1 => {
            let count = if rng.percent(20) { 2 } else { 1 };
            Some(v1::GpuAsk { count, milli: 1_000, ..Default::default() })
        }
        2 => {
            let milli = 50 * u32::try_from(rng.between(1, 19)).unwrap_or(1);
            Some(v1::GpuAsk { count: 1, milli, ..Default::default() })
        }
        3 => Some(v1::GpuAsk { memory_bytes: rng.between(1, 40) << 30, ..Default::default() }),
        _ => None,
    });
    let gang = rng.percent(20).then(|| {
        let most = u32::try_from(rng.between(2, 4)).unwrap_or(2);
        let least = if rng.percent(50) { most } else { most - 1 };
        v1::Gang { min_members: least, max_members: most, spread: rng.percent(40) }
    });
    let is_gang = gang.is_some();
    let repair_within_ms = if is_gang && rng.percent(50) { rng.between(1_000, 8_000) } else { 0 };
    let wait = rng.percent(45).then(|| {
        let deadline_ms = if rng.percent(70) { rng.between(500, 4_000) } else { 0 };
        v1::WaitPolicy { queue: true, deadline_ms }
    });
    let class = rng.weighted(&CLASSES).unwrap_or("standard").to_owned();
    let (auto_confirm, long) = (rng.percent(50), rng.percent(15));
    let hold_ms = rng.between(1_000, 4_000);
    let ends = rng.percent(8);
    let max_duration_ms = if long { rng.between(1_000, 6_000) } else { 0 };
    let queue = if rng.percent(45) { rng.pick(&QUEUES).map_or("", |(name, _)| name) } else { "" };
    let tenant = rng.weighted(&TENANTS).unwrap_or_default().to_owned();
    let run = rng.weighted(&RUNS).filter(|run| !run.is_empty());
    let labels = run.map(|run| ("run".to_owned(), run.to_owned())).into_iter().collect();
    // Less than most grants cost where there are prices, now and then.
    let limits = rng.percent(4).then(|| v1::RequestLimits { cost_micros: rng.between(20, 500) });
    let pool = if rng.percent(4) { SIDE_POOL.to_owned() } else { String::new() };
    let required = if rng.percent(3) { vec![term("simulated", &["no"])] } else { Vec::new() };
    let requirements = v1::Requirements { amounts: Some(amounts(rng)), gpu, required, ..Default::default() };
    let mut spec = v1::ReservationSpec {
        pool,
        class,
        queue: queue.to_owned(),
        tenant,
        labels,
        limits,
        requirements: Some(requirements),
        gang,
        ttl_ms: ttl_ms(rng),
        repair_within_ms,
        hold_ms,
        max_duration_ms,
        auto_confirm,
        wait,
        on_preempt: if ends { v1::OnPreempt::End } else { v1::OnPreempt::Unspecified }.into(),
        ..Default::default()
    };
    replicas::perhaps(rng, &mut spec);
    service_of(rng, &mut spec);
    roles_of(&mut spec);
    places::perhaps(rng, &mut spec);
    calendar::perhaps(rng, &mut spec);
    spec
}

/// Some gangs have two roles: one that leads, with nothing but compute, and the others as they were. What was drawn already decides which, so
/// that nothing else is drawn otherwise.
fn roles_of(spec: &mut v1::ReservationSpec) {
    let Some(gang) = spec.gang.filter(|gang| gang.min_members > 1) else { return };
    if !spec.hold_ms.is_multiple_of(3) || spec.burst.is_some() {
        return;
    }
    let needs = spec.requirements.get_or_insert_default();
    let worker =
        v1::Requirements { amounts: needs.amounts.take(), gpu: needs.gpu.take(), ..Default::default() };
    let amounts = v1::Quantities { cpu_millis: 250, memory_bytes: 1 << 30, ..Default::default() };
    let leader = v1::Requirements { amounts: Some(amounts), ..Default::default() };
    let role = |name: &str, requirements, min_members, max_members| v1::Role {
        name: name.to_owned(),
        requirements: Some(requirements),
        min_members,
        max_members,
    };
    spec.roles = vec![
        role("leader", leader, 1, 1),
        role("worker", worker, gang.min_members - 1, gang.max_members - 1),
    ];
}

/// Now and then only what is idle, or more than is asked while it is idle; nonsense among it.
fn service_of(rng: &mut Rng, spec: &mut v1::ReservationSpec) {
    let qos = rng
        .weighted(&[
            (70, v1::Qos::Unspecified),
            (18, v1::Qos::BestEffort),
            (6, v1::Qos::Burstable),
            (6, v1::Qos::Guaranteed),
        ])
        .unwrap_or_default();
    spec.qos = qos.into();
    if rng.percent(if qos == v1::Qos::Burstable { 60 } else { 1 }) {
        spec.burst = Some(v1::Quantities { cpu_millis: 1_000 * rng.between(1, 8), ..Default::default() });
    }
}

/// Short enough to lapse within a run, now and then.
pub fn ttl_ms(rng: &mut Rng) -> u64 {
    rng.weighted(&[(3, 1_000), (4, 2_500), (2, 6_000), (2, 20_000)]).unwrap_or(2_500)
}

/// Mostly small; now and then more than there is, or more than can be counted.
pub fn amounts(rng: &mut Rng) -> v1::Quantities {
    let cpu_millis = match rng.between(0, 99) {
        0 => u64::MAX,
        1 => u64::MAX / 2,
        2..=4 => 9_000,
        5..=24 => 1_000 * rng.between(2, 5),
        _ => 250 * rng.between(1, 8),
    };
    let memory_bytes = rng.between(1, 4) << 30;
    let mut amounts = v1::Quantities { cpu_millis, memory_bytes, ..Default::default() };
    if rng.percent(10) {
        amounts.other.insert("license/sim".to_owned(), rng.between(1, 3));
    }
    if rng.percent(6) {
        amounts.other.insert(COUNTABLE.to_owned(), rng.between(1, 3));
    }
    amounts
}

/// Policy that an operator may put: the pool that everybody uses, another one, a class, limits of nodes.
pub fn policy(rng: &mut Rng) -> v1::PolicyObject {
    use v1::policy_object::Object;
    let object = match rng
        .weighted(&[(4, 0), (2, 1), (2, 2), (2, 3), (5, 4), (6, 5), (2, 6), (3, 7)])
        .unwrap_or(0)
    {
        5 => return rules::quota(rng),
        6 => return rules::validator(rng),
        7 => return replicas::service(rng),
        0 => {
            let strategies = [v1::Strategy::Greedy, v1::Strategy::BestFit, v1::Strategy::WorstFit];
            let strategy = rng.pick(&strategies).copied().unwrap_or_default().into();
            let strict = rng.percent(40);
            let order = if strict { v1::QueueOrder::StrictFifo } else { v1::QueueOrder::BestEffortFifo };
            let max_pending = rng.weighted(&[(4, 0), (1, 1), (1, 3)]).unwrap_or(0);
            let seats = rng.percent(50).then(|| (COUNTABLE.to_owned(), rng.between(1, 6)));
            let countables = seats.into_iter().collect();
            let queue_order = order.into();
            let name = "default".to_owned();
            let fairness = [
                v1::Fairness::Priority,
                v1::Fairness::Fair,
                v1::Fairness::Quota,
                v1::Fairness::Weighted,
                v1::Fairness::FairTree,
            ];
            let (prices, currency) = rules::prices(rng);
            let queueing = rng.pick(&QUEUEING).copied().unwrap_or_default();
            let by_weight = queueing.len() < 5 && rng.percent(50);
            let levels = if rng.percent(70) { vec![places::RACK.to_owned()] } else { Vec::new() };
            Object::Pool(v1::Pool {
                elasticity: elasticity(strict).into(),
                idle_timeout_ms: if strict { 0 } else { 1_000 },
                name,
                prices: prices.into_iter().collect(),
                currency,
                fairness: rng.pick(&fairness).copied().unwrap_or_default().into(),
                strategy,
                queue_order,
                max_pending,
                countables,
                preemption: rng.pick(&PREEMPTION).copied().unwrap_or_default().into(),
                max_preemptions_per_hour: if rng.percent(15) { 2 } else { 0 },
                queueing: queueing.to_owned(),
                class_order: if by_weight { v1::ClassOrder::Weighted } else { v1::ClassOrder::Unspecified }
                    .into(),
                topology: levels,
                starvation_bound_ms: if rng.percent(30) { 20_000 } else { 0 },
                oversubscription_permille: oversubscription(rng),
                contention: contention(max_pending),
                rebalance_interval_ms: if max_pending == 3 { 2_000 } else { 0 },
                spot: spot(strategy),
                half_life_ms: if max_pending == 3 { 60_000 } else { 0 },
                ..Default::default()
            })
        }
        1 => {
            // Mostly a pool without nodes; else one that takes nodes, and what runs there, away from the default pool.
            let (key, value) = if rng.percent(30) { ("gpu", "a100") } else { ("simulated", "no") };
            let select = vec![term(key, &[value])];
            let elastic = elasticity(false).into();
            let (name, growth_ms) = (SIDE_POOL.to_owned(), 1_000);
            let rest =
                v1::Pool { elasticity: elastic, growth_ms, idle_timeout_ms: 1_000, ..Default::default() };
            Object::Pool(v1::Pool { name, select, ..rest })
        }
        2 => {
            let priority = i32::try_from(rng.between(0, 100)).unwrap_or(0);
            let default_ttl_ms = ttl_ms(rng);
            // By what is drawn already, so that the course of a seed stays what it was.
            let factor = u32::try_from(priority).unwrap_or_default() * 40;
            let resources = [("cpu".to_owned(), 500)].into_iter().collect();
            let kept = v1::PoolAmounts { pool: "default".to_owned(), resources };
            Object::Class(v1::Class {
                name: "sim".to_owned(),
                priority,
                default_ttl_ms,
                preemptible: rng.percent(60),
                grace_ms: rng.weighted(&[(2, 0), (3, 1_500), (1, 6_000)]).unwrap_or(0),
                min_run_ms: if rng.percent(30) { 2_000 } else { 0 },
                qos: if rng.percent(25) { v1::Qos::BestEffort } else { v1::Qos::Unspecified }.into(),
                latency_target_ms: rng.percent(25).then_some(500),
                weight_milli: rng.weighted(&[(2, None), (2, Some(3_000)), (1, Some(0))]).flatten(),
                multiplier_milli: (priority % 3 == 0).then_some(factor),
                guaranteed: if priority % 7 == 0 { vec![kept] } else { Vec::new() },
                // Mostly: what agents play is above that for some seconds now and then. Without a choice of its own, so that older seeds stay what they were.
                evict_when: if priority % 4 == 0 { "" } else { "memory > 90% for 1s" }.to_owned(),
                revision: 0,
                ..Default::default()
            })
        }
        4 => Object::Queue(queue(rng)),
        _ => {
            let cpu_millis = 1_000 * rng.between(2, 8);
            let max = Some(v1::Quantities { cpu_millis, memory_bytes: 24 << 30, ..Default::default() });
            let select = vec![term("simulated", &["true"])];
            Object::NodeLimits(v1::NodeLimits { name: "cap".to_owned(), select, max, ..Default::default() })
        }
    };
    v1::PolicyObject { object: Some(object) }
}

/// What is done about contention, by something else that was drawn: so the course of a seed stays what it was.
fn contention(drawn: u32) -> Option<v1::ContentionPolicy> {
    let resolve: &[v1::ContentionResolve] = match drawn {
        1 => &[v1::ContentionResolve::Preempt, v1::ContentionResolve::Wait],
        3 => &[v1::ContentionResolve::Priority, v1::ContentionResolve::Redistribute],
        _ => return None,
    };
    let resolve = resolve.iter().map(|kind| i32::from(*kind)).collect();
    Some(v1::ContentionPolicy { resolve, ..Default::default() })
}

/// What of a pool's work may be on spot nodes, by something else that was drawn.
fn spot(strategy: i32) -> Option<v1::SpotPolicy> {
    let greedy = strategy == i32::from(v1::Strategy::Greedy);
    let batch_only = vec!["batch".to_owned(), "run".to_owned()];
    let some = v1::SpotPolicy { base: 1, max_in_one_permille: 600, ..half(v1::OnInterruption::Fail) };
    match strategy {
        _ if greedy => Some(some),
        _ if strategy == i32::from(v1::Strategy::WorstFit) => {
            Some(v1::SpotPolicy { share_permille: 1_000, suitable_for: batch_only, ..some })
        }
        _ => None,
    }
}

fn half(on_interruption: v1::OnInterruption) -> v1::SpotPolicy {
    v1::SpotPolicy { share_permille: 500, on_interruption: on_interruption.into(), ..Default::default() }
}

/// Whether idle nodes go to and fro between the two pools, by something else that was drawn.
fn elasticity(strict: bool) -> v1::Elasticity {
    if strict { v1::Elasticity::Dynamic } else { v1::Elasticity::Elastic }
}

/// What is promised beside what there is: mostly nothing, now and then half as much again.
fn oversubscription(rng: &mut Rng) -> std::collections::BTreeMap<String, u32> {
    let ratio = rng.weighted(&[(5, 0), (3, 1_500), (1, 3_000)]).unwrap_or(0);
    [("cpu", ratio), ("memory", ratio)]
        .into_iter()
        .filter(|(_, ratio)| *ratio > 0)
        .map(|(name, ratio)| (name.to_owned(), ratio))
        .collect()
}

/// One of the queues, with quotas that bind now and then: cpu of all, devices of some.
fn queue(rng: &mut Rng) -> v1::Queue {
    let (name, parent) = rng.pick(&QUEUES).copied().unwrap_or_default();
    let quotas = quotas_of(rng);
    let max_pending = rng.weighted(&[(4, 0), (1, 2)]).unwrap_or(0);
    let weight_milli = Some(u32::try_from(500 * rng.between(0, 4)).unwrap_or(1_000));
    v1::Queue {
        name: name.to_owned(),
        parent: parent.to_owned(),
        quotas,
        max_pending,
        weight_milli,
        // By what is drawn already, so that the course of a seed stays what it was.
        batch: (weight_milli == Some(1_500)).then_some(v1::Batch { size: 2, interval_ms: 2_000 }),
        guaranteed_processing: weight_milli == Some(2_000),
        spot: (weight_milli == Some(500)).then(|| half(v1::OnInterruption::CheckpointAndRetry)),
        overflow: match (max_pending, weight_milli) {
            (0, _) => v1::Overflow::Unspecified,
            (_, Some(0 | 1_500)) => v1::Overflow::SpillToDisk,
            (_, Some(500 | 2_000)) => v1::Overflow::Compress,
            _ => v1::Overflow::Reject,
        }
        .into(),
        ..Default::default()
    }
}

/// What a queue is given of the default pool: little, so that it borrows and others have it back.
pub(super) fn quotas_of(rng: &mut Rng) -> Vec<v1::PoolQuotas> {
    let mut quota = |unit: u64| {
        let (guaranteed, more) = (unit * rng.between(0, 2), unit * rng.between(0, 4));
        let nominal = guaranteed + more;
        let limit = rng.percent(40).then(|| nominal + unit * rng.between(0, 3));
        v1::Quota { guaranteed, nominal, limit }
    };
    let mut resources =
        std::collections::BTreeMap::from([("cpu".to_owned(), quota(1_000)), ("gpu".to_owned(), quota(500))]);
    if rng.percent(30) {
        resources.remove("gpu");
    }
    vec![v1::PoolQuotas { pool: "default".to_owned(), resources }]
}

/// Names that an operator may delete: also what is not there, and what never goes.
pub fn policy_name(rng: &mut Rng) -> v1::PolicyName {
    let (kind, name) = rng
        .weighted(&[
            (4, (v1::PolicyKind::Pool, SIDE_POOL)),
            (3, (v1::PolicyKind::Class, "sim")),
            (6, (v1::PolicyKind::NodeLimits, "cap")),
            (1, (v1::PolicyKind::Pool, "default")),
            (2, (v1::PolicyKind::Queue, QUEUES[3].0)),
            (1, (v1::PolicyKind::Queue, QUEUES[0].0)),
            (3, (v1::PolicyKind::Quota, rules::QUOTAS[1])),
            (2, (v1::PolicyKind::Quota, rules::QUOTAS[0])),
            (6, (v1::PolicyKind::Validator, rules::VALIDATOR)),
            (3, (v1::PolicyKind::Schedule, calendar::SCHEDULES[0])),
            (2, (v1::PolicyKind::Schedule, calendar::SCHEDULES[2])),
            (2, (v1::PolicyKind::Quota, rules::QUOTAS[4])),
            (1, (v1::PolicyKind::Service, replicas::SERVICE)),
        ])
        .unwrap_or((v1::PolicyKind::NodeLimits, "cap"));
    v1::PolicyName { kind: kind.into(), name: name.to_owned() }
}

fn term(key: &str, values: &[&str]) -> v1::NodeSelectorTerm {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    v1::NodeSelectorTerm { key: key.to_owned(), operator: v1::SelectorOperator::In.into(), values }
}
