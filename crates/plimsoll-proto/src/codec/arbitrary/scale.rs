//! Anything of scaling.

use plimsoll_autoscaler::{
    Activation, Aim, Amount, Behavior, Expander, Metric, Policy, Predictive, RatePolicy, Select, Target,
};
use plimsoll_ledger::{
    CapacityType, Command, Intent, IntentAction, IntentState, IntentStep, NodeTemplate, Pin, Provider,
    ProviderKind, Resting, ScaleChange, ScaleDecided, Scaling, ScalingFloor, ScalingPolicy, ScalingTarget,
    TemplateDevice, WorkTemplate,
};
use plimsoll_types::{LedgerTime, Revision};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{labels, name, number, resources};

fn metric() -> impl Strategy<Value = Metric> {
    prop_oneof![
        select(vec![Metric::Cpu, Metric::Memory, Metric::Gpu, Metric::QueueDepth, Metric::WaitTime]),
        Just(Metric::Contention),
        "x_[a-z]{0,4}".prop_map(Metric::Custom)
    ]
}

fn aim() -> impl Strategy<Value = Aim> {
    prop_oneof![
        number().prop_map(|target_milli| Aim::Average { target_milli }),
        number().prop_map(|target_milli| Aim::PerReplica { target_milli }),
        number().prop_map(|target_milli| Aim::Value { target_milli }),
        (number(), number(), number(), number()).prop_map(
            |(above_milli, below_milli, increment, decrement)| {
                Aim::Thresholds { above_milli, below_milli, increment, decrement }
            }
        ),
    ]
}

fn behavior() -> impl Strategy<Value = Behavior> {
    let amount = prop_oneof![number().prop_map(Amount::Replicas), number().prop_map(Amount::Percent)];
    let rate = (amount, number()).prop_map(|(amount, period_ms)| RatePolicy { amount, period_ms });
    let which = select(vec![Select::Max, Select::Min, Select::Disabled]);
    (number(), number(), which, vec(rate, 0..3)).prop_map(
        |(stabilization_ms, cooldown_ms, select, policies)| Behavior {
            stabilization_ms,
            cooldown_ms,
            select,
            policies,
        },
    )
}

fn rules() -> impl Strategy<Value = Policy> {
    let target = (metric(), aim()).prop_map(|(metric, aim)| Target { metric, aim });
    let activation = (vec((metric(), number()), 0..3), number())
        .prop_map(|(above_milli, cooldown_ms)| Activation { above_milli, cooldown_ms });
    let predictive = (number(), number(), any::<u32>()).prop_map(
        |(capacity_milli, miss_price_permille, fallback_utilization_permille)| Predictive {
            capacity_milli,
            miss_price_permille,
            fallback_utilization_permille,
        },
    );
    let numbers = (number(), number(), any::<u32>());
    (numbers, vec(target, 0..3), behavior(), behavior(), option::of(activation), option::of(predictive))
        .prop_map(|((min, max, tolerance_permille), targets, up, down, activation, predictive)| Policy {
            min,
            max,
            targets,
            tolerance_permille,
            up,
            down,
            activation,
            predictive,
        })
}

fn target() -> impl Strategy<Value = ScalingTarget> {
    prop_oneof![name().prop_map(ScalingTarget::Pool), name().prop_map(ScalingTarget::Service)]
}

fn provider() -> impl Strategy<Value = Provider> {
    let kind = prop_oneof![
        Just(ProviderKind::Process),
        (name(), vec("[a-z]{0,3}", 0..3)).prop_map(|(command, args)| ProviderKind::Exec { command, args }),
        name().prop_map(|url| ProviderKind::Webhook { url }),
        (name(), name()).prop_map(|(address, group)| ProviderKind::ExternalGrpc { address, group }),
    ];
    (kind, number(), any::<u32>()).prop_map(|(kind, timeout_ms, attempts)| Provider {
        kind,
        timeout_ms,
        attempts,
    })
}

fn template() -> impl Strategy<Value = WorkTemplate> {
    let device = (name(), number(), any::<u32>()).prop_map(|(model, memory_bytes, count)| TemplateDevice {
        model,
        memory_bytes,
        count,
    });
    (resources(), labels(), vec(device, 0..3), vec("[a-z]{0,3}", 0..3)).prop_map(
        |(resources, labels, devices, command)| WorkTemplate { resources, labels, devices, command },
    )
}

