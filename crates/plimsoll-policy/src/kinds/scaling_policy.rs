//! `kind: ScalingPolicy`: one reader for the policies that clusters keep and for those that simulations try.

use plimsoll_autoscaler::Policy;
use plimsoll_ledger::limits::{MAX_REPLICAS, MAX_SCALING_PERMILLE};
use plimsoll_proto::convert::scaling_rules;
use plimsoll_proto::v1;
use plimsoll_types::quantity::{QuantityError, parse_bytes, parse_cpu_millis, parse_duration_ms};

use super::{labels, name, text};
use crate::context::{Block, Context};
use crate::document::API_VERSION;
use crate::node::{self, Node, Value};
use crate::problem::{Mark, Problem, Source};

const TOP: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 2] = ["name", "labels"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 18] = [
    "target",
    "min",
    "max",
    "targets",
    "utilization",
    "tolerance",
    "scaleUp",
    "scaleDown",
    "activation",
    "predictive",
    "schedules",
    "provider",
    "template",
    "templates",
    "expander",
    "maxLeaving",
    "drain",
    "startWithin",
];
const TARGET: [&str; 7] = ["metric", "target", "per", "above", "below", "increment", "decrement"];
const BEHAVIOR: [&str; 5] = ["stabilization", "cooldown", "step", "select", "policies"];
const RATE: [&str; 3] = ["replicas", "percent", "period"];
const PREDICTIVE: [&str; 2] = ["missPrice", "fallbackUtilization"];
const ACTIVATION: [&str; 2] = ["cooldown", "above"];
const FLOOR: [&str; 3] = ["name", "window", "min"];
const PROVIDER: [&str; 8] = ["type", "command", "args", "url", "address", "group", "timeout", "attempts"];
const TEMPLATE: [&str; 4] = ["resources", "labels", "gpus", "command"];
/// Keys of one of several templates.
const NODE_TEMPLATE: [&str; 10] =
    ["name", "resources", "labels", "gpus", "capacityType", "price", "spotPool", "watts", "priority", "max"];
const GPUS: [&str; 3] = ["model", "memory", "count"];
/// By what one of several templates is picked.
pub(crate) const EXPANDER: [(&str, v1::ScalingExpander); 3] = [
    ("leastWaste", v1::ScalingExpander::LeastWaste),
    ("price", v1::ScalingExpander::Price),
    ("priority", v1::ScalingExpander::Priority),
];
/// How a node is paid for.
const CAPACITY: [(&str, &str); 3] = [("on_demand", "on_demand"), ("reserved", "reserved"), ("spot", "spot")];
/// Which of several rate policies counts.
pub(crate) const SELECT: [(&str, v1::ScalingSelect); 3] = [
    ("max", v1::ScalingSelect::Max),
    ("min", v1::ScalingSelect::Min),
    ("disabled", v1::ScalingSelect::Disabled),
];
/// How a target counts.
pub(crate) const PER: [(&str, Per); 3] =
    [("average", Per::Average), ("replica", Per::Replica), ("total", Per::Total)];
const TYPES: [(&str, Type); 4] = [
    ("process", Type::Process),
    ("exec", Type::Exec),
    ("webhook", Type::Webhook),
    ("externalgrpc", Type::ExternalGrpc),
];
/// Period of a step where there is no cooldown that spaces them, in milliseconds: Kubernetes' own.
const STEP_PERIOD_MS: u64 = 15_000;

/// How a target counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    /// The mean over replicas.
    Average,
    /// The whole, shared among replicas.
    Replica,
    /// The whole.
    Total,
}

#[derive(Clone, Copy, Debug)]
enum Type {
    Process,
    Exec,
    Webhook,
    ExternalGrpc,
}

/// Unit in which people write a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Percent.
    Share,
    /// Milliseconds, written as a duration.
    Time,
    /// Pieces.
    Number,
}

/// The unit of a metric, and how its target counts where nobody says.
pub(crate) fn form(metric: &str) -> (Unit, Per) {
    match metric {
        "cpu" | "memory" | "gpu" | "utilization" => (Unit::Share, Per::Average),
        "wait_time" => (Unit::Time, Per::Total),
        "latency" => (Unit::Number, Per::Average),
        _ => (Unit::Number, Per::Replica),
    }
}

