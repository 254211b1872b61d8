//! Small fleets, policies and requests, and what happens to them.

use std::collections::BTreeMap;

use plimsoll_ledger::{
    AdminChange, Command, Device, GpuAsk, Ledger, MigLayout, MigProfile, Outcome, PolicyObject, Pool,
    ProfileName, Queue, Quota, Registration, Request, Strategy as PoolStrategy,
};
use plimsoll_types::{Amount, DeviceIndex, Labels, NodeId, Resources, Revision};
use proptest::prelude::*;

use super::GIB;
use super::asks::{plain, profile, request};
use crate::fixture::apply;
use crate::fixture::mig::cut_in_eight;

/// A node: cores, devices by what they are, zone and rack, another pool.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cores: u64,
    pub(crate) devices: Vec<Kind>,
    zone: u8,
    rack: u8,
    elsewhere: bool,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Large,
    Small,
    Failed,
    CutInEight,
    CutInFour,
}

/// A fleet and its policy.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) machines: Vec<Machine>,
    pub(crate) strategy: PoolStrategy,
    /// Nominal, guaranteed and borrowable millicores of two queues below one.
    pub(crate) quotas: [(u64, u64, Option<u64>); 2],
    /// How much of the cores is promised, in thousandths.
    pub(crate) cpu_permille: u32,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// So many requests come together.
    Ask(Vec<Request>),
    End(usize),
    Cordon(u32, bool),
    Device(u32, u16, bool),
}

impl Setup {
    /// Machines of so many cores, in one rack, without devices; quotas of nothing.
    pub(crate) fn of_cores(cores: &[u64]) -> Setup {
        let machine =
            |cores: &u64| Machine { cores: *cores, devices: vec![], zone: 0, rack: 0, elsewhere: false };
        let machines = cores.iter().map(machine).collect();
        Setup { machines, strategy: PoolStrategy::BestFit, quotas: [(0, 0, None); 2], cpu_permille: 1_000 }
    }
}

fn setup() -> impl Strategy<Value = Setup> {
    let kind = prop_oneof![
        4 => Just(Kind::Large), 3 => Just(Kind::Small), 1 => Just(Kind::Failed), 3 => Just(Kind::CutInEight),
        2 => Just(Kind::CutInFour),
    ];
    let machine = (1u64..9, prop::collection::vec(kind, 0..3), 0u8..2, 0u8..3, prop::bool::weighted(0.1));
    let machine = machine.prop_map(|(cores, devices, zone, rack, elsewhere)| Machine {
        cores,
        devices,
        zone,
        rack,
        elsewhere,
    });
    let quota = (0u64..5, 0u64..4, prop::option::of(0u64..4));
    let quota = quota.prop_map(|(nominal, guaranteed, borrow)| {
        (nominal * 1_000, guaranteed.min(nominal) * 1_000, borrow.map(|more| (nominal + more) * 1_000))
    });
    let over = prop_oneof![2 => Just(1_000u32), 1 => Just(1_500), 1 => Just(2_100)];
    (prop::collection::vec(machine, 1..5), crate::fixture::strategy(), [quota.clone(), quota], over).prop_map(
        |(machines, strategy, quotas, cpu_permille)| Setup { machines, strategy, quotas, cpu_permille },
    )
}

/// Fleets with what happens to them: of everything, and, since chance seldom fills a board with instances, of one or two boards and instances alone.
pub(crate) fn story() -> impl Strategy<Value = (Setup, Vec<Step>)> {
    let all = (setup(), steps(request().boxed()));
    let cut = prop::sample::select(vec![Kind::CutInEight, Kind::CutInEight, Kind::CutInFour]);
    let boards = prop::collection::vec(cut, 1..3);
    let instance = (profile(), 1u64..500).prop_map(|(share, cpu)| {
        let mut request = plain(cpu);
        request.requirements.gpu = Some(GpuAsk { share, ..GpuAsk::whole(1) });
        request
    });
    let full = (setup(), boards, steps(instance.boxed())).prop_map(|(mut setup, boards, steps)| {
        setup.machines.truncate(1);
        setup.machines[0].cores = 8;
        setup.machines[0].devices = boards;
        (setup, steps)
    });
    prop_oneof![4 => all, 1 => full]
}

fn steps(request: BoxedStrategy<Request>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => prop::collection::vec(request.clone(), 1..2).prop_map(Step::Ask),
        2 => prop::collection::vec(request, 2..4).prop_map(Step::Ask),
        4 => any::<usize>().prop_map(Step::End),
        1 => (0u32..4, any::<bool>()).prop_map(|(node, on)| Step::Cordon(node, on)),
        1 => (0u32..4, 0u16..2, any::<bool>()).prop_map(|(node, device, failed)| Step::Device(node, device, failed)),
    ];
    prop::collection::vec(step, 1..16)
}

