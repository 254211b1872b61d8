//! `kind: Reservation`: a request in a file.

use plimsoll_calendar::parse_moment_ms;
use plimsoll_proto::v1;
use plimsoll_types::quantity::{parse_bytes, parse_cpu_millis, parse_duration_ms, parse_gpu};

use super::class::QOS;
use super::{amounts, labels, places, quota, selector, text};
use crate::context::{Block, Context};
use crate::node::Node;

/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 2] = ["name", "labels"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 30] = [
    "pool",
    "class",
    "queue",
    "service",
    "tenant",
    "cpu",
    "memory",
    "gpu",
    "gpuMemory",
    "gpuMig",
    "resources",
    "require",
    "prefer",
    "members",
    "spread",
    "repairWithin",
    "topology",
    "affinity",
    "antiAffinity",
    "at",
    "for",
    "ttl",
    "hold",
    "confirm",
    "wait",
    "onPreempt",
    "maxCost",
    "team",
    "qos",
    "burst",
];

/// What a preempted reservation comes to.
const ON_PREEMPT: [(&str, v1::OnPreempt); 2] =
    [("requeue", v1::OnPreempt::Requeue), ("end", v1::OnPreempt::End)];

/// Reads a request. It waits where nothing fits now, for as long as it takes, unless `wait` says how long, or `never`.
pub(crate) fn read(context: &mut Context<'_>, metadata: &Block<'_>, spec: &Block<'_>) -> v1::ReservationSpec {
    context.locate("name", metadata.mark_of("name"), "metadata.name");
    let name = metadata.get("name").and_then(|node| context.text(node, "metadata.name"));
    if name.is_none() {
        context
            .fail(metadata.mark, "metadata.name is missing: a request in a file is told apart by its name");
    }
    let max_duration_ms = duration(context, spec, "for", "max_duration_ms");
    let ttl_ms = duration(context, spec, "ttl", "ttl_ms");
    v1::ReservationSpec {
        name: name.unwrap_or_default(),
        labels: labels(context, metadata, "spec"),
        pool: word(context, spec, "pool"),
        class: word(context, spec, "class"),
        queue: word(context, spec, "queue"),
        service: word(context, spec, "service"),
        tenant: tenant(context, spec),
        requirements: Some(requirements(context, spec)),
        gang: gang(context, spec),
        topology: places::topology(context, spec),
        affinity: places::affinity(context, spec),
        start_at_ms: start_at_ms(context, spec),
        max_duration_ms,
        repair_within_ms: duration(context, spec, "repairWithin", "repair_within_ms"),
        // Nobody renews what a file asked for: with an end it is kept until then.
        ttl_ms: if ttl_ms == 0 { max_duration_ms } else { ttl_ms },
        hold_ms: duration(context, spec, "hold", "hold_ms"),
        auto_confirm: spec
            .get("confirm")
            .and_then(|node| context.boolean(node, "spec.confirm"))
            .unwrap_or_default(),
        wait: wait(context, spec),
        on_preempt: spec
            .get("onPreempt")
            .and_then(|node| context.word(node, "spec.onPreempt", &ON_PREEMPT))
            .unwrap_or_default()
            .into(),
        limits: spec
            .get("maxCost")
            .and_then(|node| context.quantity(node, "spec.maxCost", quota::parse_micros))
            .map(|cost_micros| v1::RequestLimits { cost_micros }),
        qos: spec.get("qos").and_then(|node| context.word(node, "spec.qos", &QOS)).unwrap_or_default().into(),
        burst: burst(context, spec),
    }
}

/// So much while it is idle, per resource.
fn burst(context: &mut Context<'_>, spec: &Block<'_>) -> Option<v1::Quantities> {
    let node = spec.get("burst")?;
    context.locate("burst", node.mark, "spec.burst");
    let wire = |name: &str| match name {
        "cpu" => "burst.cpu_millis".to_owned(),
        "memory" => "burst.memory_bytes".to_owned(),
        other => format!("burst.other[{other:?}]"),
    };
    let mut named = amounts(context, node, "spec.burst", wire);
    Some(v1::Quantities {
        cpu_millis: named.remove("cpu").unwrap_or_default(),
        memory_bytes: named.remove("memory").unwrap_or_default(),
        other: named,
    })
}

fn word(context: &mut Context<'_>, spec: &Block<'_>, key: &'static str) -> String {
    text(context, spec, key, key, &format!("spec.{key}"))
}

/// A team is a tenant by another word.
fn tenant(context: &mut Context<'_>, spec: &Block<'_>) -> String {
    let team = spec.get("team").and_then(|node| context.text(node, "spec.team"));
    let tenant = word(context, spec, "tenant");
    match team {
        Some(_) if !tenant.is_empty() => {
            context.fail(spec.mark_of("team"), "spec.team is another word for spec.tenant: give one of them");
            tenant
        }
        Some(team) => team,
        None => tenant,
    }
}

fn duration(context: &mut Context<'_>, spec: &Block<'_>, key: &'static str, wire: &str) -> u64 {
    context.locate(wire, spec.mark_of(key), format!("spec.{key}"));
    let given =
        spec.get(key).and_then(|node| context.quantity(node, &format!("spec.{key}"), parse_duration_ms));
    given.unwrap_or_default()
}

