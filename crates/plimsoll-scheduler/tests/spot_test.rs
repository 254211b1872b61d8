//! Spot capacity (`docs/semantics.md` 5.22) as the planner has it: spot nodes first as far as the share goes, then the others, and nothing that the
//! ledger would refuse.

mod fixture;

use fixture::{apply, fleet, plain, put_pool, request, sizes, term};
use plimsoll_ledger::{
    CapacityType, Command, Gang, Ledger, NodeHealth, Outcome, PolicyObject, Pool, Queue, Reason, Request,
    Service, SpotPolicy, State, Strategy as PoolStrategy, Verdict, Wait,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::{NodeId, Operator, ReservationId, Revision};
use proptest::prelude::*;

fn share(permille: u32) -> SpotPolicy {
    SpotPolicy { share_permille: permille, ..SpotPolicy::default() }
}

/// Nodes of eight cores, of which those at `spot` are spot nodes, each in a market by its number modulo two.
fn cluster(nodes: usize, spot: &[usize], policy: SpotPolicy) -> Ledger {
    let mut ledger = fleet(&vec![(8, 0, 0); nodes], PoolStrategy::BestFit);
    make_spot(&mut ledger, spot);
    put_pool(&mut ledger, Pool { name: "default".into(), spot: Some(policy), ..Pool::default() });
    ledger
}

fn make_spot(ledger: &mut Ledger, spot: &[usize]) {
    for index in spot {
        let mut registration = ledger.node(NodeId(*index as u32)).unwrap().registration.clone();
        let market = ["a", "b"][index % 2];
        for (key, value) in [("capacity_type", "spot"), ("price_permille", "300"), ("spot_pool", market)] {
            registration.labels.insert(key.into(), value.into());
        }
        apply(ledger, Command::RegisterNode(registration));
    }
}

fn is_spot(ledger: &Ledger, node: NodeId) -> bool {
    ledger.node(node).unwrap().capacity_type() == CapacityType::Spot
}

/// How many members of a reservation are on spot nodes.
fn on_spot(ledger: &Ledger, id: ReservationId) -> usize {
    ledger.reservation(id).unwrap().members.iter().filter(|member| is_spot(ledger, member.node)).count()
}

/// Plans and submits one after the other.
fn submit(ledger: &mut Ledger, request: &Request) -> ReservationId {
    let verdict = Planner::new(ledger, 0).place(ledger, request);
    match apply(ledger, Command::Submit { request: request.clone(), verdict }) {
        Outcome::Reservation(made) => made.id,
        refused => panic!("{refused:?}"),
    }
}

fn gang(members: u32) -> Request {
    Request { gang: Gang { min_members: members, max_members: members, spread: false }, ..plain(1_000) }
}

#[test]
fn work_goes_to_spot_nodes_as_far_as_its_share_goes_and_then_to_the_others() {
    let mut ledger = cluster(4, &[2, 3], share(700));
    let ids: Vec<ReservationId> = (0..10).map(|_| submit(&mut ledger, &plain(1_000))).collect();
    let spots: usize = ids.iter().map(|id| on_spot(&ledger, *id)).sum();
    assert_eq!(spots, 7, "seven of ten");
    assert_eq!(on_spot(&ledger, ids[0]), 0, "the first alone would be all of it");
}

#[test]
fn a_gang_is_split_where_its_share_is_and_a_batch_counts_what_is_on_its_way() {
    let mut ledger = cluster(4, &[2, 3], share(500));
    let id = submit(&mut ledger, &gang(8));
    assert_eq!(on_spot(&ledger, id), 4);
    let requests: Vec<Request> = (0..6).map(|_| plain(1_000)).collect();
    let mut planner = Planner::new(&ledger, 0);
    let plans = planner.plan_batch(&ledger, &requests.iter().collect::<Vec<_>>());
    for (request, (verdict, _)) in requests.into_iter().zip(plans) {
        let outcome = apply(&mut ledger, Command::Submit { request, verdict });
        assert!(matches!(outcome, Outcome::Reservation(made) if made.state == State::Active));
    }
    let all: usize = ledger.reservations().map(|r| on_spot(&ledger, r.id)).sum();
    assert_eq!(all, 7, "half of fourteen");
}

#[test]
fn who_can_be_on_spot_nodes_alone_waits_for_more_of_its_work_elsewhere_and_holds_nobody_back() {
    let mut ledger = cluster(3, &[2], share(500));
    let mut only = plain(1_000);
    only.requirements.required.terms.push(term("capacity_type", Operator::In, &["spot"]));
    let Verdict::Blocked(blockers) = Planner::new(&ledger, 0).place(&ledger, &only) else {
        panic!("it has room")
    };
    let first = &blockers[0];
    assert_eq!(
        (first.reason, first.subject.as_str(), first.asked, first.available),
        (Reason::SpotShare, "pool default", 1, 0)
    );
    let waits = submit(&mut ledger, &only);
    assert_eq!(ledger.reservation(waits).unwrap().state, State::Pending);
    let mut planner = Planner::new(&ledger, 0);
    assert_eq!(planner.plan_queue(&ledger, 10).len(), 0);
    assert!(!planner.wants_queue_pass());
    // Another one comes, elsewhere: now there is a half for it.
    let other = Request { requirements: plain(8_000).requirements, ..plain(8_000) };
    let (verdict, ticket) = planner.plan_batch(&ledger, &[&other]).remove(0);
    apply(&mut ledger, Command::Submit { request: other, verdict });
    planner.settle(&ledger, ticket.expect("it has room"));
    assert!(planner.wants_queue_pass(), "it may have made room");
    let found = planner.plan_queue(&ledger, 10);
    assert_eq!(found.len(), 1);
    assert!(is_spot(&ledger, found[0].1.members[0].node));
}

#[test]
fn a_service_goes_to_other_markets_and_to_none_that_is_full() {
    let policy = SpotPolicy { max_in_one_permille: 400, ..share(1_000) };
    let mut ledger = cluster(6, &[2, 3, 4, 5], policy);
    let service = Service {
        name: "web".into(),
        pool: "default".into(),
        class: "standard".into(),
        ..Service::default()
    };
    let command = Command::ApplyPolicy {
        put: vec![PolicyObject::Service(service)],
        delete: vec![],
        if_revision: Revision(0),
    };
    assert_eq!(apply(&mut ledger, command), Outcome::Done);
    let replica = Request { service: "web".into(), ..plain(1_000) };
    let ids: Vec<ReservationId> = (0..10).map(|_| submit(&mut ledger, &replica)).collect();
    let market = |id: &ReservationId| {
        let node = ledger.reservation(*id).unwrap().members[0].node;
        ledger.node(node).unwrap().spot_pool().map(str::to_owned)
    };
    let of = |name: &str| ids.iter().filter(|id| market(id).as_deref() == Some(name)).count();
    assert_eq!(
        (of("a"), of("b")),
        (4, 3),
        "two fifths of those that were there in each, and the rest on demand"
    );
}

#[test]
fn unsuitable_work_never_goes_there_though_all_else_is_full() {
    let policy = SpotPolicy { suitable_for: vec!["batch".into()], ..share(1_000) };
    let mut ledger = cluster(2, &[1], policy);
    submit(&mut ledger, &plain(8_000));
    let blocked = submit(&mut ledger, &plain(1_000));
    assert_eq!(ledger.reservation(blocked).unwrap().state, State::Pending);
    let batch = submit(&mut ledger, &Request { class: "batch".into(), ..plain(1_000) });
    assert_eq!(on_spot(&ledger, batch), 1);
}

fn policy() -> impl Strategy<Value = SpotPolicy> {
    let tags = prop_oneof![2 => Just(vec![]), 1 => Just(vec!["batch".to_owned()])];
    (0u32..=1_000, 0u32..3, prop_oneof![Just(0u32), 300..=1_000u32], tags).prop_map(
        |(share_permille, base, max_in_one_permille, suitable_for)| SpotPolicy {
            share_permille,
            base,
            max_in_one_permille,
            suitable_for,
            ..SpotPolicy::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_planned_is_admitted_and_what_waits_has_no_place(
        sizes in sizes(10),
        spot in prop::collection::vec(0usize..10, 0..6),
        policy in policy(),
        of_queue in prop::option::of(policy()),
        requests in prop::collection::vec((request(), 0u8..4), 1..14),
        lost in prop::option::of(0u32..10),
    ) {
        let mut ledger = fleet(&sizes, PoolStrategy::BestFit);
        let spot: Vec<usize> = spot.into_iter().filter(|index| *index < sizes.len()).collect();
        make_spot(&mut ledger, &spot);
        let countables = [("license/sim".to_owned(), plimsoll_types::Amount(40))].into();
        let pool = Pool { name: "default".into(), spot: Some(policy), countables, ..Pool::default() };
        put_pool(&mut ledger, pool);
        let queue = Queue { name: "team".into(), spot: of_queue, ..Queue::default() };
        let service = Service { name: "web".into(), pool: "default".into(), class: "standard".into(), ..Service::default() };
        let put = vec![PolicyObject::Queue(queue), PolicyObject::Service(service)];
        apply(&mut ledger, Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
        let requests: Vec<Request> = requests
            .into_iter()
            .map(|(request, kind)| {
                let mut request = Request { auto_confirm: true, ..request };
                request.pool = "default".into();
                // Every other one waits.
                if request.requirements.amounts.cpu_millis.0.is_multiple_of(2) {
                    request.wait = Wait::Queue { deadline_ms: 0 };
                }
                match kind {
                    0 => request.queue = "team".into(),
                    1 => (request.service, request.class) = ("web".into(), "standard".into()),
                    2 => request.class = "batch".into(),
                    _ => {}
                }
                request
            })
            .collect();
        let mut planner = Planner::new(&ledger, 7);
        let plans = planner.plan_batch(&ledger, &requests.iter().collect::<Vec<_>>());
        for (request, (verdict, ticket)) in requests.iter().zip(plans) {
            let placed = matches!(verdict, Verdict::Place(_));
            let outcome = apply(&mut ledger, Command::Submit { request: request.clone(), verdict });
            if let Some(ticket) = ticket {
                planner.settle(&ledger, ticket);
            }
            let granted = matches!(&outcome, Outcome::Reservation(made) if made.state.is_occupying());
            // A share that others of the batch bring may come a little later: who waits gets its place in the next walk.
            let waits_for_its_share = matches!(
                &outcome,
                Outcome::Reservation(made) if made.blockers.iter().any(|blocker| blocker.reason == Reason::SpotShare)
            );
            prop_assert!(granted == placed || waits_for_its_share, "{:?}", outcome);
        }
        if let Some(node) = lost.filter(|node| (*node as usize) < sizes.len()) {
            let epoch = ledger.node(NodeId(node)).unwrap().epoch;
            apply(&mut ledger, Command::InterruptNode { node: NodeId(node), epoch, in_ms: 0 });
            apply(&mut ledger, Command::SetNodeHealth { node: NodeId(node), epoch, health: NodeHealth::Fenced });
            planner = Planner::new(&ledger, 7);
        }
        // The queue is walked until it comes to rest.
        for round in 0..100 {
            let found = planner.plan_queue(&ledger, 100);
            if found.is_empty() {
                break;
            }
            prop_assert!(round < 99, "it does not come to rest");
            for (reservation, placement, ticket) in found {
                let outcome = apply(&mut ledger, Command::Place { reservation, placement });
                prop_assert!(matches!(outcome, Outcome::Reservation(_)), "{:?}", outcome);
                planner.settle(&ledger, ticket);
            }
        }
        prop_assert_eq!(ledger.check_invariants(), vec![]);
        prop_assert_eq!(planner.check(&ledger), Vec::<String>::new());
        // Whoever waits is told why, and a planner that knows nothing of the past finds no place for it either.
        for waiting in ledger.pending("default").collect::<Vec<_>>() {
            let request = ledger.reservation(waiting).unwrap().request.clone();
            let verdict = Planner::new(&ledger, 7).place(&ledger, &request);
            prop_assert!(!matches!(verdict, Verdict::Place(_)), "{:?}", verdict);
            let (Verdict::Blocked(blockers) | Verdict::Infeasible(blockers)) = verdict else { continue };
            prop_assert!(!blockers.is_empty());
        }
    }
}
