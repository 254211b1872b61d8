//! Each strategy against its own sentence: of all nodes that fit, the planner's index finds the one that a look at every
//! node finds.

mod fixture;

use fixture::{apply, fleet, nodes_that_fit, request, sizes, strategy};
use plimsoll_ledger::{Command, Gang, Ledger, Request, Strategy as PoolStrategy, Verdict};
use plimsoll_scheduler::Planner;
use plimsoll_types::NodeId;
use proptest::prelude::*;

/// The strategy's measure of a node before the grant, lower first: wishes missed, two levels, id. `None` for strategies
/// that look at candidates only.
fn measure(ledger: &Ledger, id: NodeId, request: &Request) -> Option<(u64, u64, u64, NodeId)> {
    let node = ledger.node(id).expect("it is listed");
    let labels = node.effective_labels();
    let wishes = request.requirements.preferred.iter().filter(|wish| !wish.term.matches(&labels));
    let missed = wishes.map(|wish| u64::from(wish.weight)).sum();
    let usage = ledger.usage(id).expect("it is listed");
    let devices = node.registration.devices.iter().zip(&usage.devices).filter(|(device, _)| !device.failed);
    let milli: u64 = devices.map(|(_, usage)| 1_000 - u64::from(usage.milli)).sum();
    let cpu = ledger.free(id).cpu_millis.0;
    let (first, second) = match ledger.pool("default").expect("it is there").strategy {
        PoolStrategy::BestFit | PoolStrategy::Priority => (milli, cpu),
        PoolStrategy::WorstFit | PoolStrategy::Greedy => (u64::MAX - milli, u64::MAX - cpu),
        PoolStrategy::FirstFit | PoolStrategy::FirstFitDecreasing => (0, 0),
        PoolStrategy::Balanced
        | PoolStrategy::Random
        | PoolStrategy::Fragmentation
        | PoolStrategy::Optimized => return None,
    };
    Some((missed, first, second, id))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_a_look_at_every_node_finds(
        sizes in sizes(14),
        filler in prop::collection::vec(request(), 0..25),
        asked in prop::collection::vec(request(), 1..6),
        strategy in strategy(),
    ) {
        let mut ledger = fleet(&sizes, strategy);
        let mut planner = Planner::new(&ledger, 3);
        for request in filler {
            let verdict = planner.place(&ledger, &request);
            apply(&mut ledger, Command::Submit { request, verdict });
            planner.sync(&ledger, (0..sizes.len() as u32).map(NodeId));
        }
        for mut request in asked {
            request.gang = Gang::default();
            // Beyond four wishes the planner weighs candidates; a share by memory leaves different rests on different models.
            request.requirements.preferred.truncate(4);
            let fitting = nodes_that_fit(&ledger, &request);
            let known: Option<Vec<_>> = fitting.iter().map(|id| measure(&ledger, *id, &request)).collect();
            match planner.place(&ledger, &request) {
                Verdict::Place(placement) => {
                    let node = placement.members[0].node;
                    prop_assert!(fitting.contains(&node));
                    let by_memory = request.requirements.gpu.as_ref()
                        .is_some_and(|gpu| matches!(gpu.share, plimsoll_ledger::GpuShare::Memory(_)));
                    if let Some(best) = known.and_then(|known| known.into_iter().min()).filter(|_| !by_memory) {
                        prop_assert_eq!(node, best.3, "of {:?} for {:?}", fitting, request);
                    }
                }
                verdict => prop_assert!(fitting.is_empty(), "{:?} though {:?} fit", verdict, fitting),
            }
        }
    }
}
