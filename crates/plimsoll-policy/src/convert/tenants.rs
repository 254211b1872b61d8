//! Users, teams and tenants: what becomes queues, quotas and schedules.

use plimsoll_types::quantity::parse_cpu_millis;
use serde_json::{Map, Value, json};

use super::output::{Output, object_name};
use super::sections::DEFAULT;
use super::tree::At;

/// The tier that everybody is in where it is the only one.
const EVERYONE: &str = "default";

/// Blocks about who may have how much.
pub(super) fn read(root: &At<'_, '_>, out: &mut Output) {
    let Some(at) = root.get("multi_tenancy") else { return };
    if at.is_off() {
        return;
    }
    if let Some(users) = at.get("user_limits") {
        tiers(&users, "user", user, out);
    }
    for (name, limits) in at.get("team_limits").map(|at| at.entries()).unwrap_or_default() {
        team(&name, &limits, out);
    }
    if let Some(allocation) = at.get("resource_allocation") {
        self::allocation(&allocation, out);
    }
    if let Some(limits) = at.get("tenant_limits") {
        tenant(&limits, out);
    }
    at.tell_of("isolation_level", "tenants share nodes: what is granted is kept apart, nothing else");
}

/// `config: { user_quotas, team_shares }` of fair scheduling.
pub(super) fn shares_and_quotas(scheduling: &At<'_, '_>, out: &mut Output) {
    let Some(at) = scheduling.get("config") else { return };
    if let Some(quotas) = at.get("user_quotas") {
        tiers(&quotas, "hours", hours, out);
        quotas.note("for how long the hours are is not said: they start anew each month; cpuHours: { day: 100 } or { total: 100 } for another time");
    }
    if let Some(shares) = at.get("team_shares") {
        self::shares(&shares, out);
    }
}

/// Quotas of one user each, by tier: the one of everyone is the lowest, the others follow as they stand.
fn tiers(at: &At<'_, '_>, prefix: &str, read: fn(&At<'_, '_>) -> Map<String, Value>, out: &mut Output) {
    let tiers = at.entries();
    let for_everyone = tiers.len() == 1 && tiers[0].0 == EVERYONE;
    let mut patterns = Vec::new();
    for (tier, limits) in &tiers {
        let Some(name) = object_name(limits, &format!("{prefix}-{tier}")) else { continue };
        let per_user = read(limits);
        if per_user.is_empty() {
            continue;
        }
        if !for_everyone {
            let is_lowest = tier == EVERYONE;
            let pattern = if is_lowest { "*".to_owned() } else { format!("{tier}-*") };
            let rank = if is_lowest { 0 } else { patterns.len() + 1 };
            let block = json!({ "group": prefix, "rank": rank, "users": [pattern] });
            out.object("Quota", &name).insert("tier".to_owned(), block);
            if !is_lowest {
                patterns.push(pattern);
            }
        }
        out.merge("Quota", &name, "perUser", per_user);
    }
    if !patterns.is_empty() {
        at.note(format!(
            "who is in which tier is not said: users whose name, or tenant, fits {} are; name them so, or put their names at tier.users. A user is in the highest tier that names him, and all others are in the default one, where there is one",
            patterns.join(", ")
        ));
    }
}

/// What one user may use up.
fn hours(at: &At<'_, '_>) -> Map<String, Value> {
    let mut per_user = Map::new();
    for (from, to) in [("cpu_hours", "cpuHours"), ("gpu_hours", "gpuHours")] {
        per_user.extend(at.get(from).and_then(|at| at.value()).map(|hours| (to.to_owned(), hours)));
    }
    if let Some(hours) = at.get("memory_gb_hours").and_then(|at| at.whole()) {
        per_user.insert("memoryHours".to_owned(), format!("{hours}Gi").into());
    }
    per_user
}

/// What one user may have and spend.
fn user(at: &At<'_, '_>) -> Map<String, Value> {
    let mut per_user = at_a_time(at);
    if let Some(count) = at.get("daily_executions").and_then(|at| at.whole()) {
        per_user.insert("daily".to_owned(), count.into());
    }
    let mut cost = Map::new();
    for (key, period) in [("daily", "day"), ("monthly", "month"), ("total", "total")] {
        let most = at.at(&["cost_budget", key]).and_then(|at| at.value());
        cost.extend(most.map(|most| (period.to_owned(), most)));
    }
    if !cost.is_empty() {
        per_user.insert("cost".to_owned(), Value::Object(cost));
        if let Some(budget) = at.get("cost_budget") {
            budget.note(PRICES);
        }
    }
    per_user
}

/// What is said of every limit in money.
pub(super) const PRICES: &str = "prices are not said: money is counted in pools that have some (prices: { cpu: 0.04, gpu: 2.50 } and currency of kind: Pool)";

