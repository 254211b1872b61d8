//! Policy objects that make sense.

use plimsoll_ledger::{
    Batch, Class, ClassOrder, Elastic, Elasticity, Fairness, NodeLimits, Overflow, PolicyName, PolicyObject,
    Pool, Preemption, PriorityWeights, Queue, QueueDiscipline, QueueOrder, Quota, Rule, Schedule, Users,
    Validator, Window,
};
use plimsoll_types::{Amount, LedgerTime, Resources, Revision};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::contention::contention_policy;
use super::eviction::evict_when;
use super::request::{qos, selector};
use super::scale::valid_scaling_policy;
use super::service::service;
use super::spot::spot_policy;
use super::usage::quota;
use super::{amount, labels, name, number, resources};

fn queue_discipline() -> impl Strategy<Value = plimsoll_ledger::QueueDiscipline> {
    let names = ["", "strict", "skip", "backfill_1", "backfill_17", "backfill_all", "priority", "learned"];
    select(names.to_vec()).prop_map(|name| name.parse().expect("it is one of the names"))
}

/// What a pool may say of its nodes: bounds only where they bound something.
fn elastic() -> impl Strategy<Value = Elastic> {
    let time = || prop_oneof![Just(0), 1_000..31_622_400_000u64];
    let bounds = (0..1_000u32, 0..1_000u32, 0..1_000u32, time(), time());
    let kind = select(Elasticity::NAMED.map(|(_, kind)| kind).to_vec());
    (kind, bounds, 0..=1_000u32).prop_map(|(elasticity, bounds, fragmentation_permille)| {
        let (min_nodes, more, growth_nodes, growth_ms, idle_timeout_ms) = bounds;
        let said = Elastic { elasticity, fragmentation_permille, ..Elastic::default() };
        if elasticity != Elasticity::Elastic {
            return said;
        }
        Elastic { min_nodes, max_nodes: min_nodes + more, growth_nodes, growth_ms, idle_timeout_ms, ..said }
    })
}

pub(super) fn pool() -> impl Strategy<Value = Pool> {
    let strategy = select(plimsoll_ledger::Strategy::NAMED.map(|(_, strategy)| strategy).to_vec());
    let countables = btree_map("license/[a-z]{1,4}", amount().prop_map(Amount), 0..3);
    let order = select(vec![QueueOrder::BestEffortFifo, QueueOrder::StrictFifo]);
    let fairness = select(vec![
        Fairness::Priority,
        Fairness::Fair,
        Fairness::Quota,
        Fairness::Weighted,
        Fairness::FairTree,
    ]);
    let class_order = select(vec![ClassOrder::Strict, ClassOrder::Weighted]);
    let class_order = (class_order, prop::option::of(priority_weights()));
    let fairness = (fairness, prop_oneof![Just(0), 60_000..31_622_400_000u64], class_order);
    let preemption =
        select(vec![Preemption::Any, Preemption::Never, Preemption::LowerClass, Preemption::Reclaim]);
    let prices =
        btree_map(prop_oneof![Just("cpu".to_owned()), "license/[a-z]{1,4}"], 1..(u64::MAX >> 1), 0..3);
    // Levels are told apart by their names.
    let levels = prop::collection::btree_set(name(), 0..3).prop_map(|levels| levels.into_iter().collect());
    let words = ("[A-Z]{0,3}", levels);
    let over = btree_map(prop_oneof![Just("cpu".to_owned()), "storage/[a-z]{1,4}"], 1_000..=100_000u32, 0..3);
    let over = (over, prop::option::of(contention_policy()), prop_oneof![Just(0), 1_000..31_622_400_000u64]);
    let queueing = (queue_discipline(), prop_oneof![Just(0), 1_000..31_622_400_000u64], over);
    let price = (any::<u32>(), elastic(), prop::option::of(spot_policy()), 0..(u64::MAX >> 1));
    let more = (any::<u32>(), fairness, price, (preemption, any::<u32>()), (prices, words), queueing);
    (name(), labels(), selector(), strategy, countables, order, more).prop_map(
        |(name, labels, select, strategy, countables, queue_order, more)| {
            let (max_pending, fairness, price, preemption, (prices, words), queueing) = more;
            let (fairness, half_life_ms, (class_order, priority_weights)) = fairness;
            let (price_milli, elastic, spot, power_budget_watts) = price;
            let ((currency, topology), (queueing, starvation_bound_ms, over)) = (words, queueing);
            let (oversubscription, contention, rebalance_interval_ms) = over;
            let (preemption, max_preemptions_per_hour) = preemption;
            Pool {
                name,
                labels,
                select,
                strategy,
                countables,
                queue_order,
                max_pending,
                fairness,
                price_milli,
                preemption,
                max_preemptions_per_hour,
                prices,
                currency,
                topology,
                queueing,
                starvation_bound_ms,
                oversubscription,
                contention,
                rebalance_interval_ms,
                elastic,
                spot,
                power_budget_watts,
                half_life_ms,
                // What is planned by class goes by no weights.
                class_order: match queueing {
                    QueueDiscipline::ByQueueOrder | QueueDiscipline::Strict | QueueDiscipline::Skip => {
                        class_order
                    }
                    _ => ClassOrder::Strict,
                },
                // Points only where they decide.
                priority_weights: priority_weights.filter(|_| queueing == QueueDiscipline::Priority),
                changed: Revision(0),
            }
        },
    )
}

