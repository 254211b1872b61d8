//! What is written is read back, whatever it holds; nothing that is read panics.

#[path = "round_trip/scaling.rs"]
mod scaling;

use std::collections::BTreeMap;

use plimsoll_ledger::{
    Balancing, Batch, CapacityType, Class, ClassOrder, ContentionPolicy, Elastic, Elasticity, EvictWhen,
    Fairness, Gauge, Measure, Meter, NodeLimits, OnInterruption, Overflow, PolicyObject, Pool, Preemption,
    PriorityWeights, Qos, Queue, QueueOrder, Quota, QuotaPolicy, Rate, Reset, Resolve, Rule, Schedule, Scope,
    Service, Severity, SpotPolicy, Strategy as Choice, Tier, Users, Validator,
};
use plimsoll_policy::{Parsed, Source, changes, parse, to_document, to_yaml};
use plimsoll_types::{Amount, Operator, Resources, Revision, Selector, Term};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

/// Texts with all that YAML treats as special, and no control characters.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]{1,8}",
        "[ -~]{1,24}",
        "[-#:&*!|>'\"%@`{}\\[\\],? ]{1,6}",
        select(vec![
            "null",
            "~",
            "true",
            "no",
            "1e3",
            "0x10",
            "-5",
            "2.50",
            ".inf",
            "2026-11-21",
            "---",
            "=",
            "<<"
        ])
        .prop_map(str::to_owned),
        "[\\p{L}\\p{N} ]{1,12}",
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]([-._a-z0-9]{0,12}[a-z0-9])?",
        select(vec!["1", "1e3", "null", "true", "0.5"]).prop_map(str::to_owned)
    ]
}

fn term() -> impl Strategy<Value = Term> {
    let values = vec(text(), 1..4);
    prop_oneof![
        (text(), select(vec![Operator::In, Operator::NotIn]), values)
            .prop_map(|(key, operator, values)| Term { key, operator, values }),
        (text(), select(vec![Operator::Exists, Operator::DoesNotExist])).prop_map(|(key, operator)| Term {
            key,
            operator,
            values: Vec::new()
        }),
        (text(), select(vec![Operator::Gt, Operator::Lt]), any::<i64>())
            .prop_map(|(key, operator, value)| Term { key, operator, values: vec![value.to_string()] }),
    ]
}

