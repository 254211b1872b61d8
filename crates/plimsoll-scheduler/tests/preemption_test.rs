//! Who has to leave for whom: the order of candidates, the law, what is found where anything can be found, and that it settles.

mod fixture;

use std::collections::{BTreeMap, BTreeSet};

use fixture::{fleet, plain, put_pool};
use plimsoll_ledger::{
    Class, Command, Entry, GPU, Gang, GpuAsk, Ledger, OnPreempt, Outcome, PolicyObject, Pool, Preemption,
    Queue, QueueDiscipline, Quota, Reason, Request, Reservation, Stamp, State, Strategy as PoolStrategy,
    Verdict, Wait,
};
use plimsoll_scheduler::{Eviction, Planner, explain};
use plimsoll_types::{Amount, LedgerTime, ReservationId, Revision};
use proptest::prelude::*;

const GRACE_MS: u64 = 30_000;

/// A ledger, its planner, and a clock.
struct World {
    ledger: Ledger,
    planner: Planner,
    now: u64,
}

impl World {
    fn new(ledger: Ledger) -> World {
        World { planner: Planner::new(&ledger, 0), ledger, now: 1_000 }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        fixture::apply_at(&mut self.ledger, self.now, command)
    }

    /// Submits as the leader does; whoever finds no place waits.
    fn submit(&mut self, request: &Request) -> ReservationId {
        let (verdict, ticket) = self.planner.plan_batch(&self.ledger, &[request]).remove(0);
        let verdict = match verdict {
            Verdict::Infeasible(blockers) => Verdict::Blocked(blockers),
            verdict => verdict,
        };
        let outcome = self.apply(Command::Submit { request: request.clone(), verdict });
        if let Some(ticket) = ticket {
            self.planner.settle(&self.ledger, ticket);
        }
        self.planner.note_waiting();
        match outcome {
            Outcome::Reservation(reservation) => reservation.id,
            other => panic!("{other:?}"),
        }
    }

    /// A walk over the queue, then evictions, until there are none; returns them.
    fn plan(&mut self) -> Vec<Eviction> {
        let mut all = Vec::new();
        for _ in 0..200 {
            let mut moved = false;
            for (reservation, placement, ticket) in self.planner.plan_queue(&self.ledger, 100) {
                let came = self.apply(Command::Place { reservation, placement });
                assert!(matches!(came, Outcome::Reservation(_)), "{came:?}");
                self.planner.settle(&self.ledger, ticket);
                moved = true;
            }
            for eviction in self.planner.plan_evictions(&self.ledger, 100) {
                let Eviction { reservation, placement, victims } = eviction.clone();
                let came = self.apply(Command::Preempt { reservation, placement, victims });
                assert!(matches!(came, Outcome::Reservation(_)), "{eviction:?}: {came:?}");
                self.planner.settle_eviction(&self.ledger, reservation, false);
                self.sync();
                all.push(eviction);
                moved = true;
            }
            if !moved {
                return all;
            }
        }
        panic!("it does not come to rest: {all:?}");
    }

    /// Time passes, and what is due ends; no renewals.
    fn pass(&mut self, ms: u64) {
        self.now += ms;
        let came = self.apply(Command::Expire { limit: 10_000 });
        assert!(matches!(came, Outcome::Expired { more: false, .. }), "{came:?}");
        self.sync();
    }

    fn sync(&mut self) {
        let nodes: Vec<_> = self.ledger.nodes().map(|node| node.id).collect();
        self.planner.sync(&self.ledger, nodes);
    }

    fn get(&self, id: ReservationId) -> &Reservation {
        self.ledger.reservation(id).expect("it is there")
    }

    fn state(&self, id: ReservationId) -> State {
        self.get(id).state
    }
}

/// A request that holds its lease for a day.
fn of(class: &str, cpu_millis: u64) -> Request {
    Request { class: class.into(), ttl_ms: 86_400_000, ..plain(cpu_millis) }
}

fn in_queue(queue: &str, class: &str, cpu_millis: u64) -> Request {
    Request { queue: queue.into(), ..of(class, cpu_millis) }
}

