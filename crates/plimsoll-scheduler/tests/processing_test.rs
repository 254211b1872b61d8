//! Batches of queues and guaranteed processing, as the planner sees to them: what it proposes the ledger grants.

mod fixture;

use std::collections::BTreeMap;

use fixture::{apply_at, fleet, plain, put_pool};
use plimsoll_ledger::{
    Batch, Command, Ledger, Outcome, PolicyObject, Pool, Queue, QueueDiscipline, Quota, Reason, Request,
    State, Strategy as PoolStrategy, Verdict, Wait,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::{Amount, ReservationId, Revision};
use proptest::prelude::*;

const INTERVAL_MS: u64 = 10_000;

struct World {
    ledger: Ledger,
    planner: Planner,
    now: u64,
}

impl World {
    /// One node of so many cores, and queues put beside the pool.
    fn new(cores: u64, pool: Pool, queues: &[Queue]) -> World {
        let mut ledger = fleet(&[(cores, 0, 0)], PoolStrategy::BestFit);
        put_pool(&mut ledger, Pool { name: "default".into(), ..pool });
        let put = queues.iter().cloned().map(PolicyObject::Queue).collect();
        let command = Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) };
        assert_eq!(apply_at(&mut ledger, 1_000, command), Outcome::Done);
        World { planner: Planner::new(&ledger, 0), ledger, now: 1_000 }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        apply_at(&mut self.ledger, self.now, command)
    }

    /// Ledger time comes to `at`.
    fn pass_to(&mut self, at: u64) {
        self.now = at;
        self.apply(Command::Expire { limit: 1_000 });
        let nodes: Vec<_> = self.ledger.nodes().map(|node| node.id).collect();
        self.planner.sync(&self.ledger, nodes);
        self.planner.tick(&self.ledger, self.ledger.clock());
    }

    fn submit_all(&mut self, requests: &[Request]) -> Vec<(ReservationId, Verdict)> {
        let asked: Vec<&Request> = requests.iter().collect();
        let planned = self.planner.plan_batch(&self.ledger, &asked);
        let mut all = Vec::new();
        for (request, (verdict, ticket)) in requests.iter().zip(planned) {
            let came = self.apply(Command::Submit { request: request.clone(), verdict: verdict.clone() });
            let Outcome::Reservation(reservation) = came else { panic!("{came:?}") };
            if let Some(ticket) = ticket {
                self.planner.settle(&self.ledger, ticket);
            }
            self.planner.note_arrival(&self.ledger, &reservation);
            all.push((reservation.id, verdict));
        }
        all
    }

    /// Walks over the queue until nobody finds a place; whatever is proposed has to be granted.
    fn serve(&mut self) -> Vec<ReservationId> {
        let mut granted = Vec::new();
        loop {
            let placed = self.planner.plan_queue(&self.ledger, 100);
            if placed.is_empty() {
                return granted;
            }
            for (reservation, placement, ticket) in placed {
                let came = self.apply(Command::Place { reservation, placement });
                assert!(matches!(came, Outcome::Reservation(_)), "{came:?}");
                self.planner.settle(&self.ledger, ticket);
                granted.push(reservation);
            }
        }
    }
}

fn nightly(size: u32) -> Queue {
    Queue {
        name: "nightly".into(),
        batch: Some(Batch { size, interval_ms: INTERVAL_MS }),
        ..Queue::default()
    }
}

fn of(queue: &str, cpu_millis: u64) -> Request {
    Request {
        queue: queue.into(),
        wait: Wait::Queue { deadline_ms: 0 },
        ttl_ms: 86_400_000,
        auto_confirm: true,
        ..plain(cpu_millis)
    }
}

#[test]
fn new_requests_of_a_queue_with_batches_wait_for_the_next_whatever_the_strategy() {
    for strategy in [PoolStrategy::BestFit, PoolStrategy::Optimized] {
        let mut world = World::new(8, Pool { strategy, ..Pool::default() }, &[nightly(2)]);
        let asked = vec![of("nightly", 1_000), of("nightly", 1_000), of("nightly", 1_000), of("", 1_000)];
        let came = world.submit_all(&asked);
        for (_, verdict) in &came[..3] {
            let Verdict::Blocked(blockers) = verdict else { panic!("{verdict:?}") };
            assert!(blockers.iter().any(|blocker| blocker.reason == Reason::AwaitsBatch), "{blockers:?}");
        }
        assert!(matches!(came[3].1, Verdict::Place(_)), "others start at once");
        assert_eq!(world.planner.next_walk_at().map(|at| at.0), Some(INTERVAL_MS));
        assert_eq!(world.serve(), vec![]);
        world.pass_to(INTERVAL_MS);
        assert!(world.planner.wants_queue_pass(), "a batch has begun");
        assert_eq!(world.serve(), vec![came[0].0, came[1].0]);
        assert_eq!(world.planner.next_walk_at().map(|at| at.0), Some(2 * INTERVAL_MS));
        world.pass_to(2 * INTERVAL_MS);
        assert_eq!(world.serve(), vec![came[2].0]);
        assert_eq!(world.planner.next_walk_at(), None);
    }
}

