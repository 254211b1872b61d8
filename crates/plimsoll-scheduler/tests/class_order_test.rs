//! Classes that share a pool by their weights, and classes that do not.

mod fixture;

use std::collections::BTreeMap;

use fixture::{apply, fleet, plain, put_pool};
use plimsoll_ledger::{
    Class, ClassOrder, Command, Fairness, Ledger, Outcome, PolicyObject, Pool, Queue, QueueOrder, Quota,
    Request, State, Strategy as PoolStrategy, Verdict, Wait,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::{Amount, ReservationId, Revision};
use proptest::prelude::*;

/// One node of so many cores.
fn world(cores: u64, pool: Pool, weights: &[(&str, i32, u32)]) -> Ledger {
    let mut ledger = fleet(&[(cores, 0, 0)], PoolStrategy::BestFit);
    put_pool(&mut ledger, Pool { name: "default".into(), ..pool });
    let class = |(name, priority, weight): &(&str, i32, u32)| {
        let (name, weight_milli) = ((*name).into(), Some(weight * 1_000));
        PolicyObject::Class(Class { name, priority: *priority, weight_milli, ..Class::default() })
    };
    put(&mut ledger, weights.iter().map(class).collect());
    ledger
}

fn put(ledger: &mut Ledger, put: Vec<PolicyObject>) {
    let command = Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) };
    assert_eq!(apply(ledger, command), Outcome::Done);
}

fn weighted() -> Pool {
    Pool { class_order: ClassOrder::Weighted, ..Pool::default() }
}

fn asks(class: &str, queue: &str, cores: u64) -> Request {
    Request {
        class: class.into(),
        queue: queue.into(),
        wait: Wait::Queue { deadline_ms: 0 },
        auto_confirm: true,
        ..plain(cores * 1_000)
    }
}

/// It waits, whatever room there is.
fn wait(ledger: &mut Ledger, request: Request) -> ReservationId {
    let came = apply(ledger, Command::Submit { request, verdict: Verdict::Blocked(vec![]) });
    let Outcome::Reservation(reservation) = came else { panic!("{came:?}") };
    reservation.id
}

/// One walk over the queue: who was placed, in order.
fn walk(ledger: &mut Ledger) -> Vec<ReservationId> {
    let mut placed = Vec::new();
    for (reservation, placement, _) in Planner::new(ledger, 0).plan_queue(ledger, usize::MAX) {
        let came = apply(ledger, Command::Place { reservation, placement });
        assert!(matches!(came, Outcome::Reservation(_)), "{came:?}");
        placed.push(reservation);
    }
    placed
}

fn holding(ledger: &Ledger) -> BTreeMap<String, u64> {
    let mut cores = BTreeMap::new();
    for one in ledger.reservations().filter(|one| one.state.is_occupying()) {
        *cores.entry(one.request.class.clone()).or_default() += one.amounts.cpu_millis.0 / 1_000;
    }
    cores
}

#[test]
fn by_priority_the_higher_class_has_everything_and_by_weight_each_has_its_part() {
    let classes = [("gold", 100, 3), ("silver", 50, 2), ("bronze", 10, 1)];
    for (pool, expected) in
        [(Pool::default(), vec![("gold", 12)]), (weighted(), vec![("bronze", 2), ("gold", 6), ("silver", 4)])]
    {
        let mut ledger = world(12, pool, &classes);
        for _ in 0..12 {
            for class in ["bronze", "silver", "gold"] {
                wait(&mut ledger, asks(class, "", 1));
            }
        }
        assert_eq!(walk(&mut ledger).len(), 12);
        let expected: BTreeMap<String, u64> =
            expected.into_iter().map(|(class, cores)| (class.to_owned(), cores)).collect();
        assert_eq!(holding(&ledger), expected);
    }
}

#[test]
fn what_is_held_already_counts_and_what_ends_goes_to_whom_it_is_owed() {
    let mut ledger = world(4, weighted(), &[("gold", 100, 1), ("bronze", 10, 1)]);
    let golden: Vec<ReservationId> = (0..6).map(|_| wait(&mut ledger, asks("gold", "", 1))).collect();
    assert_eq!(walk(&mut ledger), golden[..4], "nobody else wanted any");
    let bronze: Vec<ReservationId> = (0..6).map(|_| wait(&mut ledger, asks("bronze", "", 1))).collect();
    let release = |ledger: &mut Ledger, id: ReservationId| {
        let token = ledger.reservation(id).expect("it runs").token;
        apply(ledger, Command::Release { reservation: id, token });
    };
    for (ended, next) in [(golden[0], bronze[0]), (golden[1], bronze[1]), (golden[2], golden[4])] {
        release(&mut ledger, ended);
        assert_eq!(walk(&mut ledger), [next]);
    }
    release(&mut ledger, bronze[0]);
    assert_eq!(walk(&mut ledger), [bronze[2]], "two each");
}