fn one_node() -> World {
    World::new(fleet(&[(8, 0, 0)], PoolStrategy::BestFit))
}

fn put(world: &mut World, put: Vec<PolicyObject>) {
    let came = world.apply(Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
    assert_eq!(came, Outcome::Done);
    world.planner.sync_policies(&world.ledger);
}

fn queue(name: &str, parent: &str, cpu: (u64, u64)) -> PolicyObject {
    let quota = Quota { guaranteed: Amount(cpu.0), nominal: Amount(cpu.1), limit: None };
    let quotas: BTreeMap<_, _> = [("cpu".to_owned(), quota)].into();
    let quotas = [("default".to_owned(), quotas)].into();
    PolicyObject::Queue(Queue { name: name.into(), parent: parent.into(), quotas, ..Queue::default() })
}

#[test]
fn a_lower_class_leaves_after_its_grace_and_takes_its_old_place_in_the_queue() {
    let mut world = one_node();
    let low = world.submit(&of("batch", 8_000));
    let later = world.submit(&of("batch", 1_000));
    let high = world.submit(&of("high", 4_000));
    let found = world.plan();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].reservation, found[0].victims.clone()), (high, vec![low]));
    assert_eq!((world.state(low), world.state(high)), (State::Preempting, State::Planned));
    let preempted = world.get(low).preempted().expect("it was");
    assert_eq!((preempted.by, preempted.rule.name(), preempted.grace_ms), (high, "lower_class", GRACE_MS));
    assert_eq!(world.get(high).blockers[0].reason, Reason::AwaitsPreemption);
    // Its lease is a day, so that the slack is: the grace ends, and a tenth of the lease with it.
    world.pass(GRACE_MS);
    assert_eq!(world.state(low), State::Preempting);
    world.pass(8_640_000 + 1_000);
    assert_eq!(world.state(low), State::Pending);
    assert_eq!(world.get(low).token, Revision(0));
    world.plan();
    assert_eq!((world.state(high), world.state(later)), (State::Active, State::Active));
    assert_eq!(world.state(low), State::Pending, "8 cores do not fit beside 4");
    let order: Vec<_> = world.ledger.pending("default").collect();
    assert_eq!(order, [low]);
}

#[test]
fn in_a_pool_of_more_nodes_than_one_search_looks_at_the_others_have_their_turn() {
    let mut world = World::new(fleet(&vec![(8, 0, 0); 2_300], PoolStrategy::FirstFit));
    for _ in 1..2_300 {
        world.submit(&of("critical", 8_000));
    }
    let low = world.submit(&of("batch", 8_000));
    assert!(world.get(low).members[0].node.0 > 2_100, "beyond what the first search looks at");
    let high = world.submit(&of("high", 8_000));
    assert_eq!(world.plan(), vec![], "it was not among the first");
    assert!(world.planner.wants_evictions(&world.ledger), "others are left to look at");
    let found = world.plan();
    assert_eq!((found[0].reservation, found[0].victims.clone()), (high, vec![low]));
    // Where nobody can leave, all are looked at once, and then there is rest.
    let other = world.submit(&of("high", 8_000));
    let passes =
        (0..9).take_while(|_| world.planner.wants_evictions(&world.ledger) && world.plan().is_empty());
    assert_eq!((passes.count(), world.state(other)), (2, State::Pending));
}

#[test]
fn what_was_borrowed_is_taken_back_for_one_after_the_other() {
    let mut world = one_node();
    put(
        &mut world,
        vec![
            queue("org", "", (0, 0)),
            queue("a", "org", (0, 2_000)),
            queue("b", "org", (0, 2_000)),
            queue("c", "org", (0, 4_000)),
        ],
    );
    for _ in 0..4 {
        world.submit(&in_queue("c", "standard", 2_000));
    }
    let owners =
        [world.submit(&in_queue("a", "standard", 2_000)), world.submit(&in_queue("b", "standard", 2_000))];
    // Who borrows after the first has its place is known once that is applied.
    let first = world.planner.plan_evictions(&world.ledger, 100);
    assert_eq!(first.iter().map(|one| one.reservation).collect::<Vec<_>>(), owners[..1]);
    assert!(!world.planner.wants_evictions(&world.ledger), "nothing is looked for until then");
    let Eviction { reservation, placement, victims } = first[0].clone();
    world.apply(Command::Preempt { reservation, placement, victims });
    world.planner.settle_eviction(&world.ledger, reservation, false);
    assert!(world.planner.wants_evictions(&world.ledger));
    world.sync();
    let second = world.plan();
    assert_eq!(second.iter().map(|one| one.reservation).collect::<Vec<_>>(), owners[1..]);
}

