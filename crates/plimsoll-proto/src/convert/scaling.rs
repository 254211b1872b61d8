//! Scaling policies, what their targets want, and the machines that come and go.

use std::collections::BTreeMap;

use plimsoll_autoscaler::{
    Activation, Aim, Amount, Behavior, Expander, Metric, Policy, Predictive, RatePolicy, Select, Target,
};
use plimsoll_calendar::Recurrence;
use plimsoll_ledger::limits::{
    MAX_DEVICES, MAX_FLOORS, MAX_ITEMS, MAX_METRIC_BYTES, MAX_PRICE_PERMILLE, MAX_PROVIDER_ATTEMPTS,
    MAX_PROVIDER_TIMEOUT_MS, MAX_REPLICAS, MAX_RULE_BYTES, MAX_SCALING_NAME_BYTES, MAX_SCALING_PERMILLE,
    MAX_SCALING_RULES, MAX_SCALING_TEXT, MAX_TEMPLATES, MAX_TTL_MS, MIN_TTL_MS,
};
use plimsoll_ledger::{
    CapacityType, Intent, IntentAction, IntentState, Ledger, NodeTemplate, Power, Provider, ProviderKind,
    Scaling, ScalingFloor, ScalingPolicy, ScalingTarget, TEMPLATE_IN_GROUP, TemplateDevice, WorkTemplate,
};
use plimsoll_types::Revision;

use super::check::Check;
use super::{Violation, resources, resources_to_v1};
use crate::limits::{MAX_AMOUNT, MAX_DEVICE_TEXT_BYTES};
use crate::v1;

/// Metrics of a pool.
const OF_POOLS: [&str; 6] = ["cpu", "memory", "gpu", "queue_depth", "wait_time", "contention"];
/// Metrics of a service: what its endpoints report, and what their nodes measure.
const OF_SERVICES: [&str; 8] =
    ["utilization", "in_flight", "queue_depth", "rate", "latency", "cpu", "memory", "gpu"];
/// Before the name of a metric of an endpoint's own. Without it a name that is misspelt would be one.
pub const OWN_METRIC: &str = "custom/";
/// Those of a pool that a plain utilization is about.
const USED_OF_POOLS: [&str; 3] = ["cpu", "memory", "gpu"];
/// Utilization aimed at without a forecast, where the policy names none, in thousandths.
const FALLBACK_PERMILLE: u32 = 600;
const DEFAULT_TIMEOUT_MS: u64 = 30_000;
const DEFAULT_ATTEMPTS: u32 = 5;
const DEFAULT_START_WITHIN_MS: u64 = 300_000;

/// A scaling policy from its message, with everything that it leaves out filled in.
///
/// # Errors
/// Everything that is wrong with it.
pub fn scaling_policy_from_v1(from: &v1::ScalingPolicy) -> Result<ScalingPolicy, Vec<Violation>> {
    let mut check = Check::new();
    let policy = scaling_policy(&mut check, from);
    check.finish(policy)
}

/// The rules alone, for those who scale something that is no pool and no service: `utilization` adds a target for the load, of which a replica
/// serves 1,000 thousandths. What the message leaves out is as in `default`.
///
/// # Errors
/// Everything that is wrong with the rules.
pub fn scaling_rules(from: &v1::ScalingPolicy, default: &Policy) -> Result<Policy, Vec<Violation>> {
    let mut check = Check::new();
    let mut rules = rules(&mut check, from, default, None);
    if from.utilization_permille > 0 {
        let metric = Metric::Custom("load".to_owned());
        let aim = Aim::PerReplica { target_milli: from.utilization_permille.into() };
        rules.targets.retain(|target| target.metric != metric);
        rules.targets.push(Target { metric, aim });
    }
    check.finish(rules)
}

/// A target from its path.
///
/// # Errors
/// Where it is not one.
pub fn scaling_target_from_v1(path: &str) -> Result<ScalingTarget, Vec<Violation>> {
    let mut check = Check::new();
    let target = target(&mut check, path);
    check.finish(target)
}

