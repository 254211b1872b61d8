//! Queues, and parts of the pool that are kept at times: what becomes queues and schedules.

use serde_json::{Value, json};

use super::output::{Output, object_name};
use super::tree::At;

/// Time between batches where a queue names a size alone.
const DEFAULT_BATCH_INTERVAL: &str = "1m";

/// A queue of `queues: { configuration }`.
pub(super) fn queue(name: &str, at: &At<'_, '_>, out: &mut Output) {
    let Some(name) = object_name(at, name) else { return };
    if name == "default" {
        at.note("is a queue as all others: who names none is in none, so say --queue default");
    }
    let spec = out.object("Queue", &name);
    if let Some(most) = at.get("max_size").and_then(|at| at.whole()) {
        spec.insert("maxPending".to_owned(), most.into());
    }
    if let Some(size) = at.get("batch_size").and_then(|at| at.whole()) {
        let interval = at.get("processing_interval").and_then(|at| at.duration());
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
        Some(_) => at.tell_of("overflow_policy", "a queue without max_size is never full"),
        None => at.tell_of("overflow_policy", "reject, spill_to_disk and compress are what there is"),
    }
}

/// An item of `reservations`.
pub(super) fn schedule(at: &At<'_, '_>, out: &mut Output) {
    let Some(name) = at.get("name").and_then(|at| at.text()).and_then(|name| object_name(at, &name)) else {
        return;
    };
    let spec = out.object("Schedule", &name);
    if let Some(resources) = at.get("resources") {
        spec.insert("resources".to_owned(), Value::Object(resources.amounts()));
    }
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
    let pipelines = at.get("pipelines").map(|at| at.items()).unwrap_or_default();
    let mut patterns: Vec<String> = pipelines.iter().filter_map(At::text).collect();
    if patterns.is_empty() {
        // With nobody to keep it for it would be kept from everybody.
        at.note(format!("for whom it is kept is not said: for the pipeline {name} (label pipeline, or the name of a request) until pipelines, queues, tenants or classes name others"));
        patterns.push(name);
    }
    spec.insert("pipelines".to_owned(), json!(patterns));
}