#[test]
fn nobody_else_gets_the_place_that_is_kept() {
    let mut world = World::new(fleet(&[(8, 0, 0), (2, 0, 0)], PoolStrategy::BestFit));
    let first = world.submit(&of("batch", 4_000));
    let second = world.submit(&of("batch", 4_000));
    let high = world.submit(&of("high", 8_000));
    world.plan();
    assert_eq!((world.state(first), world.state(second)), (State::Preempting, State::Preempting));
    let token = world.get(first).token;
    let came = world.apply(Command::Release { reservation: first, token });
    assert!(matches!(came, Outcome::Reservation(_)));
    world.sync();
    let small = world.submit(&of("critical", 3_000));
    world.plan();
    assert_eq!(world.state(small), State::Pending, "4 cores are free, and kept");
    let token = world.get(second).token;
    world.apply(Command::Release { reservation: second, token });
    world.sync();
    world.plan();
    assert_eq!((world.state(high), world.state(small)), (State::Active, State::Pending));
}

#[test]
fn neighbours_leave_together_for_a_large_instance_and_their_slices_are_kept_for_it() {
    let instance = |class: &str, name: &str| {
        let mut request = of(class, 100);
        request.requirements.gpu = Some(GpuAsk { share: fixture::mig::mig(name), ..GpuAsk::whole(1) });
        request
    };
    // Its first board is cut.
    let mut world = World::new(fleet(&[(8, 2, 5)], PoolStrategy::BestFit));
    let small: Vec<_> = (0..7).map(|_| world.submit(&instance("batch", "1g.10gb"))).collect();
    let start = |world: &World, id| {
        world.get(id).members[0].devices[0].slices.map(|slices| slices.start).expect("it is an instance")
    };
    let high = world.submit(&instance("high", "3g.40gb"));
    let found = world.plan();
    let left: BTreeSet<u8> = found[0].victims.iter().map(|id| start(&world, *id)).collect();
    assert_eq!((found.len(), start(&world, high), left), (1, 4, BTreeSet::from([4, 5, 6])));
    let other = world.submit(&instance("batch", "1g.10gb"));
    for id in &found[0].victims {
        let token = world.get(*id).token;
        world.apply(Command::Release { reservation: *id, token });
        world.sync();
        if world.state(high) == State::Planned && Some(id) != found[0].victims.last() {
            world.plan();
            assert_eq!(world.state(other), State::Pending, "what comes free is kept");
        }
    }
    world.plan();
    assert_eq!(world.state(high), State::Active);
    assert_eq!(small.iter().filter(|id| world.state(**id) == State::Active).count(), 4);
}

#[test]
fn the_cheapest_leave_and_nobody_who_need_not() {
    let mut world = one_node();
    let old = world.submit(&of("batch", 2_000));
    world.now += 60_000;
    let large = world.submit(&of("batch", 4_000));
    let small = world.submit(&of("batch", 2_000));
    let high = world.submit(&of("high", 2_000));
    let found = world.plan();
    // The youngest and smallest has lost nothing yet.
    assert_eq!(found[0].victims, [small], "{old} and {large} stay for {high}");
    let more = world.submit(&of("high", 4_000));
    let found = world.plan();
    assert_eq!((found[0].reservation, found[0].victims.clone()), (more, vec![large]));
}

