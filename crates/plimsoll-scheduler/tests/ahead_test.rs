//! Planned starts are kept, nobody starves, and estimates come true: through the planner, as a leader drives it, in simulated time.

mod fixture;

use std::collections::BTreeMap;
use std::sync::Arc;

use fixture::{Size, fleet, plain, put_pool, request, sizes};
use plimsoll_ledger::{
    Class, Command, Entry, Gang, GpuAsk, Ledger, MemberPlacement, Outcome, Placement, PolicyObject, Pool,
    Queue, QueueDiscipline, Quota, Request, Requirements, Role, Stamp, State, Strategy as PoolStrategy,
    Topology, Verdict, Wait,
};
use plimsoll_scheduler::{NoStart, Planner, StartEstimates};
use plimsoll_types::{Amount, LedgerTime, NodeId, ReservationId, Resources, Revision};
use proptest::prelude::*;

/// A ledger and its leader, in simulated time.
struct World {
    ledger: Ledger,
    planner: Planner,
    now_ms: u64,
    /// The earliest promise to each, and when each started.
    promised: BTreeMap<ReservationId, u64>,
    started: BTreeMap<ReservationId, u64>,
    /// Those that overtook somebody who had come before.
    overtakes: usize,
    /// Nobody of a higher class comes, so that planned starts are kept.
    one_class: bool,
}

impl World {
    fn new(sizes: &[Size], queueing: &str, starvation_bound_ms: u64) -> World {
        let mut ledger = fleet(sizes, PoolStrategy::BestFit);
        let queueing: QueueDiscipline = queueing.parse().expect("it is a discipline");
        let countables = [("license/sim".to_owned(), Amount(40))].into();
        let (name, topology) = ("default".into(), vec!["zone".to_owned()]);
        let pool = Pool { name, queueing, starvation_bound_ms, countables, topology, ..Pool::default() };
        put_pool(&mut ledger, pool);
        let planner = Planner::new(&ledger, 7);
        let (promised, started) = (BTreeMap::new(), BTreeMap::new());
        World { ledger, planner, now_ms: 10_000, promised, started, overtakes: 0, one_class: true }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let stamp =
            Stamp { revision: Revision(self.ledger.revision().0 + 1), proposed_at: LedgerTime(self.now_ms) };
        self.ledger.apply(stamp, &Entry::system(command)).answer.outcome
    }

    fn sync(&mut self) {
        let nodes: Vec<NodeId> = self.ledger.nodes().map(|node| node.id).collect();
        self.planner.sync_changed(&self.ledger, nodes);
    }

    /// New requests, in one batch.
    fn submit(&mut self, requests: Vec<Request>) -> Vec<Option<ReservationId>> {
        self.planner.set_time(LedgerTime(self.now_ms));
        let planned = self.planner.plan_batch(&self.ledger, &requests.iter().collect::<Vec<_>>());
        let mut ids = Vec::new();
        for (request, (verdict, ticket)) in requests.into_iter().zip(planned) {
            let outcome = self.apply(Command::Submit { request, verdict });
            if let Some(ticket) = ticket {
                self.planner.settle(&self.ledger, ticket);
            }
            let Outcome::Reservation(reservation) = outcome else {
                ids.push(None);
                continue;
            };
            ids.push(Some(reservation.id));
            if reservation.state == State::Pending {
                self.planner.note_arrival(&self.ledger, &reservation);
            } else {
                self.note_start(reservation.id);
            }
        }
        self.sync();
        self.serve();
        ids
    }

    fn release(&mut self, id: ReservationId) {
        let Some(held) = self.ledger.reservation(id).filter(|held| held.state.is_occupying()).cloned() else {
            return;
        };
        self.apply(Command::Release { reservation: id, token: held.token });
        self.sync();
        self.serve();
    }

