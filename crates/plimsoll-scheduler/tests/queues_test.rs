//! Whose turn it is where several queues wait, and what quotas make of a search.

mod fixture;

use std::collections::BTreeMap;

use fixture::{apply, fleet, plain, put_pool};
use plimsoll_ledger::{
    Account, Command, Entry, Fairness, GPU, GpuAsk, GpuShare, Ledger, Outcome, PolicyObject, Pool, Queue,
    QueueOrder, Quota, Reason, Request, Stamp, Strategy as PoolStrategy, Verdict, Wait, fair_tree_order,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::{Amount, LedgerTime, NodeId, ReservationId, Revision};
use proptest::prelude::*;

fn quota(guaranteed: u64, nominal: u64, limit: Option<u64>) -> Quota {
    Quota { guaranteed: Amount(guaranteed), nominal: Amount(nominal), limit: limit.map(Amount) }
}

fn queue(name: &str, parent: &str, weight_milli: u32, quotas: &[(&str, Quota)]) -> PolicyObject {
    let quotas: BTreeMap<_, _> =
        quotas.iter().map(|(resource, quota)| ((*resource).to_owned(), *quota)).collect();
    let quotas = (!quotas.is_empty()).then(|| ("default".to_owned(), quotas)).into_iter().collect();
    PolicyObject::Queue(Queue {
        name: name.into(),
        parent: parent.into(),
        weight_milli,
        quotas,
        ..Queue::default()
    })
}

fn put(ledger: &mut Ledger, put: Vec<PolicyObject>) {
    let command = Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) };
    let outcome = apply(ledger, command);
    assert_eq!(outcome, Outcome::Done);
}

/// One node of 16 cores, and queues a and b below org, which has them all; b has twice the weight.
fn two_queues(fairness: Fairness, order: QueueOrder) -> Ledger {
    let mut ledger = fleet(&[(16, 0, 0)], PoolStrategy::BestFit);
    put_pool(&mut ledger, Pool { name: "default".into(), fairness, queue_order: order, ..Pool::default() });
    let org = queue("org", "", 1_000, &[("cpu", quota(0, 16_000, None))]);
    put(&mut ledger, vec![org, queue("a", "org", 1_000, &[]), queue("b", "org", 2_000, &[])]);
    ledger
}

fn wait(ledger: &mut Ledger, queue: &str, cpu_millis: u64) -> ReservationId {
    let request = Request { queue: queue.into(), wait: Wait::Queue { deadline_ms: 0 }, ..plain(cpu_millis) };
    match apply(ledger, Command::Submit { request, verdict: Verdict::Blocked(vec![]) }) {
        Outcome::Reservation(reservation) => reservation.id,
        other => panic!("{other:?}"),
    }
}

/// Queues of those that found a place, in order.
fn served(ledger: &mut Ledger, limit: usize) -> Vec<String> {
    let mut planner = Planner::new(ledger, 0);
    let placed = planner.plan_queue(ledger, limit);
    let mut queues = Vec::new();
    for (reservation, placement, ticket) in placed {
        let outcome = apply(ledger, Command::Place { reservation, placement });
        let Outcome::Reservation(granted) = outcome else { panic!("{outcome:?}") };
        queues.push(granted.request.queue.clone());
        planner.settle(ledger, ticket);
    }
    queues
}

#[test]
fn by_priority_age_decides_whichever_queue_it_is() {
    let mut ledger = two_queues(Fairness::Priority, QueueOrder::BestEffortFifo);
    for queue in ["a", "a", "a", "b", "b"] {
        wait(&mut ledger, queue, 4_000);
    }
    assert_eq!(served(&mut ledger, 100), ["a", "a", "a", "b"]);
}

#[test]
fn by_share_who_has_less_goes_first_and_equals_by_age() {
    let mut ledger = two_queues(Fairness::Fair, QueueOrder::BestEffortFifo);
    for queue in ["a", "a", "a", "a", "b", "b", "b"] {
        wait(&mut ledger, queue, 4_000);
    }
    assert_eq!(served(&mut ledger, 100), ["a", "b", "a", "b"]);
}

#[test]
fn by_weight_who_weighs_twice_gets_twice() {
    let mut ledger = two_queues(Fairness::Weighted, QueueOrder::BestEffortFifo);
    for _ in 0..12 {
        wait(&mut ledger, "a", 1_000);
        wait(&mut ledger, "b", 1_000);
    }
    let served = served(&mut ledger, 100);
    let of_b = served.iter().filter(|queue| *queue == "b").count();
    assert_eq!((served.len(), of_b), (16, 11), "{served:?}");
}

