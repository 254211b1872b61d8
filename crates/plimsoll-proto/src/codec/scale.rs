//! Scaling policies, what their targets want and the machines that come and go, into their stored forms and back.

use plimsoll_autoscaler::{
    Activation, Aim, Amount, Behavior, Expander, Metric, Policy, Predictive, RatePolicy, Select, Target,
};
use plimsoll_ledger::{
    Command, Intent, IntentAction, IntentState, IntentStep, NodeTemplate, Pin, Provider, ProviderKind,
    Resting, ScaleChange, ScaleDecided, Scaling, ScalingFloor, ScalingPolicy, ScalingTarget, TemplateDevice,
    WorkTemplate,
};
use plimsoll_types::{LedgerTime, Revision};

use super::{CodecError, decode, encode, names, spot};
use crate::log;

pub(super) fn encode(policy: &ScalingPolicy) -> log::ScalingPolicy {
    let rules = &policy.rules;
    log::ScalingPolicy {
        name: policy.name.clone(),
        labels: encode::labels(&policy.labels),
        target: policy.target.path(),
        min: rules.min,
        max: rules.max,
        targets: rules.targets.iter().map(encode_aim).collect(),
        tolerance_permille: rules.tolerance_permille,
        up: Some(encode_behavior(&rules.up)),
        down: Some(encode_behavior(&rules.down)),
        activation: rules.activation.as_ref().map(|activation| log::ScalingActivation {
            above: activation.above_milli.iter().map(encode_limit).collect(),
            cooldown_ms: activation.cooldown_ms,
        }),
        predictive: rules.predictive.map(|predictive| log::ScalingPredictive {
            capacity_milli: predictive.capacity_milli,
            miss_price_permille: predictive.miss_price_permille,
            fallback_utilization_permille: predictive.fallback_utilization_permille,
        }),
        floors: policy.floors.iter().map(encode_floor).collect(),
        provider: policy.provider.as_ref().map(encode_provider),
        template: Some(encode_template(&policy.template)),
        max_leaving: policy.max_leaving,
        drain_ms: policy.drain_ms,
        start_within_ms: policy.start_within_ms,
        changed: policy.changed.0,
        templates: policy.templates.iter().map(encode_node_template).collect(),
        expander: policy.expander.iter().map(|one| encode_expander(*one)).collect(),
    }
}

pub(super) fn decode(from: log::ScalingPolicy) -> Result<ScalingPolicy, CodecError> {
    let activation = from.activation.map(|activation| Activation {
        above_milli: activation
            .above
            .into_iter()
            .map(|limit| (Metric::named(&limit.metric), limit.milli))
            .collect(),
        cooldown_ms: activation.cooldown_ms,
    });
    let rules = Policy {
        min: from.min,
        max: from.max,
        targets: decode::all(from.targets, decode_aim)?,
        tolerance_permille: from.tolerance_permille,
        up: decode_behavior(decode::need(from.up, "scaling.up")?)?,
        down: decode_behavior(decode::need(from.down, "scaling.down")?)?,
        activation,
        predictive: from.predictive.map(|predictive| Predictive {
            capacity_milli: predictive.capacity_milli,
            miss_price_permille: predictive.miss_price_permille,
            fallback_utilization_permille: predictive.fallback_utilization_permille,
        }),
    };
    Ok(ScalingPolicy {
        name: from.name,
        labels: decode::labels(from.labels)?,
        target: decode_target(&from.target)?,
        rules,
        floors: from.floors.into_iter().map(decode_floor).collect(),
        provider: from.provider.map(decode_provider).transpose()?,
        template: decode_template(decode::need(from.template, "scaling.template")?)?,
        max_leaving: from.max_leaving,
        drain_ms: from.drain_ms,
        start_within_ms: from.start_within_ms,
        changed: Revision(from.changed),
        templates: decode::all(from.templates, decode_node_template)?,
        expander: decode::all(from.expander, decode_expander)?,
    })
}

