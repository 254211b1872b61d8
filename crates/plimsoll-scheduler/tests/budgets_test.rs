//! Limits and budgets in the planner: grants on their way count, whoever asked for them.

mod fixture;

use fixture::{apply, fleet, plain};
use plimsoll_ledger::{
    Command, Entry, Gang, Ledger, MICRO, Measure, Meter, Outcome, PolicyObject, QuotaPolicy, Reason, Request,
    Reset, Scope, Stamp, Strategy as PoolStrategy, Verdict, Wait,
};
use plimsoll_scheduler::{Planner, explain_request_of};
use plimsoll_types::{LedgerTime, Revision};
use proptest::prelude::*;

const HOUR_MS: u64 = 3_600_000;

/// Four nodes of 16 cores; each user may have two grants at a time, and all together 10 core-hours a day.
fn ledger(strategy: PoolStrategy) -> Ledger {
    let mut ledger = fleet(&[(16, 0, 0); 4], strategy);
    let limits = [
        (Meter::new(Scope::User, Measure::Concurrent, Reset::Live), 2),
        (Meter::new(Scope::Together, Measure::CpuHours, Reset::Day), 10 * MICRO),
    ];
    let quota = QuotaPolicy {
        name: "q".into(),
        limits: limits.into(),
        queue_when_exhausted: true,
        ..QuotaPolicy::default()
    };
    let put = vec![PolicyObject::Quota(quota)];
    let command = Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) };
    assert_eq!(apply(&mut ledger, command), Outcome::Done);
    ledger
}

fn apply_at(ledger: &mut Ledger, now_ms: u64, command: Command) -> Outcome {
    let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: LedgerTime(now_ms) };
    ledger.apply(stamp, &Entry::system(command)).answer.outcome
}

/// One hour of so many cores.
fn hour(cpu_millis: u64) -> Request {
    Request { max_duration_ms: HOUR_MS, ..plain(cpu_millis) }
}

