//! `optimized` plans a batch as a whole: never worse than `greedy` on the same fleet and the same requests.

mod fixture;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use fixture::{apply, fleet, plain, request, sizes};
use plimsoll_ledger::{Command, Gang, GpuAsk, GpuShare, Ledger, Request, Strategy, Verdict};
use plimsoll_scheduler::Planner;
use plimsoll_types::{NodeId, Resources};
use proptest::prelude::*;

/// GPU thousandths asked by what was placed, and requests, by priority, the highest first.
fn placed(ledger: &Ledger, batch: &[Request]) -> Vec<(u64, u64)> {
    let mut planner = Planner::new(ledger, 5);
    let requests: Vec<&Request> = batch.iter().collect();
    let mut worth: BTreeMap<Reverse<i32>, (u64, u64)> = BTreeMap::new();
    let planned = planner.plan_batch(ledger, &requests);
    for (request, (verdict, ticket)) in batch.iter().zip(&planned) {
        let priority = ledger.class(&request.class).expect("it exists").priority;
        let entry = worth.entry(Reverse(priority)).or_default();
        if let Verdict::Place(placement) = verdict {
            assert!(ticket.is_some());
            let milli = request.requirements.gpu.as_ref().map_or(0, |gpu| match gpu.share {
                GpuShare::Whole => u64::from(gpu.count) * 1_000,
                GpuShare::Milli(milli) => milli.into(),
                GpuShare::Memory(_) => 500,
                GpuShare::Mig(name) => {
                    name.named_slices().map_or(500, |slices| u64::from(slices.min(7)) * 1_000 / 7)
                }
            });
            entry.0 += milli * placement.members.len() as u64;
            entry.1 += 1;
        }
    }
    // All of it can be granted together, and nothing but what was proposed stays booked.
    let mut ledger = ledger.clone();
    for (request, (verdict, ticket)) in batch.iter().zip(planned) {
        let granted = matches!(verdict, Verdict::Place(_));
        let before = ledger.live();
        apply(&mut ledger, Command::Submit { request: request.clone(), verdict });
        assert!(!granted || ledger.live() == before + 1);
        if let Some(ticket) = ticket {
            planner.settle(&ledger, ticket);
        }
    }
    assert_eq!(planner.check(&ledger), Vec::<String>::new());
    worth.into_values().collect()
}

/// The same fleet with the same work on it, under two strategies.
fn two(sizes: &[fixture::Size], filler: &[Request]) -> (Ledger, Ledger) {
    let (mut greedy, mut optimized) = (fleet(sizes, Strategy::Greedy), fleet(sizes, Strategy::Optimized));
    let mut planner = Planner::new(&greedy, 3);
    for request in filler {
        let verdict = planner.place(&greedy, request);
        for ledger in [&mut greedy, &mut optimized] {
            apply(ledger, Command::Submit { request: request.clone(), verdict: verdict.clone() });
        }
        planner.sync(&greedy, (0..sizes.len() as u32).map(NodeId));
    }
    (greedy, optimized)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_never_worse_than_greedy(
        sizes in sizes(8),
        filler in prop::collection::vec(request(), 0..10),
        batch in prop::collection::vec((request(), prop::sample::select(vec!["high", "standard"])), 1..24),
    ) {
        let batch: Vec<Request> =
            batch.into_iter().map(|(request, class)| Request { class: class.to_owned(), ..request }).collect();
        let (greedy, optimized) = two(&sizes, &filler);
        let (least, have) = (placed(&greedy, &batch), placed(&optimized, &batch));
        if let Some((least, have)) = least.iter().zip(&have).find(|(least, have)| least != have) {
            prop_assert!(have.0 >= least.0 && have.1 >= least.1, "{:?} where greedy has {:?}", have, least);
        }
    }
}

#[test]
fn it_finds_the_order_in_which_all_fit() {
    // Two nodes of two devices: by greedy the single ones end up on both, and the pair finds no whole node.
    let sizes = [(9, 2, 0), (9, 2, 0)];
    let gpu = |count| {
        let mut request = plain(1_000);
        request.requirements.gpu = Some(GpuAsk::whole(count));
        request
    };
    let batch = [gpu(1), gpu(1), gpu(2)];
    let (greedy, optimized) = two(&sizes, &[]);
    assert_eq!(placed(&greedy, &batch), [(2_000, 2)]);
    assert_eq!(placed(&optimized, &batch), [(4_000, 3)]);
}

#[test]
fn what_found_no_place_is_tried_first() {
    // The gang needs both nodes' cpu; whatever comes before it takes some.
    let sizes = [(8, 0, 0), (8, 0, 0)];
    let mut gang = plain(6_000);
    gang.gang = Gang { min_members: 2, max_members: 2, spread: true };
    let mut small = plain(3_000);
    small.requirements.amounts = Resources::new(3_000, 1 << 20);
    let (greedy, optimized) = two(&sizes, &[]);
    // For two small ones in its place the gang alone is no gain: neither plan is better, greedy's stays.
    assert_eq!(placed(&greedy, &[small.clone(), small.clone(), gang.clone()]), [(0, 2)]);
    assert_eq!(placed(&optimized, &[small.clone(), small, gang]), [(0, 2)]);
}
