//! Requests for reservations. Amounts are those of one member; of a gang of several roles the most that a member of any of them asks for, so that an upper
//! bound holds for each.

use std::collections::BTreeSet;

use plimsoll_expr::{Unit, Value};
use plimsoll_ledger::{
    Affinity, CapacityType, GpuAsk, GpuShare, OnInterruption, OnPreempt, Qos, Request, Wait,
};
use plimsoll_types::Resources;

use super::{
    Field, cpu, flag, labels, list, memory, micros, number, numbers, other, text, texts, word, words,
};

pub(super) fn fields() -> Vec<Field<Request>> {
    vec![
        text("name", |of| Value::text(&of.name)),
        text("pool", |of| Value::text(&of.pool)),
        text("class", |of| Value::text(&of.class)),
        text("queue", |of| Value::text(&of.queue)),
        text("tenant", |of| Value::text(&of.tenant)),
        text("service", |of| Value::text(&of.service)),
        words("labels", |of| labels(&of.labels)),
        number("cpu", Unit::Cores, |of| cpu(&most(of))),
        number("memory", Unit::Bytes, |of| memory(&most(of))),
        number("gpu", Unit::Plain, |of| Value::milli(gpus(of).map(devices_milli).max().unwrap_or(0))),
        number("gpu_memory", Unit::Bytes, |of| Value::count(gpus(of).map(gpu_memory).max().unwrap_or(0))),
        list("gpu_models", |of| texts(gpus(of).flat_map(|gpu| &gpu.models).collect::<BTreeSet<_>>())),
        list("gpu_profiles", |of| {
            let profile = |gpu: &GpuAsk| match gpu.share {
                GpuShare::Mig(name) => Some(name.to_string()),
                GpuShare::Whole | GpuShare::Milli(_) | GpuShare::Memory(_) => None,
            };
            texts(&gpus(of).filter_map(profile).collect::<BTreeSet<_>>())
        }),
        numbers("other", |of| other(&most(of))),
        number("members", Unit::Plain, |of| Value::count(of.gang.max_members.into())),
        number("min_members", Unit::Plain, |of| Value::count(of.gang.min_members.into())),
        list("roles", |of| texts(of.roles.iter().map(|role| &role.name))),
        flag("spread", |of| Value::Bool(of.gang.spread)),
        text("topology_required", |of| Value::text(&of.topology.required)),
        text("topology_preferred", |of| Value::text(&of.topology.preferred)),
        text("slice_level", |of| Value::text(&of.topology.slice_level)),
        number("slice_size", Unit::Plain, |of| Value::count(of.topology.slice_size.into())),
        list("near_work", |of| ruled(of, false)),
        list("away_from_work", |of| ruled(of, true)),
        list("required_labels", |of| {
            let terms = of.kinds().flat_map(|needs| &needs.required.terms);
            texts(terms.map(|term| &term.key).collect::<BTreeSet<_>>())
        }),
        flag("spot", |of| Value::Bool(of.may_use(CapacityType::Spot))),
        number("ttl", Unit::Seconds, |of| Value::milli(of.ttl_ms)),
        number("hold", Unit::Seconds, |of| Value::milli(of.hold_ms)),
        number("max_duration", Unit::Seconds, |of| Value::milli(of.max_duration_ms)),
        number("repair_within", Unit::Seconds, |of| Value::milli(of.repair_within_ms)),
        flag("waits", |of| Value::Bool(of.wait != Wait::Refuse)),
        number("wait", Unit::Seconds, |of| match of.wait {
            Wait::Refuse => Value::count(0),
            Wait::Queue { deadline_ms } => Value::milli(deadline_ms),
        }),
        flag("later", |of| Value::Bool(of.start_at_ms > 0)),
        text("hours", |of| Value::text(of.hours.as_ref().map_or("", |hours| &hours.schedule))),
        number("longest_wait", Unit::Seconds, |of| {
            Value::milli(of.hours.as_ref().map_or(0, |hours| hours.longest_wait_ms))
        }),
        text("qos", |of| of.qos.map_or_else(|| Value::text(""), |qos| word(&Qos::NAMED, &qos))),
        number("burst_cpu", Unit::Cores, |of| cpu(&of.burst)),
        number("burst_memory", Unit::Bytes, |of| memory(&of.burst)),
        text("on_preempt", |of| Value::text(if of.on_preempt == OnPreempt::End { "end" } else { "requeue" })),
        text("on_interruption", |of| Value::text(of.on_interruption.map_or("", OnInterruption::name))),
        number("max_cost", Unit::Plain, |of| micros(of.max_cost_micros)),
        number("nice", Unit::Plain, |of| Value::count(of.nice.into())),
    ]
}

/// Of each resource the most that a member asks for.
fn most(request: &Request) -> Resources {
    let mut most = Resources::default();
    for (name, amount) in request.kinds().flat_map(|needs| needs.amounts.iter()) {
        most.set(name, amount.max(most.get(name)));
    }
    most
}

fn gpus(request: &Request) -> impl Iterator<Item = &GpuAsk> {
    request.kinds().filter_map(|needs| needs.gpu.as_ref())
}

fn devices_milli(gpu: &GpuAsk) -> u64 {
    match gpu.share {
        GpuShare::Milli(milli) => u64::from(gpu.count) * u64::from(milli),
        // How much of a device its memory or its profile is, is known once there is a device.
        GpuShare::Whole | GpuShare::Memory(_) | GpuShare::Mig(_) => u64::from(gpu.count) * 1_000,
    }
}

fn gpu_memory(gpu: &GpuAsk) -> u64 {
    match gpu.share {
        GpuShare::Memory(bytes) => bytes,
        GpuShare::Whole | GpuShare::Milli(_) | GpuShare::Mig(_) => gpu.min_device_memory_bytes,
    }
}

/// Labels of other work that it is with or apart from, as `key=value`: what is only preferred is left out.
fn ruled(request: &Request, anti: bool) -> Value {
    let required = |rule: &&Affinity| rule.anti == anti && rule.weight == 0;
    let label = |rule: &Affinity| Value::text(format!("{}={}", rule.key, rule.value));
    Value::List(request.affinity.iter().filter(required).map(label).collect())
}