/// A scaling policy as a message.
pub fn scaling_policy_to_v1(from: &ScalingPolicy) -> v1::ScalingPolicy {
    let rules = &from.rules;
    v1::ScalingPolicy {
        name: from.name.clone(),
        labels: from.labels.clone(),
        target: from.target.path(),
        min: Some(rules.min),
        max: Some(rules.max),
        targets: rules.targets.iter().map(aim_to_v1).collect(),
        utilization_permille: 0,
        tolerance_permille: Some(rules.tolerance_permille),
        scale_up: Some(behavior_to_v1(&rules.up)),
        scale_down: Some(behavior_to_v1(&rules.down)),
        activation: rules.activation.as_ref().map(|activation| v1::ScalingActivation {
            above_milli: activation
                .above_milli
                .iter()
                .map(|(name, milli)| (name.to_string(), *milli))
                .collect(),
            cooldown_ms: activation.cooldown_ms,
        }),
        predictive: rules.predictive.map(|predictive| v1::ScalingPredictive {
            miss_price_permille: predictive.miss_price_permille,
            fallback_utilization_permille: predictive.fallback_utilization_permille,
        }),
        floors: from
            .floors
            .iter()
            .map(|floor| v1::ScalingFloor {
                name: floor.name.clone(),
                rule: floor.rule.clone(),
                replicas: floor.replicas,
            })
            .collect(),
        provider: from.provider.as_ref().map(provider_to_v1),
        template: Some(template_to_v1(&from.template)),
        max_leaving: from.max_leaving,
        drain_ms: from.drain_ms,
        start_within_ms: from.start_within_ms,
        revision: from.changed.0,
        templates: from.templates.iter().map(node_template_to_v1).collect(),
        expander: from.expander.iter().map(|one| expander_to_v1(*one).into()).collect(),
    }
}

/// What a policy's target looks like now. O(nodes + intents).
pub fn scaling_status(from: &ScalingPolicy, ledger: &Ledger) -> v1::ScalingStatus {
    let fleet = ledger.fleet(from);
    let state = ledger.scaling(&from.name);
    let power = match &from.target {
        ScalingTarget::Pool(pool) => ledger.power(pool).unwrap_or_default(),
        ScalingTarget::Service(_) => Power::default(),
    };
    let after = |cooldown_ms: u64| {
        let changed = state.filter(|state| !state.changes.is_empty()).map(|state| state.changed_at);
        changed.map_or(0, |at| at.plus_ms(cooldown_ms).0)
    };
    let ahead = |until: u64| if until > ledger.clock().0 { until } else { 0 };
    v1::ScalingStatus {
        decision: state.map(|state| scaling_decision_to_v1(state, ledger)),
        present: fleet.present,
        ready: fleet.ready,
        busy: fleet.busy,
        starting: fleet.starting,
        leaving: fleet.leaving,
        power_committed_watts: power.committed,
        power_budget_watts: power.budget,
        up_after_time_ms: ahead(after(from.rules.up.cooldown_ms)),
        down_after_time_ms: ahead(after(from.rules.down.cooldown_ms)),
        intents: ledger.intents_of(&from.name).map(|intent| intent_to_v1(intent)).collect(),
    }
}

/// What a target wants, as a message. The ledger names the target.
pub fn scaling_decision_to_v1(from: &Scaling, ledger: &Ledger) -> v1::ScalingDecision {
    let target = ledger.scaling_policy(&from.policy).map(|policy| policy.target.path());
    let pin = from.pinned(ledger.clock());
    v1::ScalingDecision {
        policy: from.policy.clone(),
        target: target.unwrap_or_default(),
        desired: from.desired,
        computed_from: from.computed_from.0,
        rule: from.rule.clone(),
        inputs: from.inputs.clone(),
        change_time_ms: from.changed_at.0,
        pinned_to: pin.map(|pin| pin.to),
        pinned_until_time_ms: pin.map_or(0, |pin| pin.until.0),
        pinned_by: pin.map(|pin| pin.by.clone()).unwrap_or_default(),
        failures: from.failures,
        retry_time_ms: from.retry_at.0,
        revision: from.changed.0,
        resting: from
            .resting
            .iter()
            .map(|one| v1::RestingTemplate {
                template: one.template.clone(),
                failures: one.failures,
                retry_time_ms: one.retry_at.0,
            })
            .collect(),
    }
}

