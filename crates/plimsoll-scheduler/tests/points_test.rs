//! Queues that go by points: what each weight does, what explain says of it, and an order as the page has it.

mod fixture;

use std::cmp::Reverse;

use fixture::{apply_at, fleet, plain};
use plimsoll_ledger::{
    Class, Command, Fairness, GpuAsk, GpuShare, Ledger, MAX_POINTS, Outcome, PolicyObject, Pool,
    PriorityWeights, Qos, Queue, QueueDiscipline, Reason, Request, Strategy as PoolStrategy, Verdict, Wait,
};
use plimsoll_scheduler::{Planner, StartEstimates, explain, points_of, rank_of};
use plimsoll_types::{ReservationId, Revision};
use proptest::prelude::*;

const HOUR_MS: u64 = 3_600_000;
const NONE: PriorityWeights = PriorityWeights {
    age: 0,
    max_age_ms: 24 * HOUR_MS,
    size: 0,
    fair_share: 0,
    qos: 0,
    resources: std::collections::BTreeMap::new(),
};

struct World {
    ledger: Ledger,
    now: u64,
}

impl World {
    /// One node of so many cores and devices, in a pool that goes by these points.
    fn new(cores: u64, devices: usize, weights: Option<PriorityWeights>) -> World {
        let ledger = fleet(&[(cores, devices, 0)], PoolStrategy::BestFit);
        let mut world = World { ledger, now: 2_000_000 };
        world.put(vec![PolicyObject::Pool(by_points(weights))]);
        world
    }

    fn put(&mut self, put: Vec<PolicyObject>) {
        let command = Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) };
        assert_eq!(self.run(command), Outcome::Done);
    }

    fn run(&mut self, command: Command) -> Outcome {
        apply_at(&mut self.ledger, self.now, command)
    }

    /// It waits, whatever room there is.
    fn wait(&mut self, request: Request) -> ReservationId {
        let wait = Wait::Queue { deadline_ms: 0 };
        let request = Request { wait, auto_confirm: true, ..request };
        let came = self.run(Command::Submit { request, verdict: Verdict::Blocked(vec![]) });
        let Outcome::Reservation(reservation) = came else { panic!("{came:?}") };
        reservation.id
    }

    /// One walk over the queue: who was placed, in order.
    fn walk(&mut self) -> Vec<ReservationId> {
        let mut planner = Planner::new(&self.ledger, 0);
        let mut placed = Vec::new();
        for (reservation, placement, _) in planner.plan_queue(&self.ledger, usize::MAX) {
            let came = self.run(Command::Place { reservation, placement });
            assert!(matches!(came, Outcome::Reservation(_)), "{came:?}");
            placed.push(reservation);
        }
        placed
    }

    fn terms(&self, id: ReservationId) -> Vec<(String, i64)> {
        let waiting = self.ledger.reservation(id).expect("it waits");
        let (total, terms) = points_of(&self.ledger, waiting).expect("the pool goes by points");
        assert_eq!(terms.iter().map(|term| term.points).sum::<i64>(), total, "{terms:?}");
        terms.into_iter().map(|term| (term.name, term.points)).collect()
    }
}

fn by_points(priority_weights: Option<PriorityWeights>) -> Pool {
    let queueing = QueueDiscipline::Priority;
    // Nobody goes first for having waited past the bound.
    let starvation_bound_ms = 300 * 24 * HOUR_MS;
    Pool { name: "default".into(), queueing, priority_weights, starvation_bound_ms, ..Pool::default() }
}

fn gpus(count: u32) -> Request {
    let mut request = plain(100);
    request.requirements.gpu = Some(GpuAsk { share: GpuShare::Whole, ..GpuAsk::whole(count) });
    request
}

fn queue(name: &str, parent: &str) -> PolicyObject {
    PolicyObject::Queue(Queue { name: name.into(), parent: parent.into(), ..Queue::default() })
}