/// Reads the one scaling policy of a source for a simulation, where what is scaled is neither pool nor service: `target`, `provider` and the
/// like say nothing there. Loads are in thousandths of what one replica serves in one step; its metric is `load`. What the document leaves out
/// is as in `default`, but a direction that is there is only what it says.
///
/// # Errors
/// Everything that is wrong, in the order of the lines.
pub fn parse_scaling_policy(source: &Source, default: &Policy) -> Result<Policy, Vec<Problem>> {
    let mut context = Context::new(source);
    let documents = node::read(source, &mut context.problems);
    let mut rules = default.clone();
    match documents.as_slice() {
        [document] => {
            if let Some(found) = simulated(&mut context, document, default) {
                rules = found;
            }
        }
        _ if !context.problems.is_empty() => {}
        _ => context.fail(
            Mark { line: 1, column: 1, width: 1 },
            format!("one ScalingPolicy is expected, there are {} documents", documents.len()),
        ),
    }
    context.problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
    if context.problems.is_empty() { Ok(rules) } else { Err(context.problems) }
}

fn simulated(context: &mut Context<'_>, document: &Node, default: &Policy) -> Option<Policy> {
    let top = context.block(document, "", &TOP);
    if !matches!(document.value, Value::Map(_)) {
        return None;
    }
    for (key, wanted) in [("apiVersion", API_VERSION), ("kind", "ScalingPolicy")] {
        match top.get(key) {
            None => context.fail(document.mark, format!("{key} is missing: write {key}: {wanted}")),
            Some(node) => drop(context.word(node, key, &[(wanted, ())])),
        }
    }
    let absent = Node { mark: document.mark, value: Value::Null };
    let metadata = context.block(top.get("metadata").unwrap_or(&absent), "metadata", &METADATA);
    let spec = context.block(top.get("spec").unwrap_or(&absent), "spec", &SPEC);
    let read = read(context, &metadata, &spec);
    let reactive =
        matches!(spec.get("predictive"), Some(Node { value: Value::Scalar(word), .. }) if word == "false");
    match scaling_rules(&read, default) {
        Ok(rules) => Some(Policy { predictive: rules.predictive.filter(|_| !reactive), ..rules }),
        Err(violations) => {
            let of_file = violations.into_iter().map(|mut violation| {
                violation.field = format!("scaling_policy.{}", violation.field);
                violation
            });
            context.violations(document.mark, of_file.collect());
            None
        }
    }
}

/// Reads a scaling policy.
pub(crate) fn read(context: &mut Context<'_>, metadata: &Block<'_>, spec: &Block<'_>) -> v1::ScalingPolicy {
    let mut policy = v1::ScalingPolicy {
        name: name(context, metadata, "scaling_policy"),
        labels: labels(context, metadata, "scaling_policy"),
        target: text(context, spec, "target", "scaling_policy.target", "spec.target"),
        min: number(context, spec, "min", "spec", "scaling_policy.min"),
        max: number(context, spec, "max", "spec", "scaling_policy.max"),
        ..v1::ScalingPolicy::default()
    };
    if let Some(node) = spec.get("targets") {
        context.locate("scaling_policy.targets", node.mark, "spec.targets");
        let list = context.list(node, "spec.targets", "[{ metric: cpu, target: 70% }]");
        for (index, node) in list.iter().enumerate() {
            let wire = format!("scaling_policy.targets[{index}]");
            let path = format!("spec.targets[{index}]");
            context.locate(wire.clone(), node.mark, path.clone());
            if let Some(target) = context.part(&wire, |context| metric_target(context, node, &path)) {
                policy.targets.push(target);
            }
        }
    }
    policy.utilization_permille = permille(context, spec, "utilization").unwrap_or_default();
    policy.tolerance_permille = permille(context, spec, "tolerance");
    for (key, wire, direction) in
        [("scaleUp", "scale_up", &mut policy.scale_up), ("scaleDown", "scale_down", &mut policy.scale_down)]
    {
        if let Some(node) = spec.get(key) {
            let wire = format!("scaling_policy.{wire}");
            context.locate(wire.clone(), node.mark, format!("spec.{key}"));
            *direction = Some(context.part(&wire, |context| behavior(context, node, &format!("spec.{key}"))));
        }
    }
    policy.activation = spec.get("activation").map(|node| activation(context, node));
    policy.predictive = match spec.get("predictive") {
        None => None,
        Some(Node { value: Value::Scalar(word), .. }) if word == "false" => None,
        Some(node) => Some(predictive(context, node)),
    };
    policy.floors = floors(context, spec);
    policy.provider = spec.get("provider").and_then(|node| provider(context, node));
    policy.template = spec.get("template").map(|node| {
        let block = context.block(node, "spec.template", &TEMPLATE);
        template(context, &block, "spec.template", "scaling_policy.template")
    });
    policy.templates = node_templates(context, spec);
    policy.expander = expander(context, spec);
    context.locate("scaling_policy.template", spec.mark_of("template"), "spec.template");
    let leaving = number(context, spec, "maxLeaving", "spec", "scaling_policy.max_leaving");
    policy.max_leaving = leaving.and_then(|most| u32::try_from(most).ok()).unwrap_or_default();
    policy.drain_ms = duration(context, spec, "drain", "spec", "scaling_policy.drain_ms").unwrap_or_default();
    let within = duration(context, spec, "startWithin", "spec", "scaling_policy.start_within_ms");
    policy.start_within_ms = within.unwrap_or_default();
    policy
}