#[test]
fn the_lowest_class_on_any_node_leaves_first() {
    let mut world = World::new(fleet(&[(4, 0, 0), (4, 0, 0)], PoolStrategy::FirstFit));
    let low = world.submit(&of("low", 4_000));
    let batch = world.submit(&of("batch", 4_000));
    world.submit(&of("standard", 4_000));
    assert_eq!(world.plan()[0].victims, [batch]);
    assert_eq!(world.state(low), State::Active);
}

#[test]
fn two_of_the_lowest_class_leave_before_one_of_a_higher() {
    let mut world = World::new(fleet(&[(4, 0, 0), (4, 0, 0)], PoolStrategy::FirstFit));
    let low = world.submit(&of("low", 4_000));
    let batch = [(); 2].map(|()| world.submit(&of("batch", 2_000)));
    world.submit(&of("standard", 4_000));
    let found = world.plan();
    assert_eq!(found[0].victims.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from(batch));
    assert_eq!(world.state(low), State::Active);
}

#[test]
fn who_is_protected_or_not_preemptible_or_of_an_equal_class_stays() {
    let mut world = one_node();
    let keeper = Class {
        name: "keeper".into(),
        priority: 1,
        preemptible: true,
        min_run_ms: 60_000,
        grace_ms: 5_000,
        ..Class::default()
    };
    put(&mut world, vec![PolicyObject::Class(keeper)]);
    let kept = world.submit(&of("keeper", 8_000));
    let high = world.submit(&of("high", 8_000));
    assert_eq!(world.plan(), vec![]);
    assert_eq!(world.planner.next_eviction_at(), Some(LedgerTime(61_000)), "then it may be asked");
    assert_eq!(world.planner.next_walk_at(), Some(LedgerTime(61_000)), "ledger time has to come there");
    world.pass(60_000);
    assert_eq!(world.plan()[0].victims, [kept]);
    assert_eq!(world.get(kept).preempted().map(|preempted| preempted.grace_ms), Some(5_000));

    let mut world = one_node();
    let standard = world.submit(&of("standard", 8_000));
    world.submit(&of("critical", 8_000));
    assert_eq!(world.plan(), vec![], "standard is not preemptible");
    assert_eq!(world.state(standard), State::Active);
    let mut world = one_node();
    world.submit(&of("low", 8_000));
    world.submit(&of("low", 8_000));
    assert_eq!(world.plan(), vec![], "an equal class waits");
    let _ = high;
}

#[test]
fn a_pool_says_what_may_be_taken_back_and_how_often() {
    let with = |preemption, most| {
        let mut world = one_node();
        let pool =
            Pool { name: "default".into(), preemption, max_preemptions_per_hour: most, ..Pool::default() };
        put_pool(&mut world.ledger, pool);
        world.planner.sync_policies(&world.ledger);
        world
    };
    let mut never = with(Preemption::Never, 0);
    never.submit(&of("batch", 8_000));
    never.submit(&of("high", 8_000));
    assert_eq!(never.plan(), vec![]);
    let mut once = with(Preemption::LowerClass, 1);
    once.submit(&of("batch", 4_000));
    once.submit(&of("batch", 4_000));
    once.submit(&of("high", 4_000));
    once.submit(&of("high", 4_000));
    assert_eq!(once.plan().len(), 1, "the second would be one too many within the hour");
}

#[test]
fn nobody_leaves_for_those_behind_the_head_of_a_strict_queue() {
    for (queueing, leave) in [(QueueDiscipline::Strict, 0), (QueueDiscipline::Skip, 1)] {
        let mut world = one_node();
        let pool = Pool { name: "default".into(), queueing, ..Pool::default() };
        put(&mut world, vec![PolicyObject::Pool(pool)]);
        let [_stays, may_leave] = ["critical", "batch"].map(|class| world.submit(&of(class, 4_000)));
        // There is no way for the head; behind it there is.
        let [_head, behind] = [8_000, 4_000].map(|cpu| world.submit(&of("standard", cpu)));
        let told = explain(&world.ledger, behind).expect("it waits");
        let is_behind = told.blockers.iter().any(|blocker| blocker.reason == Reason::BehindInQueue);
        assert_eq!(is_behind, leave == 0, "{:?}", told.blockers);
        let victims: Vec<ReservationId> = world.plan().into_iter().flat_map(|one| one.victims).collect();
        assert_eq!(victims, vec![may_leave; leave], "{queueing:?}");
    }
}

