//! Eviction thresholds (`docs/semantics.md` 5.20): best effort leaves a node that measures fuller than its class stays for, and nobody else does.

mod fixture;

use fixture::{Fixture, active, on, queued, request};
use plimsoll_ledger::{
    Class, Command, EvictWhen, Gauge, LATEST_VERSION, Ledger, Outcome, Overload, PolicyObject, Pool,
    Preemption, PreemptionRule, Qos, Reason, Request, State,
};
use plimsoll_types::{NodeEpoch, NodeId, ReservationId, Revision};

const WHEN: EvictWhen = EvictWhen { gauge: Gauge::Memory, above_permille: 900, for_ms: 30_000 };

fn put(object: PolicyObject) -> Command {
    Command::ApplyPolicy { put: vec![object], delete: Vec::new(), if_revision: Revision(0) }
}

fn class(evict_when: Option<EvictWhen>) -> Class {
    Class { name: "batch".into(), priority: 10, grace_ms: 5_000, evict_when, ..Class::default() }
}

/// Two nodes, and a class that leaves them.
fn fixture() -> Fixture {
    let mut f = Fixture::new(2);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    assert_eq!(f.run(put(PolicyObject::Class(class(Some(WHEN))))), Outcome::Done);
    f
}

fn of_class(class: &str, qos: Option<Qos>) -> Request {
    active(Request { class: class.into(), qos, ..request(1_000) })
}

fn full(ledger: &Ledger) -> Overload {
    let epoch = ledger.node(NodeId(0)).map_or(NodeEpoch(0), |node| node.epoch);
    Overload { node: NodeId(0), epoch, gauge: Gauge::Memory, measured_permille: 950, over_ms: 31_000 }
}

fn evict(f: &Fixture, reservation: ReservationId, change: impl Fn(&mut Overload)) -> Command {
    let mut overload = full(&f.ledger);
    change(&mut overload);
    Command::Evict { reservation, overload }
}

#[test]
fn best_effort_leaves_a_node_that_is_too_full_with_its_grace_and_waits_again() {
    let mut f = fixture();
    let loose = f.submit(queued(of_class("batch", Some(Qos::BestEffort))), on(&[0]));
    let command = evict(&f, loose.id, |_| {});
    f.run(command);
    let leaving = f.get(loose.id);
    assert_eq!((leaving.state, leaving.deadline.0), (State::Preempting, f.now_ms + 5_000));
    let told = leaving.preempted().expect("notice was given");
    let evicted = told.evicted.expect("it is said why");
    assert_eq!(
        (told.rule, told.by, evicted.above_permille),
        (PreemptionRule::Threshold, ReservationId(0), 900)
    );
    assert_eq!(evicted.to_string(), "memory at 95%, above 90% for 31s");
    let command = evict(&f, loose.id, |_| {});
    assert_eq!(f.refused(command), Reason::NotPreemptible, "it leaves already");
    f.run(Command::Requeue { reservation: loose.id, token: loose.token });
    let waiting = f.get(loose.id);
    assert_eq!(waiting.state, State::Pending);
    let blocker = &waiting.blockers[0];
    assert_eq!((blocker.reason, blocker.asked, blocker.available), (Reason::Preempted, 950, 900));
    assert!(blocker.subject.ends_with(": memory at 95%, above 90% for 31s"), "{}", blocker.subject);
}

#[test]
fn nobody_leaves_whose_class_does_not_say_so_or_who_is_backed() {
    let mut f = fixture();
    let loose = f.submit(of_class("batch", Some(Qos::BestEffort)), on(&[0]));
    let elsewhere = f.submit(of_class("batch", Some(Qos::BestEffort)), on(&[1]));
    let other_class = f.submit(of_class("low", Some(Qos::BestEffort)), on(&[0]));
    let backed: Vec<_> = [None, Some(Qos::Guaranteed), Some(Qos::Burstable)]
        .map(|qos| f.submit(of_class("batch", qos), on(&[0])).id)
        .into();
    let refused = |f: &mut Fixture, id, change: &dyn Fn(&mut Overload)| {
        let command = evict(f, id, change);
        f.refused(command)
    };
    for id in [elsewhere.id, other_class.id].into_iter().chain(backed) {
        assert_eq!(refused(&mut f, id, &|_| {}), Reason::NotPreemptible, "{id}");
    }
    // What was measured does not suffice.
    for change in [
        (|seen: &mut Overload| seen.measured_permille = 900) as fn(&mut Overload),
        |seen| seen.over_ms = 29_999,
        |seen| seen.gauge = Gauge::MemoryPressure,
    ] {
        assert_eq!(refused(&mut f, loose.id, &change), Reason::NotPreemptible);
    }
    assert_eq!(refused(&mut f, loose.id, &|seen| seen.epoch = NodeEpoch(seen.epoch.0 + 1)), Reason::Fenced);
    assert_eq!(refused(&mut f, loose.id, &|seen| seen.node = NodeId(7)), Reason::NotFound);
    assert_eq!(refused(&mut f, ReservationId(99), &|_| {}), Reason::NotFound);
    // A pool that takes nothing back, and a class that was put anew without a threshold.
    let never = Pool { name: "default".into(), preemption: Preemption::Never, ..Pool::default() };
    f.run(put(PolicyObject::Pool(never)));
    assert_eq!(refused(&mut f, loose.id, &|_| {}), Reason::NotPreemptible);
    f.run(put(PolicyObject::Pool(Pool { name: "default".into(), ..Pool::default() })));
    f.run(put(PolicyObject::Class(class(None))));
    assert_eq!(refused(&mut f, loose.id, &|_| {}), Reason::NotPreemptible);
    // A protected run, and then not any more.
    f.run(put(PolicyObject::Class(Class { min_run_ms: 60_000, ..class(Some(WHEN)) })));
    assert_eq!(refused(&mut f, loose.id, &|_| {}), Reason::NotPreemptible);
    f.run(put(PolicyObject::Class(class(Some(WHEN)))));
    let command = evict(&f, loose.id, |_| {});
    f.run(command);
    assert_eq!(f.get(loose.id).state, State::Preempting);
}

#[test]
fn an_older_ledger_knows_no_thresholds() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 8 });
    assert_eq!(f.refused(put(PolicyObject::Class(class(Some(WHEN))))), Reason::UnsupportedVersion);
    let loose = f.submit(of_class("batch", Some(Qos::BestEffort)), on(&[0]));
    let command = evict(&f, loose.id, |_| {});
    assert_eq!(f.refused(command), Reason::UnsupportedVersion);
    assert_eq!(put(PolicyObject::Class(class(Some(WHEN)))).since_version(), 9);
    assert_eq!(put(PolicyObject::Class(class(None))).since_version(), 4, "its grace");
}

#[test]
fn thresholds_that_make_no_sense_are_refused() {
    let mut f = fixture();
    for wrong in [
        EvictWhen { above_permille: 0, ..WHEN },
        EvictWhen { above_permille: 1_000, ..WHEN },
        EvictWhen { for_ms: 999, ..WHEN },
        EvictWhen { for_ms: 3_600_001, ..WHEN },
    ] {
        assert_eq!(
            f.refused(put(PolicyObject::Class(class(Some(wrong))))),
            Reason::InvalidArgument,
            "{wrong}"
        );
    }
    let guaranteed = Class { qos: Some(Qos::Guaranteed), ..class(Some(WHEN)) };
    assert_eq!(f.refused(put(PolicyObject::Class(guaranteed))), Reason::InvalidArgument);
}
