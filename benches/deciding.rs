//! What one decision costs while others wait: a request planned, booked and given back on fleets that are 70 % full, with nobody, 10,000 and 100,000
//! waiting for whole nodes; and how long 100,000 that wait in 1,000 queues take to be let in.
//!
//! `cargo bench -p plimsoll-benches --bench deciding`

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use criterion::Criterion;
use plimsoll_benches::{Log, SIZES, criterion, first_node, labelled_request, measure, print_table, request};
use plimsoll_ledger::{
    Command, Fairness, PolicyObject, Pool, Queue, Quota, Request, Strategy, Verdict, Wait,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::{Amount, Resources, Revision};

/// Requests that wait.
const WAITING: [u32; 3] = [0, 10_000, 100_000];
/// Queues of the second part: under each of ten, a hundred.
const PARENTS: u32 = 10;
const QUEUES: u32 = 1_000;
/// Most places of one walk, as in the leader's rounds.
const PLACES: usize = 4_096;
/// What the exponent of a decision's cost in nodes should stay below.
const MOST_EXPONENT: f64 = 0.3;

fn main() {
    let mut criterion = criterion();
    decisions(&mut criterion);
    admissions();
    criterion.final_summary();
}

/// Per discipline and number of those that wait, for each fleet.
fn decisions(criterion: &mut Criterion) {
    let mut rows: Vec<(String, Vec<u64>)> = Vec::new();
    for nodes in SIZES {
        let mut log = Log::filled(nodes, Strategy::BestFit);
        let huge = huge();
        take_whole_nodes(&mut log, &huge);
        let mut there = 0;
        for waiting in WAITING {
            for _ in there..waiting {
                log.apply(Command::Submit { request: huge.clone(), verdict: Verdict::Blocked(vec![]) });
            }
            log.ledger.clear_touched();
            there = waiting;
            for queueing in ["", "backfill_1"] {
                let name = if queueing.is_empty() { "best_effort_fifo" } else { queueing };
                let ns = decision(criterion, &mut log, queueing, &format!("decide/{name}/{waiting}/{nodes}"));
                let row = format!("{name}, {waiting} waiting");
                match rows.iter_mut().find(|(known, _)| *known == row) {
                    Some((_, figures)) => figures.push(ns),
                    None => rows.push((row, vec![ns])),
                }
            }
        }
    }
    print_table("One request planned, booked and given back", &rows);
    println!("aim: an exponent of at most {MOST_EXPONENT}");
}

/// The median of a decision in nanoseconds.
fn decision(criterion: &mut Criterion, log: &mut Log, queueing: &str, name: &str) -> u64 {
    let queueing = queueing.parse().expect("it is a discipline");
    put(log, vec![PolicyObject::Pool(Pool { name: "default".into(), queueing, ..Pool::default() })]);
    let mut planner = Planner::new(&log.ledger, 1);
    // The walk that a leader has behind it when the request comes.
    planner.tick(&log.ledger, log.ledger.clock());
    planner.plan_queue(&log.ledger, PLACES);
    let asked = Request { max_duration_ms: 60_000, ttl_ms: 60_000, ..labelled_request() };
    measure(criterion, name, || {
        for (verdict, ticket) in planner.plan_batch(&log.ledger, &[black_box(&asked)]) {
            assert!(first_node(&verdict).is_some(), "it fits: {verdict:?}");
            planner.settle(&log.ledger, ticket.expect("it is booked"));
        }
    })
}

/// A whole node for an hour.
fn huge() -> Request {
    let mut huge = request(4);
    huge.requirements.amounts = Resources::new(64_000, 256 << 30);
    Request { max_duration_ms: 3_600_000, ttl_ms: 3_600_000, wait: Wait::Queue { deadline_ms: 0 }, ..huge }
}

/// Nodes with nobody on them go first, so that whoever wants one has to wait.
fn take_whole_nodes(log: &mut Log, huge: &Request) {
    let mut planner = Planner::new(&log.ledger, 1);
    loop {
        let verdict = planner.place(&log.ledger, huge);
        let Some(node) = first_node(&verdict) else { return };
        log.apply(Command::Submit { request: huge.clone(), verdict });
        planner.sync(&log.ledger, [node]);
    }
}

/// All that wait are let in, walk after walk, places applied: one run for each way to say whose turn it is.
fn admissions() {
    let waiting = WAITING[WAITING.len() - 1];
    println!("\n{waiting} that wait in {QUEUES} queues are let in on {} empty nodes, one run each", SIZES[0]);
    println!("{:<12}{:>10}{:>8}{:>16}{:>20}", "fairness", "seconds", "walks", "ns a grant", "of it planning");
    for (name, fairness) in
        [("priority", Fairness::Priority), ("quota", Fairness::Quota), ("weighted", Fairness::Weighted)]
    {
        let mut log = queued(waiting, fairness);
        let mut planner = Planner::new(&log.ledger, 1);
        let (begun, mut planning, mut walks, mut granted) = (Instant::now(), 0, 0, 0u64);
        loop {
            let walk = Instant::now();
            let placed = planner.plan_queue(&log.ledger, PLACES);
            planning += walk.elapsed().as_nanos();
            if placed.is_empty() {
                break;
            }
            walks += 1;
            granted += placed.len() as u64;
            let mut tickets = Vec::new();
            for (reservation, placement, ticket) in placed {
                log.apply(Command::Place { reservation, placement });
                tickets.push(ticket);
            }
            log.ledger.clear_touched();
            let settling = Instant::now();
            planner.settle_all(&log.ledger, tickets);
            planning += settling.elapsed().as_nanos();
        }
        assert_eq!(granted, u64::from(waiting), "all of them fit");
        let elapsed = begun.elapsed();
        let each = |ns: u128| ns / u128::from(granted.max(1));
        println!(
            "{name:<12}{:>10.2}{walks:>8}{:>16}{:>20}",
            elapsed.as_secs_f64(),
            each(elapsed.as_nanos()),
            each(planning)
        );
    }
}

/// An empty fleet, a tree of queues that own all of it, and requests of half a core that wait in them in turn.
fn queued(waiting: u32, fairness: Fairness) -> Log {
    let mut log = Log::empty(SIZES[0]);
    let pool = Pool { name: "default".into(), fairness, ..Pool::default() };
    let quota = |millis: u64| {
        let cpu = Quota { nominal: Amount(millis), ..Quota::default() };
        BTreeMap::from([("default".to_owned(), BTreeMap::from([("cpu".to_owned(), cpu)]))])
    };
    let parent = |index: u32| Queue { name: format!("org-{index}"), ..Queue::default() };
    let queue = |index: u32| Queue {
        name: format!("team-{index}"),
        parent: format!("org-{}", index % PARENTS),
        quotas: quota(64_000 * u64::from(SIZES[0]) / u64::from(QUEUES)),
        ..Queue::default()
    };
    let queues = (0..PARENTS).map(parent).chain((0..QUEUES).map(queue)).map(PolicyObject::Queue);
    put(&mut log, [PolicyObject::Pool(pool)].into_iter().chain(queues).collect());
    for index in 0..waiting {
        let mut asked = request(4);
        asked.requirements.amounts = Resources::new(500, 1 << 30);
        asked.queue = format!("team-{}", index % QUEUES);
        asked.wait = Wait::Queue { deadline_ms: 0 };
        log.apply(Command::Submit { request: asked, verdict: Verdict::Blocked(vec![]) });
    }
    log.ledger.clear_touched();
    log
}

fn put(log: &mut Log, put: Vec<PolicyObject>) {
    let answer = log.apply(Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
    assert_eq!(answer.outcome, plimsoll_ledger::Outcome::Done);
}
