//! Random histories on the real ledger and on the model of `docs/semantics.md`, compared after every command; the
//! invariants are checked after every command too, and the rows make the same ledger again.

mod model;
mod rivals;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::scaling::{Stand, Wanted};
use model::{Gone, Model, came};
use plimsoll_autoscaler::{Behavior, Policy as Rules};
use plimsoll_ledger::{
    AdminChange, Affinity, Announcement, Class, Command, Device, DeviceGrant, Entry, Gang, GpuAsk, GpuShare,
    IntentAction, IntentState, IntentStep, LATEST_VERSION, Ledger, LoadReport, Measure, MemberPlacement,
    Meter, MigLayout, MigProfile, MigSlices, NodeHealth, NodeLimits, OnPreempt, Placement, PolicyName,
    PolicyObject, Pool, Preemption, ProfileName, Provider, ProviderKind, Queue, Quota, QuotaPolicy,
    Registration, RemovedNode, Request, Requirements, Reservation, Reset, Rule, ScaleDecided, ScalingPolicy,
    ScalingTarget, Schedule, Scope, Service, Stamp, Topology, TouchedRow, Users, Validator, Verdict, Wait,
    Window,
};
use plimsoll_types::{
    Amount, DeviceIndex, LedgerTime, NodeEpoch, NodeId, Operator, ReservationId, Resources, Revision,
    Selector, Term,
};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

#[allow(clippy::large_enum_variant)] // A handful at a time.
/// One step of a history: indices are resolved against the ledger of the moment, so that most commands make sense.
#[derive(Clone, Debug)]
enum Step {
    Submit { request: Request, verdict: u8, nodes: Vec<u32>, device: u16, key: Option<u8> },
    Place { pick: usize, nodes: Vec<u32>, device: u16 },
    Preempt { pick: usize, victims: Vec<usize>, device: u16 },
    Unplan(usize),
    Confirm(usize, bool),
    Renew(usize, bool, u64),
    Resize(usize, u64),
    Release(usize, bool),
    Requeue(usize, bool),
    Cancel(usize),
    Expire(u32),
    Register { index: u32, incarnation: u64, cpu_millis: u64, devices: usize, running: bool, cut: u8 },
    Health(u32, NodeHealth, bool),
    FailUnderGang(usize),
    Admin(u32, u8),
    Device(u32, u16, bool),
    RemoveNode(u32),
    Policy(u8, bool),
    Endpoint { pick: usize, right: bool, port: u8, draining: bool },
    Loads(Vec<usize>),
    Leader,
    Upgrade(u32),
    Windows(u8, u64, u64, bool),
    Desire(u64, bool),
    Pin(Option<u64>, u64),
    Machine(Option<usize>),
    Proceed(usize, u8, bool),
    Boot(usize),
}