fn node_template() -> impl Strategy<Value = NodeTemplate> {
    let kind = option::of(select(CapacityType::NAMED.map(|(_, kind)| kind).to_vec()));
    let numbers = (any::<u32>(), number(), any::<u32>(), number());
    (name(), template(), kind, "[a-z]{0,3}", numbers).prop_map(
        |(name, offers, capacity_type, spot_pool, n)| {
            let (price_permille, watts, priority, max) = n;
            NodeTemplate { name, offers, capacity_type, price_permille, spot_pool, watts, priority, max }
        },
    )
}

pub(super) fn scaling_policy() -> impl Strategy<Value = ScalingPolicy> {
    let floor = (name(), "[a-z ]{0,8}", number()).prop_map(|(name, rule, replicas)| ScalingFloor {
        name,
        rule,
        replicas,
    });
    let numbers = (any::<u32>(), number(), number(), number());
    let expander = vec(select(Expander::NAMED.map(|(_, one)| one).to_vec()), 0..3);
    let who = (option::of(provider()), template(), vec(node_template(), 0..3), expander);
    ((name(), labels(), target()), rules(), vec(floor, 0..3), who, numbers).prop_map(
        |((name, labels, target), rules, floors, (provider, template, templates, expander), numbers)| {
            ScalingPolicy {
                name,
                labels,
                target,
                rules,
                floors,
                provider,
                template,
                templates,
                expander,
                max_leaving: numbers.0,
                drain_ms: numbers.1,
                start_within_ms: numbers.2,
                changed: Revision(numbers.3),
            }
        },
    )
}

/// One that the API takes, and gives back as it was.
pub(super) fn valid_scaling_policy() -> impl Strategy<Value = ScalingPolicy> {
    let floor = (name(), 0..10u64).prop_map(|(name, replicas)| ScalingFloor {
        name,
        rule: "22:00-06:00 UTC".to_owned(),
        replicas,
    });
    let drawn = (scaling_policy(), vec(floor, 0..2), 10..100u64, 0..10u64, any::<bool>());
    drawn.prop_map(|(mut policy, floors, max, min, sleeps)| {
        let pool = matches!(policy.target, ScalingTarget::Pool(_));
        let rules = &mut policy.rules;
        (rules.min, rules.max, rules.tolerance_permille) = (min, max, rules.tolerance_permille % 10_000);
        let own = if pool { Metric::Cpu } else { Metric::Custom("utilization".to_owned()) };
        for target in &mut rules.targets {
            target.metric = own.clone();
            match &mut target.aim {
                Aim::Average { target_milli }
                | Aim::PerReplica { target_milli }
                | Aim::Value { target_milli } => {
                    *target_milli = *target_milli % 1_000_000 + 1;
                }
                Aim::Thresholds { above_milli, below_milli, increment, decrement } => {
                    (*above_milli, *below_milli) = (*below_milli % 1_000 + 1_000, *above_milli % 1_000);
                    (*increment, *decrement) = (*increment % 9 + 1, *decrement % 9 + 1);
                }
            }
        }
        for behavior in [&mut rules.up, &mut rules.down] {
            behavior.stabilization_ms %= 1_000_000;
            behavior.cooldown_ms %= 1_000_000;
            behavior.policies.iter_mut().for_each(|rate| rate.period_ms = rate.period_ms % 1_000_000 + 1);
        }
        let cooldown_ms = rules.up.cooldown_ms;
        rules.activation = sleeps.then(|| Activation { above_milli: vec![(own, 5)], cooldown_ms });
        if let Some(predictive) = &mut rules.predictive {
            predictive.capacity_milli = 1_000;
            predictive.fallback_utilization_permille = predictive.fallback_utilization_permille % 999 + 1;
        }
        if let Some(provider) = &mut policy.provider {
            (provider.timeout_ms, provider.attempts) =
                (provider.timeout_ms % 60_000 + 1_000, provider.attempts % 9 + 1);
            match &mut provider.kind {
                ProviderKind::Process | ProviderKind::Exec { .. } => {}
                ProviderKind::Webhook { url } => *url = "http://127.0.0.1:9/scale".to_owned(),
                ProviderKind::ExternalGrpc { address, .. } => *address = "127.0.0.1:8086".to_owned(),
            }
        }
        policy.name.truncate(40);
        policy.floors = floors;
        policy.max_leaving = policy.max_leaving % 9 + 1;
        policy.drain_ms %= 1_000_000;
        policy.start_within_ms = policy.start_within_ms % 1_000_000 + 1_000;
        for device in &mut policy.template.devices {
            (device.memory_bytes, device.count) = (device.memory_bytes % 1_000_000 + 1, device.count % 8 + 1);
        }
        policy.template.command =
            if pool { Vec::new() } else { vec!["serve".to_owned(), "--fast".to_owned()] };
        if !pool {
            policy.template.resources = plimsoll_types::Resources::default();
            policy.template.devices.clear();
            policy.template.labels.clear();
            policy.drain_ms = 0;
        } else if policy.template.resources.is_zero() {
            policy.template.resources = plimsoll_types::Resources::new(1_000, 1 << 30);
        }
        policy.changed = Revision(0);
        for (index, template) in policy.templates.iter_mut().enumerate() {
            template.name = format!("t{index}");
            template.price_permille %= 1_000_001;
            (template.watts, template.max) = (template.watts % 10_000, template.max % 10);
            template.offers = policy.template.clone();
        }
        match pool && !policy.templates.is_empty() {
            true => policy.template = WorkTemplate::default(),
            false => policy.templates.clear(),
        }
        if let Some(Provider { kind: ProviderKind::ExternalGrpc { group, .. }, .. }) = &mut policy.provider {
            group.push_str("-{template}");
        }
        if policy.templates.is_empty() {
            policy.expander.clear();
        }
        policy.expander.sort_unstable();
        policy.expander.dedup();
        policy
    })
}