pub(super) fn encode_state(state: &Scaling) -> log::Scaling {
    log::Scaling {
        policy: state.policy.clone(),
        desired: state.desired,
        computed_from: state.computed_from.0,
        rule: state.rule.clone(),
        inputs: state.inputs.clone(),
        changed_at_ms: state.changed_at.0,
        reversed_at_ms: state.reversed_at.0,
        changes: state.changes.iter().map(|one| log::ScaleChange { at_ms: one.at.0, by: one.by }).collect(),
        pin: state.pin.as_ref().map(|pin| log::ScalePin {
            to: pin.to,
            until_ms: pin.until.0,
            by: pin.by.clone(),
        }),
        failures: state.failures,
        retry_at_ms: state.retry_at.0,
        changed: state.changed.0,
        resting: state.resting.iter().map(encode_resting).collect(),
    }
}

pub(super) fn decode_state(from: log::Scaling) -> Scaling {
    let change = |one: log::ScaleChange| ScaleChange { at: LedgerTime(one.at_ms), by: one.by };
    Scaling {
        policy: from.policy,
        desired: from.desired,
        computed_from: Revision(from.computed_from),
        rule: from.rule,
        inputs: from.inputs,
        changed_at: LedgerTime(from.changed_at_ms),
        reversed_at: LedgerTime(from.reversed_at_ms),
        changes: from.changes.into_iter().map(change).collect(),
        pin: from.pin.map(|pin| Pin { to: pin.to, until: LedgerTime(pin.until_ms), by: pin.by }),
        failures: from.failures,
        retry_at: LedgerTime(from.retry_at_ms),
        changed: Revision(from.changed),
        resting: from.resting.into_iter().map(decode_resting).collect(),
    }
}

pub(super) fn encode_intent(intent: &Intent) -> log::Intent {
    use log::intent::Action;
    log::Intent {
        id: intent.id.0,
        policy: intent.policy.clone(),
        action: Some(match intent.action {
            IntentAction::Start { leaving } => Action::Start(leaving.map_or(0, |by| by.0)),
            IntentAction::Remove { machine } => Action::Remove(machine.0),
        }),
        node: intent.node.clone(),
        state: names::encode_intent_state(intent.state),
        attempts: intent.attempts,
        handle: intent.handle.clone(),
        detail: intent.detail.clone(),
        not_before_ms: intent.not_before.0,
        deadline_ms: intent.deadline.0,
        opened_at_ms: intent.opened_at.0,
        changed: intent.changed.0,
        template: intent.template.clone(),
    }
}

pub(super) fn decode_intent(from: log::Intent) -> Result<Intent, CodecError> {
    use log::intent::Action;
    let state: IntentState = names::decode_intent_state(from.state)?;
    Ok(Intent {
        id: Revision(from.id),
        policy: from.policy,
        action: match from.action.ok_or(CodecError::UnknownKind { what: "intent" })? {
            Action::Start(by) => IntentAction::Start { leaving: (by > 0).then_some(Revision(by)) },
            Action::Remove(machine) => IntentAction::Remove { machine: Revision(machine) },
        },
        node: from.node,
        state,
        attempts: from.attempts,
        handle: from.handle,
        detail: from.detail,
        not_before: LedgerTime(from.not_before_ms),
        deadline: LedgerTime(from.deadline_ms),
        opened_at: LedgerTime(from.opened_at_ms),
        changed: Revision(from.changed),
        template: from.template,
    })
}

pub(super) fn encode_desired(decided: &ScaleDecided) -> log::SetDesired {
    log::SetDesired {
        policy: decided.policy.clone(),
        desired: decided.desired,
        computed_from: decided.computed_from.0,
        rule: decided.rule.clone(),
        inputs: decided.inputs.clone(),
    }
}

pub(super) fn encode_pin(target: &ScalingTarget, to: Option<u64>, for_ms: u64) -> log::PinScale {
    use log::pin_scale::Word;
    let word = to.map_or(Word::Unpin(true), Word::To);
    log::PinScale { target: target.path(), word: Some(word), for_ms }
}

