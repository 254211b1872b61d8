//! `kind: ScalingPolicy`: how many machines a pool or replicas a service has, between which bounds, and who starts and stops them.

use plimsoll_autoscaler::{Aim, Behavior, Expander, Metric, Policy};
use plimsoll_types::{Labels, Resources, Revision};

use super::NodeTemplate;
use super::template::template_bounds;
use crate::limits::{
    MAX_DEVICES, MAX_FLOORS, MAX_ITEMS, MAX_PROVIDER_ATTEMPTS, MAX_PROVIDER_TIMEOUT_MS, MAX_REPLICAS,
    MAX_RULE_BYTES, MAX_SCALING_NAME_BYTES, MAX_SCALING_PERMILLE, MAX_SCALING_RULES, MAX_SCALING_TEXT,
    MAX_TTL_MS, MIN_TTL_MS,
};

/// What is scaled. Pools and services of the same name are two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScalingTarget {
    /// The number of nodes of a pool.
    Pool(String),
    /// The number of replicas of a service.
    Service(String),
}

impl ScalingTarget {
    /// As files write it: `pool/gpu`.
    pub fn path(&self) -> String {
        match self {
            ScalingTarget::Pool(name) => format!("pool/{name}"),
            ScalingTarget::Service(name) => format!("service/{name}"),
        }
    }

    /// True for this service's replicas.
    pub fn is_service(&self, name: &str) -> bool {
        matches!(self, ScalingTarget::Service(of) if of == name)
    }

    /// What [`ScalingTarget::path`] wrote.
    pub fn parse(path: &str) -> Option<ScalingTarget> {
        match path.split_once('/')? {
            ("pool", name) => Some(ScalingTarget::Pool(name.to_owned())),
            ("service", name) => Some(ScalingTarget::Service(name.to_owned())),
            _ => None,
        }
    }
}

impl Default for ScalingTarget {
    fn default() -> ScalingTarget {
        ScalingTarget::Pool(String::new())
    }
}

/// How one pool or service is scaled, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalingPolicy {
    /// Unique name.
    pub name: String,
    /// Labels of the policy itself.
    pub labels: Labels,
    /// What it scales. One policy per target.
    pub target: ScalingTarget,
    /// Bounds, metrics and behaviour: what the decision goes by.
    pub rules: Policy,
    /// Floors by the clock.
    pub floors: Vec<ScalingFloor>,
    /// Who starts and stops machines; `None` where somebody else looks at what is wanted and acts.
    pub provider: Option<Provider>,
    /// What a new node offers, or a new replica is given. Declared, never learned from a node that is there.
    pub template: WorkTemplate,
    /// Several kinds of nodes, instead of the one; in the order of the file. From ledger version 12 on.
    pub templates: Vec<NodeTemplate>,
    /// Which of those that would do is bought: the first rule, then the next where it leaves several. From ledger version 12 on.
    pub expander: Vec<Expander>,
    /// Most machines that leave at once: the disruption budget.
    pub max_leaving: u32,
    /// So long has a node that still holds something to become empty before what runs is ended; 0: nodes that hold something are not chosen.
    pub drain_ms: u64,
    /// A machine that has not registered within this is given up and removed.
    pub start_within_ms: u64,
    /// Revision of the latest change.
    pub changed: Revision,
}

/// At least so many while a rule of the calendar is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalingFloor {
    /// Its name, for explanations.
    pub name: String,
    /// When, as schedules write it. The leader reads it: time zones never enter the ledger.
    pub rule: String,
    /// At least so many.
    pub replicas: u64,
}

/// Who starts and stops machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// How it is reached.
    pub kind: ProviderKind,
    /// Longest time of one call, in milliseconds.
    pub timeout_ms: u64,
    /// Calls for one intent before it counts as failed.
    pub attempts: u32,
}

/// How a provider is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// `plimsoll agent` processes on the coordinator's own machine.
    Process,
    /// A program of the coordinators' own folder of such programs.
    Exec {
        /// Its file name.
        command: String,
        /// Its arguments, before what is asked.
        args: Vec<String>,
    },
    /// HTTP POST of JSON.
    Webhook {
        /// `http://host:port/path`.
        url: String,
    },
    /// The Cluster Autoscaler's external gRPC protocol.
    ExternalGrpc {
        /// `host:port`.
        address: String,
        /// Node group.
        group: String,
    },
}

/// What a new node offers, or a new replica is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkTemplate {
    /// Amounts.
    pub resources: Resources,
    /// Labels of the node.
    pub labels: Labels,
    /// GPUs.
    pub devices: Vec<TemplateDevice>,
    /// A replica: the command that serves, with its arguments. Empty for nodes.
    pub command: Vec<String>,
}

/// GPUs of one model in a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateDevice {
    /// Model, lower case.
    pub model: String,
    /// Memory of each, in bytes.
    pub memory_bytes: u64,
    /// How many.
    pub count: u32,
}

impl WorkTemplate {
    /// GPUs of all models together.
    pub fn gpus(&self) -> u64 {
        self.devices.iter().map(|device| u64::from(device.count)).sum()
    }
}

/// True for the plain name of a program: what stays in the folder that it is looked for in.
pub fn is_program_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && !name.starts_with('.')
}

impl ScalingPolicy {
    /// Fewest that may be wanted: none where it may sleep.
    pub fn least(&self) -> u64 {
        if self.rules.activation.is_some() { 0 } else { self.rules.min.min(self.rules.max) }
    }

    /// The number within the bounds that is nearest to this one.
    pub fn within(&self, wanted: u64) -> u64 {
        wanted.max(self.rules.min).min(self.rules.max)
    }
}