/// A target: the metric with what it should be, or with two thresholds.
fn metric_target(context: &mut Context<'_>, node: &Node, path: &str) -> Option<v1::ScalingMetricTarget> {
    use v1::scaling_metric_target::Aim;
    let block = context.block(node, path, &TARGET);
    let Some(metric) = block.get("metric").and_then(|node| context.text(node, &format!("{path}.metric")))
    else {
        context.fail(block.mark, format!("{path} needs a metric"));
        return None;
    };
    let (unit, usual) = form(&metric);
    let milli = |context: &mut Context<'_>, key: &str| {
        let node = block.get(key)?;
        context.quantity(node, &format!("{path}.{key}"), |text| parse_milli(unit, text))
    };
    let aim = match (block.get("target"), block.get("above"), block.get("below")) {
        (Some(_), None, None) => {
            let milli = milli(context, "target")?;
            let per = block.get("per").and_then(|node| context.word(node, &format!("{path}.per"), &PER));
            match per.unwrap_or(usual) {
                Per::Average => Aim::AverageMilli(milli),
                Per::Replica => Aim::PerReplicaMilli(milli),
                Per::Total => Aim::ValueMilli(milli),
            }
        }
        (None, Some(_), Some(_)) => {
            let (above_milli, below_milli) = (milli(context, "above")?, milli(context, "below")?);
            let mut step = |key| number(context, &block, key, path, "").unwrap_or(1);
            let (increment, decrement) = (step("increment"), step("decrement"));
            Aim::Thresholds(v1::ScalingThresholds { above_milli, below_milli, increment, decrement })
        }
        _ => {
            context.fail(block.mark, format!("{path} needs a target, or above and below"));
            return None;
        }
    };
    Some(v1::ScalingMetricTarget { metric, aim: Some(aim) })
}

/// A metric's value in thousandths of its unit: shares in percent, times in milliseconds.
fn parse_milli(unit: Unit, text: &str) -> Result<u64, QuantityError> {
    match unit {
        Unit::Share => parse_cpu_millis(text.strip_suffix('%').map_or(text, str::trim_end)),
        Unit::Time => parse_duration_ms(text).map(|ms| ms.saturating_mul(1_000)),
        Unit::Number => parse_cpu_millis(text),
    }
}

fn behavior(context: &mut Context<'_>, node: &Node, path: &str) -> v1::ScalingBehavior {
    use v1::scaling_rate::Amount;
    let block = context.block(node, path, &BEHAVIOR);
    let mut behavior = v1::ScalingBehavior {
        stabilization_ms: duration(context, &block, "stabilization", path, "").unwrap_or_default(),
        cooldown_ms: duration(context, &block, "cooldown", path, "").unwrap_or_default(),
        ..v1::ScalingBehavior::default()
    };
    if let Some(node) = block.get("select") {
        let select = context.word(node, &format!("{path}.select"), &SELECT);
        behavior.select = select.unwrap_or_default().into();
    }
    if let Some(node) = block.get("policies") {
        let path = format!("{path}.policies");
        let list = context.list(node, &path, "[{ percent: 100, period: 15s }]");
        behavior.policies = list.iter().filter_map(|node| rate(context, node, &path)).collect();
    }
    // The form of simpler systems: so many at once, then the cooldown.
    if let Some(step) = number(context, &block, "step", path, "") {
        let period_ms = if behavior.cooldown_ms > 0 { behavior.cooldown_ms } else { STEP_PERIOD_MS };
        behavior.policies.push(v1::ScalingRate { amount: Some(Amount::Replicas(step)), period_ms });
    }
    behavior
}