/// A moment, and no time of day: what a file asks for is the same whenever it is applied.
fn start_at_ms(context: &mut Context<'_>, spec: &Block<'_>) -> u64 {
    context.locate("start_at_ms", spec.mark_of("at"), "spec.at");
    let Some(node) = spec.get("at") else { return 0 };
    let Some(text) = context.text(node, "spec.at") else { return 0 };
    match parse_moment_ms(&text) {
        Ok(moment_ms) => moment_ms,
        Err(error) => {
            context.fail(node.mark, format!("spec.at: {error}"));
            0
        }
    }
}

fn requirements(context: &mut Context<'_>, spec: &Block<'_>) -> v1::Requirements {
    let wire = "requirements.amounts";
    context.locate(format!("{wire}.cpu_millis"), spec.mark_of("cpu"), "spec.cpu");
    context.locate(format!("{wire}.memory_bytes"), spec.mark_of("memory"), "spec.memory");
    let cpu = spec.get("cpu").and_then(|node| context.quantity(node, "spec.cpu", parse_cpu_millis));
    let memory = spec.get("memory").and_then(|node| context.quantity(node, "spec.memory", parse_bytes));
    let other = spec
        .get("resources")
        .map(|node| amounts(context, node, "spec.resources", |name| format!("{wire}.other[{name:?}]")))
        .unwrap_or_default();
    let required = spec
        .get("require")
        .map(|node| selector::conditions(context, node, "spec.require", "requirements.required"))
        .unwrap_or_default();
    let preferred = spec
        .get("prefer")
        .map(|node| selector::wishes(context, node, "requirements.preferred"))
        .unwrap_or_default();
    v1::Requirements {
        amounts: Some(v1::Quantities {
            cpu_millis: cpu.unwrap_or_default(),
            memory_bytes: memory.unwrap_or_default(),
            other,
        }),
        gpu: gpu(context, spec),
        required,
        preferred,
    }
}

/// Devices as `--gpu` has them, `gpuMemory` as `--gpu-mem`: alone a share, with devices the least of each, and `gpuMig` as `--gpu-mig`.
fn gpu(context: &mut Context<'_>, spec: &Block<'_>) -> Option<v1::GpuAsk> {
    context.locate("requirements.gpu", spec.mark_of("gpu"), "spec.gpu");
    let memory = spec.get("gpuMemory").and_then(|node| context.quantity(node, "spec.gpuMemory", parse_bytes));
    let memory_bytes = memory.unwrap_or_default();
    context.locate("requirements.gpu.mig_profile", spec.mark_of("gpuMig"), "spec.gpuMig");
    let profile = spec.get("gpuMig").and_then(|node| context.text(node, "spec.gpuMig"));
    let mig_profile = profile.map(|profile| profile.trim().to_ascii_lowercase());
    let Some(node) = spec.get("gpu") else {
        return match mig_profile {
            Some(mig_profile) => Some(v1::GpuAsk {
                count: 1,
                mig_profile,
                min_device_memory_bytes: memory_bytes,
                ..v1::GpuAsk::default()
            }),
            None => {
                let share = v1::GpuAsk { count: 1, memory_bytes, ..v1::GpuAsk::default() };
                Some(share).filter(|share| share.memory_bytes > 0)
            }
        };
    };
    let text = context.text(node, "spec.gpu")?;
    match parse_gpu(&text) {
        Ok(asked) => Some(v1::GpuAsk {
            count: asked.count,
            // Of one device of that model; a part of it, or more than one, says the coordinator, is no instance.
            milli: match (&mig_profile, asked.milli) {
                (Some(_), 1_000) => 0,
                (_, milli) => u32::from(milli),
            },
            mig_profile: mig_profile.unwrap_or_default(),
            models: asked.model.into_iter().collect(),
            min_device_memory_bytes: memory_bytes,
            ..v1::GpuAsk::default()
        }),
        Err(error) => {
            context.fail(node.mark, format!("spec.gpu: {error}"));
            None
        }
    }
}

/// `4`, or `2-8` for at least 2 and at most 8.
fn gang(context: &mut Context<'_>, spec: &Block<'_>) -> Option<v1::Gang> {
    context.locate("gang", spec.mark_of("members"), "spec.members");
    let spread = spec.get("spread").and_then(|node| context.boolean(node, "spec.spread")).unwrap_or_default();
    let node: &Node = spec.get("members")?;
    let text = context.text(node, "spec.members")?;
    let (min, max) = text.split_once('-').unwrap_or((&text, &text));
    match (min.trim().parse::<u32>(), max.trim().parse::<u32>()) {
        (Ok(min_members), Ok(max_members)) if min_members >= 1 && min_members <= max_members => {
            Some(v1::Gang { min_members, max_members, spread })
        }
        _ => {
            context.fail(node.mark, format!("spec.members {text:?} is not a number from 1, or MIN-MAX"));
            None
        }
    }
}

fn wait(context: &mut Context<'_>, spec: &Block<'_>) -> Option<v1::WaitPolicy> {
    context.locate("wait.deadline_ms", spec.mark_of("wait"), "spec.wait");
    let endless = v1::WaitPolicy { queue: true, deadline_ms: 0 };
    let Some(node) = spec.get("wait") else { return Some(endless) };
    match context.text(node, "spec.wait")?.as_str() {
        "never" => None,
        "always" => Some(endless),
        _ => {
            let deadline_ms = context.quantity(node, "spec.wait", parse_duration_ms)?;
            Some(v1::WaitPolicy { queue: true, deadline_ms })
        }
    }
}