/// What may be on spot nodes.
fn spot() -> impl Strategy<Value = SpotPolicy> {
    let what = select(OnInterruption::NAMED.map(|(_, what)| what).to_vec());
    let kinds = prop::sample::subsequence(vec![CapacityType::Reserved, CapacityType::OnDemand], 0..=2);
    let ceiling = prop_oneof![Just(0), 1_000..=1_000_000u32];
    (0..=1_000u32, any::<u32>(), kinds, ceiling, vec(text(), 0..3), prop::option::of(what), 0..=1_000u32)
        .prop_map(
            |(share_permille, base, fallback, max_price_permille, suitable_for, on_interruption, one)| {
                SpotPolicy {
                    share_permille,
                    base,
                    fallback,
                    max_price_permille,
                    suitable_for: suitable_for
                        .into_iter()
                        .filter(|tag| (1..=128).contains(&tag.len()))
                        .collect(),
                    on_interruption,
                    max_in_one_permille: one,
                }
            },
        )
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

fn selector() -> impl Strategy<Value = Selector> {
    vec(term(), 0..3).prop_map(|terms| Selector { terms })
}

fn amounts(least: u64) -> impl Strategy<Value = BTreeMap<String, Amount>> {
    let names = "(license|storage|network)/[a-z0-9]{1,5}|tokens";
    btree_map(names, (least..=u64::MAX >> 1).prop_map(Amount), 0..4)
}

fn object() -> impl Strategy<Value = PolicyObject> {
    let strategies = Choice::NAMED.map(|(_, strategy)| strategy).to_vec();
    let orders = select(vec![QueueOrder::BestEffortFifo, QueueOrder::StrictFifo]);
    let labels = btree_map(text(), text(), 0..3);
    let fairness = select(vec![Fairness::Priority, Fairness::Fair, Fairness::Quota, Fairness::Weighted]);
    let preemption =
        select(vec![Preemption::Any, Preemption::Never, Preemption::LowerClass, Preemption::Reclaim]);
    let prices = btree_map("cpu|gpu|license/[a-z]{1,4}", 1..u64::MAX >> 1, 0..3);
    let levels = prop::collection::btree_set("[a-m]{1,6}", 0..4).prop_map(Vec::from_iter);
    let words = ("[A-Z]{0,3}", levels);
    let names = ["", "strict", "skip", "backfill_1", "backfill_17", "backfill_all", "priority", "learned"];
    let over = btree_map("cpu|memory|storage/[a-z]{1,4}", 1_000..=100_000u32, 0..3);
    let severity = select(Severity::NAMED.map(|(_, severity)| severity).to_vec());
    let kinds = prop::collection::btree_set(select(Resolve::NAMED.map(|(_, kind)| kind).to_vec()), 1..4);
    let after_ms = prop_oneof![Just(0u64), (1..86_400u64).prop_map(|seconds| seconds * 1_000)];
    let contention = (kinds, after_ms, severity).prop_map(|(resolve, after_ms, from)| ContentionPolicy {
        resolve,
        after_ms,
        from,
    });
    let over = (over, prop::option::of(contention));
    let queueing = (select(names.to_vec()), prop_oneof![Just(0u64), 1_000..86_400_000u64], over);
    let price = (any::<u32>(), elastic(), prop::option::of(spot()), 0..1_000_000u64);
    let more = (any::<u32>(), fairness, price, (preemption, any::<u32>()), (prices, words), queueing);
    let pool = (name(), labels, selector(), select(strategies), amounts(0), orders, more).prop_map(
        |(name, labels, select, strategy, countables, queue_order, more)| {
            let (max_pending, fairness, price, preemption, (prices, words), queueing) = more;
            let (price_milli, elastic, spot, power_budget_watts) = price;
            let (currency, topology): (String, Vec<String>) = words;
            let (queueing, starvation_bound_ms, (oversubscription, contention)) = queueing;
            let (preemption, max_preemptions_per_hour) = preemption;
            PolicyObject::Pool(Pool {
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
                queueing: queueing.parse().unwrap(),
                starvation_bound_ms,
                oversubscription,
                contention,
                rebalance_interval_ms: starvation_bound_ms / 2 * u64::from(starvation_bound_ms >= 2_000),
                elastic,
                spot,
                power_budget_watts,
                half_life_ms: starvation_bound_ms * 60,
                class_order: match queueing {
                    "" | "strict" | "skip" if power_budget_watts % 2 == 0 => ClassOrder::Weighted,
                    _ => ClassOrder::Strict,
                },
                priority_weights: (queueing == "priority").then(|| PriorityWeights {
                    age: max_preemptions_per_hour % 1_000_000_001,
                    max_age_ms: starvation_bound_ms.max(1_000) / 1_000 * 1_000,
                    fair_share: price_milli % 1_000_000_001,
                    resources: [("gpu".to_owned(), max_pending % 1_000_000_001)].into(),
                    ..PriorityWeights::default()
                }),
                changed: Revision(0),
            })
        },
    );
    let ttl_ms = prop_oneof![Just(0), 10_000u64..3_600_000];
    let times = (ttl_ms, 0u64..3_600_000, 0u64..3_600_000);
    let qos = prop::option::of(prop::sample::select(Qos::NAMED.map(|(_, qos)| qos).to_vec()));
    let kept =
        btree_map(select(vec!["cpu", "memory", "gpu", "license/x"]), 1..1u64 << 50, 1..4).prop_map(|kept| {
            kept.iter().fold(Resources::default(), |all, (name, amount)| all.with(name, *amount))
        });
    let counts = (prop::option::of(0..1_000_000u32), btree_map(name(), kept, 0..3));
    let gauge = prop::sample::select(Gauge::NAMED.map(|(_, gauge)| gauge).to_vec());
    let when = (gauge, 1..=999u32, 1_000..=3_600_000u64)
        .prop_map(|(gauge, above_permille, for_ms)| EvictWhen { gauge, above_permille, for_ms });
    let service =
        (qos, prop::option::of(prop_oneof![Just(0), 1..3_600_000u64]), prop::option::of(when), counts);
    let class = (name(), any::<i32>(), any::<bool>(), times, 0..1_000_000u64, service).prop_map(
        |(name, priority, preemptible, (ttl, grace_ms, min_run_ms), longest, service)| {
            let (qos, latency_target_ms, evict_when, (multiplier_milli, guaranteed)) = service;
            // What is guaranteed leaves no node for what it measures.
            let evict_when = evict_when.filter(|_| qos != Some(Qos::Guaranteed));
            PolicyObject::Class(Class {
                name,
                priority,
                preemptible,
                default_ttl_ms: ttl,
                grace_ms,
                min_run_ms,
                default_duration_ms: longest,
                qos,
                latency_target_ms,
                multiplier_milli,
                weight_milli: multiplier_milli.map(|milli| milli / 2),
                guaranteed,
                evict_when,
                changed: Revision(0),
            })
        },
    );
    let most = u64::MAX >> 1;
    let limits = (name(), selector(), 0..=most, 0..=most, amounts(1)).prop_map(
        |(name, select, cpu, memory, other)| {
            let max = Resources { other, ..Resources::new(cpu, memory) };
            PolicyObject::NodeLimits(NodeLimits { name, select, max, changed: Revision(0) })
        },
    );
    let quota = (0..1u64 << 50, 0..1u64 << 50, prop::option::of(0..1u64 << 50)).prop_map(
        |(guaranteed, more, borrow)| {
            let nominal = guaranteed + more;
            let limit = borrow.map(|borrow| Amount(nominal + borrow));
            Quota { guaranteed: Amount(guaranteed), nominal: Amount(nominal), limit }
        },
    );
    let resource = select(vec!["cpu", "memory", "gpu", "license/x", "network/in"]).prop_map(str::to_owned);
    let quotas = btree_map(name(), btree_map(resource, quota, 1..4), 0..3);
    let parent = prop_oneof![Just(String::new()), name()];
    let admins = prop::collection::btree_set("[a-z][a-z*@.]{0,11}", 0..3);
    let batch =
        (1..100_000u32, 1_000..3_600_000u64).prop_map(|(size, interval_ms)| Batch { size, interval_ms });
    let batch = (prop::option::of(batch), prop::option::of(spot()));
    let queue = (
        name(),
        btree_map(text(), text(), 0..3),
        parent,
        0..1_000_000u32,
        quotas,
        (any::<u32>(), admins, batch),
    )
        .prop_map(
            |(name, labels, parent, weight_milli, quotas, (max_pending, admins, (batch, spot)))| {
                let (changed, admins) = (Revision(0), admins.into_iter().collect());
                let queue = Queue {
                    name,
                    labels,
                    parent,
                    weight_milli,
                    quotas,
                    max_pending,
                    admins,
                    batch,
                    guaranteed_processing: batch.is_some_and(|batch| batch.size % 2 == 0),
                    overflow: if max_pending > 0 {
                        Overflow::ALL[max_pending as usize % 3]
                    } else {
                        Overflow::Reject
                    },
                    spot,
                    changed,
                };
                PolicyObject::Queue(queue)
            },
        );
    let rule = (
        select(vec!["request.gpu <= 8", "'team' in request.labels", "request.memory < 4Gi", "true"]),
        text(),
        text(),
    )
        .prop_map(|(expression, message, path)| Rule {
            expression: expression.to_owned(),
            message,
            path,
        });
    let names = || prop::collection::btree_set(name(), 0..3);
    let validator = (name(), names(), names(), vec(rule, 1..3)).prop_map(|(name, pools, queues, rules)| {
        let subject = "Reservation".to_owned();
        PolicyObject::Validator(Validator { name, subject, pools, queues, rules, changed: Revision(0) })
    });
    let when = select(vec![
        "always",
        "22:00-06:00 Europe/Berlin mon-fri except 2026-12-24,2026-12-31",
        "rrule FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=18 for 8h UTC",
        "rrule FREQ=WEEKLY;INTERVAL=2;BYDAY=SA,SU for 1d12h from 2026-11-02 Asia/Tokyo",
        "at 2026-12-24T18:00:00Z for 30m",
    ]);
    let kept =
        btree_map(select(vec!["cpu", "memory", "gpu", "license/x", "network/in"]), 1..1u64 << 50, 1..4);
    let patterns = || vec("[a-z_*?]{1,8}", 0..3);
    let users = (patterns(), patterns(), patterns(), patterns());
    let schedule = ((name(), name()), btree_map(text(), text(), 0..3), kept, when, users, prop::bool::ANY)
        .prop_map(|((name, pool), labels, kept, rule, (pipelines, queues, tenants, classes), shorten)| {
            let resources =
                kept.iter().fold(Resources::default(), |all, (name, amount)| all.with(name, *amount));
            let users = Users { pipelines, queues, tenants, classes };
            let rule = rule.to_owned();
            PolicyObject::Schedule(Schedule {
                name,
                labels,
                pool,
                resources,
                rule,
                users,
                shorten,
                ..Schedule::default()
            })
        });
    let balancing = select(Balancing::NAMED.map(|(_, balancing)| balancing).to_vec());
    let bound = prop_oneof![Just(0), 1_000..=100_000u32];
    let numbers = (bound, 0..=100_000u32, 0..100_000_000u64);
    let service = ((name(), name(), name()), btree_map(text(), text(), 0..3), balancing, numbers).prop_map(
        |((name, pool, class), labels, balancing, (load_bound_permille, subset_size, slow_start_ms))| {
            PolicyObject::Service(Service {
                name,
                labels,
                pool,
                class,
                balancing,
                load_bound_permille,
                subset_size,
                slow_start_ms,
                changed: Revision(0),
            })
        },
    );
    prop_oneof![
        pool,
        class,
        limits,
        queue,
        quota_policy(),
        schedule,
        validator,
        service,
        scaling::scaling_policy()
    ]
}

fn quota_policy() -> impl Strategy<Value = PolicyObject> {
    let scope = select(vec![Scope::Together, Scope::User, Scope::Run]);
    let measure = select(Measure::NAMED.map(|(_, measure)| measure).to_vec());
    let reset = prop_oneof![
        Just(Reset::Day),
        Just(Reset::Month),
        Just(Reset::Never),
        (1_000..10_000_000_000u64).prop_map(Reset::Rolling)
    ];
    let meter = (scope, measure, reset).prop_map(|(scope, measure, reset)| {
        Meter::new(scope, measure, if measure.is_live() { Reset::Live } else { reset })
    });
    let limits = btree_map(meter, 0..u64::MAX >> 1, 0..6);
    let rate = (1..1_000_000u64, prop_oneof![Just(1_000), Just(60_000), 1..100_000u64], 1..1_000u64)
        .prop_map(|(tokens, period_ms, burst)| Rate { tokens, period_ms, burst });
    let rates = btree_map("[a-z][a-z/]{0,6}", rate, 0..3);
    let about = (prop_oneof![Just(String::new()), name()], "[a-z*]{0,5}");
    let tier = ("[a-z]{0,4}", any::<u32>(), proptest::collection::vec("[a-z*]{1,5}", 1..4));
    let tier = tier.prop_map(|(group, rank, users)| Tier { group, rank, users });
    let about = prop_oneof![
        2 => about.prop_map(|(queue, tenant)| (queue, tenant, None)),
        1 => tier.prop_map(|tier| (String::new(), String::new(), Some(tier))),
    ];
    (name(), btree_map(text(), text(), 0..3), about, limits, any::<bool>(), "[A-Z]{0,3}", rates).prop_map(
        |(name, labels, (queue, tenant, tier), limits, queue_when_exhausted, currency, rates)| {
            let changed = Revision(0);
            PolicyObject::Quota(QuotaPolicy {
                name,
                labels,
                queue,
                tenant,
                tier,
                limits,
                queue_when_exhausted,
                currency,
                rates,
                changed,
            })
        },
    )
}

fn read(text: &str) -> Vec<PolicyObject> {
    let source = Source { name: "f".into(), text: text.into() };
    match parse(&[source]) {
        Ok(parsed) => parsed.into_iter().map(|Parsed { object, .. }| object).collect(),
        Err(problems) => panic!("{text}\n{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>()),
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(objects in vec(object(), 1..4)) {
        let distinct: BTreeMap<_, _> = objects.into_iter().map(|object| (object.name(), object)).collect();
        let objects: Vec<PolicyObject> = distinct.into_values().collect();
        let text = to_yaml(&objects);
        prop_assert_eq!(&read(&text), &objects, "{}", text);
        // JSON is YAML, and a list of objects is a file too: `get -o json|yaml` of them reads back.
        let list: Vec<_> = objects.iter().map(to_document).collect();
        prop_assert_eq!(&read(&serde_json::to_string(&list).unwrap()), &objects);
        prop_assert_eq!(&to_yaml(&read(&text)), &text, "the canonical form is its own");
    }

    #[test]
    fn objects_differ_exactly_where_there_are_changes(a in object(), b in object()) {
        prop_assert!(changes(Some(&a), &a).is_empty());
        if a.name() == b.name() {
            prop_assert_eq!(changes(Some(&a), &b).is_empty(), a == b);
        }
        prop_assert!(!changes(None, &b).is_empty());
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}", lines in vec("[ ]{0,4}(- )?[a-z]{0,8}(: ?)?[\\[\\]{}&*!|>'\"#,a-zA-Z0-9/]{0,12}", 0..12)) {
        for text in [text, lines.join("\n"), format!("apiVersion: plimsoll/v1\nkind: Pool\n{}", lines.join("\n"))] {
            if let Err(problems) = parse(&[Source { name: "f".into(), text }]) {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    let _ = problem.to_string();
                }
            }
        }
    }
}
