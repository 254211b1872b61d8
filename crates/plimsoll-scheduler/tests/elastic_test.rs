//! Elastic pools: nodes go to where they are used, for a reason, within all bounds, and come to rest.

mod fixture;

use fixture::{GIB, apply_at, plain};
use plimsoll_ledger::{
    Blocker, Command, Elastic, Elasticity, LATEST_VERSION, Ledger, Outcome, PolicyObject, Pool, Qos, Reason,
    Registration, Request, State, Verdict,
};
use plimsoll_scheduler::Planner;
use plimsoll_scheduler::elastic::{ElasticLook, IdleWatch, look, may_want_moves};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Resources, Revision};
use proptest::prelude::*;

const IDLE_MS: u64 = 10_000;

fn elastic(min_nodes: u32, max_nodes: u32, growth_nodes: u32) -> Elastic {
    let elasticity = Elasticity::Elastic;
    Elastic { elasticity, min_nodes, max_nodes, growth_nodes, idle_timeout_ms: IDLE_MS, ..Elastic::default() }
}

/// A leader with its watch, second by second.
struct Leader {
    ledger: Ledger,
    idle: IdleWatch,
    now: u64,
    moves: Vec<(NodeId, String)>,
    latest: ElasticLook,
}

impl Leader {
    /// Pools of these names and bounds, each with nodes of so many cores.
    fn new(pools: &[(&str, Elastic, &[u64])]) -> Leader {
        let mut ledger = Ledger::new();
        apply_at(&mut ledger, 1_000, Command::Upgrade { to: LATEST_VERSION });
        let put = pools.iter().map(|(name, elastic, _)| {
            PolicyObject::Pool(Pool { name: (*name).into(), elastic: *elastic, ..Pool::default() })
        });
        let put = Command::ApplyPolicy { put: put.collect(), delete: vec![], if_revision: Revision(0) };
        assert_eq!(apply_at(&mut ledger, 1_000, put), Outcome::Done);
        for (pool, _, nodes) in pools {
            for (index, cores) in nodes.iter().enumerate() {
                let registration = Registration {
                    name: format!("{pool}-{index}"),
                    incarnation: 1,
                    pool: (*pool).into(),
                    capacity: Resources::new(cores * 1_000, 64 * GIB),
                    ..Registration::default()
                };
                apply_at(&mut ledger, 1_000, Command::RegisterNode(registration));
            }
        }
        Leader {
            ledger,
            idle: IdleWatch::default(),
            now: 1_000,
            moves: vec![],
            latest: ElasticLook::default(),
        }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let outcome = apply_at(&mut self.ledger, self.now, command);
        assert_eq!(self.ledger.check_invariants(), vec![]);
        outcome
    }

    fn submit(&mut self, pool: &str, cores: u64) -> ReservationId {
        let request = Request { pool: pool.into(), ..plain(cores * 1_000) };
        let verdict = Planner::new(&self.ledger, 0).place(&self.ledger, &request);
        // What no node can ever hold waits all the same: nodes may come.
        let verdict = match verdict {
            Verdict::Infeasible(blockers) => Verdict::Blocked(blockers),
            other => other,
        };
        match self.apply(Command::Submit { request, verdict }) {
            Outcome::Reservation(made) => made.id,
            other => panic!("{other:?}"),
        }
    }

    /// A second: those who wait are placed, nodes move.
    fn second(&mut self) {
        self.now += 1_000;
        for (reservation, placement, _) in Planner::new(&self.ledger, 0).plan_queue(&self.ledger, 1_000) {
            self.apply(Command::Place { reservation, placement });
        }
        let now = LedgerTime(self.now);
        self.idle.look(&self.ledger, now);
        if !may_want_moves(&self.ledger) {
            return;
        }
        self.latest = look(self.ledger.clone(), &self.idle, now);
        for one in self.latest.moves.clone() {
            let command = Command::MoveNode { node: one.node, from: one.from.clone(), to: one.to.clone() };
            let came = self.apply(command);
            assert!(matches!(came, Outcome::Node(_)), "{one:?} was decided, and refused: {came:?}");
            self.moves.push((one.node, one.to));
        }
    }

    fn seconds(&mut self, count: u64) {
        (0..count).for_each(|_| self.second());
    }

    fn state(&self, id: ReservationId) -> State {
        self.ledger.reservation(id).expect("it is there").state
    }

    fn pool_of(&self, node: &str) -> &str {
        &self.ledger.node_by_name(node).expect("it is there").pool
    }

    fn seen(&self, pool: &str, what: &str) -> bool {
        self.latest.lines.get(pool).is_some_and(|lines| lines.iter().any(|line| line.contains(what)))
    }
}

