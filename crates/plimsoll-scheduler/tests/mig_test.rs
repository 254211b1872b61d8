//! Instances of profiles: on which node and device they go, and what is said where none fits.

mod fixture;

use fixture::mig::{cut_in_eight, mig};
use fixture::{GIB, STRATEGIES, apply, plain, put_pool};
use plimsoll_ledger::{
    Command, Device, GpuAsk, Ledger, Pool, Registration, Request, Strategy, Verdict, Wait,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::Resources;

/// Nodes with so many boards that are cut, and one board that is not on each.
fn boards(counts: &[usize], strategy: Strategy) -> Ledger {
    let mut ledger = Ledger::new();
    apply(&mut ledger, Command::Upgrade { to: plimsoll_ledger::LATEST_VERSION });
    put_pool(&mut ledger, Pool { name: "default".into(), strategy, ..Pool::default() });
    for (index, count) in counts.iter().enumerate() {
        let device = |n: usize| Device {
            uuid: format!("GPU-{index}-{n}"),
            model: "a100".into(),
            memory_bytes: 80 * GIB,
            failed: false,
            mig: (n < *count).then(cut_in_eight),
        };
        let registration = Registration {
            name: format!("node-{index}"),
            incarnation: 1,
            capacity: Resources::new(64_000, 640 * GIB),
            devices: (0..=*count).map(device).collect(),
            ..Registration::default()
        };
        apply(&mut ledger, Command::RegisterNode(registration));
    }
    ledger
}

fn instance(name: &str) -> Request {
    let mut request = plain(100);
    request.requirements.gpu = Some(GpuAsk { share: mig(name), ..GpuAsk::whole(1) });
    request.wait = Wait::Refuse;
    request
}

/// Device and first slice of what was granted; the verdict where nothing was.
fn submit(ledger: &mut Ledger, name: &str) -> Result<(u32, u16, u8), Verdict> {
    let request = instance(name);
    let verdict = Planner::new(ledger, 1).place(ledger, &request);
    let Verdict::Place(placement) = &verdict else { return Err(verdict) };
    let member = &placement.members[0];
    let grant = member.devices[0];
    let found = (member.node.0, grant.device.0, grant.slices.expect("it is an instance").start);
    apply(ledger, Command::Submit { request, verdict });
    Ok(found)
}

#[test]
fn an_instance_goes_where_it_breaks_up_the_least() {
    let mut ledger = boards(&[2], Strategy::Greedy);
    // The second board is left alone while a start on the first breaks no larger place than one on an empty board would.
    let found: Vec<_> = (0..8).map(|_| submit(&mut ledger, "1g.10gb").expect("there is room")).collect();
    let places: Vec<(u16, u8)> = found.iter().map(|(_, device, start)| (*device, *start)).collect();
    assert_eq!(places, [(0, 6), (0, 4), (0, 5), (0, 0), (0, 1), (0, 2), (0, 3), (1, 6)]);
    let mut ledger = boards(&[2], Strategy::Greedy);
    assert_eq!(submit(&mut ledger, "3g.40gb"), Ok((0, 0, 4)));
    assert_eq!(submit(&mut ledger, "3g.40gb"), Ok((0, 0, 0)));
    assert_eq!(submit(&mut ledger, "1g.10gb"), Ok((0, 1, 6)));
    assert_eq!(submit(&mut ledger, "4g.40gb"), Ok((0, 1, 0)));
    assert_eq!(submit(&mut ledger, "2g.20gb"), Ok((0, 1, 4)));
}

#[test]
fn a_gap_on_one_board_is_filled_before_a_pair_on_another_is_broken() {
    let mut ledger = boards(&[2], Strategy::BestFit);
    for _ in 0..3 {
        submit(&mut ledger, "1g.10gb").expect("there is room");
    }
    // 6, 4 and 5 are taken on the first: a fourth there breaks a 4g, on the second board it breaks a 7g.
    assert_eq!(submit(&mut ledger, "1g.10gb"), Ok((0, 0, 0)));
    submit(&mut ledger, "4g.40gb").expect("the second board is empty");
    // The second has room at its end, where a 3g is lost; the first the gap beside 0.
    assert_eq!(submit(&mut ledger, "1g.10gb"), Ok((0, 0, 1)));
}

#[test]
fn every_strategy_places_instances_and_fills_the_boards() {
    for strategy in STRATEGIES {
        let mut ledger = boards(&[1, 2], strategy);
        let mut granted = 0;
        while submit(&mut ledger, "1g.10gb").is_ok() {
            granted += 1;
        }
        assert_eq!(granted, 21, "{strategy:?}");
        let whole = Planner::new(&ledger, 1).place(
            &ledger,
            &Request {
                requirements: plimsoll_ledger::Requirements {
                    gpu: Some(GpuAsk::whole(1)),
                    ..plimsoll_ledger::Requirements::default()
                },
                ..instance("1g.10gb")
            },
        );
        assert!(matches!(whole, Verdict::Place(_)), "the boards that are not cut are free: {whole:?}");
        assert_eq!(ledger.check_invariants(), Vec::new());
    }
}

#[test]
fn large_instances_of_a_batch_go_first_where_the_strategy_says_so() {
    let ledger = boards(&[1], Strategy::FirstFitDecreasing);
    let asked = ["1g.10gb", "1g.10gb", "1g.10gb", "4g.40gb"].map(instance);
    let planned = Planner::new(&ledger, 1).plan_batch(&ledger, &asked.iter().collect::<Vec<_>>());
    assert!(planned.iter().all(|(verdict, _)| matches!(verdict, Verdict::Place(_))), "{planned:?}");
}

#[test]
fn a_refusal_says_what_would_still_fit() {
    let mut ledger = boards(&[1], Strategy::Greedy);
    submit(&mut ledger, "3g.40gb").expect("the board is empty");
    submit(&mut ledger, "1g.10gb").expect("half of it is");
    let Err(Verdict::Blocked(blockers)) = submit(&mut ledger, "3g.40gb") else { panic!("there is no room") };
    let subjects: Vec<&str> = blockers.iter().map(|blocker| blocker.subject.as_str()).collect();
    assert_eq!(subjects, ["mig 3g.40gb (free: 1 x 2g.20gb, 1 x 1g.20gb, 3 x 1g.10gb)"]);
    assert_eq!((blockers[0].asked, blockers[0].available, blockers[0].nodes), (1, 0, 1));
    let Err(Verdict::Infeasible(blockers)) = submit(&mut ledger, "3g.20gb") else {
        panic!("no board has it")
    };
    assert_eq!(
        blockers[0].subject,
        "mig 3g.20gb (profiles here: 7g.80gb, 4g.40gb, 3g.40gb, 2g.20gb, 1g.20gb, 1g.10gb)"
    );
}