/// A machine that comes, is there, or goes, as a message.
pub fn intent_to_v1(from: &Intent) -> v1::ScalingIntent {
    let (action, other) = match from.action {
        IntentAction::Start { leaving } => (v1::IntentAction::Start, leaving.map_or(0, |by| by.0)),
        IntentAction::Remove { machine } => (v1::IntentAction::Remove, machine.0),
    };
    let state = match from.state {
        IntentState::Wanted => v1::IntentState::Wanted,
        IntentState::Acting => v1::IntentState::Acting,
        IntentState::Ready => v1::IntentState::Ready,
        IntentState::Failed => v1::IntentState::Failed,
    };
    v1::ScalingIntent {
        id: from.id.0,
        policy: from.policy.clone(),
        action: action.into(),
        state: state.into(),
        node: from.node.clone(),
        other,
        attempts: from.attempts,
        handle: from.handle.clone(),
        detail: from.detail.clone(),
        not_before_time_ms: from.not_before.0,
        deadline_time_ms: from.deadline.0,
        open_time_ms: from.opened_at.0,
        template: from.template.clone(),
    }
}

pub(super) fn scaling_policy(check: &mut Check, from: &v1::ScalingPolicy) -> ScalingPolicy {
    check.name("name", &from.name);
    if from.name.len() > MAX_SCALING_NAME_BYTES {
        check.fail(
            "name",
            format!("has {} characters, at most {MAX_SCALING_NAME_BYTES} are allowed", from.name.len()),
        );
    }
    let target = target(check, &from.target);
    let mut rules = rules(check, from, &Policy::default(), Some(&target));
    if from.utilization_permille > 0 {
        let used: &[&str] = match &target {
            ScalingTarget::Pool(_) => &USED_OF_POOLS,
            ScalingTarget::Service(_) => &["utilization"],
        };
        let aim = Aim::Average { target_milli: u64::from(from.utilization_permille) * 100 };
        rules.targets.extend(used.iter().map(|name| Target { metric: Metric::named(name), aim }));
    }
    let floors = check.each("floors", &from.floors, MAX_FLOORS, |check, from| floor(check, from, rules.max));
    let provider = from.provider.as_ref().map(|from| check.within("provider", |check| provider(check, from)));
    let template = from.template.clone().unwrap_or_default();
    let template = check.within("template", |check| work_template(check, &template, &target));
    let (templates, expander) = node_templates(check, from, &template, &target);
    if provider.is_some() {
        match &target {
            ScalingTarget::Pool(_) if template.resources.is_zero() && from.templates.is_empty() => {
                check.fail("template.resources", "is missing: what does a node of the provider offer?");
            }
            ScalingTarget::Service(_) if template.command.is_empty() => {
                check.fail("template.command", "is missing: what serves in a replica of the provider?");
            }
            ScalingTarget::Pool(_) | ScalingTarget::Service(_) => {}
        }
    }
    check.range_or_default("max_leaving", from.max_leaving.into(), 1, MAX_REPLICAS);
    check.range("drain_ms", from.drain_ms, 0, MAX_TTL_MS);
    if from.drain_ms > 0 && matches!(target, ScalingTarget::Service(_)) {
        check.fail("drain_ms", "is about nodes: a replica drains by itself when it is told to stop");
    }
    check.range_or_default("start_within_ms", from.start_within_ms, MIN_TTL_MS, MAX_TTL_MS);
    ScalingPolicy {
        name: from.name.clone(),
        labels: check.labels("labels", &from.labels),
        target,
        rules,
        floors,
        provider,
        template,
        templates,
        expander,
        max_leaving: from.max_leaving.max(1),
        drain_ms: from.drain_ms,
        start_within_ms: or(from.start_within_ms, DEFAULT_START_WITHIN_MS),
        changed: Revision(0),
    }
}