/// Every bound that a scaling policy breaks: field, value given, least and most.
pub(crate) fn scaling_bounds(policy: &ScalingPolicy) -> Vec<(String, u64, u64, u64)> {
    let field = |name: &str| format!("scaling_policy.{name}");
    let text = MAX_SCALING_TEXT as u64;
    let rules = &policy.rules;
    let mut found = vec![
        (field("name"), policy.name.len() as u64, 1, MAX_SCALING_NAME_BYTES as u64),
        (field("labels"), policy.labels.len() as u64, 0, MAX_ITEMS as u64),
        (field("max"), rules.max, 0, MAX_REPLICAS),
        (field("min"), rules.min, 0, rules.max),
        (field("targets"), rules.targets.len() as u64, 0, MAX_SCALING_RULES as u64),
        (field("tolerance_permille"), rules.tolerance_permille.into(), 0, MAX_SCALING_PERMILLE),
        (field("floors"), policy.floors.len() as u64, 0, MAX_FLOORS as u64),
        (field("max_leaving"), policy.max_leaving.into(), 1, MAX_REPLICAS),
        (field("drain_ms"), policy.drain_ms, 0, MAX_TTL_MS),
        (field("start_within_ms"), policy.start_within_ms, MIN_TTL_MS, MAX_TTL_MS),
    ];
    for (name, behavior) in [("scale_up", &rules.up), ("scale_down", &rules.down)] {
        behavior_bounds(&mut found, &field(name), behavior);
    }
    for (index, target) in rules.targets.iter().enumerate() {
        let place = field(&format!("targets[{index}]"));
        if let Metric::Custom(name) = &target.metric {
            found.push((format!("{place}.metric"), name.len() as u64, 1, text));
        }
        match target.aim {
            Aim::Average { target_milli }
            | Aim::PerReplica { target_milli }
            | Aim::Value { target_milli } => {
                found.push((format!("{place}.target_milli"), target_milli, 1, u64::MAX >> 1));
            }
            Aim::Thresholds { above_milli, below_milli, increment, decrement } => {
                found.push((format!("{place}.below_milli"), below_milli, 0, above_milli));
                found.push((format!("{place}.increment"), increment, 1, MAX_REPLICAS));
                found.push((format!("{place}.decrement"), decrement, 1, MAX_REPLICAS));
            }
        }
    }
    if let Some(activation) = &rules.activation {
        found.push((field("activation.cooldown_ms"), activation.cooldown_ms, 0, MAX_TTL_MS));
        found.push((
            field("activation.above"),
            activation.above_milli.len() as u64,
            0,
            MAX_SCALING_RULES as u64,
        ));
    }
    for (index, floor) in policy.floors.iter().enumerate() {
        let place = field(&format!("floors[{index}]"));
        found.push((format!("{place}.name"), floor.name.len() as u64, 1, text));
        found.push((format!("{place}.rule"), floor.rule.len() as u64, 1, MAX_RULE_BYTES as u64));
        found.push((format!("{place}.replicas"), floor.replicas, 0, rules.max));
    }
    if let Some(provider) = &policy.provider {
        found.push((field("provider.timeout_ms"), provider.timeout_ms, MIN_TTL_MS, MAX_PROVIDER_TIMEOUT_MS));
        found.push((field("provider.attempts"), provider.attempts.into(), 1, MAX_PROVIDER_ATTEMPTS));
        match &provider.kind {
            ProviderKind::Process => {}
            ProviderKind::Exec { command, args } => {
                found.push((field("provider.exec.command"), command.len() as u64, 1, text));
                found.push((field("provider.exec.args"), args.len() as u64, 0, MAX_ITEMS as u64));
            }
            ProviderKind::Webhook { url } => {
                found.push((field("provider.webhook.url"), url.len() as u64, 1, text));
            }
            ProviderKind::ExternalGrpc { address, group } => {
                found.push((field("provider.external_grpc.address"), address.len() as u64, 1, text));
                found.push((field("provider.external_grpc.group"), group.len() as u64, 1, text));
            }
        }
    }
    offer_bounds(&mut found, &field("template"), &policy.template);
    template_bounds(&mut found, policy);
    found.retain(|(_, value, least, most)| value < least || value > most);
    found
}

/// What a template offers.
pub(super) fn offer_bounds(found: &mut Vec<(String, u64, u64, u64)>, field: &str, template: &WorkTemplate) {
    let field = |name: &str| format!("{field}.{name}");
    found.push((field("devices"), template.gpus(), 0, MAX_DEVICES as u64));
    found.push((field("labels"), template.labels.len() as u64, 0, MAX_ITEMS as u64));
    found.push((field("command"), template.command.len() as u64, 0, MAX_ITEMS as u64));
    for device in &template.devices {
        found.push((field("devices.memory_bytes"), device.memory_bytes, 1, u64::MAX >> 1));
        found.push((field("devices.count"), device.count.into(), 1, MAX_DEVICES as u64));
    }
}

fn behavior_bounds(found: &mut Vec<(String, u64, u64, u64)>, field: &str, behavior: &Behavior) {
    found.push((format!("{field}.stabilization_ms"), behavior.stabilization_ms, 0, MAX_TTL_MS));
    found.push((format!("{field}.cooldown_ms"), behavior.cooldown_ms, 0, MAX_TTL_MS));
    found.push((format!("{field}.policies"), behavior.policies.len() as u64, 0, MAX_SCALING_RULES as u64));
    for policy in &behavior.policies {
        found.push((format!("{field}.policies.period_ms"), policy.period_ms, 1, MAX_TTL_MS));
    }
}
