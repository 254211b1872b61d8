//! Fragmentation as it is measured, and plans against it: each move is one that the ledger would admit.

mod fixture;

use fixture::{apply, fleet, plain, request, sizes};
use plimsoll_ledger::{
    Command, GpuAsk, Ledger, OnPreempt, Outcome, Placement, Pool, Request, Strategy as PoolStrategy, Verdict,
    Wait,
};
use plimsoll_scheduler::{Cost, Planner, Terrain, Why};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};
use proptest::prelude::*;

fn with_gpu(gpu: GpuAsk) -> Request {
    let mut asked = plain(500);
    asked.class = "batch".into();
    asked.requirements.gpu = Some(gpu);
    asked
}

fn submit(ledger: &mut Ledger, request: Request, verdict: Verdict) -> ReservationId {
    match apply(ledger, Command::Submit { request, verdict }) {
        Outcome::Reservation(made) => made.id,
        other => panic!("no reservation: {other:?}"),
    }
}

/// Ledger time goes on.
fn wait(ledger: &mut Ledger, until_ms: u64) {
    let revision = Revision(ledger.revision().0 + 1);
    let stamp = plimsoll_ledger::Stamp { revision, proposed_at: LedgerTime(until_ms) };
    ledger.apply(stamp, &plimsoll_ledger::Entry::system(Command::BecomeLeader { leader: 1 }));
}

/// Two nodes of two boards, on each half a board taken; two whole boards are asked for as often as half a board.
fn halves() -> (Ledger, [ReservationId; 2]) {
    let mut ledger = fleet(&[(8, 2, 0), (8, 2, 0)], PoolStrategy::BestFit);
    let half = |ledger: &mut Ledger, node: u32| {
        let asked = with_gpu(GpuAsk::milli(500));
        let mut planner = Planner::new(ledger, 0);
        let Verdict::Place(mut place) = planner.place(ledger, &asked) else { panic!("it fits") };
        place.members[0].node = NodeId(node);
        place.members[0].devices[0].device = plimsoll_types::DeviceIndex(0);
        submit(ledger, asked, Verdict::Place(place))
    };
    let both = [half(&mut ledger, 0), half(&mut ledger, 1)];
    for _ in 0..2 {
        submit(&mut ledger, with_gpu(GpuAsk::whole(2)), Verdict::Blocked(vec![]));
    }
    (ledger, both)
}

#[test]
fn what_is_stranded_is_what_the_expected_requests_cannot_use() {
    let (ledger, _) = halves();
    let [found] = &Terrain::of_pool(&ledger, "default").fragmentation()[..] else { panic!("one class") };
    assert_eq!((found.devices, found.free_milli), (4, 3_000));
    // Halves can use all of it, pairs of whole boards nothing: the mean of 0 and 3,000.
    assert_eq!((found.stranded_milli, found.permille()), (1_500, 500));
    assert!(found.is_over(500) && !found.is_over(501) && !found.is_over(0));
}

#[test]
fn a_class_that_nobody_asked_for_is_measured_by_its_whole_devices() {
    let ledger = fleet(&[(8, 2, 0), (8, 3, 1)], PoolStrategy::BestFit);
    let found = Terrain::of_pool(&ledger, "default").fragmentation();
    let seen: Vec<_> =
        found.iter().map(|one| (one.class.model.as_str(), one.devices, one.stranded_milli)).collect();
    assert_eq!(seen, [("a100", 2, 0), ("t4", 3, 0)]);
}

#[test]
fn one_of_two_halves_moves_to_the_other_where_that_is_worth_its_work() {
    let (mut ledger, [first, second]) = halves();
    wait(&mut ledger, 3_601_000);
    let plan = Terrain::of_pool(&ledger, "default").plan(10);
    assert_eq!((plan.movable, plan.unmovable, plan.moves.len()), (2, 0, 1));
    let one = &plan.moves[0];
    assert!([first, second].contains(&one.reservation));
    assert_ne!(one.from.node, one.to.node);
    // A pair of boards is free then: 2,000 of 3,000 more can be used by half of the requests.
    // (1,000 of 4,000) / (half of all work) is 1/2: just worth it.
    let cost = Cost { saving_milli: 1_000, held_milli: 500, lost_ms: 3_600_000, score_permille: 500 };
    assert_eq!(one.cost, cost);
    let [opens] = &plan.opens[..] else { panic!("{:?}", plan.opens) };
    assert_eq!((&opens.gpu, opens.nodes_before, opens.nodes_after), (&GpuAsk::whole(2), 0, 1));
    // The other half could only go to where the first is now, and nothing is gained by that.
    let [stays] = &plan.stays[..] else { panic!("{:?}", plan.stays) };
    assert_eq!(stays.why, Why::NothingSaved);
    assert_eq!((plan.before[0].stranded_milli, plan.after[0].stranded_milli), (1_500, 500));
}

#[test]
fn a_plan_stays_within_what_was_asked_for_and_what_the_pool_may_preempt() {
    let (mut ledger, _) = halves();
    wait(&mut ledger, 3_601_000);
    let mut pool = Pool::clone(ledger.pool("default").expect("it is there"));
    pool.max_preemptions_per_hour = 1;
    fixture::put_pool(&mut ledger, pool);
    let plan = Terrain::of_pool(&ledger, "default").plan(10);
    assert_eq!((plan.preemptions_left, plan.moves.len()), (1, 1));
    let plan = Terrain::of_pool(&ledger, "default").plan(0);
    assert_eq!(plan.stays.iter().map(|one| &one.why).collect::<Vec<_>>(), [&Why::NoMoreMoves; 2]);
    assert_eq!(plan.before, plan.after);
}