#[test]
fn by_quota_own_quota_goes_before_what_is_borrowed() {
    let mut ledger = two_queues(Fairness::Quota, QueueOrder::BestEffortFifo);
    put(&mut ledger, vec![queue("b", "org", 1_000, &[("cpu", quota(0, 8_000, None))])]);
    for queue in ["a", "a", "b", "b", "b"] {
        wait(&mut ledger, queue, 4_000);
    }
    assert_eq!(served(&mut ledger, 100), ["b", "b", "a", "a"]);
}

#[test]
fn a_request_without_a_queue_is_served_beside_them() {
    let mut ledger = two_queues(Fairness::Fair, QueueOrder::BestEffortFifo);
    wait(&mut ledger, "a", 4_000);
    wait(&mut ledger, "", 4_000);
    wait(&mut ledger, "b", 4_000);
    assert_eq!(served(&mut ledger, 100), ["a", "", "b"], "roots that borrow nothing, by age");
}

#[test]
fn a_strict_order_holds_back_its_own_queue_only() {
    for fairness in [Fairness::Priority, Fairness::Fair] {
        let mut ledger = two_queues(fairness, QueueOrder::StrictFifo);
        wait(&mut ledger, "a", 17_000);
        wait(&mut ledger, "a", 1_000);
        wait(&mut ledger, "b", 1_000);
        assert_eq!(served(&mut ledger, 100), ["b"]);
        let mut planner = Planner::new(&ledger, 0);
        let new = |queue: &str| Request { queue: queue.into(), ..plain(1_000) };
        let (behind, other) = (new("a"), new("b"));
        let planned = planner.plan_batch(&ledger, &[&behind, &other]);
        let Verdict::Blocked(blockers) = &planned[0].0 else { panic!("{planned:?}") };
        assert_eq!((blockers[0].reason, blockers[0].subject.as_str()), (Reason::BehindInQueue, "a"));
        assert!(matches!(planned[1].0, Verdict::Place(_)));
    }
}

#[test]
fn what_is_in_flight_counts_against_the_quota() {
    let mut ledger = two_queues(Fairness::Fair, QueueOrder::BestEffortFifo);
    put(&mut ledger, vec![queue("a", "org", 1_000, &[("cpu", quota(0, 0, Some(4_000)))])]);
    let mut planner = Planner::new(&ledger, 0);
    let request = Request { queue: "a".into(), ..plain(3_000) };
    let planned = planner.plan_batch(&ledger, &[&request, &request]);
    assert!(matches!(planned[0].0, Verdict::Place(_)));
    let Verdict::Blocked(blockers) = &planned[1].0 else { panic!("{planned:?}") };
    let quota = blockers.iter().find(|blocker| blocker.reason == Reason::QuotaExceeded).expect("named");
    assert_eq!((quota.asked, quota.available, quota.limit), (3_000, 1_000, 4_000));
    // A lost proposal gives it back.
    planner.settle(&ledger, planned[0].1.expect("booked"));
    assert!(matches!(planner.place(&ledger, &request), Verdict::Place(_)));
}

#[test]
fn more_than_the_limit_can_never_be_granted_and_is_refused_at_once() {
    let mut ledger = two_queues(Fairness::Fair, QueueOrder::BestEffortFifo);
    put(&mut ledger, vec![queue("a", "org", 1_000, &[("cpu", quota(0, 0, Some(4_000)))])]);
    let mut planner = Planner::new(&ledger, 0);
    let request = Request { queue: "a".into(), ..plain(4_001) };
    let Verdict::Infeasible(blockers) = planner.place(&ledger, &request) else { panic!("it fits") };
    assert_eq!((blockers[0].reason, blockers[0].limit), (Reason::QuotaExceeded, 4_000));
}

#[test]
fn a_gang_gets_as_many_members_as_quota_is_enough_for() {
    let mut ledger = fleet(&[(16, 2, 0)], PoolStrategy::BestFit);
    put(&mut ledger, vec![queue("a", "", 1_000, &[(GPU, quota(0, 1_100, None))])]);
    let mut request = Request { queue: "a".into(), ..plain(1_000) };
    request.gang.min_members = 1;
    request.gang.max_members = 4;
    let mut planner = Planner::new(&ledger, 0);
    for (share, members) in
        [(GpuShare::Milli(500), 2), (GpuShare::Memory(20 << 30), 4), (GpuShare::Memory(24 << 30), 3)]
    {
        request.requirements.gpu = Some(GpuAsk { share, ..GpuAsk::whole(1) });
        let verdict = planner.place(&ledger, &request);
        let Verdict::Place(placement) = verdict else { panic!("{share:?}: {verdict:?}") };
        assert_eq!(placement.members.len(), members, "{share:?}");
        assert_eq!(ledger.admit(&request, &placement), Ok(()));
    }
}