    /// Walks the queue until nothing more starts.
    fn serve(&mut self) {
        loop {
            self.planner.set_time(LedgerTime(self.now_ms));
            let placed = self.planner.plan_queue(&self.ledger, 1_000);
            for planned in self.planner.planned_starts() {
                let known = self.promised.entry(planned.reservation).or_insert(planned.start_at.0);
                assert!(
                    !self.one_class || planned.start_at.0 <= *known || planned.start_at.0 <= self.now_ms,
                    "a planned start moved back: {planned:?}, it was {known}, now {}",
                    self.now_ms
                );
                *known = (*known).min(planned.start_at.0);
            }
            if placed.is_empty() {
                break;
            }
            for (reservation, placement, ticket) in placed {
                let outcome = self.apply(Command::Place { reservation, placement });
                self.planner.settle(&self.ledger, ticket);
                assert!(
                    matches!(outcome, Outcome::Reservation(_)),
                    "what is planned is admitted: {outcome:?}"
                );
                self.note_start(reservation);
            }
            self.sync();
        }
        assert_eq!(self.planner.check(&self.ledger), Vec::<String>::new());
    }

    fn note_start(&mut self, id: ReservationId) {
        self.started.insert(id, self.now_ms);
        self.overtakes += usize::from(self.ledger.pending("default").next().is_some_and(|first| first < id));
        if let Some(promised) = self.promised.get(&id) {
            assert!(
                !self.one_class || self.now_ms <= *promised,
                "{id} was promised {promised} and starts at {}",
                self.now_ms
            );
        }
    }

    /// Lets time pass, with all that ends in it.
    fn until(&mut self, then_ms: u64) {
        while let Some(due) = self.ledger.next_due().filter(|due| due.0 <= then_ms) {
            self.now_ms = self.now_ms.max(due.0);
            self.apply(Command::Expire { limit: 1_000 });
            self.sync();
            self.serve();
        }
        self.now_ms = then_ms;
    }
}

/// A lease of this length, that its holder takes up in full.
fn lasting(mut request: Request, length_ms: u64) -> Request {
    request.max_duration_ms = length_ms;
    request.ttl_ms = length_ms;
    request.wait = Wait::Queue { deadline_ms: 0 };
    request
}

fn gpus(count: u32) -> Request {
    let mut request = plain(100);
    request.requirements.gpu = Some(GpuAsk::whole(count));
    request
}

/// What comes: after how long, for how long, and the share of it after which it is given back, in percent (100: never before its end).
fn arrivals() -> impl Strategy<Value = Vec<(u64, Request, u64, u64)>> {
    let one = (0u64..4_000, asks(), 1_000u64..30_000, prop_oneof![2 => Just(100u64), 1 => 10u64..100]);
    prop::collection::vec(one, 1..50)
}

/// Requests of all shapes, some of them gangs of roles, some near each other.
fn asks() -> impl Strategy<Value = Request> {
    let level = prop::sample::select(vec!["", "zone", "node"]);
    let roles = prop::collection::vec((request(), 0u32..3, 1u32..3), 1..4);
    let gang = (roles, level.clone(), prop::bool::weighted(0.2)).prop_map(|(roles, level, spread)| {
        let role = |(index, (asked, min, more)): (usize, (Request, u32, u32))| Role {
            name: format!("role-{index}"),
            requirements: asked.requirements,
            min_members: if index == 0 { min.max(1) } else { min },
            max_members: min + more,
        };
        let request = of_roles(roles.into_iter().enumerate().map(role).collect(), spread);
        Request { topology: Topology { required: level.into(), ..Topology::default() }, ..request }
    });
    let near = (request(), level, 1u32..3).prop_map(|(mut request, level, slices)| {
        request.topology.required = level.into();
        if slices == 2 && request.gang.min_members > 1 {
            // Pairs, each in one zone.
            (request.topology.slice_size, request.topology.slice_level) = (2, "zone".into());
            request.gang.min_members = request.gang.min_members.next_multiple_of(2);
            request.gang.max_members = request.gang.min_members;
            request.topology.required = String::new();
        }
        request
    });
    prop_oneof![4 => request(), 2 => gang, 2 => near]
}