#[test]
fn what_has_run_for_long_is_worth_less_than_it_would_lose() {
    // The second half came an hour after the first: moving the first would save as much and lose nearly all of the work.
    let mut ledger = fleet(&[(8, 2, 0), (8, 2, 0)], PoolStrategy::WorstFit);
    let half = |ledger: &mut Ledger| {
        let asked = with_gpu(GpuAsk::milli(500));
        let verdict = Planner::new(ledger, 0).place(ledger, &asked);
        submit(ledger, asked, verdict)
    };
    let old = half(&mut ledger);
    wait(&mut ledger, 3_601_000);
    // At the clock's time: the fixture's own is before it.
    let young = half(&mut ledger);
    for _ in 0..6 {
        submit(&mut ledger, with_gpu(GpuAsk::milli(500)), Verdict::Blocked(vec![]));
    }
    submit(&mut ledger, with_gpu(GpuAsk::whole(2)), Verdict::Blocked(vec![]));
    wait(&mut ledger, 3_601_000 + 3_600_000);
    let plan = Terrain::of_pool(&ledger, "default").plan(10);
    // Of nine requests one asks for a pair: 2,000 of 9 are saved, a ninth of 4,000 and a half; a third of all work is lost.
    assert_eq!(plan.moves, vec![]);
    let whys: Vec<_> = plan.stays.iter().map(|one| (one.reservation, one.why.clone())).collect();
    let score = |why: &Why| match why {
        Why::NotWorthIt(_, cost) => (cost.saving_milli, cost.score_permille),
        other => panic!("{other:?}"),
    };
    assert_eq!(whys.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [young, old]);
    assert_eq!(whys.iter().map(|(_, why)| score(why)).collect::<Vec<_>>(), [(222, 166), (222, 83)]);
}

#[test]
fn who_would_not_come_back_or_may_not_be_preempted_is_not_moved() {
    let changes: [fn(&mut Request); 4] = [
        |asked| asked.wait = Wait::Refuse,
        |asked| asked.on_preempt = OnPreempt::End,
        |asked| asked.topology.required = "node".into(),
        |asked| asked.class = "standard".into(),
    ];
    for change in changes {
        let mut ledger = fleet(&[(8, 2, 0), (8, 2, 0)], PoolStrategy::WorstFit);
        for _ in 0..2 {
            let mut asked = with_gpu(GpuAsk::milli(500));
            change(&mut asked);
            let verdict = Planner::new(&ledger, 0).place(&ledger, &asked);
            submit(&mut ledger, asked, verdict);
        }
        wait(&mut ledger, 3_601_000);
        let plan = Terrain::of_pool(&ledger, "default").plan(10);
        assert_eq!((plan.movable, plan.unmovable, plan.moves), (0, 2, vec![]));
        assert!(plan.stays.iter().all(|one| matches!(&one.why, Why::Bound(why) if !why.is_empty())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_move_is_one_that_the_ledger_admits_and_nothing_is_stranded_by_them(
        sizes in sizes(10),
        requests in prop::collection::vec(request(), 1..24),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut ledger = fleet(&sizes, PoolStrategy::Random);
        let mut running = Vec::new();
        for (index, mut asked) in requests.into_iter().enumerate() {
            asked.class = "batch".into();
            let verdict = Planner::new(&ledger, index as u64).place(&ledger, &asked);
            if let Outcome::Reservation(made) = apply(&mut ledger, Command::Submit { request: asked, verdict }) {
                running.push(made.id);
            }
        }
        for end in ends {
            if !running.is_empty() {
                apply(&mut ledger, Command::Cancel { reservation: *end.get(&running) });
            }
        }
        wait(&mut ledger, 100_000);
        let plan = Terrain::of_pool(&ledger, "default").plan(100);
        let sum = |all: &[plimsoll_scheduler::Fragmentation]| {
            all.iter().map(|one| (one.free_milli, one.stranded_milli)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
        };
        let (before, after) = (sum(&plan.before), sum(&plan.after));
        // Each class is rounded down by itself.
        prop_assert!(after.1 <= before.1 + plan.before.len() as u64);
        prop_assert!(plan.moves.is_empty() || before.1 > after.1 || plan.moves.iter().all(|one| one.cost.saving_milli == 0));
        for one in &plan.moves {
            prop_assert!(one.cost.score_permille >= 500);
            let held = ledger.reservation(one.reservation).expect("it is there").clone();
            prop_assert_eq!(&held.members[..], std::slice::from_ref(&one.from));
            apply(&mut ledger, Command::Release { reservation: held.id, token: held.token });
            let request = Request { wait: Wait::Refuse, ..Request::clone(&held.request) };
            let verdict = Verdict::Place(Placement { members: vec![one.to.clone()] });
            let came = apply(&mut ledger, Command::Submit { request, verdict });
            prop_assert!(matches!(came, Outcome::Reservation(_)), "{:?}: {:?}", one, came);
        }
        // What is free is as it was said to be.
        let now = Terrain::of_pool(&ledger, "default").fragmentation();
        prop_assert_eq!(now.iter().map(|one| one.free_milli).collect::<Vec<_>>(), plan.after.iter().map(|one| one.free_milli).collect::<Vec<_>>());
    }
}