#[test]
fn quota_that_comes_free_on_a_silent_node_starts_a_walk() {
    let mut ledger = two_queues(Fairness::Fair, QueueOrder::BestEffortFifo);
    let mut planner = Planner::new(&ledger, 0);
    planner.plan_queue(&ledger, 1);
    assert!(!planner.wants_queue_pass());
    let epoch = ledger.node(NodeId(0)).expect("there").epoch;
    let health = plimsoll_ledger::NodeHealth::Suspect;
    apply(&mut ledger, Command::SetNodeHealth { node: NodeId(0), epoch, health });
    planner.sync(&ledger, [NodeId(0)]);
    assert!(planner.wants_queue_pass());
}

/// A tree of three levels whose leaves have random quotas.
fn trees() -> impl Strategy<Value = Vec<(u64, u64, Option<u64>)>> {
    prop::collection::vec((0u64..4, 0u64..8, prop::option::of(0u64..8)), 6)
}

fn fairness() -> impl Strategy<Value = Fairness> {
    prop::sample::select(vec![Fairness::Priority, Fairness::Fair, Fairness::Quota, Fairness::Weighted])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// What the planner places is admitted, in whatever order; and what it leaves waiting fits nowhere or not in its quota.
    #[test]
    fn places_are_admitted_and_nobody_waits_who_could_start(
        tree in trees(),
        fairness in fairness(),
        asks in prop::collection::vec((0usize..7, 1u64..6), 1..40),
        releases in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut ledger = fleet(&[(16, 0, 0), (8, 0, 0)], PoolStrategy::BestFit);
            put_pool(&mut ledger, Pool { name: "default".into(), fairness, ..Pool::default() });
        let names = ["root", "left", "right", "left-a", "left-b", "right-a"];
        let parents = ["", "root", "root", "left", "left", "right"];
        let queues = (0..6).map(|i| {
            let (guaranteed, more, borrow) = tree[i];
            let nominal = guaranteed + more;
            let quota = quota(guaranteed * 1_000, nominal * 1_000, borrow.map(|borrow| (nominal + borrow) * 1_000));
            queue(names[i], parents[i], 1_000 * (i as u32 + 1), &[("cpu", quota)])
        });
        put(&mut ledger, queues.collect());
        for (index, cores) in asks {
            wait(&mut ledger, names.get(index).copied().unwrap_or(""), cores * 1_000);
        }
        for release in releases {
            served(&mut ledger, 3);
            served(&mut ledger, 1_000);
            for reservation in ledger.pending("default").filter_map(|id| ledger.reservation(id)) {
                let verdict = Planner::new(&ledger, 0).place(&ledger, &reservation.request);
                prop_assert!(!matches!(verdict, Verdict::Place(_)), "{:?} could start", reservation);
            }
            let held: Vec<_> = ledger.reservations().filter(|r| r.state.is_occupying()).cloned().collect();
            if held.is_empty() {
                break;
            }
            let gone = &held[release.index(held.len())];
            apply(&mut ledger, Command::Release { reservation: gone.id, token: gone.token });
            prop_assert_eq!(ledger.check_invariants(), vec![]);
            prop_assert_eq!(ledger.take_violations(), vec![]);
        }
    }
}

const DAY_MS: u64 = 86_400_000;

/// Lets ledger time pass.
fn pass(ledger: &mut Ledger, ms: u64) {
    let at = LedgerTime(ledger.clock().0 + ms);
    let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: at };
    ledger.apply(stamp, &Entry::system(Command::Expire { limit: 0 }));
}

fn release_all(ledger: &mut Ledger) {
    let held: Vec<_> =
        ledger.reservations().filter(|one| !one.members.is_empty()).map(|one| (one.id, one.token)).collect();
    for (reservation, token) in held {
        apply(ledger, Command::Release { reservation, token });
    }
}

