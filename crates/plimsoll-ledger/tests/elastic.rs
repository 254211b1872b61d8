//! Elastic pools (`docs/semantics.md` 5.15): empty nodes move between them, within their bounds, and stay a while.

mod fixture;

use std::collections::BTreeMap;

use fixture::{Fixture, active, on, request, reservation};
use plimsoll_ledger::{
    AdminChange, Command, Elastic, Elasticity, LATEST_VERSION, Node, NodeHealth, Outcome, PolicyObject, Pool,
    Reason, Registration, ScalingPolicy, ScalingTarget, Schedule, Verdict, Window,
};
use plimsoll_types::{LedgerTime, NodeId, Resources, Revision};

const MINUTE_MS: u64 = 60_000;

fn elastic(min_nodes: u32, max_nodes: u32) -> Elastic {
    let elasticity = Elasticity::Elastic;
    Elastic {
        elasticity,
        min_nodes,
        max_nodes,
        growth_nodes: 2,
        idle_timeout_ms: MINUTE_MS,
        ..Elastic::default()
    }
}

fn pool(name: &str, elastic: Elastic) -> PolicyObject {
    PolicyObject::Pool(Pool { name: name.into(), elastic, ..Pool::default() })
}

fn put(f: &mut Fixture, put: Vec<PolicyObject>) -> Outcome {
    f.run(Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) })
}

/// Three nodes in `default`; `other` has none. Both are elastic.
fn fixture() -> Fixture {
    let mut f = Fixture::new(3);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    assert_eq!(
        put(&mut f, vec![pool("default", elastic(1, 0)), pool("other", elastic(0, 2))]),
        Outcome::Done
    );
    f
}

fn go(node: u32, from: &str, to: &str) -> Command {
    Command::MoveNode { node: NodeId(node), from: from.into(), to: to.into() }
}

fn out(node: u32) -> Command {
    go(node, "default", "other")
}

fn node(f: &Fixture, node: u32) -> Node {
    Node::clone(f.ledger.node(NodeId(node)).expect("it is there"))
}

#[test]
fn an_empty_node_is_lent_and_its_home_is_remembered() {
    let mut f = fixture();
    let Outcome::Node(lent) = f.run(out(0)) else { panic!("it moves") };
    assert_eq!((lent.pool.as_str(), lent.lent_by()), ("other", Some("default")));
    // Its agent starts anew, and the node stays where it is.
    f.run(Command::RegisterNode(fixture::registration(0, 2)));
    assert_eq!((node(&f, 0).pool.as_str(), node(&f, 0).lent_by()), ("other", Some("default")));
    assert_eq!(f.refused(go(0, "other", "default")), Reason::WrongState, "it stays for a minute");
    f.now_ms += MINUTE_MS;
    let Outcome::Node(back) = f.run(go(0, "other", "default")) else { panic!("it goes home") };
    assert_eq!((back.pool.as_str(), back.lent_by()), ("default", None));
    assert_eq!(f.refused(out(0)), Reason::WrongState, "and stays there as long");
}

#[test]
fn a_node_with_work_stays() {
    let mut f = fixture();
    let held = f.submit(active(request(1_000)), on(&[0]));
    assert_eq!(f.refused(out(0)), Reason::InUse);
    f.run(Command::Release { reservation: held.id, token: held.token });
    assert!(matches!(f.run(out(0)), Outcome::Node(_)));
    // What is granted there belongs to the pool that it is in.
    let elsewhere = Command::Submit { request: active(request(1_000)), verdict: Verdict::Place(on(&[0])) };
    assert_eq!(f.refused(elsewhere), Reason::PoolMismatch);
    let there = plimsoll_ledger::Request { pool: "other".into(), ..active(request(1_000)) };
    reservation(f.run(Command::Submit { request: there, verdict: Verdict::Place(on(&[0])) }));
}

#[test]
fn bounds_and_growth_hold() {
    let mut f = fixture();
    f.run(out(0));
    f.run(out(1));
    assert_eq!(f.refused(out(2)), Reason::LimitExceeded, "one has to stay");
    put(&mut f, vec![pool("default", elastic(0, 0))]);
    assert_eq!(f.refused(out(2)), Reason::LimitExceeded, "two may be there");
    put(&mut f, vec![pool("other", elastic(0, 0))]);
    assert_eq!(f.refused(out(2)), Reason::RateExceeded, "two in a minute");
    f.now_ms += MINUTE_MS;
    assert!(matches!(f.run(out(2)), Outcome::Node(_)));
}