#[test]
fn each_weight_lets_a_younger_request_go_first() {
    let weights = [
        (PriorityWeights { size: 100, ..NONE }, plain(4_000), plain(500)),
        (PriorityWeights { resources: [("cpu".to_owned(), 100)].into(), ..NONE }, plain(500), plain(4_000)),
        (PriorityWeights { resources: [("gpu".to_owned(), 100)].into(), ..NONE }, gpus(1), gpus(2)),
        (
            PriorityWeights { qos: 10, ..NONE },
            Request { qos: Some(Qos::Burstable), ..plain(500) },
            Request { qos: Some(Qos::Guaranteed), ..plain(500) },
        ),
        (
            PriorityWeights { qos: 10, ..NONE },
            Request { qos: Some(Qos::BestEffort), ..plain(500) },
            Request { qos: Some(Qos::Burstable), ..plain(500) },
        ),
        (NONE, Request { nice: 1, ..plain(500) }, plain(500)),
    ];
    for (weights, older, younger) in weights {
        let mut world = World::new(8, 4, Some(weights.clone()));
        let ids = [world.wait(older), world.wait(younger)];
        let ranks = ids.map(|id| rank_of(&world.ledger, world.ledger.reservation(id).unwrap()));
        assert_eq!(ranks, [2, 1], "{weights:?}");
        assert_eq!(world.walk(), [ids[1], ids[0]], "{weights:?}");
    }
}

#[test]
fn age_counts_up_to_its_most_and_the_class_goes_before_all_points() {
    let mut world = World::new(8, 0, Some(PriorityWeights { age: 1_000, size: 1_000, ..NONE }));
    let high = Class { name: "high".into(), priority: 1_000, ..Class::default() };
    world.put(vec![PolicyObject::Class(high)]);
    let large = world.wait(plain(4_000));
    assert_eq!(
        world.terms(large),
        [("age".to_owned(), 0), ("size".to_owned(), 450)],
        "a half for 11 doublings"
    );
    world.now += 12 * HOUR_MS;
    let small = world.wait(plain(1_000));
    let nice = world.wait(Request { class: "high".into(), nice: MAX_POINTS, ..plain(1_000) });
    assert_eq!(world.terms(large)[0], ("age".to_owned(), 500));
    assert_eq!(world.terms(small)[1], ("size".to_owned(), 550));
    let billion = -i64::from(MAX_POINTS);
    assert_eq!(
        world.terms(nice),
        [("age".to_owned(), 0), ("size".to_owned(), 550), ("nice".to_owned(), billion)]
    );
    world.now += 100 * HOUR_MS;
    // Both have waited for the whole of it: smallness decides again.
    let latest = world.wait(plain(8_000));
    assert_eq!((world.terms(large)[0].1, world.terms(small)[0].1), (1_000, 1_000));
    let estimates = StartEstimates::new(&world.ledger, world.ledger.pool("default").unwrap(), &[]);
    let starts =
        [nice, small, large, latest].map(|id| estimates.of(id, || 0).start_at.expect("there is room"));
    assert!(starts.is_sorted() && starts[0] < starts[3], "{starts:?}");
    assert_eq!(world.walk(), [nice, small, large]);
}

#[test]
fn the_queue_that_used_least_has_the_most_points() {
    let weights = PriorityWeights { fair_share: 900, ..NONE };
    let mut world = World::new(4, 0, Some(weights));
    world.put(vec![queue("org", ""), queue("a", "org"), queue("b", "org"), queue("other", "")]);
    let of = |queue: &str| Request { queue: queue.into(), ttl_ms: 400 * HOUR_MS, ..plain(1_000) };
    for name in ["a", "a", "b", "org"] {
        world.wait(of(name));
    }
    assert_eq!(world.walk().len(), 4);
    world.now += 24 * HOUR_MS;
    let ids = ["a", "b", "other", "org", ""].map(|name| world.wait(of(name)));
    // `other` used nothing. Below `org`, `b` and what stands beside it used half of what `a` did.
    let share = ids.map(|id| world.terms(id)[0].clone());
    let expected = [225, 675, 900, 675, 0].map(|points| ("fair_share".to_owned(), points));
    assert_eq!(share, expected);
    let ranks = ids.map(|id| rank_of(&world.ledger, world.ledger.reservation(id).unwrap()));
    assert_eq!(ranks, [4, 2, 1, 3, 5], "who is in no queue has none");
    let told = explain(&world.ledger, ids[0]).expect("it is there");
    assert_eq!(told.rank, 4);
    let (total, terms) = told.points.expect("the pool goes by points");
    assert_eq!((total, terms[0].most, terms[0].told.as_str()), (225, 900, "25.0 % of the whole, by rank"));
}