#[test]
fn by_use_over_time_who_used_less_goes_first_until_it_has_caught_up() {
    let mut ledger = two_queues(Fairness::FairTree, QueueOrder::BestEffortFifo);
    put(&mut ledger, vec![queue("b", "org", 1_000, &[])]);
    // Without a past it is as by share.
    for queue in ["a", "a", "a", "a", "b", "b", "b", "b"] {
        wait(&mut ledger, queue, 2_000);
    }
    assert_eq!(served(&mut ledger, 4), ["a", "b", "a", "b"]);
    release_all(&mut ledger);
    let waiting: Vec<_> = ledger.pending("default").collect();
    for reservation in waiting {
        apply(&mut ledger, Command::Cancel { reservation });
    }
    // Then a has all of it for a day.
    for _ in 0..4 {
        wait(&mut ledger, "a", 4_000);
    }
    assert_eq!(served(&mut ledger, 10), ["a", "a", "a", "a"]);
    pass(&mut ledger, DAY_MS);
    release_all(&mut ledger);
    for queue in ["a", "a", "a", "a", "b", "b", "b", "b", "b", "b", "b", "b"] {
        wait(&mut ledger, queue, 2_000);
    }
    assert_eq!(served(&mut ledger, 10), ["b"; 8], "16 cores of 16 are less than what a had");
    release_all(&mut ledger);
    // Long after, the past is forgotten.
    pass(&mut ledger, 200 * DAY_MS);
    for _ in 0..4 {
        wait(&mut ledger, "b", 2_000);
    }
    assert_eq!(served(&mut ledger, 10), ["a", "b", "a", "b", "a", "b", "a", "b"]);
}

#[test]
fn a_queues_own_quota_is_never_less_for_what_it_used() {
    let mut ledger = two_queues(Fairness::FairTree, QueueOrder::BestEffortFifo);
    put(
        &mut ledger,
        vec![
            queue("org", "", 1_000, &[("cpu", quota(0, 8_000, None))]),
            queue("a", "org", 1_000, &[("cpu", quota(0, 8_000, None)), ("memory", quota(0, 1 << 40, None))]),
            queue("b", "org", 1_000, &[]),
        ],
    );
    for _ in 0..4 {
        wait(&mut ledger, "a", 4_000);
    }
    assert_eq!(served(&mut ledger, 10).len(), 4);
    pass(&mut ledger, DAY_MS);
    release_all(&mut ledger);
    for _ in 0..4 {
        wait(&mut ledger, "b", 4_000);
    }
    for _ in 0..4 {
        wait(&mut ledger, "a", 4_000);
    }
    assert_eq!(served(&mut ledger, 10), ["a", "a", "b", "b"], "8 cores are its own, whatever it had");
}

proptest! {
    /// Siblings that hold nothing and ask the same are served in the order of Slurm's Fair Tree.
    #[test]
    fn the_order_by_use_over_time_is_that_of_the_fair_tree(
        weights in prop::collection::vec(1..5_u32, 6),
        used in prop::collection::vec(0..8_u64, 4),
    ) {
        let mut ledger = fleet(&[(64, 0, 0)], PoolStrategy::BestFit);
        put_pool(&mut ledger, Pool { name: "default".into(), fairness: Fairness::FairTree, ..Pool::default() });
        let tree = [("p", ""), ("q", ""), ("p1", "p"), ("p2", "p"), ("q1", "q"), ("q2", "q")];
        let queues = tree.iter().zip(&weights);
        put(&mut ledger, queues.map(|((name, above), weight)| queue(name, above, weight * 1_000, &[])).collect());
        for ((name, _), cores) in tree[2..].iter().zip(&used) {
            for _ in 0..*cores {
                wait(&mut ledger, name, 2_000);
            }
        }
        served(&mut ledger, 100);
        pass(&mut ledger, DAY_MS);
        release_all(&mut ledger);
        for (name, _) in &tree[2..] {
            wait(&mut ledger, name, 1);
        }
        let accounts = tree.iter().zip(&weights).map(|((name, parent), weight)| {
            let used = ledger.average_use(name, "default").get("cpu").0.into();
            ((*name).to_owned(), Account { parent: (*parent).to_owned(), weight: (*weight).into(), used })
        });
        let accounts: BTreeMap<String, Account> = accounts.collect();
        // Equals are told apart by what they ask next, here as good as nothing; Fair Tree merges them.
        let level = |name: &str| {
            let below = accounts.values().filter(|account| account.parent == name).map(|account| account.used);
            let used = below.sum::<u128>() + accounts[name].used;
            used as f64 / f64::from(u32::try_from(accounts[name].weight).unwrap())
        };
        for (one, other) in [("p", "q"), ("p1", "p2"), ("q1", "q2")] {
            prop_assume!((level(one) - level(other)).abs() > 1.0);
        }
        let order = fair_tree_order(&accounts);
        let first: Vec<&str> =
            order.iter().filter(|(_, factor)| *factor == 1_000_000).map(|(name, _)| name.as_str()).collect();
        let ours = served(&mut ledger, 1);
        prop_assert!(first.contains(&ours[0].as_str()), "{ours:?}, not {order:?}");
    }
}
