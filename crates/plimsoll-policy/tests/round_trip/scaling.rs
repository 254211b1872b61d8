//! Scaling policies of all forms that a file may have.

use plimsoll_autoscaler::{
    Activation, Aim, Amount, Behavior, Expander, Metric, Policy, Predictive, RatePolicy, Select,
};
use plimsoll_calendar::Recurrence;
use plimsoll_ledger::{
    CapacityType, NodeTemplate, PolicyObject, Provider, ProviderKind, ScalingFloor, ScalingPolicy,
    ScalingTarget, TemplateDevice, WorkTemplate,
};
use plimsoll_types::{Resources, Revision};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{name, text};

const OF_POOLS: [&str; 5] = ["cpu", "memory", "gpu", "queue_depth", "wait_time"];
const OF_SERVICES: [&str; 7] =
    ["utilization", "in_flight", "queue_depth", "rate", "latency", "memory", "custom/tokens_per_s"];

pub(crate) fn scaling_policy() -> impl Strategy<Value = PolicyObject> {
    any::<bool>().prop_flat_map(|of_pool| {
        let bounds = (0..50u64, 50..1_000_000u64);
        let rules = (vec(target(of_pool), 0..4), 0..10_000u32, behavior(), behavior());
        let more = (option::of(activation(of_pool)), option::of(predictive()), vec(floor(), 0..3));
        let acting = (template(of_pool), option::of(provider()), templates());
        let limits = (1..20u32, 0..if of_pool { 900_000u64 } else { 1 }, 1_000..3_600_000u64);
        let named = ("[a-z][a-z0-9-]{0,30}[a-z]", btree_map(text(), text(), 0..3), name());
        (named, bounds, rules, more, acting, limits).prop_map(
            move |(named, (min, max), rules, more, (template, provider, several), limits)| {
                let (templates, expander) = several.filter(|_| of_pool).unwrap_or_default();
                let template = if templates.is_empty() { template } else { WorkTemplate::default() };
                let provider = provider.map(|provider| fitting(provider, &templates));
                let (name, labels, target) = named;
                let (targets, tolerance_permille, up, down) = rules;
                let (activation, predictive, floors) = more;
                let (max_leaving, drain_ms, start_within_ms) = limits;
                let rules =
                    Policy { min, max, targets, tolerance_permille, up, down, activation, predictive };
                PolicyObject::ScalingPolicy(ScalingPolicy {
                    name,
                    labels,
                    target: if of_pool {
                        ScalingTarget::Pool(target)
                    } else {
                        ScalingTarget::Service(target)
                    },
                    rules,
                    floors,
                    provider,
                    template,
                    templates,
                    expander,
                    max_leaving,
                    drain_ms,
                    start_within_ms,
                    changed: Revision(0),
                })
            },
        )
    })
}

fn metric(of_pool: bool) -> impl Strategy<Value = &'static str> {
    select(if of_pool { OF_POOLS.to_vec() } else { OF_SERVICES.to_vec() })
}

/// Times are in whole milliseconds.
fn milli(metric: &str, milli: u64) -> u64 {
    if metric == "wait_time" { milli * 1_000 } else { milli }
}

fn target(of_pool: bool) -> impl Strategy<Value = plimsoll_autoscaler::Target> {
    (metric(of_pool), 0..4u8, 1..1_000_000u64, 0..1_000_000u64, 1..9u64, 1..9u64).prop_map(
        |(metric, form, target, more, increment, decrement)| {
            let target_milli = milli(metric, target);
            let aim = match form {
                0 => Aim::Average { target_milli },
                1 => Aim::PerReplica { target_milli },
                2 => Aim::Value { target_milli },
                _ => Aim::Thresholds {
                    above_milli: milli(metric, target + more),
                    below_milli: target_milli,
                    increment,
                    decrement,
                },
            };
            plimsoll_autoscaler::Target { metric: Metric::named(metric), aim }
        },
    )
}

fn behavior() -> impl Strategy<Value = Behavior> {
    let amount = prop_oneof![
        (0..1_000_000u64).prop_map(Amount::Replicas),
        (0..1_000_000u64).prop_map(Amount::Percent)
    ];
    let rate = (amount, 1..3_600_000u64).prop_map(|(amount, period_ms)| RatePolicy { amount, period_ms });
    let any = (
        prop_oneof![Just(0), 0..3_600_000u64],
        prop_oneof![Just(0), 0..3_600_000u64],
        select(vec![Select::Max, Select::Min, Select::Disabled]),
        vec(rate, 0..3),
    );
    let any = any.prop_map(|(stabilization_ms, cooldown_ms, select, policies)| Behavior {
        stabilization_ms,
        cooldown_ms,
        select,
        policies,
    });
    let usual = Policy::default();
    prop_oneof![4 => any, 1 => Just(usual.up), 1 => Just(usual.down)]
}