pub(super) fn scaling() -> impl Strategy<Value = Scaling> {
    let change = (number(), any::<i64>()).prop_map(|(at, by)| ScaleChange { at: LedgerTime(at), by });
    let pin =
        (number(), number(), name()).prop_map(|(to, until, by)| Pin { to, until: LedgerTime(until), by });
    let numbers = (number(), number(), number(), number(), number(), number());
    let resting = (name(), any::<u32>(), number()).prop_map(|(template, failures, retry_at)| Resting {
        template,
        failures,
        retry_at: LedgerTime(retry_at),
    });
    let words = (name(), name(), vec("[a-z ]{0,8}", 0..3), vec(resting, 0..3));
    (words, numbers, vec(change, 0..3), option::of(pin), any::<u32>()).prop_map(
        |((policy, rule, inputs, resting), n, changes, pin, failures)| Scaling {
            resting,
            policy,
            desired: n.0,
            computed_from: Revision(n.1),
            rule,
            inputs,
            changed_at: LedgerTime(n.2),
            reversed_at: LedgerTime(n.3),
            changes,
            pin,
            failures,
            retry_at: LedgerTime(n.4),
            changed: Revision(n.5),
        },
    )
}

pub(super) fn intent() -> impl Strategy<Value = Intent> {
    let leaving = option::of(1..1000u64).prop_map(|by| IntentAction::Start { leaving: by.map(Revision) });
    let removes = number().prop_map(|machine| IntentAction::Remove { machine: Revision(machine) });
    let state =
        select(vec![IntentState::Wanted, IntentState::Acting, IntentState::Ready, IntentState::Failed]);
    let words = (name(), name(), name(), "[a-z ]{0,8}", "[a-z]{0,3}");
    let numbers = (number(), number(), number(), number(), number());
    (words, prop_oneof![leaving, removes], state, any::<u32>(), numbers).prop_map(
        |((policy, node, handle, detail, template), action, state, attempts, n)| Intent {
            id: Revision(n.0),
            policy,
            template,
            action,
            node,
            state,
            attempts,
            handle,
            detail,
            not_before: LedgerTime(n.1),
            deadline: LedgerTime(n.2),
            opened_at: LedgerTime(n.3),
            changed: Revision(n.4),
        },
    )
}

pub(super) fn scaling_command() -> impl Strategy<Value = Command> {
    let decided = (name(), number(), number(), name(), vec("[a-z ]{0,8}", 0..3)).prop_map(
        |(policy, desired, from, rule, inputs)| {
            let computed_from = Revision(from);
            Command::SetDesired(ScaleDecided { policy, desired, computed_from, rule, inputs })
        },
    );
    let pin = (target(), option::of(number()), number()).prop_map(|(target, to, for_ms)| Command::PinScale {
        target,
        to,
        for_ms,
    });
    let open = (name(), option::of(1..1000u64), "[a-z]{0,3}").prop_map(|(policy, machine, template)| {
        Command::OpenIntent { policy, machine: machine.map(Revision), template }
    });
    let step = prop_oneof![
        Just(IntentStep::Act),
        (name(), name()).prop_map(|(handle, node)| IntentStep::Answered { handle, node }),
        (name(), number()).prop_map(|(detail, after_ms)| IntentStep::Later { detail, after_ms }),
        Just(IntentStep::Ready),
        name().prop_map(|detail| IntentStep::Failed { detail }),
    ];
    let step = (number(), any::<u32>(), step).prop_map(|(intent, attempts, step)| Command::StepIntent {
        intent: Revision(intent),
        attempts,
        step,
    });
    prop_oneof![decided, pin, open, step]
}