#[test]
fn within_one_walk_the_batch_is_not_overfilled_by_places_on_their_way() {
    let mut world = World::new(8, Pool::default(), &[nightly(3)]);
    world.submit_all(&vec![of("nightly", 1_000); 6]);
    world.pass_to(INTERVAL_MS);
    assert_eq!(world.planner.plan_queue(&world.ledger, 100).len(), 3);
    assert!(world.planner.plan_queue(&world.ledger, 100).is_empty(), "three are on their way");
}

#[test]
fn nobody_overtakes_who_waits_in_a_queue_that_promises_to_process_it() {
    let sure = Queue { name: "sure".into(), guaranteed_processing: true, ..Queue::default() };
    for queueing in [QueueDiscipline::ByQueueOrder, QueueDiscipline::Skip, QueueDiscipline::Priority] {
        let mut world = World::new(8, Pool { queueing, ..Pool::default() }, std::slice::from_ref(&sure));
        let held = world.submit_all(&[of("", 4_000), of("", 4_000)]);
        let whole = world.submit_all(&[of("sure", 8_000)])[0].0;
        assert_eq!(world.serve(), vec![]);
        let small = world.submit_all(&[of("", 1_000), of("", 1_000)]);
        for (id, _) in held {
            let token = world.ledger.reservation(id).expect("it is there").token;
            world.apply(Command::Release { reservation: id, token });
            world.pass_to(world.now + 1);
            let granted = world.serve();
            assert!(small.iter().all(|(id, _)| !granted.contains(id)), "{queueing:?}: {granted:?}");
        }
        assert_eq!(
            world.ledger.reservation(whole).expect("it is there").state,
            State::Active,
            "{queueing:?}"
        );
    }
}

#[test]
fn who_waits_for_more_than_its_queue_can_ever_have_holds_nobody_back() {
    let quota = |cores: u64| {
        let nominal = Amount(cores * 1_000);
        let most = Quota { limit: Some(nominal), nominal, ..Quota::default() };
        let of_cpu = BTreeMap::from([("cpu".into(), most)]);
        Queue { name: "org".into(), quotas: BTreeMap::from([("default".into(), of_cpu)]), ..Queue::default() }
    };
    let below = |name: &str| Queue {
        name: name.into(),
        parent: "org".into(),
        guaranteed_processing: true,
        ..Queue::default()
    };
    let pool = Pool { starvation_bound_ms: 1_000, ..Pool::default() };
    let mut world = World::new(8, pool, &[quota(8), below("speech"), below("vision")]);
    let held = world.submit_all(&[of("", 8_000)])[0].0;
    let large = world.submit_all(&[of("speech", 6_000)])[0].0;
    let small = world.submit_all(&[of("vision", 1_000)])[0].0;
    let less = Command::ApplyPolicy {
        put: vec![PolicyObject::Queue(quota(4))],
        delete: vec![],
        if_revision: Revision(0),
    };
    assert_eq!(world.apply(less), Outcome::Done);
    let token = world.ledger.reservation(held).expect("it is there").token;
    world.apply(Command::Release { reservation: held, token });
    world.pass_to(10_000);
    assert_eq!(world.serve(), vec![small], "{large} asks for 6 of at most 4 cores");
    assert!(matches!(world.submit_all(&[of("", 1_000)])[0].1, Verdict::Place(_)), "nor who comes now");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes and goes, no interval has more than its batch, nobody starts in the interval that he came in, and all start in the end.
    #[test]
    fn every_batch_is_of_its_size_and_everybody_has_a_turn(
        size in 1..4u32,
        strict in any::<bool>(),
        arrivals in prop::collection::vec((0..25_000u64, 1..5u64), 1..20),
    ) {
        let queueing = if strict { QueueDiscipline::Strict } else { QueueDiscipline::Skip };
        let mut world = World::new(8, Pool { queueing, ..Pool::default() }, &[nightly(size)]);
        let mut came: BTreeMap<ReservationId, u64> = BTreeMap::new();
        for (after_ms, cores) in arrivals {
            world.pass_to(world.now + after_ms);
            let asked = Request { max_duration_ms: 15_000, ttl_ms: 15_000, ..of("nightly", cores * 1_000) };
            let id = world.submit_all(&[asked])[0].0;
            came.insert(id, world.now);
            world.serve();
        }
        let mut rounds = 0;
        while world.ledger.pending_len("default") > 0 {
            let due = world.ledger.next_due().into_iter().chain(world.planner.next_walk_at()).min();
            let due = due.expect("somebody waits for something");
            world.pass_to(world.now.max(due.0));
            world.serve();
            rounds += 1;
            prop_assert!(rounds < 1_000, "it does not come to an end");
        }
        let mut batches: BTreeMap<u64, u32> = BTreeMap::new();
        for (id, at) in came {
            let granted = world.ledger.reservation(id).expect("kept for an hour").granted_at.0;
            prop_assert!(granted / INTERVAL_MS > at / INTERVAL_MS, "{id} came at {at} and started at {granted}");
            *batches.entry(granted / INTERVAL_MS).or_default() += 1;
        }
        prop_assert!(batches.values().all(|granted| *granted <= size), "{batches:?}");
    }
}