#[test]
fn a_class_without_weight_has_what_nobody_else_wants() {
    let mut ledger = world(4, weighted(), &[("gold", 100, 0), ("bronze", 10, 1)]);
    let gold: Vec<ReservationId> = (0..3).map(|_| wait(&mut ledger, asks("gold", "", 1))).collect();
    let bronze: Vec<ReservationId> = (0..2).map(|_| wait(&mut ledger, asks("bronze", "", 1))).collect();
    assert_eq!(walk(&mut ledger), [bronze[0], bronze[1], gold[0], gold[1]]);
}

#[test]
fn in_a_strict_pool_the_class_whose_turn_it_is_holds_back_the_others() {
    let strict = Pool { queue_order: QueueOrder::StrictFifo, ..weighted() };
    let mut ledger = world(4, strict, &[("gold", 100, 1), ("bronze", 10, 1)]);
    let gold: Vec<ReservationId> = (0..4).map(|_| wait(&mut ledger, asks("gold", "", 1))).collect();
    let large = wait(&mut ledger, asks("bronze", "", 4));
    // One is held, and then another: with four cores bronze would have more.
    assert_eq!(walk(&mut ledger), gold[..]);
    assert_eq!(ledger.reservation(large).expect("it waits").state, State::Pending);
    let later = wait(&mut ledger, asks("gold", "", 1));
    let token = ledger.reservation(gold[0]).expect("it runs").token;
    apply(&mut ledger, Command::Release { reservation: gold[0], token });
    assert_eq!(walk(&mut ledger), [later], "four of four and four of four: the higher class");
    let token = ledger.reservation(gold[1]).expect("it runs").token;
    apply(&mut ledger, Command::Release { reservation: gold[1], token });
    let last = [wait(&mut ledger, asks("gold", "", 2)), wait(&mut ledger, asks("bronze", "", 1))];
    assert_eq!(
        walk(&mut ledger),
        [],
        "with two more gold has five: it is the turn of {large}, and {last:?} wait"
    );
}

#[test]
fn each_queue_serves_its_classes_by_weight() {
    let fair = Pool { fairness: Fairness::Fair, ..weighted() };
    let mut ledger = world(8, fair, &[("gold", 100, 3), ("bronze", 10, 1)]);
    let of_pool: BTreeMap<String, Quota> =
        [("cpu".to_owned(), Quota { nominal: Amount(0), ..Quota::default() })].into();
    let root_quota: BTreeMap<String, Quota> =
        [("cpu".to_owned(), Quota { nominal: Amount(8_000), ..Quota::default() })].into();
    let queue = |name: &str, parent: &str, quota: &BTreeMap<String, Quota>| {
        let quotas = [("default".to_owned(), quota.clone())].into();
        PolicyObject::Queue(Queue { name: name.into(), parent: parent.into(), quotas, ..Queue::default() })
    };
    put(
        &mut ledger,
        vec![
            queue("org", "", &root_quota),
            queue("vision", "org", &of_pool),
            queue("speech", "org", &of_pool),
        ],
    );
    for _ in 0..8 {
        for queue in ["vision", "speech"] {
            wait(&mut ledger, asks("gold", queue, 1));
            wait(&mut ledger, asks("bronze", queue, 1));
        }
    }
    assert_eq!(walk(&mut ledger).len(), 8);
    assert_eq!(holding(&ledger), [("bronze".to_owned(), 2), ("gold".to_owned(), 6)].into());
    let of = |queue: &str| {
        ledger.reservations().filter(|one| one.state.is_occupying() && one.request.queue == queue).count()
    };
    assert_eq!([of("vision"), of("speech")], [4, 4]);
}

proptest! {
    /// Whatever the weights, as long as everybody waits each class comes to its part of the cores, to one core.
    #[test]
    fn everybody_comes_to_his_part(weights in prop::collection::vec(1u32..9, 2..5), cores in 8u64..40) {
        let names: Vec<String> = (0..weights.len()).map(|index| format!("c{index}")).collect();
        let classes: Vec<(&str, i32, u32)> =
            names.iter().zip(&weights).enumerate().map(|(index, (name, weight))| (name.as_str(), index as i32, *weight)).collect();
        let mut ledger = world(cores, weighted(), &classes);
        for _ in 0..cores {
            for name in &names {
                wait(&mut ledger, asks(name, "", 1));
            }
        }
        walk(&mut ledger);
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let held = holding(&ledger);
        prop_assert_eq!(held.values().sum::<u64>(), cores);
        for (name, weight) in names.iter().zip(&weights) {
            let (part, has) = (cores * u64::from(*weight), held.get(name).copied().unwrap_or_default() * total);
            prop_assert!(has.abs_diff(part) <= total * weights.len() as u64, "{} of {:?}: {:?}", name, weights, held);
        }
    }
}
