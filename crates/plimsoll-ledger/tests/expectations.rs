//! What queues may expect of their trees.

mod fixture;

use std::collections::BTreeMap;

use fixture::{Fixture, active, on, queued, request, reservation};
use plimsoll_ledger::{
    Command, LATEST_VERSION, Outcome, PolicyObject, Queue, Quota, Request, State, Verdict,
};
use plimsoll_types::{Amount, Revision};

/// Queues by name, parent, weight and cores of their own.
fn world(queues: &[(&str, &str, u32, u64)]) -> Fixture {
    let mut f = Fixture::new(4);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let put = queues.iter().map(|(name, parent, weight, cores)| {
        let quota = Quota { nominal: Amount(cores * 1_000), ..Quota::default() };
        let quotas = [("default".to_owned(), [("cpu".to_owned(), quota)].into())].into();
        let (name, parent, weight_milli) = ((*name).into(), (*parent).into(), weight * 1_000);
        PolicyObject::Queue(Queue { name, parent, weight_milli, quotas, ..Queue::default() })
    });
    let command = Command::ApplyPolicy { put: put.collect(), delete: vec![], if_revision: Revision(0) };
    assert_eq!(f.run(command), Outcome::Done);
    f
}

fn waits(f: &mut Fixture, queue: &str, cores: u64) {
    let request = Request { queue: queue.into(), ..queued(request(cores * 1_000)) };
    f.run(Command::Submit { request, verdict: Verdict::Blocked(vec![]) });
}

fn holds(f: &mut Fixture, queue: &str, cores: u64, node: u32) {
    let request = Request { queue: queue.into(), ..active(request(cores * 1_000)) };
    let came = f.run(Command::Submit { request, verdict: Verdict::Place(on(&[node])) });
    assert_eq!(reservation(came).state, State::Active);
}

/// In cores, by queue.
fn expected(f: &Fixture) -> BTreeMap<String, u64> {
    let all = f.ledger.expectations();
    all.into_iter().map(|((queue, _, _), millis)| (queue, millis / 1_000)).collect()
}

fn of(cores: &[(&str, u64)]) -> BTreeMap<String, u64> {
    cores.iter().map(|(queue, cores)| ((*queue).to_owned(), *cores)).collect()
}

#[test]
fn each_has_its_own_as_far_as_it_wants_it_and_the_rest_goes_by_weight() {
    let mut f = world(&[("org", "", 1, 6), ("vision", "org", 1, 2), ("speech", "org", 2, 4)]);
    assert_eq!(expected(&f), of(&[("org", 0), ("vision", 0), ("speech", 0)]));
    waits(&mut f, "vision", 20);
    assert_eq!(expected(&f), of(&[("org", 12), ("vision", 12), ("speech", 0)]), "nobody else wants any");
    holds(&mut f, "speech", 1, 0);
    assert_eq!(expected(&f), of(&[("org", 12), ("vision", 11), ("speech", 1)]));
    waits(&mut f, "speech", 30);
    // Two and four of their own; of the six of org one part and two.
    assert_eq!(expected(&f), of(&[("org", 12), ("vision", 4), ("speech", 8)]));
}

#[test]
fn what_an_inner_queue_is_dealt_it_deals_to_itself_and_those_below() {
    let queues = [
        ("org", "", 1, 0),
        ("lab", "org", 1, 4),
        ("ada", "lab", 1, 0),
        ("grace", "lab", 3, 0),
        ("ops", "org", 1, 4),
    ];
    let mut f = world(&queues);
    for queue in ["ada", "grace", "ops"] {
        waits(&mut f, queue, 16);
    }
    assert_eq!(expected(&f), of(&[("org", 8), ("lab", 4), ("ada", 1), ("grace", 3), ("ops", 4)]));
    waits(&mut f, "lab", 16);
    // The four cores of lab are its own, and it wants them.
    assert_eq!(expected(&f), of(&[("org", 8), ("lab", 4), ("ada", 0), ("grace", 0), ("ops", 4)]));
}