/// Grants and storage, of a user or of a team.
fn at_a_time(at: &At<'_, '_>) -> Map<String, Value> {
    let mut limits = Map::new();
    if let Some(pipelines) = at.get("concurrent_pipelines")
        && let Some(count) = pipelines.whole()
    {
        limits.insert("concurrent".to_owned(), count.into());
        pipelines.note("grants are counted, not pipelines: one that has two grants at a time counts twice");
    }
    if let Some(storage) = at.get("storage_quota").and_then(|at| at.amount("storage")) {
        limits.insert("storage".to_owned(), storage);
    }
    limits
}

/// A team is a queue: what is limited is limited for its requests together, what is dedicated is kept from all others.
fn team(name: &str, at: &At<'_, '_>, out: &mut Output) {
    let Some(name) = object_name(at, name) else { return };
    let Some(own) = object_name(at, &format!("team-{name}")) else { return };
    out.object("Queue", &name);
    at.note(format!(
        "who is of the team is not said: it holds for requests of the queue {name} (--queue {name})"
    ));
    let together = at_a_time(at);
    if !together.is_empty() {
        out.object("Quota", &own).insert("queue".to_owned(), name.as_str().into());
        out.merge("Quota", &own, "together", together);
    }
    if let Some(dedicated) = at.get("dedicated_resources") {
        let schedule = out.object("Schedule", &own);
        schedule.insert("resources".to_owned(), Value::Object(dedicated.amounts()));
        schedule.insert("window".to_owned(), "always".into());
        schedule.insert("queues".to_owned(), vec![name].into());
    }
}

/// Teams are queues below one, since shares are of what a queue has.
fn shares(at: &At<'_, '_>, out: &mut Output) {
    let teams = at.entries();
    let all = if teams.iter().any(|(name, _)| name == "teams") { "all-teams" } else { "teams" };
    out.object("Queue", all);
    for (name, share) in teams {
        let Some(name) = object_name(&share, &name) else { continue };
        // A weight; in percent it is one too.
        let weight = share.quantity(|text| {
            let weight = text.strip_suffix('%').unwrap_or(text).trim_end();
            parse_cpu_millis(weight).map(|_| weight.to_owned())
        });
        if let Some(weight) = weight {
            let queue = out.object("Queue", &name);
            queue.insert("parent".to_owned(), all.into());
            queue.insert("weight".to_owned(), weight);
        }
    }
    at.note(format!(
        "are shares of what the queue {all} has, and how much there is is not said: give it quotas: {{ default: {{ cpu: 64, memory: 256Gi, gpu: 8 }} }} with what the pool has. Until then nothing is shared by weight"
    ));
}

fn allocation(at: &At<'_, '_>, out: &mut Output) {
    if let Some(method) = at.get("method").filter(|method| method.peek() == Some("fair_share")) {
        method.take();
        out.object("Pool", DEFAULT).entry("fairness").or_insert_with(|| "fair".into());
        method.note("is between queues that have quotas below one queue (docs/queues.md), and which queue is whose is not said");
    }
    if let Some(ratio) = at.get("oversubscription_ratio")
        && let Some(factor) = ratio.decimal()
    {
        let factors = ["cpu", "memory"].map(|resource| (resource.to_owned(), factor.clone()));
        out.merge("Pool", DEFAULT, "oversubscription", Map::from_iter(factors));
        ratio.note("is promised to best effort alone (qos: best_effort), and of devices nothing is: two cannot have one GPU");
    }
}

/// What each tenant may have: who asks is the tenant that a request names, or else the user.
fn tenant(at: &At<'_, '_>, out: &mut Output) {
    if let Some(compute) = at.get("compute") {
        let amount = |key: &str, resource| {
            let amount = compute.get(key)?.amount(resource)?;
            Some(format!("{resource}: {}", amount.as_str().map_or_else(|| amount.to_string(), str::to_owned)))
        };
        let amounts = [amount("cpu_cores_per_tenant", "cpu"), amount("memory_per_tenant", "memory")]
            .into_iter()
            .flatten();
        let amounts: Vec<String> = amounts.collect();
        if !amounts.is_empty() {
            for key in ["cpu_cores_per_tenant", "memory_per_tenant"] {
                compute.tell_of(
                    key,
                    &format!(
                        "is no limit of a user, but of a queue, and who the tenants are is not said: give each a Queue with quotas: {{ default: {{ {} }} }}",
                        amounts.join(", ")
                    ),
                );
            }
        }
    }
    let mut per_user = Map::new();
    let storage = at.at(&["quotas", "storage_per_tenant"]).and_then(|at| at.amount("storage"));
    per_user.extend(storage.map(|storage| ("storage".to_owned(), storage)));
    for (key, to) in [("monthly_compute_hours", "cpuHours"), ("monthly_gpu_hours", "gpuHours")] {
        let hours = at.at(&["quotas", key]).and_then(|at| at.value());
        per_user.extend(hours.map(|hours| (to.to_owned(), hours)));
    }
    if !per_user.is_empty() {
        out.merge("Quota", "tenant", "perUser", per_user);
        at.note(
            "a tenant is who a request names (--tenant), else who asks; compute hours are hours of cores",
        );
    }
}
