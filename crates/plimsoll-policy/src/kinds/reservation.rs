//! `kind: Reservation`: a request in a file.

use plimsoll_calendar::parse_moment_ms;
use plimsoll_proto::v1;
use plimsoll_types::quantity::{QuantityError, parse_bytes, parse_cpu_millis, parse_duration_ms, parse_gpu};

use super::class::QOS;
use super::spot::ON_INTERRUPTION;
use super::{amounts, labels, places, points, quota, selector, text};
use crate::context::{Block, Context};
use crate::node::Node;

/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 2] = ["name", "labels"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 34] = [
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
    "roles",
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
    "onInterruption",
    "preferHours",
    "nice",
    "maxCost",
    "team",
    "qos",
    "burst",
];

/// Keys of a role.
const ROLE: [&str; 10] =
    ["name", "members", "cpu", "memory", "gpu", "gpuMemory", "gpuMig", "resources", "require", "prefer"];

/// Keys of preferred hours.
const PREFER_HOURS: [&str; 2] = ["schedule", "longestWait"];
/// How long one waits for its hours that does not say how long: each day has some.
pub const USUAL_LONGEST_WAIT_MS: u64 = 24 * 3_600_000;

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
        requirements: Some(requirements(context, spec, "spec", "requirements")),
        gang: gang(context, spec),
        roles: roles(context, spec),
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
        on_interruption: spec
            .get("onInterruption")
            .and_then(|node| context.word(node, "spec.onInterruption", &ON_INTERRUPTION))
            .unwrap_or_default()
            .into(),
        hours: hours(context, spec),
        nice: spec
            .get("nice")
            .and_then(|node| points::points(context, node, "spec.nice"))
            .unwrap_or_default(),
        limits: spec
            .get("maxCost")
            .and_then(|node| context.quantity(node, "spec.maxCost", quota::parse_micros))
            .map(|cost_micros| v1::RequestLimits { cost_micros }),
        qos: spec.get("qos").and_then(|node| context.word(node, "spec.qos", &QOS)).unwrap_or_default().into(),
        burst: burst(context, spec),
    }
}

/// `preferHours: { schedule: off-peak, longestWait: 8h }`.
fn hours(context: &mut Context<'_>, spec: &Block<'_>) -> Option<v1::PreferredHours> {
    let node = spec.get("preferHours")?;
    let block = context.block(node, "spec.preferHours", &PREFER_HOURS);
    context.locate("hours.schedule", block.mark_of("schedule"), "spec.preferHours.schedule");
    context.locate("hours.longest_wait_ms", block.mark_of("longestWait"), "spec.preferHours.longestWait");
    let schedule = block.get("schedule").and_then(|node| context.text(node, "spec.preferHours.schedule"));
    let read =
        |node| context.quantity(node, "spec.preferHours.longestWait", parse_duration_ms).unwrap_or_default();
    let longest = block.get("longestWait").map(read);
    Some(v1::PreferredHours {
        schedule: schedule.unwrap_or_default(),
        longest_wait_ms: longest.unwrap_or(USUAL_LONGEST_WAIT_MS),
    })
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

/// What each member needs, of a block at `at` in the file and at `wire` in the request.
fn requirements(context: &mut Context<'_>, block: &Block<'_>, at: &str, wire: &str) -> v1::Requirements {
    let amount = format!("{wire}.amounts");
    context.locate(format!("{amount}.cpu_millis"), block.mark_of("cpu"), format!("{at}.cpu"));
    context.locate(format!("{amount}.memory_bytes"), block.mark_of("memory"), format!("{at}.memory"));
    let mut read = |key: &str, parse: fn(&str) -> Result<u64, QuantityError>| {
        block.get(key).and_then(|node| context.quantity(node, &format!("{at}.{key}"), parse))
    };
    let (cpu, memory) = (read("cpu", parse_cpu_millis), read("memory", parse_bytes));
    let others = format!("{at}.resources");
    let other = block
        .get("resources")
        .map(|node| amounts(context, node, &others, |name| format!("{amount}.other[{name:?}]")))
        .unwrap_or_default();
    let required = block
        .get("require")
        .map(|node| {
            selector::conditions(context, node, &format!("{at}.require"), &format!("{wire}.required"))
        })
        .unwrap_or_default();
    let preferred = block
        .get("prefer")
        .map(|node| selector::wishes(context, node, &format!("{at}.prefer"), &format!("{wire}.preferred")))
        .unwrap_or_default();
    v1::Requirements {
        amounts: Some(v1::Quantities {
            cpu_millis: cpu.unwrap_or_default(),
            memory_bytes: memory.unwrap_or_default(),
            other,
        }),
        gpu: gpu(context, block, at, wire),
        required,
        preferred,
    }
}

/// Devices as `--gpu` has them, `gpuMemory` as `--gpu-mem`: alone a share, with devices the least of each, and `gpuMig` as `--gpu-mig`.
fn gpu(context: &mut Context<'_>, block: &Block<'_>, at: &str, wire: &str) -> Option<v1::GpuAsk> {
    context.locate(format!("{wire}.gpu"), block.mark_of("gpu"), format!("{at}.gpu"));
    let memory = block
        .get("gpuMemory")
        .and_then(|node| context.quantity(node, &format!("{at}.gpuMemory"), parse_bytes));
    let memory_bytes = memory.unwrap_or_default();
    context.locate(format!("{wire}.gpu.mig_profile"), block.mark_of("gpuMig"), format!("{at}.gpuMig"));
    let profile = block.get("gpuMig").and_then(|node| context.text(node, &format!("{at}.gpuMig")));
    let mig_profile = profile.map(|profile| profile.trim().to_ascii_lowercase());
    let Some(node) = block.get("gpu") else {
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
    let text = context.text(node, &format!("{at}.gpu"))?;
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
            context.fail(node.mark, format!("{at}.gpu: {error}"));
            None
        }
    }
}