fn of_roles(roles: Vec<Role>, spread: bool) -> Request {
    let sum = |of: fn(&Role) -> u32| roles.iter().map(of).sum();
    let gang =
        Gang { min_members: sum(|role| role.min_members), max_members: sum(|role| role.max_members), spread };
    Request { requirements: Requirements::default(), gang, roles, ..plain(0) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// The heart of it: with lengths declared, nobody who has a planned start begins later than it was when first computed, whatever comes and however
    /// early others leave; and no planned start ever moves back.
    #[test]
    fn nobody_starts_later_than_planned(
        sizes in sizes(6),
        arrivals in arrivals(),
        queueing in prop::sample::select(vec!["backfill_1", "backfill_2", "backfill_5", "backfill_all"]),
    ) {
        let mut world = World::new(&sizes, queueing, 0);
        let mut releases: BTreeMap<u64, Vec<ReservationId>> = BTreeMap::new();
        let mut at_ms = world.now_ms;
        for (gap_ms, request, length_ms, share) in arrivals {
            at_ms += gap_ms;
            while let Some((due, ids)) = releases.pop_first() {
                if due > at_ms {
                    releases.insert(due, ids);
                    break;
                }
                world.until(due.max(world.now_ms));
                ids.into_iter().for_each(|id| world.release(id));
            }
            world.until(at_ms);
            let id = world.submit(vec![lasting(request, length_ms)])[0];
            if let (Some(id), true) = (id, share < 100) {
                releases.entry(at_ms + length_ms * share / 100).or_default().push(id);
            }
        }
        for (due, ids) in releases {
            world.until(due.max(world.now_ms));
            ids.into_iter().for_each(|id| world.release(id));
        }
        // Everybody starts in the end, as everything ends; but for gangs that do not fit an empty fleet, of which only roles of their own are known not to.
        world.until(world.now_ms + 50 * 40_000);
        for id in world.ledger.pending("default").collect::<Vec<_>>() {
            let request = Arc::clone(&world.ledger.reservation(id).expect("it waits").request);
            let verdict = Planner::new(&world.ledger, 0).place(&world.ledger, &request);
            prop_assert!(!matches!(verdict, Verdict::Place(_)) && !request.roles.is_empty(), "{:?}", request);
        }
    }

    /// Where a walk is not around planned starts, it is what it was: a pool that says nothing and one that says `skip` decide alike.
    #[test]
    fn skip_is_what_a_best_effort_pool_does(sizes in sizes(6), arrivals in arrivals()) {
        let run = |queueing: &str| {
            let mut world = World::new(&sizes, queueing, 0);
            let mut at_ms = world.now_ms;
            for (gap_ms, request, length_ms, _) in &arrivals {
                at_ms += gap_ms;
                world.until(at_ms);
                world.submit(vec![lasting(request.clone(), *length_ms)]);
            }
            (world.started, world.ledger.revision())
        };
        prop_assert_eq!(run(""), run("skip"));
    }
}

#[test]
fn a_short_request_overtakes_and_a_long_one_waits() {
    // One node of two GPUs: one is taken for 10 s, and the first that waits wants both.
    let mut world = World::new(&[(8, 2, 0)], "backfill_1", 0);
    world.submit(vec![lasting(gpus(1), 10_000)]);
    let wide = world.submit(vec![lasting(gpus(2), 10_000)])[0].expect("it waits");
    let long = world.submit(vec![lasting(gpus(1), 20_000)])[0].expect("it waits");
    let short = world.submit(vec![lasting(gpus(1), 5_000)])[0].expect("it starts");
    assert_eq!(world.started.get(&short), Some(&10_000), "it is gone before the wide one starts");
    assert_eq!(world.started.get(&long), None, "it would be in the way");
    let promised = world.promised[&wide];
    // Ten seconds of lease, and the slack of a lease of ten seconds.
    assert_eq!(promised, 10_000 + 10_000 + 2_000);
    let estimates = StartEstimates::new(
        &world.ledger,
        world.ledger.pool("default").expect("it is there"),
        &world.planner.planned_starts().collect::<Vec<_>>(),
    );
    let of_wide = estimates.of(wide, || 1);
    assert_eq!((of_wide.start_at, of_wide.is_hard), (Some(LedgerTime(promised)), true));
    assert_eq!(of_wide.discipline, "backfill_1");
    let of_long = estimates.of(long, || 2);
    assert_eq!((of_long.start_at, of_long.is_hard), (Some(LedgerTime(promised + 12_000)), false));
    world.until(200_000);
    assert_eq!(world.started[&wide], promised);
    assert_eq!(world.started[&long], promised + 12_000);
    assert_eq!(world.overtakes, 1);
}

#[test]
fn what_declares_no_length_overtakes_nobody_and_is_promised_nothing_around() {
    let mut world = World::new(&[(8, 2, 0)], "backfill_1", 0);
    world.submit(vec![lasting(gpus(1), 10_000)]);
    let wide = world.submit(vec![lasting(gpus(2), 10_000)])[0].expect("it waits");
    let mut endless = gpus(1);
    endless.ttl_ms = 3_600_000;
    let endless = world.submit(vec![endless])[0].expect("it waits");
    assert_eq!(world.started.get(&endless), None);
    world.until(world.promised[&wide]);
    assert_eq!(world.started[&wide], world.promised[&wide]);
    world.until(200_000);
    assert!(world.started.contains_key(&endless));
    let next = world.submit(vec![lasting(gpus(2), 10_000)])[0].expect("it waits");
    assert_eq!(world.promised.get(&next), None, "nobody knows when the endless one leaves");
    let pool = world.ledger.pool("default").expect("it is there");
    let estimate = StartEstimates::new(&world.ledger, pool, &[]).of(next, || 1);
    assert_eq!((estimate.start_at, estimate.why_none), (None, Some(NoStart::NoEnd(endless))));
}

#[test]
fn a_wide_gang_is_promised_its_nodes_and_licences() {
    let mut world = World::new(&[(4, 0, 0), (4, 0, 0)], "backfill_all", 0);
    world.submit(vec![lasting(plain(3_000), 10_000), lasting(plain(3_000), 20_000)]);
    let mut gang = plain(3_000);
    gang.gang = Gang { min_members: 2, max_members: 2, spread: true };
    gang.requirements.amounts.set("license/sim", Amount(20));
    let gang = world.submit(vec![lasting(gang, 5_000)])[0].expect("it waits");
    assert_eq!(world.promised[&gang], 10_000 + 20_000 + 3_000);
    // One licence too many for as long as the gang: it may not overtake; one that is gone by then may.
    let mut licensed = plain(100);
    licensed.requirements.amounts.set("license/sim", Amount(1));
    let late = world.submit(vec![lasting(licensed.clone(), 60_000)])[0].expect("it waits");
    assert_eq!(world.started.get(&late), None);
    let early = world.submit(vec![lasting(plain(500), 60_000)])[0].expect("it starts");
    assert!(world.started.contains_key(&early), "there is a quarter of a node beside the gang");
    world.until(300_000);
    assert_eq!(world.started[&gang], world.promised[&gang]);
    assert!(world.started.contains_key(&late));
}

#[test]
fn a_gang_of_roles_is_promised_a_start_in_one_zone() {
    // Zone a has one node, zone b has two: server and workers fit in either only when it is empty.
    let mut world = World::new(&[(8, 0, 0), (4, 0, 2), (4, 0, 2)], "backfill_1", 0);
    world.submit(vec![
        lasting(plain(7_000), 40_000),
        lasting(plain(3_000), 10_000),
        lasting(plain(3_000), 20_000),
    ]);
    let role = |name: &str, cpu_millis, members| Role {
        name: name.into(),
        requirements: Requirements { amounts: Resources::new(cpu_millis, 0), ..Requirements::default() },
        min_members: members,
        max_members: members,
    };
    let mut gang = of_roles(vec![role("worker", 2_000, 2), role("server", 4_000, 1)], false);
    gang.topology.required = "zone".into();
    let gang = world.submit(vec![lasting(gang, 5_000)])[0].expect("it waits");
    let promised = 10_000 + 20_000 + 3_000;
    assert_eq!(world.promised.get(&gang), Some(&promised));
    let late = world.submit(vec![lasting(plain(1_000), 60_000)])[0].expect("it starts");
    assert!(world.started.contains_key(&late), "beside what runs in zone a");
    let other = world.submit(vec![lasting(plain(1_000), 60_000)])[0].expect("it waits");
    assert_eq!(world.started.get(&other), None, "it would be in the way of the gang");
    let starts: Vec<_> = world.planner.planned_starts().collect();
    let estimates = StartEstimates::new(&world.ledger, world.ledger.pool("default").unwrap(), &starts);
    assert_eq!(estimates.of(gang, || 1).start_at, Some(LedgerTime(promised)));
    assert!(estimates.of(other, || 2).start_at > Some(LedgerTime(promised)));
    world.until(promised);
    assert_eq!(world.started[&gang], promised);
    let members = &world.ledger.reservation(gang).expect("it runs").members;
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(|member| member.node.0 > 0), "{members:?}");
}