#[test]
fn inside_a_queue_points_decide_whatever_goes_on_between_queues() {
    for fairness in [Fairness::Priority, Fairness::Fair, Fairness::Quota, Fairness::FairTree] {
        let mut world = World::new(8, 0, None);
        let pool = by_points(Some(PriorityWeights { size: 100, ..NONE }));
        world.put(vec![PolicyObject::Pool(Pool { fairness, ..pool }), queue("a", "")]);
        let ids = [4_000, 2_000, 1_000].map(|cpu| world.wait(Request { queue: "a".into(), ..plain(cpu) }));
        assert_eq!(world.walk(), [ids[2], ids[1], ids[0]], "{fairness:?}");
    }
}

#[test]
fn other_pools_have_no_points_and_weights_elsewhere_are_refused() {
    let mut world = World::new(4, 0, None);
    let usual = world.wait(plain(1_000));
    assert_eq!(world.terms(usual).len(), 2, "age and smallness");
    let skip = Pool { queueing: QueueDiscipline::Skip, ..by_points(None) };
    world.put(vec![PolicyObject::Pool(skip)]);
    let waiting = world.ledger.reservation(usual).unwrap();
    assert_eq!((points_of(&world.ledger, waiting), rank_of(&world.ledger, waiting)), (None, 1));
    assert_eq!(explain(&world.ledger, usual).unwrap().points, None);
    let weights = PriorityWeights { age: MAX_POINTS + 1, max_age_ms: 999, ..NONE };
    let skip = Pool { queueing: QueueDiscipline::Skip, ..by_points(Some(weights)) };
    let put = vec![PolicyObject::Pool(skip)];
    let came = world.run(Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
    let Outcome::Refused(refused) = came else { panic!("{came:?}") };
    assert_eq!((refused.reason, refused.blockers.len()), (Reason::InvalidArgument, 3), "{refused:?}");
}

/// The order that the page says, from the numbers of the requests alone.
fn order_of_the_page(weights: &PriorityWeights, asked: &[(u64, u64, u32)]) -> Vec<usize> {
    let points = |(cpu, waited_ms, nice): &(u64, u64, u32)| {
        let doublings = (0..).take_while(|times| 2u64 << times <= *cpu).count().min(20) as i128;
        let age = i128::from(weights.age) * i128::from((*waited_ms).min(weights.max_age_ms));
        let cores = i128::from(weights.resources.get("cpu").copied().unwrap_or_default());
        age / i128::from(weights.max_age_ms)
            + i128::from(weights.size) * (20 - doublings) / 20
            + cores * i128::from(*cpu) / 64_000
            - i128::from(*nice)
    };
    let mut order: Vec<usize> = (0..asked.len()).collect();
    order.sort_by_key(|index| (Reverse(points(&asked[*index])), *index));
    order
}

proptest! {
    #[test]
    fn the_walk_goes_as_the_page_says(
        weights in (0u32..2_000, 1_000u64..100_000, 0u32..2_000, 0u32..2_000),
        asked in prop::collection::vec((1u64..6_000, 0u64..20_000, prop_oneof![2 => Just(0), 1 => 0u32..500]), 1..10),
    ) {
        let (age, max_age_ms, size, cores) = weights;
        let weights = PriorityWeights { age, max_age_ms, size, resources: [("cpu".to_owned(), cores)].into(), ..NONE };
        let mut world = World::new(64, 0, Some(weights.clone()));
        let mut ids = Vec::new();
        for (cpu, pause_ms, nice) in &asked {
            world.now += pause_ms;
            ids.push((world.wait(Request { nice: *nice, ..plain(*cpu) }), world.now));
        }
        let since = |index: usize| world.now - ids[index].1;
        let asked: Vec<_> = asked.iter().enumerate().map(|(index, (cpu, _, nice))| (*cpu, since(index), *nice)).collect();
        let expected: Vec<_> = order_of_the_page(&weights, &asked).into_iter().map(|index| ids[index].0).collect();
        for (index, id) in expected.iter().enumerate() {
            prop_assert_eq!(rank_of(&world.ledger, world.ledger.reservation(*id).unwrap()), index as u64 + 1);
        }
        prop_assert_eq!(world.walk(), expected);
    }
}