pub(super) fn encode_open(policy: &str, machine: Option<Revision>, template: &str) -> log::OpenIntent {
    let machine = machine.map_or(0, |machine| machine.0);
    log::OpenIntent { policy: policy.to_owned(), machine, template: template.to_owned() }
}

pub(super) fn encode_step(intent: Revision, attempts: u32, step: &IntentStep) -> log::StepIntent {
    use log::step_intent::Step;
    let step = match step {
        IntentStep::Act => Step::Act(log::IntentAct {}),
        IntentStep::Answered { handle, node } => {
            Step::Answered(log::IntentAnswered { handle: handle.clone(), node: node.clone() })
        }
        IntentStep::Later { detail, after_ms } => {
            Step::Later(log::IntentLater { detail: detail.clone(), after_ms: *after_ms })
        }
        IntentStep::Ready => Step::Ready(log::IntentReady {}),
        IntentStep::Failed { detail } => Step::Failed(log::IntentFailed { detail: detail.clone() }),
    };
    log::StepIntent { intent: intent.0, attempts, step: Some(step) }
}

pub(super) fn decode_desired(from: log::SetDesired) -> Command {
    Command::SetDesired(ScaleDecided {
        policy: from.policy,
        desired: from.desired,
        computed_from: Revision(from.computed_from),
        rule: from.rule,
        inputs: from.inputs,
    })
}

pub(super) fn decode_pin(from: log::PinScale) -> Result<Command, CodecError> {
    use log::pin_scale::Word;
    let to = match from.word.ok_or(CodecError::UnknownKind { what: "word on scaling" })? {
        Word::To(to) => Some(to),
        Word::Unpin(true) => None,
        Word::Unpin(false) => return Err(CodecError::NotCanonical { what: "word on scaling" }),
    };
    Ok(Command::PinScale { target: decode_target(&from.target)?, to, for_ms: from.for_ms })
}

pub(super) fn decode_open(from: log::OpenIntent) -> Command {
    let machine = (from.machine > 0).then_some(Revision(from.machine));
    Command::OpenIntent { policy: from.policy, machine, template: from.template }
}

pub(super) fn decode_step(from: log::StepIntent) -> Result<Command, CodecError> {
    use log::step_intent::Step;
    let step = match from.step.ok_or(CodecError::UnknownKind { what: "step of an intent" })? {
        Step::Act(log::IntentAct {}) => IntentStep::Act,
        Step::Answered(log::IntentAnswered { handle, node }) => IntentStep::Answered { handle, node },
        Step::Later(log::IntentLater { detail, after_ms }) => IntentStep::Later { detail, after_ms },
        Step::Ready(log::IntentReady {}) => IntentStep::Ready,
        Step::Failed(log::IntentFailed { detail }) => IntentStep::Failed { detail },
    };
    Ok(Command::StepIntent { intent: Revision(from.intent), attempts: from.attempts, step })
}

fn decode_target(path: &str) -> Result<ScalingTarget, CodecError> {
    ScalingTarget::parse(path).ok_or(CodecError::UnknownKind { what: "target of scaling" })
}

fn encode_aim(target: &Target) -> log::ScalingAim {
    use log::scaling_aim::Aim as To;
    let aim = match target.aim {
        Aim::Average { target_milli } => To::AverageMilli(target_milli),
        Aim::PerReplica { target_milli } => To::PerReplicaMilli(target_milli),
        Aim::Value { target_milli } => To::ValueMilli(target_milli),
        Aim::Thresholds { above_milli, below_milli, increment, decrement } => {
            To::Thresholds(log::ScalingThresholds { above_milli, below_milli, increment, decrement })
        }
    };
    log::ScalingAim { metric: target.metric.to_string(), aim: Some(aim) }
}

