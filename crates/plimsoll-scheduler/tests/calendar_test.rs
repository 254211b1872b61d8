//! The planner proposes nothing that the calendar refuses, and looks again when a window opens or ends.

mod fixture;

use fixture::{apply, fleet, plain};
use plimsoll_ledger::{
    Command, Gang, Ledger, Outcome, PolicyObject, Reason, Request, Schedule, State, Strategy as PoolStrategy,
    Users, Verdict, Wait, Window,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::{LedgerTime, Resources, Revision};
use proptest::prelude::*;

const HOUR_MS: u64 = 3_600_000;

/// Keeps cores of the default pool in these windows for what is named `batch_`.
fn schedule(ledger: &mut Ledger, cpu_millis: u64, shorten: bool, windows: &[(u64, u64)]) {
    let put = vec![PolicyObject::Schedule(Schedule {
        name: "nightly".into(),
        pool: "default".into(),
        resources: Resources::new(cpu_millis, 0),
        rule: "in the words of a test".into(),
        users: Users { pipelines: vec!["batch_*".into()], ..Users::default() },
        shorten,
        ..Schedule::default()
    })];
    assert_eq!(
        apply(ledger, Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) }),
        Outcome::Done
    );
    let changed = ledger.schedule("nightly").expect("just put").changed;
    let windows: Vec<Window> = windows
        .iter()
        .map(|(start, end)| Window { start: LedgerTime(*start), end: LedgerTime(*end) })
        .collect();
    let until = LedgerTime(u64::MAX);
    let command = Command::OpenWindows { schedule: "nightly".into(), changed, windows, until };
    assert_eq!(apply(ledger, command), Outcome::Done);
}

fn for_ms(cpu_millis: u64, max_duration_ms: u64) -> Request {
    Request { max_duration_ms, ..plain(cpu_millis) }
}

#[test]
fn what_is_kept_blocks_with_its_numbers_and_shorter_requests_go_on() {
    let mut ledger = fleet(&[(16, 0, 0)], PoolStrategy::BestFit);
    let now = ledger.clock().0;
    schedule(&mut ledger, 10_000, false, &[(now + HOUR_MS, now + 2 * HOUR_MS)]);
    let mut planner = Planner::new(&ledger, 0);
    planner.tick(&ledger, LedgerTime(now));
    let (long, short) = (for_ms(8_000, 0), for_ms(8_000, HOUR_MS));
    let batch = Request { name: "batch_1".into(), ..long.clone() };
    let Verdict::Blocked(blockers) = planner.place(&ledger, &long) else { panic!("it runs into the window") };
    let kept = blockers.iter().find(|blocker| blocker.reason == Reason::ReservedByCalendar).expect("named");
    assert_eq!((kept.asked, kept.available, kept.limit), (8_000, 6_000, 16_000));
    assert!(matches!(planner.place(&ledger, &short), Verdict::Place(_)));
    assert!(matches!(planner.place(&ledger, &batch), Verdict::Place(_)));
}

#[test]
fn grants_in_flight_count() {
    let mut ledger = fleet(&[(16, 0, 0)], PoolStrategy::BestFit);
    let now = ledger.clock().0;
    schedule(&mut ledger, 10_000, false, &[(now, now + HOUR_MS)]);
    let mut planner = Planner::new(&ledger, 0);
    let four = plain(4_000);
    let verdicts = planner.plan_batch(&ledger, &[&four, &four]);
    assert!(matches!(verdicts[0].0, Verdict::Place(_)));
    assert!(matches!(verdicts[1].0, Verdict::Blocked(_)), "6 are left, of which 4 are on their way");
    planner.settle(&ledger, verdicts[0].1.expect("it was booked"));
    assert!(matches!(planner.place(&ledger, &four), Verdict::Place(_)), "it never came");
}

#[test]
fn a_gang_takes_as_many_members_as_are_left_room_for() {
    let mut ledger = fleet(&[(16, 0, 0)], PoolStrategy::BestFit);
    let now = ledger.clock().0;
    schedule(&mut ledger, 11_000, false, &[(now, now + HOUR_MS)]);
    let mut planner = Planner::new(&ledger, 0);
    let gang = Request { gang: Gang { min_members: 1, max_members: 8, spread: false }, ..plain(1_000) };
    let Verdict::Place(placement) = planner.place(&ledger, &gang) else { panic!("one member fits") };
    assert_eq!(placement.members.len(), 5);
}

