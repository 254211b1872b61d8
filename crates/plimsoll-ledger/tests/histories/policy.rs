//! Policy that histories put and delete: pools, classes, queues, quotas, schedules, services.

use std::collections::BTreeMap;

use plimsoll_autoscaler::{Behavior, Expander, Policy as Rules};
use plimsoll_ledger::{
    Batch, CapacityType, Class, ClassOrder, ContentionPolicy, Elastic, Elasticity, EvictWhen, Fairness,
    Gauge, Measure, Meter, NodeLimits, NodeTemplate, OnInterruption, Overflow, PolicyName, PolicyObject,
    Pool, Preemption, PriorityWeights, Provider, ProviderKind, Qos, Queue, Quota, QuotaPolicy, Rate, Reset,
    Resolve, Rule, ScalingPolicy, ScalingTarget, Schedule, Scope, Service, Severity, SpotPolicy, Tier, Users,
    Validator,
};
use plimsoll_types::{Amount, Operator, Resources, Selector, Term};

use super::GIB;

pub(crate) fn policy(change: u8) -> (Vec<PolicyObject>, Vec<PolicyName>) {
    let pool = |name: &str, max_pending| Pool { name: name.into(), max_pending, ..Pool::default() };
    match change {
        0 => (vec![PolicyObject::Pool(pool("gpu", 0))], vec![]),
        1 => {
            let mut with = pool("default", 0);
            with.countables.insert("license/x".into(), Amount(2));
            (vec![PolicyObject::Pool(with)], vec![])
        }
        2 => (vec![PolicyObject::Pool(pool("default", 2))], vec![]),
        3 => (vec![], vec![PolicyName::Pool("gpu".into())]),
        4 => {
            let term = Term { key: "gpu".into(), operator: Operator::In, values: vec!["a100".into()] };
            let select = Selector { terms: vec![term] };
            (vec![PolicyObject::Pool(Pool { select, ..pool("gpu", 0) })], vec![])
        }
        5 => {
            let limits =
                NodeLimits { name: "edge".into(), max: Resources::new(2_000, 0), ..NodeLimits::default() };
            (vec![PolicyObject::NodeLimits(limits)], vec![])
        }
        6 => (vec![], vec![PolicyName::NodeLimits("edge".into())]),
        7 => {
            let class =
                Class { name: "batch".into(), priority: 200, default_ttl_ms: 2_000, ..Class::default() };
            (vec![PolicyObject::Class(class)], vec![])
        }
        49..=53 => (vec![processing(change)], vec![]),
        63..=65 => {
            let bounded = |name: &str, overflow, max_pending| {
                PolicyObject::Queue(Queue { name: name.into(), max_pending, overflow, ..Queue::default() })
            };
            let put = match change {
                63 => vec![
                    bounded("speech", Overflow::SpillToDisk, 1),
                    bounded("vision", Overflow::Compress, 2),
                ],
                64 => vec![bounded("speech", Overflow::Compress, 3)],
                _ => {
                    vec![bounded("speech", Overflow::Reject, 1), bounded("vision", Overflow::SpillToDisk, 1)]
                }
            };
            (put, vec![])
        }
        8 => (vec![PolicyObject::Pool(pool("gpu", 0))], vec![PolicyName::Class("standard".into())]),
        9 => {
            (vec![queue("vision", "", &[("cpu", 1_000, 4_000, Some(6_000)), ("gpu", 0, 500, None)])], vec![])
        }
        10 => (queues(), vec![]),
        11 => {
            // Cut below what may be taken.
            (
                vec![queue("speech", "org", &[("cpu", 0, 1_000, Some(1_000)), ("license/x", 0, 1, None)])],
                vec![],
            )
        }
        12 => (vec![], vec![PolicyName::Queue("org".into())]),
        15 => {
            let class = Class {
                name: "batch".into(),
                priority: 10,
                preemptible: true,
                grace_ms: 3_000,
                min_run_ms: 4_000,
                ..Class::default()
            };
            let standard = Class { name: "standard".into(), priority: 50, ..class.clone() };
            (vec![PolicyObject::Class(class), PolicyObject::Class(standard)], vec![])
        }
        16 => {
            let pool = Pool {
                preemption: Preemption::LowerClass,
                max_preemptions_per_hour: 2,
                topology: vec!["zone".into()],
                ..pool("default", 0)
            };
            (vec![PolicyObject::Pool(pool)], vec![])
        }
        29..=31 => {
            let (name, starvation_bound_ms) =
                [("skip", 0), ("backfill_1", 1_000), ("learned", 1)][usize::from(change) - 29];
            let queueing = name.parse().expect("it is a discipline");
            let pool = Pool { queueing, starvation_bound_ms, ..pool("default", 0) };
            (vec![PolicyObject::Pool(pool)], vec![])
        }
        17 => (
            vec![PolicyObject::Pool(Pool {
                preemption: Preemption::Reclaim,
                topology: vec!["zone".into()],
                ..pool("default", 0)
            })],
            vec![],
        ),
        41 => (vec![oversubscribed("default", &[("cpu", 1_500), ("memory", 1_001)])], vec![]),
        42 => (vec![oversubscribed("default", &[("cpu", 3_000), ("license/x", 2_000)])], vec![]),
        43 => (vec![oversubscribed("gpu", &[("gpu", 2_000)])], vec![]),
        44 => {
            let class = |name: &str, priority, qos| {
                let latency_target_ms = Some(u64::from(change));
                PolicyObject::Class(Class {
                    name: name.into(),
                    priority,
                    preemptible: true,
                    qos: Some(qos),
                    latency_target_ms,
                    ..Class::default()
                })
            };
            (vec![class("batch", 10, Qos::BestEffort), class("critical", 100, Qos::Guaranteed)], vec![])
        }
        45..=48 => (vec![resolving(change)], vec![]),
        55..=57 => {
            let when = EvictWhen { gauge: Gauge::Memory, above_permille: 900, for_ms: 5_000 };
            let class = |name: &str, priority, evict_when| {
                PolicyObject::Class(Class {
                    name: name.into(),
                    priority,
                    preemptible: true,
                    qos: Some(Qos::BestEffort),
                    grace_ms: 2_000,
                    min_run_ms: if change == 56 { 3_000 } else { 0 },
                    evict_when,
                    ..Class::default()
                })
            };
            let nonsense = EvictWhen { above_permille: 1_000, ..when };
            let other = if change == 57 { Some(nonsense) } else { None };
            (vec![class("batch", 10, Some(when)), class("standard", 50, other)], vec![])
        }
        58..=62 => {
            let elastic = |min_nodes, max_nodes, growth_nodes, idle_timeout_ms| Elastic {
                elasticity: Elasticity::Elastic,
                min_nodes,
                max_nodes,
                growth_nodes,
                idle_timeout_ms,
                ..Elastic::default()
            };
            let of = |name: &str, elastic| PolicyObject::Pool(Pool { elastic, ..pool(name, 0) });
            let put = match change {
                58 => vec![of("default", elastic(0, 0, 3, 1_000)), of("gpu", elastic(0, 0, 3, 1_000))],
                59 => vec![of("default", elastic(2, 3, 1, 0)), of("gpu", elastic(0, 2, 2, 5_000))],
                60 => vec![of("gpu", Elastic { elasticity: Elasticity::Static, ..Elastic::default() })],
                61 => vec![of("gpu", Elastic { fragmentation_permille: 300, ..Elastic::default() })],
                // Bounds of nothing, and bounds that cross.
                _ => vec![
                    of("gpu", Elastic { min_nodes: 1, ..Elastic::default() }),
                    of("default", elastic(3, 2, 0, 0)),
                ],
            };
            (put, vec![])
        }
        110..=115 => {
            let spot = SpotPolicy { share_permille: 500, ..SpotPolicy::default() };
            let of_pool = |name: &str, spot| PolicyObject::Pool(Pool { spot: Some(spot), ..pool(name, 0) });
            let put = match change {
                110 => of_pool("default", spot),
                111 => of_pool(
                    "default",
                    SpotPolicy {
                        base: 1,
                        share_permille: 1_000,
                        max_in_one_permille: 400,
                        on_interruption: Some(OnInterruption::Requeue),
                        ..spot
                    },
                ),
                112 => of_pool(
                    "default",
                    SpotPolicy {
                        suitable_for: vec!["batch".into(), "app".into()],
                        max_price_permille: 1_000,
                        fallback: vec![CapacityType::OnDemand],
                        on_interruption: Some(OnInterruption::Fail),
                        ..spot
                    },
                ),
                113 => of_pool("gpu", SpotPolicy { share_permille: 1_000, ..spot }),
                114 => {
                    PolicyObject::Queue(Queue { name: "org".into(), spot: Some(spot), ..Queue::default() })
                }
                // One kind twice, a share of more than all, a ceiling below what is usual.
                _ => of_pool(
                    "default",
                    SpotPolicy {
                        share_permille: 1_001,
                        max_price_permille: 999,
                        fallback: vec![CapacityType::Reserved; 2],
                        ..spot
                    },
                ),
            };
            (vec![put], vec![])
        }
        130..=133 => (vec![several(change)], vec![]),
        134 | 135 => {
            let power_budget_watts = if change == 134 { 1_000 } else { 400 };
            (vec![PolicyObject::Pool(Pool { power_budget_watts, ..pool("default", 0) })], vec![])
        }
        136 | 137 => {
            let half_life_ms = if change == 136 { 60_000 } else { 0 };
            let over_time = Pool { fairness: Fairness::FairTree, half_life_ms, ..pool("default", 0) };
            (vec![PolicyObject::Pool(over_time)], vec![])
        }
        138 => {
            let (name, pool) = ("evening".into(), "default".into());
            let hours = Schedule { name, pool, rule: "evenings".into(), ..Schedule::default() };
            (vec![PolicyObject::Schedule(hours)], vec![])
        }
        139 => (vec![], vec![PolicyName::Schedule("evening".into())]),
        140 => {
            let weighted = Pool { class_order: ClassOrder::Weighted, ..pool("default", 0) };
            (vec![PolicyObject::Pool(weighted)], vec![])
        }
        141 => {
            let queueing = "backfill_2".parse().expect("a discipline");
            let planned = Pool { class_order: ClassOrder::Weighted, queueing, ..pool("default", 0) };
            (vec![PolicyObject::Pool(planned)], vec![])
        }
        142 | 143 => (tiers(if change == 142 { 9_000 } else { 40_000 }), vec![]),
        144 => (vec![], vec![PolicyName::Quota("gold".into())]),
        145 | 146 => {
            // Points for little use: the pool counts use from now on. And weights where nothing goes by points.
            let queueing = if change == 145 { "priority" } else { "skip" }.parse().expect("a discipline");
            let fair_share = 1_000 * u32::from(change - 144);
            let priority_weights = Some(PriorityWeights { fair_share, ..PriorityWeights::default() });
            (vec![PolicyObject::Pool(Pool { priority_weights, queueing, ..pool("default", 0) })], vec![])
        }
        36 => (vec![scaling("grow", "default", 1, 4, 0)], vec![]),
        37 => (vec![scaling("grow", "default", 2, 3, 4_000)], vec![]),
        38 => (vec![scaling("other", "gpu", 0, 2, 0)], vec![]),
        39 => (vec![scaling("other", "default", 3, 2, 0)], vec![]),
        40 => (vec![], vec![PolicyName::ScalingPolicy("grow".into())]),
        32 | 33 => (vec![service("web", "default", "standard")], vec![]),
        34 => (vec![service("db", "gpu", "batch")], vec![]),
        35 => (vec![], vec![PolicyName::Service("web".into())]),
        22 => (vec![validator()], vec![]),
        21 => (vec![], vec![PolicyName::Validator("small".into())]),
        13 => (vec![queue("org", "vision", &[])], vec![PolicyName::Queue("speech".into())]),
        18 => (limits(40_000), vec![]),
        // Cut below what may be taken.
        19 => (limits(9_000), vec![]),
        20 => (vec![], vec![PolicyName::Quota("day".into())]),
        24 => (vec![schedule("night", "default", &[("cpu", 5_000)], false)], vec![]),
        25 => (vec![schedule("always", "default", &[("gpu", 2_000), ("license/x", 1)], true)], vec![]),
        26 => (vec![schedule("other", "gpu", &[("memory", 4 * GIB)], true)], vec![]),
        27 => (vec![], vec![PolicyName::Schedule("night".into())]),
        28 => (vec![schedule("night", "default", &[("cpu", 9_000), ("gpu", 500)], true)], vec![]),
        _ => {
            let fair = Pool { price_milli: 2_000, ..pool("gpu", 0) };
            let stranger = Queue {
                quotas: BTreeMap::from([("gpu".into(), BTreeMap::from([("cpu".into(), Quota::default())]))]),
                ..Queue { name: "speech".into(), max_pending: 1, ..Queue::default() }
            };
            (vec![PolicyObject::Queue(stranger), PolicyObject::Pool(fair)], vec![])
        }
    }
}

