//! What makes no sense in any state: shapes and bounds of requests, registrations and policy objects.

use std::collections::BTreeSet;

use plimsoll_mutants::mutant;
use plimsoll_types::{Resources, Selector, check_name};

use crate::apply::{validate_admins, validators};
use crate::limits::{
    MAX_DEVICES, MAX_EVICT_FOR_MS, MAX_GANG_MEMBERS, MAX_ITEMS, MAX_PATTERN_BYTES, MAX_RULE_BYTES,
    MAX_TTL_MS, MAX_WEIGHT_MILLI, MIN_EVICT_FOR_MS, MIN_TTL_MS,
};
use crate::repair::validate_repair;
use crate::role::validate_roles;
use crate::topology::{validate_levels, validate_place};
use crate::{
    Blocker, GpuShare, MAX_PROFILES, MAX_SLICES, MigLayout, PolicyObject, Qos, Reason, Registration, Request,
    Requirements, WHOLE_DEVICE_MILLI,
};
use crate::{LATEST_VERSION, class_order, hours, priority_weights, processing, queue_use};

/// Every way in which `request` makes no sense; empty where it does. Durations of 0 stand for the default.
pub fn validate_request(request: &Request) -> Vec<Blocker> {
    let mut bad = Vec::new();
    name(&mut bad, "pool", &request.pool);
    name(&mut bad, "class", &request.class);
    if !request.queue.is_empty() {
        name(&mut bad, "queue", &request.queue);
    }
    if !request.service.is_empty() {
        name(&mut bad, "service", &request.service);
    }
    for (field, value) in [("ttl_ms", request.ttl_ms), ("hold_ms", request.hold_ms)] {
        if value != 0 {
            range(&mut bad, field, value, MIN_TTL_MS, MAX_TTL_MS);
        }
    }
    range(&mut bad, "max_duration_ms", request.max_duration_ms, 0, MAX_TTL_MS);
    if request.start_at_ms > 0 {
        range(&mut bad, "max_duration_ms", request.max_duration_ms, MIN_TTL_MS, MAX_TTL_MS);
    }
    let gang = request.gang;
    assert!(gang.max_members > 0 || !mutant!("panic-on-empty-gang"), "a gang has members");
    range(&mut bad, "gang.min_members", gang.min_members.into(), 1, MAX_GANG_MEMBERS.into());
    range(
        &mut bad,
        "gang.max_members",
        gang.max_members.into(),
        gang.min_members.into(),
        MAX_GANG_MEMBERS.into(),
    );
    range(&mut bad, "labels", request.labels.len() as u64, 0, MAX_ITEMS as u64);
    bad.extend(validate_place(request));
    bad.extend(validate_repair(request));
    bad.extend(validate_roles(request));
    requirements(&mut bad, "requirements", &request.requirements, gang.max_members.into());
    for (index, role) in request.roles.iter().enumerate() {
        // A node may have members of all roles: what all of them ask has to fit in 64 bits.
        let field = format!("roles[{index}].requirements");
        requirements(&mut bad, &field, &role.requirements, gang.max_members.into());
    }
    amounts(&mut bad, "burst", &request.burst, gang.max_members.into());
    range(&mut bad, "nice", request.nice.into(), 0, priority_weights::MAX_POINTS.into());
    if let Some(hours) = &request.hours {
        name(&mut bad, "hours.schedule", &hours.schedule);
        range(&mut bad, "hours.longest_wait_ms", hours.longest_wait_ms, MIN_TTL_MS, MAX_TTL_MS);
        // Who says when it starts prefers no other time.
        range(&mut bad, "start_at_ms", request.start_at_ms, 0, 0);
    }
    bad
}

fn requirements(bad: &mut Vec<Blocker>, path: &str, needs: &Requirements, members: u64) {
    let field = |name: &str| format!("{path}.{name}");
    amounts(bad, &field("amounts"), &needs.amounts, members);
    selector(bad, &field("required"), &needs.required);
    range(bad, &field("preferred"), needs.preferred.len() as u64, 0, MAX_ITEMS as u64);
    for wish in &needs.preferred {
        range(bad, &field("preferred.weight"), wish.weight.into(), 1, 100);
    }
    let Some(gpu) = &needs.gpu else { return };
    let most = if gpu.share == GpuShare::Whole { MAX_DEVICES as u64 } else { 1 };
    range(bad, &field("gpu.count"), gpu.count.into(), 1, most);
    range(bad, &field("gpu.models"), gpu.models.len() as u64, 0, MAX_ITEMS as u64);
    match gpu.share {
        GpuShare::Whole => {}
        GpuShare::Milli(milli) => {
            range(bad, &field("gpu.milli"), milli.into(), 1, u64::from(WHOLE_DEVICE_MILLI) - 1);
        }
        GpuShare::Memory(bytes) => range(bad, &field("gpu.memory_bytes"), bytes, 1, u64::MAX >> 1),
        // A name that is none cannot be written.
        GpuShare::Mig(_) => {}
    }
}

