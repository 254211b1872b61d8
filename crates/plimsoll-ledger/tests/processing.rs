//! How queues are processed and what classes count for (`docs/semantics.md` 5.17 to 5.19).

mod fixture;

use std::collections::BTreeMap;

use fixture::{Fixture, active, on, queued, request, reservation};
use plimsoll_ledger::{
    AdminChange, Batch, Blocker, Class, Command, EndReason, LATEST_VERSION, Measure, Meter, NodeHealth,
    OnPreempt, Outcome, Placement, PolicyObject, Pool, Queue, Quota, QuotaPolicy, Reason, Request, Reset,
    Schedule, Scope, State, Users, Verdict,
};
use plimsoll_types::{Amount, NodeId, ReservationId, Resources, Revision};

const MINUTE_MS: u64 = 60_000;

fn put(objects: Vec<PolicyObject>) -> Command {
    Command::ApplyPolicy { put: objects, delete: Vec::new(), if_revision: Revision(0) }
}

/// Two nodes, at the beginning of an interval of a minute.
fn newest() -> Fixture {
    let mut f = Fixture::new(2);
    f.now_ms = 100 * MINUTE_MS;
    f.run(Command::Upgrade { to: LATEST_VERSION });
    f
}

fn nightly(size: u32) -> PolicyObject {
    let batch = Some(Batch { size, interval_ms: MINUTE_MS });
    PolicyObject::Queue(Queue { name: "nightly".into(), batch, ..Queue::default() })
}

fn of(queue: &str, request: Request) -> Request {
    Request { queue: queue.into(), ..request }
}

fn waits(f: &mut Fixture, request: Request) -> ReservationId {
    let verdict = Verdict::Blocked(Vec::new());
    reservation(f.run(Command::Submit { request: queued(request), verdict })).id
}

fn place(f: &mut Fixture, id: ReservationId, node: u32) -> Outcome {
    f.run(Command::Place { reservation: id, placement: on(&[node]) })
}

fn refusal(outcome: Outcome) -> Blocker {
    match outcome {
        Outcome::Refused(refusal) => refusal.blockers[0].clone(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_batch_is_of_those_who_came_before_it_and_no_more_than_its_size() {
    let mut f = newest();
    assert_eq!(f.run(put(vec![nightly(2)])), Outcome::Done);
    let early: Vec<ReservationId> =
        (0..3).map(|_| waits(&mut f, of("nightly", active(request(1_000))))).collect();
    let closed = refusal(place(&mut f, early[0], 0));
    assert_eq!((closed.reason, closed.asked, closed.available, closed.limit), (Reason::AwaitsBatch, 1, 0, 2));
    assert_eq!(closed.subject, "queue nightly: the next batch begins 1970-01-01 01:41:00 UTC");
    assert_eq!(f.ledger.next_batch_at().map(|at| at.0), Some(101 * MINUTE_MS));
    f.now_ms += MINUTE_MS;
    assert_eq!(reservation(place(&mut f, early[0], 0)).state, State::Active);
    f.now_ms += 30_000;
    assert_eq!(reservation(place(&mut f, early[1], 1)).state, State::Active, "any time in its interval");
    assert_eq!(refusal(place(&mut f, early[2], 1)).reason, Reason::AwaitsBatch, "it is full");
    let late = waits(&mut f, of("nightly", active(request(1_000))));
    f.now_ms += 30_000;
    for id in [early[2], late] {
        assert_eq!(reservation(place(&mut f, id, 1)).state, State::Active, "the next has room for both");
    }
    assert_eq!(f.ledger.next_batch_at(), None, "nobody waits for one");
}

#[test]
fn who_does_not_wait_is_not_granted_where_a_queue_decides_in_batches_and_who_has_left_still_counts() {
    let mut f = newest();
    f.run(put(vec![nightly(1)]));
    let now =
        Command::Submit { request: of("nightly", active(request(1_000))), verdict: Verdict::Place(on(&[0])) };
    assert_eq!(f.refused(now), Reason::AwaitsBatch);
    let (first, second) = (
        waits(&mut f, of("nightly", active(request(1_000)))),
        waits(&mut f, of("nightly", active(request(1_000)))),
    );
    f.now_ms += MINUTE_MS;
    let lease = reservation(place(&mut f, first, 0));
    f.run(Command::Release { reservation: lease.id, token: lease.token });
    assert_eq!(refusal(place(&mut f, second, 0)).reason, Reason::AwaitsBatch);
    f.run(put(vec![nightly(2)]));
    assert_eq!(reservation(place(&mut f, second, 0)).state, State::Active, "a larger batch has room at once");
}

#[test]
fn before_version_9_none_of_it_is_known_and_nonsense_is_told() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 8 });
    let class = |class: Class| PolicyObject::Class(Class { name: "low".into(), ..class });
    let kept = BTreeMap::from([("default".to_owned(), Resources::new(1_000, 0))]);
    let users = Users { classes: vec!["low".into()], ..Users::default() };
    let new = [
        nightly(1),
        PolicyObject::Queue(Queue { name: "sure".into(), guaranteed_processing: true, ..Queue::default() }),
        class(Class { multiplier_milli: Some(500), ..Class::default() }),
        class(Class { guaranteed: kept, ..Class::default() }),
        PolicyObject::Pool(Pool { name: "default".into(), rebalance_interval_ms: 30_000, ..Pool::default() }),
        PolicyObject::Schedule(Schedule {
            name: "s".into(),
            pool: "default".into(),
            rule: "always".into(),
            resources: Resources::new(1, 0),
            users,
            ..Schedule::default()
        }),
    ];
    for object in new {
        let command = put(vec![object.clone()]);
        assert_eq!(command.since_version(), 9);
        assert_eq!(f.refused(command), Reason::UnsupportedVersion, "{object:?}");
    }
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let elsewhere = BTreeMap::from([("nowhere".to_owned(), Resources::new(1_000, 0))]);
    assert_eq!(
        f.refused(put(vec![class(Class { guaranteed: elsewhere, ..Class::default() })])),
        Reason::PoolNotFound
    );
    assert_eq!(f.refused(put(vec![nightly(0)])), Reason::InvalidArgument);
    let endless = Batch { size: 1, interval_ms: 3_600_001 };
    let endless = Queue { name: "nightly".into(), batch: Some(endless), ..Queue::default() };
    assert_eq!(f.refused(put(vec![PolicyObject::Queue(endless)])), Reason::InvalidArgument);
}