/// A pool that promises more than it has, in thousandths. One that counts licences cannot promise these.
pub(crate) fn oversubscribed(name: &str, ratios: &[(&str, u32)]) -> PolicyObject {
    let oversubscription: BTreeMap<String, u32> =
        ratios.iter().map(|(name, ratio)| ((*name).to_owned(), *ratio)).collect();
    let counted = oversubscription.keys().filter(|name| name.starts_with("license/"));
    let countables = counted.map(|name| (name.clone(), Amount(2))).collect();
    PolicyObject::Pool(Pool { name: name.into(), oversubscription, countables, ..Pool::default() })
}

/// A pool that does something about contention.
fn resolving(change: u8) -> PolicyObject {
    let (resolve, after_ms, from): (&[Resolve], u64, Severity) = match change {
        45 => (&[Resolve::Preempt], 0, Severity::Low),
        46 => (
            &[Resolve::Wait, Resolve::Priority, Resolve::Scale, Resolve::Redistribute],
            15_000,
            Severity::Medium,
        ),
        47 => (&[Resolve::Preempt, Resolve::Scale], 0, Severity::High),
        _ => (&[], 0, Severity::Low),
    };
    let contention = Some(ContentionPolicy { resolve: resolve.iter().copied().collect(), after_ms, from });
    PolicyObject::Pool(Pool { name: "default".into(), contention, ..Pool::default() })
}

