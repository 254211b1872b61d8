//! The planner against the ledger: what it places is admitted, what it books is never oversold, and where it says no,
//! no node fits.

use plimsoll_ledger::{
    Command, Device, Entry, Gang, GpuAsk, GpuShare, Ledger, Outcome, Placement, PolicyObject, Pool,
    Registration, Request, Requirements, Stamp, Strategy as PoolStrategy, Verdict, Wait,
};
use plimsoll_scheduler::{Planner, explain, explain_request};
use plimsoll_types::{LedgerTime, NodeId, Operator, Resources, Revision, Selector, Term};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn apply(ledger: &mut Ledger, command: Command) -> Outcome {
    let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: LedgerTime(1_000) };
    ledger.apply(stamp, &Entry::system(command)).answer.outcome
}

fn fleet(sizes: &[(u64, usize, u8)], strategy: PoolStrategy) -> Ledger {
    let mut ledger = Ledger::new();
    let pool = Pool { name: "default".into(), strategy, ..Pool::default() };
    apply(
        &mut ledger,
        Command::ApplyPolicy {
            put: vec![PolicyObject::Pool(pool)],
            delete: vec![],
            if_revision: Revision(0),
        },
    );
    for (index, (cores, devices, kind)) in sizes.iter().enumerate() {
        let device = |n: usize| Device {
            uuid: format!("GPU-{index}-{n}"),
            model: if *kind % 2 == 0 { "a100" } else { "t4" }.into(),
            memory_bytes: if *kind % 2 == 0 { 80 * GIB } else { 16 * GIB },
            failed: false,
        };
        let registration = Registration {
            name: format!("node-{index}"),
            incarnation: 1,
            labels: [("zone".to_owned(), if *kind < 2 { "a" } else { "b" }.to_owned())].into(),
            capacity: Resources::new(cores * 1_000, cores * 4 * GIB),
            devices: (0..*devices).map(device).collect(),
            ..Registration::default()
        };
        apply(&mut ledger, Command::RegisterNode(registration));
    }
    ledger
}

fn request() -> impl Strategy<Value = Request> {
    let share = prop_oneof![
        Just(GpuShare::Whole),
        prop_oneof![Just(250u16), Just(500), Just(460)].prop_map(GpuShare::Milli),
        Just(GpuShare::Memory(10 * GIB)),
    ];
    let gpu = prop::option::weighted(0.6, (share, 1u32..4, prop::bool::ANY));
    (1u64..9_000, gpu, 1u32..4, prop::bool::weighted(0.3), prop::bool::weighted(0.3)).prop_map(
        |(cpu, gpu, members, spread, zoned)| {
            let gpu = gpu.map(|(share, count, any)| GpuAsk {
                count: if share == GpuShare::Whole { count } else { 1 },
                share,
                models: if any { vec![] } else { vec!["a100".into()] },
                ..GpuAsk::whole(1)
            });
            let term = Term { key: "zone".into(), operator: Operator::In, values: vec!["b".into()] };
            Request {
                pool: "default".into(),
                class: "standard".into(),
                requirements: Requirements {
                    amounts: Resources::new(cpu, GIB),
                    gpu,
                    required: Selector { terms: if zoned { vec![term] } else { vec![] } },
                    preferred: vec![],
                },
                gang: Gang { min_members: members, max_members: members, spread },
                auto_confirm: true,
                wait: Wait::Queue { deadline_ms: 0 },
                ..Request::default()
            }
        },
    )
}

fn strategy() -> impl Strategy<Value = PoolStrategy> {
    prop_oneof![
        Just(PoolStrategy::Greedy),
        Just(PoolStrategy::Balanced),
        Just(PoolStrategy::Priority),
        Just(PoolStrategy::FirstFit),
        Just(PoolStrategy::BestFit),
        Just(PoolStrategy::WorstFit),
        Just(PoolStrategy::FirstFitDecreasing),
        Just(PoolStrategy::Random),
    ]
}