#[test]
fn in_a_strict_queue_who_comes_later_holds_back_nobody_whose_place_is_kept() {
    let mut world = World::new(fleet(&[(4, 0, 0), (8, 0, 0)], PoolStrategy::FirstFit));
    let pool = Pool { name: "default".into(), queueing: QueueDiscipline::Strict, ..Pool::default() };
    put(&mut world, vec![PolicyObject::Pool(pool)]);
    let low = world.submit(&of("batch", 4_000));
    world.submit(&of("critical", 8_000));
    let waiting = world.submit(&of("low", 4_000));
    assert_eq!(world.plan()[0].victims, [low]);
    // Nobody leaves for the one that goes before it by now.
    let head = world.submit(&of("high", 8_000));
    assert_eq!(world.plan(), vec![]);
    let token = world.get(low).token;
    world.apply(Command::Requeue { reservation: low, token });
    world.sync();
    world.plan();
    assert_eq!((world.state(waiting), world.state(head)), (State::Active, State::Pending));
}

#[test]
fn what_a_queue_has_lent_it_gets_back_and_no_more() {
    let mut world = one_node();
    put(
        &mut world,
        vec![queue("org", "", (0, 0)), queue("a", "org", (0, 4_000)), queue("b", "org", (0, 4_000))],
    );
    let own = world.submit(&in_queue("b", "standard", 4_000));
    let borrowed = world.submit(&in_queue("b", "standard", 2_000));
    let also = world.submit(&in_queue("b", "standard", 2_000));
    let rightful = world.submit(&in_queue("a", "standard", 2_000));
    let found = world.plan();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].victims.len(), 1);
    let victim = found[0].victims[0];
    assert!(victim == borrowed || victim == also, "{own} is b's own");
    assert_eq!(world.get(victim).preempted().map(|preempted| preempted.rule.name()), Some("reclaim"));
    let second = world.submit(&in_queue("a", "standard", 2_000));
    assert_eq!(world.plan().len(), 1);
    let third = world.submit(&in_queue("a", "standard", 2_000));
    assert_eq!(world.plan(), vec![], "a has its four cores; the rest is b's own");
    assert_eq!(world.state(own), State::Active);
    let _ = (rightful, second, third);
}

#[test]
fn a_class_does_not_borrow_at_the_cost_of_anothers_quota() {
    let mut world = one_node();
    put(
        &mut world,
        vec![queue("org", "", (0, 0)), queue("a", "org", (0, 4_000)), queue("b", "org", (0, 4_000))],
    );
    world.submit(&in_queue("a", "standard", 4_000));
    let low = world.submit(&in_queue("b", "batch", 4_000));
    world.submit(&in_queue("a", "high", 2_000));
    assert_eq!(world.plan(), vec![], "b is within its quota, and a would borrow");
    assert_eq!(world.state(low), State::Active);
}

#[test]
fn what_is_guaranteed_is_never_taken() {
    let mut world = one_node();
    put(
        &mut world,
        vec![queue("org", "", (0, 2_000)), queue("a", "org", (0, 4_000)), queue("b", "org", (2_000, 4_000))],
    );
    let kept = world.submit(&in_queue("b", "batch", 2_000));
    let more = world.submit(&in_queue("b", "batch", 2_000));
    world.submit(&of("standard", 4_000));
    let high = world.submit(&in_queue("a", "high", 4_000));
    let found = world.plan();
    assert_eq!(found, vec![], "of 4 cores only 2 are not guaranteed");
    let high2 = world.submit(&in_queue("a", "high", 2_000));
    let found = world.plan();
    assert_eq!((found[0].reservation, found[0].victims.len()), (high2, 1));
    assert!([kept, more].contains(&found[0].victims[0]));
    let _ = high;
}