/// What came with ledger version 9: batches, processing for sure, multipliers and guarantees of classes, intervals of rebalancing.
fn processing(change: u8) -> PolicyObject {
    let class = Class { name: "batch".into(), priority: 10, preemptible: true, ..Class::default() };
    let kept = |pool: &str| BTreeMap::from([(pool.to_owned(), Resources::new(3_000, 0).with("gpu", 500))]);
    match change {
        49 => {
            let PolicyObject::Queue(vision) = queue("vision", "org", &[("cpu", 1_000, 3_000, Some(8_000))])
            else {
                unreachable!("it makes queues")
            };
            PolicyObject::Queue(Queue { batch: Some(Batch { size: 2, interval_ms: 4_000 }), ..vision })
        }
        50 => PolicyObject::Queue(Queue {
            name: "org".into(),
            guaranteed_processing: true,
            batch: Some(Batch { size: 1, interval_ms: 1_000 }),
            ..Queue::default()
        }),
        51 => {
            PolicyObject::Class(Class { multiplier_milli: Some(333), guaranteed: kept("default"), ..class })
        }
        52 => PolicyObject::Class(Class { multiplier_milli: Some(0), guaranteed: kept("gpu"), ..class }),
        _ => PolicyObject::Pool(Pool {
            name: "default".into(),
            rebalance_interval_ms: 5_000,
            preemption: Preemption::Reclaim,
            ..Pool::default()
        }),
    }
}

