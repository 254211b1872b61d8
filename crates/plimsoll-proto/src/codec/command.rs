//! Commands of the log, in canonical bytes.

use plimsoll_ledger::{AdminChange, Blocker, Command, Entry, Verdict};
use plimsoll_types::{DeviceIndex, NodeEpoch, NodeId, ReservationId, Revision};

use super::decode::{self, Result, all};
use super::{
    CodecError, contention, encode, eviction, names, overflow, request, reservation, scale, schedule, service,
};
use crate::fields::{Reader, Writer};
use crate::log;

/// Fields of `LogCommand`.
pub(super) fn write(to: &mut Writer<'_>, entry: &Entry) {
    to.bytes(1, &entry.actor);
    to.bytes(2, &entry.request_id);
    write_hash(to, 3, &entry.request_hash);
    write_command(to, &entry.command);
}

/// The command of its fields, with its origin.
pub(super) fn read(mut from: Reader<'_>) -> Result<Entry> {
    let actor = from.text(1)?;
    let request_id = from.text(2)?;
    let request_hash = read_hash(&mut from, 3)?;
    let command = read_command(&mut from)?;
    from.end().map(|()| Entry { actor, request_id, request_hash, command })
}

/// 32 bytes; all zero are left out.
pub(super) fn write_hash(to: &mut Writer<'_>, field: u32, hash: &[u8; 32]) {
    if *hash != [0; 32] {
        to.bytes(field, hash);
    }
}

/// The other way.
pub(super) fn read_hash(from: &mut Reader<'_>, field: u32) -> Result<[u8; 32]> {
    let bytes = from.bytes(field)?;
    if bytes.is_empty() {
        return Ok([0; 32]);
    }
    let length = CodecError::OutOfRange { field: "length of request_hash", value: bytes.len() as u64 };
    let hash = <[u8; 32]>::try_from(bytes).map_err(|_| length)?;
    if hash == [0; 32] { Err(from.not_canonical()) } else { Ok(hash) }
}

fn write_command(to: &mut Writer<'_>, command: &Command) {
    match command {
        Command::Submit { request: asked, verdict } => to.message(10, |to| {
            to.message(1, |to| request::write(to, asked));
            write_verdict(to, verdict);
        }),
        Command::Place { reservation, placement } => to.message(11, |to| {
            to.number(1, reservation.0);
            to.message(2, |to| reservation::write_placement(to, placement));
        }),
        Command::Confirm { reservation, token } => to.message(12, |to| {
            to.number(1, reservation.0);
            to.number(2, token.0);
        }),
        Command::Renew { reservation, token, ttl_ms } => to.message(13, |to| {
            to.number(1, reservation.0);
            to.number(2, token.0);
            to.number(3, *ttl_ms);
        }),
        Command::Resize { reservation, token, amounts } => to.message(14, |to| {
            to.number(1, reservation.0);
            to.number(2, token.0);
            to.message(3, |to| request::write_resources(to, amounts));
        }),
        Command::Release { reservation, token } => to.message(15, |to| {
            to.number(1, reservation.0);
            to.number(2, token.0);
        }),
        Command::Cancel { reservation } => to.message(16, |to| to.number(1, reservation.0)),
        Command::Expire { limit } => to.message(17, |to| to.number(1, *limit)),
        Command::RegisterNode(node) => to.generated(18, &encode::registration(node)),
        Command::SetNodeHealth { node, epoch, health } => to.message(19, |to| {
            to.number(1, node.0);
            to.number(2, epoch.0);
            to.choice(3, names::encode_health(*health));
        }),
        Command::SetNodeAdmin { node, admin } => to.message(20, |to| {
            to.number(1, node.0);
            write_admin(to, admin);
        }),
        Command::SetDeviceHealth { node, device, failed } => to.message(21, |to| {
            to.number(1, node.0);
            to.number(2, device.0);
            to.number(3, *failed);
        }),
        Command::RemoveNode { node } => to.message(22, |to| to.number(1, node.0)),
        Command::ApplyPolicy { put, delete, if_revision } => to.generated(
            23,
            &log::ApplyPolicy {
                put: put.iter().map(encode::policy_object).collect(),
                delete: delete.iter().map(encode::policy_name).collect(),
                if_revision: if_revision.0,
            },
        ),
        Command::BecomeLeader { leader } => to.message(24, |to| to.number(1, *leader)),
        Command::Upgrade { to: version } => to.message(25, |to| to.number(1, *version)),
        Command::Preempt { reservation, placement, victims } => to.message(26, |to| {
            to.number(1, reservation.0);
            to.message(2, |to| reservation::write_placement(to, placement));
            to.packed(3, victims.iter().map(|id| id.0));
        }),
        Command::Relocate { reservation, placement } => to.message(65, |to| {
            to.number(1, reservation.0);
            to.message(2, |to| reservation::write_placement(to, placement));
        }),
        Command::Evict { reservation, overload } => to.message(75, |to| {
            to.number(1, reservation.0);
            to.message(2, |to| eviction::write_overload(to, overload));
        }),
        Command::InterruptNode { node, epoch, in_ms } => to.message(110, |to| {
            to.number(1, node.0);
            to.number(2, epoch.0);
            to.number(3, *in_ms);
        }),
        Command::MoveNode { node, from, to: pool } => to.message(66, |to| {
            to.number(1, node.0);
            to.bytes(2, from);
            to.bytes(3, pool);
        }),
        Command::SetAside { aside } => to.message(100, |to| overflow::write_aside(to, aside)),
        Command::Return { requests } => to.message(101, |to| overflow::write_returned(to, requests)),
        Command::OpenWindows { schedule, changed, windows, until } => {
            to.generated(30, &schedule::encode_open(schedule, *changed, windows, *until));
        }
        Command::TakeTokens { quota, rate, scope, tokens } => to.message(35, |to| {
            to.bytes(1, quota);
            to.bytes(2, rate);
            to.bytes(3, scope);
            to.number(4, *tokens);
        }),
        Command::Requeue { reservation, token } => to.message(37, |to| {
            to.number(1, reservation.0);
            to.number(2, token.0);
        }),
        Command::SetEndpoint { reservation, token, announced } => to.message(40, |to| {
            to.number(1, reservation.0);
            to.number(2, token.0);
            if let Some(announced) = announced {
                to.generated(3, &service::encode_announcement(announced));
            }
        }),
        Command::ReportLoad { reports } => {
            let reports = reports.iter().map(service::encode_report).collect();
            to.generated(41, &log::ReportLoad { reports });
        }
        Command::SetDesired(decided) => to.generated(42, &scale::encode_desired(decided)),
        Command::PinScale { target, to: number, for_ms } => {
            to.generated(43, &scale::encode_pin(target, *number, *for_ms));
        }
        Command::OpenIntent { policy, machine, template } => {
            to.generated(44, &scale::encode_open(policy, *machine, template))
        }
        Command::StepIntent { intent, attempts, step } => {
            to.generated(45, &scale::encode_step(*intent, *attempts, step));
        }
        Command::ObserveContention { pool, resource } => {
            to.generated(60, &contention::encode_observe(pool, resource));
        }
    }
}