#[test]
fn who_asked_to_end_ends_and_a_hold_is_gone_at_once() {
    let mut world = one_node();
    let ends = world.submit(&Request { on_preempt: OnPreempt::End, ..of("batch", 4_000) });
    let held = world.submit(&Request { auto_confirm: false, hold_ms: 60_000, ..of("batch", 4_000) });
    let high = world.submit(&of("high", 8_000));
    world.plan();
    assert_eq!(world.state(held), State::Pending);
    world.pass(GRACE_MS + 8_641_000);
    assert_eq!(world.state(ends), State::Preempted);
    world.plan();
    assert_eq!(world.state(high), State::Active);
}

#[test]
fn a_renewal_hears_of_the_notice_and_buys_no_time() {
    let mut world = one_node();
    let low = world.submit(&of("batch", 8_000));
    world.submit(&of("high", 8_000));
    world.plan();
    let before = world.get(low).clone();
    world.now += 10_000;
    let came = world.apply(Command::Renew { reservation: low, token: before.token, ttl_ms: 0 });
    let Outcome::Reservation(renewed) = came else { panic!("{came:?}") };
    assert_eq!((renewed.state, renewed.deadline), (State::Preempting, before.deadline));
}

#[test]
fn a_gang_leaves_whole_and_a_gang_is_made_room_for_whole() {
    let mut world = World::new(fleet(&[(4, 2, 0), (4, 2, 0), (4, 2, 0)], PoolStrategy::FirstFit));
    let gang = |class: &str, members: u32| {
        let mut request = of(class, 1_000);
        request.requirements.gpu = Some(GpuAsk::whole(2));
        request.gang = plimsoll_ledger::Gang { min_members: members, max_members: members, spread: true };
        request
    };
    let pair = world.submit(&gang("batch", 2));
    let single = world.submit(&gang("batch", 1));
    let high = world.submit(&gang("high", 3));
    let found = world.plan();
    let victims: BTreeSet<_> = found[0].victims.iter().copied().collect();
    assert_eq!(victims, BTreeSet::from([pair, single]));
    assert_eq!(found[0].placement.members.len(), 3);
    world.pass(GRACE_MS + 8_641_000);
    world.plan();
    assert_eq!(world.state(high), State::Active);
}

#[test]
fn who_is_not_needed_once_others_leave_for_the_rest_of_a_gang_stays() {
    let mut world = World::new(fleet(&[(3, 0, 0), (6, 0, 0)], PoolStrategy::BestFit));
    let pair = Gang { min_members: 2, max_members: 2, spread: true };
    let wide = world.submit(&Request { gang: pair, ..of("batch", 3_000) });
    let single = world.submit(&of("batch", 3_000));
    world.pass(10_000);
    // For the first member the single one is cheapest; for the second the wide one has to leave, and then there is room for both.
    let claimant = world.submit(&Request { gang: Gang { spread: false, ..pair }, ..of("high", 3_000) });
    let found = world.plan();
    assert_eq!(found.iter().map(|one| one.victims.clone()).collect::<Vec<_>>(), [vec![wide]]);
    assert_eq!((world.state(single), world.state(claimant)), (State::Active, State::Planned));
}

#[test]
fn a_licence_is_given_up_in_another_domain_than_the_one_that_takes_the_claimant() {
    let mut ledger = fleet(&[(4, 1, 0), (4, 0, 2)], PoolStrategy::BestFit);
    let countables = [("license/sim".to_owned(), Amount(40))].into();
    let topology = vec!["zone".to_owned()];
    put_pool(&mut ledger, Pool { name: "default".into(), countables, topology, ..Pool::default() });
    let mut world = World::new(ledger);
    let mut licensed = of("batch", 1_000);
    licensed.requirements.amounts.set("license/sim", Amount(40));
    licensed.requirements.required.terms = vec![fixture::term("zone", plimsoll_types::Operator::In, &["b"])];
    let holder = world.submit(&licensed);
    let mut claimant = of("high", 1_000);
    claimant.requirements.amounts.set("license/sim", Amount(7));
    claimant.requirements.gpu = Some(GpuAsk::whole(1));
    claimant.topology.required = "zone".into();
    world.submit(&claimant);
    assert_eq!(world.plan().iter().map(|one| one.victims.clone()).collect::<Vec<_>>(), [vec![holder]]);
}

