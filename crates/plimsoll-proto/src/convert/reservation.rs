//! Reservations as the API shows them.

use plimsoll_ledger::{
    AsideHow, DeviceGrant, EndReason, Evicted, GpuAsk, Ledger, MemberPlacement, Overload, Preempted,
    PreemptionRule, Request, Reservation, State,
};
use plimsoll_types::{ReservationId, Resources};

use super::{blocker_to_v1, endpoint_to_v1, mig, node_name, request_to_v1, resources_to_v1};
use crate::v1;

/// Both directions from one table.
macro_rules! states {
    ($($state:ident),+ $(,)?) => {
        /// A state as a message has it.
        pub fn state_to_v1(from: State) -> v1::ReservationState {
            match from {
                $(State::$state => v1::ReservationState::$state,)+
            }
        }

        /// The ledger's state; `None` for `Unspecified`.
        pub fn state_from_v1(from: v1::ReservationState) -> Option<State> {
            match from {
                v1::ReservationState::Unspecified => None,
                $(v1::ReservationState::$state => Some(State::$state),)+
            }
        }
    };
}

states!(
    Pending, Planned, Held, Active, Partial, Preempting, Releasing, Unknown, Released, Expired, Failed,
    Preempted, Rejected
);

/// Why a reservation ended; `Unspecified` where it has not.
pub fn end_reason_to_v1(from: Option<EndReason>) -> v1::EndReason {
    match from {
        None => v1::EndReason::Unspecified,
        Some(EndReason::Released) => v1::EndReason::Released,
        Some(EndReason::Cancelled) => v1::EndReason::Cancelled,
        Some(EndReason::NotConfirmed) => v1::EndReason::NotConfirmed,
        Some(EndReason::NotRenewed) => v1::EndReason::NotRenewed,
        Some(EndReason::MaxDuration) => v1::EndReason::MaxDuration,
        Some(EndReason::WaitedTooLong) => v1::EndReason::WaitedTooLong,
        Some(EndReason::NodeLost) => v1::EndReason::NodeLost,
        Some(EndReason::NodeFenced) => v1::EndReason::NodeFenced,
        Some(EndReason::NodeFailed) => v1::EndReason::NodeFailed,
        Some(EndReason::Drained) => v1::EndReason::Drained,
        Some(EndReason::Preempted) => v1::EndReason::Preempted,
        Some(EndReason::WindowOpened) => v1::EndReason::WindowOpened,
        Some(EndReason::NeverStarted) => v1::EndReason::NeverStarted,
        Some(EndReason::NotRepaired) => v1::EndReason::NotRepaired,
    }
}

/// Resource name of a reservation.
pub fn reservation_name(pool: &str, id: ReservationId) -> String {
    format!("pools/{pool}/reservations/{id}")
}

/// A reservation as a message. The ledger gives the names of its nodes and devices.
pub fn reservation_to_v1(from: &Reservation, ledger: &Ledger) -> v1::Reservation {
    let due = |states: &[State]| if states.contains(&from.resume_state) { from.deadline.0 } else { 0 };
    v1::Reservation {
        name: reservation_name(&from.request.pool, from.id),
        id: from.id.to_string(),
        spec: Some(request_to_v1(&from.request)),
        state: state_to_v1(from.state).into(),
        resume_state: state_to_v1(from.resume_state).into(),
        token: from.token.0,
        allocations: held(from, ledger),
        amounts: Some(resources_to_v1(&from.amounts)),
        create_time_ms: from.submitted_at.0,
        grant_time_ms: from.granted_at.0,
        wait_deadline_ms: due(&[State::Pending, State::Planned]),
        hold_deadline_ms: due(&[State::Held]),
        lease_deadline_ms: due(&[State::Active, State::Partial, State::Preempting]),
        max_end_time_ms: from.hard_end.0,
        end_time_ms: from.ended_at.0,
        revision: from.changed.0,
        end_reason: end_reason_to_v1(from.end_reason).into(),
        blockers: from.blockers.iter().map(blocker_to_v1).collect(),
        requester: from.requester.clone(),
        priority: from.priority,
        ttl_ms: from.ttl_ms,
        preempted: from.preempted.as_deref().map(|preempted| preempted_to_v1(preempted, ledger)),
        grace_deadline_ms: due(&[State::Preempting]),
        cost_micros: from.tab.as_ref().map_or(from.cost_micros, |tab| tab.committed_cost_micros()),
        start: None,
        endpoint: from.endpoint.as_deref().map(endpoint_to_v1),
        repair: from.repair().map(|repair| v1::Repair {
            since_time_ms: repair.since.0,
            until_time_ms: repair.until.0,
            missing_members: from.missing_members(),
        }),
        aside: from.aside.as_ref().map(|aside| v1::Aside {
            how: match aside.how {
                AsideHow::Spilled => v1::AsideHow::Spilled,
                AsideHow::Compressed => v1::AsideHow::Compressed,
            }
            .into(),
            body_bytes: aside.body_bytes.into(),
        }),
    }
}

