//! Scheduling and qualities of service: what becomes classes, and the fairness of the pool.

use plimsoll_ledger::EvictWhen;
use serde_json::Value;

use super::output::{Output, object_name};
use super::sections::DEFAULT;
use super::tenants;
use super::tree::At;
use crate::kinds::pool::{FAIRNESS, STRATEGIES};

/// `scheduling: { strategy, classes, config }`.
pub(super) fn scheduling(at: &At<'_, '_>, out: &mut Output) {
    if let Some(strategy) = at.get("strategy") {
        let shares = at.at(&["config", "team_shares"]).is_some();
        match strategy.peek() {
            // Shares are weights, which fair alone does not look at.
            Some("fair") if shares => {
                strategy.take();
                out.object("Pool", DEFAULT).insert("fairness".to_owned(), "weighted".into());
            }
            Some(word) if FAIRNESS.iter().any(|(known, _)| *known == word) => {
                strategy.take();
                out.object("Pool", DEFAULT).insert("fairness".to_owned(), word.into());
            }
            Some(word) if STRATEGIES.iter().any(|(known, _)| *known == word) => {
                strategy.take();
                out.object("Pool", DEFAULT).insert("strategy".to_owned(), word.into());
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
            spec.insert("guaranteed".to_owned(), Value::Object(at.amounts()));
        }
        if let Some(factor) = class.get("resource_multiplier").and_then(|at| at.decimal()) {
            spec.insert("multiplier".to_owned(), factor);
        }
    }
    tenants::shares_and_quotas(at, out);
}

/// A class of `qos: { classes }`.
pub(super) fn qos(name: &str, at: &At<'_, '_>, out: &mut Output) {
    let Some(name) = object_name(at, name) else { return };
    let spec = out.object("Class", &name);
    if let Some(priority) = at.get("preemption_priority").and_then(|at| at.whole()) {
        spec.insert("priority".to_owned(), priority.into());
    }
    let mut quality = "";
    if let Some(guarantee) = at.get("resource_guarantee") {
        quality = match guarantee.peek() {
            Some("100%") => "guaranteed",
            Some("0%") => "best_effort",
            _ => "burstable",
        };
        if quality == "burstable" {
            guarantee.tell(
                "is not of a class: what a burstable request asks is backed in full, so each asks for the part that is guaranteed, and says the rest as burst",
            );
        } else {
            guarantee.take();
        }
        // Whoever is guaranteed everything is not preempted.
        spec.insert("preemptible".to_owned(), (quality != "guaranteed").into());
        spec.insert("qos".to_owned(), quality.into());
    }
    if let Some(limit) = at.get("burst_limit") {
        let most = limit.peek().unwrap_or_default();
        let why = format!(
            "is not of a class: how far it may go is said with each request (burst: {{ cpu: 4 }}, --burst cpu=4), here to {most} of what it asks"
        );
        limit.tell(why);
    }
    if let Some(threshold) = at.get("eviction_threshold") {
        match threshold.peek().unwrap_or_default().parse::<EvictWhen>() {
            Ok(_) if quality != "best_effort" => {
                threshold.tell("says nothing: only best effort leaves a node for what that measures");
            }
            Ok(when) => {
                threshold.take();
                spec.insert("evictWhen".to_owned(), when.to_string().into());
            }
            Err(error) => threshold.tell(error.to_string()),
        }
    }
    at.tell_of(
        "network_priority",
        "traffic has no priorities here: bandwidth is reserved with a request (--bandwidth 100Mbps)",
    );
}

/// `true`, `false` or a number.
fn literal(at: &At<'_, '_>) -> Option<Value> {
    match at.peek()? {
        "true" | "false" => at.text().map(|text| (text == "true").into()),
        _ => at.value(),
    }
}
