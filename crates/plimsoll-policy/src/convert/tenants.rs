//! Users, teams and tenants: what becomes queues and quotas.

use serde_json::{Map, Value, json};

use super::tree::At;
use super::{Output, object_name};

/// Blocks about who may have how much.
pub(super) fn read(root: &At<'_, '_>, out: &mut Output) {
    let Some(at) = root.get("multi_tenancy") else { return };
    // Quotas are looked at whenever there are some.
    at.is("enabled", "true");
    for (name, limits) in at.get("user_limits").map(|at| at.entries()).unwrap_or_default() {
        user(&name, &limits, out);
    }
    for (name, limits) in at.get("team_limits").map(|at| at.entries()).unwrap_or_default() {
        team(&name, &limits, out);
    }
    if let Some(allocation) = at.get("resource_allocation")
        && allocation.is("method", "fair_share")
    {
        out.object("Pool", "default").insert("fairness".to_owned(), "fair".into());
    }
    if let Some(limits) = at.get("tenant_limits") {
        tenant(&limits, out);
    }
    if let Some(level) = at.get("isolation_level") {
        level.tell("tenants share nodes: what is granted is kept apart, nothing else");
    }
}

/// `config: { user_quotas, team_shares }` of fair scheduling.
pub(super) fn shares_and_quotas(scheduling: &At<'_, '_>, out: &mut Output) {
    let Some(at) = scheduling.get("config") else { return };
    for (name, quota) in at.get("user_quotas").map(|at| at.entries()).unwrap_or_default() {
        let Some(name) = object_name(&quota, &name) else { continue };
        let mut per_user = Map::new();
        for (from, to) in [("cpu_hours", "cpuHours"), ("gpu_hours", "gpuHours")] {
            if let Some(hours) = quota.get(from).and_then(|at| at.value()) {
                per_user.insert(to.to_owned(), hours);
            }
        }
        if let Some(hours) = quota.get("memory_gb_hours").and_then(|at| at.whole()) {
            per_user.insert("memoryHours".to_owned(), format!("{hours}Gi").into());
        }
        put(out, "Quota", &name, "perUser", per_user);
    }
    for (name, share) in at.get("team_shares").map(|at| at.entries()).unwrap_or_default() {
        let Some(name) = object_name(&share, &name) else { continue };
        if let Some(weight) = share.value() {
            out.object("Queue", &name).insert("weight".to_owned(), weight);
        }
    }
}

fn user(name: &str, at: &At<'_, '_>, out: &mut Output) {
    let Some(name) = object_name(at, name) else { return };
    let mut per_user = Map::new();
    for (from, to) in [("concurrent_pipelines", "concurrent"), ("daily_executions", "daily")] {
        if let Some(count) = at.get(from).and_then(|at| at.whole()) {
            per_user.insert(to.to_owned(), count.into());
        }
    }
    put(out, "Quota", &name, "perUser", per_user);
    let mut budget = Map::new();
    for key in ["daily", "monthly"] {
        if let Some(most) = at.at(&["cost_budget", key]).and_then(|at| at.value()) {
            budget.insert(key.to_owned(), most);
        }
    }
    put(out, "Quota", &name, "budget", budget);
}

fn team(name: &str, at: &At<'_, '_>, out: &mut Output) {
    let Some(name) = object_name(at, name) else { return };
    let mut quotas = Map::new();
    for (resource, amount) in at.get("dedicated_resources").map(|at| at.entries()).unwrap_or_default() {
        if let Some(amount) = amount.amount(&resource) {
            quotas.insert(resource, json!({ "guaranteed": amount.clone(), "nominal": amount }));
        }
    }
    if !quotas.is_empty() {
        let queue = out.object("Queue", &name);
        queue.insert("quotas".to_owned(), json!({ "default": Value::Object(quotas) }));
    }
    if let Some(storage) = at.get("storage_quota").and_then(|at| at.amount("storage")) {
        put(out, "Quota", &name, "nominal", Map::from_iter([("storage".to_owned(), storage)]));
    }
}

/// What each tenant may have.
fn tenant(at: &At<'_, '_>, out: &mut Output) {
    let mut nominal = Map::new();
    for (way, resource) in [
        (["compute", "cpu_cores_per_tenant"], "cpu"),
        (["compute", "memory_per_tenant"], "memory"),
        (["quotas", "storage_per_tenant"], "storage"),
    ] {
        if let Some(amount) = at.at(&way).and_then(|at| at.amount(resource)) {
            nominal.insert(resource.to_owned(), amount);
        }
    }
    put(out, "Quota", "tenant", "nominal", nominal);
}

/// Puts a block where there is something in it.
fn put(out: &mut Output, kind: &'static str, name: &str, key: &str, block: Map<String, Value>) {
    if !block.is_empty() {
        out.object(kind, name).insert(key.to_owned(), Value::Object(block));
    }
}
