//! Scheduling, queues, classes, reservations and networks: what becomes pools, classes, queues, schedules and rates.

use plimsoll_types::quantity::{format_duration_ms, parse_duration_ms};
use serde_json::{Value, json};

use super::tree::{At, Tree};
use super::{Output, object_name, tenants, work};
use crate::kinds::pool::STRATEGIES;

/// The pool that exists from the start.
const DEFAULT: &str = "default";
/// Time between batches where a queue names a size alone.
const DEFAULT_BATCH_INTERVAL: &str = "1m";

/// Reads every block of a document.
pub(super) fn read(tree: &Tree<'_>, out: &mut Output) {
    let root = tree.root();
    if let Some(at) = root.get("scheduling") {
        scheduling(&at, out);
    }
    for (name, queue) in root.at(&["queues", "configuration"]).map(|at| at.entries()).unwrap_or_default() {
        self::queue(&name, &queue, out);
    }
    for (name, class) in root.at(&["qos", "classes"]).map(|at| at.entries()).unwrap_or_default() {
        qos(&name, &class, out);
    }
    for item in root.get("reservations").map(|at| at.items()).unwrap_or_default() {
        schedule(&item, out);
    }
    if let Some(at) = root.get("network") {
        network(&at, out);
    }
    if let Some(packing) = root.at(&["cost_optimization", "strategies", "resource_packing"]) {
        self::packing(&packing, out);
    }
    if let Some(at) = root.at(&["compute", "spot_instances"]) {
        spot(&at, out);
    }
    tenants::read(&root, out);
    work::read(&root, out);
    conditions(&root);
    for (block, why) in [
        ("autoscaling", "pools do not scale yet"),
        (
            "storage",
            "storage is counted where a node or pool offers it: countables of a Pool, as in storage/ssd: 100Gi",
        ),
        ("models", "instances of models are not managed yet"),
    ] {
        if let Some(at) = root.get(block) {
            at.tell(why);
        }
    }
}

fn scheduling(at: &At<'_, '_>, out: &mut Output) {
    if let Some(strategy) = at.get("strategy") {
        match strategy.peek() {
            Some("priority" | "fair") => {
                let fairness = strategy.value().unwrap_or_default();
                out.object("Pool", DEFAULT).insert("fairness".to_owned(), fairness);
            }
            Some(word) if STRATEGIES.iter().any(|(known, _)| *known == word) => {
                let word = strategy.value().unwrap_or_default();
                out.object("Pool", DEFAULT).insert("strategy".to_owned(), word);
            }
            _ => {}
        }
    }
    for (name, class) in at.get("classes").map(|at| at.entries()).unwrap_or_default() {
        let Some(name) = object_name(&class, &name) else { continue };
        let spec = out.object("Class", &name);
        for key in ["priority", "preemptible"] {
            if let Some(value) = class.get(key).and_then(|at| literal(&at)) {
                spec.insert(key.to_owned(), value);
            }
        }
        if let Some(at) = class.get("guaranteed_resources") {
            let mut kept = serde_json::Map::new();
            for (resource, amount) in at.entries() {
                kept.extend(amount.amount(&resource).map(|amount| (resource, amount)));
            }
            spec.insert("guaranteed".to_owned(), Value::Object(kept));
        }
        if let Some(factor) = class.get("resource_multiplier").and_then(|at| at.value()) {
            spec.insert("multiplier".to_owned(), factor);
        }
    }
    tenants::shares_and_quotas(at, out);
}

