//! Reservations and where they are, in canonical bytes.

use std::sync::Arc;

use plimsoll_ledger::{
    Blocker, DeviceGrant, MemberPlacement, Placement, Preempted, Repair, Repaired, Request, Reservation,
};
use plimsoll_types::{DeviceIndex, LedgerTime, NodeId, ReservationId, Revision};

use super::decode::Result;
use super::{eviction, mig, names, overflow, request, service, usage};
use crate::fields::{Reader, Writer};

/// Fields of `Reservation`.
pub(super) fn write(to: &mut Writer<'_>, reservation: &Reservation) {
    to.number(1, reservation.id.0);
    to.message(2, |to| request::write(to, &reservation.request));
    to.bytes(3, &reservation.requester);
    to.signed(4, reservation.priority);
    to.choice(5, names::encode_state(reservation.state));
    to.choice(6, names::encode_state(reservation.resume_state));
    to.message(7, |to| request::write_resources(to, &reservation.amounts));
    write_members(to, 8, &reservation.members);
    to.number(9, reservation.token.0);
    to.number(10, reservation.ttl_ms);
    to.number(11, reservation.submitted_at.0);
    to.number(12, reservation.granted_at.0);
    to.number(13, reservation.deadline.0);
    to.number(14, reservation.hard_end.0);
    to.number(15, reservation.ended_at.0);
    to.choice(16, names::encode_end(reservation.end_reason));
    to.number(17, reservation.changed.0);
    write_blockers(to, 18, &reservation.blockers);
    if let Some(preempted) = &reservation.preempted {
        to.message(19, |to| {
            to.number(1, preempted.by.0);
            to.choice(2, names::encode_preemption_rule(preempted.rule));
            to.number(3, preempted.at.0);
            to.number(4, preempted.revision.0);
            to.number(5, preempted.grace_ms);
            if let Some(node) = preempted.to {
                to.some_number(6, node.0);
            }
            if let Some(evicted) = &preempted.evicted {
                to.message(7, |to| eviction::write_evicted(to, evicted));
            }
        });
    }
    if let Some(tab) = &reservation.tab {
        to.generated(28, &usage::encode_tab(tab));
    }
    to.number(29, reservation.cost_micros);
    if let Some(endpoint) = &reservation.endpoint {
        to.generated(40, &service::encode_endpoint(endpoint));
    }
    if let Some(repair) = reservation.repair() {
        to.message(51, |to| {
            to.number(1, repair.since.0);
            to.number(2, repair.until.0);
            to.number(3, repair.members);
        });
    }
    to.packed(52, reservation.member_tokens().iter().map(|token| token.0));
    if let Some(aside) = &reservation.aside {
        to.message(100, |to| overflow::write_kept(to, aside));
    }
}

/// The reservation of its fields.
pub(super) fn read(from: Reader<'_>) -> Result<Reservation> {
    read_with(from, |from| request::read(from).map(Arc::new))
}

/// The same; what was asked is read by `request`.
pub(super) fn read_with<'a>(
    mut from: Reader<'a>,
    request: impl FnOnce(Reader<'a>) -> Result<Arc<Request>>,
) -> Result<Reservation> {
    let id = ReservationId(from.number(1)?);
    let request = request(from.some_message(2, "reservation.request")?)?;
    let requester = from.text(3)?;
    let priority = from.signed(4)?;
    let state = names::decode_state(from.choice(5)?)?;
    let resume_state = names::decode_state(from.choice(6)?)?;
    let amounts = request::read_resources(from.some_message(7, "resources")?)?;
    let members = read_members(&mut from, 8)?;
    let token = Revision(from.number(9)?);
    let ttl_ms = from.number(10)?;
    let submitted_at = LedgerTime(from.number(11)?);
    let granted_at = LedgerTime(from.number(12)?);
    let deadline = LedgerTime(from.number(13)?);
    let hard_end = LedgerTime(from.number(14)?);
    let ended_at = LedgerTime(from.number(15)?);
    let end_reason = names::decode_end(from.choice(16)?)?;
    let changed = Revision(from.number(17)?);
    let blockers = read_blockers(&mut from, 18)?;
    let preempted = from.message(19, "preempted")?.map(read_preempted).transpose()?.map(Box::new);
    let tab = from.generated(28, "tab")?.map(usage::decode_tab).transpose()?.map(Arc::new);
    let cost_micros = from.number(29)?;
    let endpoint = from.generated(40, "endpoint")?.map(service::decode_endpoint).transpose()?.map(Arc::new);
    let repair = from.message(51, "repair")?.map(read_repair).transpose()?;
    let member_tokens = from.packed(52)?.into_iter().map(Revision).collect();
    let aside = from.message(100, "aside")?.map(overflow::read_kept).transpose()?.map(Box::new);
    from.end()?;
    Ok(Reservation {
        id,
        request,
        requester,
        priority,
        state,
        resume_state,
        amounts,
        members,
        token,
        ttl_ms,
        submitted_at,
        granted_at,
        deadline,
        hard_end,
        ended_at,
        end_reason,
        changed,
        blockers,
        preempted,
        tab,
        cost_micros,
        endpoint,
        repaired: Repaired::of(repair, member_tokens),
        aside,
    })
}