fn decode_aim(from: log::ScalingAim) -> Result<Target, CodecError> {
    use log::scaling_aim::Aim as From;
    let aim = match from.aim.ok_or(CodecError::UnknownKind { what: "aim of scaling" })? {
        From::AverageMilli(target_milli) => Aim::Average { target_milli },
        From::PerReplicaMilli(target_milli) => Aim::PerReplica { target_milli },
        From::ValueMilli(target_milli) => Aim::Value { target_milli },
        From::Thresholds(log::ScalingThresholds { above_milli, below_milli, increment, decrement }) => {
            Aim::Thresholds { above_milli, below_milli, increment, decrement }
        }
    };
    Ok(Target { metric: Metric::named(&from.metric), aim })
}

fn encode_behavior(behavior: &Behavior) -> log::ScalingBehavior {
    use log::scaling_rate::Amount as To;
    let rate = |policy: &RatePolicy| log::ScalingRate {
        amount: Some(match policy.amount {
            Amount::Replicas(replicas) => To::Replicas(replicas),
            Amount::Percent(percent) => To::Percent(percent),
        }),
        period_ms: policy.period_ms,
    };
    let select = match behavior.select {
        Select::Max => log::ScalingSelect::Max,
        Select::Min => log::ScalingSelect::Min,
        Select::Disabled => log::ScalingSelect::Disabled,
    };
    log::ScalingBehavior {
        stabilization_ms: behavior.stabilization_ms,
        cooldown_ms: behavior.cooldown_ms,
        select: select.into(),
        policies: behavior.policies.iter().map(rate).collect(),
    }
}

fn decode_behavior(from: log::ScalingBehavior) -> Result<Behavior, CodecError> {
    use log::scaling_rate::Amount as From;
    let select = match log::ScalingSelect::try_from(from.select) {
        Ok(log::ScalingSelect::Max) => Select::Max,
        Ok(log::ScalingSelect::Min) => Select::Min,
        Ok(log::ScalingSelect::Disabled) => Select::Disabled,
        Ok(log::ScalingSelect::Unspecified) | Err(_) => {
            return Err(CodecError::UnknownValue { field: "select of scaling", value: from.select });
        }
    };
    let rate = |rate: log::ScalingRate| {
        let amount = match rate.amount.ok_or(CodecError::UnknownKind { what: "rate of scaling" })? {
            From::Replicas(replicas) => Amount::Replicas(replicas),
            From::Percent(percent) => Amount::Percent(percent),
        };
        Ok(RatePolicy { amount, period_ms: rate.period_ms })
    };
    Ok(Behavior {
        stabilization_ms: from.stabilization_ms,
        cooldown_ms: from.cooldown_ms,
        select,
        policies: decode::all(from.policies, rate)?,
    })
}

fn encode_limit((metric, milli): &(Metric, u64)) -> log::ScalingLimit {
    log::ScalingLimit { metric: metric.to_string(), milli: *milli }
}

fn encode_floor(floor: &ScalingFloor) -> log::ScalingFloor {
    log::ScalingFloor { name: floor.name.clone(), rule: floor.rule.clone(), replicas: floor.replicas }
}

fn decode_floor(from: log::ScalingFloor) -> ScalingFloor {
    ScalingFloor { name: from.name, rule: from.rule, replicas: from.replicas }
}

fn encode_provider(provider: &Provider) -> log::ScalingProvider {
    use log::scaling_provider::Kind;
    let kind = match &provider.kind {
        ProviderKind::Process => Kind::Process(log::ProcessProvider {}),
        ProviderKind::Exec { command, args } => {
            Kind::Exec(log::ExecProvider { command: command.clone(), args: args.clone() })
        }
        ProviderKind::Webhook { url } => Kind::Webhook(log::WebhookProvider { url: url.clone() }),
        ProviderKind::ExternalGrpc { address, group } => {
            Kind::ExternalGrpc(log::ExternalGrpcProvider { address: address.clone(), group: group.clone() })
        }
    };
    log::ScalingProvider { kind: Some(kind), timeout_ms: provider.timeout_ms, attempts: provider.attempts }
}

