//! What clients ask for, in canonical bytes.

use plimsoll_ledger::{Gang, GpuAsk, GpuShare, Preferred, PreferredHours, Request, Requirements, Role, Wait};
use plimsoll_types::{Amount, Labels, Resources, Selector, Term};

use super::decode::Result;
use super::{CodecError, mig, names, spot, topology};
use crate::fields::{Reader, Writer};
use crate::log;

/// Fields of `Request`.
pub(super) fn write(to: &mut Writer<'_>, request: &Request) {
    to.bytes(1, &request.name);
    to.bytes(2, &request.pool);
    to.bytes(3, &request.class);
    to.bytes(4, &request.tenant);
    for (key, value) in &request.labels {
        to.message(5, |to| {
            to.bytes(1, key);
            to.bytes(2, value);
        });
    }
    to.message(6, |to| write_requirements(to, &request.requirements));
    to.message(7, |to| {
        to.number(1, request.gang.min_members);
        to.number(2, request.gang.max_members);
        to.number(3, request.gang.spread);
    });
    to.number(8, request.ttl_ms);
    to.number(9, request.hold_ms);
    to.number(10, request.max_duration_ms);
    to.number(11, request.auto_confirm);
    if let Wait::Queue { deadline_ms } = request.wait {
        to.message(12, |to| to.number(1, deadline_ms));
    }
    to.bytes(13, &request.queue);
    to.choice(14, names::encode_on_preempt(request.on_preempt));
    to.number(18, request.start_at_ms);
    to.number(22, request.max_cost_micros);
    if let Some(topology) = topology::encode(&request.topology) {
        to.generated(30, &topology);
    }
    for rule in &request.affinity {
        to.generated(31, &topology::encode_rule(rule));
    }
    to.bytes(40, &request.service);
    to.choice(50, names::encode_qos(request.qos));
    if !request.burst.is_zero() {
        to.message(51, |to| write_resources(to, &request.burst));
    }
    to.number(52, request.repair_within_ms);
    for role in &request.roles {
        to.message(80, |to| {
            to.bytes(1, &role.name);
            to.message(2, |to| write_requirements(to, &role.requirements));
            to.number(3, role.min_members);
            to.number(4, role.max_members);
        });
    }
    to.choice(110, spot::encode_on_interruption(request.on_interruption));
    if let Some(hours) = &request.hours {
        to.message(150, |to| {
            to.bytes(1, &hours.schedule);
            to.number(2, hours.longest_wait_ms);
        });
    }
    to.number(160, request.nice);
}

/// The request of its fields.
pub(super) fn read(mut from: Reader<'_>) -> Result<Request> {
    let name = from.text(1)?;
    let pool = from.text(2)?;
    let class = from.text(3)?;
    let tenant = from.text(4)?;
    let labels = read_labels(&mut from, 5)?;
    let requirements = read_requirements(from.some_message(6, "request.requirements")?)?;
    let gang = read_gang(from.some_message(7, "request.gang")?)?;
    let ttl_ms = from.number(8)?;
    let hold_ms = from.number(9)?;
    let max_duration_ms = from.number(10)?;
    let auto_confirm = from.flag(11)?;
    let wait = match from.message(12, "request.queue")? {
        None => Wait::Refuse,
        Some(mut queue) => {
            let deadline_ms = queue.number(1)?;
            queue.end()?;
            Wait::Queue { deadline_ms }
        }
    };
    let queue = from.text(13)?;
    let on_preempt = names::decode_on_preempt(from.choice(14)?)?;
    let start_at_ms = from.number(18)?;
    let max_cost_micros = from.number(22)?;
    let topology = topology::decode(from.generated(30, "request.topology")?);
    let mut affinity = Vec::new();
    while let Some(rule) = from.generated::<log::Affinity>(31, "request.affinity")? {
        affinity.push(topology::decode_rule(rule));
    }
    let service = from.text(40)?;
    let qos = names::decode_qos(from.choice(50)?)?;
    let burst = from.message(51, "request.burst")?.map(read_resources).transpose()?;
    if burst.as_ref().is_some_and(Resources::is_zero) {
        return Err(CodecError::NotCanonical { what: "request.burst" });
    }
    let repair_within_ms = from.number(52)?;
    let roles = from.messages(80, "role", |mut from| {
        let role = Role {
            name: from.text(1)?,
            requirements: read_requirements(from.some_message(2, "role.requirements")?)?,
            min_members: from.small(3)?,
            max_members: from.small(4)?,
        };
        from.end().map(|()| role)
    })?;
    let on_interruption = spot::decode_on_interruption(from.choice(110)?)?;
    let hours = from.message(150, "request.hours")?.map(read_hours).transpose()?;
    let nice = from.small(160)?;
    from.end()?;
    Ok(Request {
        name,
        pool,
        class,
        tenant,
        queue,
        service,
        labels,
        requirements,
        gang,
        ttl_ms,
        hold_ms,
        max_duration_ms,
        auto_confirm,
        wait,
        on_preempt,
        max_cost_micros,
        start_at_ms,
        topology,
        affinity,
        qos,
        burst: burst.unwrap_or_default(),
        repair_within_ms,
        on_interruption,
        hours,
        nice,
        roles,
    })
}

fn read_hours(mut from: Reader<'_>) -> Result<PreferredHours> {
    let hours = PreferredHours { schedule: from.text(1)?, longest_wait_ms: from.number(2)? };
    from.end().map(|()| hours)
}