#[test]
fn another_walk_over_the_queue_is_wanted_when_a_window_opens_or_ends() {
    let mut ledger = fleet(&[(16, 0, 0)], PoolStrategy::BestFit);
    let now = ledger.clock().0;
    schedule(&mut ledger, 16_000, false, &[(now + 1_000, now + 5_000)]);
    let request = Request { wait: Wait::Queue { deadline_ms: 0 }, ..plain(1_000) };
    apply(&mut ledger, Command::Submit { request, verdict: Verdict::Blocked(vec![]) });
    let mut planner = Planner::new(&ledger, 0);
    planner.tick(&ledger, LedgerTime(now));
    assert!(planner.plan_queue(&ledger, 9).is_empty());
    assert!(!planner.wants_queue_pass());
    planner.tick(&ledger, LedgerTime(now + 999));
    assert!(!planner.wants_queue_pass());
    planner.tick(&ledger, LedgerTime(now + 1_000));
    assert!(planner.wants_queue_pass());
    assert!(planner.plan_queue(&ledger, 9).is_empty(), "it is kept");
    planner.tick(&ledger, LedgerTime(now + 5_000));
    assert!(planner.wants_queue_pass());
    assert_eq!(planner.plan_queue(&ledger, 9).len(), 1);
}

#[test]
fn who_planned_ahead_is_placed_at_the_start_before_those_who_wait() {
    let mut ledger = fleet(&[(16, 0, 0)], PoolStrategy::BestFit);
    let now = ledger.clock().0;
    let critical = Request {
        class: "critical".into(),
        wait: Wait::Queue { deadline_ms: 0 },
        ..for_ms(10_000, 2 * HOUR_MS)
    };
    let later = Request { start_at_ms: now + HOUR_MS, ..for_ms(8_000, HOUR_MS) };
    let mut planner = Planner::new(&ledger, 0);
    let verdicts = planner.plan_batch(&ledger, &[&later]);
    assert_eq!(verdicts[0].0, Verdict::Blocked(vec![]), "nothing is placed for later");
    let Outcome::Reservation(planned) =
        apply(&mut ledger, Command::Submit { request: later, verdict: verdicts[0].0.clone() })
    else {
        panic!("it is planned")
    };
    assert_eq!(planned.state, State::Planned);
    planner.sync_policies(&ledger);
    assert!(matches!(planner.place(&ledger, &critical), Verdict::Blocked(_)));
    apply(&mut ledger, Command::Submit { request: critical, verdict: Verdict::Blocked(vec![]) });
    assert!(planner.plan_queue(&ledger, 9).is_empty());
    planner.tick(&ledger, LedgerTime(now + HOUR_MS));
    assert!(planner.wants_queue_pass());
    let placed = planner.plan_queue(&ledger, 9);
    assert_eq!(placed.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [planned.id]);
}

proptest! {
    #[test]
    fn what_the_planner_proposes_is_what_the_ledger_admits(
        kept in 0u64..40_000,
        shorten in any::<bool>(),
        windows in prop::collection::vec((1u64..50_000, 1u64..50_000), 1..4),
        asks in prop::collection::vec((1u64..9_000, 0u64..4, any::<bool>(), 1u32..4), 1..20),
    ) {
        let mut ledger = fleet(&[(16, 0, 0), (8, 0, 0), (8, 0, 0)], PoolStrategy::BestFit);
        let mut at = ledger.clock().0;
        let windows: Vec<(u64, u64)> = windows
            .into_iter()
            .map(|(gap, length)| {
                let start = at + gap;
                at = start + length;
                (start, at)
            })
            .collect();
        schedule(&mut ledger, kept, shorten, &windows);
        let mut planner = Planner::new(&ledger, 0);
        let requests: Vec<Request> = asks
            .into_iter()
            .map(|(cpu, length, batch, members)| Request {
                name: if batch { "batch_1".into() } else { "one".into() },
                gang: Gang { min_members: members, max_members: members + 1, spread: false },
                ..for_ms(cpu, length * 20_000)
            })
            .collect();
        let requests: Vec<&Request> = requests.iter().collect();
        for (request, (verdict, ticket)) in requests.iter().zip(planner.plan_batch(&ledger, &requests)) {
            if let Verdict::Place(_) = verdict {
                let command = Command::Submit { request: Request::clone(request), verdict };
                let outcome = apply(&mut ledger, command);
                prop_assert!(matches!(outcome, Outcome::Reservation(_)), "{outcome:?}");
            }
            if let Some(ticket) = ticket {
                planner.settle(&ledger, ticket);
            }
        }
        prop_assert_eq!(ledger.check_invariants(), Vec::new());
    }
}
