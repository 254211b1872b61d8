//! How well the strategies do against the best that there is, on cases small enough to try everything.
//!
//! Where theory has a bound, the test holds that one; where it has none, what was measured over 40,000 cases, rounded to the worse side.
//!
//! | who | what | bound | from |
//! | --- | --- | --- | --- |
//! | `best_fit`, `first_fit`, `priority`; measured: `fragmentation`, `optimized` | nodes used, one request after the other | 1.7 x the fewest | Dósa and Sgall 2013 (first fit), 2014 (best fit) |
//! | `first_fit_decreasing`, batches | nodes used | (11 x the fewest + 6) / 9 | Dósa 2007 |
//! | `priority`, batches | nodes used | 1.5 x the fewest | Simchi-Levi 1994 (best fit decreasing) |
//! | `worst_fit`, `greedy`, `balanced` | load of the fullest of m nodes | (2 - 1/m) x the lowest | Graham 1966 (list scheduling) |
//! | all | GPU granted, parts of at most half a device | 1/2 of the most | whoever refuses has all devices more than half full |
//! | those that pack | the same | 2/3 of the most | measured: 0.697 |
//! | `optimized`, batches | the same | 3/4 of the most | measured: 0.82 |
//! | all, gangs | levels outward from the preferred one | the fewest | the rule itself |
//! | all, gangs | domains of the preferred level used | 1 more than the fewest | measured: they are chosen level by level |

use std::collections::BTreeSet;

use plimsoll_ledger::{
    Command, GpuAsk, Ledger, MemberPlacement, Request, Requirements, Strategy as PoolStrategy, Verdict,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::{NodeId, Resources};
use proptest::prelude::*;

use super::asks::plain;
use super::cases::{Kind, Setup, Step, change, ledger_of, story};
use super::packing::{fewest_nodes, lowest_load, most_granted};
use super::scene::Scene;
use crate::fixture::{STRATEGIES, apply};

/// Those that fill what is used before they open more.
const PACKING: [PoolStrategy; 5] = [
    PoolStrategy::BestFit,
    PoolStrategy::FirstFit,
    PoolStrategy::Priority,
    PoolStrategy::Fragmentation,
    PoolStrategy::Optimized,
];
/// Those that keep nodes evenly full.
const SPREADING: [PoolStrategy; 3] = [PoolStrategy::WorstFit, PoolStrategy::Greedy, PoolStrategy::Balanced];
/// Cores of a node, in the halves in which sizes are counted here.
const NODE_HALVES: u64 = 16;

/// How much one level outward weighs beside one more domain.
const OUTWARD: u64 = 1_000;

/// What came of requests.
#[derive(Default)]
struct Came {
    nodes: BTreeSet<NodeId>,
    milli: u64,
}

/// Submits one after the other, or all `together` in one batch.
fn run(ledger: &mut Ledger, requests: &[Request], together: bool) -> Came {
    let mut planner = Planner::new(ledger, 7);
    let mut came = Came::default();
    for batch in requests.chunks(if together { requests.len().max(1) } else { 1 }) {
        let planned = planner.plan_batch(ledger, &batch.iter().collect::<Vec<_>>());
        for (request, (verdict, ticket)) in batch.iter().zip(planned) {
            if let Verdict::Place(place) = &verdict {
                came.nodes.extend(place.members.iter().map(|member| member.node));
                let grants = place.members.iter().flat_map(|member| &member.devices);
                came.milli += grants.map(|grant| u64::from(grant.milli)).sum::<u64>();
                apply(ledger, Command::Submit { request: request.clone(), verdict });
            }
            planner.settle_all(ledger, ticket);
        }
    }
    came
}

fn halves() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1..=NODE_HALVES, 1..10)
}

fn cores(halves: &[u64]) -> Vec<Request> {
    let asked = |half: &u64| Request {
        requirements: Requirements { amounts: Resources::new(half * 500, 0), ..Requirements::default() },
        ..plain(0)
    };
    halves.iter().map(asked).collect()
}

fn parts(milli: &[u64]) -> Vec<Request> {
    let asked = |milli: &u64| Request {
        requirements: Requirements { gpu: Some(GpuAsk::milli(*milli as u16)), ..Requirements::default() },
        ..plain(0)
    };
    milli.iter().map(asked).collect()
}

fn alike(nodes: usize, cores: u64, strategy: PoolStrategy) -> Ledger {
    ledger_of(&Setup { strategy, ..Setup::of_cores(&vec![cores; nodes]) })
}

/// Two nodes of one device each.
fn two_devices(strategy: PoolStrategy) -> Ledger {
    let mut setup = Setup { strategy, ..Setup::of_cores(&[8, 8]) };
    setup.machines.iter_mut().for_each(|machine| machine.devices = vec![Kind::Large]);
    ledger_of(&setup)
}