fn two() -> Leader {
    Leader::new(&[("a", elastic(0, 0, 4), &[8, 8]), ("b", elastic(0, 0, 4), &[8])])
}

#[test]
fn an_idle_node_goes_to_where_somebody_waits_who_is_placed_with_it() {
    let mut leader = two();
    let [first, second] = [0, 0].map(|_| leader.submit("b", 8));
    leader.seconds(IDLE_MS / 1_000 - 1);
    assert_eq!((leader.state(first), leader.state(second)), (State::Active, State::Pending));
    assert_eq!(leader.moves, vec![], "nothing is idle for long enough");
    assert!(leader.seen("a", "a-0 stays: idle for"), "{:?}", leader.latest);
    leader.seconds(3);
    assert_eq!(leader.state(second), State::Active);
    assert_eq!((leader.moves.len(), leader.pool_of("a-0"), leader.pool_of("a-1")), (1, "b", "a"));
}

#[test]
fn of_several_that_would_do_the_pool_s_own_node_goes_first() {
    // The planner by itself takes the tighter one.
    let mut leader = Leader::new(&[("a", elastic(0, 0, 4), &[8]), ("b", elastic(0, 0, 4), &[10])]);
    let [first, second] = [0, 0].map(|_| leader.submit("a", 8));
    leader.seconds(IDLE_MS / 1_000 + 2);
    assert_eq!(leader.pool_of("b-0"), "a", "it is lent");
    for id in [first, second] {
        leader.apply(Command::Cancel { reservation: id });
    }
    let home = leader.submit("b", 8);
    leader.seconds(IDLE_MS / 1_000 + 2);
    let node = leader.ledger.reservation(home).expect("it is there").members[0].node;
    assert_eq!(leader.ledger.node(node).expect("it is there").name(), "b-0");
    assert_eq!((leader.pool_of("a-0"), leader.pool_of("b-0")), ("a", "b"));
}

#[test]
fn a_node_that_helps_nobody_stays() {
    let mut leader = two();
    leader.submit("b", 8);
    leader.submit("b", 9);
    leader.seconds(60);
    assert_eq!(leader.moves, vec![]);
    assert!(leader.seen("b", "no node of another pool that fits may move"), "{:?}", leader.latest);
    // Three at once, where two may come.
    let mut three = Request { pool: "b".into(), ..plain(8_000) };
    (three.gang.min_members, three.gang.max_members) = (3, 3);
    leader.apply(Command::Submit { request: three, verdict: Verdict::Blocked(vec![]) });
    leader.seconds(60);
    assert_eq!(leader.moves, vec![]);
    assert!(leader.seen("b", "none of them would be placed with the 2 nodes"), "{:?}", leader.latest);
}

#[test]
fn a_node_that_fits_is_found_behind_many_that_do_not() {
    let mut small = vec![2; 60];
    small.push(8);
    let pools: [(&str, Elastic, &[u64]); 2] = [("a", elastic(0, 0, 4), &small), ("b", elastic(0, 0, 4), &[])];
    let mut leader = Leader::new(&pools);
    let waits = leader.submit("b", 8);
    leader.seconds(IDLE_MS / 1_000 + 3);
    assert_eq!((leader.state(waits), leader.pool_of("a-60")), (State::Active, "b"));
    assert_eq!(leader.moves.len(), 1);
}

#[test]
fn who_waits_for_quota_or_a_batch_or_takes_what_is_idle_moves_no_node_and_keeps_none() {
    let mut leader = two();
    leader.submit("b", 8);
    let loose = Request { pool: "b".into(), qos: Some(Qos::BestEffort), ..plain(8_000) };
    let Outcome::Reservation(loose) =
        leader.apply(Command::Submit { request: loose, verdict: Verdict::Blocked(vec![]) })
    else {
        panic!("it waits");
    };
    leader.seconds(60);
    assert_eq!(leader.moves, vec![], "best effort takes what is idle in its pool");
    leader.apply(Command::Cancel { reservation: loose.id });
    let batch = Blocker::new(Reason::AwaitsBatch, "queue nightly", 1, 0);
    let later = Request { pool: "b".into(), ..plain(8_000) };
    let Outcome::Reservation(later) =
        leader.apply(Command::Submit { request: later, verdict: Verdict::Blocked(vec![batch]) })
    else {
        panic!("it waits");
    };
    leader.seconds(60);
    assert_eq!(leader.moves, vec![], "its batch begins when it begins");
    leader.apply(Command::Cancel { reservation: later.id });
    // At home one waits for its quota, and could use the node otherwise.
    let quota = Blocker::new(Reason::QuotaExceeded, "quota of queue x", 1, 0);
    let mut pair = Request { pool: "a".into(), ..plain(8_000) };
    (pair.gang.min_members, pair.gang.max_members) = (3, 3);
    leader.apply(Command::Submit { request: pair, verdict: Verdict::Blocked(vec![quota]) });
    leader.submit("b", 8);
    leader.seconds(3);
    assert_eq!(leader.moves.len(), 1);
}