#[test]
fn what_is_not_whole_and_free_stays() {
    let mut f = fixture();
    f.run(Command::SetNodeAdmin { node: NodeId(0), admin: AdminChange::Cordon { reason: "x".into() } });
    f.health(1, NodeHealth::Suspect);
    for id in [0, 1] {
        assert_eq!(f.refused(out(id)), Reason::WrongState);
    }
    assert_eq!(f.refused(go(2, "other", "default")), Reason::WrongState, "it is not there");
    assert_eq!(f.refused(go(2, "default", "default")), Reason::WrongState);
    assert_eq!(f.refused(go(2, "default", "none")), Reason::PoolNotFound);
    assert_eq!(f.refused(out(9)), Reason::NotFound);
    put(&mut f, vec![pool("other", Elastic::default())]);
    assert_eq!(f.refused(out(2)), Reason::WrongState, "nothing moves to a pool that is not elastic");
}

#[test]
fn a_pool_that_is_elastic_no_more_gives_back_what_it_was_lent() {
    let mut f = fixture();
    f.run(out(0));
    put(&mut f, vec![pool("other", Elastic::default())]);
    assert_eq!((node(&f, 0).pool.as_str(), node(&f, 0).moved), ("default", None));
    put(&mut f, vec![pool("other", elastic(0, 0))]);
    f.run(out(0));
    // An agent that names another pool has another home.
    let there = Registration { pool: "other".into(), ..fixture::registration(0, 3) };
    f.run(Command::RegisterNode(there));
    assert_eq!((node(&f, 0).pool.as_str(), node(&f, 0).moved), ("other", None));
}

#[test]
fn what_the_calendar_keeps_stays() {
    let mut f = fixture();
    let schedule = Schedule {
        name: "night".into(),
        pool: "default".into(),
        rule: "22:00-06:00".into(),
        resources: Resources::new(20_000, 0),
        ..Schedule::default()
    };
    put(&mut f, vec![PolicyObject::Schedule(schedule)]);
    let changed = f.ledger.schedule("night").expect("it was put").changed;
    let start = LedgerTime(f.now_ms + 10 * MINUTE_MS);
    let windows = vec![Window { start, end: start.plus_ms(MINUTE_MS) }];
    f.run(Command::OpenWindows { schedule: "night".into(), changed, windows, until: start });
    // 20 of 24 cores are kept in ten minutes: two nodes have 16.
    assert_eq!(f.refused(out(0)), Reason::ReservedByCalendar);
}

#[test]
fn a_static_pool_is_scaled_by_nobody_and_bounds_bound_only_what_moves() {
    let mut f = fixture();
    let fixed = Elastic { elasticity: Elasticity::Static, ..Elastic::default() };
    let scaled = ScalingPolicy {
        name: "grow".into(),
        target: ScalingTarget::Pool("other".into()),
        ..ScalingPolicy::default()
    };
    let refused = |f: &mut Fixture, objects| match put(f, objects) {
        Outcome::Refused(refusal) => refusal.reason,
        other => panic!("{other:?}"),
    };
    let both = vec![pool("other", fixed), PolicyObject::ScalingPolicy(scaled)];
    assert_eq!(refused(&mut f, both), Reason::InvalidArgument);
    let bounds: BTreeMap<&str, Elastic> = [
        ("crossed", elastic(3, 2)),
        ("of nothing", Elastic { min_nodes: 1, ..fixed }),
        ("short", Elastic { growth_ms: 999, ..elastic(0, 0) }),
        ("beyond all", Elastic { fragmentation_permille: 1_001, ..Elastic::default() }),
    ]
    .into();
    for (what, elastic) in bounds {
        assert_eq!(refused(&mut f, vec![pool("other", elastic)]), Reason::InvalidArgument, "{what}");
    }
}

#[test]
fn before_version_9_no_pool_is_elastic() {
    let mut f = Fixture::new(2);
    f.run(Command::Upgrade { to: 8 });
    let Outcome::Refused(refusal) = put(&mut f, vec![pool("other", elastic(0, 0))]) else { panic!() };
    assert_eq!(refusal.reason, Reason::UnsupportedVersion);
    assert_eq!(f.refused(out(0)), Reason::UnsupportedVersion);
    let put = |object| Command::ApplyPolicy { put: vec![object], delete: vec![], if_revision: Revision(0) };
    assert_eq!((out(0).since_version(), put(pool("other", elastic(0, 0))).since_version()), (9, 9));
    assert_eq!(put(pool("other", Elastic::default())).since_version(), 1);
}