/// A grant of a queue that promises to process everything, which would end where it is taken back.
fn promised(f: &mut Fixture) -> ReservationId {
    let queue = Queue { name: "sure".into(), guaranteed_processing: true, ..Queue::default() };
    f.run(put(vec![PolicyObject::Queue(queue)]));
    let asked = Request { on_preempt: OnPreempt::End, ..queued(active(request(4_000))) };
    f.submit(of("sure", asked), on(&[0])).id
}

#[test]
fn what_was_promised_waits_again_when_its_node_is_lost_and_the_node_keeps_what_may_still_run_there() {
    let mut f = newest();
    let id = promised(&mut f);
    let token = f.get(id).token;
    f.health(0, NodeHealth::Failed);
    let again = f.get(id);
    assert_eq!(
        (again.state, again.submitted_at.0, again.token),
        (State::Pending, 100 * MINUTE_MS, Revision(0))
    );
    assert_eq!(again.blockers[0].subject, "node-0, where it was");
    let pending = &f.ledger.node(NodeId(0)).expect("the node").fence_pending;
    assert_eq!((pending[0].reservation, pending[0].token), (id, token));
    assert_eq!(reservation(place(&mut f, id, 1)).state, State::Active);
    let stale = Command::Release { reservation: id, token };
    assert_eq!(f.refused(stale), Reason::Fenced, "who is left over on the node has no say");
}

#[test]
fn what_was_promised_waits_again_after_a_drain_and_ends_by_its_holder_alone() {
    let mut f = newest();
    let id = promised(&mut f);
    let change = AdminChange::Drain { reason: "update".into(), deadline_ms: 1_000 };
    f.run(Command::SetNodeAdmin { node: NodeId(0), admin: change });
    f.now_ms += 2_000;
    f.run(Command::Expire { limit: 10 });
    assert_eq!(f.get(id).state, State::Pending);
    let lease = reservation(place(&mut f, id, 1));
    f.run(Command::Release { reservation: id, token: lease.token });
    assert_eq!(f.get(id).end_reason, Some(EndReason::Released));
}

#[test]
fn a_lease_that_its_holder_let_go_ends_in_spite_of_the_promise() {
    let mut f = newest();
    let id = promised(&mut f);
    f.now_ms += MINUTE_MS;
    f.run(Command::Expire { limit: 10 });
    assert_eq!((f.get(id).state, f.get(id).end_reason), (State::Expired, Some(EndReason::NotRenewed)));
}