fn read_command(from: &mut Reader<'_>) -> Result<Command> {
    let Some(number) = from.next_field()? else {
        return Err(CodecError::UnknownKind { what: "command" });
    };
    let generated = match number {
        18 => Command::RegisterNode(decode::registration(from.some_generated(18, "registration")?)?),
        23 => {
            let policy: log::ApplyPolicy = from.some_generated(23, "policy")?;
            Command::ApplyPolicy {
                put: all(policy.put, decode::policy_object)?,
                delete: all(policy.delete, decode::policy_name)?,
                if_revision: Revision(policy.if_revision),
            }
        }
        30 => schedule::decode_open(from.some_generated(30, "windows")?),
        41 => {
            let report: log::ReportLoad = from.some_generated(41, "load report")?;
            Command::ReportLoad { reports: service::decode_reports(report.reports)? }
        }
        42 => scale::decode_desired(from.some_generated(42, "set desired")?),
        43 => scale::decode_pin(from.some_generated(43, "pin scale")?)?,
        44 => scale::decode_open(from.some_generated(44, "open intent")?),
        45 => scale::decode_step(from.some_generated(45, "step intent")?)?,
        60 => contention::decode_observe(from.some_generated(60, "observe contention")?),
        _ => return read_plain(from, number),
    };
    Ok(generated)
}

