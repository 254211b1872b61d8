//! Nodes, registrations of agents, leases as agents see them.

use std::collections::BTreeMap;

use plimsoll_ledger::{
    Device, DeviceGrant, FencePending, Ledger, MemberPlacement, Node, NodeAdmin, NodeHealth, Registration,
    Reservation,
};
use plimsoll_types::{LedgerTime, NodeId, ReservationId};

use super::check::Check;
use super::reservation::held;
use super::{Violation, mig, resources, resources_to_v1, state_to_v1};
use crate::limits::{MAX_AMOUNT, MAX_DEVICE_TEXT_BYTES, MAX_DEVICES};
use crate::v1;

/// Bare name of a node; its number where the ledger no longer knows it.
pub fn node_name(ledger: &Ledger, id: NodeId) -> String {
    ledger.node_name(id).map_or_else(|| format!("#{}", id.0), ToOwned::to_owned)
}

/// How a node is, in one word.
pub fn node_state(from: &Node) -> v1::NodeState {
    match from.health {
        NodeHealth::Available if from.interruption.is_some() => v1::NodeState::Interrupted,
        NodeHealth::Available => admin_state(&from.admin),
        NodeHealth::Suspect => v1::NodeState::Suspect,
        NodeHealth::Lost => v1::NodeState::Lost,
        NodeHealth::Fenced => v1::NodeState::Fenced,
        NodeHealth::Failed => v1::NodeState::Failed,
    }
}

/// A node as a message. The ledger gives what is used of it, and by whom.
pub fn node_to_v1(from: &Node, ledger: &Ledger) -> v1::Node {
    let usage = ledger.usage(from.id).cloned().unwrap_or_default();
    let reason = match &from.admin {
        NodeAdmin::Schedulable => String::new(),
        NodeAdmin::Cordoned { reason } | NodeAdmin::Draining { reason, .. } => reason.clone(),
    };
    let silent = matches!(from.health, NodeHealth::Suspect | NodeHealth::Lost);
    v1::Node {
        name: format!("nodes/{}", from.name()),
        id: from.name().to_owned(),
        number: from.id.0,
        pool: from.pool.clone(),
        home_pool: from.lent_by().unwrap_or_default().to_owned(),
        came_from_pool: from.moved.as_ref().map(|moved| moved.from.clone()).unwrap_or_default(),
        came_time_ms: from.moved.as_ref().map_or(0, |moved| moved.at.0),
        interruption_time_ms: from.interruption.map_or(0, |known| known.noticed_at.0),
        interruption_deadline_ms: from.interruption.map_or(0, |known| known.deadline.0),
        labels: from.effective_labels(),
        capacity: Some(resources_to_v1(&from.registration.capacity)),
        allocatable: Some(resources_to_v1(&from.allocatable)),
        used: Some(resources_to_v1(&usage.used)),
        devices: devices(from, ledger),
        state: node_state(from).into(),
        schedulable: from.is_eligible(),
        admin_state: admin_state(&from.admin).into(),
        reason,
        drain_deadline_ms: from.drain_deadline().unwrap_or_default().0,
        health_since_ms: from.health_since.0,
        epoch: from.epoch.0,
        incarnation: from.registration.incarnation,
        self_fencing: from.registration.self_fencing,
        reservations: usage.holders.iter().map(ReservationId::to_string).collect(),
        fence_pending: from.fence_pending.iter().map(|pending| fence_pending(pending, from)).collect(),
        revision: from.changed.0,
        safe_end_ms: if silent { ledger.safe_end(from.id).unwrap_or_default().0 } else { 0 },
    }
}

/// A registration from its message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn registration_from_v1(from: &v1::NodeRegistration) -> Result<Registration, Vec<Violation>> {
    let mut check = Check::new();
    check.name("name", &from.name);
    if !from.pool.is_empty() {
        check.name("pool", &from.pool);
    }
    let labels = check.labels("labels", &from.labels);
    let capacity = from.capacity.clone().unwrap_or_default();
    let capacity = check.within("capacity", |check| resources::resources(check, &capacity));
    let mut positions: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, device) in from.devices.iter().enumerate() {
        if let Some(first) = positions.insert(&device.uuid, position) {
            let text = format!("{:?} is also that of devices[{first}]", device.uuid);
            check.fail(&format!("devices[{position}].uuid"), text);
        }
    }
    let devices = check.each("devices", &from.devices, MAX_DEVICES, |check, device| {
        if device.uuid.is_empty() {
            check.fail("uuid", "is missing");
        }
        check.text("uuid", &device.uuid, MAX_DEVICE_TEXT_BYTES);
        check.text("model", &device.model, MAX_DEVICE_TEXT_BYTES);
        check.range("memory_bytes", device.memory_bytes, 1, MAX_AMOUNT);
        Device {
            uuid: device.uuid.clone(),
            model: device.model.trim().to_lowercase(),
            memory_bytes: device.memory_bytes,
            failed: device.failed,
            mig: device.mig.as_ref().map(|from| check.within("mig", |check| mig::layout(check, from))),
        }
    });
    let mut running: Vec<ReservationId> = Vec::with_capacity(from.running.len());
    for (position, id) in from.running.iter().enumerate() {
        match id.parse() {
            Ok(id) => running.push(id),
            Err(error) => check.fail(&format!("running[{position}]"), format!("{error}")),
        }
    }
    running.sort_unstable();
    running.dedup();
    let registration = Registration {
        name: from.name.clone(),
        incarnation: from.incarnation,
        pool: from.pool.clone(),
        labels,
        capacity,
        devices,
        self_fencing: from.self_fencing,
        running,
    };
    check.finish(registration)
}