#[test]
fn one_that_was_given_notice_gives_its_quota_back_once() {
    let mut world = World::new(&[(32, 0, 0)], "", 0);
    let queue = |name: &str, parent: &str, nominal| {
        let limit = Quota { nominal: Amount(nominal), ..Quota::default() };
        let quotas = [("default".to_owned(), [("cpu".to_owned(), limit)].into())].into();
        PolicyObject::Queue(Queue { name: name.into(), parent: parent.into(), quotas, ..Queue::default() })
    };
    let low =
        Class { name: "low".into(), priority: 25, preemptible: true, grace_ms: 4_000, ..Class::default() };
    let put = vec![queue("org", "", 7_000), queue("a", "org", 0), PolicyObject::Class(low)];
    assert_eq!(
        world.apply(Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) }),
        Outcome::Done
    );
    world.planner.sync_policies(&world.ledger);
    let of = |queue: &str, class: &str, cpu, length_ms| Request {
        queue: queue.into(),
        class: class.into(),
        ..lasting(plain(cpu), length_ms)
    };
    // The one that leaves is of the queue above, where what those below take is counted too.
    let held = world.submit(vec![of("org", "low", 3_000, 60_000), of("a", "standard", 3_000, 20_000)]);
    let claimant = world.submit(vec![of("org", "high", 4_000, 5_000)])[0].expect("it waits");
    let member = MemberPlacement { node: NodeId(0), devices: Vec::new(), role: 0 };
    let (placement, victims) =
        (Placement { members: vec![member] }, held.into_iter().take(1).flatten().collect());
    let came = world.apply(Command::Preempt { reservation: claimant, placement, victims });
    assert!(matches!(&came, Outcome::Reservation(one) if one.state == State::Planned), "{came:?}");
    world.sync();
    let next = world.submit(vec![of("a", "standard", 3_000, 1_000)])[0].expect("it waits");
    let pool = world.ledger.pool("default").expect("it is there");
    let estimate = StartEstimates::new(&world.ledger, pool, &[]).of(next, || 1);
    // Four cores are kept for the claimant, so it is not enough that the one with notice leaves.
    assert!(estimate.start_at.is_some_and(|at| at.0 >= 30_000), "{estimate:?}");
}