/// Fields of `Placement`.
pub(super) fn write_placement(to: &mut Writer<'_>, placement: &Placement) {
    write_members(to, 1, &placement.members);
}

/// The placement of its fields.
pub(super) fn read_placement(mut from: Reader<'_>) -> Result<Placement> {
    let members = read_members(&mut from, 1)?;
    from.end().map(|()| Placement { members })
}

/// A repeated `Blocker`.
pub(super) fn write_blockers(to: &mut Writer<'_>, field: u32, blockers: &[Blocker]) {
    for blocker in blockers {
        to.message(field, |to| {
            to.choice(1, names::encode_reason(blocker.reason));
            to.bytes(2, &blocker.subject);
            to.number(3, blocker.asked);
            to.number(4, blocker.available);
            to.number(5, blocker.limit);
            to.number(6, blocker.nodes);
        });
    }
}

/// The other way.
pub(super) fn read_blockers(from: &mut Reader<'_>, field: u32) -> Result<Vec<Blocker>> {
    from.messages(field, "blocker", |mut from| {
        let blocker = Blocker {
            reason: names::decode_reason(from.choice(1)?)?,
            subject: from.text(2)?,
            asked: from.number(3)?,
            available: from.number(4)?,
            limit: from.number(5)?,
            nodes: from.small(6)?,
        };
        from.end().map(|()| blocker)
    })
}

fn write_members(to: &mut Writer<'_>, field: u32, members: &[MemberPlacement]) {
    for member in members {
        to.message(field, |to| {
            to.number(1, member.node.0);
            for grant in &member.devices {
                to.message(2, |to| write_grant(to, grant));
            }
            to.number(3, member.role);
        });
    }
}

fn read_members(from: &mut Reader<'_>, field: u32) -> Result<Vec<MemberPlacement>> {
    from.messages(field, "member", |mut from| {
        let node = NodeId(from.small(1)?);
        let devices = from.messages(2, "device grant", read_grant)?;
        let role = request::narrow(from.number(3)?, "member.role")?;
        from.end().map(|()| MemberPlacement { node, devices, role })
    })
}

fn write_grant(to: &mut Writer<'_>, grant: &DeviceGrant) {
    to.number(1, grant.device.0);
    to.number(2, grant.milli);
    to.number(3, grant.memory_bytes);
    if let Some(slices) = &grant.slices {
        to.generated(4, &mig::encode_slices(slices));
    }
}

fn read_grant(mut from: Reader<'_>) -> Result<DeviceGrant> {
    let device = DeviceIndex(request::narrow(from.number(1)?, "grant.device")?);
    let milli = request::narrow(from.number(2)?, "grant.milli")?;
    let memory_bytes = from.number(3)?;
    let slices = from.generated(4, "slices")?.map(mig::decode_slices).transpose()?;
    from.end().map(|()| DeviceGrant { device, milli, memory_bytes, slices })
}

fn read_repair(mut from: Reader<'_>) -> Result<Repair> {
    let repair = Repair {
        since: LedgerTime(from.number(1)?),
        until: LedgerTime(from.number(2)?),
        members: from.small(3)?,
    };
    from.end().map(|()| repair)
}

fn read_preempted(mut from: Reader<'_>) -> Result<Preempted> {
    let preempted = Preempted {
        by: ReservationId(from.number(1)?),
        rule: names::decode_preemption_rule(from.choice(2)?)?,
        at: LedgerTime(from.number(3)?),
        revision: Revision(from.number(4)?),
        grace_ms: from.number(5)?,
        to: match from.next_field()? {
            Some(6) => {
                let value = from.some_number(6)?;
                let node = u32::try_from(value);
                let wide = |_| super::CodecError::OutOfRange { field: "preempted.to_node", value };
                Some(NodeId(node.map_err(wide)?))
            }
            _ => None,
        },
        evicted: from.message(7, "evicted")?.map(eviction::read_evicted).transpose()?,
    };
    from.end().map(|()| preempted)
}