fn priority_weights() -> impl Strategy<Value = PriorityWeights> {
    let points = || 0..=1_000_000_000u32;
    let resources = btree_map(prop_oneof![Just("gpu".to_owned()), "license/[a-z]{1,4}"], points(), 0..3);
    (points(), 1_000..31_622_400_000u64, points(), points(), points(), resources).prop_map(
        |(age, max_age_ms, size, fair_share, qos, resources)| PriorityWeights {
            age,
            max_age_ms,
            size,
            fair_share,
            qos,
            resources,
        },
    )
}

pub(super) fn queue() -> impl Strategy<Value = Queue> {
    let quota = (0..1u64 << 40, 0..1u64 << 40, prop::option::of(0..1u64 << 40)).prop_map(
        |(guaranteed, more, borrow)| {
            let nominal = guaranteed + more;
            let limit = borrow.map(|borrow| Amount(nominal + borrow));
            Quota { guaranteed: Amount(guaranteed), nominal: Amount(nominal), limit }
        },
    );
    let resource = prop_oneof![Just("cpu".to_owned()), Just("gpu".to_owned()), "license/[a-z]{1,4}"];
    let quotas = btree_map(name(), btree_map(resource, quota, 1..3), 0..3);
    let parent = prop_oneof![Just(String::new()), name()];
    let admins = prop::collection::btree_set("[a-z*@.]{1,12}", 0..3);
    let batch =
        (1..=100_000u32, 1_000..=3_600_000u64).prop_map(|(size, interval_ms)| Batch { size, interval_ms });
    let full = (prop::option::of(spot_policy()), select(Overflow::ALL.to_vec()));
    let processing = (prop::option::of(batch), any::<bool>(), full);
    (name(), labels(), parent, 0..1_000_000u32, quotas, (any::<u32>(), admins, processing)).prop_map(
        |(name, labels, parent, weight_milli, quotas, (max_pending, admins, processing))| Queue {
            name,
            labels,
            parent,
            weight_milli,
            quotas,
            max_pending,
            admins: admins.into_iter().collect(),
            batch: processing.0,
            guaranteed_processing: processing.1,
            spot: processing.2.0,
            overflow: processing.2.1,
            changed: Revision(0),
        },
    )
}

pub(super) fn validator() -> impl Strategy<Value = Validator> {
    let rule = ("[a-z<= 0-9.]{0,10}[a-z]", "[a-z ]{0,8}", "[a-z.]{0,8}")
        .prop_map(|(expression, message, path)| Rule { expression, message, path });
    let names = || prop::collection::btree_set(name(), 0..3);
    (name(), select(vec!["Reservation", "Pool", "Queue"]), names(), names(), vec(rule, 1..4)).prop_map(
        |(name, subject, pools, queues, rules)| Validator {
            name,
            subject: subject.to_owned(),
            pools,
            queues,
            rules,
            changed: Revision(0),
        },
    )
}

