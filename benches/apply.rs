//! What applying costs a command, admission included: a grant and its release at the places that the planner finds, on
//! fleets that are 70 % full (seven live reservations a node).
//!
//! `cargo bench -p plimsoll-benches --bench apply`

use std::hint::black_box;

use plimsoll_benches::{Log, SIZES, criterion, first_node, granted, measure, print_table, request};
use plimsoll_ledger::{Command, Entry, Placement, Request, Strategy, Verdict};
use plimsoll_scheduler::Planner;

/// Prepared grants that take turns, so that nodes far apart are touched.
const PLACES: usize = 512;

fn main() {
    let mut criterion = criterion();
    let mut rows: Vec<(String, Vec<u64>)> = Vec::new();
    let mut note = |name: &str, ns: u64| match rows.iter_mut().find(|(known, _)| known == name) {
        Some((_, figures)) => figures.push(ns),
        None => rows.push((name.to_owned(), vec![ns])),
    };
    for nodes in SIZES {
        let mut log = Log::filled(nodes, Strategy::Random);
        let mut planner = Planner::new(&log.ledger, 2);
        let places: Vec<(Request, Placement)> = (0..PLACES as u32)
            .filter_map(|index| {
                let request = request(index);
                match planner.place(&log.ledger, &request) {
                    Verdict::Place(placement) => Some((request, placement)),
                    Verdict::Blocked(_) | Verdict::Infeasible(_) => None,
                }
            })
            .collect();
        assert!(places.len() > PLACES / 2, "the fleet is too full to measure grants");
        let submits: Vec<Entry> = places
            .iter()
            .map(|(request, placement)| {
                let verdict = Verdict::Place(placement.clone());
                Entry::system(Command::Submit { request: request.clone(), verdict })
            })
            .collect();

        let mut turn = 0;
        let admit = measure(&mut criterion, &format!("admit/{nodes}"), || {
            turn = (turn + 1) % places.len();
            let (request, placement) = &places[turn];
            black_box(log.ledger.admit(request, placement)).expect("it fits");
        });
        note("admit", admit);
        let pair = measure(&mut criterion, &format!("submit_release/{nodes}"), || {
            turn = (turn + 1) % submits.len();
            let grant = granted(log.apply_entry(&submits[turn]));
            granted(log.apply(Command::Release { reservation: grant.id, token: grant.token }));
            log.ledger.clear_touched();
        });
        note("submit + release, a command", pair / 2);
        let grant = granted(log.apply_entry(&submits[0]));
        let renew = measure(&mut criterion, &format!("renew/{nodes}"), || {
            let (reservation, token) = (grant.id, grant.token);
            granted(log.apply(Command::Renew { reservation, token, ttl_ms: 3_600_000_000 }));
            log.ledger.clear_touched();
        });
        note("renew", renew);
        log.apply(Command::Release { reservation: grant.id, token: grant.token });
        let mut planner = Planner::new(&log.ledger, 2);
        let whole = measure(&mut criterion, &format!("place_submit_release/{nodes}"), || {
            turn = (turn + 1) % places.len();
            let request = &places[turn].0;
            let (verdict, ticket) = planner.plan_batch(&log.ledger, &[request]).remove(0);
            let node = first_node(&verdict).expect("it fits");
            let grant = granted(log.apply(Command::Submit { request: request.clone(), verdict }));
            planner.settle(&log.ledger, ticket.expect("it is booked"));
            log.apply(Command::Release { reservation: grant.id, token: grant.token });
            planner.sync(&log.ledger, [node]);
            log.ledger.clear_touched();
        });
        note("plan, submit, settle, release", whole);
    }
    print_table("Apply and admit", &rows);
    criterion.final_summary();
}