fn rate(context: &mut Context<'_>, node: &Node, path: &str) -> Option<v1::ScalingRate> {
    use v1::scaling_rate::Amount;
    let block = context.block(node, path, &RATE);
    let given = (number(context, &block, "replicas", path, ""), number(context, &block, "percent", path, ""));
    let amount = match given {
        (Some(replicas), None) => Amount::Replicas(replicas),
        (None, Some(percent)) => Amount::Percent(percent),
        _ => {
            context.fail(block.mark, format!("{path} needs one of replicas and percent"));
            return None;
        }
    };
    if block.get("period").is_none() {
        context.fail(block.mark, format!("{path} needs a period"));
        return None;
    }
    let period_ms = duration(context, &block, "period", path, "")?;
    Some(v1::ScalingRate { amount: Some(amount), period_ms })
}

fn predictive(context: &mut Context<'_>, node: &Node) -> v1::ScalingPredictive {
    let block = context.block(node, "spec.predictive", &PREDICTIVE);
    // A multiple in thousandths, written as cpu is: 6, 0.5.
    let price = block.get("missPrice");
    let price = price.and_then(|node| context.quantity(node, "spec.predictive.missPrice", parse_cpu_millis));
    let fallback = block
        .get("fallbackUtilization")
        .and_then(|node| share(context, node, "spec.predictive.fallbackUtilization"));
    v1::ScalingPredictive {
        miss_price_permille: price.unwrap_or_default(),
        fallback_utilization_permille: fallback.unwrap_or_default(),
    }
}

fn activation(context: &mut Context<'_>, node: &Node) -> v1::ScalingActivation {
    let block = context.block(node, "spec.activation", &ACTIVATION);
    context.locate("scaling_policy.activation", node.mark, "spec.activation");
    let mut activation = v1::ScalingActivation {
        cooldown_ms: duration(context, &block, "cooldown", "spec.activation", "").unwrap_or_default(),
        ..v1::ScalingActivation::default()
    };
    if let Some(above) = block.get("above") {
        context.locate("scaling_policy.activation.above_milli", above.mark, "spec.activation.above");
        for (metric, _, node) in context.entries(above, "spec.activation.above") {
            let path = format!("spec.activation.above.{metric}");
            let unit = form(&metric).0;
            if let Some(milli) = context.quantity(node, &path, |text| parse_milli(unit, text)) {
                activation.above_milli.insert(metric, milli);
            }
        }
    }
    activation
}

fn floors(context: &mut Context<'_>, spec: &Block<'_>) -> Vec<v1::ScalingFloor> {
    let Some(node) = spec.get("schedules") else { return Vec::new() };
    context.locate("scaling_policy.floors", node.mark, "spec.schedules");
    let example = "[{ name: office, window: \"08:00-18:00 Europe/Berlin mon-fri\", min: 4 }]";
    let list = context.list(node, "spec.schedules", example);
    let mut floors = Vec::new();
    for (index, node) in list.iter().enumerate() {
        let (path, wire) = (format!("spec.schedules[{index}]"), format!("scaling_policy.floors[{index}]"));
        context.locate(wire.clone(), node.mark, path.clone());
        let block = context.block(node, &path, &FLOOR);
        floors.push(v1::ScalingFloor {
            name: text(context, &block, "name", &format!("{wire}.name"), &format!("{path}.name")),
            rule: text(context, &block, "window", &format!("{wire}.rule"), &format!("{path}.window")),
            replicas: number(context, &block, "min", &path, &format!("{wire}.replicas")).unwrap_or_default(),
        });
    }
    floors
}

