//! The descent against a look at every node and device, and what a new leader knows.

use plimsoll_ledger::{
    Command, Device, DeviceGrant, Entry, GpuAsk, Ledger, PolicyObject, Pool, Registration, Request,
    Requirements, Stamp, Strategy as PoolStrategy, Verdict,
};
use plimsoll_types::{LedgerTime, NodeId, Resources, Revision};
use proptest::prelude::*;

use super::usable::Free;
use crate::Planner;
use crate::fleet::Fleet;

const GIB: u64 = 1 << 30;

fn apply(ledger: &mut Ledger, command: Command) {
    let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: LedgerTime(1_000) };
    ledger.apply(stamp, &Entry::system(command));
}

/// Nodes of so many cores and devices; every other one has the larger model.
fn fleet(sizes: &[(u64, u32)]) -> Ledger {
    let mut ledger = Ledger::new();
    apply(&mut ledger, Command::Upgrade { to: plimsoll_ledger::LATEST_VERSION });
    let pool = Pool { name: "default".into(), strategy: PoolStrategy::Fragmentation, ..Pool::default() };
    let put = vec![PolicyObject::Pool(pool)];
    apply(&mut ledger, Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
    for (index, (cores, devices)) in sizes.iter().enumerate() {
        let (model, gib) = if index % 2 == 0 { ("t4", 16) } else { ("a100", 80) };
        let device = |n| Device {
            uuid: format!("GPU-{index}-{n}"),
            model: model.into(),
            memory_bytes: gib * GIB,
            failed: false,
            mig: None,
        };
        apply(
            &mut ledger,
            Command::RegisterNode(Registration {
                name: format!("node-{index}"),
                incarnation: 1,
                capacity: Resources::new(cores * 1_000, 64 * GIB),
                devices: (0..*devices).map(device).collect(),
                ..Registration::default()
            }),
        );
    }
    ledger
}

fn request(cpu_millis: u64, gpu: Option<GpuAsk>) -> Request {
    Request {
        pool: "default".into(),
        class: "standard".into(),
        requirements: Requirements {
            amounts: Resources::new(cpu_millis, GIB),
            gpu,
            ..Requirements::default()
        },
        auto_confirm: true,
        ttl_ms: 3_600_000,
        ..Request::default()
    }
}

fn any_request() -> impl Strategy<Value = Request> {
    let gpu = prop_oneof![
        Just(None),
        prop_oneof![Just(230_u16), Just(470), Just(810)].prop_map(|milli| Some(GpuAsk::milli(milli))),
        (1_u32..3).prop_map(|count| Some(GpuAsk::whole(count))),
        Just(Some(GpuAsk { models: vec!["a100".into()], ..GpuAsk::milli(500) })),
    ];
    (500_u64..6_000, gpu).prop_map(|(cpu_millis, gpu)| request(cpu_millis, gpu))
}

fn submit(ledger: &mut Ledger, planner: &mut Planner, request: &Request) {
    for (verdict, ticket) in planner.plan_batch(ledger, &[request]) {
        apply(ledger, Command::Submit { request: request.clone(), verdict });
        ticket.into_iter().for_each(|ticket| planner.settle(ledger, ticket));
    }
}

/// Least loss over all nodes and devices that fit; of nodes with equal free GPU and cpu only the first is asked.
fn least_loss(fleet: &Fleet, request: &Request) -> Option<i64> {
    let amounts = &request.requirements.amounts;
    let mix = &fleet.gradients.pools["default"].mix;
    let mut seen = Vec::new();
    let mut least = None;
    for slot in fleet.slots.iter().flatten() {
        let Ok(devices) = slot.view.fit(request, amounts) else { continue };
        let equals = (slot.view.free_milli(), slot.view.free.cpu_millis);
        if seen.contains(&equals) {
            continue;
        }
        seen.push(equals);
        let shares = request.requirements.gpu.iter().flat_map(|gpu| slot.view.shares(gpu));
        let mut options: Vec<Vec<DeviceGrant>> = shares.map(|grant| vec![grant]).collect();
        if options.is_empty() {
            options.push(devices);
        }
        for devices in options {
            let mut after = slot.clone();
            after.view.take(amounts, &devices, false);
            let loss = Free::of(slot).usable(mix) - Free::of(&after).usable(mix);
            least = Some(least.map_or(loss, |known: i64| known.min(loss)));
        }
    }
    least
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_node_and_no_device_would_have_cost_less(
        sizes in prop::collection::vec((2_u64..20, 0_u32..5), 1..12),
        work in prop::collection::vec(any_request(), 1..60),
    ) {
        let mut ledger = fleet(&sizes);
        let mut planner = Planner::new(&ledger, 0);
        for request in &work {
            let least = least_loss(planner.fleet(), request);
            match planner.place(&ledger, request) {
                Verdict::Place(placement) => {
                    let member = &placement.members[0];
                    let slot = planner.fleet().slot(member.node).expect("it is known");
                    let mut after = slot.clone();
                    after.view.take(&request.requirements.amounts, &member.devices, false);
                    let mix = &planner.fleet().gradients.pools["default"].mix;
                    let loss = Free::of(slot).usable(mix) - Free::of(&after).usable(mix);
                    prop_assert_eq!(Some(loss), least);
                }
                verdict => prop_assert!(least.is_none(), "{:?}", verdict),
            }
            submit(&mut ledger, &mut planner, request);
            prop_assert_eq!(planner.check(&ledger), Vec::<String>::new());
        }
        // A new leader learns the same from what was granted, refused requests aside.
        let heard = |planner: &Planner| {
            let known = &planner.fleet().gradients.pools["default"].history;
            known.heaviest(usize::MAX).into_iter().map(|(shape, count)| (shape.clone(), count)).collect::<Vec<_>>()
        };
        let again = Planner::new(&ledger, 1);
        if ledger.reservations().count() == work.len() {
            prop_assert_eq!(heard(&again), heard(&planner));
        }
        prop_assert!(heard(&again).len() <= heard(&planner).len());
    }
}

#[test]
fn the_same_state_gives_the_same_places() {
    let mut ledger = fleet(&[(16, 2), (16, 2), (64, 2), (8, 4)]);
    let mut planner = Planner::new(&ledger, 0);
    for _ in 0..20 {
        submit(&mut ledger, &mut planner, &request(900, Some(GpuAsk::milli(230))));
    }
    let asked = [request(4_000, None), request(1_000, Some(GpuAsk::milli(470)))];
    for request in &asked {
        let first = Planner::new(&ledger, 1).place(&ledger, request);
        assert_eq!(first, Planner::new(&ledger, 2).place(&ledger, request));
    }
}

#[test]
fn work_without_gpus_leaves_the_cpu_that_gpus_need() {
    // Equal GPUs; the second node has cpu to spare, the first has just enough for its GPUs.
    let mut ledger = fleet(&[(8, 2), (1, 0), (64, 2)]);
    let mut planner = Planner::new(&ledger, 0);
    for _ in 0..16 {
        // What is asked is learned from arrivals, even where it is refused.
        let asked = Request {
            requirements: Requirements {
                amounts: Resources::new(4_000, 999 * GIB),
                gpu: Some(GpuAsk::whole(1)),
                ..Requirements::default()
            },
            ..request(0, None)
        };
        submit(&mut ledger, &mut planner, &asked);
        submit(
            &mut ledger,
            &mut planner,
            &Request {
                requirements: Requirements {
                    amounts: Resources::new(4_000, GIB),
                    ..asked.requirements.clone()
                },
                ..asked
            },
        );
    }
    let Verdict::Place(placement) = Planner::new(&ledger, 0).place(&ledger, &request(3_000, None)) else {
        panic!("there is room");
    };
    assert_eq!(placement.members[0].node, NodeId(2));
}