/// What users of two tiers may have: whoever asks is in the lower one, as long as there is no higher that names him.
fn tiers(micros: u64) -> Vec<PolicyObject> {
    let tier = |name: &str, rank, users: &str, micros| {
        let tier = Some(Tier { group: String::new(), rank, users: vec![users.into()] });
        let limits = [(Meter::new(Scope::User, Measure::CpuHours, Reset::Day), micros)].into();
        PolicyObject::Quota(QuotaPolicy { name: name.into(), tier, limits, ..QuotaPolicy::default() })
    };
    vec![
        tier("bronze", 0, "*", micros),
        tier("gold", 1 + (micros / 40_000) as u32, "*", micros * 2),
        tier("silver", 1, "nobody", 0),
    ]
}

/// Limits of users, of a day, and of a queue for good.
pub(crate) fn limits(micros: u64) -> Vec<PolicyObject> {
    let limit = |scope, measure, reset, limit: u64| (Meter::new(scope, measure, reset), limit);
    // Hardly any take of these ends on a whole millisecond. Who asks in queues of `org` may do so but now and then.
    let rates: BTreeMap<String, Rate> = match micros {
        9_000 => [("api".to_owned(), Rate { tokens: 7, period_ms: 9_001, burst: 5 })].into(),
        _ => [
            ("api".to_owned(), Rate { tokens: 3, period_ms: 7_000, burst: 4 }),
            ("requests".to_owned(), Rate { tokens: 1, period_ms: 11_000, burst: 2 }),
        ]
        .into(),
    };
    let has_rate = |quota: &str, rate: &str| quota == "org" || (quota == "day" && rate == "api");
    let of = |name: &str, queue: &str, limits: Vec<(Meter, u64)>| {
        let limits = limits.into_iter().collect();
        PolicyObject::Quota(QuotaPolicy {
            name: name.into(),
            queue: queue.into(),
            limits,
            rates: rates.clone().into_iter().filter(|(rate, _)| has_rate(name, rate)).collect(),
            queue_when_exhausted: !queue.is_empty(),
            ..QuotaPolicy::default()
        })
    };
    // Money is mostly what runs out first, and what is kept in memory costs little.
    let prices = [("cpu", 1_900_001), ("memory", 333), ("license/x", 7)];
    let prices = prices.map(|(name, price)| (name.to_owned(), price)).into();
    vec![
        PolicyObject::Pool(Pool { name: "default".into(), prices, ..Pool::default() }),
        of("user", "", vec![limit(Scope::User, Measure::Concurrent, Reset::Live, micros / 9_000)]),
        of(
            "day",
            "",
            vec![
                limit(Scope::Together, Measure::CpuHours, Reset::Day, micros),
                limit(Scope::User, Measure::Starts, Reset::Day, micros / 5_000),
                limit(Scope::User, Measure::Cost, Reset::Day, micros),
            ],
        ),
        of(
            "org",
            "org",
            vec![
                limit(Scope::Together, Measure::CpuHours, Reset::Never, micros),
                limit(Scope::Together, Measure::Cost, Reset::Never, micros),
            ],
        ),
    ]
}