/// A list of roles, each with what its members need.
fn roles(context: &mut Context<'_>, spec: &Block<'_>) -> Vec<v1::Role> {
    context.locate("roles", spec.mark_of("roles"), "spec.roles");
    let Some(list) = spec.get("roles") else { return Vec::new() };
    context.locate("requirements", spec.mark, "spec");
    let mut read = Vec::new();
    for (position, node) in
        context.list(list, "spec.roles", "- { name: worker, members: 4, gpu: 1 }").iter().enumerate()
    {
        let (at, wire) = (format!("spec.roles[{position}]"), format!("roles[{position}]"));
        read.push(context.part(&wire, |context| {
            context.locate(wire.clone(), node.mark, at.clone());
            let block = context.block(node, &at, &ROLE);
            let members = members(context, &block, &at, &wire).unwrap_or((1, 1));
            v1::Role {
                name: text(context, &block, "name", &format!("{wire}.name"), &format!("{at}.name")),
                requirements: Some(requirements(context, &block, &at, &format!("{wire}.requirements"))),
                min_members: members.0,
                max_members: members.1,
            }
        }));
    }
    read
}

fn gang(context: &mut Context<'_>, spec: &Block<'_>) -> Option<v1::Gang> {
    let spread = spec.get("spread").and_then(|node| context.boolean(node, "spec.spread")).unwrap_or_default();
    match members(context, spec, "spec", "gang") {
        Some((min_members, max_members)) => Some(v1::Gang { min_members, max_members, spread }),
        // Of roles there are as many as they say.
        None => spec.get("roles").map(|_| v1::Gang { spread, ..v1::Gang::default() }),
    }
}

/// `4`, or `2-8` for at least 2 and at most 8; of a role the least may be 0.
fn members(context: &mut Context<'_>, block: &Block<'_>, at: &str, wire: &str) -> Option<(u32, u32)> {
    let least = u32::from(wire == "gang");
    context.locate(wire, block.mark_of("members"), format!("{at}.members"));
    let node: &Node = block.get("members")?;
    let text = context.text(node, &format!("{at}.members"))?;
    let (min, max) = text.split_once('-').unwrap_or((&text, &text));
    match (min.trim().parse::<u32>(), max.trim().parse::<u32>()) {
        (Ok(min), Ok(max)) if min >= least && min <= max && max > 0 => Some((min, max)),
        _ => {
            context.fail(node.mark, format!("{at}.members {text:?} is not a number from 1, or MIN-MAX"));
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