/// Members that hold something, or will, with their tokens.
pub(super) fn held(from: &Reservation, ledger: &Ledger) -> Vec<v1::Allocation> {
    let mut all = allocations(&from.request, &from.members, &from.amounts, ledger);
    for (member, allocation) in all.iter_mut().enumerate() {
        allocation.token = from.token_of(member).0;
    }
    all
}

fn evicted_to_v1(from: &Evicted, ledger: &Ledger) -> v1::Evicted {
    let Overload { node, gauge, measured_permille, over_ms, .. } = from.overload;
    v1::Evicted {
        node: ledger.node(node).map(|node| node.name().to_owned()).unwrap_or_default(),
        gauge: gauge.name().to_owned(),
        measured_permille,
        above_permille: from.above_permille,
        over_ms,
    }
}

fn preempted_to_v1(from: &Preempted, ledger: &Ledger) -> v1::Preempted {
    let rule = match from.rule {
        PreemptionRule::LowerClass => v1::PreemptionRule::LowerClass,
        PreemptionRule::Reclaim => v1::PreemptionRule::Reclaim,
        PreemptionRule::BestEffort => v1::PreemptionRule::BestEffort,
        PreemptionRule::Relocation => v1::PreemptionRule::Relocation,
        PreemptionRule::Threshold => v1::PreemptionRule::Threshold,
        PreemptionRule::Interruption => v1::PreemptionRule::Interruption,
    };
    v1::Preempted {
        by: if from.evicted.is_some() { String::new() } else { from.by.to_string() },
        rule: rule.into(),
        notice_time_ms: from.at.0,
        revision: from.revision.0,
        grace_ms: from.grace_ms,
        to_node: from.to.map(|node| node_name(ledger, node)).unwrap_or_default(),
        evicted: from.evicted.map(|evicted| evicted_to_v1(&evicted, ledger)),
    }
}

/// Members of a grant of `request` as messages, each with `amounts` or those of its role; without tokens.
pub fn allocations(
    request: &Request,
    members: &[MemberPlacement],
    amounts: &Resources,
    ledger: &Ledger,
) -> Vec<v1::Allocation> {
    let one = |(position, member): (usize, &MemberPlacement)| {
        let role = request.roles.get(usize::from(member.role));
        v1::Allocation {
            member: u32::try_from(position).unwrap_or(u32::MAX),
            node: node_name(ledger, member.node),
            amounts: Some(resources_to_v1(role.map_or(amounts, |role| &role.requirements.amounts))),
            devices: device_grants(member, request.needs(member.role).gpu.as_ref(), ledger),
            token: 0,
            role: role.map_or_else(String::new, |role| role.name.clone()),
        }
    };
    members.iter().enumerate().map(one).collect()
}

