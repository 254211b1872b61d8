//! Places that are proposed, right or wrong, and what stays long at one.

use plimsoll_ledger::{
    Command, Device, DeviceGrant, Gang, GpuAsk, GpuShare, Ledger, MemberPlacement, MigSlices, Placement,
    ProfileName, Request, Requirements, Verdict, Wait,
};
use plimsoll_types::{DeviceIndex, NodeId, Resources};

use super::GIB;

/// A placement of one member per node named, with the grants that the ask makes of the devices from `device` on.
pub(crate) fn placement(ledger: &Ledger, request: &Request, nodes: &[u32], device: u16) -> Placement {
    let member = |node: &u32| {
        let count = request.requirements.gpu.as_ref().map_or(0, |gpu| gpu.count.min(8) as u16);
        let grant = |index: u16| {
            let none = Device { memory_bytes: 1, ..Device::default() };
            let device =
                ledger.node(NodeId(*node)).and_then(|n| n.registration.devices.get(usize::from(index)));
            let share = request.requirements.gpu.as_ref().expect("counted above").share;
            let (milli, memory_bytes) = share.of_device(device.unwrap_or(&none));
            let profile = match share {
                GpuShare::Mig(name) => {
                    device.and_then(|d| d.mig.as_ref()).and_then(|layout| layout.profile(name))
                }
                _ => None,
            };
            // Mostly from a start that it may have, now and then from any, by the revision: free ones are hit by chance.
            let chance = ledger.revision().0 as usize;
            let slices = profile.map(|profile| MigSlices {
                start: match chance % 9 {
                    8 => (chance % 11) as u8,
                    _ => profile.starts[chance % profile.starts.len()],
                },
                memory: profile.memory_slices,
                compute: profile.compute_slices + u8::from(chance % 31 == 30),
            });
            DeviceGrant { device: DeviceIndex(index), milli: milli.min(60_000) as u16, memory_bytes, slices }
        };
        MemberPlacement {
            node: NodeId(*node),
            devices: (device..device + count).map(grant).collect(),
            role: 0,
        }
    };
    let most = request.gang.max_members.max(1) as usize;
    let mut members: Vec<MemberPlacement> = nodes.iter().map(member).collect();
    while members.len() < request.gang.min_members as usize && !nodes.is_empty() {
        members.push(member(&nodes[0]));
    }
    members.truncate(most);
    Placement { members }
}

/// A request for what stays long. Chance alone seldom makes a gang, two instances on one another, or an endpoint whose lease ends.
fn staying(requirements: Requirements) -> Request {
    Request {
        pool: "default".into(),
        class: "standard".into(),
        requirements,
        ttl_ms: 3_600_000,
        auto_confirm: true,
        ..Request::default()
    }
}

/// A gang on two nodes.
pub(crate) fn gang_apart(ledger: &Ledger) -> Command {
    let amounts = Resources::new(500, GIB);
    let gang = Gang { min_members: 2, max_members: 2, spread: true };
    // Under the newest rules half of them go on without a node that is gone.
    let repair_within_ms =
        if ledger.meta().version >= 7 && ledger.revision().0.is_multiple_of(2) { 20_000 } else { 0 };
    let stays = staying(Requirements { amounts, ..Requirements::default() });
    let request = Request { gang, repair_within_ms, ..stays };
    let verdict = Verdict::Place(placement(ledger, &request, &[0, 1], 0));
    Command::Submit { request, verdict }
}

/// A smallest instance on the first device of the first node.
pub(crate) fn instance_at(ledger: &Ledger, start: u8) -> Command {
    let share = GpuShare::Mig(ProfileName::new("1g.10gb").expect("a name"));
    let gpu = Some(GpuAsk { share, ..GpuAsk::whole(1) });
    let request = staying(Requirements { gpu, ..Requirements::default() });
    let mut placement = placement(ledger, &request, &[0], 0);
    if let Some(slices) = &mut placement.members[0].devices[0].slices {
        (slices.start, slices.compute) = (start, 1);
    }
    Command::Submit { request, verdict: Verdict::Place(placement) }
}

/// A replica of the service `web` on the third node.
pub(crate) fn replica(ledger: &Ledger) -> Command {
    let amounts = Resources::new(100, 0);
    let request =
        Request { service: "web".into(), ..staying(Requirements { amounts, ..Requirements::default() }) };
    let verdict = Verdict::Place(placement(ledger, &request, &[2], 0));
    Command::Submit { request, verdict }
}

/// A little of the third node for a while: it costs something, and a user has only so many of them.
pub(crate) fn small_and_short(ledger: &Ledger) -> Command {
    let amounts = Resources::new(20, 0);
    let stays = staying(Requirements { amounts, ..Requirements::default() });
    let request = Request { max_duration_ms: 10_000, ttl_ms: 10_000, ..stays };
    let verdict = Verdict::Place(placement(ledger, &request, &[2], 0));
    Command::Submit { request, verdict }
}

/// A request for more cores than there are, which waits.
pub(crate) fn too_much() -> Request {
    let amounts = Resources::new(50_000, GIB);
    let wait = Wait::Queue { deadline_ms: 0 };
    Request { wait, ..staying(Requirements { amounts, ..Requirements::default() }) }
}

/// A request that waits in a queue.
pub(crate) fn waits_in(queue: &str) -> Request {
    let amounts = Resources::new(2_000, GIB);
    let wait = Wait::Queue { deadline_ms: 0 };
    Request { queue: queue.into(), wait, ..staying(Requirements { amounts, ..Requirements::default() }) }
}