fn target(check: &mut Check, path: &str) -> ScalingTarget {
    let Some(target) = ScalingTarget::parse(path) else {
        let given = if path.is_empty() { "is missing".to_owned() } else { format!("{path:?} is none") };
        check.fail("target", format!("{given}: write pool/NAME or service/NAME"));
        return ScalingTarget::default();
    };
    let (ScalingTarget::Pool(name) | ScalingTarget::Service(name)) = &target;
    check.name("target", name);
    target
}

/// Bounds, metrics and behaviour. Without a target, metrics may have any name.
fn rules(
    check: &mut Check,
    from: &v1::ScalingPolicy,
    default: &Policy,
    target: Option<&ScalingTarget>,
) -> Policy {
    let (min, max) = (from.min.unwrap_or(default.min), from.max.unwrap_or(default.max));
    check.range("max", max, 0, MAX_REPLICAS);
    if min > max {
        check.fail("min", format!("is {min}, more than max {max}"));
    }
    let known: &[&str] = match target {
        Some(ScalingTarget::Pool(_)) => &OF_POOLS,
        Some(ScalingTarget::Service(_)) => &OF_SERVICES,
        None => &["load"],
    };
    let mut targets =
        check.each("targets", &from.targets, MAX_SCALING_RULES, |check, one| aim(check, one, known));
    if targets.is_empty() && target.is_none() {
        targets.clone_from(&default.targets);
    }
    check.range("utilization_permille", from.utilization_permille.into(), 0, MAX_SCALING_PERMILLE);
    let tolerance_permille = from.tolerance_permille.unwrap_or(default.tolerance_permille);
    check.range("tolerance_permille", tolerance_permille.into(), 0, MAX_SCALING_PERMILLE);
    let mut behavior = |field: &str, from: &Option<v1::ScalingBehavior>, default: &Behavior| match from {
        None => default.clone(),
        Some(from) => check.within(field, |check| behavior(check, from)),
    };
    let up = behavior("scale_up", &from.scale_up, &default.up);
    let down = behavior("scale_down", &from.scale_down, &default.down);
    let activation = from.activation.as_ref().map(|from| {
        check.range("activation.cooldown_ms", from.cooldown_ms, 0, MAX_TTL_MS);
        check.count("activation.above_milli", from.above_milli.len(), MAX_SCALING_RULES);
        for name in from.above_milli.keys() {
            metric(check, "activation.above_milli", name, known);
        }
        let above = from.above_milli.iter().map(|(name, milli)| (Metric::named(name), *milli));
        Activation { above_milli: above.collect(), cooldown_ms: from.cooldown_ms }
    });
    let capacity_milli = default.predictive.map_or(1_000, |predictive| predictive.capacity_milli);
    let predictive = from.predictive.map(|from| Predictive {
        capacity_milli,
        miss_price_permille: from.miss_price_permille,
        fallback_utilization_permille: match from.fallback_utilization_permille {
            0 => default.predictive.map_or(FALLBACK_PERMILLE, |known| known.fallback_utilization_permille),
            given => given,
        },
    });
    let predictive = predictive.or_else(|| default.predictive.filter(|_| target.is_none()));
    Policy { min, max, targets, tolerance_permille, up, down, activation, predictive }
}

fn metric(check: &mut Check, field: &str, name: &str, known: &[&str]) {
    let of_services = known.contains(&"utilization");
    let own = name.strip_prefix(OWN_METRIC).filter(|_| of_services);
    if own.is_some_and(|own| (1..=MAX_METRIC_BYTES).contains(&own.len())) || known.contains(&name) {
        return;
    }
    let more =
        if of_services { ", and custom/NAME of what endpoints report by names of their own" } else { "" };
    check.fail(field, format!("{name:?} is no metric here; there are: {}{more}", known.join(", ")));
}