/// Fields of `Resources`.
pub(super) fn write_resources(to: &mut Writer<'_>, resources: &Resources) {
    to.number(1, resources.cpu_millis.0);
    to.number(2, resources.memory_bytes.0);
    for (name, amount) in &resources.other {
        to.message(3, |to| {
            to.bytes(1, name);
            to.number(2, amount.0);
        });
    }
}

/// The amounts of their fields.
pub(super) fn read_resources(mut from: Reader<'_>) -> Result<Resources> {
    let cpu_millis = Amount(from.number(1)?);
    let memory_bytes = Amount(from.number(2)?);
    let other = from.messages(3, "amount", |mut from| {
        let entry = (from.text(1)?, Amount(from.number(2)?));
        from.end().map(|()| entry)
    })?;
    from.end()?;
    if !other.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(CodecError::NotCanonical { what: "map of amounts" });
    }
    if other.iter().any(|(_, amount)| amount.is_zero()) {
        return Err(CodecError::NotCanonical { what: "resources" });
    }
    Ok(Resources { cpu_millis, memory_bytes, other: other.into_iter().collect() })
}

fn read_labels(from: &mut Reader<'_>, field: u32) -> Result<Labels> {
    let labels = from.messages(field, "label", |mut from| {
        let label = (from.text(1)?, from.text(2)?);
        from.end().map(|()| label)
    })?;
    if !labels.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(CodecError::NotCanonical { what: "map of labels" });
    }
    Ok(labels.into_iter().collect())
}

fn read_gang(mut from: Reader<'_>) -> Result<Gang> {
    let gang = Gang { min_members: from.small(1)?, max_members: from.small(2)?, spread: from.flag(3)? };
    from.end().map(|()| gang)
}

fn write_requirements(to: &mut Writer<'_>, requirements: &Requirements) {
    to.message(1, |to| write_resources(to, &requirements.amounts));
    if let Some(gpu) = &requirements.gpu {
        to.message(2, |to| write_gpu(to, gpu));
    }
    for term in &requirements.required.terms {
        to.message(3, |to| write_term(to, term));
    }
    for wish in &requirements.preferred {
        to.message(4, |to| {
            to.number(1, wish.weight);
            to.message(2, |to| write_term(to, &wish.term));
        });
    }
}

fn read_requirements(mut from: Reader<'_>) -> Result<Requirements> {
    let amounts = read_resources(from.some_message(1, "resources")?)?;
    let gpu = from.message(2, "gpu ask")?.map(read_gpu).transpose()?;
    let required = Selector { terms: from.messages(3, "term", read_term)? };
    let preferred = from.messages(4, "preferred", |mut from| {
        let weight = from.small(1)?;
        let term = read_term(from.some_message(2, "preferred.term")?)?;
        from.end().map(|()| Preferred { weight, term })
    })?;
    from.end()?;
    Ok(Requirements { amounts, gpu, required, preferred })
}

fn write_gpu(to: &mut Writer<'_>, ask: &GpuAsk) {
    to.number(1, ask.count);
    match ask.share {
        GpuShare::Whole => to.message(2, |_| {}),
        GpuShare::Milli(milli) => to.some_number(3, milli),
        GpuShare::Memory(bytes) => to.some_number(4, bytes),
        GpuShare::Mig(_) => {}
    }
    to.number(5, ask.min_device_memory_bytes);
    for model in &ask.models {
        to.some_bytes(6, model);
    }
    if let GpuShare::Mig(profile) = ask.share {
        to.bytes(7, profile.to_string());
    }
}

fn read_gpu(mut from: Reader<'_>) -> Result<GpuAsk> {
    let count = from.small(1)?;
    let share = match from.next_field()? {
        Some(2) => {
            from.some_message(2, "whole device")?.end()?;
            Some(GpuShare::Whole)
        }
        Some(3) => Some(GpuShare::Milli(narrow(from.some_number(3)?, "gpu.milli")?)),
        Some(4) => Some(GpuShare::Memory(from.some_number(4)?)),
        _ => None,
    };
    let min_device_memory_bytes = from.number(5)?;
    let models = from.texts(6)?;
    let profile = from.text(7)?;
    from.end()?;
    let share = match (share, profile.as_str()) {
        (None, "") => return Err(CodecError::UnknownKind { what: "gpu share" }),
        (None, profile) => GpuShare::Mig(mig::decode_profile(profile)?),
        (Some(share), "") => share,
        (Some(_), _) => return Err(CodecError::NotCanonical { what: "gpu share" }),
    };
    Ok(GpuAsk { count, share, min_device_memory_bytes, models })
}

fn write_term(to: &mut Writer<'_>, term: &Term) {
    to.bytes(1, &term.key);
    to.choice(2, names::encode_operator(term.operator));
    for value in &term.values {
        to.some_bytes(3, value);
    }
}

fn read_term(mut from: Reader<'_>) -> Result<Term> {
    let key = from.text(1)?;
    let operator = names::decode_operator(from.choice(2)?)?;
    let values = from.texts(3)?;
    from.end().map(|()| Term { key, operator, values })
}

/// A number that the ledger keeps in 16 bits.
pub(super) fn narrow(from: u64, field: &'static str) -> Result<u16> {
    u16::try_from(from).map_err(|_| CodecError::OutOfRange { field, value: from })
}