fn queue(name: &str, at: &At<'_, '_>, out: &mut Output) {
    let Some(name) = object_name(at, name) else { return };
    let spec = out.object("Queue", &name);
    if let Some(most) = at.get("max_size").and_then(|at| at.whole()) {
        spec.insert("maxPending".to_owned(), most.into());
    }
    if let Some(size) = at.get("batch_size").and_then(|at| at.whole()) {
        let interval = at.get("processing_interval").and_then(|at| duration(&at));
        let interval = interval.unwrap_or_else(|| DEFAULT_BATCH_INTERVAL.to_owned());
        spec.insert("batch".to_owned(), json!({ "size": size, "interval": interval }));
    }
    if at.is("guaranteed_processing", "true") {
        spec.insert("guaranteedProcessing".to_owned(), true.into());
    }
    let known = ["spill_to_disk", "compress"].into_iter().find(|word| at.is("overflow_policy", word));
    match known {
        Some(word) if spec.contains_key("maxPending") => {
            spec.insert("overflow".to_owned(), word.into());
        }
        // What does not fit into a full queue is refused where nothing is said.
        _ if at.is("overflow_policy", "reject") => {}
        _ => {
            if let Some(overflow) = at.get("overflow_policy") {
                let why = match known {
                    Some(_) => "a queue without max_size is never full",
                    None => "reject, spill_to_disk and compress are what there is",
                };
                overflow.tell(why);
            }
        }
    }
}

/// How much of the work goes to spot nodes, and what becomes of it there.
fn spot(at: &At<'_, '_>, out: &mut Output) {
    let spec = out.object("Pool", DEFAULT);
    let share = at.get("percentage").and_then(|at| at.whole()).unwrap_or(100);
    let share = if at.is("enabled", "false") { 0 } else { share };
    let enabled = at.get("enabled");
    if let Some(enabled) = enabled.filter(|at| matches!(at.peek(), Some("true" | "false"))) {
        enabled.take();
    }
    let mut block = json!({ "share": format!("{share}%") });
    if let Some(fallback) = at.get("fallback") {
        for (key, as_) in [("on_interruption", "onInterruption"), ("max_price_increase", "maxPriceIncrease")]
        {
            if let Some(value) = fallback.get(key).and_then(|at| at.value()) {
                block[as_] = value;
            }
        }
    }
    let suitable: Vec<Value> = at
        .get("suitable_tasks")
        .map(|at| at.items())
        .unwrap_or_default()
        .iter()
        .filter_map(At::value)
        .collect();
    if !suitable.is_empty() {
        block["suitableFor"] = suitable.into();
    }
    spec.insert("spot".to_owned(), block);
}

fn qos(name: &str, at: &At<'_, '_>, out: &mut Output) {
    let Some(name) = object_name(at, name) else { return };
    let spec = out.object("Class", &name);
    if let Some(priority) = at.get("preemption_priority").and_then(|at| at.whole()) {
        spec.insert("priority".to_owned(), priority.into());
    }
    // Whoever is guaranteed everything is not preempted; part of a guarantee is none to a class.
    if at.is("resource_guarantee", "100%") {
        spec.insert("preemptible".to_owned(), false.into());
    } else if let Some(guarantee) = at.get("resource_guarantee") {
        spec.insert("preemptible".to_owned(), true.into());
        if !at.is("resource_guarantee", "0%") {
            guarantee.tell("a class guarantees all or nothing: preemptible is what it became");
        }
    }
}

fn schedule(at: &At<'_, '_>, out: &mut Output) {
    let Some(name) = at.get("name").and_then(|at| at.text()).and_then(|name| object_name(at, &name)) else {
        return;
    };
    let spec = out.object("Schedule", &name);
    let mut resources = serde_json::Map::new();
    for (resource, amount) in at.get("resources").map(|at| at.entries()).unwrap_or_default() {
        if let Some(amount) = amount.amount(&resource) {
            resources.insert(resource, amount);
        }
    }
    spec.insert("resources".to_owned(), Value::Object(resources));
    if at.is("duration", "always") {
        spec.insert("window".to_owned(), "always".into());
    }
    if let Some(window) = at.get("schedule") {
        let part = |key: &str| window.get(key).and_then(|at| at.text());
        if let (Some(start), Some(end)) = (part("start"), part("end")) {
            let zone = part("timezone").unwrap_or_else(|| "UTC".to_owned());
            spec.insert("window".to_owned(), format!("{start}-{end} {zone}").into());
        }
    }
    if let Some(pipelines) = at.get("pipelines") {
        let names: Vec<String> = pipelines.items().iter().filter_map(At::text).collect();
        spec.insert("pipelines".to_owned(), json!(names));
    }
}

