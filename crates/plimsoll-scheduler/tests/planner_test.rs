//! The planner against the ledger: what it places is admitted, what it books is never oversold, and where it says no,
//! no node fits.

mod fixture;

use std::collections::BTreeMap;

use fixture::{apply, fleet, nodes_that_fit, plain, put_pool, request, sizes, strategy};
use plimsoll_ledger::{
    AdminChange, Command, Evicted, Gauge, GpuAsk, Ledger, Outcome, Overload, Pool, Qos, QueueOrder, Reason,
    Request, Strategy as PoolStrategy, Verdict,
};
use plimsoll_scheduler::{Closed, Planner, Scene, SingleChange, explain, explain_request};
use plimsoll_types::{NodeEpoch, NodeId, ReservationId};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_placed_is_admitted_and_a_no_means_that_nothing_fits(
        sizes in sizes(8),
        requests in prop::collection::vec(request(), 1..40),
        strategy in strategy(),
        releases in prop::collection::vec(any::<usize>(), 40),
    ) {
        let mut ledger = fleet(&sizes, strategy);
        let mut planner = Planner::new(&ledger, 7);
        for (batch, release) in requests.chunks(3).zip(releases) {
            let asked: Vec<&Request> = batch.iter().collect();
            let planned = planner.plan_batch(&ledger, &asked);
            prop_assert_eq!(planner.check(&ledger), Vec::<String>::new());
            for (request, (verdict, ticket)) in batch.iter().zip(planned) {
                let single = request.gang.max_members == 1;
                match &verdict {
                    Verdict::Place(place) => prop_assert!(ledger.admit(request, place).is_ok() || batch.len() > 1),
                    Verdict::Blocked(blockers) => prop_assert!(!blockers.is_empty()),
                    Verdict::Infeasible(blockers) => {
                        prop_assert!(!blockers.is_empty());
                        prop_assert!(!single || nodes_that_fit(&ledger, request).is_empty(), "{:?} is not infeasible", request);
                    }
                }
                if single && batch.len() == 1 && !matches!(verdict, Verdict::Place(_)) {
                    prop_assert!(nodes_that_fit(&ledger, request).is_empty(), "a place was missed for {:?}", request);
                }
                let placed = matches!(verdict, Verdict::Place(_));
                let outcome = apply(&mut ledger, Command::Submit { request: request.clone(), verdict });
                if placed {
                    let granted = matches!(&outcome, Outcome::Reservation(r) if r.token.0 > 0);
                    prop_assert!(granted, "a booked place was refused: {:?}", outcome);
                }
                if let Some(ticket) = ticket {
                    planner.settle(&ledger, ticket);
                }
                prop_assert_eq!(planner.check(&ledger), Vec::<String>::new());
            }
            let cordoned = NodeId((release % sizes.len()) as u32);
            let admin = if release % 3 == 0 {
                AdminChange::Cordon { reason: "test".into() }
            } else {
                AdminChange::Uncordon
            };
            apply(&mut ledger, Command::SetNodeAdmin { node: cordoned, admin });
            planner.sync(&ledger, [cordoned]);
            prop_assert_eq!(planner.check(&ledger), Vec::<String>::new());
            let held: Vec<_> = ledger.reservations().filter(|r| r.state.is_occupying()).cloned().collect();
            if !held.is_empty() {
                let gone = &held[release % held.len()];
                let nodes: Vec<NodeId> = gone.members.iter().map(|m| m.node).collect();
                apply(&mut ledger, Command::Release { reservation: gone.id, token: gone.token });
                let eligible = nodes.iter().any(|id| ledger.node(*id).is_some_and(|node| node.is_eligible()));
                planner.sync(&ledger, nodes);
                prop_assert!(planner.wants_queue_pass() || !eligible);
            }
            for (id, place, ticket) in planner.plan_queue(&ledger, 10) {
                let outcome = apply(&mut ledger, Command::Place { reservation: id, placement: place });
                prop_assert!(matches!(outcome, Outcome::Reservation(_)), "a queued place was refused: {:?}", outcome);
                planner.settle(&ledger, ticket);
            }
            prop_assert_eq!(planner.check(&ledger), Vec::<String>::new());
        }
    }

    #[test]
    fn every_suggestion_is_true(
        sizes in sizes(6),
        filler in prop::collection::vec(request(), 0..12),
        asked in request(),
    ) {
        let mut ledger = fleet(&sizes, PoolStrategy::BestFit);
        let mut planner = Planner::new(&ledger, 1);
        for request in &filler {
            let verdict = planner.place(&ledger, request);
            apply(&mut ledger, Command::Submit { request: request.clone(), verdict });
            planner = Planner::new(&ledger, 1);
        }
        let explanation = explain_request(&ledger, &asked);
        prop_assert_eq!(explanation.admissible, explanation.blockers.is_empty());
        for suggestion in explanation.suggestions {
            let SingleChange::Request(changed) = suggestion.change else { continue };
            let verdict = Planner::new(&ledger, 1).place(&ledger, &changed);
            let mut fork = ledger.clone();
            let outcome = apply(&mut fork, Command::Submit { request: *changed, verdict });
            let granted = matches!(&outcome, Outcome::Reservation(r) if r.token.0 > 0);
            prop_assert!(granted, "{} does not help: {:?}", suggestion.description, outcome);
        }
    }
}

