//! Redistribution: who would come back by itself goes elsewhere, so that one who waits fits, and it comes to rest.

mod fixture;

use fixture::{apply_at, fleet, plain, put_pool, request, sizes};
use plimsoll_ledger::{
    Command, ContentionPolicy, Ledger, OnPreempt, Outcome, Placement, Pool, Preemption, Qos, Request,
    Resolve, State, Strategy as PoolStrategy, Verdict, Wait,
};
use plimsoll_scheduler::{Planner, Relocation};
use plimsoll_types::{NodeId, ReservationId};
use proptest::prelude::*;

/// A tenth of it is waited beyond each deadline.
const TTL_MS: u64 = 1_000_000;

/// A pool that redistributes where somebody has waited for ten seconds.
fn pool(max_preemptions_per_hour: u32) -> Pool {
    let resolve = [Resolve::Redistribute].into();
    Pool {
        name: "default".into(),
        preemption: Preemption::LowerClass,
        contention: Some(ContentionPolicy { resolve, ..ContentionPolicy::default() }),
        max_preemptions_per_hour,
        ..Pool::default()
    }
}

/// A request of a class that gives way, and that comes back by itself.
fn loose(request: Request) -> Request {
    Request {
        class: "batch".into(),
        on_preempt: OnPreempt::Requeue,
        wait: Wait::Queue { deadline_ms: 0 },
        ttl_ms: TTL_MS,
        ..request
    }
}

struct World {
    ledger: Ledger,
    now: u64,
}

impl World {
    fn apply(&mut self, command: Command) -> Outcome {
        apply_at(&mut self.ledger, self.now, command)
    }

    fn submit(&mut self, request: Request, on: Option<u32>) -> ReservationId {
        let mut verdict = Planner::new(&self.ledger, 0).place(&self.ledger, &request);
        if let (Some(node), Verdict::Place(place)) = (on, &mut verdict) {
            place.members[0].node = NodeId(node);
        }
        match self.apply(Command::Submit { request, verdict }) {
            Outcome::Reservation(made) => made.id,
            refused => panic!("{refused:?}"),
        }
    }

    /// Time goes on, and what is contended is measured.
    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.apply(Command::Expire { limit: 1_000 });
        for (pool, resource) in self.ledger.contentions_due(self.ledger.clock()) {
            self.apply(Command::ObserveContention { pool, resource });
        }
    }

    fn plan(&self) -> Vec<Relocation> {
        Planner::new(&self.ledger, 0).plan_relocations(&self.ledger, 100)
    }

    fn relocate(&mut self, one: &Relocation) -> Outcome {
        self.apply(Command::Relocate { reservation: one.reservation, placement: one.placement.clone() })
    }

    fn serve(&mut self) {
        for (reservation, placement, _) in Planner::new(&self.ledger, 0).plan_queue(&self.ledger, 100) {
            let came = self.apply(Command::Place { reservation, placement });
            assert!(matches!(came, Outcome::Reservation(_)), "{came:?}");
        }
    }

    fn at(&self, id: ReservationId) -> (State, Vec<u32>) {
        let one = self.ledger.reservation(id).expect("it is there");
        (one.state, one.members.iter().map(|member| member.node.0).collect())
    }
}

/// Two nodes of four cores, on each a grant of two of them, and one who waits for four.
fn split(waits: Request, most_per_hour: u32) -> (World, [ReservationId; 3]) {
    let mut world = World { ledger: fleet(&[(4, 0, 0), (4, 0, 0)], PoolStrategy::BestFit), now: 1_000 };
    put_pool(&mut world.ledger, pool(most_per_hour));
    let first = world.submit(loose(plain(2_000)), Some(0));
    world.now += 1_000;
    let second = world.submit(loose(plain(2_000)), Some(1));
    let waits = world.submit(waits, None);
    (world, [first, second, waits])
}

#[test]
fn the_youngest_goes_to_the_other_node_and_who_waits_fits_where_it_was() {
    let (mut world, [first, second, waits]) = split(loose(plain(4_000)), 0);
    assert_eq!(world.plan(), vec![], "nothing is contended yet");
    world.pass(12_000);
    let plan = world.plan();
    let [one] = &plan[..] else { panic!("{plan:?}") };
    assert_eq!((one.reservation, one.placement.members[0].node.0, one.helps), (second, 0, waits));
    assert!(matches!(world.relocate(one), Outcome::Reservation(_)));
    let noted = world.ledger.contentions_of("default").flat_map(|one| one.resolutions.clone());
    let noted: Vec<String> = noted.map(|one| format!("{}: {}", one.kind.name(), one.subject)).collect();
    assert_eq!(
        noted,
        ["redistribute: pool/default".to_owned(), format!("redistribute: {second} from node-1 to node-0")]
    );
    assert_eq!(world.plan(), vec![], "it is on its way");
    world.pass(180_000);
    world.serve();
    assert_eq!(world.at(first), (State::Active, vec![0]));
    assert_eq!(world.at(second), (State::Active, vec![0]));
    assert_eq!(world.at(waits), (State::Active, vec![1]));
}

