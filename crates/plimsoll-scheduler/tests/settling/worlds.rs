//! Clusters: trees of queues that lend and borrow, classes by priority or weight, spot nodes, limits, budgets, and what the calendar keeps.

use std::collections::BTreeMap;

use plimsoll_ledger::{
    Class, ClassOrder, Command, Fairness, Ledger, Outcome, PolicyObject, Pool, Preemption, Queue,
    QueueDiscipline, Quota, Schedule, SpotPolicy, Strategy as PoolStrategy,
};
use plimsoll_types::{Amount, NodeId};
use proptest::prelude::*;

use crate::fixture::bounded::{Kept, People, keep, kept, people, put_all, quota_of, schedule_of, spot};
use crate::fixture::{Size, apply, fleet, strategy};

/// Two trees: `org` with `vision` and `lab` below it, and `lab-a` and `lab-b` below that; `guest` by itself.
pub(crate) const QUEUES: [(&str, &str); 6] =
    [("org", ""), ("vision", "org"), ("lab", "org"), ("lab-a", "lab"), ("lab-b", "lab"), ("guest", "")];
/// Disciplines that go with classes by weight come first.
const DISCIPLINES: [&str; 7] = ["", "strict", "skip", "backfill_1", "backfill_all", "priority", "learned"];
const FAIRNESS: [Fairness; 5] =
    [Fairness::Priority, Fairness::Fair, Fairness::Weighted, Fairness::Quota, Fairness::FairTree];

/// What a queue is given, in thousandths of the fleet's cores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    nominal: u64,
    guaranteed: u64,
    limit: Option<u64>,
}

/// Everything that is set beside nodes and work.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) strategy: PoolStrategy,
    pub(crate) discipline: QueueDiscipline,
    pub(crate) fairness: Fairness,
    pub(crate) class_order: ClassOrder,
    pub(crate) preemption: Preemption,
    pub(crate) most_per_hour: u32,
    pub(crate) rebalance_interval_ms: u64,
    /// Of the class `low`.
    pub(crate) min_run_ms: u64,
    pub(crate) starvation_bound_ms: u64,
    pub(crate) shares: [Share; 6],
    pub(crate) kept: Option<Kept>,
    pub(crate) people: Option<People>,
    pub(crate) spot: Option<SpotPolicy>,
    /// Nodes that are spot nodes, and what they cost.
    pub(crate) spot_nodes: Vec<(usize, u32)>,
    pub(crate) cpu_permille: u32,
}

/// A cluster: its nodes and what is set on it.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) sizes: Vec<Size>,
    pub(crate) rules: Rules,
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    let sizes = prop::collection::vec((4u64..11, 0usize..3, 0u8..4), 2..6);
    (sizes, rules()).prop_map(|(sizes, rules)| World { sizes, rules })
}

fn rules() -> impl Strategy<Value = Rules> {
    let order = (
        prop_oneof![2 => Just(0usize), 3 => 0..DISCIPLINES.len()],
        prop::sample::select(FAIRNESS.to_vec()),
        any::<bool>(),
    );
    let preemption = prop_oneof![
        6 => Just(Preemption::Any), 2 => Just(Preemption::Reclaim), 1 => Just(Preemption::LowerClass),
    ];
    let bounds = (
        prop_oneof![3 => Just(0u32), 1 => 1u32..4],
        prop_oneof![3 => Just(0u64), 1 => Just(60_000u64)],
        prop_oneof![2 => Just(0u64), 1 => Just(300_000u64)],
        prop_oneof![2 => Just(0u64), 1 => Just(1_800_000u64)],
    );
    // Together they are about all that there is.
    let share = |nominal: std::ops::Range<u64>| {
        (nominal, 0u64..300, prop::option::weighted(0.3, 100u64..600)).prop_map(
            |(nominal, guaranteed, more)| Share {
                nominal,
                guaranteed: guaranteed.min(nominal),
                limit: more.map(|more| nominal + more),
            },
        )
    };
    let shares =
        [share(50..300), share(150..450), share(50..300), share(100..350), share(100..350), share(100..400)];
    let spot_nodes = prop::collection::vec((0usize..6, 300u32..1_000), 0..4);
    let spot = (prop::option::weighted(0.3, spot()), spot_nodes);
    let others = (
        prop::option::weighted(0.3, kept()),
        prop::option::weighted(0.3, people()),
        prop_oneof![2 => Just(1_000u32), 1 => 1_200u32..2_000],
    );
    (strategy(), order, preemption, bounds, shares, spot, others).prop_map(
        |(strategy, order, preemption, bounds, shares, (spot, spot_nodes), others)| {
            let (discipline, fairness, is_weighted) = order;
            let (most_per_hour, rebalance_interval_ms, min_run_ms, starvation_bound_ms) = bounds;
            let (kept, people, cpu_permille) = others;
            Rules {
                strategy,
                discipline: DISCIPLINES[discipline].parse().expect("it is a discipline"),
                fairness,
                // The others plan ahead by class.
                class_order: if is_weighted && discipline < 3 {
                    ClassOrder::Weighted
                } else {
                    ClassOrder::default()
                },
                preemption,
                most_per_hour,
                rebalance_interval_ms,
                min_run_ms,
                starvation_bound_ms,
                shares,
                kept,
                people,
                spot,
                spot_nodes,
                cpu_permille,
            }
        },
    )
}

