//! What a pipeline and its tasks may use at most: rules on requests, and quotas of runs.

use serde_json::{Map, Value};

use super::output::Output;
use super::tenants::PRICES;
use super::tree::At;

/// Validator and quota of pipelines.
const PIPELINE: &str = "pipeline";
/// Validator of tasks.
const TASKS: &str = "tasks";
/// What is said of retries.
const RETRIES: &str = "is said with each run";

/// `pipeline: { resource_limits }`.
pub(super) fn of_pipeline(at: &At<'_, '_>, out: &mut Output) {
    at.note("holds for requests with the label pipeline, for all pipelines, and for each request by itself; what a run has in all is bounded by perRun of a Quota, in concurrent, storage, hours and cost");
    rules(at, PIPELINE, "!('pipeline' in request.labels) || ", out);
    retries(at);
    let mut per_run = Map::new();
    if let Some(most) = at.get("max_concurrent_tasks").and_then(|at| at.whole()) {
        per_run.insert("concurrent".to_owned(), most.into());
    }
    if let Some(costs) = at.get("cost_limits") {
        if let Some(most) = costs.get("max_cost").and_then(|at| at.value()) {
            per_run.insert("cost".to_owned(), most);
            costs.note(PRICES);
        }
        for key in ["max_model_calls", "max_tokens"] {
            costs.tell_of(key, "is not counted by run: a rate (kind: Quota, rate: { api/openai: 60/min }) bounds calls and tokens in a time");
        }
    }
    if !per_run.is_empty() {
        at.note("a run is what has the same label run, or else pipeline: executions that are to be counted one by one say --label run=ID");
        out.merge("Quota", PIPELINE, "perRun", per_run);
    }
}

/// `resource_limits` of a step: a rule on requests of its name, and what its own request says of it.
pub(super) fn of_task(at: &At<'_, '_>, name: &str, request: &mut Map<String, Value>, out: &mut Output) {
    let longest = rules(at, TASKS, &format!("request.name != {name:?} || "), out);
    retries(at);
    for resource in ["cpu", "memory"] {
        let Some(at) = at.get(resource).or_else(|| at.get(&format!("max_{resource}"))) else { continue };
        if let Some(most) = at.amount(resource)
            && !request.contains_key(resource)
        {
            request.insert(resource.to_owned(), most);
            at.note("is the most, and what its request asks, which says nothing else");
        }
    }
    if let Some(cost) = at.get("max_cost")
        && let Some(most) = cost.value()
    {
        request.insert("maxCost".to_owned(), most);
        cost.note(PRICES);
    }
    if let Some(longest) = longest.filter(|_| !request.is_empty()) {
        request.insert("for".to_owned(), longest.into());
    }
    for (key, why) in [
        ("max_results", "what comes out of a step is for the step"),
        (
            "max_tokens",
            "tokens of models are not counted by step: a rate (kind: Quota, rate) bounds them in a time",
        ),
        (
            "network",
            "traffic and calls of a step are not counted: bandwidth is reserved (--bandwidth 10Mbps), and a rate (kind: Quota, rate) bounds calls in a time",
        ),
    ] {
        at.tell_of(key, why);
    }
}

fn retries(at: &At<'_, '_>) {
    if let Some(retries) = at.get("max_retries") {
        let most = retries.peek().unwrap_or("N");
        retries.tell(format!("{RETRIES}: plimsoll run --retries {most}"));
    }
}

/// Rules that requests must meet, each behind the condition that says for whom it is; the longest time that is allowed.
fn rules(at: &At<'_, '_>, validator: &str, of: &str, out: &mut Output) -> Option<String> {
    let mut longest = None;
    for key in ["max_execution_time", "timeout"] {
        let Some(most) = at.get(key).and_then(|at| at.duration()) else { continue };
        let rule = format!("{of}(request.max_duration > 0 && request.max_duration <= {most})");
        let message = format!("it must end within {most}: plimsoll run --for {most}");
        out.rule(validator, rule, message, "spec.limits.time");
        longest = Some(most);
    }
    for resource in ["memory", "cpu"] {
        for key in [format!("max_{resource}"), resource.to_owned()] {
            let Some(most) = at.get(&key).and_then(|at| at.amount(resource)) else { continue };
            let most = most.as_str().map_or_else(|| most.to_string(), str::to_owned);
            let rule = format!("{of}request.{resource} * request.members <= {most}");
            let message = format!("at most {most} of {resource}");
            out.rule(validator, rule, message, &format!("spec.resources.{resource}"));
        }
    }
    longest
}