fn activation(of_pool: bool) -> impl Strategy<Value = Activation> {
    // In the order of the file: by name.
    let above = btree_set(metric(of_pool), 0..4).prop_flat_map(|names| {
        let amounts = vec(0..1_000_000u64, names.len());
        amounts.prop_map(move |amounts| {
            let pairs = names.iter().zip(amounts);
            pairs.map(|(name, amount)| (Metric::named(name), milli(name, amount))).collect()
        })
    });
    (above, 0..3_600_000u64).prop_map(|(above_milli, cooldown_ms)| Activation { above_milli, cooldown_ms })
}

fn predictive() -> impl Strategy<Value = Predictive> {
    (0..100_000u64, 1..10_000u32).prop_map(|(miss_price_permille, fallback_utilization_permille)| {
        Predictive { capacity_milli: 1_000, miss_price_permille, fallback_utilization_permille }
    })
}

fn floor() -> impl Strategy<Value = ScalingFloor> {
    let rules = ["08:00-18:00 UTC", "22:00-06:00 Europe/Berlin", "Mo-Fr 07:30-19:00 UTC"];
    let rules = rules.iter().filter_map(|rule| rule.parse::<Recurrence>().ok()).map(|rule| rule.to_string());
    let rules: Vec<String> = rules.collect();
    assert!(!rules.is_empty());
    ("[a-z]{1,8}", select(rules), 0..50u64).prop_map(|(name, rule, replicas)| ScalingFloor {
        name,
        rule,
        replicas,
    })
}

fn template(of_pool: bool) -> impl Strategy<Value = WorkTemplate> {
    let resources = (1..1_000_000u64, 1..1u64 << 40).prop_map(|(cpu, memory)| Resources::new(cpu, memory));
    let device = ("[a-z0-9]{1,8}", 1..1u64 << 40, 1..9u32)
        .prop_map(|(model, memory_bytes, count)| TemplateDevice { model, memory_bytes, count });
    let node = if of_pool { 0..3 } else { 0..1 };
    let command = if of_pool { 0..1 } else { 1..4 };
    (resources, btree_map(text(), text(), node.clone()), vec(device, node), vec(text(), command)).prop_map(
        |(resources, labels, devices, command)| WorkTemplate { resources, labels, devices, command },
    )
}

/// Several templates, with rules by which one is picked; none where the policy has the one.
fn templates() -> impl Strategy<Value = Option<(Vec<NodeTemplate>, Vec<Expander>)>> {
    let kind = option::of(select(CapacityType::NAMED.map(|(_, kind)| kind).to_vec()));
    let numbers = (0..1_000_001u32, 0..1_000_000u64, 0..9u32, 0..9u64);
    let one =
        (template(true), kind, text(), numbers).prop_map(|(offers, capacity_type, spot_pool, numbers)| {
            let (price_permille, watts, priority, max) = numbers;
            let name = String::new();
            NodeTemplate { name, offers, capacity_type, price_permille, spot_pool, watts, priority, max }
        });
    let named = vec(one, 1..4).prop_map(|mut templates| {
        for (index, template) in templates.iter_mut().enumerate() {
            template.name = format!("t{index}");
        }
        templates
    });
    let rules = subsequence(Expander::NAMED.map(|(_, rule)| rule).to_vec(), 0..4).prop_shuffle();
    option::of((named, rules))
}

/// A node group has nodes of one template.
fn fitting(mut provider: Provider, templates: &[NodeTemplate]) -> Provider {
    if let ProviderKind::ExternalGrpc { group, .. } = &mut provider.kind
        && !templates.is_empty()
    {
        group.push_str("-{template}");
    }
    provider
}

fn provider() -> impl Strategy<Value = Provider> {
    let kind = prop_oneof![
        Just(ProviderKind::Process),
        ("[a-z][a-z.-]{0,8}", vec(text(), 0..3))
            .prop_map(|(command, args)| ProviderKind::Exec { command, args }),
        "http://[a-z]{1,8}:[1-9][0-9]{0,3}/[a-z/]{0,8}".prop_map(|url| ProviderKind::Webhook { url }),
        ("[a-z]{1,8}:[1-9][0-9]{0,3}", text().prop_filter("a name", |group| !group.is_empty()))
            .prop_map(|(address, group)| ProviderKind::ExternalGrpc { address, group }),
    ];
    (kind, 1_000..3_600_000u64, 1..100u32).prop_map(|(kind, timeout_ms, attempts)| Provider {
        kind,
        timeout_ms,
        attempts,
    })
}
