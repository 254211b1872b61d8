//! Who has to leave: for a higher class, without queues, whoever may be asked is tried (`docs/semantics.md`, 5.2).

use std::collections::BTreeSet;

use plimsoll_ledger::{
    Class, Command, Ledger, Outcome, PolicyObject, Request, Reservation, State, Topology, Verdict, Wait,
};
use plimsoll_scheduler::{Eviction, Planner};
use plimsoll_types::{LedgerTime, ReservationId, Revision};
use proptest::prelude::*;

use super::cases::{Setup, Step, ledger_of, story};
use super::scene::Scene;

/// Those who hold something are protected for so long.
const MIN_RUN_MS: u64 = 5_000;

/// The highest priority that has to leave: of all sets that make room the one of which it is lowest. `None` where no set makes room.
fn highest_needed(scene: &Scene<'_>, waiting: &Reservation, now: LedgerTime) -> Option<i32> {
    let may_leave = |one: &&&Reservation| {
        let class = scene.ledger.classes().find(|class| class.name == one.request.class);
        let protected_until = |class: &Class| one.granted_at.plus_ms(class.min_run_ms);
        one.priority < waiting.priority
            && one.request.pool == waiting.request.pool
            && matches!(one.state, State::Held | State::Active | State::Partial)
            && class.is_some_and(|class| class.preemptible && protected_until(class) <= now)
    };
    let candidates: Vec<&Reservation> = scene.held.iter().filter(may_leave).copied().collect();
    let priorities: BTreeSet<i32> = candidates.iter().map(|one| one.priority).collect();
    // Whoever else leaves makes no room less: of those up to a priority all may go.
    priorities.into_iter().find(|highest| {
        let up_to = candidates.iter().filter(|one| one.priority <= *highest);
        scene.without(&up_to.map(|one| one.id).collect()).any_place(&waiting.request).is_some()
    })
}

/// A ledger at a time of its own.
struct World {
    ledger: Ledger,
    now: u64,
}

impl World {
    fn new(setup: &Setup) -> World {
        let mut world = World { ledger: ledger_of(setup), now: 2_000 };
        let class = |name: &str, priority| {
            PolicyObject::Class(Class {
                name: name.into(),
                priority,
                preemptible: true,
                min_run_ms: MIN_RUN_MS,
                ..Class::default()
            })
        };
        let put = vec![class("batch", 10), class("low", 25)];
        world.apply(Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
        world
    }

    fn apply(&mut self, command: Command) -> Outcome {
        crate::fixture::apply_at(&mut self.ledger, self.now, command)
    }

    /// Submits; who finds no place waits. The reservation, where there is one.
    fn submit(&mut self, request: &Request) -> Option<Reservation> {
        let (verdict, _) = Planner::new(&self.ledger, 7).plan_batch(&self.ledger, &[request]).remove(0);
        if matches!(verdict, Verdict::Infeasible(_)) {
            return None;
        }
        match self.apply(Command::Submit { request: request.clone(), verdict }) {
            Outcome::Reservation(made) => Some(Reservation::clone(&made)),
            _ => None,
        }
    }
}

/// Requests of any class, of no queue. The planner's search asks nobody to leave for a rule about other work, nor for a group: those are left out.
fn classed(request: &Request, class: usize) -> Request {
    let topology = Topology { slice_size: 0, slice_level: String::new(), ..request.topology.clone() };
    Request {
        topology,
        affinity: Vec::new(),
        qos: None,
        class: ["batch", "low", "standard", "high", "batch", "high"][class % 6].into(),
        queue: String::new(),
        ttl_ms: 3_600_000,
        wait: Wait::Queue { deadline_ms: 0 },
        ..request.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn others_are_asked_to_leave_just_where_that_makes_room(
        (setup, steps) in story(),
        classes in prop::collection::vec(any::<usize>(), 40),
        pauses in prop::collection::vec(prop::sample::select(vec![0u64, 2_000, 6_000]), 40),
    ) {
        let mut world = World::new(&setup);
        let requests = steps.iter().flat_map(|step| match step {
            Step::Ask(requests) => requests.clone(),
            _ => Vec::new(),
        });
        for ((request, class), pause) in requests.zip(classes).zip(pauses) {
            world.now += pause;
            world.apply(Command::Expire { limit: 1 });
            let Some(waiting) = world.submit(&classed(&request, class)) else { continue };
            let scene = Scene::of(&world.ledger);
            if waiting.state != State::Pending {
                continue;
            }
            let best = highest_needed(&scene, &waiting, LedgerTime(world.now));
            let mut planner = Planner::new(&world.ledger, 7);
            planner.plan_queue(&world.ledger, 10);
            let found = planner.plan_evictions(&world.ledger, 10);
            let Some(Eviction { placement, victims, .. }) = found.first() else {
                prop_assert_eq!(best, None, "nobody is asked to leave for {:?}", waiting.request);
                world.apply(Command::Cancel { reservation: waiting.id });
                continue;
            };
            let gone: BTreeSet<ReservationId> = victims.iter().copied().collect();
            let leaving = scene.held.iter().filter(|one| gone.contains(&one.id));
            prop_assert_eq!(leaving.map(|one| one.priority).max(), best, "for {:?}", waiting.request);
            let broken = scene.without(&gone).broken(&waiting.request, &placement.members);
            prop_assert_eq!(broken, None, "they leave in vain: {:?} for {:?}", placement, waiting.request);
            for stays in victims {
                let fewer: BTreeSet<ReservationId> = gone.iter().copied().filter(|id| id != stays).collect();
                let broken = scene.without(&fewer).broken(&waiting.request, &placement.members);
                prop_assert!(broken.is_some(), "{:?} could have stayed, for {:?}", stays, waiting.request);
            }
            // Who waits goes, so that the next one is the only one that waits.
            world.apply(Command::Cancel { reservation: waiting.id });
        }
    }
}