#[test]
fn a_node_that_goes_takes_the_kept_place_with_it() {
    let mut world = one_node();
    let low = world.submit(&of("batch", 8_000));
    let high = world.submit(&of("high", 8_000));
    world.plan();
    let node = world.get(low).members[0].node;
    let admin = plimsoll_ledger::AdminChange::Cordon { reason: "fan".into() };
    world.apply(Command::SetNodeAdmin { node, admin });
    assert_eq!((world.state(high), world.state(low)), (State::Pending, State::Preempting));
    assert!(world.get(high).members.is_empty());
}

/// Class, queue, cores, devices.
fn anyone() -> impl Strategy<Value = Request> {
    let class = prop::sample::select(vec!["batch", "low", "standard", "high", "critical"]);
    let queue = prop::sample::select(vec!["", "", "a", "b", "c"]);
    (class, queue, 1u64..6, 0u32..3, 1u32..3).prop_map(|(class, queue, cores, devices, members)| {
        let mut request = in_queue(queue, class, cores * 1_000);
        request.requirements.gpu = (devices > 0).then(|| GpuAsk::whole(devices));
        request.gang = plimsoll_ledger::Gang { min_members: members, max_members: members, spread: false };
        request.wait = Wait::Queue { deadline_ms: 0 };
        request
    })
}

fn small_fleets() -> impl Strategy<Value = Vec<fixture::Size>> {
    prop::collection::vec((3u64..9, 0usize..4, Just(1u8)), 1..4)
}

fn with_queues(sizes: &[fixture::Size]) -> World {
    let mut world = World::new(fleet(sizes, PoolStrategy::BestFit));
    let cores: u64 = sizes.iter().map(|(cores, ..)| cores * 1_000).sum();
    put(
        &mut world,
        vec![
            queue("org", "", (0, cores / 4)),
            queue("a", "org", (0, cores / 4)),
            queue("b", "org", (cores / 8, cores / 4)),
            queue("c", "org", (0, cores / 4)),
        ],
    );
    world
}