pub(crate) fn scaling(name: &str, pool: &str, min: u64, max: u64, drain_ms: u64) -> PolicyObject {
    let behavior = |cooldown_ms| Behavior { cooldown_ms, ..Behavior::unlimited() };
    PolicyObject::ScalingPolicy(ScalingPolicy {
        name: name.into(),
        target: ScalingTarget::Pool(pool.into()),
        rules: Rules { min, max, up: behavior(2_000), down: behavior(5_000), ..Rules::default() },
        provider: (min > 0).then_some(Provider {
            kind: ProviderKind::Process,
            timeout_ms: 5_000,
            attempts: 3,
        }),
        max_leaving: 1,
        drain_ms,
        start_within_ms: 10_000,
        ..ScalingPolicy::default()
    })
}

/// A policy with several templates.
fn several(change: u8) -> PolicyObject {
    let template = |name: &str, max| NodeTemplate {
        name: name.into(),
        max,
        watts: if name == "large" { 450 } else { 150 },
        ..NodeTemplate::default()
    };
    let PolicyObject::ScalingPolicy(policy) = scaling("grow", "default", 1, 4, 0) else {
        unreachable!("it is one")
    };
    let templates = match change {
        130 => vec![template("small", 0), template("large", 1)],
        131 => vec![template("small", 2)],
        132 => vec![template("large", 0), template("spot", 1)],
        _ => vec![template("small", 0), template("small", 0)],
    };
    PolicyObject::ScalingPolicy(ScalingPolicy {
        templates,
        expander: vec![Expander::Price],
        rules: Rules { max: 6, ..policy.rules.clone() },
        ..policy
    })
}