/// The word for its kind, and what that kind needs.
fn provider(context: &mut Context<'_>, node: &Node) -> Option<v1::ScalingProvider> {
    use v1::scaling_provider::Kind;
    let path = "spec.provider";
    let block = context.block(node, path, &PROVIDER);
    context.locate("scaling_policy.provider", node.mark, path);
    let Some(word) = block.get("type") else {
        let words = TYPES.map(|(word, _)| word).join(", ");
        context.fail(block.mark, format!("{path} needs a type: {words}"));
        return None;
    };
    let kind = context.word(word, "spec.provider.type", &TYPES)?;
    let own: &[&str] = match kind {
        Type::Process => &[],
        Type::Exec => &["command", "args"],
        Type::Webhook => &["url"],
        Type::ExternalGrpc => &["address", "group"],
    };
    for key in ["command", "args", "url", "address", "group"] {
        if block.get(key).is_some() && !own.contains(&key) {
            context.fail(block.mark_of(key), format!("{path}.{key} says nothing to this type"));
        }
    }
    let word = |context: &mut Context<'_>, key: &'static str, wire: &str| {
        let wire = format!("scaling_policy.provider.{wire}");
        text(context, &block, key, &wire, &format!("{path}.{key}"))
    };
    let kind = match kind {
        Type::Process => Kind::Process(v1::ProcessProvider {}),
        Type::Exec => Kind::Exec(v1::ExecProvider {
            command: word(context, "command", "exec.command"),
            args: words(context, &block, "args", path),
        }),
        Type::Webhook => Kind::Webhook(v1::WebhookProvider { url: word(context, "url", "webhook.url") }),
        Type::ExternalGrpc => Kind::ExternalGrpc(v1::ExternalGrpcProvider {
            address: word(context, "address", "external_grpc.address"),
            group: word(context, "group", "external_grpc.group"),
        }),
    };
    let timeout = duration(context, &block, "timeout", path, "scaling_policy.provider.timeout_ms");
    let attempts = number(context, &block, "attempts", path, "scaling_policy.provider.attempts");
    Some(v1::ScalingProvider {
        kind: Some(kind),
        timeout_ms: timeout.unwrap_or_default(),
        attempts: attempts.and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or_default(),
    })
}

fn node_templates(context: &mut Context<'_>, spec: &Block<'_>) -> Vec<v1::NodeTemplate> {
    let Some(node) = spec.get("templates") else { return Vec::new() };
    context.locate("scaling_policy.templates", node.mark, "spec.templates");
    let example = "[{ name: small, resources: { cpu: 4, memory: 16Gi } }]";
    let list = context.list(node, "spec.templates", example);
    let mut templates = Vec::new();
    for (index, node) in list.iter().enumerate() {
        let (path, wire) = (format!("spec.templates[{index}]"), format!("scaling_policy.templates[{index}]"));
        context.locate(wire.clone(), node.mark, path.clone());
        let block = context.block(node, &path, &NODE_TEMPLATE);
        templates.push(node_template(context, &block, &path, &wire));
    }
    templates
}

fn node_template(context: &mut Context<'_>, block: &Block<'_>, path: &str, wire: &str) -> v1::NodeTemplate {
    let at = |key: &str| format!("{path}.{key}");
    for (key, field) in [("capacityType", "capacity_type"), ("price", "price_permille")] {
        context.locate(format!("{wire}.{field}"), block.mark_of(key), at(key));
    }
    let kind = block.get("capacityType").and_then(|node| context.word(node, &at("capacityType"), &CAPACITY));
    // Thousandths, written as cpu is: 0.35.
    let price = block.get("price").and_then(|node| context.quantity(node, &at("price"), parse_cpu_millis));
    if price == Some(0) {
        context.fail(block.mark_of("price"), format!("{} is 0: a node costs something", at("price")));
    }
    let spot_pool = match block.get("spotPool") {
        Some(_) => text(context, block, "spotPool", &format!("{wire}.spot_pool"), &at("spotPool")),
        None => String::new(),
    };
    let mut whole =
        |key: &str| number(context, block, key, path, &format!("{wire}.{key}")).unwrap_or_default();
    let (watts, priority, max) = (whole("watts"), whole("priority"), whole("max"));
    v1::NodeTemplate {
        name: text(context, block, "name", &format!("{wire}.name"), &at("name")),
        offers: Some(template(context, block, path, &format!("{wire}.offers"))),
        capacity_type: kind.unwrap_or_default().to_owned(),
        price_permille: u32::try_from(price.unwrap_or_default()).unwrap_or(u32::MAX),
        spot_pool,
        watts,
        priority: u32::try_from(priority).unwrap_or(u32::MAX),
        max,
    }
}