fn aim(check: &mut Check, from: &v1::ScalingMetricTarget, known: &[&str]) -> Target {
    use v1::scaling_metric_target::Aim as From;
    metric(check, "metric", &from.metric, known);
    let in_time = from.metric == "wait_time";
    let mut positive = |field: &str, target_milli: u64| {
        check.range(field, target_milli, 1, MAX_AMOUNT);
        if in_time && !target_milli.is_multiple_of(1_000) {
            check.fail(field, format!("is {target_milli}: a time is in whole milliseconds"));
        }
        target_milli
    };
    let aim = match from.aim {
        Some(From::AverageMilli(milli)) => Aim::Average { target_milli: positive("average_milli", milli) },
        Some(From::PerReplicaMilli(milli)) => {
            Aim::PerReplica { target_milli: positive("per_replica_milli", milli) }
        }
        Some(From::ValueMilli(milli)) => Aim::Value { target_milli: positive("value_milli", milli) },
        Some(From::Thresholds(v1::ScalingThresholds { above_milli, below_milli, increment, decrement })) => {
            if below_milli > above_milli {
                check.fail(
                    "thresholds.below_milli",
                    format!("is {below_milli}, above above_milli {above_milli}"),
                );
            }
            check.range_or_default("thresholds.increment", increment, 1, MAX_REPLICAS);
            check.range_or_default("thresholds.decrement", decrement, 1, MAX_REPLICAS);
            let (increment, decrement) = (increment.max(1), decrement.max(1));
            Aim::Thresholds { above_milli, below_milli, increment, decrement }
        }
        None => {
            check.fail("aim", "is missing: give average_milli, per_replica_milli, value_milli or thresholds");
            Aim::Value { target_milli: 1 }
        }
    };
    Target { metric: Metric::named(&from.metric), aim }
}

fn behavior(check: &mut Check, from: &v1::ScalingBehavior) -> Behavior {
    use v1::scaling_rate::Amount as From;
    check.range("stabilization_ms", from.stabilization_ms, 0, MAX_TTL_MS);
    check.range("cooldown_ms", from.cooldown_ms, 0, MAX_TTL_MS);
    let select = match v1::ScalingSelect::try_from(from.select) {
        Ok(v1::ScalingSelect::Unspecified | v1::ScalingSelect::Max) => Select::Max,
        Ok(v1::ScalingSelect::Min) => Select::Min,
        Ok(v1::ScalingSelect::Disabled) => Select::Disabled,
        Err(_) => {
            check.fail("select", format!("{} is not max, min or disabled", from.select));
            Select::Max
        }
    };
    let policies = check.each("policies", &from.policies, MAX_SCALING_RULES, |check, from| {
        check.range("period_ms", from.period_ms, 1, MAX_TTL_MS);
        let amount = match from.amount {
            Some(From::Replicas(replicas)) => Amount::Replicas(replicas),
            Some(From::Percent(percent)) => Amount::Percent(percent),
            None => {
                check.fail("amount", "is missing: give replicas or percent");
                Amount::Replicas(0)
            }
        };
        RatePolicy { amount, period_ms: from.period_ms }
    });
    Behavior { stabilization_ms: from.stabilization_ms, cooldown_ms: from.cooldown_ms, select, policies }
}

fn floor(check: &mut Check, from: &v1::ScalingFloor, max: u64) -> ScalingFloor {
    check.text("name", &from.name, MAX_SCALING_TEXT);
    if from.name.is_empty() {
        check.fail("name", "is missing");
    }
    check.text("rule", &from.rule, MAX_RULE_BYTES);
    let rule = from.rule.parse::<Recurrence>().map(|rule| rule.to_string()).unwrap_or_else(|error| {
        check.fail("rule", error.to_string());
        String::new()
    });
    if from.replicas > max {
        check.fail("replicas", format!("is {}, more than max {max}", from.replicas));
    }
    ScalingFloor { name: from.name.clone(), rule, replicas: from.replicas }
}

