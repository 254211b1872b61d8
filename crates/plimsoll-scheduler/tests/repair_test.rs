//! Gangs that lost members: what the planner proposes is admitted, goes to them before others of their class, and leaves out their own nodes.

mod fixture;

use fixture::{apply, fleet, plain, request, sizes, strategy};
use plimsoll_ledger::{
    Command, Gang, Ledger, NodeHealth, Outcome, Request, Reservation, State, Strategy as PoolStrategy,
};
use plimsoll_scheduler::{Planner, explain};
use plimsoll_types::{NodeId, ReservationId};
use proptest::prelude::*;

fn submit(ledger: &mut Ledger, request: Request) -> Option<ReservationId> {
    let verdict = Planner::new(ledger, 0).place(ledger, &request);
    match apply(ledger, Command::Submit { request, verdict }) {
        Outcome::Reservation(made) => Some(made.id),
        _ => None,
    }
}

fn fail(ledger: &mut Ledger, node: NodeId) {
    let epoch = ledger.node(node).expect("it is there").epoch;
    apply(ledger, Command::SetNodeHealth { node, epoch, health: NodeHealth::Fenced });
}

fn gang(cpu_millis: u64, members: u32) -> Request {
    Request {
        gang: Gang { min_members: members, max_members: members, spread: true },
        repair_within_ms: 60_000,
        ..plain(cpu_millis)
    }
}

fn get(ledger: &Ledger, id: ReservationId) -> Reservation {
    Reservation::clone(ledger.reservation(id).expect("it is there"))
}

#[test]
fn it_goes_before_those_of_its_class_and_after_a_higher_one() {
    for (class, first) in [("standard", true), ("low", true), ("high", false)] {
        let mut ledger = fleet(&[(4, 0, 0), (4, 0, 0), (4, 0, 0)], PoolStrategy::BestFit);
        let other = submit(&mut ledger, plain(4_000)).expect("it fits");
        let broken = submit(&mut ledger, gang(4_000, 2)).expect("it fits");
        let waits = submit(&mut ledger, Request { class: class.into(), ..plain(4_000) }).expect("it waits");
        let lost = get(&ledger, broken).members[0].node;
        fail(&mut ledger, lost);
        apply(&mut ledger, Command::Cancel { reservation: other });
        let placed = Planner::new(&ledger, 0).plan_queue(&ledger, 10);
        let served: Vec<ReservationId> = placed.iter().map(|(id, ..)| *id).collect();
        assert_eq!(served, [if first { broken } else { waits }], "beside one of class {class}");
    }
}

#[test]
fn explain_says_what_stands_in_the_way_of_its_newcomers() {
    let mut ledger = fleet(&[(4, 0, 0), (4, 0, 0), (2, 0, 0)], PoolStrategy::BestFit);
    let broken = submit(&mut ledger, gang(3_000, 2)).expect("it fits");
    fail(&mut ledger, NodeId(0));
    let told = explain(&ledger, broken).expect("it is there");
    let cpu = told.blockers.iter().find(|blocker| blocker.subject == "cpu").expect("too little cpu");
    assert_eq!((cpu.asked, told.admissible, told.nodes_considered), (3_000, false, 2));
    assert!(Planner::new(&ledger, 0).plan_queue(&ledger, 10).is_empty());
    let again = ledger.node(NodeId(0)).expect("it is there").registration.clone();
    apply(&mut ledger, Command::RegisterNode(again));
    let told = explain(&ledger, broken).expect("it is there");
    assert!(told.admissible, "{told:?}");
    assert_eq!(told.placement.map(|place| place.members[0].node), Some(NodeId(0)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_proposed_for_them_is_admitted(
        sizes in sizes(12),
        strategy in strategy(),
        requests in prop::collection::vec(request(), 1..14),
        failing in prop::collection::vec(0u32..12, 1..4),
    ) {
        let mut ledger = fleet(&sizes, strategy);
        for mut asked in requests {
            asked.gang.max_members = asked.gang.max_members.max(2);
            asked.repair_within_ms = 60_000;
            submit(&mut ledger, asked);
        }
        for node in failing.into_iter().map(NodeId).filter(|id| ledger.node(*id).is_some()).collect::<Vec<_>>() {
            fail(&mut ledger, node);
        }
        let broken: Vec<ReservationId> = ledger.repairing("default").collect();
        let mut planner = Planner::new(&ledger, 0);
        for (id, placement, ticket) in planner.plan_queue(&ledger, 100) {
            let before = get(&ledger, id);
            let came = apply(&mut ledger, Command::Place { reservation: id, placement });
            prop_assert!(matches!(came, Outcome::Reservation(_)), "{:?} for {:?}", came, before);
            planner.settle(&ledger, ticket);
        }
        prop_assert_eq!(planner.check(&ledger), Vec::<String>::new());
        prop_assert_eq!(ledger.check_invariants(), vec![]);
        // Who found no place is told why, or lacks what a walk with more room would find.
        for id in broken.into_iter().filter(|id| get(&ledger, *id).state == State::Partial) {
            let one = get(&ledger, id);
            let told = explain(&ledger, id).expect("it is there");
            if let Some(place) = told.placement {
                prop_assert!(ledger.admit_repair(&one, &place).is_ok());
            } else if one.missing_members() > 0 && ledger.lacking(&one).is_some() {
                prop_assert!(!told.blockers.is_empty(), "{:?}", one);
            }
        }
    }
}