/// The ledger of a world, before anybody asks for anything.
pub(crate) fn ledger_of(world: &World) -> Ledger {
    let World { sizes, rules } = world;
    let mut ledger = fleet(sizes, rules.strategy);
    for (index, price) in rules.spot_nodes.iter().filter(|(index, _)| *index < sizes.len()) {
        let mut registration = ledger.node(NodeId(*index as u32)).expect("it is there").registration.clone();
        registration.labels.insert("capacity_type".into(), "spot".into());
        registration.labels.insert("price_permille".into(), price.to_string());
        apply(&mut ledger, Command::RegisterNode(registration));
    }
    let mut put = vec![PolicyObject::Pool(pool(rules))];
    put.extend(classes(rules).map(PolicyObject::Class));
    put.extend((0..QUEUES.len()).map(|index| PolicyObject::Queue(queue(world, index, 1_000))));
    put.extend(rules.people.as_ref().map(|people| PolicyObject::Quota(quota_of(people))));
    let kept = rules.kept.as_ref().filter(|kept| !kept.is_plan);
    put.extend(kept.map(|kept| {
        let schedule = Schedule { shorten: kept.shorten, ..schedule_of(kept.cpu_millis / 5) };
        PolicyObject::Schedule(schedule)
    }));
    assert_eq!(put_all(&mut ledger, put), Outcome::Done);
    if let Some(kept) = &rules.kept {
        keep(&mut ledger, &Kept { cpu_millis: kept.cpu_millis / 5, ..kept.clone() });
    }
    ledger
}

fn pool(rules: &Rules) -> Pool {
    let has_price = rules.people.as_ref().is_some_and(|people| people.cost.is_some());
    Pool {
        name: "default".into(),
        strategy: rules.strategy,
        queueing: rules.discipline,
        fairness: rules.fairness,
        class_order: rules.class_order,
        preemption: rules.preemption,
        max_preemptions_per_hour: rules.most_per_hour,
        rebalance_interval_ms: rules.rebalance_interval_ms,
        starvation_bound_ms: rules.starvation_bound_ms,
        topology: vec!["zone".into()],
        countables: [("license/sim".to_owned(), Amount(10))].into(),
        prices: if has_price { [("cpu".to_owned(), 1_000_000)].into() } else { BTreeMap::new() },
        oversubscription: [("cpu".to_owned(), rules.cpu_permille)].into(),
        spot: rules.spot.clone(),
        ..Pool::default()
    }
}

/// Two that leave, one of them not at once, and three that stay.
fn classes(rules: &Rules) -> impl Iterator<Item = Class> {
    let class = |name: &str, priority, weight: u32| Class {
        name: name.into(),
        priority,
        weight_milli: Some(weight * 1_000),
        ..Class::default()
    };
    let batch = Class { preemptible: true, ..class("batch", 10, 1) };
    let low = Class { preemptible: true, min_run_ms: rules.min_run_ms, ..class("low", 25, 2) };
    [batch, low, class("standard", 50, 3), class("high", 75, 2), class("critical", 100, 4)].into_iter()
}

/// One of [`QUEUES`]; its amounts in thousandths of what the world says.
pub(crate) fn queue(world: &World, index: usize, permille: u64) -> Queue {
    let (name, parent) = QUEUES[index];
    let cores: u64 = world.sizes.iter().map(|(cores, ..)| cores * 1_000).sum();
    let devices: u64 = world.sizes.iter().map(|(_, devices, _)| *devices as u64 * 1_000).sum();
    let Share { nominal, guaranteed, limit } = world.rules.shares[index];
    let of = |all: u64, part: u64| Amount(all * part / 1_000 * permille / 1_000);
    let quota = |all: u64| Quota {
        nominal: of(all, nominal),
        guaranteed: of(all, guaranteed),
        limit: limit.map(|limit| of(all, limit)),
    };
    let of_pool: BTreeMap<String, Quota> =
        [("cpu".to_owned(), quota(cores)), ("gpu".to_owned(), quota(devices))].into();
    Queue {
        name: name.into(),
        parent: parent.into(),
        weight_milli: 1_000 + 500 * index as u32,
        quotas: [("default".to_owned(), of_pool)].into(),
        ..Queue::default()
    }
}