#[test]
fn nobody_goes_for_a_lower_class_or_more_often_than_the_pool_allows_or_without_a_place() {
    let (mut world, [first, ..]) = split(loose(plain(4_000)), 0);
    world.submit(Request { class: "low".into(), ..loose(plain(2_000)) }, Some(0));
    world.apply(Command::Cancel { reservation: first });
    world.pass(12_000);
    let goes: Vec<String> = world.plan().iter().map(|one| one.reservation.to_string()).collect();
    assert_eq!(goes, ["r-0007"], "the other one is low, which is above batch");

    let (mut world, _) = split(Request { qos: Some(Qos::BestEffort), ..loose(plain(4_000)) }, 0);
    world.submit(loose(plain(4_000)), None);
    world.pass(12_000);
    let helps: Vec<String> = world.plan().iter().map(|one| one.helps.to_string()).collect();
    assert_eq!(helps, ["r-0009"], "best effort takes what is idle, and no more");

    let (mut world, _) = split(loose(plain(4_000)), 1);
    world.pass(12_000);
    let plan = world.plan();
    assert_eq!(plan.len(), 1);
    world.relocate(&plan[0]);
    world.pass(180_000);
    world.submit(loose(plain(4_000)), None);
    assert_eq!(world.plan(), vec![], "one in an hour");

    let (mut world, _) = split(loose(plain(4_000)), 0);
    world.submit(loose(plain(1_000)), Some(0));
    world.submit(loose(plain(1_000)), Some(1));
    world.pass(12_000);
    assert_eq!(world.plan(), vec![], "three of four cores are taken on each");
}

#[test]
fn nobody_goes_twice_for_one_contention_nor_while_others_are_on_their_way() {
    let (mut world, [first, second, waits]) = split(loose(plain(4_000)), 0);
    world.pass(12_000);
    let plan = world.plan();
    world.relocate(&plan[0]);
    world.pass(180_000);
    // Somebody else is faster, so that it comes back to where it was.
    let taken = world.submit(loose(plain(2_000)), Some(0));
    world.serve();
    assert_eq!(world.at(second), (State::Active, vec![1]));
    assert_eq!(world.at(waits).0, State::Pending);
    world.pass(12_000);
    let goes: Vec<ReservationId> = world.plan().iter().map(|one| one.reservation).collect();
    assert!(!goes.contains(&second), "{goes:?}");
    let _ = (first, taken);
}

#[test]
fn what_the_ledger_refuses_is_not_proposed_again() {
    let (mut world, [_, second, _]) = split(loose(plain(4_000)), 0);
    world.pass(12_000);
    let mut planner = Planner::new(&world.ledger, 0);
    assert_eq!(planner.plan_relocations(&world.ledger, 100)[0].reservation, second);
    planner.settle_relocation(&world.ledger, second, true);
    let next = planner.plan_relocations(&world.ledger, 100);
    assert!(next.iter().all(|one| one.reservation != second), "{next:?}");
    assert_eq!(next.len(), 1, "the other one can go");
    planner.settle_relocation(&world.ledger, next[0].reservation, false);
    world.relocate(&next[0]);
    assert_eq!(planner.plan_relocations(&world.ledger, 100), vec![]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each move is admitted, in its order; with all moved, each of those for whom it is done has a place.
    #[test]
    fn who_goes_has_a_place_and_who_waits_fits(
        sizes in sizes(12),
        wanted in prop::collection::vec((request(), 1u32..3), 4..30),
    ) {
        let mut world = World { ledger: fleet(&sizes, PoolStrategy::WorstFit), now: 1_000 };
        put_pool(&mut world.ledger, Pool { strategy: PoolStrategy::WorstFit, ..pool(0) });
        for (asked, many) in wanted {
            let class = if many == 2 { "standard" } else { "batch" };
            let asked = Request { class: class.into(), ..loose(asked) };
            // Some no fleet has a place for.
            if !matches!(Planner::new(&world.ledger, 0).place(&world.ledger, &asked), Verdict::Infeasible(_)) {
                world.submit(asked, None);
            }
            world.now += 100;
        }
        world.pass(12_000);
        world.pass(5_000);
        let plan = world.plan();
        let mut requests = std::collections::BTreeMap::new();
        for one in &plan {
            let waits = world.ledger.reservation(one.helps).expect("it waits");
            let goes = world.ledger.reservation(one.reservation).expect("it runs");
            prop_assert!(goes.priority <= waits.priority);
            requests.insert(one.helps, waits.request_as_held());
            let came = world.relocate(one);
            prop_assert!(matches!(came, Outcome::Reservation(_)), "{came:?}");
        }
        world.pass(180_000);
        for one in &plan {
            let placement: Placement = one.placement.clone();
            let came = world.apply(Command::Place { reservation: one.reservation, placement });
            prop_assert!(matches!(came, Outcome::Reservation(_)), "{came:?}");
        }
        for (id, request) in requests {
            let verdict = Planner::new(&world.ledger, 0).place(&world.ledger, &request);
            let Verdict::Place(placement) = verdict else { panic!("{id} has no place: {verdict:?}") };
            let came = world.apply(Command::Place { reservation: id, placement });
            prop_assert!(matches!(came, Outcome::Reservation(_)), "{came:?}");
        }
        prop_assert_eq!(world.ledger.check_invariants(), vec![]);
    }
}
