//! Preferred hours, as the planner sees to them: who waits for its hours holds back nobody, and starts when they come.

mod fixture;

use fixture::{apply_at, fleet, plain, put_pool};
use plimsoll_ledger::{
    Command, Ledger, Outcome, PolicyObject, Pool, PreferredHours, QueueOrder, Reason, Request, Schedule,
    State, Strategy as PoolStrategy, Verdict, Wait, Window,
};
use plimsoll_scheduler::{Planner, SingleChange, StartEstimates, explain};
use plimsoll_types::{LedgerTime, ReservationId, Revision};

const OPENS: u64 = 100_000;
const CLOSES: u64 = 200_000;
const AGAIN: u64 = 500_000;

struct World {
    ledger: Ledger,
    planner: Planner,
    now: u64,
}

impl World {
    /// One node of four cores, and hours from [`OPENS`] to [`CLOSES`] and from [`AGAIN`] on.
    fn new(pool: Pool) -> World {
        let mut ledger = fleet(&[(4, 0, 0)], PoolStrategy::BestFit);
        put_pool(&mut ledger, Pool { name: "default".into(), ..pool });
        let hours = Schedule {
            name: "night".into(),
            pool: "default".into(),
            rule: "nights".into(),
            ..Schedule::default()
        };
        let put = vec![PolicyObject::Schedule(hours)];
        let command = Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) };
        assert_eq!(apply_at(&mut ledger, 1_000, command), Outcome::Done);
        let window = |start, end| Window { start: LedgerTime(start), end: LedgerTime(end) };
        let windows = vec![window(OPENS, CLOSES), window(AGAIN, u64::MAX)];
        let changed = ledger.schedule("night").expect("it was put").changed;
        let (schedule, until) = ("night".to_owned(), LedgerTime(AGAIN));
        apply_at(&mut ledger, 1_000, Command::OpenWindows { schedule, changed, windows, until });
        World { planner: Planner::new(&ledger, 0), ledger, now: 1_000 }
    }

    fn submit(&mut self, request: Request) -> ReservationId {
        let (verdict, ticket) = self.planner.plan_batch(&self.ledger, &[&request]).remove(0);
        let came = apply_at(&mut self.ledger, self.now, Command::Submit { request, verdict });
        let Outcome::Reservation(reservation) = came else { panic!("{came:?}") };
        if let Some(ticket) = ticket {
            self.planner.settle(&self.ledger, ticket);
        }
        self.planner.note_arrival(&self.ledger, &reservation);
        self.sync();
        reservation.id
    }

    fn sync(&mut self) {
        let nodes: Vec<_> = self.ledger.nodes().map(|node| node.id).collect();
        self.planner.sync(&self.ledger, nodes);
    }

    /// Ledger time comes to `at`; the queue is walked where the planner asks for it.
    fn pass_to(&mut self, at: u64) {
        self.now = at;
        apply_at(&mut self.ledger, at, Command::Expire { limit: 1_000 });
        self.sync();
        self.planner.tick(&self.ledger, self.ledger.clock());
        if self.planner.wants_queue_pass() {
            self.walk();
        }
    }

    fn walk(&mut self) {
        for (reservation, placement, ticket) in self.planner.plan_queue(&self.ledger, 100) {
            let came = apply_at(&mut self.ledger, self.now, Command::Place { reservation, placement });
            assert!(matches!(came, Outcome::Reservation(_)), "what is proposed is granted: {came:?}");
            self.planner.settle(&self.ledger, ticket);
        }
    }

    fn state(&self, id: ReservationId) -> State {
        self.ledger.reservation(id).expect("it is there").state
    }

    fn estimate(&self, id: ReservationId) -> Option<u64> {
        let pool = self.ledger.pool("default").expect("it is there");
        let estimate = StartEstimates::new(&self.ledger, pool, &[]).of(id, || 1);
        estimate.start_at.map(|at| at.0)
    }
}

fn asks(cores: u64, for_ms: u64) -> Request {
    Request {
        wait: Wait::Queue { deadline_ms: 0 },
        auto_confirm: true,
        ttl_ms: 400_000,
        max_duration_ms: for_ms,
        ..plain(cores * 1_000)
    }
}