#[test]
fn who_waits_for_quota_is_told_when_it_comes_back() {
    let mut world = World::new(&[(8, 0, 0)], "", 0);
    let limit = Quota { nominal: Amount(2_000), ..Quota::default() };
    let quotas = [("default".to_owned(), [("cpu".to_owned(), limit)].into())].into();
    let queue = PolicyObject::Queue(Queue { name: "a".into(), quotas, ..Queue::default() });
    let put = Command::ApplyPolicy { put: vec![queue], delete: vec![], if_revision: Revision(0) };
    assert_eq!(world.apply(put), Outcome::Done);
    world.planner.sync_policies(&world.ledger);
    let of_queue = |length_ms| Request { queue: "a".into(), ..lasting(plain(1_000), length_ms) };
    world.submit(vec![of_queue(10_000), of_queue(20_000)]);
    let ids: Vec<_> = world.submit(vec![of_queue(30_000), of_queue(5_000), of_queue(1_000)]);
    let ids: Vec<ReservationId> = ids.into_iter().map(|id| id.expect("it waits")).collect();
    let starts = |world: &World| -> Vec<Option<u64>> {
        let pool = world.ledger.pool("default").expect("it is there");
        let estimates = StartEstimates::new(&world.ledger, pool, &[]);
        let start = |id: &ReservationId| {
            let estimate = estimates.of(*id, || 1);
            assert!(!estimate.is_hard);
            estimate.start_at.map(|at| at.0)
        };
        ids.iter().map(start).collect()
    };
    // As the two leave, and then the one of five seconds before that of thirty.
    let (first, second) = (10_000 + 12_000, 10_000 + 23_000);
    let third = second + 5_000 + 1_500;
    let told = starts(&world);
    assert_eq!(told[..2], [Some(first), Some(second)]);
    assert!(told[2].is_some_and(|at| at.abs_diff(third) < 1_000), "{told:?}, not about {third}");
    world.until(200_000);
    let started: Vec<Option<u64>> = ids.iter().map(|id| world.started.get(id).copied()).collect();
    assert_eq!(started, told, "it came true");
    let endless = Request { ttl_ms: 3_600_000, ..Request { queue: "a".into(), ..plain(2_000) } };
    world.submit(vec![endless]);
    let next = world.submit(vec![of_queue(1_000)])[0].expect("it waits");
    let pool = world.ledger.pool("default").expect("it is there");
    let estimate = StartEstimates::new(&world.ledger, pool, &[]).of(next, || 1);
    assert!(matches!(estimate.why_none, Some(NoStart::Limited(_))), "{estimate:?}");
}