/// One member on any node at all, by asking `admit` for every node and every first device.
fn fits_somewhere(ledger: &Ledger, request: &Request) -> bool {
    ledger.nodes().any(|node| {
        let devices = node.registration.devices.len() as u16;
        let Some(gpu) = &request.requirements.gpu else {
            return ledger.admit(request, &placement(node.id, vec![])).is_ok();
        };
        let grant = |index: u16| {
            let memory = node.registration.devices[usize::from(index)].memory_bytes;
            let (milli, memory_bytes) = gpu.share.of_device(memory);
            (milli <= 1_000).then_some(plimsoll_ledger::DeviceGrant {
                device: plimsoll_types::DeviceIndex(index),
                milli: milli as u16,
                memory_bytes,
            })
        };
        // All sets of the right size: fleets here have at most three devices a node.
        (0u32..1 << devices).filter(|set| set.count_ones() == gpu.count).any(|set| {
            let grants: Option<Vec<_>> = (0..devices).filter(|i| set & (1 << i) != 0).map(grant).collect();
            grants.is_some_and(|grants| ledger.admit(request, &placement(node.id, grants)).is_ok())
        })
    })
}

fn placement(node: NodeId, devices: Vec<plimsoll_ledger::DeviceGrant>) -> Placement {
    Placement { members: vec![plimsoll_ledger::MemberPlacement { node, devices }] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_placed_is_admitted_and_a_no_means_that_nothing_fits(
        sizes in prop::collection::vec((1u64..10, 0usize..4, 0u8..4), 1..8),
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
                        prop_assert!(!single || !fits_somewhere(&ledger, request), "{:?} is not infeasible", request);
                    }
                }
                if single && batch.len() == 1 && !matches!(verdict, Verdict::Place(_)) {
                    prop_assert!(!fits_somewhere(&ledger, request), "a place was missed for {:?}", request);
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
            let held: Vec<_> = ledger.reservations().filter(|r| r.state.is_occupying()).cloned().collect();
            if !held.is_empty() {
                let gone = &held[release % held.len()];
                let nodes: Vec<NodeId> = gone.members.iter().map(|m| m.node).collect();
                apply(&mut ledger, Command::Release { reservation: gone.id, token: gone.token });
                planner.sync(&ledger, nodes);
                prop_assert!(planner.wants_queue_pass());
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
        sizes in prop::collection::vec((1u64..10, 0usize..4, 0u8..4), 1..6),
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
            let verdict = Planner::new(&ledger, 1).place(&ledger, &suggestion.request);
            let mut fork = ledger.clone();
            let outcome = apply(&mut fork, Command::Submit { request: suggestion.request, verdict });
            let granted = matches!(&outcome, Outcome::Reservation(r) if r.token.0 > 0);
            prop_assert!(granted, "{} does not help: {:?}", suggestion.description, outcome);
        }
    }
}

#[test]
fn a_queue_is_explained_with_rank_and_numbers() {
    let mut ledger = fleet(&[(4, 0, 0)], PoolStrategy::BestFit);
    let ask = |cpu| Request {
        pool: "default".into(),
        class: "standard".into(),
        requirements: Requirements { amounts: Resources::new(cpu, GIB), ..Requirements::default() },
        wait: Wait::Queue { deadline_ms: 0 },
        ..Request::default()
    };
    let mut submit = |cpu| {
        let verdict = Planner::new(&ledger, 0).place(&ledger, &ask(cpu));
        let outcome = apply(&mut ledger, Command::Submit { request: ask(cpu), verdict });
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
    assert!(explain_request(&ledger, &ask(4_001)).infeasible);
}

#[test]
fn best_fit_keeps_whole_gpus_whole_and_worst_fit_spreads() {
    let share = |ledger: &Ledger| {
        let mut request = Request {
            pool: "default".into(),
            class: "standard".into(),
            auto_confirm: true,
            ..Request::default()
        };
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