/// Those that are a message of a few fields.
fn read_plain(from: &mut Reader<'_>, number: u32) -> Result<Command> {
    // What is unknown is refused before it is looked into.
    let unknown = from.not_canonical();
    let mut from = from.some_message(number, "command").map_err(|_| unknown.clone())?;
    let command = match number {
        10 => Command::Submit {
            request: request::read(from.some_message(1, "submit.request")?)?,
            verdict: read_verdict(&mut from)?,
        },
        11 => Command::Place {
            reservation: ReservationId(from.number(1)?),
            placement: reservation::read_placement(from.some_message(2, "place.placement")?)?,
        },
        12 => {
            let (reservation, token) = read_holder(&mut from)?;
            Command::Confirm { reservation, token }
        }
        13 => {
            let (reservation, token) = read_holder(&mut from)?;
            Command::Renew { reservation, token, ttl_ms: from.number(3)? }
        }
        14 => {
            let (reservation, token) = read_holder(&mut from)?;
            let amounts = request::read_resources(from.some_message(3, "resources")?)?;
            Command::Resize { reservation, token, amounts }
        }
        15 => {
            let (reservation, token) = read_holder(&mut from)?;
            Command::Release { reservation, token }
        }
        16 => Command::Cancel { reservation: ReservationId(from.number(1)?) },
        17 => Command::Expire { limit: from.small(1)? },
        19 => Command::SetNodeHealth {
            node: NodeId(from.small(1)?),
            epoch: NodeEpoch(from.number(2)?),
            health: names::decode_health(from.choice(3)?)?,
        },
        20 => Command::SetNodeAdmin { node: NodeId(from.small(1)?), admin: read_admin(&mut from)? },
        21 => Command::SetDeviceHealth {
            node: NodeId(from.small(1)?),
            device: DeviceIndex(request::narrow(from.number(2)?, "device")?),
            failed: from.flag(3)?,
        },
        22 => Command::RemoveNode { node: NodeId(from.small(1)?) },
        24 => Command::BecomeLeader { leader: from.number(1)? },
        25 => Command::Upgrade { to: from.small(1)? },
        26 => Command::Preempt {
            reservation: ReservationId(from.number(1)?),
            placement: reservation::read_placement(from.some_message(2, "preempt.placement")?)?,
            victims: from.packed(3)?.into_iter().map(ReservationId).collect(),
        },
        35 => Command::TakeTokens {
            quota: from.text(1)?,
            rate: from.text(2)?,
            scope: from.text(3)?,
            tokens: from.number(4)?,
        },
        37 => {
            let (reservation, token) = read_holder(&mut from)?;
            Command::Requeue { reservation, token }
        }
        40 => {
            let (reservation, token) = read_holder(&mut from)?;
            let announced = from.generated(3, "announcement")?.map(service::decode_announcement);
            Command::SetEndpoint { reservation, token, announced }
        }
        110 => Command::InterruptNode {
            node: NodeId(from.small(1)?),
            epoch: NodeEpoch(from.number(2)?),
            in_ms: from.number(3)?,
        },
        66 => Command::MoveNode { node: NodeId(from.small(1)?), from: from.text(2)?, to: from.text(3)? },
        65 => Command::Relocate {
            reservation: ReservationId(from.number(1)?),
            placement: reservation::read_placement(from.some_message(2, "relocate.placement")?)?,
        },
        100 => Command::SetAside { aside: overflow::read_aside(&mut from)? },
        101 => Command::Return { requests: overflow::read_returned(&mut from)? },
        75 => Command::Evict {
            reservation: ReservationId(from.number(1)?),
            overload: eviction::read_overload(from.some_message(2, "evict.overload")?)?,
        },
        _ => return Err(unknown),
    };
    from.end().map(|()| command)
}

/// The first two fields of what holders say.
fn read_holder(from: &mut Reader<'_>) -> Result<(ReservationId, Revision)> {
    Ok((ReservationId(from.number(1)?), Revision(from.number(2)?)))
}

fn write_verdict(to: &mut Writer<'_>, verdict: &Verdict) {
    match verdict {
        Verdict::Place(place) => to.message(2, |to| reservation::write_placement(to, place)),
        Verdict::Blocked(list) => to.message(3, |to| reservation::write_blockers(to, 1, list)),
        Verdict::Infeasible(list) => to.message(4, |to| reservation::write_blockers(to, 1, list)),
    }
}

fn read_verdict(from: &mut Reader<'_>) -> Result<Verdict> {
    let blockers = |mut list: Reader<'_>| -> Result<Vec<Blocker>> {
        let blockers = reservation::read_blockers(&mut list, 1)?;
        list.end().map(|()| blockers)
    };
    Ok(match from.next_field()? {
        Some(2) => Verdict::Place(reservation::read_placement(from.some_message(2, "placement")?)?),
        Some(3) => Verdict::Blocked(blockers(from.some_message(3, "blockers")?)?),
        Some(4) => Verdict::Infeasible(blockers(from.some_message(4, "blockers")?)?),
        _ => return Err(CodecError::UnknownKind { what: "verdict" }),
    })
}

fn write_admin(to: &mut Writer<'_>, change: &AdminChange) {
    match change {
        AdminChange::Uncordon => to.message(2, |_| {}),
        AdminChange::Cordon { reason } => to.message(3, |to| to.bytes(1, reason)),
        AdminChange::Drain { reason, deadline_ms } => to.message(4, |to| {
            to.bytes(1, reason);
            to.number(2, *deadline_ms);
        }),
    }
}

fn read_admin(from: &mut Reader<'_>) -> Result<AdminChange> {
    let number = from.next_field()?.filter(|number| (2..=4).contains(number));
    let number = number.ok_or(CodecError::UnknownKind { what: "node admin" })?;
    let mut from = from.some_message(number, "node admin")?;
    let change = match number {
        2 => AdminChange::Uncordon,
        3 => AdminChange::Cordon { reason: from.text(1)? },
        _ => AdminChange::Drain { reason: from.text(1)?, deadline_ms: from.number(2)? },
    };
    from.end().map(|()| change)
}