fn reasons(verdict: &Verdict) -> Vec<Reason> {
    match verdict {
        Verdict::Blocked(blockers) => blockers.iter().map(|blocker| blocker.reason).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_on_its_way_counts_for_whoever_asked() {
    for strategy in [PoolStrategy::BestFit, PoolStrategy::Optimized] {
        let ledger = ledger(strategy);
        let mut planner = Planner::new(&ledger, 0);
        let request = hour(1_000);
        let planned = planner.plan_batch_for(&ledger, &[&request; 4], &["ada", "bob", "ada", "ada"]);
        let granted: Vec<bool> =
            planned.iter().map(|(verdict, _)| matches!(verdict, Verdict::Place(_))).collect();
        assert_eq!(granted, [true, true, true, false], "{strategy:?}");
        assert!(reasons(&planned[3].0).contains(&Reason::LimitExceeded));
        // What was lost on its way is free again.
        planner.settle_all(&ledger, planned.into_iter().filter_map(|(_, ticket)| ticket));
        assert!(matches!(planner.place_for(&ledger, &request, "ada"), Verdict::Place(_)));
        assert!(matches!(planner.place_for(&ledger, &hour(11_000), "ada"), Verdict::Blocked(_)));
    }
}

#[test]
fn a_gang_is_as_large_as_the_budget_and_explain_says_what_is_short() {
    let ledger = ledger(PoolStrategy::BestFit);
    let gang = Request { gang: Gang { min_members: 1, max_members: 4, spread: false }, ..hour(4_000) };
    let mut planner = Planner::new(&ledger, 0);
    let Verdict::Place(placement) = planner.place_for(&ledger, &gang, "ada") else { panic!("it fits") };
    assert_eq!(placement.members.len(), 2, "8 of 10 core-hours");
    let explanation = explain_request_of(&ledger, &hour(11_000), "ada");
    let short = explanation.blockers.iter().find(|one| one.reason == Reason::BudgetExhausted).expect("said");
    assert_eq!((short.asked, short.available, short.limit), (11 * MICRO, 10 * MICRO, 10 * MICRO));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// The planner and apply go by one rule: what the one finds in a batch the other takes, all of it.
    #[test]
    fn apply_takes_whatever_the_planner_found(asks in prop::collection::vec((0..3usize, 100..9_000u64, 1..3u32), 1..12)) {
        let mut ledger = ledger(PoolStrategy::BestFit);
        let users = ["ada", "bob", "eve"];
        let requests: Vec<Request> = asks
            .iter()
            .map(|(user, cpu, members)| Request {
                tenant: users[*user].into(),
                gang: Gang { min_members: 1, max_members: *members, spread: false },
                wait: Wait::Queue { deadline_ms: 0 },
                ..hour(*cpu)
            })
            .collect();
        let mut planner = Planner::new(&ledger, 0);
        let all: Vec<&Request> = requests.iter().collect();
        let planned = planner.plan_batch(&ledger, &all);
        for ((verdict, ticket), request) in planned.into_iter().zip(&requests) {
            let placed = matches!(verdict, Verdict::Place(_));
            let outcome = apply(&mut ledger, Command::Submit { request: request.clone(), verdict });
            if placed {
                let granted = matches!(&outcome, Outcome::Reservation(r) if r.state.is_occupying());
                prop_assert!(granted, "{outcome:?}");
            }
            if let Some(ticket) = ticket {
                planner.settle(&ledger, ticket);
            }
        }
        let waiting = ledger.pending_len("default");
        for (reservation, placement, ticket) in planner.plan_queue(&ledger, 100) {
            let outcome = apply(&mut ledger, Command::Place { reservation, placement });
            prop_assert!(matches!(outcome, Outcome::Reservation(_)), "{outcome:?}");
            planner.settle(&ledger, ticket);
        }
        prop_assert!(ledger.pending_len("default") <= waiting);
        prop_assert_eq!(ledger.check_invariants(), Vec::new());
    }
}

#[test]
fn a_budget_that_fades_says_when_it_has_enough_for_who_waits() {
    let mut ledger = fleet(&[(16, 0, 0)], PoolStrategy::BestFit);
    let meter = Meter::new(Scope::User, Measure::CpuHours, Reset::Rolling(HOUR_MS));
    let quota = QuotaPolicy {
        name: "fair".into(),
        limits: [(meter, 8 * MICRO)].into(),
        queue_when_exhausted: true,
        ..QuotaPolicy::default()
    };
    let put = vec![PolicyObject::Quota(quota)];
    apply(&mut ledger, Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
    let mut planner = Planner::new(&ledger, 0);
    let request = Request { tenant: "ada".into(), wait: Wait::Queue { deadline_ms: 0 }, ..hour(8_000) };
    let submit = |ledger: &mut Ledger, planner: &mut Planner| {
        let (verdict, ticket) = planner.plan_batch(ledger, &[&request]).pop().expect("one");
        let outcome = apply(ledger, Command::Submit { request: request.clone(), verdict });
        planner.settle_all(ledger, ticket);
        let Outcome::Reservation(made) = outcome else { panic!("{outcome:?}") };
        made
    };
    let first = submit(&mut ledger, &mut planner);
    let waiting = submit(&mut ledger, &mut planner);
    assert!(waiting.is_waiting());
    planner.note_arrival(&ledger, &waiting);
    // All of it is committed, and nothing of that fades.
    assert_eq!(planner.next_walk_at(), None);
    let begun_ms = first.granted_at.0;
    let release = Command::Release { reservation: first.id, token: first.token };
    apply_at(&mut ledger, begun_ms + HOUR_MS / 2, release);
    planner.sync(&ledger, ledger.nodes().map(|node| node.id).collect::<Vec<_>>());
    assert_eq!(planner.plan_queue(&ledger, 10).len(), 0, "4 of 8 core-hours are used");
    let at = planner.next_walk_at().expect("it fades");
    assert!(at.0 > ledger.clock().0);
    for (moment, starts) in [(at.0 - 1, 0), (at.0, 1)] {
        apply_at(&mut ledger, moment, Command::Expire { limit: 10 });
        assert_eq!(planner.plan_queue(&ledger, 10).len(), starts, "at {moment}, which is {at}");
    }
    assert_eq!(planner.next_walk_at(), None, "it has its place, on its way");
}