/// The rules by which one of several templates is picked.
fn expander(context: &mut Context<'_>, spec: &Block<'_>) -> Vec<i32> {
    let Some(node) = spec.get("expander") else { return Vec::new() };
    context.locate("scaling_policy.expander", node.mark, "spec.expander");
    let mut rules = Vec::new();
    for (index, one) in context.list(node, "spec.expander", "[leastWaste, price]").iter().enumerate() {
        let path = format!("spec.expander[{index}]");
        context.locate(format!("scaling_policy.expander[{index}]"), one.mark, path.clone());
        rules.extend(context.word(one, &path, &EXPANDER).map(i32::from));
    }
    rules
}

/// What a new node offers, or a new replica is given; the keys of `block` are checked already.
fn template(context: &mut Context<'_>, block: &Block<'_>, path: &str, wire: &str) -> v1::ScalingTemplate {
    let at = |key: &str| (format!("{wire}.{key}"), format!("{path}.{key}"));
    let mut template = v1::ScalingTemplate::default();
    let mut amounts = v1::Quantities::default();
    let (of_resources, resources) = at("resources");
    context.locate(of_resources.clone(), block.mark_of("resources"), resources.clone());
    if let Some(node) = block.get("resources") {
        for (name, amount) in
            super::amounts(context, node, &resources, |name| format!("{of_resources}.other[{name:?}]"))
        {
            match name.as_str() {
                "cpu" => amounts.cpu_millis = amount,
                "memory" => amounts.memory_bytes = amount,
                "gpu" => {
                    let why = format!("{resources}.gpu: GPUs stand under gpus, with their model");
                    context.fail(node.mark, why);
                }
                _ => drop(amounts.other.insert(name, amount)),
            }
        }
    }
    template.resources = Some(amounts);
    if let Some(node) = block.get("labels") {
        let (of_labels, labels) = at("labels");
        context.locate(of_labels, node.mark, labels.clone());
        for (key, _, value) in context.entries(node, &labels) {
            if let Some(value) = context.text(value, &format!("{labels}.{key}")) {
                template.labels.insert(key, value);
            }
        }
    }
    if let Some(node) = block.get("gpus") {
        let gpus = format!("{path}.gpus");
        context.locate(format!("{wire}.devices"), node.mark, gpus.clone());
        let list = context.list(node, &gpus, "[{ model: a100, memory: 40Gi, count: 2 }]");
        for (index, node) in list.iter().enumerate() {
            let path = format!("{path}.gpus[{index}]");
            let wire = format!("{wire}.devices[{index}]");
            context.locate(wire.clone(), node.mark, path.clone());
            let block = context.block(node, &path, &GPUS);
            let memory = block
                .get("memory")
                .and_then(|node| context.quantity(node, &format!("{path}.memory"), parse_bytes));
            let count = number(context, &block, "count", &path, &format!("{wire}.count")).unwrap_or(1);
            template.devices.push(v1::TemplateDevice {
                model: text(context, &block, "model", &format!("{wire}.model"), &format!("{path}.model")),
                memory_bytes: memory.unwrap_or_default(),
                count: u32::try_from(count).unwrap_or(u32::MAX),
            });
        }
    }
    let (of_command, command) = at("command");
    context.locate(of_command, block.mark_of("command"), command);
    template.command = words(context, block, "command", path);
    template
}

/// A list of words.
fn words(context: &mut Context<'_>, block: &Block<'_>, key: &'static str, path: &str) -> Vec<String> {
    let Some(node) = block.get(key) else { return Vec::new() };
    let path = format!("{path}.{key}");
    let list = context.list(node, &path, &format!("{key}: [first, second]"));
    list.iter().filter_map(|item| context.text(item, &path)).collect()
}

/// A whole number under a key; with a place for what the API's checks say of it, where `wire` names one.
fn number(context: &mut Context<'_>, block: &Block<'_>, key: &str, path: &str, wire: &str) -> Option<u64> {
    let path = format!("{path}.{key}");
    if !wire.is_empty() {
        context.locate(wire, block.mark_of(key), path.clone());
    }
    let number = block.get(key).and_then(|node| context.integer(node, &path, 0, MAX_REPLICAS as i64))?;
    u64::try_from(number).ok()
}

/// A time under a key, in milliseconds.
fn duration(context: &mut Context<'_>, block: &Block<'_>, key: &str, path: &str, wire: &str) -> Option<u64> {
    let path = format!("{path}.{key}");
    if !wire.is_empty() {
        context.locate(wire, block.mark_of(key), path.clone());
    }
    block.get(key).and_then(|node| context.quantity(node, &path, parse_duration_ms))
}