/// Every way in which new amounts for `members` members make no sense.
pub fn validate_amounts(new: &Resources, members: u64) -> Vec<Blocker> {
    let mut bad = Vec::new();
    amounts(&mut bad, "amounts", new, members);
    bad
}

/// Every way in which a registration makes no sense.
pub fn validate_registration(registration: &Registration) -> Vec<Blocker> {
    let mut bad = Vec::new();
    name(&mut bad, "name", &registration.name);
    if !registration.pool.is_empty() {
        name(&mut bad, "pool", &registration.pool);
    }
    amounts(&mut bad, "capacity", &registration.capacity, 1);
    range(&mut bad, "labels", registration.labels.len() as u64, 0, MAX_ITEMS as u64);
    range(&mut bad, "devices", registration.devices.len() as u64, 0, MAX_DEVICES as u64);
    let mut seen = BTreeSet::new();
    for device in &registration.devices {
        if device.uuid.is_empty() || !seen.insert(&device.uuid) {
            bad.push(Blocker::new(Reason::InvalidArgument, format!("devices.uuid {:?}", device.uuid), 1, 0));
        }
        range(&mut bad, "devices.memory_bytes", device.memory_bytes, 1, u64::MAX >> 1);
        if let Some(layout) = &device.mig {
            layout_makes_sense(&mut bad, layout, device.memory_bytes);
        }
    }
    bad
}

/// Whatever lies side by side on the device fits it, in slices and in bytes.
fn layout_makes_sense(bad: &mut Vec<Blocker>, layout: &MigLayout, device_memory_bytes: u64) {
    let slices = layout.memory_slices;
    range(bad, "devices.mig.compute_slices", layout.compute_slices.into(), 1, MAX_SLICES.into());
    range(bad, "devices.mig.memory_slices", slices.into(), 1, MAX_SLICES.into());
    range(bad, "devices.mig.profiles", layout.profiles.len() as u64, 1, MAX_PROFILES as u64);
    let mut seen = BTreeSet::new();
    for profile in &layout.profiles {
        let field = |name: &str| format!("devices.mig.profiles[{}].{name}", profile.name);
        if !seen.insert(profile.name) {
            bad.push(Blocker::new(Reason::InvalidArgument, field("name"), 2, 1));
        }
        let (compute, memory) = (profile.compute_slices, profile.memory_slices);
        range(bad, &field("compute_slices"), compute.into(), 1, layout.compute_slices.into());
        range(bad, &field("memory_slices"), memory.into(), 1, slices.into());
        let part = u128::from(device_memory_bytes) * u128::from(memory) / u128::from(slices.max(1));
        range(bad, &field("memory_bytes"), profile.memory_bytes, 1, u64::try_from(part).unwrap_or(u64::MAX));
        let ascending = profile.starts.windows(2).all(|pair| pair[0] < pair[1]);
        if profile.starts.is_empty() || !ascending {
            bad.push(Blocker::new(Reason::InvalidArgument, field("starts"), profile.starts.len() as u64, 1));
        }
        let last = u64::from(profile.starts.last().copied().unwrap_or_default()) + u64::from(memory);
        range(bad, &field("starts"), last, 0, slices.into());
    }
}

/// Every way in which a policy object makes no sense, to the newest ledger.
pub fn validate_policy(object: &PolicyObject) -> Vec<Blocker> {
    validate_policy_of(LATEST_VERSION, object)
}

