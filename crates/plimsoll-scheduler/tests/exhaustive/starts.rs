//! Planned starts: the one that waits alone starts at the first moment at which enough has left for it, found by trying all moments
//! (`docs/semantics.md`, 5.6; `docs/scheduling.md`, planned starts).

use std::collections::BTreeSet;

use plimsoll_ledger::{
    Command, Ledger, Outcome, PolicyObject, Pool, Request, Reservation, State, Topology, Verdict, Wait,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::{LedgerTime, ReservationId};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::cases::{Setup, Step, change, ledger_of, story};
use super::scene::Scene;
use crate::fixture::apply;
use crate::fixture::bounded::{HOUR_MS, put_all};

/// By when a grant that declared a length has left; the slack of its lease is with it.
fn leaves_by(one: &Reservation) -> Option<LedgerTime> {
    (one.hard_end.0 > 0).then(|| one.hard_end.plus_ms(one.ttl_ms / 10 + 1_000))
}

/// The first moment at which there is a place, as those leave who said when; `None` where there never is by that.
fn first_start(scene: &Scene<'_>, request: &Request) -> Option<LedgerTime> {
    let moments: BTreeSet<LedgerTime> = scene.held.iter().filter_map(|one| leaves_by(one)).collect();
    moments.into_iter().find(|at| {
        let gone = scene.held.iter().filter(|one| leaves_by(one).is_some_and(|by| by <= *at));
        let gone: BTreeSet<ReservationId> = gone.map(|one| one.id).collect();
        scene.without(&gone).any_place(request).is_some()
    })
}

/// Of no queue and bound to nothing: planned starts reckon with nodes, devices and countables.
fn loose(request: &Request, hours: u64) -> Request {
    Request {
        topology: Topology::default(),
        affinity: Vec::new(),
        labels: plimsoll_types::Labels::new(),
        queue: String::new(),
        max_duration_ms: hours * HOUR_MS,
        wait: Wait::Queue { deadline_ms: 0 },
        ..request.clone()
    }
}

fn planning(setup: &Setup) -> Ledger {
    let mut ledger = ledger_of(setup);
    let plans = |name: &str| {
        let pool = Pool::clone(ledger.pool(name).expect("it is there"));
        PolicyObject::Pool(Pool { queueing: "backfill_1".parse().expect("a discipline"), ..pool })
    };
    let put = vec![plans("default"), plans("other")];
    assert_eq!(put_all(&mut ledger, put), Outcome::Done);
    ledger
}

/// One that waited alone: when its start was planned, and when it could be.
struct Waited {
    request: Request,
    planned: Option<LedgerTime>,
    first: Option<LedgerTime>,
}

/// All who found no place, one after the other: each goes before the next one comes.
fn all_who_wait(setup: &Setup, steps: &[Step], hours: &[u64]) -> Vec<Waited> {
    let mut ledger = planning(setup);
    let mut hours = hours.iter().copied().cycle();
    let mut all = Vec::new();
    for step in steps {
        let Step::Ask(requests) = step else {
            change(&mut ledger, step);
            continue;
        };
        for request in requests {
            let request = loose(request, hours.next().unwrap_or_default());
            let (verdict, _) = Planner::new(&ledger, 7).plan_batch(&ledger, &[&request]).remove(0);
            if matches!(verdict, Verdict::Infeasible(_)) {
                continue;
            }
            let came = apply(&mut ledger, Command::Submit { request: request.clone(), verdict });
            let Outcome::Reservation(made) = came else { continue };
            if made.state != State::Pending {
                continue;
            }
            let mut planner = Planner::new(&ledger, 7);
            assert!(planner.plan_queue(&ledger, 10).is_empty(), "it was told that there is no place");
            let planned = planner.planned_starts().find(|one| one.reservation == made.id);
            let first = first_start(&Scene::of(&ledger), &made.request);
            all.push(Waited { request, planned: planned.map(|one| one.start_at), first });
            apply(&mut ledger, Command::Cancel { reservation: made.id });
        }
    }
    all
}

fn lengths() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0u64..6, 48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_waits_alone_is_planned_for_the_first_moment_that_there_is((setup, steps) in story(), hours in lengths()) {
        for waited in all_who_wait(&setup, &steps, &hours) {
            prop_assert_eq!(waited.planned, waited.first, "for {:?}", waited.request);
        }
    }
}

#[test]
fn some_have_a_start_and_some_wait_for_who_says_no_end() {
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (mut planned, mut endless, mut of_gangs) = (0, 0, 0);
    for _ in 0..600 {
        let case = (story(), lengths()).new_tree(&mut runner).expect("there are cases").current();
        let ((setup, steps), hours) = case;
        for waited in all_who_wait(&setup, &steps, &hours) {
            planned += usize::from(waited.planned.is_some());
            endless += usize::from(waited.planned.is_none());
            of_gangs += usize::from(waited.planned.is_some() && waited.request.gang.min_members > 1);
        }
    }
    println!("planned {planned}, {of_gangs} of gangs; never {endless}");
    // About half of what there is.
    assert!(planned >= 190 && of_gangs >= 27 && endless >= 60);
}