#[test]
fn a_node_that_somebody_at_home_waits_for_stays() {
    // The one at home wants two nodes at once, and one of two is in use.
    let mut leader = two();
    leader.submit("a", 8);
    let mut pair = Request { pool: "a".into(), ..plain(8_000) };
    (pair.gang.min_members, pair.gang.max_members) = (2, 2);
    leader.apply(Command::Submit { request: pair, verdict: Verdict::Blocked(vec![]) });
    leader.submit("b", 8);
    leader.submit("b", 8);
    leader.seconds(60);
    assert_eq!(leader.moves, vec![]);
    assert!(leader.seen("a", "waits in its own pool and could use it"), "{:?}", leader.latest);
}

#[test]
fn a_pool_takes_no_more_than_its_bounds_say_and_no_faster() {
    let pools: [(&str, Elastic, &[u64]); 2] =
        [("a", elastic(1, 0, 4), &[8, 8, 8, 8]), ("b", elastic(0, 3, 1), &[8])];
    let mut leader = Leader::new(&pools);
    for _ in 0..5 {
        leader.submit("b", 8);
    }
    leader.seconds(IDLE_MS / 1_000 + 2);
    assert_eq!(leader.moves.len(), 1, "one in a minute");
    assert!(leader.seen("b", "no more nodes: growth of pool b"), "{:?}", leader.latest);
    leader.seconds(180);
    assert_eq!((leader.moves.len(), leader.ledger.nodes_heard("b")), (2, 3), "its most");
    assert!(leader.seen("b", "no more nodes: max nodes of pool b (4 asked, 3)"), "{:?}", leader.latest);
}

#[test]
fn a_pool_below_its_least_gets_its_own_nodes_back_first() {
    let mut leader = two();
    let held = [0, 0, 0].map(|_| leader.submit("b", 8));
    leader.seconds(IDLE_MS / 1_000 + 2);
    assert_eq!(leader.ledger.nodes_heard("b"), 3, "both of a are lent");
    for id in held {
        leader.apply(Command::Cancel { reservation: id });
    }
    let put =
        vec![PolicyObject::Pool(Pool { name: "a".into(), elastic: elastic(1, 0, 4), ..Pool::default() })];
    leader.apply(Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
    leader.seconds(2 * IDLE_MS / 1_000);
    assert_eq!((leader.ledger.nodes_heard("a"), leader.pool_of("b-0")), (1, "b"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// With work that only ends now and then, nodes move only for somebody, and come to rest.
    #[test]
    fn it_settles(
        nodes in prop::collection::vec(prop::collection::vec(1u64..9, 0..4), 3),
        asked in prop::collection::vec((0usize..3, 1u64..9), 0..14),
        ends in prop::collection::vec((0u64..60, any::<prop::sample::Index>()), 0..6),
        growth in 1u32..3,
    ) {
        let pools: Vec<(&str, Elastic, &[u64])> = ["a", "b", "c"]
            .into_iter()
            .zip(&nodes)
            .map(|(name, nodes)| (name, elastic(0, 0, growth), nodes.as_slice()))
            .collect();
        let mut leader = Leader::new(&pools);
        let made: Vec<ReservationId> =
            asked.iter().map(|(pool, cores)| leader.submit(["a", "b", "c"][*pool], *cores)).collect();
        for at in 0..60 {
            for (_, which) in ends.iter().filter(|(when, _)| *when == at && !made.is_empty()) {
                leader.apply(Command::Cancel { reservation: *which.get(&made) });
            }
            let waiting = |leader: &Leader| -> usize {
                ["a", "b", "c"].iter().map(|pool| leader.ledger.pending_len(pool)).sum()
            };
            let (before, moved) = (waiting(&leader), leader.moves.len());
            leader.second();
            prop_assert!(leader.moves.len() == moved || before > 0, "a move for nobody");
        }
        // Nobody comes or goes any more: each move from here on places somebody, for good.
        leader.seconds(200);
        let (moves, waits) = (leader.moves.len(), ["a", "b", "c"].map(|pool| leader.ledger.pending_len(pool)));
        leader.seconds(300);
        prop_assert_eq!(leader.moves.len(), moves);
        prop_assert_eq!(["a", "b", "c"].map(|pool| leader.ledger.pending_len(pool)), waits);
        prop_assert!(moves <= asked.len() + 1, "{} moves for {} requests", moves, asked.len());
    }
}