#[test]
fn a_queue_is_explained_with_rank_and_numbers() {
    let mut ledger = fleet(&[(4, 0, 0)], PoolStrategy::BestFit);
    let mut submit = |cpu| {
        let verdict = Planner::new(&ledger, 0).place(&ledger, &plain(cpu));
        let outcome = apply(&mut ledger, Command::Submit { request: plain(cpu), verdict });
        let Outcome::Reservation(reservation) = outcome else { panic!("{outcome:?}") };
        reservation
    };
    submit(3_000);
    submit(2_000);
    let waiting = submit(4_000);
    let explanation = explain(&ledger, waiting.id).expect("it is there");
    assert_eq!((explanation.rank, explanation.queue_length, explanation.infeasible), (2, 2, false));
    let blocker = &explanation.blockers[0];
    assert_eq!(
        (blocker.subject.as_str(), blocker.asked, blocker.available, blocker.limit),
        ("cpu", 4_000, 1_000, 4_000)
    );
    assert!(explain_request(&ledger, &plain(4_001)).infeasible);
}

#[test]
fn best_fit_keeps_whole_gpus_whole_and_worst_fit_spreads() {
    let share = |ledger: &Ledger| {
        let mut request = plain(1);
        request.requirements.gpu = Some(GpuAsk::milli(250));
        let verdict = Planner::new(ledger, 0).place(ledger, &request);
        Command::Submit { request, verdict }
    };
    let nodes_used = |strategy| {
        let mut ledger = fleet(&[(8, 2, 0), (8, 2, 0), (8, 2, 0)], strategy);
        for _ in 0..4 {
            let command = share(&ledger);
            apply(&mut ledger, command);
        }
        ledger.nodes().filter(|node| !ledger.usage(node.id).expect("there").holders.is_empty()).count()
    };
    assert_eq!((nodes_used(PoolStrategy::BestFit), nodes_used(PoolStrategy::WorstFit)), (1, 3));
}

#[test]
fn equal_inputs_give_equal_plans() {
    let run = || {
        let mut ledger = fleet(&[(8, 2, 0), (9, 3, 1), (7, 2, 5), (9, 1, 3)], PoolStrategy::Random);
        let mut planner = Planner::new(&ledger, 42);
        let mut verdicts = Vec::new();
        for step in 0..40u64 {
            let request = plain(300 + step * 7);
            let verdict = planner.place(&ledger, &request);
            verdicts.push(verdict.clone());
            apply(&mut ledger, Command::Submit { request, verdict });
            planner.sync(&ledger, (0..4).map(NodeId));
        }
        verdicts
    };
    assert_eq!(run(), run());
}