fn request() -> impl Strategy<Value = Request> {
    let share = prop_oneof![
        2 => Just(GpuShare::Whole),
        3 => prop_oneof![Just(250u16), Just(500), Just(333), Just(999)].prop_map(GpuShare::Milli),
        2 => prop_oneof![Just(10 * GIB), Just(20 * GIB + 1), Just(81 * GIB)].prop_map(GpuShare::Memory),
        4 => prop::sample::select(vec!["1g.10gb", "1g.10gb", "1g.20gb", "3g.40gb", "4g.40gb", "7g.80gb", "2g.12gb"])
            .prop_map(|name| GpuShare::Mig(ProfileName::new(name).expect("a name"))),
    ];
    let gpu = prop::option::weighted(
        0.5,
        (share, 1u32..=2).prop_map(|(share, count)| GpuAsk {
            count: if share == GpuShare::Whole { count } else { 1 },
            share,
            ..GpuAsk::whole(1)
        }),
    );
    let amounts = (prop_oneof![8 => 0u64..6_000, 1 => Just(u64::MAX), 1 => Just(u64::MAX >> 1)], 0u64..3);
    let gang = prop_oneof![4 => Just((1u32, 1u32)), 2 => (1u32..=2, 2u32..=3), 1 => Just((0, 0))];
    let pool = prop_oneof![8 => Just("default"), 3 => Just("gpu"), 1 => Just("nosuch")];
    let class =
        prop_oneof![4 => Just("standard"), 2 => Just("critical"), 2 => Just("batch"), 1 => Just("nosuch")];
    let queue = prop_oneof![
        6 => Just(""), 4 => Just("vision"), 4 => Just("speech"), 1 => Just("org"), 1 => Just("nosuch"),
    ];
    let service = prop_oneof![8 => Just(""), 4 => Just("web"), 1 => Just("nosuch")];
    let times = (prop_oneof![6 => 1_000u64..20_000, 1 => Just(0), 1 => Just(5)], 0u64..3, prop::bool::ANY);
    let wait = prop_oneof![
        Just(Wait::Refuse),
        Just(Wait::Queue { deadline_ms: 0 }),
        (1_000u64..30_000).prop_map(|deadline_ms| Wait::Queue { deadline_ms }),
    ];
    let later = prop_oneof![5 => Just(0u64), 2 => 1u64..40_000];
    let near = (prop::sample::select(vec!["", "", "", "zone", "node", "rack"]), 0u32..3);
    let places = prop_oneof![2 => Just(None), 1 => (near, rules()).prop_map(Some)];
    let app = prop::option::of(prop::sample::select(vec!["web", "db"]));
    let labelled = (prop::bool::weighted(0.2), app, places);
    (gpu, amounts, gang, (pool, queue), (class, service), times, (wait, later), labelled).prop_map(
        |(
            gpu,
            (cpu, licences),
            (min_members, max_members),
            (pool, queue),
            (class, service),
            (ttl_ms, duration, auto_confirm),
            (wait, start_at_ms),
            (labelled, app, places),
        )| {
            let (near, affinity) = places.unwrap_or_default();
            let slice_size = if near.1 == 1 { 0 } else { near.1 };
            let topology = Topology {
                required: near.0.into(),
                slice_size,
                slice_level: if slice_size > 0 { "node".into() } else { String::new() },
                ..Topology::default()
            };
            let term = Term { key: "zone".into(), operator: Operator::In, values: vec!["a".into()] };
            Request {
                pool: pool.into(),
                class: class.into(),
                queue: queue.into(),
                service: service.into(),
                requirements: Requirements {
                    amounts: Resources::new(cpu, GIB).with("license/x", licences),
                    gpu,
                    required: Selector { terms: if labelled { vec![term] } else { vec![] } },
                    preferred: Vec::new(),
                },
                gang: Gang { min_members, max_members, spread: labelled },
                labels: app.map(|app| ("app".to_owned(), app.to_owned())).into_iter().collect(),
                topology,
                affinity,
                ttl_ms,
                hold_ms: 5_000,
                max_duration_ms: duration * 15_000,
                auto_confirm,
                wait,
                on_preempt: if duration == 1 { OnPreempt::End } else { OnPreempt::Requeue },
                start_at_ms,
                name: if duration == 1 { "batch_1".into() } else { "one".into() },
                ..Request::default()
            }
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<Affinity>> {
    let level = prop::sample::select(vec!["zone", "node", "node"]);
    let rule = (prop::sample::select(vec!["web", "db"]), level, prop::bool::weighted(0.7), 0u32..2);
    let rule = rule.prop_map(|(value, level, anti, weight)| Affinity {
        key: "app".into(),
        value: value.into(),
        level: level.into(),
        weight: weight * 7,
        anti,
    });
    prop::collection::vec(rule, 0..2)
}

fn step() -> impl Strategy<Value = Step> {
    let nodes = || prop::collection::vec(0u32..4, 1..4);
    let health = prop_oneof![
        3 => Just(NodeHealth::Available), 3 => Just(NodeHealth::Suspect), 3 => Just(NodeHealth::Lost),
        1 => Just(NodeHealth::Fenced), 1 => Just(NodeHealth::Failed),
    ];
    let right = || prop::bool::weighted(0.9);
    prop_oneof![
        20 => (request(), 0u8..10, nodes(), 0u16..3, prop::option::weighted(0.3, 0u8..4))
            .prop_map(|(request, verdict, nodes, device, key)| Step::Submit { request, verdict, nodes, device, key }),
        8 => (any::<usize>(), nodes(), 0u16..3).prop_map(|(pick, nodes, device)| Step::Place { pick, nodes, device }),
        10 => (any::<usize>(), prop::collection::vec(any::<usize>(), 0..4), 0u16..3)
            .prop_map(|(pick, victims, device)| Step::Preempt { pick, victims, device }),
        1 => any::<usize>().prop_map(Step::Unplan),
        10 => (any::<usize>(), right()).prop_map(|(pick, right)| Step::Confirm(pick, right)),
        6 => (any::<usize>(), right(), prop_oneof![Just(0u64), Just(3_000), Just(60_000), Just(1)])
            .prop_map(|(pick, right, ttl)| Step::Renew(pick, right, ttl)),
        4 => (any::<usize>(), 0u64..9_000).prop_map(|(pick, cpu)| Step::Resize(pick, cpu)),
        8 => (any::<usize>(), right()).prop_map(|(pick, right)| Step::Release(pick, right)),
        3 => (any::<usize>(), right()).prop_map(|(pick, right)| Step::Requeue(pick, right)),
        3 => any::<usize>().prop_map(Step::Cancel),
        12 => (0u32..4).prop_map(Step::Expire),
        5 => (0u32..4, 1u64..3, prop_oneof![Just(8_000u64), Just(3_000)], 0usize..3, prop::bool::ANY, 0u8..8).prop_map(
            |(index, incarnation, cpu_millis, devices, running, cut)| Step::Register { index, incarnation, cpu_millis, devices, running, cut }),
        8 => (0u32..4, health, right()).prop_map(|(node, health, right)| Step::Health(node, health, right)),
        2 => any::<usize>().prop_map(Step::FailUnderGang),
        3 => (0u32..4, 0u8..4).prop_map(|(node, change)| Step::Admin(node, change)),
        2 => (0u32..4, 0u16..3, prop::bool::ANY).prop_map(|(node, device, failed)| Step::Device(node, device, failed)),
        2 => (0u32..4).prop_map(Step::RemoveNode),
        5 => (prop_oneof![2 => 0u8..9, 3 => 9u8..24, 3 => 24u8..32, 2 => 32u8..36, 2 => 36u8..41], prop::bool::weighted(0.2)).prop_map(|(change, stale)| Step::Policy(change, stale)),
        6 => (any::<usize>(), right(), 0u8..4, prop::bool::weighted(0.2))
            .prop_map(|(pick, right, port, draining)| Step::Endpoint { pick, right, port, draining }),
        3 => prop::collection::vec(any::<usize>(), 0..3).prop_map(Step::Loads),
        2 => Just(Step::Leader),
        1 => (0u32..8).prop_map(Step::Upgrade),
        4 => (0u64..6, right()).prop_map(|(desired, right)| Step::Desire(desired, right)),
        1 => (prop::option::weighted(0.7, 0u64..6), prop_oneof![4 => 1_000u64..20_000, 1 => Just(1)]).prop_map(|(to, ms)| Step::Pin(to, ms)),
        6 => prop::option::weighted(0.5, any::<usize>()).prop_map(Step::Machine),
        9 => (any::<usize>(), 0u8..8, right()).prop_map(|(pick, what, right)| Step::Proceed(pick, what, right)),
        3 => any::<usize>().prop_map(Step::Boot),
        4 => (0u8..3, 0u64..60_000, 1_000u64..40_000, right())
            .prop_map(|(which, ahead_ms, length_ms, right)| Step::Windows(which, ahead_ms, length_ms, right)),
    ]
}

fn registration(index: u32, incarnation: u64, cpu_millis: u64, devices: usize) -> Registration {
    let device = |n: usize| Device {
        uuid: format!("GPU-{index}-{n}"),
        model: if n == 0 { "a100".into() } else { "t4".into() },
        memory_bytes: if n == 0 { 80 * GIB } else { 16 * GIB - 7 },
        failed: false,
        mig: None,
    };
    let mut labels = plimsoll_types::Labels::new();
    if index.is_multiple_of(2) {
        labels.insert("zone".into(), "a".into());
    } else if index == 1 {
        labels.insert("zone".into(), if cpu_millis > 5_000 { "b" } else { "a" }.into());
    }
    Registration {
        name: format!("node-{index}"),
        incarnation,
        pool: if index == 3 { "gpu".into() } else { String::new() },
        labels,
        capacity: Resources::new(cpu_millis, 16 * GIB).with("license/x", 3),
        devices: (0..devices).map(device).collect(),
        self_fencing: true,
        running: Vec::new(),
    }
}

/// How the first device of a node is cut, mostly not at all: as an A100 is, in four, or in a way that makes no sense.
fn layout(cut: u8) -> Option<MigLayout> {
    let profile = |name: &str, compute_slices, memory_slices, starts: &[u8]| MigProfile {
        name: ProfileName::new(name).expect("a name"),
        compute_slices,
        memory_slices,
        memory_bytes: u64::from(memory_slices) * (10 * GIB - 5),
        starts: starts.to_vec(),
    };
    let ones = profile("1g.10gb", 1, 1, &[0, 1, 2, 3, 4, 5, 6]);
    let eight = vec![
        ones.clone(),
        profile("1g.20gb", 1, 2, &[0, 2, 4, 6]),
        profile("3g.40gb", 3, 4, &[0, 4]),
        profile("4g.40gb", 4, 4, &[0]),
        profile("7g.80gb", 7, 8, &[0]),
    ];
    let (compute_slices, memory_slices, profiles) = match cut {
        0..=2 => (7, 8, eight),
        3 => (4, 4, vec![profile("1g.10gb", 1, 1, &[0, 1, 2, 3]), profile("3g.40gb", 3, 2, &[0, 2])]),
        // The first does not fit into the device, the second has more memory than its part of it.
        4 => (7, 8, vec![profile("3g.40gb", 3, 4, &[0, 5])]),
        5 => (7, 8, vec![MigProfile { memory_bytes: 11 * GIB, ..ones }]),
        _ => return None,
    };
    Some(MigLayout { compute_slices, memory_slices, profiles })
}

fn policy(change: u8) -> (Vec<PolicyObject>, Vec<PolicyName>) {
    let pool = |name: &str, max_pending| Pool { name: name.into(), max_pending, ..Pool::default() };
    match change {
        0 => (vec![PolicyObject::Pool(pool("gpu", 0))], vec![]),
        1 => {
            let mut with = pool("default", 0);
            with.countables.insert("license/x".into(), Amount(2));
            (vec![PolicyObject::Pool(with)], vec![])
        }
        2 => (vec![PolicyObject::Pool(pool("default", 2))], vec![]),
        3 => (vec![], vec![PolicyName::Pool("gpu".into())]),
        4 => {
            let term = Term { key: "gpu".into(), operator: Operator::In, values: vec!["a100".into()] };
            let select = Selector { terms: vec![term] };
            (vec![PolicyObject::Pool(Pool { select, ..pool("gpu", 0) })], vec![])
        }
        5 => {
            let limits =
                NodeLimits { name: "edge".into(), max: Resources::new(2_000, 0), ..NodeLimits::default() };
            (vec![PolicyObject::NodeLimits(limits)], vec![])
        }
        6 => (vec![], vec![PolicyName::NodeLimits("edge".into())]),
        7 => {
            let class =
                Class { name: "batch".into(), priority: 200, default_ttl_ms: 2_000, ..Class::default() };
            (vec![PolicyObject::Class(class)], vec![])
        }
        8 => (vec![PolicyObject::Pool(pool("gpu", 0))], vec![PolicyName::Class("standard".into())]),
        9 => {
            (vec![queue("vision", "", &[("cpu", 1_000, 4_000, Some(6_000)), ("gpu", 0, 500, None)])], vec![])
        }
        10 => (queues(), vec![]),
        11 => {
            // Cut below what may be taken.
            (
                vec![queue("speech", "org", &[("cpu", 0, 1_000, Some(1_000)), ("license/x", 0, 1, None)])],
                vec![],
            )
        }
        12 => (vec![], vec![PolicyName::Queue("org".into())]),
        15 => {
            let class = Class {
                name: "batch".into(),
                priority: 10,
                preemptible: true,
                grace_ms: 3_000,
                min_run_ms: 4_000,
                ..Class::default()
            };
            let standard = Class { name: "standard".into(), priority: 50, ..class };
            (vec![PolicyObject::Class(class), PolicyObject::Class(standard)], vec![])
        }
        16 => {
            let pool = Pool {
                preemption: Preemption::LowerClass,
                max_preemptions_per_hour: 2,
                topology: vec!["zone".into()],
                ..pool("default", 0)
            };
            (vec![PolicyObject::Pool(pool)], vec![])
        }
        29..=31 => {
            let (name, starvation_bound_ms) =
                [("skip", 0), ("backfill_1", 1_000), ("learned", 1)][usize::from(change) - 29];
            let queueing = name.parse().expect("it is a discipline");
            let pool = Pool { queueing, starvation_bound_ms, ..pool("default", 0) };
            (vec![PolicyObject::Pool(pool)], vec![])
        }
        17 => (
            vec![PolicyObject::Pool(Pool {
                preemption: Preemption::Reclaim,
                topology: vec!["zone".into()],
                ..pool("default", 0)
            })],
            vec![],
        ),
        36 => (vec![scaling("grow", "default", 1, 4, 0)], vec![]),
        37 => (vec![scaling("grow", "default", 2, 3, 4_000)], vec![]),
        38 => (vec![scaling("other", "gpu", 0, 2, 0)], vec![]),
        39 => (vec![scaling("other", "default", 3, 2, 0)], vec![]),
        40 => (vec![], vec![PolicyName::ScalingPolicy("grow".into())]),
        32 | 33 => (vec![service("web", "default", "standard")], vec![]),
        34 => (vec![service("db", "gpu", "batch")], vec![]),
        35 => (vec![], vec![PolicyName::Service("web".into())]),
        22 => (vec![validator()], vec![]),
        21 => (vec![], vec![PolicyName::Validator("small".into())]),
        13 => (vec![queue("org", "vision", &[])], vec![PolicyName::Queue("speech".into())]),
        18 => (limits(40_000), vec![]),
        // Cut below what may be taken.
        19 => (limits(9_000), vec![]),
        20 => (vec![], vec![PolicyName::Quota("day".into())]),
        24 => (vec![schedule("night", "default", &[("cpu", 5_000)], false)], vec![]),
        25 => (vec![schedule("always", "default", &[("gpu", 2_000), ("license/x", 1)], true)], vec![]),
        26 => (vec![schedule("other", "gpu", &[("memory", 4 * GIB)], true)], vec![]),
        27 => (vec![], vec![PolicyName::Schedule("night".into())]),
        28 => (vec![schedule("night", "default", &[("cpu", 9_000), ("gpu", 500)], true)], vec![]),
        _ => {
            let fair = Pool { price_milli: 2_000, ..pool("gpu", 0) };
            let stranger = Queue {
                quotas: BTreeMap::from([("gpu".into(), BTreeMap::from([("cpu".into(), Quota::default())]))]),
                ..Queue { name: "speech".into(), max_pending: 1, ..Queue::default() }
            };
            (vec![PolicyObject::Queue(stranger), PolicyObject::Pool(fair)], vec![])
        }
    }
}

/// Limits of users, of a day, and of a queue for good.
fn limits(micros: u64) -> Vec<PolicyObject> {
    let limit = |scope, measure, reset, limit: u64| (Meter::new(scope, measure, reset), limit);
    let of = |name: &str, queue: &str, limits: Vec<(Meter, u64)>| {
        let limits = limits.into_iter().collect();
        PolicyObject::Quota(QuotaPolicy {
            name: name.into(),
            queue: queue.into(),
            limits,
            queue_when_exhausted: !queue.is_empty(),
            ..QuotaPolicy::default()
        })
    };
    vec![
        of("user", "", vec![limit(Scope::User, Measure::Concurrent, Reset::Live, micros / 4_000)]),
        of(
            "day",
            "",
            vec![
                limit(Scope::Together, Measure::CpuHours, Reset::Day, micros),
                limit(Scope::User, Measure::Starts, Reset::Day, micros / 1_000),
            ],
        ),
        of("org", "org", vec![limit(Scope::Together, Measure::CpuHours, Reset::Never, micros)]),
    ]
}
fn scaling(name: &str, pool: &str, min: u64, max: u64, drain_ms: u64) -> PolicyObject {
    let behavior = |cooldown_ms| Behavior { cooldown_ms, ..Behavior::unlimited() };
    PolicyObject::ScalingPolicy(ScalingPolicy {
        name: name.into(),
        target: ScalingTarget::Pool(pool.into()),
        rules: Rules { min, max, up: behavior(2_000), down: behavior(5_000), ..Rules::default() },
        provider: (min > 0).then_some(Provider {
            kind: ProviderKind::Process,
            timeout_ms: 5_000,
            attempts: 3,
        }),
        max_leaving: 1,
        drain_ms,
        start_within_ms: 10_000,
        ..ScalingPolicy::default()
    })
}

fn service(name: &str, pool: &str, class: &str) -> PolicyObject {
    PolicyObject::Service(Service {
        name: name.into(),
        pool: pool.into(),
        class: class.into(),
        ..Service::default()
    })
}

fn validator() -> PolicyObject {
    let rule = Rule { expression: "request.gpu <= 8".into(), ..Rule::default() };
    let subject = "Reservation".into();
    PolicyObject::Validator(Validator {
        name: "small".into(),
        subject,
        rules: vec![rule],
        ..Validator::default()
    })
}

/// org with vision and speech below it, which lend to each other.
fn queues() -> Vec<PolicyObject> {
    vec![
        queue("org", "", &[("cpu", 0, 2_000, None), ("gpu", 0, 1_000, None)]),
        queue("vision", "org", &[("cpu", 1_000, 3_000, Some(8_000)), ("gpu", 250, 1_000, Some(2_500))]),
        queue("speech", "org", &[("cpu", 0, 4_000, None), ("memory", 0, 8 * GIB, None)]),
    ]
}

/// Per resource of the default pool: guaranteed, nominal, limit.
fn queue(name: &str, parent: &str, quotas: &[(&str, u64, u64, Option<u64>)]) -> PolicyObject {
    let quota = |(resource, guaranteed, nominal, limit): &(&str, u64, u64, Option<u64>)| {
        let quota =
            Quota { guaranteed: Amount(*guaranteed), nominal: Amount(*nominal), limit: limit.map(Amount) };
        ((*resource).to_owned(), quota)
    };
    let quotas: BTreeMap<String, Quota> = quotas.iter().map(quota).collect();
    let quotas =
        if quotas.is_empty() { BTreeMap::new() } else { BTreeMap::from([("default".to_owned(), quotas)]) };
    PolicyObject::Queue(Queue { name: name.into(), parent: parent.into(), quotas, ..Queue::default() })
}

/// A schedule for requests of the queue `vision` and those named `batch_`.
fn schedule(name: &str, pool: &str, kept: &[(&str, u64)], shorten: bool) -> PolicyObject {
    let users = Users { queues: vec!["vi*".into()], pipelines: vec!["batch_*".into()], ..Users::default() };
    let resources = kept.iter().fold(Resources::default(), |all, (name, amount)| all.with(name, *amount));
    let (name, pool, rule) = (name.into(), pool.into(), format!("{shorten}"));
    PolicyObject::Schedule(Schedule { name, pool, rule, resources, users, shorten, ..Schedule::default() })
}

/// A placement of one member per node named, with the grants that the ask makes of the devices from `device` on.
fn placement(ledger: &Ledger, request: &Request, nodes: &[u32], device: u16) -> Placement {
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
        MemberPlacement { node: NodeId(*node), devices: (device..device + count).map(grant).collect() }
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
fn gang_apart(ledger: &Ledger) -> Command {
    let amounts = Resources::new(500, GIB);
    let gang = Gang { min_members: 2, max_members: 2, spread: true };
    let request = Request { gang, ..staying(Requirements { amounts, ..Requirements::default() }) };
    let verdict = Verdict::Place(placement(ledger, &request, &[0, 1], 0));
    Command::Submit { request, verdict }
}

/// A smallest instance on the first device of the first node.
fn instance_at(ledger: &Ledger, start: u8) -> Command {
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
fn replica(ledger: &Ledger) -> Command {
    let amounts = Resources::new(100, 0);
    let request =
        Request { service: "web".into(), ..staying(Requirements { amounts, ..Requirements::default() }) };
    let verdict = Verdict::Place(placement(ledger, &request, &[2], 0));
    Command::Submit { request, verdict }
}

fn pick(ledger: &Ledger, index: usize) -> Option<Arc<Reservation>> {
    let live: Vec<&Arc<Reservation>> = ledger.reservations().collect();
    (!live.is_empty()).then(|| Arc::clone(live[index % live.len()]))
}

fn entry(ledger: &Ledger, step: &Step) -> Entry {
    let token =
        |r: &Reservation, right: bool| if right { r.token } else { Revision(r.token.0.wrapping_sub(1)) };
    let nobody = ReservationId(u64::MAX);
    let with = |index: usize, make: &dyn Fn(&Reservation) -> Command| match pick(ledger, index) {
        Some(r) => make(&r),
        None => Command::Cancel { reservation: nobody },
    };
    let mut entry = Entry::system(Command::Expire { limit: 1 });
    entry.command = match step {
        Step::Submit { request, verdict, nodes, device, key } => {
            if let Some(key) = key {
                entry.request_id = format!("key-{}", key % 3);
                entry.request_hash = [key / 3; 32];
            }
            let verdict = match verdict {
                0 => Verdict::Infeasible(Vec::new()),
                1 | 2 => Verdict::Blocked(Vec::new()),
                _ => Verdict::Place(placement(ledger, request, nodes, *device)),
            };
            let mut request = request.clone();
            // Every fourth or so is for later, where it says how long.
            if request.start_at_ms > 0 {
                request.start_at_ms = (ledger.clock().0 + request.start_at_ms).saturating_sub(5_000);
            }
            Command::Submit { request, verdict }
        }
        Step::Place { pick: index, nodes, device } => with(*index, &|r| Command::Place {
            reservation: r.id,
            placement: placement(ledger, &r.request, nodes, *device),
        }),
        Step::Preempt { pick: index, victims, device } => {
            // Somebody who waits, and some of those who hold something, where there are such.
            let all: Vec<_> = ledger.reservations().cloned().collect();
            let mut waiting: Vec<_> = all.iter().filter(|r| r.is_waiting()).collect();
            waiting.sort_by_key(|r| std::cmp::Reverse((r.priority, !r.request.queue.is_empty())));
            waiting.truncate(4);
            let holding: Vec<_> = all.iter().filter(|r| r.state.is_occupying()).collect();
            let anybody = all.first();
            let Some(r) = waiting.get(index % waiting.len().max(1)).copied().or(anybody) else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            // On one node, mostly: those below it, or some of them.
            let node = victims.first().map_or(0, |n| (*n % 3) as u32);
            let below = |v: &&Arc<Reservation>| {
                let lends = !r.request.queue.is_empty() && v.request.queue != r.request.queue;
                v.members.iter().any(|m| m.node.0 == node) && (v.priority < r.priority || lends)
            };
            let chosen: Vec<&Arc<Reservation>> = match victims.len() {
                3 => victims.iter().filter_map(|n| holding.get(n % holding.len().max(1)).copied()).collect(),
                2 => holding.iter().copied().filter(below).take(1).collect(),
                _ => holding.iter().copied().filter(below).collect(),
            };
            let nodes: Vec<u32> = if victims.len() == 3 {
                chosen.iter().flat_map(|v| &v.members).map(|m| m.node.0).collect()
            } else {
                vec![node; r.request.gang.min_members as usize]
            };
            Command::Preempt {
                reservation: r.id,
                placement: placement(ledger, &r.request, &nodes, *device),
                victims: chosen.iter().map(|v| v.id).collect(),
            }
        }
        Step::Unplan(index) => with(*index, &|r| Command::Preempt {
            reservation: r.id,
            placement: Placement { members: Vec::new() },
            victims: Vec::new(),
        }),
        Step::Confirm(index, right) => {
            with(*index, &|r| Command::Confirm { reservation: r.id, token: token(r, *right) })
        }
        Step::Renew(index, right, ttl_ms) => {
            with(*index, &|r| Command::Renew { reservation: r.id, token: token(r, *right), ttl_ms: *ttl_ms })
        }
        Step::Resize(index, cpu) => with(*index, &|r| Command::Resize {
            reservation: r.id,
            token: r.token,
            amounts: Resources::new(*cpu, GIB).with("license/x", cpu % 3),
        }),
        Step::Release(index, right) => {
            with(*index, &|r| Command::Release { reservation: r.id, token: token(r, *right) })
        }
        Step::Requeue(index, right) => {
            with(*index, &|r| Command::Requeue { reservation: r.id, token: token(r, *right) })
        }
        Step::Cancel(index) => with(*index, &|r| Command::Cancel { reservation: r.id }),
        Step::Expire(limit) => Command::Expire { limit: *limit },
        Step::Register { index, incarnation, cpu_millis, devices, running, cut } => {
            let mut registration = registration(*index, *incarnation, *cpu_millis, *devices);
            if let Some(device) = registration.devices.first_mut() {
                device.mig = layout(*cut);
            }
            if *running {
                registration.running = ledger.reservations().map(|r| r.id).collect();
            }
            Command::RegisterNode(registration)
        }
        Step::Health(node, health, right) => {
            let epoch = ledger.node(NodeId(*node)).map_or(NodeEpoch(0), |n| n.epoch);
            let epoch = if *right { epoch } else { NodeEpoch(epoch.0.wrapping_sub(1)) };
            Command::SetNodeHealth { node: NodeId(*node), epoch, health: *health }
        }
        Step::FailUnderGang(index) => {
            // By chance alone, the node of a gang on several seldom fails while it holds something.
            let apart = |r: &&Reservation| r.members.iter().any(|member| member.node != r.members[0].node);
            let gangs: Vec<&Reservation> = ledger.reservations().map(AsRef::as_ref).filter(apart).collect();
            let node = gangs.get(index % gangs.len().max(1)).map_or(NodeId(0), |gang| gang.members[0].node);
            let epoch = ledger.node(node).map_or(NodeEpoch(0), |n| n.epoch);
            Command::SetNodeHealth { node, epoch, health: NodeHealth::Failed }
        }
        Step::Admin(node, change) => {
            let reason = "test".to_owned();
            let admin = match change {
                0 => AdminChange::Cordon { reason },
                1 => AdminChange::Drain { reason, deadline_ms: 4_000 },
                2 => AdminChange::Drain { reason, deadline_ms: 0 },
                _ => AdminChange::Uncordon,
            };
            Command::SetNodeAdmin { node: NodeId(*node), admin }
        }
        Step::Device(node, device, failed) => {
            Command::SetDeviceHealth { node: NodeId(*node), device: DeviceIndex(*device), failed: *failed }
        }
        Step::RemoveNode(node) => Command::RemoveNode { node: NodeId(*node) },
        Step::Policy(change, stale) => {
            let (put, delete) = policy(*change);
            let if_revision = if *stale { Revision(1) } else { Revision(0) };
            Command::ApplyPolicy { put, delete, if_revision }
        }
        Step::Endpoint { pick: index, right, port, draining } => {
            // Mostly one of a service.
            let replicas: Vec<_> = ledger.reservations().filter(|r| !r.request.service.is_empty()).collect();
            let replica = replicas.get(index % replicas.len().max(1)).map(|r| Arc::clone(r));
            let Some(r) = replica.filter(|_| index % 7 > 0).or_else(|| pick(ledger, *index)) else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            let announced = (*port < 3).then(|| Announcement {
                address: format!("10.0.0.1:{port}"),
                weight_milli: if index % 31 == 0 { 1_000_001 } else { 1_000 },
                draining: *draining,
                ..Announcement::default()
            });
            Command::SetEndpoint { reservation: r.id, token: token(&r, *right), announced }
        }
        Step::Loads(picks) => {
            let ids: std::collections::BTreeSet<_> =
                picks.iter().filter_map(|index| pick(ledger, *index)).map(|r| r.id).collect();
            let endpoints = ledger.endpoints("web").map(|r| r.id);
            let ids: std::collections::BTreeSet<_> = ids.into_iter().chain(endpoints).collect();
            let report = |reservation: ReservationId| LoadReport {
                reservation,
                utilization_permille: ledger.revision().0 as u32,
                rate_milli: 1_000,
                errors_milli: 0,
                in_flight: 1,
                queue_depth: 0,
                latency_us: 7,
            };
            Command::ReportLoad { reports: ids.into_iter().map(report).collect() }
        }
        Step::Leader => Command::BecomeLeader { leader: 1 },
        Step::Upgrade(to) => Command::Upgrade { to: *to },
        Step::Desire(desired, right) => {
            let back = if *right { 0 } else { 5 };
            Command::SetDesired(ScaleDecided {
                policy: "grow".to_owned(),
                desired: *desired,
                computed_from: Revision(ledger.revision().0.saturating_sub(back)),
                rule: "waiting".to_owned(),
                inputs: vec!["2 requests wait".to_owned(); if desired % 6 == 5 { 33 } else { 1 }],
            })
        }
        Step::Pin(to, for_ms) => {
            let target = ScalingTarget::Pool("default".to_owned());
            Command::PinScale { target, to: *to, for_ms: *for_ms }
        }
        Step::Machine(which) => {
            let ids: Vec<Revision> = ledger.intents().map(|intent| intent.id).collect();
            let machine =
                which.map(|which| ids.get(which % ids.len().max(1)).copied().unwrap_or(Revision(1)));
            Command::OpenIntent { policy: "grow".to_owned(), machine }
        }
        Step::Proceed(which, what, right) => {
            let intents: Vec<_> = ledger.intents().collect();
            let Some(intent) = intents.get(which % intents.len().max(1)) else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            let step = match what {
                0..=2 => IntentStep::Act,
                3 => IntentStep::Answered { handle: format!("vm-{}", intent.id.0), node: String::new() },
                4 => IntentStep::Later { detail: "busy".to_owned(), after_ms: 2_000 },
                5 | 6 => IntentStep::Ready,
                _ => IntentStep::Failed { detail: "no room".to_owned() },
            };
            let attempts = if *right { intent.attempts } else { intent.attempts + 1 };
            Command::StepIntent { intent: intent.id, attempts, step }
        }
        Step::Boot(which) => {
            let names: Vec<String> =
                ledger.intents().filter(|one| one.starts()).map(|one| one.node.clone()).collect();
            let Some(name) = names.get(which % names.len().max(1)).cloned() else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            Command::RegisterNode(Registration { name, ..registration(9, 1, 8_000, 0) })
        }
        Step::Windows(which, ahead_ms, length_ms, right) => {
            let schedule = ["night", "always", "other"][usize::from(*which)];
            let changed = ledger.schedule(schedule).map_or(Revision(1), |known| known.changed);
            let changed = if *right { changed } else { Revision(changed.0 + 1) };
            let start = ledger.clock().plus_ms(*ahead_ms);
            let first = Window { start, end: start.plus_ms(*length_ms) };
            let second = Window { start: first.end.plus_ms(ahead_ms % 2 * 5_000), end: LedgerTime(u64::MAX) };
            let windows = if length_ms % 3 == 0 { vec![first, second] } else { vec![first] };
            let (schedule, until) = (schedule.to_owned(), start);
            Command::OpenWindows { schedule, changed, windows, until }
        }
    };
    entry
}

/// Everything that can be seen of both, side by side.
fn compare(ledger: &Ledger, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!((ledger.revision().0, ledger.clock().0), (model.revision, model.clock));
    let ids: Vec<u64> = ledger.reservations().map(|r| r.id.0).collect();
    prop_assert_eq!(ids, model.reservations.keys().copied().collect::<Vec<_>>());
    for r in ledger.reservations() {
        let m = &model.reservations[&r.id.0];
        let members: Vec<(u32, Vec<DeviceGrant>)> =
            r.members.iter().map(|x| (x.node.0, x.devices.clone())).collect();
        prop_assert_eq!(
            (r.state, r.resume_state, r.token.0, r.priority, r.ttl_ms, r.deadline.0, r.hard_end.0),
            (m.state, m.resume, m.token, m.priority, m.ttl_ms, m.deadline, m.hard_end),
            "{:?}",
            r
        );
        prop_assert_eq!(
            (&r.amounts, members, r.ended_at.0, r.end_reason),
            (&m.amounts, m.members.clone(), m.ended_at, m.end)
        );
        let preempted = r.preempted.map(|p| (p.by.0, p.rule, p.at.0, p.grace_ms));
        prop_assert_eq!((r.granted_at.0, preempted), (m.granted_at, m.preempted));
        let endpoint = r.endpoint.as_ref().map(|known| (known.announced.clone(), known.since.0));
        prop_assert_eq!(&endpoint, &m.endpoint, "{:?}", r);
        let load = ledger.load(r.id).map(|load| (load.report, load.at.0));
        prop_assert_eq!(load, model.loads.get(&r.id.0).copied());
    }
    prop_assert_eq!(ledger.meta().version, model.version);
    let services: Vec<&str> = ledger.services().map(|service| service.name.as_str()).collect();
    prop_assert_eq!(services, model.services.keys().map(String::as_str).collect::<Vec<_>>());
    for policy in ledger.scaling_policies() {
        let (state, wish) =
            (ledger.scaling(&policy.name).expect("each has one"), &model.wishes[&policy.name]);
        let pin = state.pin.as_ref().map(|pin| (pin.to, pin.until.0));
        prop_assert_eq!(
            (state.desired, state.changed_at.0, state.reversed_at.0, pin, state.failures, state.retry_at.0),
            (wish.desired, wish.changed_at, wish.reversed_at, wish.pin, wish.failures, wish.retry_at)
        );
    }
    let wanted = |intent: &Arc<plimsoll_ledger::Intent>| {
        let removes = match intent.action {
            IntentAction::Start { .. } => None,
            IntentAction::Remove { machine } => Some(machine.0),
        };
        let stand = match intent.state {
            IntentState::Wanted => Stand::Wanted,
            IntentState::Acting => Stand::Acting,
            IntentState::Ready => Stand::Ready,
            IntentState::Failed => Stand::Failed,
        };
        let (policy, node, attempts) = (intent.policy.clone(), intent.node.clone(), intent.attempts);
        let (not_before, deadline) = (intent.not_before.0, intent.deadline.0);
        (intent.id.0, Wanted { policy, removes, node, stand, attempts, not_before, deadline })
    };
    prop_assert_eq!(ledger.intents().map(wanted).collect::<BTreeMap<_, _>>(), model.intents.clone());
    let gone = |node: &Arc<RemovedNode>| {
        let uuids = node.devices.iter().map(|device| device.uuid.clone()).collect();
        (node.id.0, Gone { name: node.name.clone(), uuids, at: node.removed_at.0 })
    };
    prop_assert_eq!(ledger.removed_nodes().map(gone).collect::<BTreeMap<_, _>>(), model.removed.clone());
    let nodes: Vec<u32> = ledger.nodes().map(|n| n.id.0).collect();
    prop_assert_eq!(nodes, model.nodes.keys().copied().collect::<Vec<_>>());
    for n in ledger.nodes() {
        let m = &model.nodes[&n.id.0];
        let fence_pending: Vec<u64> = n.fence_pending.iter().map(|p| p.reservation.0).collect();
        let pending: Vec<u64> = m.pending.iter().map(|(id, ..)| *id).collect();
        prop_assert_eq!((n.epoch.0, &n.pool, n.health, fence_pending), (m.epoch, &m.pool, m.health, pending));
        prop_assert_eq!((&n.allocatable, &n.registration.devices), (&m.allocatable, &m.reg.devices));
        for name in ["cpu", "memory", "license/x"] {
            let used = ledger.usage(n.id).expect("the node is there").used.get(name).0;
            prop_assert_eq!(used, model.used(n.id.0, name), "{} of {}", name, n.name());
        }
    }
    for pool in ["default", "gpu"] {
        prop_assert_eq!(ledger.pending(pool).map(|id| id.0).collect::<Vec<_>>(), model.queue(pool));
    }
    Ok(())
}

fn cases() -> u32 {
    std::env::var("PLIMSOLL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_what_the_page_says(steps in prop::collection::vec((step(), 0u64..4_000), 1..120)) {
        let (mut ledger, mut model) = (Ledger::new(), Model::new());
        let mut now_ms = 1_000_000_000;
        for index in 0..3 {
            let entry = Entry::system(Command::RegisterNode(registration(index, 1, 8_000, 2)));
            run(&mut ledger, &mut model, now_ms, &entry)?;
        }
        // Half of the histories begin under the newest rules, the others come to them by chance.
        if steps.len().is_multiple_of(2) {
            run(&mut ledger, &mut model, now_ms, &Entry::system(Command::Upgrade { to: LATEST_VERSION }))?;
            let mut put = if steps.len().is_multiple_of(4) { queues() } else { Vec::new() };
            if steps.len().is_multiple_of(8) {
                put.extend(limits(40_000));
            }
            put.push(service("web", "default", "standard"));
            if steps.len().is_multiple_of(3) {
                put.push(scaling("grow", "default", 1, 5, if steps.len().is_multiple_of(6) { 4_000 } else { 0 }));
            }
            let command = Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) };
            run(&mut ledger, &mut model, now_ms, &Entry::system(command))?;
            let entry = Entry::system(replica(&ledger));
            run(&mut ledger, &mut model, now_ms, &entry)?;
            let here = Step::Endpoint { pick: 1, right: true, port: 0, draining: false };
            let gone = Step::Release(0, true);
            for step in if steps.len().is_multiple_of(3) { vec![here, gone] } else { vec![here] } {
                let entry = self::entry(&ledger, &step);
                run(&mut ledger, &mut model, now_ms, &entry)?;
            }
        }
        if steps.len() % 4 == 2 {
            let mut cut = registration(0, 1, 8_000, 2);
            cut.devices[0].mig = layout(0);
            run(&mut ledger, &mut model, now_ms, &Entry::system(Command::RegisterNode(cut)))?;
            // On the same slice in half of them, side by side in the others.
            for start in [0, (steps.len() / 4 % 2) as u8] {
                let entry = Entry::system(instance_at(&ledger, start));
                run(&mut ledger, &mut model, now_ms, &entry)?;
            }
        }
        if steps.len() % 3 == 1 {
            let entry = Entry::system(gang_apart(&ledger));
            run(&mut ledger, &mut model, now_ms, &entry)?;
            if steps.len() % 9 == 1 {
                // A new leader gives it a full length: nothing ends when the first one is over, and the slack on it.
                now_ms += 2_400_000;
                run(&mut ledger, &mut model, now_ms, &Entry::system(Command::BecomeLeader { leader: 1 }))?;
                now_ms += 2_000_000;
                run(&mut ledger, &mut model, now_ms, &Entry::system(Command::Expire { limit: 10 }))?;
            }
        }
        for (step, pause_ms) in &steps {
            now_ms += pause_ms;
            // Now and then a jump over retention times, so that forgetting happens too.
            if *pause_ms == 3_999 { now_ms += 25 * 3_600_000; }
            // And a leader whose clock is behind that of the one before it.
            let proposed_ms = if pause_ms % 16 == 7 { now_ms - 10_000 } else { now_ms };
            let entry = entry(&ledger, step);
            run(&mut ledger, &mut model, proposed_ms, &entry)?;
        }
        let rebuilt = Ledger::from_rows(ledger.rows().map(|(_, row)| row)).expect("its own rows");
        prop_assert!(rebuilt.rows().eq(ledger.rows()));
    }
}

fn run(ledger: &mut Ledger, model: &mut Model, now_ms: u64, entry: &Entry) -> Result<(), TestCaseError> {
    let placed =
        |ledger: &Ledger| ledger.rows().map(|(_, row)| (row.place(), row)).collect::<BTreeMap<_, _>>();
    let before = placed(ledger);
    let revision = Revision(ledger.revision().0 + 1);
    ledger.clear_touched();
    let stamp = Stamp { revision, proposed_at: LedgerTime(now_ms) };
    let tried = ledger.excerpt(entry).apply(stamp, entry);
    let applied = ledger.apply(stamp, entry);
    prop_assert_eq!(&tried.answer, &applied.answer, "an excerpt answers otherwise to {:?}", entry);
    let (expected, cited) = model.step(now_ms, entry);
    prop_assert_eq!(
        (came(&applied.answer.outcome), applied.answer.revision.0),
        (expected, cited),
        "{:?}",
        entry
    );
    compare(ledger, model)?;
    prop_assert_eq!(ledger.check_invariants(), Vec::new(), "after {:?}", entry);
    prop_assert_eq!(ledger.take_violations(), Vec::new(), "while applying {:?}", entry);
    // Rows that are not named as touched are as they were.
    let touched = ledger.take_rows();
    let mut patched = before;
    for TouchedRow { place, row, .. } in touched {
        match row {
            Some(row) => drop(patched.insert(place, row)),
            None => drop(patched.remove(&place)),
        }
    }
    prop_assert!(patched == placed(ledger), "a changed row was not touched by {:?}", entry);
    Ok(())
}