/// True where some lawful set of holders, gone, lets the request be placed: by trying them all.
fn could_be_helped(world: &World, waiting: &Reservation) -> bool {
    let holders: Vec<Reservation> = world
        .ledger
        .reservations()
        .filter(|one| matches!(one.state, State::Held | State::Active | State::Partial))
        .map(|one| Reservation::clone(one))
        .collect();
    if holders.len() > 9 {
        return false;
    }
    (1u32..1 << holders.len()).any(|chosen| {
        let victims: Vec<&Reservation> = holders
            .iter()
            .enumerate()
            .filter(|(bit, _)| chosen >> bit & 1 == 1)
            .map(|(_, one)| one)
            .collect();
        let lawful = victims.iter().all(|victim| {
            victim.priority < waiting.priority
                && world.ledger.class(&victim.request.class).is_some_and(|class| class.preemptible)
        });
        lawful && {
            let mut gone =
                World { ledger: world.ledger.clone(), planner: world.planner.clone(), now: world.now };
            for victim in victims {
                gone.apply(Command::Cancel { reservation: victim.id });
            }
            let mut planner = Planner::new(&gone.ledger, 0);
            matches!(planner.place(&gone.ledger, &waiting.request), Verdict::Place(_))
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Evictions are lawful and enough (apply says so in `plan`), nobody leaves twice without something else having changed, all come to rest,
    /// and every invariant holds on the way.
    #[test]
    fn it_settles_on_any_fleet(sizes in small_fleets(), requests in prop::collection::vec(anyone(), 1..14)) {
        let mut world = with_queues(&sizes);
        let mut evictions = Vec::new();
        for request in &requests {
            world.submit(request);
            evictions.extend(world.plan());
            prop_assert_eq!(world.ledger.check_invariants(), vec![]);
        }
        // From here on nothing changes but what follows from what was planned.
        let mut rounds = 0;
        loop {
            world.pass(GRACE_MS + 8_641_000);
            let more = world.plan();
            prop_assert_eq!(world.ledger.check_invariants(), vec![]);
            for eviction in &more {
                let by = world.get(eviction.reservation);
                prop_assert!(by.preempted.is_none(), "a victim asked others to leave: {:?}", by);
            }
            let waits = world.ledger.reservations().any(|one| one.state == State::Preempting);
            evictions.extend(more);
            if !waits {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 20, "it does not settle: {:?}", evictions);
        }
        prop_assert!(world.ledger.reservations().all(|one| one.state != State::Planned));
    }

    /// Where a lower class stands in the way and could leave, it is found; and of those chosen none could have stayed.
    #[test]
    fn a_way_is_found_where_there_is_one(sizes in small_fleets(), requests in prop::collection::vec(anyone(), 1..9)) {
        let mut world = World::new(fleet(&sizes, PoolStrategy::BestFit));
        for request in &requests {
            let request = Request { queue: String::new(), gang: Request::default().gang, ..request.clone() };
            let id = world.submit(&request);
            let waiting = Reservation::clone(world.get(id));
            let before = World { ledger: world.ledger.clone(), planner: world.planner.clone(), now: world.now };
            let could = waiting.state == State::Pending && could_be_helped(&before, &waiting);
            let found = world.plan();
            let own = found.iter().find(|eviction| eviction.reservation == id);
            if could && found.is_empty() {
                prop_assert!(false, "nobody was found for {waiting:?}");
            }
            if let Some(Eviction { placement, victims, .. }) = own.filter(|_| found.len() == 1) {
                for spared in victims {
                    let mut fewer = before.ledger.clone();
                    let victims: Vec<_> = victims.iter().copied().filter(|one| one != spared).collect();
                    let command = Command::Preempt { reservation: id, placement: placement.clone(), victims };
                    let stamp = Stamp { revision: Revision(fewer.revision().0 + 1), proposed_at: LedgerTime(0) };
                    let came = fewer.apply(stamp, &Entry::system(command)).answer.outcome;
                    prop_assert!(matches!(came, Outcome::Refused(_)), "{} could have stayed", spared);
                }
            }
            world.pass(GRACE_MS + 8_641_000);
            world.plan();
        }
    }
}

#[test]
fn devices_are_named_as_gpu_among_what_is_contested() {
    let mut world = World::new(fleet(&[(8, 2, 0)], PoolStrategy::BestFit));
    let mut both = of("batch", 1_000);
    both.requirements.gpu = Some(GpuAsk::whole(2));
    let low = world.submit(&both);
    let mut one = of("high", 1_000);
    one.requirements.gpu = Some(GpuAsk::whole(1));
    let one = world.submit(&one);
    let found = world.plan();
    assert_eq!(found[0].victims, [low]);
    let contested = world.ledger.contested(world.get(one), &found[0].placement);
    assert!(contested.contains(GPU), "{contested:?}");
}

#[test]
fn what_was_borrowed_is_taken_back_when_the_next_interval_of_rebalancing_begins() {
    let mut world = one_node();
    let pool = Pool { name: "default".into(), rebalance_interval_ms: 60_000, ..Pool::default() };
    let queues =
        [queue("org", "", (0, 0)), queue("vision", "org", (0, 4_000)), queue("speech", "org", (0, 4_000))];
    put(&mut world, [vec![PolicyObject::Pool(pool)], queues.to_vec()].concat());
    let borrowed: Vec<ReservationId> =
        (0..2).map(|_| world.submit(&in_queue("vision", "standard", 4_000))).collect();
    let owner = world.submit(&in_queue("speech", "standard", 4_000));
    assert_eq!(world.plan(), vec![], "not in the interval that it came in");
    assert_eq!(world.planner.next_eviction_at().map(|at| at.0), Some(60_000));
    world.pass(58_999);
    assert!(!world.planner.wants_evictions(&world.ledger));
    world.pass(1);
    assert!(world.planner.wants_evictions(&world.ledger));
    let found = world.plan();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].reservation, found[0].victims.clone()),
        (owner, vec![borrowed[0]]),
        "the oldest of equals, as the order of victims says"
    );
}
