//! Nodes, their devices and how these are cut.

use plimsoll_ledger::{
    Device, FencePending, MigLayout, MigProfile, MigSlices, Moved, Node, NodeAdmin, NodeHealth, Registration,
};
use plimsoll_types::{LedgerTime, NodeEpoch, NodeId, ReservationId, Revision};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::request::profile_name;
use super::reservation::grants;
use super::{labels, number, resources, text};

pub(super) fn slices() -> impl Strategy<Value = MigSlices> {
    [(); 3].map(|()| any::<u8>()).prop_map(|[start, memory, compute]| MigSlices { start, memory, compute })
}

fn layout() -> impl Strategy<Value = MigLayout> {
    let sizes = || [(); 2].map(|()| any::<u8>());
    let profile = (profile_name(), sizes(), number(), vec(any::<u8>(), 0..5)).prop_map(
        |(name, [compute_slices, memory_slices], memory_bytes, starts)| MigProfile {
            name,
            compute_slices,
            memory_slices,
            memory_bytes,
            starts,
        },
    );
    (sizes(), vec(profile, 0..3)).prop_map(|([compute_slices, memory_slices], profiles)| MigLayout {
        compute_slices,
        memory_slices,
        profiles,
    })
}

pub(super) fn registration() -> impl Strategy<Value = Registration> {
    let device = (text(), text(), number(), any::<bool>(), option::weighted(0.3, layout())).prop_map(
        |(uuid, model, memory_bytes, failed, mig)| Device { uuid, model, memory_bytes, failed, mig },
    );
    let running = vec(number().prop_map(ReservationId), 0..3);
    (text(), number(), text(), labels(), resources(), vec(device, 0..3), any::<bool>(), running).prop_map(
        |(name, incarnation, pool, labels, capacity, devices, self_fencing, running)| Registration {
            name,
            incarnation,
            pool,
            labels,
            capacity,
            devices,
            self_fencing,
            running,
        },
    )
}

pub(super) fn health() -> impl Strategy<Value = NodeHealth> {
    use NodeHealth::{Available, Failed, Fenced, Lost, Suspect};
    select(vec![Available, Suspect, Lost, Fenced, Failed])
}

pub(super) fn node() -> impl Strategy<Value = Node> {
    let admin = prop_oneof![
        Just(NodeAdmin::Schedulable),
        text().prop_map(|reason| NodeAdmin::Cordoned { reason }),
        (text(), number()).prop_map(|(reason, at)| NodeAdmin::Draining { reason, deadline: LedgerTime(at) }),
    ];
    let pending =
        (number(), number(), resources(), grants()).prop_map(|(reservation, token, amounts, devices)| {
            FencePending { reservation: ReservationId(reservation), token: Revision(token), amounts, devices }
        });
    let moved = (text(), text(), number())
        .prop_map(|(home, from, at)| Box::new(Moved { home, from, at: LedgerTime(at) }));
    let facts = (any::<u32>(), registration(), number(), text(), resources(), admin);
    let moved = (option::of(moved), option::of(super::spot::interruption()));
    (facts, health(), number(), vec(pending, 0..3), moved, number()).prop_map(
        |(facts, health, since, fence_pending, (moved, interruption), changed)| {
            let (id, registration, epoch, pool, allocatable, admin) = facts;
            Node {
                id: NodeId(id),
                registration,
                epoch: NodeEpoch(epoch),
                pool,
                allocatable,
                admin,
                health,
                health_since: LedgerTime(since),
                fence_pending,
                moved,
                interruption,
                changed: Revision(changed),
            }
        },
    )
}
