//! I2: a device is taken whole by one grant, or in shares that together fit.

use std::collections::BTreeMap;

use plimsoll_ledger::{DeviceGrant, WHOLE_DEVICE_MILLI};
use plimsoll_types::{DeviceIndex, NodeId};

use super::{Findings, Invariant};
use crate::oracle::{Picture, Step};

/// See the module.
pub(super) struct Devices;

#[derive(Default)]
struct Taken {
    milli: u64,
    memory_bytes: u128,
    holders: u64,
    whole: bool,
}

impl Invariant for Devices {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        for ((node, device), taken) in taken(&step.after) {
            let Some(row) = step.after.nodes.get(&node) else {
                findings.add("I2", step.revision, format!("a device of node {node:?}, which is not there"));
                continue;
            };
            let Some(memory) =
                row.registration.devices.get(usize::from(device.0)).map(|one| one.memory_bytes)
            else {
                findings.add("I2", step.revision, format!("{}: no device {}", row.name(), device.0));
                continue;
            };
            let over = taken.milli > u64::from(WHOLE_DEVICE_MILLI) || taken.memory_bytes > u128::from(memory);
            if over || (taken.whole && taken.holders > 1) {
                let detail = format!(
                    "{} device {}: {} holders, {} thousandths, {} of {memory} bytes",
                    row.name(),
                    device.0,
                    taken.holders,
                    taken.milli,
                    taken.memory_bytes
                );
                findings.add("I2", step.revision, detail);
            }
        }
    }
}

fn taken(picture: &Picture) -> BTreeMap<(NodeId, DeviceIndex), Taken> {
    let mut all: BTreeMap<(NodeId, DeviceIndex), Taken> = BTreeMap::new();
    let mut take = |node: NodeId, grant: &DeviceGrant| {
        let device = all.entry((node, grant.device)).or_default();
        device.milli += u64::from(grant.milli);
        device.memory_bytes += u128::from(grant.memory_bytes);
        device.holders += 1;
        device.whole |= grant.milli >= WHOLE_DEVICE_MILLI;
    };
    for member in picture.occupying().flat_map(|one| &one.members) {
        member.devices.iter().for_each(|grant| take(member.node, grant));
    }
    for node in picture.nodes.values() {
        node.fence_pending.iter().flat_map(|pending| &pending.devices).for_each(|grant| take(node.id, grant));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    fn sharing(id: u64, milli: u16) -> plimsoll_ledger::Reservation {
        let mut one = reservation(id);
        one.members[0].devices =
            vec![DeviceGrant { device: DeviceIndex(0), milli, memory_bytes: 1, slices: None }];
        one
    }

    #[test]
    fn shares_must_fit_together() {
        let good = step(&[node(0)], &[sharing(1, 600), sharing(2, 400)]);
        assert_eq!(found(&mut Devices, &good), Vec::<&str>::new());
        let bad = step(&[node(0)], &[sharing(1, 600), sharing(2, 500)]);
        assert_eq!(found(&mut Devices, &bad), ["I2"]);
    }

    #[test]
    fn a_device_that_does_not_exist_is_found() {
        let mut wrong = sharing(1, 100);
        wrong.members[0].devices[0].device = DeviceIndex(7);
        assert_eq!(found(&mut Devices, &step(&[node(0)], &[wrong])), ["I2"]);
    }
}
