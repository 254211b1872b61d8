//! What pipelines and their steps ask for: requests (`kind: Reservation`), parallel tasks as gangs.

use plimsoll_ledger::GENESIS_CLASSES;
use serde_json::{Map, Value, json};

use super::asks::{LOCAL, add_bytes, asks, put_resource, storage};
use super::output::{Output, object_name};
use super::tree::At;
use super::{limits, places};
use crate::kinds::class::QOS;

/// The name of a pipeline that has none.
const UNNAMED: &str = "pipeline";
/// Keys of a request that say how much.
const AMOUNTS: [&str; 5] = ["cpu", "memory", "gpu", "gpuMemory", "resources"];
/// What is said of requests.
const ANEW: &str =
    "each run asks for it anew, and apply submits the document once: plimsoll run takes the same as flags";
/// What is said of what a step does.
const ACTION: &str = "what a step does is the command of plimsoll run";

/// Blocks about a pipeline and its steps.
pub(super) fn read(root: &At<'_, '_>, out: &mut Output) {
    let named = root.get("name");
    let name = named.as_ref().and_then(At::peek).unwrap_or(UNNAMED);
    let mut request = Map::new();
    let mut has_label = named.is_some();
    if let Some(compute) = root.at(&["resources", "compute"]) {
        asks(&compute, true, &mut request);
        compute.note(ANEW);
    }
    if let Some(requirements) = root.get("resource_requirements") {
        self::requirements(&requirements, &mut request, out);
    }
    if let Some(storage) = root.get("storage") {
        self::storage(&storage, &mut request);
        storage.note(ANEW);
    }
    if let Some(affinity) = root.get("affinity") {
        has_label |= places::read(&affinity, name, &mut request);
        affinity.note(ANEW);
    }
    let whole = !request.is_empty();
    if let Some(scheduling) = root.at(&["optimization", "scheduling"]) {
        preferred_hours(&scheduling, whole, &mut request);
    }
    if whole {
        if !AMOUNTS.iter().any(|key| request.contains_key(*key))
            && let Some(at) = root.get("resource_requirements").or_else(|| root.get("affinity"))
        {
            at.note("how much it asks is not said: add cpu, memory or gpu to the request");
        }
        out.object("Reservation", name).extend(request);
        if has_label {
            out.label("Reservation", name, "pipeline", name);
        }
    }
    if let Some(limits) = root.at(&["pipeline", "resource_limits"]) {
        limits::of_pipeline(&limits, out);
    }
    let steps = self::steps(root, named.as_ref().and_then(At::peek), out);
    if let Some(at) = root.get("steps").filter(|_| steps) {
        at.note(ANEW);
        if whole {
            at.note("what the pipeline asks as a whole and what its steps ask is granted side by side: submit the one or the others");
        }
    }
    if let Some(named) = named {
        if whole || steps {
            named.take();
        } else {
            named.tell(format!("is said with each run: plimsoll run --label pipeline={name}"));
        }
    }
}

/// `resource_requirements` of a pipeline.
fn requirements(at: &At<'_, '_>, request: &mut Map<String, Value>, out: &Output) {
    if let Some(class) = at.get("class")
        && let Some(word) = class.text()
    {
        self::class(&class, &word, request, out);
    }
    if let Some(compute) = at.get("compute") {
        asks(&compute, true, request);
        compute.note(ANEW);
    }
    if let Some(storage) = at.get("storage") {
        let sizes: Vec<At<'_, '_>> = storage.entries().into_iter().map(|(_, size)| size).collect();
        if add_bytes(request, LOCAL, &sizes) {
            storage.note("is counted in storage/local, the disk that agents offer, while the grant lasts: no folder is made, and nothing is kept");
        }
    }
    if let Some(network) = at.get("network") {
        if let Some(guarantee) = network.get("bandwidth_guarantee")
            && let Some(rate) = guarantee.amount("network")
        {
            for way in ["network/in", "network/out"] {
                put_resource(request, way, rate.clone());
            }
            guarantee.note("is reserved in both directions, on nodes that offer network/in and network/out");
        }
        network.tell_of("priority", "traffic has no priorities here: bandwidth is reserved");
    }
    spot(at, request);
    if let Some(costs) = at.get("cost_controls") {
        if let Some(most) = costs.get("max_hourly_cost") {
            let money = most.peek().unwrap_or_default();
            most.tell(format!("money is bounded by grant, day and month, not by the hour: a grant of 3 hours has maxCost of 3 times {money} (--for 3h --max-cost)"));
        }
        costs.tell_of("prefer_cached_results", "results are not cached here");
        costs.tell_of("model_selection", "which model answers is for who asks: it names its service");
    }
}