fn kept_of_pool() -> impl Strategy<Value = Resources> {
    let resource = prop_oneof![
        Just("cpu".to_owned()),
        Just("memory".to_owned()),
        Just("gpu".to_owned()),
        "license/[a-z]{1,4}"
    ];
    btree_map(resource, 1..1u64 << 40, 1..4).prop_map(|amounts| {
        amounts.iter().fold(Resources::default(), |all, (name, amount)| all.with(name, *amount))
    })
}

pub(super) fn schedule() -> impl Strategy<Value = Schedule> {
    let rule = select(vec![
        "always",
        "22:00-06:00 UTC",
        "09:30-17:00 Europe/Berlin mon-fri except 2026-12-24,2026-12-31",
        "rrule FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=18 for 8h UTC",
        "rrule FREQ=WEEKLY;INTERVAL=2;COUNT=9 for 1d12h from 2026-11-02 Asia/Tokyo",
        "at 2026-12-24T18:00:00Z for 30m",
    ]);
    let resources = kept_of_pool();
    let patterns = || vec("[a-z_*?]{1,6}", 0..3);
    let users = (patterns(), patterns(), patterns(), patterns());
    let users =
        users.prop_map(|(pipelines, queues, tenants, classes)| Users { pipelines, queues, tenants, classes });
    (name(), labels(), name(), resources, rule, users, any::<bool>()).prop_map(
        |(name, labels, pool, resources, rule, users, shorten)| Schedule {
            name,
            labels,
            pool,
            resources,
            rule: rule.to_owned(),
            users,
            shorten,
            ..Schedule::default()
        },
    )
}

pub(super) fn windows() -> impl Strategy<Value = Vec<Window>> {
    let window = (number(), number())
        .prop_map(|(start, end)| Window { start: LedgerTime(start), end: LedgerTime(end) });
    vec(window, 0..4)
}

pub(super) fn class() -> impl Strategy<Value = Class> {
    let ttl = prop_oneof![Just(0), 1_000..1_000_000u64];
    let times = (ttl, 0..1_000_000u64, 0..1_000_000u64, 0..1_000_000u64);
    let counts = (prop::option::of(0..=1_000_000u32), btree_map(name(), kept_of_pool(), 0..3));
    let service = (qos(), prop::option::of(0..1_000_000u64), prop::option::of(evict_when()), counts);
    (name(), any::<i32>(), any::<bool>(), times, service).prop_map(
        |(name, priority, preemptible, times, service)| {
            let (qos, latency_target_ms, evict_when, (multiplier_milli, guaranteed)) = service;
            // What is guaranteed leaves no node for what it measures.
            let evict_when = evict_when.filter(|_| qos != Some(plimsoll_ledger::Qos::Guaranteed));
            let (default_ttl_ms, grace_ms, min_run_ms, default_duration_ms) = times;
            Class {
                name,
                priority,
                preemptible,
                default_ttl_ms,
                grace_ms,
                min_run_ms,
                default_duration_ms,
                qos,
                evict_when,
                latency_target_ms,
                multiplier_milli,
                weight_milli: multiplier_milli.map(|milli| milli / 2),
                guaranteed,
                changed: Revision(0),
            }
        },
    )
}

pub(super) fn node_limits() -> impl Strategy<Value = NodeLimits> {
    (name(), selector(), resources()).prop_map(|(name, select, max)| NodeLimits {
        name,
        select,
        max,
        changed: Revision(0),
    })
}

/// Policy objects that make sense.
pub(crate) fn valid_policy_object() -> impl Strategy<Value = PolicyObject> {
    // Boxed: together they would not fit the stack of a test.
    prop_oneof![
        pool().prop_map(PolicyObject::Pool).boxed(),
        class().prop_map(PolicyObject::Class).boxed(),
        node_limits().prop_map(PolicyObject::NodeLimits).boxed(),
        queue().prop_map(PolicyObject::Queue).boxed(),
        quota().prop_map(PolicyObject::Quota).boxed(),
        validator().prop_map(PolicyObject::Validator).boxed(),
        schedule().prop_map(PolicyObject::Schedule).boxed(),
        service().prop_map(PolicyObject::Service).boxed(),
        valid_scaling_policy().prop_map(PolicyObject::ScalingPolicy).boxed(),
    ]
}

pub(super) fn policy_name() -> impl Strategy<Value = PolicyName> {
    valid_policy_object().prop_map(|object| object.name())
}