/// The ledger of a setup: pools `default` (levels zone and rack, 5 licences) and `other`, queues `org` with `vision` and `speech` below it.
pub(crate) fn ledger_of(setup: &Setup) -> Ledger {
    let mut ledger = Ledger::new();
    apply(&mut ledger, Command::Upgrade { to: plimsoll_ledger::LATEST_VERSION });
    let pool = |name: &str| Pool {
        name: name.into(),
        strategy: setup.strategy,
        topology: vec!["zone".into(), "rack".into()],
        countables: [("license/sim".to_owned(), Amount(5))].into(),
        oversubscription: [("cpu".to_owned(), setup.cpu_permille)].into(),
        ..Pool::default()
    };
    let mut put = vec![PolicyObject::Pool(pool("default")), PolicyObject::Pool(pool("other"))];
    put.push(queue("org", "", (1_000, 0, None), 1_000));
    for (name, quota) in ["vision", "speech"].into_iter().zip(setup.quotas) {
        put.push(queue(name, "org", quota, 500));
    }
    let command = Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) };
    assert_eq!(apply(&mut ledger, command), Outcome::Done);
    for (index, machine) in setup.machines.iter().enumerate() {
        apply(&mut ledger, Command::RegisterNode(registration(index, machine)));
    }
    ledger
}

/// Any other step than a request.
pub(crate) fn change(ledger: &mut Ledger, step: &Step) {
    let nodes = ledger.nodes().count() as u32;
    let command = match step {
        Step::Ask(_) => return,
        Step::End(pick) => {
            let live: Vec<_> =
                ledger.reservations().filter(|one| !one.state.is_final()).map(|one| one.id).collect();
            let Some(id) = live.get(pick % live.len().max(1)) else { return };
            Command::Cancel { reservation: *id }
        }
        Step::Cordon(node, on) => {
            let admin =
                if *on { AdminChange::Cordon { reason: "test".into() } } else { AdminChange::Uncordon };
            Command::SetNodeAdmin { node: NodeId(node % nodes), admin }
        }
        Step::Device(node, device, failed) => {
            let (node, device) = (NodeId(node % nodes), DeviceIndex(*device));
            Command::SetDeviceHealth { node, device, failed: *failed }
        }
    };
    apply(ledger, command);
}

fn queue(
    name: &str,
    parent: &str,
    (nominal, guaranteed, limit): (u64, u64, Option<u64>),
    gpu_milli: u64,
) -> PolicyObject {
    let cpu = Quota { guaranteed: Amount(guaranteed), nominal: Amount(nominal), limit: limit.map(Amount) };
    let gpu = Quota { nominal: Amount(gpu_milli), ..Quota::default() };
    let quotas = BTreeMap::from([("cpu".to_owned(), cpu), ("gpu".to_owned(), gpu)]);
    let quotas = BTreeMap::from([("default".to_owned(), quotas)]);
    PolicyObject::Queue(Queue { name: name.into(), parent: parent.into(), quotas, ..Queue::default() })
}

fn registration(index: usize, machine: &Machine) -> Registration {
    let mut labels =
        Labels::from([("zone".to_owned(), format!("z{}", machine.zone)), ("rank".into(), index.to_string())]);
    if machine.rack < 2 {
        labels.insert("rack".to_owned(), format!("r{}", machine.rack));
    }
    let mut capacity = Resources::new(machine.cores * 1_000, machine.cores * 2 * GIB);
    if machine.cores % 2 == 1 {
        capacity = capacity.with("storage/nvme", 3 * GIB);
    }
    let device = |(n, kind): (usize, &Kind)| Device {
        uuid: format!("GPU-{index}-{n}"),
        model: if *kind == Kind::Small { "t4" } else { "a100" }.into(),
        memory_bytes: if *kind == Kind::Small { 16 * GIB } else { 80 * GIB },
        failed: *kind == Kind::Failed,
        mig: match kind {
            Kind::CutInEight => Some(cut_in_eight()),
            Kind::CutInFour => Some(cut_in_four()),
            _ => None,
        },
    };
    Registration {
        name: format!("node-{index}"),
        incarnation: 1,
        pool: if machine.elsewhere { "other".into() } else { String::new() },
        labels,
        capacity,
        devices: machine.devices.iter().enumerate().map(device).collect(),
        ..Registration::default()
    }
}

/// A device of which compute runs out before memory, as no board of today is cut.
fn cut_in_four() -> MigLayout {
    let profile = |name: &str, compute_slices, memory_slices, starts: &[u8]| MigProfile {
        name: ProfileName::new(name).expect("a name"),
        compute_slices,
        memory_slices,
        memory_bytes: u64::from(memory_slices) * 20 * GIB,
        starts: starts.to_vec(),
    };
    let profiles = vec![profile("1g.20gb", 1, 1, &[0, 1, 2, 3]), profile("3g.40gb", 3, 2, &[0, 2])];
    MigLayout { compute_slices: 4, memory_slices: 4, profiles }
}