#[test]
fn a_grant_of_a_class_counts_for_what_the_class_says_in_hours_and_for_one_in_numbers() {
    let mut f = newest();
    let class = |multiplier_milli| {
        let class = Class { name: "batch".into(), priority: 10, multiplier_milli, ..Class::default() };
        PolicyObject::Class(class)
    };
    let meter = |measure, reset| Meter::new(Scope::Together, measure, reset);
    let (hours, live) = (meter(Measure::CpuHours, Reset::Never), meter(Measure::Concurrent, Reset::Live));
    let limits = BTreeMap::from([(hours, 10_000_000), (live, 5)]);
    let quota = QuotaPolicy { name: "all".into(), limits, ..QuotaPolicy::default() };
    f.run(put(vec![class(Some(500)), PolicyObject::Quota(quota)]));
    // An hour of two cores counts for one core-hour.
    let asked = Request { class: "batch".into(), max_duration_ms: 3_600_000, ..active(request(2_000)) };
    let lease = f.submit(asked, on(&[0]));
    let committed = |f: &Fixture, meter| {
        let seen = f.ledger.usage_of("all").into_iter();
        let of = plimsoll_ledger::UsageOf::Meter(meter);
        seen.filter(|seen| seen.key.of == of).map(|seen| seen.committed).sum::<u64>()
    };
    assert_eq!((committed(&f, hours), committed(&f, live)), (1_000_000, 1));
    // Half of it is over when the class changes and the grant grows: the rest counts as the class says then.
    f.now_ms += 1_800_000;
    f.run(put(vec![class(Some(2_000))]));
    f.run(Command::Renew { reservation: lease.id, token: lease.token, ttl_ms: 0 });
    let amounts = Resources { cpu_millis: Amount(4_000), ..f.get(lease.id).amounts.clone() };
    f.run(Command::Resize { reservation: lease.id, token: lease.token, amounts });
    assert_eq!(committed(&f, hours), 500_000 + 4 * 2 * 500_000);
}

#[test]
fn what_a_class_is_guaranteed_is_kept_from_others_until_the_class_has_it() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let kept = BTreeMap::from([("default".to_owned(), Resources::new(3_000, 0))]);
    let class = Class { name: "critical".into(), priority: 100, guaranteed: kept, ..Class::default() };
    f.run(put(vec![PolicyObject::Class(class)]));
    f.submit(active(request(5_000)), on(&[0]));
    let more = |placement: Placement| Command::Submit {
        request: active(request(1)),
        verdict: Verdict::Place(placement),
    };
    let short = refusal(f.run(more(on(&[0]))));
    assert_eq!(short.reason, Reason::ReservedByCalendar);
    assert!(short.subject.contains("class critical"), "{}", short.subject);
    let own = f.submit(Request { class: "critical".into(), ..active(request(2_000)) }, on(&[0]));
    assert_eq!(f.refused(more(on(&[0]))), Reason::ReservedByCalendar, "one core is still kept");
    f.run(Command::Release { reservation: own.id, token: own.token });
    f.run(Command::ApplyPolicy {
        put: vec![PolicyObject::Class(Class { name: "critical".into(), priority: 100, ..Class::default() })],
        delete: Vec::new(),
        if_revision: Revision(0),
    });
    assert_eq!(reservation(f.run(more(on(&[0])))).state, State::Active);
}

#[test]
fn what_was_borrowed_is_taken_back_in_the_interval_after_the_one_that_somebody_came_in() {
    let mut f = Fixture::new(1);
    f.now_ms = 100 * MINUTE_MS + 20_000;
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let queue = |name: &str, nominal: u64| {
        let cpu = Quota { guaranteed: Amount(0), nominal: Amount(nominal), limit: None };
        let quotas = BTreeMap::from([("default".to_owned(), BTreeMap::from([("cpu".to_owned(), cpu)]))]);
        let parent = if name == "org" { String::new() } else { "org".into() };
        PolicyObject::Queue(Queue { name: name.into(), parent, quotas, ..Queue::default() })
    };
    let pool = Pool { name: "default".into(), rebalance_interval_ms: MINUTE_MS, ..Pool::default() };
    f.run(put(vec![
        PolicyObject::Pool(pool),
        queue("org", 0),
        queue("vision", 4_000),
        queue("speech", 4_000),
    ]));
    let own = f.submit(of("vision", active(request(4_000))), on(&[0]));
    let borrowed = f.submit(of("vision", active(request(4_000))), on(&[0]));
    let id = waits(&mut f, of("speech", active(request(4_000))));
    let take = Command::Preempt { reservation: id, placement: on(&[0]), victims: vec![borrowed.id] };
    assert_eq!(f.refused(take.clone()), Reason::NotPreemptible);
    f.now_ms += 40_000;
    for lease in [&own, &borrowed] {
        f.run(Command::Renew { reservation: lease.id, token: lease.token, ttl_ms: 0 });
    }
    assert_eq!(reservation(f.run(take)).state, State::Planned);
    assert_eq!(f.get(borrowed.id).state, State::Preempting);
}
