//! One walk over the queue of a full fleet of 1,000 nodes that finds nothing to start: per discipline and number of those that wait; and the start
//! estimates for all of them.
//!
//! `cargo bench -p plimsoll-benches --bench queueing`

use std::hint::black_box;

use plimsoll_benches::{Log, criterion, measure, print_table, request};
use plimsoll_ledger::{Command, PolicyObject, Pool, Request, Strategy, Verdict, Wait};
use plimsoll_scheduler::{Planner, StartEstimates};
use plimsoll_types::{NodeId, Resources, Revision};

/// Nodes of the fleet.
const NODES: u32 = 1_000;
/// Requests that wait.
const WAITING: [u32; 2] = [10_000, 100_000];
/// Shapes among them.
const SHAPES: u64 = 64;

fn main() {
    let mut criterion = criterion();
    let mut rows: Vec<(String, Vec<u64>)> = Vec::new();
    for waiting in WAITING {
        let mut log = full(waiting);
        for (row, queueing) in ["", "skip", "backfill_1", "backfill_all", "learned"].into_iter().enumerate() {
            walk_by(&mut log, queueing);
            let mut planner = Planner::new(&log.ledger, 1);
            let mut node = 0;
            let ns = measure(&mut criterion, &format!("walk/{queueing}/{waiting}"), || {
                // A node is another than before, as after a release.
                node = (node + 1) % NODES;
                planner.sync(&log.ledger, [NodeId(node)]);
                assert!(black_box(planner.plan_queue(&log.ledger, 1_000)).is_empty(), "nothing fits");
            });
            let name = if queueing.is_empty() { "walk, best_effort_fifo" } else { queueing };
            note(&mut rows, row, name, ns);
        }
        let pool = log.ledger.pool("default").expect("it exists").clone();
        let ns = measure(&mut criterion, &format!("estimates/{waiting}"), || {
            black_box(StartEstimates::new(&log.ledger, &pool, &[]));
        });
        note(&mut rows, 5, "estimates of all", ns);
    }
    print_table("Queueing, 10,000 and 100,000 waiting", &rows);
    criterion.final_summary();
}

fn note(rows: &mut Vec<(String, Vec<u64>)>, row: usize, name: &str, ns: u64) {
    match rows.get_mut(row) {
        Some((_, figures)) => figures.push(ns),
        None => rows.push((name.to_owned(), vec![ns])),
    }
}

/// A fleet on which every core is taken for an hour or so, and as many that wait.
fn full(waiting: u32) -> Log {
    let mut log = Log::filled(NODES, Strategy::BestFit);
    let mut planner = Planner::new(&log.ledger, 1);
    let mut filler = lasting(request(7), 3_600_000);
    filler.requirements.amounts = Resources::new(500, 1 << 20);
    loop {
        filler.max_duration_ms += 10;
        let verdict = planner.place(&log.ledger, &filler);
        let Verdict::Place(placement) = &verdict else { break };
        let node = placement.members[0].node;
        log.apply(Command::Submit { request: filler.clone(), verdict });
        planner.sync(&log.ledger, [node]);
    }
    for index in 0..waiting {
        let mut request = lasting(request(7), 60_000 + u64::from(index % 97) * 1_000);
        request.requirements.amounts = Resources::new(1_000 + 100 * (u64::from(index) % SHAPES), 1 << 20);
        request.wait = Wait::Queue { deadline_ms: 0 };
        log.apply(Command::Submit { request, verdict: Verdict::Blocked(vec![]) });
    }
    log
}

fn lasting(request: Request, length_ms: u64) -> Request {
    Request { max_duration_ms: length_ms, ttl_ms: length_ms, ..request }
}

fn walk_by(log: &mut Log, queueing: &str) {
    let queueing = queueing.parse().expect("it is a discipline");
    let pool = Pool { name: "default".into(), queueing, ..Pool::default() };
    let put = vec![PolicyObject::Pool(pool)];
    log.apply(Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
}