pub(crate) fn service(name: &str, pool: &str, class: &str) -> PolicyObject {
    PolicyObject::Service(Service {
        name: name.into(),
        pool: pool.into(),
        class: class.into(),
        ..Service::default()
    })
}

fn validator() -> PolicyObject {
    let rule = Rule { expression: "request.gpu <= 8".into(), ..Rule::default() };
    let subject = "Reservation".into();
    PolicyObject::Validator(Validator {
        name: "small".into(),
        subject,
        rules: vec![rule],
        ..Validator::default()
    })
}

/// org with vision and speech below it, which lend to each other.
pub(crate) fn queues() -> Vec<PolicyObject> {
    vec![
        queue("org", "", &[("cpu", 0, 2_000, None), ("gpu", 0, 1_000, None)]),
        queue("vision", "org", &[("cpu", 1_000, 3_000, Some(8_000)), ("gpu", 250, 1_000, Some(2_500))]),
        queue("speech", "org", &[("cpu", 0, 4_000, None), ("memory", 0, 8 * GIB, None)]),
    ]
}

/// Per resource of the default pool: guaranteed, nominal, limit.
fn queue(name: &str, parent: &str, quotas: &[(&str, u64, u64, Option<u64>)]) -> PolicyObject {
    let quota = |(resource, guaranteed, nominal, limit): &(&str, u64, u64, Option<u64>)| {
        let quota =
            Quota { guaranteed: Amount(*guaranteed), nominal: Amount(*nominal), limit: limit.map(Amount) };
        ((*resource).to_owned(), quota)
    };
    let quotas: BTreeMap<String, Quota> = quotas.iter().map(quota).collect();
    let quotas =
        if quotas.is_empty() { BTreeMap::new() } else { BTreeMap::from([("default".to_owned(), quotas)]) };
    PolicyObject::Queue(Queue { name: name.into(), parent: parent.into(), quotas, ..Queue::default() })
}

/// A schedule for requests of the queue `vision` and those named `batch_`.
fn schedule(name: &str, pool: &str, kept: &[(&str, u64)], shorten: bool) -> PolicyObject {
    let users = Users { queues: vec!["vi*".into()], pipelines: vec!["batch_*".into()], ..Users::default() };
    let resources = kept.iter().fold(Resources::default(), |all, (name, amount)| all.with(name, *amount));
    let (name, pool, rule) = (name.into(), pool.into(), format!("{shorten}"));
    PolicyObject::Schedule(Schedule { name, pool, rule, resources, users, shorten, ..Schedule::default() })
}
