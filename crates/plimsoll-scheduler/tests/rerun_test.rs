//! The past under another policy.

mod fixture;

use std::sync::Arc;

use fixture::{GIB, plain};
use plimsoll_ledger::{Command, PolicyObject, Pool, QueueOrder, Registration, Request};
use plimsoll_scheduler::forecast::{Ask, Course, Fate, PolicyChange, Recorded, rerun};
use plimsoll_types::{LedgerTime, Resources};

const S: u64 = 1_000;

fn node(cores: u64) -> Recorded {
    let capacity = Resources::new(cores * 1_000, cores * 4 * GIB);
    let registration =
        Registration { name: "n1".into(), incarnation: 1, capacity, ..Registration::default() };
    Recorded::Command(Box::new(Command::RegisterNode(registration)))
}

fn ask(cpu_millis: u64, run_ms: u64) -> Recorded {
    let request = Request { ttl_ms: 60_000, ..plain(cpu_millis) };
    let request = Arc::new(request);
    Recorded::Ask(Ask { request, requester: "ada".into(), run_ms: Some(run_ms), gives_up_at: None })
}

/// A large one behind a running one, and a small one behind both.
fn course() -> Course {
    let events = vec![
        (LedgerTime(S), node(8)),
        (LedgerTime(10 * S), ask(6_000, 100 * S)),
        (LedgerTime(20 * S), ask(8_000, 100 * S)),
        (LedgerTime(30 * S), ask(1_000, 10 * S)),
    ];
    Course { events, end: LedgerTime(1_000 * S) }
}

fn waits(fates: &[Fate]) -> Vec<Option<u64>> {
    fates.iter().map(|fate| fate.started.map(|at| (at.0 - fate.submitted.0) / S)).collect()
}

#[test]
fn the_same_policy_gives_the_same_past_and_another_gives_another() {
    let skip = rerun(&course(), &PolicyChange::default(), 0).expect("nothing to refuse");
    assert_eq!(waits(&skip), [Some(0), Some(90), Some(0)], "the small one skips the queue");
    let pool = Pool { name: "default".into(), queue_order: QueueOrder::StrictFifo, ..Pool::default() };
    let strict = PolicyChange { put: vec![PolicyObject::Pool(pool)], ..PolicyChange::default() };
    let strict = rerun(&course(), &strict, 0).expect("it is accepted");
    assert_eq!(waits(&strict), [Some(0), Some(90), Some(180)], "it waits for the one before it");
    let held: Vec<u64> = strict.iter().map(|fate| fate.held_ms / S).collect();
    assert_eq!(held, [100, 100, 10], "each runs as long as it did");
    assert_eq!(strict[1].cpu_milli_ms, 8_000 * 100 * u128::from(S));
}

#[test]
fn who_gave_up_gives_up_again_and_what_never_ended_lasts_to_the_end() {
    let mut course = course();
    if let Recorded::Ask(ask) = &mut course.events[1].1 {
        ask.run_ms = None;
    }
    if let Recorded::Ask(ask) = &mut course.events[2].1 {
        ask.gives_up_at = Some(LedgerTime(60 * S));
    }
    let fates = rerun(&course, &PolicyChange::default(), 0).expect("nothing to refuse");
    assert_eq!(waits(&fates), [Some(0), None, Some(0)]);
    assert_eq!(fates[0].held_ms, 990 * S);
}

#[test]
fn a_policy_that_is_never_accepted_is_an_error() {
    let queue = plimsoll_ledger::Queue {
        name: "a".into(),
        parent: "nobody".into(),
        ..plimsoll_ledger::Queue::default()
    };
    let policy = PolicyChange { put: vec![PolicyObject::Queue(queue)], ..PolicyChange::default() };
    assert!(rerun(&course(), &policy, 0).is_err());
}
