//! Numbers of nodes and of instances: what becomes scaling policies and services, and what of the work goes to spot nodes.

use serde_json::{Map, Value, json};

use super::output::{Output, object_name};
use super::sections::DEFAULT;
use super::tree::{At, number};
use crate::kinds::scaling_policy::{Unit, form};

/// What a pool is scaled by.
const OF_POOLS: [&str; 6] = ["cpu", "memory", "gpu", "queue_depth", "wait_time", "contention"];
/// What is said of a scaling policy that nobody acts on.
const NOBODY_ACTS: &str = "is not said: it is decided how many there should be, and nobody acts until the policy has a provider and a template (docs/autoscaling.md)";

/// `autoscaling`, of the pool that exists from the start.
pub(super) fn autoscaling(at: &At<'_, '_>, out: &mut Output) {
    if at.is_off() {
        return;
    }
    let mut spec = Map::from_iter([("target".to_owned(), format!("pool/{DEFAULT}").into())]);
    if let Some(policy) = at.get("scaling_policy") {
        for (key, bound) in [("min_replicas", "min"), ("max_replicas", "max")] {
            spec.extend(
                policy.get(key).and_then(|at| at.whole()).map(|most| (bound.to_owned(), most.into())),
            );
        }
        for (key, step, direction) in
            [("scale_up", "increment", "scaleUp"), ("scale_down", "decrement", "scaleDown")]
        {
            let Some(at) = policy.get(key) else { continue };
            let mut block = Map::new();
            block.extend(at.get(step).and_then(|at| at.whole()).map(|step| ("step".to_owned(), step.into())));
            let cooldown = at.get("cooldown").and_then(|at| at.duration());
            block.extend(cooldown.map(|cooldown| ("cooldown".to_owned(), cooldown.into())));
            spec.insert(direction.to_owned(), Value::Object(block));
        }
    }
    let metrics = at.get("metrics").map(|at| at.items()).unwrap_or_default();
    let targets: Vec<Value> = metrics.iter().filter_map(target).collect();
    if !targets.is_empty() {
        spec.insert("targets".to_owned(), targets.into());
    }
    out.object("ScalingPolicy", DEFAULT).extend(spec);
    at.note(format!("is of the nodes of the pool {DEFAULT} (target: service/NAME for replicas of a service); who starts them {NOBODY_ACTS}"));
}

/// A metric with what it should be.
fn target(at: &At<'_, '_>) -> Option<Value> {
    let metric = at.get("type")?;
    let Some(word) = metric.peek().filter(|word| OF_POOLS.contains(word)) else {
        at.tell(format!("pools are scaled by {}", OF_POOLS.join(", ")));
        return None;
    };
    let share = form(word).0 == Unit::Share || word == "contention";
    let target = at.get("target")?.text()?;
    metric.take();
    match word {
        "cpu" | "memory" | "gpu" => at.note("is what is granted of the nodes, not what is in use on them"),
        "queue_depth" => at.note("is counted for each node; per: total makes it the number of all who wait"),
        _ => {}
    }
    let target = if share && !target.ends_with('%') { format!("{target}%").into() } else { number(&target) };
    Some(json!({ "metric": word, "target": target }))
}

/// `models: { resource_management }`: a model is a service, its instances are replicas.
pub(super) fn models(at: &At<'_, '_>, out: &mut Output) {
    let Some(at) = at.get("resource_management") else { return };
    let pooling = at.get("instance_pooling").filter(|pooling| !pooling.is_off());
    let models = at.get("allocation").map(|at| at.entries()).unwrap_or_default();
    if models.is_empty() {
        if let Some(pooling) = pooling {
            pooling.tell(
                "is of no model: each becomes a Service with a ScalingPolicy, by its name under allocation",
            );
        }
    } else {
        let bound = |key: &str| pooling.as_ref().and_then(|at| at.get(key)).and_then(|at| at.whole());
        let (least, most) = (bound("min_instances"), bound("max_instances"));
        let idle = pooling.as_ref().and_then(|at| at.get("idle_timeout")).and_then(|at| at.duration());
        for (name, model) in &models {
            self::model(name, model, (least, most), idle.as_deref(), out);
        }
        if let Some(allocation) = at.get("allocation") {
            allocation.note(format!("who starts instances of the services {NOBODY_ACTS}; one that is started by hand is a replica, too: plimsoll run --service NAME --listen HOST:PORT"));
        }
    }
    at.tell_of("model_loading", "when a model is loaded and what is kept of it is for its server: no models are loaded or cached here");
}

fn model(
    name: &str,
    at: &At<'_, '_>,
    (least, most): (Option<u64>, Option<u64>),
    idle: Option<&str>,
    out: &mut Output,
) {
    let Some(name) = object_name(at, name) else { return };
    out.object("Service", &name);
    let dedicated = at.get("dedicated_instances").and_then(|at| at.whole());
    let requests = at.get("max_concurrent_requests");
    let in_flight = requests.as_ref().and_then(|at| at.whole());
    let min = least.max(dedicated).unwrap_or(1);
    let spec = out.object("ScalingPolicy", &name);
    spec.insert("target".to_owned(), format!("service/{name}").into());
    spec.insert("min".to_owned(), min.into());
    // Dedicated instances alone are so many, always.
    spec.insert("max".to_owned(), most.unwrap_or(min).max(min).into());
    if let Some(in_flight) = in_flight {
        spec.insert("targets".to_owned(), json!([{ "metric": "in_flight", "target": in_flight }]));
    }
    // An instance goes when none so many was needed for so long.
    if let Some(idle) = idle {
        spec.insert("scaleDown".to_owned(), json!({ "stabilization": idle }));
    }
    if let (Some(at), Some(most)) = (requests, in_flight) {
        at.note(format!("is aimed at for each instance and not enforced: {most} more in flight ask for one instance more, and no request is refused"));
    }
}

/// `compute: { spot_instances }`: how much of the work goes to spot nodes, and what becomes of it there.
pub(super) fn spot(at: &At<'_, '_>, out: &mut Output) {
    let share = at.get("percentage").and_then(|at| at.whole()).unwrap_or(100);
    // Switched off it is a share too: none.
    let share = if at.is("enabled", "false") { 0 } else { share };
    at.is("enabled", "true");
    let mut block = json!({ "share": format!("{share}%") });
    if let Some(fallback) = at.get("fallback") {
        for (key, as_) in [("on_interruption", "onInterruption"), ("max_price_increase", "maxPriceIncrease")]
        {
            if let Some(value) = fallback.get(key).and_then(|at| at.value()) {
                block[as_] = value;
            }
        }
    }
    let tasks = at.get("suitable_tasks");
    let suitable = tasks.as_ref().map(|at| at.items()).unwrap_or_default();
    let suitable: Vec<Value> = suitable.iter().filter_map(At::value).collect();
    if let (Some(tasks), Some(first)) = (tasks, suitable.first()) {
        let first = first.as_str().unwrap_or("TASK");
        tasks.note(format!("are known by a label, or by their class: runs say --label task={first}"));
    }
    if !suitable.is_empty() {
        block["suitableFor"] = suitable.into();
    }
    out.object("Pool", DEFAULT).insert("spot".to_owned(), block);
}