#[test]
fn a_strict_queue_stops_at_its_head_and_holds_new_arrivals_back() {
    for (queue_order, overtakes) in [(QueueOrder::StrictFifo, false), (QueueOrder::BestEffortFifo, true)] {
        let mut ledger = fleet(&[(4, 0, 0)], PoolStrategy::BestFit);
        put_pool(&mut ledger, Pool { name: "default".into(), queue_order, ..Pool::default() });
        let mut planner = Planner::new(&ledger, 0);
        let mut submit = |planner: &mut Planner, cpu: u64| {
            let request = plain(cpu);
            let (verdict, ticket) = planner.plan_batch(&ledger, &[&request]).remove(0);
            let outcome = apply(&mut ledger, Command::Submit { request, verdict: verdict.clone() });
            if let Some(ticket) = ticket {
                planner.settle(&ledger, ticket);
            }
            let Outcome::Reservation(reservation) = outcome else { panic!("{outcome:?}") };
            (verdict, reservation)
        };
        let (_, first) = submit(&mut planner, 3_000);
        let (_, head) = submit(&mut planner, 4_000);
        let (verdict, small) = submit(&mut planner, 500);
        match (&verdict, overtakes) {
            (Verdict::Place(_), true) => {}
            (Verdict::Blocked(blockers), false) => assert_eq!(blockers[0].reason, Reason::BehindInQueue),
            _ => panic!("{verdict:?} in a queue that is {queue_order:?}"),
        }
        apply(&mut ledger, Command::Release { reservation: first.id, token: first.token });
        planner.sync(&ledger, [NodeId(0)]);
        assert!(planner.wants_queue_pass());
        let placed: Vec<ReservationId> =
            planner.plan_queue(&ledger, 10).into_iter().map(|(id, ..)| id).collect();
        // The head takes the whole node where nobody overtook it; the small one waits for the next walk.
        assert_eq!(placed, if overtakes { vec![] } else { vec![head.id] });
        assert_eq!(small.token.0 > 0, overtakes);
    }
}

#[test]
fn a_walk_of_a_strict_queue_passes_nobody_by() {
    for (queue_order, overtakes) in [(QueueOrder::StrictFifo, false), (QueueOrder::BestEffortFifo, true)] {
        let mut ledger = fleet(&[(4, 0, 0)], PoolStrategy::BestFit);
        put_pool(&mut ledger, Pool { name: "default".into(), queue_order, ..Pool::default() });
        let mut planner = Planner::new(&ledger, 0);
        let mut submit = |planner: &mut Planner, cpu: u64| {
            let request = plain(cpu);
            let verdict = planner.place(&ledger, &request);
            let outcome = apply(&mut ledger, Command::Submit { request, verdict });
            planner.sync(&ledger, [NodeId(0)]);
            let Outcome::Reservation(reservation) = outcome else { panic!("{outcome:?}") };
            reservation
        };
        let _long = submit(&mut planner, 2_000);
        let short = submit(&mut planner, 2_000);
        let _head = submit(&mut planner, 4_000);
        let small = submit(&mut planner, 500);
        apply(&mut ledger, Command::Release { reservation: short.id, token: short.token });
        planner.sync(&ledger, [NodeId(0)]);
        let placed: Vec<ReservationId> =
            planner.plan_queue(&ledger, 10).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(placed, if overtakes { vec![small.id] } else { vec![] }, "{queue_order:?}");
    }
}

#[test]
fn a_walk_follows_class_then_age_and_tries_a_shape_once() {
    let mut ledger = fleet(&[(4, 0, 0)], PoolStrategy::BestFit);
    let mut planner = Planner::new(&ledger, 0);
    let mut submit = |planner: &mut Planner, cpu: u64, class: &str| {
        let request = Request { class: class.into(), ..plain(cpu) };
        let verdict = planner.place(&ledger, &request);
        let outcome = apply(&mut ledger, Command::Submit { request, verdict });
        planner.sync(&ledger, [NodeId(0)]);
        let Outcome::Reservation(reservation) = outcome else { panic!("{outcome:?}") };
        reservation
    };
    let all = submit(&mut planner, 4_000, "standard");
    let old = submit(&mut planner, 2_000, "standard");
    submit(&mut planner, 2_000, "standard");
    let urgent = submit(&mut planner, 2_000, "high");
    apply(&mut ledger, Command::Release { reservation: all.id, token: all.token });
    planner.sync(&ledger, [NodeId(0)]);
    let first = planner.plan_queue(&ledger, 1);
    assert!(planner.wants_queue_pass(), "the limit ended the walk");
    let second = planner.plan_queue(&ledger, 10);
    let order: Vec<ReservationId> = first.iter().chain(&second).map(|(id, ..)| *id).collect();
    assert_eq!(order, [urgent.id, old.id]);
    assert_eq!(planner.check(&ledger), Vec::<String>::new());
}