/// A stream of small requests that keeps the node full, and a wide one that came first; when the wide one started, and how many small ones came.
fn against_a_stream(queueing: &str, starvation_bound_ms: u64, declares: bool) -> (Option<u64>, usize) {
    against_a_stream_of(queueing, starvation_bound_ms, declares, "standard")
}

fn against_a_stream_of(
    queueing: &str,
    starvation_bound_ms: u64,
    declares: bool,
    class: &str,
) -> (Option<u64>, usize) {
    let mut world = World::new(&[(8, 2, 0)], queueing, starvation_bound_ms);
    world.one_class = class == "standard";
    let small = |length_ms| {
        let mut request = lasting(gpus(1), length_ms);
        request.class = class.into();
        if !declares {
            request.max_duration_ms = 0;
        }
        request
    };
    world.submit(vec![small(4_000)]);
    let wide = world.submit(vec![lasting(gpus(2), 4_000)])[0].expect("it waits");
    let came_ms = world.now_ms;
    let mut came = 0;
    // Two hundred seconds, a request each: never is nobody waiting.
    for step in 1..200u64 {
        world.until(came_ms + step * 1_000);
        world.submit(vec![small(4_000)]);
        came += 1;
        if let Some(started) = world.started.get(&wide) {
            return (Some(started - came_ms), came);
        }
    }
    (None, came)
}