fn provider(check: &mut Check, from: &v1::ScalingProvider) -> Provider {
    use v1::scaling_provider::Kind;
    check.range_or_default("timeout_ms", from.timeout_ms, MIN_TTL_MS, MAX_PROVIDER_TIMEOUT_MS);
    check.range_or_default("attempts", from.attempts.into(), 1, MAX_PROVIDER_ATTEMPTS);
    let kind = match &from.kind {
        Some(Kind::Process(v1::ProcessProvider {})) => ProviderKind::Process,
        Some(Kind::Exec(v1::ExecProvider { command, args })) => {
            check.text("exec.command", command, MAX_SCALING_TEXT);
            // The folder is the coordinators' own: whoever may put a policy may not run what he likes.
            if !plimsoll_ledger::is_program_name(command) {
                check.fail("exec.command", format!("{command:?} is not the plain name of a program"));
            }
            check.count("exec.args", args.len(), MAX_ITEMS);
            args.iter().take(MAX_ITEMS).for_each(|arg| check.text("exec.args", arg, MAX_SCALING_TEXT));
            ProviderKind::Exec { command: command.clone(), args: args.clone() }
        }
        Some(Kind::Webhook(v1::WebhookProvider { url })) => {
            check.text("webhook.url", url, MAX_SCALING_TEXT);
            let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
            if host.is_none_or(|host| plimsoll_ledger::host_and_port(host).is_none()) {
                check.fail("webhook.url", format!("{url:?} is not http://host:port/path"));
            }
            ProviderKind::Webhook { url: url.clone() }
        }
        Some(Kind::ExternalGrpc(v1::ExternalGrpcProvider { address, group })) => {
            check.text("external_grpc.group", group, MAX_SCALING_TEXT);
            if group.is_empty() {
                check.fail("external_grpc.group", "is missing");
            }
            if plimsoll_ledger::host_and_port(address).is_none() {
                check.fail("external_grpc.address", format!("{address:?} is not host:port"));
            }
            ProviderKind::ExternalGrpc { address: address.clone(), group: group.clone() }
        }
        None => {
            check.fail("kind", "is missing: give process, exec, webhook or external_grpc");
            ProviderKind::Process
        }
    };
    let attempts = if from.attempts == 0 { DEFAULT_ATTEMPTS } else { from.attempts };
    Provider { kind, timeout_ms: or(from.timeout_ms, DEFAULT_TIMEOUT_MS), attempts }
}

fn work_template(check: &mut Check, from: &v1::ScalingTemplate, target: &ScalingTarget) -> WorkTemplate {
    let given = from.resources.clone().unwrap_or_default();
    let resources = check.within("resources", |check| resources::resources(check, &given));
    let labels = check.labels("labels", &from.labels);
    let devices = check.each("devices", &from.devices, MAX_DEVICES, |check, from| {
        check.text("model", &from.model, MAX_DEVICE_TEXT_BYTES);
        check.range("memory_bytes", from.memory_bytes, 1, MAX_AMOUNT);
        check.range("count", from.count.into(), 1, MAX_DEVICES as u64);
        let (model, memory_bytes, count) = (from.model.to_lowercase(), from.memory_bytes, from.count);
        TemplateDevice { model, memory_bytes, count }
    });
    check.count("command", from.command.len(), MAX_ITEMS);
    let is_pool = matches!(target, ScalingTarget::Pool(_));
    if is_pool && !from.command.is_empty() {
        check.fail("command", "is of replicas: a node runs an agent");
    }
    if !is_pool && (!labels.is_empty() || !devices.is_empty()) {
        check.fail("", "has labels or devices of a node: a replica has resources and a command");
    }
    WorkTemplate { resources, labels, devices, command: from.command.clone() }
}