/// A share of `spec`, in thousandths.
fn permille(context: &mut Context<'_>, spec: &Block<'_>, key: &str) -> Option<u32> {
    let node = spec.get(key)?;
    share(context, node, &format!("spec.{key}"))
}

fn share(context: &mut Context<'_>, node: &Node, path: &str) -> Option<u32> {
    let permille = context.quantity(node, path, parse_share)?;
    u32::try_from(permille).ok()
}

/// `70%`, `0.7` or `1`, in thousandths; up to 1000 %.
fn parse_share(text: &str) -> Result<u64, QuantityError> {
    let (digits, scale) = match text.strip_suffix('%') {
        Some(digits) => (digits.trim_end(), 10),
        None => (text, 1000),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    let read = || {
        if whole.is_empty() || !is_number(whole) || !is_number(part) {
            return None;
        }
        let thousandths: u64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
        let permille = (whole.parse::<u64>().ok()? * 1000 + thousandths) * scale / 1000;
        (1..=MAX_SCALING_PERMILLE).contains(&permille).then_some(permille)
    };
    let hint = "shares are written 70% or 0.7, up to 1000%".to_owned();
    read().ok_or_else(|| QuantityError { text: text.to_owned(), expected: "a share", hint })
}

#[cfg(test)]
mod tests {
    use plimsoll_autoscaler::{Aim, Amount, RatePolicy, Select};

    use super::*;

    fn parse(text: &str) -> Result<Policy, Vec<String>> {
        let source = Source { name: "s.yaml".into(), text: text.into() };
        parse_scaling_policy(&source, &Policy::default())
            .map_err(|problems| problems.iter().map(|problem| problem.message.clone()).collect())
    }

    fn spec(lines: &str) -> Result<Policy, Vec<String>> {
        parse(&format!(
            "apiVersion: plimsoll/v1\nkind: ScalingPolicy\nmetadata: {{ name: web }}\nspec:\n{lines}"
        ))
    }

    #[test]
    fn a_policy_is_read_whole() {
        let policy = spec(
            "  min: 2\n  max: 50\n  utilization: 70%\n  tolerance: 0.05\n\
             \x20 scaleUp: { stabilization: 30s, select: min, policies: [{ percent: 100, period: 15s }, { replicas: 4, period: 1m }] }\n\
             \x20 scaleDown: { cooldown: 5m }\n  predictive: { missPrice: 2.5, fallbackUtilization: 55% }\n",
        )
        .expect("it is fine");
        assert_eq!((policy.min, policy.max, policy.tolerance_permille), (2, 50, 50));
        assert_eq!(policy.targets[0].aim, Aim::PerReplica { target_milli: 700 });
        assert_eq!((policy.up.stabilization_ms, policy.up.select), (30_000, Select::Min));
        assert_eq!(policy.up.policies[1], RatePolicy { amount: Amount::Replicas(4), period_ms: 60_000 });
        assert_eq!((policy.down.cooldown_ms, policy.down.policies.len()), (300_000, 0));
        let predictive = policy.predictive.expect("it is predictive");
        assert_eq!((predictive.miss_price_permille, predictive.fallback_utilization_permille), (2500, 550));
    }

    #[test]
    fn what_is_left_out_is_as_by_default_and_prediction_can_be_switched_off() {
        assert_eq!(spec("  min: 1\n"), Ok(Policy::default()));
        assert_eq!(spec("  predictive: false\n").map(|policy| policy.predictive), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_told_with_what_was_meant() {
        let problems = |lines| spec(lines).expect_err("it is wrong").join("\n");
        assert!(problems("  utilisation: 70%\n").contains("did you mean \"utilization\"?"));
        assert!(problems("  utilization: 0%\n").contains("a share"));
        assert!(
            problems("  scaleUp: { policies: [{ period: 15s }] }\n").contains("one of replicas and percent")
        );
        assert!(problems("  min: 5\n  max: 2\n").contains("more than max"));
        assert!(problems("  predictive: { misPrice: 1 }\n").contains("did you mean \"missPrice\"?"));
        assert_eq!(parse("").expect_err("nothing").len(), 1);
        assert_eq!(parse("kind: Pool\napiVersion: plimsoll/v1\n").expect_err("another kind").len(), 1);
        assert_eq!(parse("- 1\n").expect_err("a list").len(), 1);
    }
}