/// Rates, as quotas have them.
fn network(at: &At<'_, '_>, out: &mut Output) {
    let mut rates = serde_json::Map::new();
    if let Some(global) = at.at(&["rate_limiting", "global"])
        && let Some(rate) = rate(&global)
    {
        rates.insert("api".to_owned(), rate);
    }
    for (service, limits) in
        at.at(&["rate_limiting", "per_service"]).map(|at| at.entries()).unwrap_or_default()
    {
        if let Some(rate) = rate(&limits) {
            rates.insert(format!("api/{service}"), rate);
        }
    }
    for (key, name) in [("ingress_limit", "ingress"), ("egress_limit", "egress")] {
        if let Some(limit) = at.at(&["bandwidth", key]).and_then(|at| at.value()) {
            rates.insert(name.to_owned(), limit);
        }
    }
    if !rates.is_empty() {
        out.object("Quota", "network").insert("rate".to_owned(), Value::Object(rates));
    }
}

fn rate(at: &At<'_, '_>) -> Option<Value> {
    let (key, unit) =
        [("requests_per_second", "s"), ("requests_per_minute", "min"), ("requests_per_hour", "h")]
            .into_iter()
            .find(|(key, _)| at.get(key).is_some())?;
    let number = at.get(key)?.whole()?;
    let burst = at
        .get("burst_size")
        .and_then(|at| at.whole())
        .map_or_else(String::new, |burst| format!(" burst {burst}"));
    Some(format!("{number}/{unit}{burst}").into())
}

fn packing(at: &At<'_, '_>, out: &mut Output) {
    let Some(algorithm) = at.get("bin_packing_algorithm") else { return };
    let known = algorithm.peek().is_some_and(|word| STRATEGIES.iter().any(|(known, _)| *known == word));
    if known && at.is("enabled", "true") {
        let word = algorithm.value().unwrap_or_default();
        out.object("Pool", DEFAULT).insert("strategy".to_owned(), word);
    }
}

/// Conditions on measurements: there is nothing yet that acts on them, but they are checked.
fn conditions(root: &At<'_, '_>) {
    let alerts = root.at(&["monitoring", "resources", "alerts"]).map(|at| at.items()).unwrap_or_default();
    let mut conditions: Vec<At<'_, '_>> = alerts.iter().filter_map(|alert| alert.get("condition")).collect();
    let classes = root.at(&["qos", "classes"]).map(|at| at.entries()).unwrap_or_default();
    conditions.extend(classes.iter().filter_map(|(_, class)| class.get("eviction_threshold")));
    for condition in conditions {
        let Some(text) = condition.peek() else { continue };
        condition.tell(match plimsoll_expr::Expression::parse(text, &plimsoll_expr::Names::measurements()) {
            Ok(_) => "is a condition that can be read, and nothing acts on conditions yet".to_owned(),
            Err(problem) => format!("is not a condition: {}", problem.sentence()),
        });
    }
}

/// `true`, `false` or a number.
fn literal(at: &At<'_, '_>) -> Option<Value> {
    match at.peek()? {
        "true" | "false" => at.text().map(|text| (text == "true").into()),
        _ => at.value(),
    }
}

/// A duration in its canonical form; bare numbers are seconds.
pub(super) fn duration(at: &At<'_, '_>) -> Option<String> {
    let value = at.quantity(|text| parse_duration_ms(text).map(format_duration_ms))?;
    value.as_str().map(str::to_owned)
}
