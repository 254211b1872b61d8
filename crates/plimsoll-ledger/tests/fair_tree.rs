//! Use over time: what queues held, each moment counting half after the pool's half-life. From ledger version 13 on.

mod fixture;

use fixture::{Fixture, GIB, active, on, request};
use plimsoll_ledger::limits::MAX_TTL_MS;
use plimsoll_ledger::{
    Command, Fairness, LATEST_VERSION, Ledger, Outcome, PolicyName, PolicyObject, Pool, Queue, Reason,
    Request, Row, USUAL_HALF_LIFE_MS,
};
use plimsoll_types::Revision;
use proptest::prelude::*;

const HOUR_MS: u64 = 3_600_000;

fn put(put: Vec<PolicyObject>) -> Command {
    Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) }
}

fn pool(fairness: Fairness, half_life_ms: u64) -> PolicyObject {
    PolicyObject::Pool(Pool { name: "default".into(), fairness, half_life_ms, ..Pool::default() })
}

fn queue(name: &str, parent: &str) -> PolicyObject {
    PolicyObject::Queue(Queue { name: name.into(), parent: parent.into(), ..Queue::default() })
}

/// Two nodes of 8 cores, and queues a and b below org, in a pool with a half-life of an hour.
fn org() -> Fixture {
    let mut f = Fixture::new(2);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let policy =
        vec![pool(Fairness::FairTree, HOUR_MS), queue("org", ""), queue("a", "org"), queue("b", "org")];
    assert_eq!(f.run(put(policy)), Outcome::Done);
    f
}

/// Takes cores of a node for longer than any test.
fn take(f: &mut Fixture, queue: &str, cpu_millis: u64, node: u32) -> Command {
    let granted = f.submit(
        Request { queue: queue.into(), ttl_ms: MAX_TTL_MS, ..active(request(cpu_millis)) },
        on(&[node]),
    );
    Command::Release { reservation: granted.id, token: granted.token }
}

fn average(f: &Fixture, queue: &str) -> u64 {
    f.ledger.average_use(queue, "default").get("cpu").0
}

fn uses(ledger: &Ledger) -> Vec<(String, u64)> {
    let row = |row| match row {
        Row::QueueUse(row) => Some((row.queue.clone(), row.stamp.0)),
        _ => None,
    };
    ledger.rows().filter_map(|(_, kept)| row(kept)).collect()
}

/// Lets ledger time pass.
fn pass(f: &mut Fixture, ms: u64) {
    f.now_ms += ms;
    f.run(Command::Expire { limit: 0 });
}

#[test]
fn before_version_13_no_pool_counts_use_over_time() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 12 });
    for policy in [pool(Fairness::FairTree, 0), pool(Fairness::Fair, HOUR_MS)] {
        assert!(plimsoll_ledger::Command::since_version(&put(vec![policy.clone()])) == 13);
        assert_eq!(f.refused(put(vec![policy])), Reason::UnsupportedVersion);
    }
    f.run(Command::Upgrade { to: 13 });
    assert_eq!(f.refused(put(vec![pool(Fairness::FairTree, 59_999)])), Reason::InvalidArgument);
    assert_eq!(f.run(put(vec![pool(Fairness::FairTree, 0)])), Outcome::Done);
    assert_eq!(f.ledger.pool("default").and_then(|pool| pool.fades_in_ms()), Some(USUAL_HALF_LIFE_MS));
}

#[test]
fn what_is_held_counts_as_it_is_held_and_half_of_it_a_half_life_later() {
    let mut f = org();
    let release = take(&mut f, "a", 4_000, 0);
    assert_eq!((average(&f, "a"), average(&f, "b")), (0, 0));
    pass(&mut f, HOUR_MS);
    assert!((1_998..=2_000).contains(&average(&f, "a")), "half of 4 cores: {}", average(&f, "a"));
    pass(&mut f, 20 * HOUR_MS);
    assert!((3_998..=4_000).contains(&average(&f, "a")), "held for ever: {}", average(&f, "a"));
    assert_eq!(f.ledger.average_use("a", "default").get("memory").0.div_ceil(1 << 20), GIB >> 20);
    f.run(release);
    let whole = average(&f, "a");
    pass(&mut f, HOUR_MS);
    assert!(average(&f, "a").abs_diff(whole / 2) <= 1, "{} of {whole}", average(&f, "a"));
    // Nothing is written while nothing changes: the row is as of the release.
    assert_eq!(uses(&f.ledger), [("a".to_owned(), f.now_ms - HOUR_MS)]);
}