/// The same to a ledger of this version.
pub(crate) fn validate_policy_of(version: u32, object: &PolicyObject) -> Vec<Blocker> {
    let mut bad = Vec::new();
    match object {
        PolicyObject::Pool(pool) => {
            name(&mut bad, "pool.name", &pool.name);
            bad.extend(validate_levels(pool));
            selector(&mut bad, "pool.select", &pool.select);
            range(&mut bad, "pool.countables", pool.countables.len() as u64, 0, MAX_ITEMS as u64);
            range(&mut bad, "pool.prices", pool.prices.len() as u64, 0, MAX_ITEMS as u64);
            range(&mut bad, "pool.currency", pool.currency.len() as u64, 0, 16);
            bad.extend(class_order::validate_class_order(pool));
            bad.extend(priority_weights::validate_priority_weights(pool));
            let bounds = processing::pool_bounds(pool).into_iter().chain(queue_use::pool_bounds(pool));
            for (field, value, least, most) in bounds {
                range(&mut bad, field, value, least, most);
            }
            for (resource, price) in &pool.prices {
                range(&mut bad, &format!("pool.prices.{resource}"), *price, 1, u64::MAX >> 1);
            }
            bad.extend(crate::qos::validate_oversubscription(pool));
            bad.extend(crate::contention::validate_contention(pool));
            bad.extend(crate::elastic::validate_elastic(pool));
            bad.extend(pool.spot.iter().flat_map(|spot| spot.faults("pool.spot")));
            range(&mut bad, "pool.power_budget_watts", pool.power_budget_watts, 0, u64::MAX >> 1);
            for countable in ["cpu", "memory"] {
                if pool.countables.contains_key(countable) {
                    bad.push(Blocker::new(
                        Reason::InvalidArgument,
                        format!("pool.countables.{countable}"),
                        1,
                        0,
                    ));
                }
            }
        }
        PolicyObject::Class(class) => {
            name(&mut bad, "class.name", &class.name);
            if class.default_ttl_ms != 0 {
                range(&mut bad, "class.default_ttl_ms", class.default_ttl_ms, MIN_TTL_MS, MAX_TTL_MS);
            }
            let bounds =
                processing::class_bounds(class).into_iter().chain([class_order::class_bounds(class)]);
            for (field, value, least, most) in bounds {
                range(&mut bad, field, value, least, most);
            }
            for (pool, kept) in &class.guaranteed {
                name(&mut bad, "class.guaranteed", pool);
                amounts(&mut bad, "class.guaranteed", kept, 1);
            }
            range(&mut bad, "class.default_duration_ms", class.default_duration_ms, 0, MAX_TTL_MS);
            range(&mut bad, "class.latency_target_ms", class.latency_target_ms.unwrap_or(0), 0, MAX_TTL_MS);
            if let Some(when) = class.evict_when {
                range(&mut bad, "class.evict_when", when.above_permille.into(), 1, 999);
                range(&mut bad, "class.evict_when", when.for_ms, MIN_EVICT_FOR_MS, MAX_EVICT_FOR_MS);
                if class.qos == Some(Qos::Guaranteed) {
                    let subject = "class.evict_when: what is guaranteed leaves no node for what it measures";
                    bad.push(Blocker::new(Reason::InvalidArgument, subject, 1, 0));
                }
            }
        }
        PolicyObject::Quota(quota) => {
            name(&mut bad, "quota.name", &quota.name);
            if !quota.queue.is_empty() {
                name(&mut bad, "quota.queue", &quota.queue);
            }
            bad.extend(crate::usage::validate_quota(quota));
        }
        PolicyObject::Schedule(schedule) => {
            let least = u64::from(version < hours::SINCE_VERSION || schedule.is_for_some());
            schedule_makes_sense(&mut bad, schedule, least);
        }
        PolicyObject::NodeLimits(limits) => {
            name(&mut bad, "node_limits.name", &limits.name);
            selector(&mut bad, "node_limits.select", &limits.select);
        }
        PolicyObject::Validator(validator) => {
            name(&mut bad, "validator.name", &validator.name);
            for (field, value, least, most) in validators::bounds(validator) {
                range(&mut bad, &field, value, least, most);
            }
        }
        PolicyObject::Service(service) => {
            name(&mut bad, "service.name", &service.name);
            name(&mut bad, "service.pool", &service.pool);
            name(&mut bad, "service.class", &service.class);
            for (field, value, least, most) in crate::service::service_bounds(service) {
                range(&mut bad, field, value, least, most);
            }
        }
        PolicyObject::ScalingPolicy(policy) => {
            name(&mut bad, "scaling_policy.name", &policy.name);
            for (field, value, least, most) in crate::scaling::scaling_bounds(policy) {
                range(&mut bad, &field, value, least, most);
            }
            amounts(&mut bad, "scaling_policy.template.resources", &policy.template.resources, 1);
            for (index, template) in policy.templates.iter().enumerate() {
                let field = format!("scaling_policy.templates[{index}].resources");
                amounts(&mut bad, &field, &template.offers.resources, 1);
            }
        }
        PolicyObject::Queue(queue) => {
            name(&mut bad, "queue.name", &queue.name);
            if !queue.parent.is_empty() {
                name(&mut bad, "queue.parent", &queue.parent);
            }
            bad.extend(validate_admins(queue));
            bad.extend(queue.spot.iter().flat_map(|spot| spot.faults("queue.spot")));
            for (field, value, least, most) in processing::queue_bounds(queue) {
                range(&mut bad, field, value, least, most);
            }
            range(&mut bad, "queue.weight_milli", queue.weight_milli.into(), 0, MAX_WEIGHT_MILLI.into());
            range(&mut bad, "queue.quotas", queue.quotas.len() as u64, 0, MAX_ITEMS as u64);
            for (pool, quotas) in &queue.quotas {
                range(&mut bad, "queue.quotas", quotas.len() as u64, 1, MAX_ITEMS as u64);
                for (resource, quota) in quotas {
                    let field = |which: &str| format!("queue.quotas.{pool}.{resource}.{which}");
                    range(&mut bad, &field("nominal"), quota.nominal.0, 0, u64::MAX >> 1);
                    range(&mut bad, &field("guaranteed"), quota.guaranteed.0, 0, quota.nominal.0);
                    if let Some(limit) = quota.limit {
                        range(&mut bad, &field("limit"), limit.0, quota.nominal.0, u64::MAX >> 1);
                    }
                }
            }
        }
    }
    bad
}

