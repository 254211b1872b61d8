//! Every block of a document, and what is said of those that are about something else.

use super::output::Output;
use super::tree::{At, Tree};
use super::{classes, network, queues, requests, scaling, tenants};
use crate::kinds::pool::STRATEGIES;

/// The pool that exists from the start.
pub(super) const DEFAULT: &str = "default";

/// What is said of results that are kept.
const NO_CACHES: &str = "results are not cached here";
/// What is said of calls that are gathered.
const NO_BATCHES: &str =
    "calls are not gathered here: batch of a Queue (size and interval) gathers requests for resources";

/// Reads every block of a document.
pub(super) fn read(tree: &Tree<'_>, out: &mut Output) {
    let root = tree.root();
    if let Some(at) = root.get("scheduling") {
        classes::scheduling(&at, out);
    }
    for (name, queue) in root.at(&["queues", "configuration"]).map(|at| at.entries()).unwrap_or_default() {
        queues::queue(&name, &queue, out);
    }
    for (name, class) in root.at(&["qos", "classes"]).map(|at| at.entries()).unwrap_or_default() {
        classes::qos(&name, &class, out);
    }
    for item in root.get("reservations").map(|at| at.items()).unwrap_or_default() {
        queues::schedule(&item, out);
    }
    if let Some(at) = root.get("network") {
        network::read(&at, out);
    }
    if let Some(at) = root.at(&["compute", "spot_instances"]) {
        scaling::spot(&at, out);
    }
    if let Some(at) = root.get("autoscaling") {
        scaling::autoscaling(&at, out);
    }
    if let Some(at) = root.get("models") {
        scaling::models(&at, out);
    }
    tenants::read(&root, out);
    requests::read(&root, out);
    if let Some(at) = root.at(&["cost_optimization", "strategies"]) {
        strategies(&at, out);
    }
    if let Some(at) = root.get("optimization") {
        optimization(&at);
    }
    if let Some(at) = root.at(&["monitoring", "resources"]) {
        monitoring(&at);
    }
}

/// `cost_optimization: { strategies }`.
fn strategies(at: &At<'_, '_>, out: &mut Output) {
    at.tell_of("model_selection", "which model answers is for who asks: it names its service");
    at.tell_of("caching", NO_CACHES);
    at.tell_of("batching", NO_BATCHES);
    let Some(packing) = at.get("resource_packing") else { return };
    if packing.is_off() {
        return;
    }
    let Some(algorithm) = packing.get("bin_packing_algorithm") else { return };
    match algorithm.peek().filter(|word| STRATEGIES.iter().any(|(known, _)| known == word)) {
        Some(word) => {
            algorithm.take();
            out.object("Pool", DEFAULT).insert("strategy".to_owned(), word.into());
        }
        None => {
            let words = STRATEGIES.map(|(known, _)| known).join(", ");
            algorithm.tell(format!("is no strategy of a pool: there are {words}"));
        }
    }
}

/// `optimization` of a pipeline.
fn optimization(at: &At<'_, '_>) {
    at.tell_of("batching", NO_BATCHES);
    at.tell_of("caching", NO_CACHES);
    at.tell_of("cache_strategy", NO_CACHES);
    if let Some(tasks) = at.get("parallel_tasks") {
        let most = tasks.peek().unwrap_or("N");
        tasks.tell(format!("is not of one pipeline: perRun: {{ concurrent: {most} }} of a Quota bounds every run of its queue or tenant, and neither is said"));
    }
    if at.is("gpu_scheduling", "exclusive") {
        at.tell_of(
            "gpu_scheduling",
            "is how whole devices are granted; who asks for a part of one (gpu: 0.5) shares it",
        );
    }
}

/// What is measured, and conditions on it: agents measure by themselves, and alerts are not raised yet; conditions are checked.
fn monitoring(at: &At<'_, '_>) {
    at.tell_of(
        "collection_interval",
        "is not chosen: agents send a sample of their node with every heartbeat",
    );
    at.tell_of("metrics", "is not chosen: plimsoll get nodes -o wide and the metrics plimsoll_node_measured_* show what is measured");
    for alert in at.get("alerts").map(|at| at.items()).unwrap_or_default() {
        let action = match alert.get("action").and_then(|at| at.peek()) {
            Some("scale_up") => {
                "; a pool grows by what is granted and by who waits (kind: ScalingPolicy), or by contention (resolve: [scale])"
            }
            Some("evict_low_priority") => {
                "; best effort of a class leaves a node by evictWhen: \"memory > 90%\", a share and no amount"
            }
            _ => "",
        };
        let names = plimsoll_expr::Names::measurements();
        let condition = alert.get("condition").and_then(|at| at.peek()).unwrap_or_default();
        let read = match plimsoll_expr::Expression::parse(condition, &names) {
            Ok(_) => "its condition can be read, and nothing acts on conditions yet".to_owned(),
            Err(problem) => format!("its condition is none: {}", problem.sentence()),
        };
        alert.tell(format!("{read}{action}"));
    }
}