fn decode_provider(from: log::ScalingProvider) -> Result<Provider, CodecError> {
    use log::scaling_provider::Kind;
    let kind = match from.kind.ok_or(CodecError::UnknownKind { what: "provider of scaling" })? {
        Kind::Process(log::ProcessProvider {}) => ProviderKind::Process,
        Kind::Exec(log::ExecProvider { command, args }) => ProviderKind::Exec { command, args },
        Kind::Webhook(log::WebhookProvider { url }) => ProviderKind::Webhook { url },
        Kind::ExternalGrpc(log::ExternalGrpcProvider { address, group }) => {
            ProviderKind::ExternalGrpc { address, group }
        }
    };
    Ok(Provider { kind, timeout_ms: from.timeout_ms, attempts: from.attempts })
}

fn encode_template(template: &WorkTemplate) -> log::WorkTemplate {
    let device = |device: &TemplateDevice| log::TemplateDevice {
        model: device.model.clone(),
        memory_bytes: device.memory_bytes,
        count: device.count,
    };
    log::WorkTemplate {
        resources: Some(encode::resources(&template.resources)),
        labels: encode::labels(&template.labels),
        devices: template.devices.iter().map(device).collect(),
        command: template.command.clone(),
    }
}

fn encode_node_template(template: &NodeTemplate) -> log::NodeTemplate {
    log::NodeTemplate {
        name: template.name.clone(),
        offers: Some(encode_template(&template.offers)),
        capacity_type: template.capacity_type.map_or(0, spot::encode_capacity),
        price_permille: template.price_permille,
        spot_pool: template.spot_pool.clone(),
        watts: template.watts,
        priority: template.priority,
        max: template.max,
    }
}

fn decode_node_template(from: log::NodeTemplate) -> Result<NodeTemplate, CodecError> {
    let kind = (from.capacity_type != 0).then(|| spot::decode_capacity(from.capacity_type));
    Ok(NodeTemplate {
        name: from.name,
        offers: decode_template(decode::need(from.offers, "scaling.templates.offers")?)?,
        capacity_type: kind.transpose()?,
        price_permille: from.price_permille,
        spot_pool: from.spot_pool,
        watts: from.watts,
        priority: from.priority,
        max: from.max,
    })
}

fn encode_expander(expander: Expander) -> i32 {
    let to = match expander {
        Expander::LeastWaste => log::ScalingExpander::LeastWaste,
        Expander::Price => log::ScalingExpander::Price,
        Expander::Priority => log::ScalingExpander::Priority,
    };
    to.into()
}

fn decode_expander(from: i32) -> Result<Expander, CodecError> {
    match log::ScalingExpander::try_from(from) {
        Ok(log::ScalingExpander::LeastWaste) => Ok(Expander::LeastWaste),
        Ok(log::ScalingExpander::Price) => Ok(Expander::Price),
        Ok(log::ScalingExpander::Priority) => Ok(Expander::Priority),
        Ok(log::ScalingExpander::Unspecified) | Err(_) => {
            Err(CodecError::UnknownValue { field: "expander of scaling", value: from })
        }
    }
}

fn encode_resting(resting: &Resting) -> log::RestingTemplate {
    log::RestingTemplate {
        template: resting.template.clone(),
        failures: resting.failures,
        retry_at_ms: resting.retry_at.0,
    }
}

fn decode_resting(from: log::RestingTemplate) -> Resting {
    Resting { template: from.template, failures: from.failures, retry_at: LedgerTime(from.retry_at_ms) }
}

fn decode_template(from: log::WorkTemplate) -> Result<WorkTemplate, CodecError> {
    let device = |device: log::TemplateDevice| TemplateDevice {
        model: device.model,
        memory_bytes: device.memory_bytes,
        count: device.count,
    };
    Ok(WorkTemplate {
        resources: decode::resources(from.resources)?,
        labels: decode::labels(from.labels)?,
        devices: from.devices.into_iter().map(device).collect(),
        command: from.command,
    })
}
