//! One placement decision on a fleet that is 70 % full: per strategy and number of nodes, and what the parts of it cost.
//!
//! `cargo bench -p plimsoll-benches --bench placement`

use std::hint::black_box;

use plimsoll_benches::{
    Log, SIZES, STRATEGIES, criterion, first_node, labelled_request, measure, print_table, request,
};
use plimsoll_ledger::{Command, Preferred, Request, Strategy};
use plimsoll_scheduler::Planner;
use plimsoll_types::{Operator, Term};

/// Refusals measured together.
const REFUSALS: u64 = 800;

fn main() {
    let mut criterion = criterion();
    let mut rows: Vec<(String, Vec<u64>)> = Vec::new();
    let mut note = |name: String, ns: u64| match rows.iter_mut().find(|(known, _)| *known == name) {
        Some((_, figures)) => figures.push(ns),
        None => rows.push((name, vec![ns])),
    };
    for nodes in SIZES {
        let mut log = Log::filled(nodes, Strategy::BestFit);
        let labelled = labelled_request();
        for (name, strategy) in STRATEGIES {
            log.set_strategy(strategy);
            let mut planner = Planner::new(&log.ledger, 1);
            assert!(first_node(&planner.place(&log.ledger, &labelled)).is_some(), "it has to fit");
            let ns = measure(&mut criterion, &format!("place/{name}/{nodes}"), || {
                black_box(planner.place(&log.ledger, black_box(&labelled)));
            });
            note(format!("place {name}"), ns);
        }
        log.set_strategy(Strategy::BestFit);
        let mut planner = Planner::new(&log.ledger, 1);
        let mut wishing = labelled.clone();
        let wish =
            |value: &str| Term { key: "rack".into(), operator: Operator::In, values: vec![value.into()] };
        wishing.requirements.preferred = vec![
            Preferred { weight: 50, term: wish("rack-3") },
            Preferred { weight: 20, term: wish("rack-7") },
        ];
        let mixed: Vec<Request> = (0..64).map(request).collect();
        let batch: Vec<&Request> = mixed.iter().collect();
        let wished = measure(&mut criterion, &format!("place/wishes/{nodes}"), || {
            black_box(planner.place(&log.ledger, black_box(&wishing)));
        });
        note("place best_fit, two wishes".into(), wished);
        let mut next = 0;
        let cycle = measure(&mut criterion, &format!("plan_and_settle/{nodes}"), || {
            next = (next + 1) % mixed.len();
            for (_, ticket) in planner.plan_batch(&log.ledger, &[&mixed[next]]) {
                planner.settle(&log.ledger, ticket.expect("it fits"));
            }
        });
        note("plan, book, give back (mix)".into(), cycle);
        log.set_strategy(Strategy::Fragmentation);
        let mut descending = Planner::new(&log.ledger, 1);
        let cycle = measure(&mut criterion, &format!("plan_and_settle/fragmentation/{nodes}"), || {
            next = (next + 1) % mixed.len();
            for (_, ticket) in descending.plan_batch(&log.ledger, &[&mixed[next]]) {
                descending.settle(&log.ledger, ticket.expect("it fits"));
            }
        });
        note("the same, fragmentation".into(), cycle);
        // Grants that stay, so that every decision meets a changed fleet; the fleet is left as it was.
        let mut held = Vec::new();
        let kept = measure(&mut criterion, &format!("plan_and_keep/fragmentation/{nodes}"), || {
            next = (next + 1) % mixed.len();
            for (verdict, ticket) in descending.plan_batch(&log.ledger, &[&mixed[next]]) {
                assert!(first_node(&verdict).is_some(), "it fits");
                held.extend(ticket);
            }
            if held.len() >= 200 {
                descending.settle_all(&log.ledger, held.drain(..));
            }
        });
        note("plan and keep, fragmentation".into(), kept);
        log.set_strategy(Strategy::BestFit);
        let batched = measure(&mut criterion, &format!("plan_batch_64/{nodes}"), || {
            for (_, ticket) in planner.plan_batch(&log.ledger, &batch) {
                planner.settle(&log.ledger, ticket.expect("it fits"));
            }
        });
        note("the same, 64 in a batch, each".into(), batched / 64);
        let mut huge = labelled.clone();
        huge.requirements.amounts = plimsoll_types::Resources::new(64_000, 256 << 30);
        // Whole nodes that are still free go first, so that it has to wait.
        loop {
            let verdict = planner.place(&log.ledger, &huge);
            let Some(node) = first_node(&verdict) else { break };
            log.apply(Command::Submit { request: huge.clone(), verdict });
            planner.sync(&log.ledger, [node]);
        }
        // A node changes between refusals, as in a busy fleet: often enough to see the full look at every node.
        let busy = measure(&mut criterion, &format!("blocked_busy_{REFUSALS}/{nodes}"), || {
            for _ in 0..REFUSALS {
                planner.sync(&log.ledger, [plimsoll_types::NodeId(0)]);
                black_box(planner.place(&log.ledger, black_box(&huge)));
            }
        });
        note("blocked, busy fleet".into(), busy / REFUSALS);
        let blocked = measure(&mut criterion, &format!("blocked/{nodes}"), || {
            black_box(planner.place(&log.ledger, black_box(&huge)));
        });
        note("blocked, quiet fleet".into(), blocked);
    }
    print_table("Placement", &rows);
    criterion.final_summary();
}