#[test]
fn a_pool_counts_from_when_it_is_told_and_forgets_when_it_no_longer_is() {
    let mut f = org();
    f.run(put(vec![pool(Fairness::Fair, 0)]));
    take(&mut f, "a", 4_000, 0);
    pass(&mut f, 5 * HOUR_MS);
    assert_eq!(uses(&f.ledger), []);
    f.run(put(vec![pool(Fairness::FairTree, HOUR_MS)]));
    assert_eq!(uses(&f.ledger), [("a".to_owned(), f.now_ms)]);
    pass(&mut f, HOUR_MS);
    let then = average(&f, "a");
    assert!((1_998..=2_000).contains(&then), "{then}");
    // With another half-life what was until now stays; the mean goes by the new one.
    f.run(put(vec![pool(Fairness::FairTree, 2 * HOUR_MS)]));
    assert_eq!(average(&f, "a"), then / 2);
    f.run(put(vec![pool(Fairness::Fair, 0)]));
    assert_eq!((uses(&f.ledger), average(&f, "a")), (vec![], 0));
}

#[test]
fn a_queue_that_goes_takes_its_past_with_it() {
    let mut f = org();
    let release = take(&mut f, "a", 4_000, 0);
    pass(&mut f, HOUR_MS);
    f.run(release);
    assert_eq!(uses(&f.ledger).len(), 1);
    let delete = vec![PolicyName::Queue("a".into())];
    // Who has ended lately is still known, and holds nothing.
    let gone = f.run(Command::ApplyPolicy { put: vec![], delete, if_revision: Revision(0) });
    assert_eq!((gone, uses(&f.ledger)), (Outcome::Done, vec![]));
}

#[derive(Clone, Debug)]
enum Step {
    Take { queue: bool, cores: u64, node: u32 },
    Release(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<bool>(), 1..4u64, 0..2u32).prop_map(|(queue, cores, node)| Step::Take { queue, cores, node }),
        any::<usize>().prop_map(Step::Release),
        (1..5 * HOUR_MS).prop_map(Step::Pass),
        Just(Step::Pass(1)),
    ]
}

proptest! {
    /// Against the integral in floating point, over all that was ever held.
    #[test]
    fn it_is_the_faded_integral_of_what_was_held(steps in prop::collection::vec(step(), 1..40)) {
        let mut f = org();
        let mut live: Vec<(usize, Command)> = Vec::new();
        // Queue, millis, from, until.
        let mut held: Vec<(&str, u64, u64, Option<u64>)> = Vec::new();
        for step in steps {
            match step {
                Step::Take { queue, cores, node } => {
                    let queue = if queue { "a" } else { "b" };
                    let free = 8_000 - f.ledger.usage(plimsoll_types::NodeId(node)).unwrap().used.get("cpu").0;
                    if cores * 1_000 <= free {
                        live.push((held.len(), take(&mut f, queue, cores * 1_000, node)));
                        held.push((queue, cores * 1_000, f.now_ms, None));
                    }
                }
                Step::Release(which) if !live.is_empty() => {
                    let (index, release) = live.remove(which % live.len());
                    f.run(release);
                    held[index].3 = Some(f.now_ms);
                }
                Step::Release(_) => {}
                Step::Pass(ms) => pass(&mut f, ms),
            }
            for queue in ["a", "b"] {
                let faded = |at: u64| 0.5_f64.powf((f.now_ms - at) as f64 / HOUR_MS as f64);
                let of = held.iter().filter(|(of, ..)| *of == queue);
                let exact: f64 = of
                    .map(|(_, millis, from, until)| *millis as f64 * (faded(until.unwrap_or(f.now_ms)) - faded(*from)))
                    .sum();
                let ours = average(&f, queue) as f64;
                prop_assert!((ours - exact).abs() <= exact * 1e-4 + 3.0, "{queue}: {ours} and {exact}");
            }
        }
    }
}