/// A registration as a message.
pub fn registration_to_v1(from: &Registration) -> v1::NodeRegistration {
    let device = |device: &Device| v1::RegisteredDevice {
        uuid: device.uuid.clone(),
        model: device.model.clone(),
        memory_bytes: device.memory_bytes,
        failed: device.failed,
        mig: device.mig.as_ref().map(mig::layout_to_v1),
    };
    v1::NodeRegistration {
        name: from.name.clone(),
        incarnation: from.incarnation,
        pool: from.pool.clone(),
        labels: from.labels.clone(),
        capacity: Some(resources_to_v1(&from.capacity)),
        devices: from.devices.iter().map(device).collect(),
        self_fencing: from.self_fencing,
        running: from.running.iter().map(ReservationId::to_string).collect(),
        agent_version: String::new(),
    }
}

/// The lease of a reservation on one node, as its agent is told at ledger time `now`; `None` where it has no member there.
pub fn node_lease(
    from: &Reservation,
    node: NodeId,
    now: LedgerTime,
    ledger: &Ledger,
) -> Option<v1::NodeLease> {
    let mut members = held(from, ledger);
    let mut here = from.members.iter().map(|member| member.node == node);
    members.retain(|_| here.next().unwrap_or(false));
    if members.is_empty() {
        return None;
    }
    Some(v1::NodeLease {
        node: node_name(ledger, node),
        reservation: from.id.to_string(),
        token: from.token_on(node).0,
        state: state_to_v1(from.state).into(),
        deadline_ms: from.deadline.0,
        ttl_ms: from.ttl_ms,
        remaining_ms: from.deadline.ms_since(now),
        allocations: members,
        name: from.request.name.clone(),
        requester: from.requester.clone(),
    })
}

fn admin_state(from: &NodeAdmin) -> v1::NodeState {
    match from {
        NodeAdmin::Schedulable => v1::NodeState::Available,
        NodeAdmin::Cordoned { .. } => v1::NodeState::Cordoned,
        NodeAdmin::Draining { .. } => v1::NodeState::Draining,
    }
}

fn devices(node: &Node, ledger: &Ledger) -> Vec<v1::Device> {
    let usage = ledger.usage(node.id);
    let mut holders: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for id in usage.iter().flat_map(|usage| &usage.holders) {
        let members = ledger.reservation(*id).map(|holder| &holder.members[..]).unwrap_or_default();
        let here = |member: &&MemberPlacement| member.node == node.id;
        for grant in members.iter().filter(here).flat_map(|member| &member.devices) {
            let list = holders.entry(grant.device.0).or_default();
            let id = id.to_string();
            if list.last() != Some(&id) {
                list.push(id);
            }
        }
    }
    let one = |(position, device): (usize, &Device)| {
        let used = usage.and_then(|usage| usage.devices.get(position)).copied().unwrap_or_default();
        let holders = u16::try_from(position).ok().and_then(|index| holders.remove(&index));
        v1::Device {
            name: format!("nodes/{}/devices/{}", node.name(), device.uuid),
            uuid: device.uuid.clone(),
            index: u32::try_from(position).unwrap_or(u32::MAX),
            model: device.model.clone(),
            memory_bytes: device.memory_bytes,
            failed: device.failed,
            used_milli: used.milli,
            used_memory_bytes: used.memory_bytes,
            grants: used.grants,
            exclusive: used.exclusive,
            reservations: holders.unwrap_or_default(),
            mig: device.mig.as_ref().map(mig::layout_to_v1),
            used_memory_slices: mig::used_slices(&used),
            used_compute_slices: used.compute_slices.into(),
            mig_free: mig::free(device, &used),
        }
    };
    node.registration.devices.iter().enumerate().map(one).collect()
}

fn fence_pending(from: &FencePending, node: &Node) -> v1::FencePending {
    let device = |grant: &DeviceGrant| {
        let device = node.registration.devices.get(usize::from(grant.device.0));
        v1::DeviceGrant {
            uuid: device.map(|device| device.uuid.clone()).unwrap_or_default(),
            index: grant.device.0.into(),
            milli: grant.milli.into(),
            memory_bytes: grant.memory_bytes,
            model: device.map(|device| device.model.clone()).unwrap_or_default(),
            isolation: v1::DeviceIsolation::Unspecified.into(),
            mig: mig::slices_to_v1(grant, None),
        }
    };
    v1::FencePending {
        reservation: from.reservation.to_string(),
        token: from.token.0,
        amounts: Some(resources_to_v1(&from.amounts)),
        devices: from.devices.iter().map(device).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_list_every_violation_and_sort_what_runs() {
        let device =
            |uuid: &str| v1::RegisteredDevice { uuid: uuid.into(), memory_bytes: 1, ..Default::default() };
        let mut from = v1::NodeRegistration {
            name: "node-01".into(),
            devices: vec![device("GPU-a"), device("GPU-b")],
            running: vec!["r-0009".into(), "r-0002".into(), "r-0002".into()],
            ..Default::default()
        };
        let registration = registration_from_v1(&from).unwrap();
        assert_eq!(registration.running, [ReservationId(2), ReservationId(9)]);

        from.name = "Node 1".into();
        from.devices = vec![device("GPU-a"), device("GPU-a"), v1::RegisteredDevice::default()];
        from.running = vec!["x".into()];
        let fields: Vec<String> =
            registration_from_v1(&from).unwrap_err().into_iter().map(|one| one.field).collect();
        let expected =
            ["name", "devices[1].uuid", "devices[2].uuid", "devices[2].memory_bytes", "running[0]"];
        assert_eq!(fields, expected);
    }
}