fn at_night(longest_wait_ms: u64, request: Request) -> Request {
    let hours = PreferredHours { schedule: "night".into(), longest_wait_ms };
    Request { hours: Some(hours), ..request }
}

#[test]
fn it_waits_though_there_is_room_and_starts_when_its_hours_begin() {
    let mut world = World::new(Pool::default());
    let id = world.submit(at_night(10_000_000, asks(2, 0)));
    assert_eq!(world.state(id), State::Pending);
    let blockers = &world.ledger.reservation(id).expect("it waits").blockers;
    assert_eq!(blockers.iter().map(|blocker| blocker.reason).collect::<Vec<_>>(), [Reason::AwaitsHours]);
    assert_eq!(world.planner.next_walk_at(), Some(LedgerTime(OPENS)));
    assert_eq!(world.estimate(id), Some(OPENS));
    world.pass_to(OPENS - 1);
    assert_eq!(world.state(id), State::Pending);
    world.pass_to(OPENS);
    assert_eq!(world.state(id), State::Active);
}

#[test]
fn its_longest_wait_ends_it_too() {
    let mut world = World::new(Pool::default());
    let id = world.submit(at_night(50_000, asks(2, 0)));
    assert_eq!(world.planner.next_walk_at(), Some(LedgerTime(51_000)));
    assert_eq!(world.estimate(id), Some(51_000));
    world.pass_to(51_000);
    assert_eq!(world.state(id), State::Active);
}

#[test]
fn where_there_is_no_room_in_its_hours_it_waits_for_the_next_ones() {
    let mut world = World::new(Pool::default());
    let holder = world.submit(asks(4, 300_000));
    assert_eq!(world.state(holder), State::Active);
    let id = world.submit(at_night(10_000_000, asks(2, 0)));
    // The holder leaves after the first hours are over.
    assert!((AGAIN..=AGAIN + 1).contains(&world.estimate(id).expect("they come again")));
    world.pass_to(OPENS);
    assert_eq!(world.state(id), State::Pending);
    let token = world.ledger.reservation(holder).expect("it runs").token;
    world.now = 250_000;
    apply_at(&mut world.ledger, 250_000, Command::Release { reservation: holder, token });
    world.pass_to(250_001);
    world.walk();
    assert_eq!(world.state(id), State::Pending, "there is room, and it is not the hour");
    world.pass_to(AGAIN);
    assert_eq!(world.state(id), State::Active);
}

#[test]
fn nobody_waits_behind_it_in_a_strict_queue() {
    let strict = Pool { queue_order: QueueOrder::StrictFifo, ..Pool::default() };
    let mut world = World::new(strict);
    let night = world.submit(at_night(10_000_000, asks(2, 0)));
    let day = world.submit(asks(2, 0));
    world.walk();
    assert_eq!((world.state(night), world.state(day)), (State::Pending, State::Active));
}

#[test]
fn it_is_promised_no_start_outside_of_its_hours() {
    let planning = Pool { queueing: "backfill_1".parse().expect("a discipline"), ..Pool::default() };
    let mut world = World::new(planning);
    world.submit(asks(4, 300_000));
    world.pass_to(OPENS);
    let night = world.submit(at_night(10_000_000, asks(2, 1_000)));
    let day = world.submit(asks(2, 1_000));
    world.walk();
    let promised: Vec<ReservationId> = world.planner.planned_starts().map(|one| one.reservation).collect();
    assert_eq!(promised, [day], "the first that waits would rather wait for other hours: {night}");
}

#[test]
fn explain_says_what_it_waits_for_and_that_it_need_not() {
    let mut world = World::new(Pool::default());
    let id = world.submit(at_night(10_000_000, asks(2, 0)));
    let explanation = explain(&world.ledger, id).expect("it is there");
    assert_eq!(explanation.blockers[0].reason, Reason::AwaitsHours);
    let offered: Vec<&str> =
        explanation.suggestions.iter().map(|suggestion| suggestion.description.as_str()).collect();
    assert_eq!(offered, ["do not wait for the hours of schedule night"]);
    let SingleChange::Request(changed) = &explanation.suggestions[0].change else { panic!("of the request") };
    let verdict = world.planner.plan_batch(&world.ledger, &[changed]).remove(0).0;
    assert!(matches!(verdict, Verdict::Place(_)), "{verdict:?}");
}