#[test]
fn best_effort_of_a_class_is_kept_off_nodes_that_measure_too_full_for_it() {
    let mut ledger = fleet(&[(8, 0, 0), (8, 0, 0)], PoolStrategy::FirstFit);
    let mut planner = Planner::new(&ledger, 1);
    let loose = |class: &str| Request { class: class.into(), qos: Some(Qos::BestEffort), ..plain(500) };
    let node_of = |planner: &mut Planner, ledger: &Ledger, request: &Request| {
        let (verdict, ticket) = planner.plan_batch(ledger, &[request]).pop().expect("one verdict");
        if let Some(ticket) = ticket {
            planner.settle(ledger, ticket);
        }
        match verdict {
            Verdict::Place(place) => Ok(place.members[0].node.0),
            Verdict::Blocked(blockers) | Verdict::Infeasible(blockers) => Err(blockers),
        }
    };
    let closed = |nodes: &[u32]| -> Closed {
        let close = |node: &u32| {
            let (node, epoch) = (NodeId(*node), NodeEpoch(1));
            let (measured_permille, over_ms) = (955, 9_000);
            let overload = Overload { node, epoch, gauge: Gauge::Memory, measured_permille, over_ms };
            (node, BTreeMap::from([("batch".to_owned(), Evicted { overload, above_permille: 900 })]))
        };
        nodes.iter().map(close).collect()
    };
    assert_eq!(node_of(&mut planner, &ledger, &loose("batch")), Ok(0));
    planner.close(closed(&[0]));
    assert_eq!(node_of(&mut planner, &ledger, &loose("batch")), Ok(1));
    assert_eq!(node_of(&mut planner, &ledger, &loose("low")), Ok(0), "of another class");
    let backed = Request { qos: None, ..loose("batch") };
    assert_eq!(node_of(&mut planner, &ledger, &backed), Ok(0), "who is backed never has to leave");
    planner.close(closed(&[0, 1]));
    let blockers = node_of(&mut planner, &ledger, &loose("batch")).expect_err("both are closed to it");
    assert_eq!((blockers[0].reason, blockers[0].nodes), (Reason::NodeNotAvailable, 2));
    assert_eq!(
        blockers[0].subject,
        "nodes such as node-0 (memory at 95.5%, and class batch leaves above 90%)"
    );
    // Whoever explains it says the same where it is known, and otherwise that there is room.
    let scene = || Scene::of_request(&ledger, &loose("batch"), "");
    let told = scene().closing(closed(&[0, 1])).explain();
    assert_eq!((told.admissible, told.nodes_feasible, &told.blockers), (false, 0, &blockers));
    assert!(scene().explain().admissible);
    let told = scene().closing(closed(&[0])).explain();
    assert_eq!(told.placement.map(|place| place.members[0].node), Some(NodeId(1)));
    // A change of the node keeps what is closed, and what opens again is offered to those who wait.
    apply(
        &mut ledger,
        Command::SetNodeAdmin { node: NodeId(1), admin: AdminChange::Cordon { reason: "x".into() } },
    );
    apply(&mut ledger, Command::SetNodeAdmin { node: NodeId(1), admin: AdminChange::Uncordon });
    planner.sync(&ledger, [NodeId(1)]);
    planner.plan_queue(&ledger, 10);
    assert!(node_of(&mut planner, &ledger, &loose("batch")).is_err());
    assert!(!planner.wants_queue_pass());
    planner.close(closed(&[0]));
    assert!(planner.wants_queue_pass());
    assert_eq!(node_of(&mut planner, &ledger, &loose("batch")), Ok(1));
}