/// The several templates, and by what one of them is picked.
fn node_templates(
    check: &mut Check,
    from: &v1::ScalingPolicy,
    one: &WorkTemplate,
    target: &ScalingTarget,
) -> (Vec<NodeTemplate>, Vec<Expander>) {
    let several = &from.templates;
    if !several.is_empty() && *one != WorkTemplate::default() {
        check.fail("templates", "stand instead of the one template: give one of the two");
    }
    if !several.is_empty() && matches!(target, ScalingTarget::Service(_)) {
        check.fail("templates", "are of nodes: a replica has the one template");
    }
    let templates =
        check.each("templates", several, MAX_TEMPLATES, |check, from| node_template(check, from, target));
    for (index, template) in templates.iter().enumerate() {
        if templates.iter().take(index).any(|other| other.name == template.name) {
            check.fail(&format!("templates[{index}].name"), format!("{:?} is there twice", template.name));
        }
    }
    if let Some(v1::scaling_provider::Kind::ExternalGrpc(grpc)) =
        from.provider.as_ref().and_then(|provider| provider.kind.as_ref())
        && !several.is_empty()
        && !grpc.group.contains(TEMPLATE_IN_GROUP)
    {
        let why = format!("needs {TEMPLATE_IN_GROUP} in it: a node group has nodes of one template");
        check.fail("provider.external_grpc.group", why);
    }
    if several.is_empty() && !from.expander.is_empty() {
        check.fail("expander", "picks one of several templates, and there are none");
    }
    let mut expander: Vec<Expander> = Vec::new();
    for (index, number) in from.expander.iter().enumerate() {
        let field = format!("expander[{index}]");
        let names = Expander::NAMED.map(|(name, _)| name).join(", ");
        match expander_from_v1(*number) {
            Some(known) if expander.contains(&known) => {
                check.fail(&field, format!("{} is there twice", known.name()));
            }
            Some(known) => expander.push(known),
            None => check.fail(&field, format!("{number} is none of {names}")),
        }
    }
    (templates, expander)
}

fn node_template(check: &mut Check, from: &v1::NodeTemplate, target: &ScalingTarget) -> NodeTemplate {
    check.name("name", &from.name);
    if from.name.len() > MAX_SCALING_NAME_BYTES {
        let many = from.name.len();
        check.fail("name", format!("has {many} characters, at most {MAX_SCALING_NAME_BYTES} are allowed"));
    }
    let given = from.offers.clone().unwrap_or_default();
    let offers = check.within("offers", |check| work_template(check, &given, target));
    if offers.resources.is_zero() {
        check.fail("offers.resources", "is missing: what does a node of this template offer?");
    }
    let known = CapacityType::NAMED.iter().find(|(name, _)| *name == from.capacity_type);
    if known.is_none() && !from.capacity_type.is_empty() {
        let names = CapacityType::NAMED.map(|(name, _)| name).join(", ");
        check.fail("capacity_type", format!("{:?} is none of {names}", from.capacity_type));
    }
    check.range("price_permille", from.price_permille.into(), 0, MAX_PRICE_PERMILLE.into());
    check.text("spot_pool", &from.spot_pool, MAX_SCALING_TEXT);
    check.range("watts", from.watts, 0, MAX_AMOUNT);
    if from.watts > 0 && offers.resources.get(plimsoll_ledger::POWER).0 > 0 {
        check.fail("watts", "and the resource power say the same: give one of the two");
    }
    let own = NodeTemplate {
        name: from.name.clone(),
        offers: WorkTemplate::default(),
        capacity_type: known.map(|(_, kind)| *kind),
        price_permille: from.price_permille,
        spot_pool: from.spot_pool.clone(),
        watts: from.watts,
        priority: from.priority,
        max: from.max,
    };
    for key in own.machine().labels.keys().filter(|key| offers.labels.contains_key(*key)) {
        check.fail("offers.labels", format!("{key} is said by its own key too: give one of the two"));
    }
    NodeTemplate { offers, ..own }
}

fn expander_to_v1(from: Expander) -> v1::ScalingExpander {
    match from {
        Expander::LeastWaste => v1::ScalingExpander::LeastWaste,
        Expander::Price => v1::ScalingExpander::Price,
        Expander::Priority => v1::ScalingExpander::Priority,
    }
}