fn device_grants(member: &MemberPlacement, asked: Option<&GpuAsk>, ledger: &Ledger) -> Vec<v1::DeviceGrant> {
    let one = |grant: &DeviceGrant| {
        let (uuid, model) = ledger.device_names(member.node, grant.device).unwrap_or_default();
        v1::DeviceGrant {
            uuid: uuid.to_owned(),
            index: grant.device.0.into(),
            milli: grant.milli.into(),
            memory_bytes: grant.memory_bytes,
            model: model.to_owned(),
            isolation: mig::isolation(grant).into(),
            mig: mig::slices_to_v1(grant, asked),
        }
    };
    member.devices.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{
        Answer, Command, Device, Entry, Outcome, Placement, Registration, Requirements, Stamp, Verdict,
    };
    use plimsoll_types::{DeviceIndex, LedgerTime, NodeId, Revision};

    use super::*;
    use crate::convert::{node_lease, node_to_v1};

    fn apply(ledger: &mut Ledger, command: Command) -> Answer {
        let stamp = Stamp {
            revision: Revision(ledger.revision().0 + 1),
            proposed_at: LedgerTime(1_000 + ledger.revision().0),
        };
        ledger.apply(stamp, &Entry { actor: "ada".into(), ..Entry::system(command) }).answer
    }

    /// A ledger with one node of one GPU, and a grant of half of that.
    fn granted() -> (Ledger, Reservation) {
        let mut ledger = Ledger::new();
        let device =
            Device { uuid: "GPU-a".into(), model: "h100".into(), memory_bytes: 80, ..Device::default() };
        let registration = Registration {
            name: "node-01".into(),
            incarnation: 5,
            capacity: Resources::new(8_000, 1 << 30),
            devices: vec![device],
            ..Registration::default()
        };
        apply(&mut ledger, Command::RegisterNode(registration));
        let request = Request {
            pool: "default".into(),
            class: "standard".into(),
            requirements: Requirements {
                amounts: Resources::new(2_000, 1 << 20),
                gpu: Some(GpuAsk::milli(500)),
                ..Requirements::default()
            },
            ..Request::default()
        };
        let grant = DeviceGrant { device: DeviceIndex(0), milli: 500, memory_bytes: 40, slices: None };
        let member = MemberPlacement { node: NodeId(0), devices: vec![grant], role: 0 };
        let verdict = Verdict::Place(Placement { members: vec![member] });
        match apply(&mut ledger, Command::Submit { request, verdict }).outcome {
            Outcome::Reservation(reservation) => (ledger, (*reservation).clone()),
            other => panic!("not granted: {other:?}"),
        }
    }

    #[test]
    fn grants_are_shown_with_names_uuids_token_and_deadline() {
        let (ledger, reservation) = granted();
        let shown = reservation_to_v1(&reservation, &ledger);
        assert_eq!(shown.name, "pools/default/reservations/r-0002");
        assert_eq!(
            (shown.state(), shown.token, shown.requester.as_str()),
            (v1::ReservationState::Held, 2, "ada")
        );
        assert_eq!((shown.wait_deadline_ms, shown.lease_deadline_ms), (0, 0));
        assert_eq!(shown.hold_deadline_ms, reservation.deadline.0);
        let device = &shown.allocations[0].devices[0];
        assert_eq!((shown.allocations[0].node.as_str(), device.uuid.as_str()), ("node-01", "GPU-a"));
        assert_eq!((device.model.as_str(), device.milli, device.memory_bytes), ("h100", 500, 40));
        assert_eq!(device.isolation(), v1::DeviceIsolation::Advisory);
    }

    #[test]
    fn nodes_and_leases_show_who_has_what() {
        let (ledger, reservation) = granted();
        let node = node_to_v1(ledger.node(NodeId(0)).unwrap(), &ledger);
        assert_eq!((node.name.as_str(), node.state()), ("nodes/node-01", v1::NodeState::Available));
        assert_eq!(node.reservations, ["r-0002"]);
        let device = &node.devices[0];
        assert_eq!(
            (device.used_milli, device.grants, &device.reservations[..]),
            (500, 1, &["r-0002".to_owned()][..])
        );

        let now = LedgerTime(reservation.deadline.0 - 70);
        let lease = node_lease(&reservation, NodeId(0), now, &ledger).unwrap();
        assert_eq!((lease.token, lease.remaining_ms, lease.allocations.len()), (2, 70, 1));
        assert_eq!(node_lease(&reservation, NodeId(1), now, &ledger), None);
    }

    #[test]
    fn messages_have_a_proto3_json_form() {
        let (ledger, reservation) = granted();
        let shown = reservation_to_v1(&reservation, &ledger);
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(json["state"], "RESERVATION_STATE_HELD");
        assert_eq!(json["token"], "2", "64-bit numbers are strings in proto3 JSON");
        assert_eq!(json["allocations"][0]["devices"][0]["memoryBytes"], "40");
        assert_eq!(serde_json::from_value::<v1::Reservation>(json).unwrap(), shown);
    }
}