fn schedule_makes_sense(bad: &mut Vec<Blocker>, schedule: &crate::Schedule, least_kept: u64) {
    name(bad, "schedule.name", &schedule.name);
    name(bad, "schedule.pool", &schedule.pool);
    range(bad, "schedule.rule", schedule.rule.len() as u64, 1, MAX_RULE_BYTES as u64);
    amounts(bad, "schedule.resources", &schedule.resources, 1);
    let kept = schedule.resources.iter().count() as u64;
    range(bad, "schedule.resources", kept, least_kept, MAX_ITEMS as u64);
    let users = &schedule.users;
    for (field, patterns) in [
        ("schedule.pipelines", &users.pipelines),
        ("schedule.queues", &users.queues),
        ("schedule.tenants", &users.tenants),
        ("schedule.classes", &users.classes),
    ] {
        range(bad, field, patterns.len() as u64, 0, MAX_ITEMS as u64);
        for pattern in patterns {
            range(bad, field, pattern.len() as u64, 1, MAX_PATTERN_BYTES as u64);
        }
    }
}

fn name(bad: &mut Vec<Blocker>, field: &str, value: &str) {
    if check_name(value).is_err() {
        bad.push(Blocker::new(Reason::InvalidArgument, format!("{field} {value:?}"), value.len() as u64, 63));
    }
}

fn range(bad: &mut Vec<Blocker>, field: &str, value: u64, least: u64, most: u64) {
    if value < least || value > most {
        let expected = if value < least { least } else { most };
        bad.push(Blocker { limit: most, ..Blocker::new(Reason::InvalidArgument, field, value, expected) });
    }
}

fn amounts(bad: &mut Vec<Blocker>, field: &str, amounts: &Resources, members: u64) {
    range(bad, field, amounts.other.len() as u64, 0, MAX_ITEMS as u64);
    for (resource, amount) in amounts.iter() {
        // Half the range: sums over the members of one node stay far from the edge.
        let fits = mutant!("wrap-on-overflow")
            || amount.checked_mul(members).is_ok_and(|total| total.0 <= u64::MAX >> 1);
        if !fits {
            bad.push(Blocker::new(
                Reason::InvalidArgument,
                format!("{field}.{resource}"),
                amount.0,
                u64::MAX >> 1,
            ));
        }
    }
}

fn selector(bad: &mut Vec<Blocker>, field: &str, selector: &Selector) {
    range(bad, field, selector.terms.len() as u64, 0, MAX_ITEMS as u64);
    for term in &selector.terms {
        range(bad, field, term.values.len() as u64, 0, MAX_ITEMS as u64);
    }
}