fn any_of(strategies: &[PoolStrategy]) -> impl Strategy<Value = PoolStrategy> {
    prop::sample::select(strategies.to_vec())
}

/// How far apart members are: levels outward from the preferred one until all are in one domain, then domains of the preferred level.
fn apart(scene: &Scene<'_>, request: &Request, members: &[MemberPlacement]) -> u64 {
    let Some(pool) = scene.pool(&request.pool) else { return 0 };
    let levels: Vec<&str> = pool.topology.iter().map(String::as_str).chain(["node"]).collect();
    let inner = levels.iter().position(|level| *level == request.topology.preferred).unwrap_or(0);
    let domains = |level: &str| scene.domains(request, level, members);
    let outward = levels[..=inner].iter().rev().take_while(|level| domains(level) > 1).count() as u64;
    outward * OUTWARD + domains(&request.topology.preferred) - 1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn those_that_pack_use_few_nodes(halves in halves(), strategy in any_of(&PACKING)) {
        let fewest = fewest_nodes(&halves, NODE_HALVES);
        let mut ledger = alike(halves.len(), NODE_HALVES / 2, strategy);
        let used = run(&mut ledger, &cores(&halves), false).nodes.len();
        prop_assert!(10 * used <= 17 * fewest, "{used} nodes for {halves:?}, {fewest} would do");
    }

    #[test]
    fn batches_that_are_sorted_use_fewer(halves in halves()) {
        let fewest = fewest_nodes(&halves, NODE_HALVES);
        let used = |strategy| run(&mut alike(halves.len(), NODE_HALVES / 2, strategy), &cores(&halves), true).nodes.len();
        let decreasing = used(PoolStrategy::FirstFitDecreasing);
        prop_assert!(9 * decreasing <= 11 * fewest + 6, "{decreasing} nodes for {halves:?}, {fewest} would do");
        let best = used(PoolStrategy::Priority);
        prop_assert!(2 * best <= 3 * fewest, "{best} nodes for {halves:?}, {fewest} would do");
    }

    #[test]
    fn those_that_spread_keep_the_fullest_node_low(halves in halves(), nodes in 2usize..5, strategy in any_of(&SPREADING)) {
        let lowest = lowest_load(&halves, nodes);
        let mut ledger = alike(nodes, 100, strategy);
        run(&mut ledger, &cores(&halves), false);
        let load = |id: u32| ledger.usage(NodeId(id)).map_or(0, |usage| usage.used.cpu_millis.0 / 500);
        let fullest = (0..nodes as u32).map(load).max().unwrap_or(0);
        let m = nodes as u64;
        prop_assert!(m * fullest <= (2 * m - 1) * lowest, "{fullest} of {halves:?} on one of {m}, {lowest} would do");
    }

    #[test]
    fn small_parts_fill_devices(
        parts_milli in prop::collection::vec(prop::sample::select(vec![120u64, 250, 330, 460, 500]), 1..11),
        strategy in any_of(&STRATEGIES),
    ) {
        let most = most_granted(&parts_milli, &mut [1_000, 1_000]);
        let granted = run(&mut two_devices(strategy), &parts(&parts_milli), false).milli;
        prop_assert!(2 * granted >= most, "{granted} of {parts_milli:?}, {most} would fit");
        if PACKING.contains(&strategy) {
            prop_assert!(3 * granted >= 2 * most, "{granted} of {parts_milli:?}, {most} would fit");
        }
        let together = run(&mut two_devices(PoolStrategy::Optimized), &parts(&parts_milli), true).milli;
        prop_assert!(4 * together >= 3 * most, "{together} of {parts_milli:?} together, {most} would fit");
    }

    #[test]
    fn a_gang_is_as_near_together_as_can_be((setup, steps) in story()) {
        let mut ledger = ledger_of(&setup);
        for step in &steps {
            change(&mut ledger, step);
            let Step::Ask(requests) = step else { continue };
            for request in requests {
                let verdict = Planner::new(&ledger, 7).place(&ledger, request);
                let Verdict::Place(place) = &verdict else { continue };
                let scene = Scene::of(&ledger);
                let wishes = !request.topology.preferred.is_empty() && request.topology.slice_size == 0;
                if wishes && request.affinity.is_empty() && place.members.len() > 1 {
                    let found = apart(&scene, request, &place.members);
                    let mut cost = |members: &[MemberPlacement]| apart(&scene, request, members);
                    let best = scene.best(request, place.members.len() as u32, &mut cost).map(|(cost, _)| cost);
                    let best = best.expect("the planner found one");
                    prop_assert_eq!(found / OUTWARD, best / OUTWARD, "{:?} for {:?}", place, request);
                    prop_assert!(found <= best + 1, "{found} in place of {best}: {place:?} for {request:?}");
                }
                apply(&mut ledger, Command::Submit { request: request.clone(), verdict });
            }
        }
    }
}