/// Hours go with a request: with that of the pipeline as a whole, where there is one.
fn preferred_hours(at: &At<'_, '_>, is_asked: bool, request: &mut Map<String, Value>) {
    let Some(preferred) = at.get("preferred_hours") else {
        return at.tell_of(
            "max_wait_time",
            "is of preferred hours, and none are said; wait of a request is when it gives up",
        );
    };
    let Some(schedule) = preferred.peek().and_then(|text| object_name(&preferred, text)) else { return };
    if !is_asked {
        let words = format!("--prefer-hours {schedule} --longest-wait DURATION");
        preferred.tell(format!("is said with each request: {words}"));
        return at.tell_of("max_wait_time", "is said with each request: --longest-wait");
    }
    preferred.take();
    preferred.note(format!("is a Schedule that has to be there first, of no resources: kind: Schedule, name: {schedule}, spec: {{ window: \"22:00-06:00 UTC\" }}"));
    let longest = at.get("max_wait_time").and_then(|at| at.duration());
    let mut hours = Map::from_iter([("schedule".to_owned(), Value::from(schedule))]);
    hours.extend(longest.map(|longest| ("longestWait".to_owned(), Value::from(longest))));
    request.insert("preferHours".to_owned(), hours.into());
}

/// Qualities of service are no classes, but where a class has their name.
fn class(at: &At<'_, '_>, word: &str, request: &mut Map<String, Value>, out: &Output) {
    if QOS.iter().any(|(known, _)| *known == word) && !out.has("Class", word) {
        request.insert("qos".to_owned(), word.into());
        return;
    }
    if !out.has("Class", word) && !GENESIS_CLASSES.iter().any(|(known, ..)| *known == word) {
        at.note("is a class that the file does not have: the request is refused until there is one");
    }
    request.insert("class".to_owned(), word.into());
}

/// A wish where it is wanted: a request that takes nothing else would wait where there are no such nodes.
fn spot(at: &At<'_, '_>, request: &mut Map<String, Value>) {
    let term = |operator: &str| json!({ "key": "capacity_type", "operator": operator, "values": ["spot"] });
    if at.is("use_spot_instances", "true") {
        let mut wish = json!({ "weight": 100 });
        for (key, value) in term("In").as_object().into_iter().flatten() {
            wish[key] = value.clone();
        }
        request.insert("prefer".to_owned(), json!([wish]));
        if let Some(at) = at.get("use_spot_instances") {
            at.note("is a wish: it runs elsewhere where no spot node has room, unless the same stands under require");
        }
    } else if at.is("use_spot_instances", "false") {
        request.insert("require".to_owned(), json!([term("NotIn")]));
    }
}

/// Requests of steps. True where there are some.
fn steps(root: &At<'_, '_>, pipeline: Option<&str>, out: &mut Output) -> bool {
    let mut some = false;
    for (index, step) in root.get("steps").map(|at| at.items()).unwrap_or_default().iter().enumerate() {
        let id = step.get("id");
        let name = id.as_ref().and_then(At::peek).map_or_else(|| format!("step-{index}"), str::to_owned);
        let mut request = Map::new();
        if let Some(resources) = step.get("resources") {
            asks(&resources, true, &mut request);
        }
        if let Some(parallel) = step.get("parallel") {
            gang(&parallel, &mut request);
        }
        let limits = step.get("resource_limits");
        if let Some(limits) = &limits {
            limits::of_task(limits, &name, &mut request, out);
        }
        if let Some(id) = id {
            if request.is_empty() && limits.is_none() {
                id.tell(format!("is said with each run: plimsoll run --name {name}"));
            } else {
                id.take();
            }
        }
        step.tell_of("action", ACTION);
        if request.is_empty() {
            continue;
        }
        some = true;
        out.object("Reservation", &name).extend(request);
        if let Some(pipeline) = pipeline {
            out.label("Reservation", &name, "pipeline", pipeline);
        }
    }
    some
}

/// Parallel tasks: one that is done by many is a gang of as many as fit, several are roles of one.
fn gang(at: &At<'_, '_>, request: &mut Map<String, Value>) {
    let tasks = at.get("tasks").map(|at| at.items()).unwrap_or_default();
    let workers = at.get("max_workers");
    let most = workers.as_ref().and_then(|at| at.whole());
    let mut roles = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        let Some(resources) = task.get("resources") else {
            task.tell_of("action", ACTION);
            continue;
        };
        if tasks.len() == 1 {
            asks(&resources, true, request);
            task.tell_of("action", ACTION);
            continue;
        }
        let action = task.get("action").and_then(|at| at.text());
        let mut role = Map::new();
        role.insert("name".to_owned(), action.unwrap_or_else(|| format!("task-{index}")).into());
        asks(&resources, false, &mut role);
        roles.push(Value::Object(role));
    }
    if !roles.is_empty() {
        request.insert("roles".to_owned(), roles.into());
    }
    let (Some(workers), Some(most)) = (workers, most) else { return };
    match tasks.len() {
        1 if most > 1 && !request.is_empty() => {
            request.insert("members".to_owned(), format!("1-{most}").into());
            workers.note(format!("is a gang of 1 to {most} members: as many are granted together as fit, and what each does is for the command"));
        }
        0 | 1 => {}
        many if most < many as u64 => {
            workers.tell(format!(
                "the {many} tasks are granted together or not at all; a gang of fewer is not the step"
            ));
        }
        _ => {}
    }
}
