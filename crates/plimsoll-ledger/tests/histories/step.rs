//! Steps of histories: what is done next, before it is known to whom.

use plimsoll_ledger::{NodeHealth, Request};
use proptest::prelude::*;

use super::request::request;

#[allow(clippy::large_enum_variant)] // A handful at a time.
/// One step of a history: indices are resolved against the ledger of the moment, so that most commands make sense.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Submit { request: Request, verdict: u8, nodes: Vec<u32>, device: u16, key: Option<u8> },
    Place { pick: usize, nodes: Vec<u32>, device: u16 },
    Preempt { pick: usize, victims: Vec<usize>, device: u16 },
    Unplan(usize),
    Relocate { pick: usize, nodes: Vec<u32>, device: u16 },
    Repair { pick: usize, nodes: Vec<u32>, device: u16 },
    Confirm(usize, bool),
    Renew(usize, bool, u64),
    Resize(usize, u64),
    Release(usize, bool),
    Requeue(usize, bool),
    Evict { pick: usize, gauge: bool, measured_permille: u32, over_ms: u64, right: bool },
    Cancel(usize),
    Expire(u32),
    Register { index: u32, incarnation: u64, cpu_millis: u64, devices: usize, running: bool, cut: u8 },
    Health(u32, NodeHealth, bool),
    FailUnderGang(usize),
    Admin(u32, u8),
    Device(u32, u16, bool),
    RemoveNode(u32),
    MoveNode { pick: usize, back: bool, wait: bool },
    Policy(u8, bool),
    Endpoint { pick: usize, right: bool, port: u8, draining: bool },
    Loads(Vec<usize>),
    Interrupt { node: u32, in_ms: u64, right: bool },
    Leader,
    Upgrade(u32),
    Windows(u8, u64, u64, bool),
    Desire(u64, bool),
    Pin(Option<u64>, u64),
    Machine(Option<usize>, u8),
    Proceed(usize, u8, bool),
    Boot(usize),
    Observe(u8),
    SetAside(usize, bool),
    Return(usize, bool),
    Take { which: u8, who: u8, tokens: u64 },
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
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
        4 => (any::<usize>(), nodes(), 0u16..3).prop_map(|(pick, nodes, device)| Step::Relocate { pick, nodes, device }),
        6 => (any::<usize>(), nodes(), 0u16..3).prop_map(|(pick, nodes, device)| Step::Repair { pick, nodes, device }),
        10 => (any::<usize>(), right()).prop_map(|(pick, right)| Step::Confirm(pick, right)),
        6 => (any::<usize>(), right(), prop_oneof![Just(0u64), Just(3_000), Just(60_000), Just(1)])
            .prop_map(|(pick, right, ttl)| Step::Renew(pick, right, ttl)),
        4 => (any::<usize>(), 0u64..9_000).prop_map(|(pick, cpu)| Step::Resize(pick, cpu)),
        8 => (any::<usize>(), right()).prop_map(|(pick, right)| Step::Release(pick, right)),
        3 => (any::<usize>(), right()).prop_map(|(pick, right)| Step::Requeue(pick, right)),
        5 => (any::<usize>(), prop::bool::weighted(0.9), prop_oneof![3 => Just(950u32), 1 => Just(600)],
            prop_oneof![3 => Just(9_000u64), 1 => Just(900)], right())
            .prop_map(|(pick, gauge, measured_permille, over_ms, right)| Step::Evict { pick, gauge, measured_permille, over_ms, right }),
        3 => any::<usize>().prop_map(Step::Cancel),
        12 => (0u32..4).prop_map(Step::Expire),
        5 => (0u32..4, 1u64..3, prop_oneof![Just(8_000u64), Just(3_000)], 0usize..3, prop::bool::ANY, 0u8..8).prop_map(
            |(index, incarnation, cpu_millis, devices, running, cut)| Step::Register { index, incarnation, cpu_millis, devices, running, cut }),
        8 => (0u32..4, health, right()).prop_map(|(node, health, right)| Step::Health(node, health, right)),
        2 => any::<usize>().prop_map(Step::FailUnderGang),
        3 => (0u32..4, 0u8..4).prop_map(|(node, change)| Step::Admin(node, change)),
        2 => (0u32..4, 0u16..3, prop::bool::ANY).prop_map(|(node, device, failed)| Step::Device(node, device, failed)),
        2 => (0u32..4).prop_map(Step::RemoveNode),
        5 => (prop_oneof![2 => 0u8..9, 3 => 9u8..24, 3 => 24u8..32, 2 => 32u8..36, 2 => 36u8..41, 3 => 41u8..45, 4 => 45u8..49, 4 => 49u8..54, 3 => 55u8..58, 4 => 58u8..63, 5 => 63u8..66, 5 => 110u8..116, 7 => 130u8..136, 4 => 136u8..138, 4 => Just(138u8), 1 => Just(139u8), 4 => Just(140u8), 1 => Just(141u8), 4 => 142u8..145, 3 => Just(145u8), 1 => Just(146u8)], prop::bool::weighted(0.2)).prop_map(|(change, stale)| Step::Policy(change, stale)),
        5 => (any::<usize>(), prop::bool::weighted(0.3), prop::bool::weighted(0.1))
            .prop_map(|(pick, back, wait)| Step::MoveNode { pick, back, wait }),
        6 => (any::<usize>(), right(), 0u8..4, prop::bool::weighted(0.2))
            .prop_map(|(pick, right, port, draining)| Step::Endpoint { pick, right, port, draining }),
        3 => prop::collection::vec(any::<usize>(), 0..3).prop_map(Step::Loads),
        3 => (0u32..4, prop_oneof![4 => 0u64..20_000, 1 => Just(90_000_000)], right())
            .prop_map(|(node, in_ms, right)| Step::Interrupt { node, in_ms, right }),
        2 => Just(Step::Leader),
        1 => (0u32..18).prop_map(Step::Upgrade),
        4 => (0u64..6, right()).prop_map(|(desired, right)| Step::Desire(desired, right)),
        1 => (prop::option::weighted(0.7, 0u64..6), prop_oneof![4 => 1_000u64..20_000, 1 => Just(1)]).prop_map(|(to, ms)| Step::Pin(to, ms)),
        6 => (prop::option::weighted(0.5, any::<usize>()), 0u8..24).prop_map(|(which, template)| Step::Machine(which, template)),
        9 => (any::<usize>(), 0u8..8, right()).prop_map(|(pick, what, right)| Step::Proceed(pick, what, right)),
        3 => any::<usize>().prop_map(Step::Boot),
        10 => (0u8..8).prop_map(Step::Observe),
        7 => (any::<usize>(), right()).prop_map(|(pick, right)| Step::SetAside(pick, right)),
        5 => (any::<usize>(), right()).prop_map(|(pick, right)| Step::Return(pick, right)),
        10 => (0u8..12, 0u8..2, 0u64..7).prop_map(|(which, who, tokens)| Step::Take { which, who, tokens }),
        4 => (0u8..4, 0u64..60_000, 1_000u64..40_000, right())
            .prop_map(|(which, ahead_ms, length_ms, right)| Step::Windows(which, ahead_ms, length_ms, right)),
    ]
}