fn expander_from_v1(from: i32) -> Option<Expander> {
    match v1::ScalingExpander::try_from(from).ok()? {
        v1::ScalingExpander::Unspecified => None,
        v1::ScalingExpander::LeastWaste => Some(Expander::LeastWaste),
        v1::ScalingExpander::Price => Some(Expander::Price),
        v1::ScalingExpander::Priority => Some(Expander::Priority),
    }
}

fn node_template_to_v1(from: &NodeTemplate) -> v1::NodeTemplate {
    v1::NodeTemplate {
        name: from.name.clone(),
        offers: Some(template_to_v1(&from.offers)),
        capacity_type: from.capacity_type.map_or("", CapacityType::name).to_owned(),
        price_permille: from.price_permille,
        spot_pool: from.spot_pool.clone(),
        watts: from.watts,
        priority: from.priority,
        max: from.max,
    }
}

fn aim_to_v1(from: &Target) -> v1::ScalingMetricTarget {
    use v1::scaling_metric_target::Aim as To;
    let aim = match from.aim {
        Aim::Average { target_milli } => To::AverageMilli(target_milli),
        Aim::PerReplica { target_milli } => To::PerReplicaMilli(target_milli),
        Aim::Value { target_milli } => To::ValueMilli(target_milli),
        Aim::Thresholds { above_milli, below_milli, increment, decrement } => {
            To::Thresholds(v1::ScalingThresholds { above_milli, below_milli, increment, decrement })
        }
    };
    v1::ScalingMetricTarget { metric: from.metric.to_string(), aim: Some(aim) }
}

fn behavior_to_v1(from: &Behavior) -> v1::ScalingBehavior {
    use v1::scaling_rate::Amount as To;
    let rate = |rate: &RatePolicy| v1::ScalingRate {
        amount: Some(match rate.amount {
            Amount::Replicas(replicas) => To::Replicas(replicas),
            Amount::Percent(percent) => To::Percent(percent),
        }),
        period_ms: rate.period_ms,
    };
    let select = match from.select {
        Select::Max => v1::ScalingSelect::Max,
        Select::Min => v1::ScalingSelect::Min,
        Select::Disabled => v1::ScalingSelect::Disabled,
    };
    v1::ScalingBehavior {
        stabilization_ms: from.stabilization_ms,
        cooldown_ms: from.cooldown_ms,
        select: select.into(),
        policies: from.policies.iter().map(rate).collect(),
    }
}

fn provider_to_v1(from: &Provider) -> v1::ScalingProvider {
    use v1::scaling_provider::Kind;
    let kind = match &from.kind {
        ProviderKind::Process => Kind::Process(v1::ProcessProvider {}),
        ProviderKind::Exec { command, args } => {
            Kind::Exec(v1::ExecProvider { command: command.clone(), args: args.clone() })
        }
        ProviderKind::Webhook { url } => Kind::Webhook(v1::WebhookProvider { url: url.clone() }),
        ProviderKind::ExternalGrpc { address, group } => {
            Kind::ExternalGrpc(v1::ExternalGrpcProvider { address: address.clone(), group: group.clone() })
        }
    };
    v1::ScalingProvider { kind: Some(kind), timeout_ms: from.timeout_ms, attempts: from.attempts }
}

fn template_to_v1(from: &WorkTemplate) -> v1::ScalingTemplate {
    let device = |device: &TemplateDevice| v1::TemplateDevice {
        model: device.model.clone(),
        memory_bytes: device.memory_bytes,
        count: device.count,
    };
    v1::ScalingTemplate {
        resources: Some(resources_to_v1(&from.resources)),
        labels: BTreeMap::clone(&from.labels),
        devices: from.devices.iter().map(device).collect(),
        command: from.command.clone(),
    }
}

fn or(given: u64, default: u64) -> u64 {
    if given == 0 { default } else { given }
}