#[test]
fn a_stream_of_small_requests_holds_back_a_wide_one_only_where_the_docs_say_so() {
    // Without a bound, what does not fit is passed over for ever.
    for queueing in ["skip", "learned", "priority", ""] {
        let bound = if queueing.is_empty() { 0 } else { 366 * 86_400_000 };
        assert_eq!(against_a_stream(queueing, bound, true).0, None, "{queueing}: nothing holds the stream");
    }
    // With it, the bound and one run of what was there, whatever the discipline.
    for queueing in ["skip", "learned", "priority", ""] {
        let waited = against_a_stream(queueing, 30_000, true).0.expect("the bound holds");
        assert!((30_000..=30_000 + 6_000).contains(&waited), "{queueing}: {waited} ms");
        // Where nobody says how long they run, too: nothing else gets the nodes that could hold it.
        let waited = against_a_stream(queueing, 30_000, false).0.expect("the bound holds");
        assert!((30_000..=30_000 + 7_000).contains(&waited), "{queueing}: {waited} ms");
    }
    // A planned start needs no bound.
    for queueing in ["backfill_1", "backfill_all", "strict"] {
        let waited = against_a_stream(queueing, 0, true).0.expect("it has a planned start");
        assert!(waited <= 6_000, "{queueing}: {waited} ms");
    }
    // A higher class goes first for as long as the bound, and no longer.
    for queueing in ["skip", "backfill_1", "backfill_3", "strict"] {
        let waited = against_a_stream_of(queueing, 30_000, true, "high").0.expect("the bound holds");
        assert!((30_000..=37_000).contains(&waited), "{queueing}: {waited} ms");
    }
    // Strict needs no bound, either; backfill falls back on the bound where no ends are declared.
    assert!(against_a_stream("strict", 0, false).0.is_some());
    let waited = against_a_stream("backfill_1", 30_000, false).0.expect("the bound holds");
    assert!(waited <= 37_000, "{waited} ms");
}

#[test]
fn who_is_past_the_bound_holds_back_only_nodes_that_could_hold_it() {
    // A node with GPUs and one without.
    let mut world = World::new(&[(8, 2, 0), (8, 0, 0)], "skip", 5_000);
    let mut busy = gpus(1);
    busy.ttl_ms = 3_600_000;
    world.submit(vec![busy]);
    let wide = world.submit(vec![lasting(gpus(2), 4_000)])[0].expect("it waits");
    world.until(20_000);
    // Something has to come free for the queue to be walked.
    let brief = world.submit(vec![lasting(gpus(1), 1_000)])[0].expect("it starts");
    assert!(world.started.contains_key(&brief), "the bound is looked at when the queue is walked");
    world.release(brief);
    let narrow = world.submit(vec![lasting(gpus(1), 1_000)])[0].expect("it waits");
    assert_eq!(world.started.get(&narrow), None, "the GPU is kept for the wide one");
    let plain = world.submit(vec![lasting(plain(1_000), 1_000)])[0].expect("it starts");
    assert!(world.started.contains_key(&plain), "the other node is nothing to it");
    assert_eq!(world.started.get(&wide), None);
}

#[test]
fn a_higher_class_goes_before_planned_starts_of_a_lower_one() {
    let mut world = World::new(&[(8, 1, 0)], "backfill_1", 0);
    world.submit(vec![lasting(gpus(1), 10_000)]);
    let low = world.submit(vec![lasting(gpus(1), 10_000)])[0].expect("it waits");
    let of_low = world.promised.remove(&low).expect("it has a planned start");
    let high = Request { class: "high".into(), ..lasting(gpus(1), 10_000) };
    let high = world.submit(vec![high])[0].expect("it waits");
    assert_eq!(world.promised[&high], of_low);
    world.promised.remove(&low);
    world.until(300_000);
    assert!(world.started[&high] < world.started[&low]);
}

#[test]
fn learned_starts_first_what_used_to_be_short() {
    let mut world = World::new(&[(8, 1, 0)], "learned", 0);
    let of = |tenant: &str, length_ms| Request { tenant: tenant.into(), ..lasting(gpus(1), length_ms) };
    // A past: quick's runs take a second, slow's twenty; declared are twenty by both.
    for _ in 0..4 {
        for (tenant, ran_ms) in [("quick", 1_000), ("slow", 20_000)] {
            let id = world.submit(vec![of(tenant, 20_000)])[0].expect("it starts");
            world.until(world.now_ms + ran_ms);
            world.release(id);
        }
    }
    world.submit(vec![of("slow", 20_000)]);
    let slow = world.submit(vec![of("slow", 20_000)])[0].expect("it waits");
    let quick = world.submit(vec![of("quick", 20_000)])[0].expect("it waits");
    world.until(world.now_ms + 100_000);
    assert!(world.started[&quick] < world.started[&slow]);
}
