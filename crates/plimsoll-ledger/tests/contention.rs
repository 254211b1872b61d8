//! Contention (`docs/semantics.md` 5.12): what opens one, how its severity moves, when it ends, what is done about it, and what is no
//! contention of a resource.

mod fixture;

use std::collections::BTreeSet;
use std::sync::Arc;

use fixture::{Fixture, active, gpu_request, on, on_device, queued, request, reservation};
use plimsoll_ledger::limits::{
    CONTENTION_HOLD_MS, CONTENTION_OBSERVE_MS, CONTENTION_OPEN_AFTER_MS, CONTENTION_RETENTION_MS,
    MAX_ENDED_CONTENTIONS,
};
use plimsoll_ledger::{
    Blocker, Class, Command, Contention, ContentionPolicy, Fairness, GpuShare, LATEST_VERSION, Ledger,
    NodeHealth, Outcome, PolicyName, PolicyObject, Pool, Preemption, Qos, Queue, Quota, Reason, Request,
    Reservation, Resolve, Severity, Verdict,
};
use plimsoll_types::{Amount, LedgerTime, NodeId, Revision};

/// Nodes of 8 cores and two GPUs each, all cores taken.
fn full(nodes: u32) -> Fixture {
    let mut f = Fixture::new(nodes);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    for node in 0..nodes {
        f.submit(long(active(request(8_000))), on(&[node]));
    }
    f
}

/// Its lease outlasts the test.
fn long(request: Request) -> Request {
    Request { ttl_ms: 30 * 24 * 3_600_000, ..request }
}

fn put(f: &mut Fixture, object: PolicyObject) {
    let command = Command::ApplyPolicy { put: vec![object], delete: Vec::new(), if_revision: Revision(0) };
    assert_eq!(f.run(command), Outcome::Done);
}

fn pool(resolve: &[Resolve], after_ms: u64, from: Severity) -> Pool {
    let resolve: BTreeSet<Resolve> = resolve.iter().copied().collect();
    let contention = Some(ContentionPolicy { resolve, after_ms, from });
    Pool { name: "default".into(), contention, ..Pool::default() }
}

fn wait(f: &mut Fixture, request: Request) -> Arc<Reservation> {
    let command = Command::Submit { request: queued(request), verdict: Verdict::Blocked(Vec::new()) };
    reservation(f.run(command))
}

fn observe(f: &mut Fixture, resource: &str) -> Outcome {
    f.run(Command::ObserveContention { pool: "default".into(), resource: resource.into() })
}

/// Everything that the leader would propose now.
fn look(f: &mut Fixture) -> usize {
    let due = f.ledger.contentions_due(LedgerTime(f.now_ms));
    for (pool, resource) in &due {
        let command = Command::ObserveContention { pool: pool.clone(), resource: resource.clone() };
        assert_eq!(f.run(command), Outcome::Done, "what the leader proposes is accepted: {pool} {resource}");
    }
    assert_eq!(f.ledger.contentions_due(LedgerTime(f.now_ms)), [], "one look is enough");
    due.len()
}

fn open(f: &Fixture, resource: &str) -> Arc<Contention> {
    Arc::clone(f.ledger.open_contention("default", resource).expect("it is open"))
}

#[test]
fn it_opens_once_somebody_has_waited_and_counts_what_is_missing() {
    let mut f = full(2);
    wait(&mut f, request(2_000));
    wait(&mut f, request(3_000));
    assert_eq!(look(&mut f), 0, "nobody has waited long enough");
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    assert_eq!(look(&mut f), 1);
    let one = open(&f, "cpu");
    assert_eq!((one.demand, one.open, one.capacity, one.waiting), (5_000, 0, 16_000, 2));
    assert_eq!((one.longest_wait_ms, one.pressure_permille()), (CONTENTION_OPEN_AFTER_MS, 312));
    assert_eq!(
        (one.severity, one.classes.as_slice()),
        (Severity::Medium, ["standard".to_owned()].as_slice())
    );
    assert_eq!(one.id, f.ledger.revision());
    assert!(f.ledger.open_contention("default", "memory").is_none(), "there is enough of it");
}

#[test]
fn severity_rises_at_once_and_falls_only_after_it_has_lasted() {
    let mut f = full(1);
    let first = wait(&mut f, request(1_000));
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    look(&mut f);
    assert_eq!(open(&f, "cpu").severity, Severity::Low);
    let more: Vec<_> = (0..4).map(|_| wait(&mut f, request(8_000))).collect();
    assert_eq!(look(&mut f), 1);
    assert_eq!(open(&f, "cpu").severity, Severity::Critical);
    for one in more.iter().chain([&first]) {
        f.run(Command::Cancel { reservation: one.id });
    }
    f.now_ms += CONTENTION_HOLD_MS - 1;
    assert_eq!(look(&mut f), 0, "it has not lasted");
    f.now_ms += 1;
    look(&mut f);
    assert!(f.ledger.open_contention("default", "cpu").is_none());
    let over = f.ledger.contentions().next().expect("it is kept");
    assert_eq!((over.peak, over.waiting, over.ended_at.0), (Severity::Critical, 0, f.now_ms));
}

#[test]
fn it_goes_down_by_lower_thresholds_than_up() {
    let mut f = full(1);
    // 8,000 of 8,000 are missing: high. At 80 % of that it stays so, below it does not.
    let (a, b) = (wait(&mut f, request(6_400)), wait(&mut f, request(1_600)));
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    look(&mut f);
    assert_eq!(open(&f, "cpu").severity, Severity::High);
    f.run(Command::Cancel { reservation: b.id });
    f.now_ms += CONTENTION_HOLD_MS;
    look(&mut f);
    assert_eq!((open(&f, "cpu").severity, open(&f, "cpu").demand), (Severity::High, 6_400));
    f.run(Command::Cancel { reservation: a.id });
    wait(&mut f, request(6_399));
    look(&mut f);
    assert_eq!(open(&f, "cpu").severity, Severity::Medium);
}

#[test]
fn a_missed_latency_target_counts() {
    let mut f = full(8);
    let class =
        Class { name: "standard".into(), priority: 50, latency_target_ms: Some(20_000), ..Class::default() };
    put(&mut f, PolicyObject::Class(class));
    wait(&mut f, request(1));
    let mut seen = Vec::new();
    for waited_ms in [10_000, 20_000, 40_000, 80_000] {
        f.now_ms = 1_000_000 + waited_ms;
        look(&mut f);
        let one = open(&f, "cpu");
        seen.push((one.severity, one.wait_permille));
    }
    let expected = [
        (Severity::Low, 500),
        (Severity::Medium, 1_000),
        (Severity::High, 2_000),
        (Severity::Critical, 4_000),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn it_is_measured_anew_once_a_minute_and_otherwise_left_alone() {
    let mut f = full(1);
    wait(&mut f, request(1_000));
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    look(&mut f);
    wait(&mut f, request(100));
    assert_eq!(look(&mut f), 0, "the severity is the same");
    let Outcome::Refused(refusal) = observe(&mut f, "cpu") else { panic!("nothing changed") };
    assert_eq!(refusal.reason, Reason::WrongState);
    f.now_ms += CONTENTION_OBSERVE_MS;
    assert_eq!(look(&mut f), 1);
    assert_eq!(open(&f, "cpu").demand, 1_100);
}

#[test]
fn gpus_are_counted_in_thousandths_and_shares_by_what_they_take() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    for device in 0..2 {
        f.submit(long(active(gpu_request(GpuShare::Milli(600)))), on_device(0, device, GpuShare::Milli(600)));
    }
    wait(&mut f, gpu_request(GpuShare::Whole));
    wait(&mut f, gpu_request(GpuShare::Memory(40 * fixture::GIB)));
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    look(&mut f);
    let one = open(&f, "gpu");
    assert_eq!((one.demand, one.open, one.capacity), (1_500, 800, 2_000));
}

#[test]
fn room_in_too_many_places_is_contention_too() {
    let mut f = Fixture::new(2);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    for node in 0..2 {
        f.submit(long(active(request(5_000))), on(&[node]));
    }
    let blockers = vec![Blocker::new(Reason::NoCapacity, "cpu", 4_000, 3_000)];
    let command = Command::Submit { request: queued(request(4_000)), verdict: Verdict::Blocked(blockers) };
    f.run(command);
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    look(&mut f);
    let one = open(&f, "cpu");
    assert_eq!(
        (one.demand, one.open, one.pressure_permille(), one.severity),
        (4_000, 6_000, 0, Severity::Low)
    );
}

#[test]
fn who_waits_for_quota_or_something_idle_is_part_of_none() {
    let mut f = full(1);
    let mut team = Queue { name: "team".into(), ..Queue::default() };
    let quota = Quota { nominal: Amount(1_000), limit: Some(Amount(1_000)), ..Quota::default() };
    team.quotas.entry("default".into()).or_default().insert("cpu".into(), quota);
    put(&mut f, PolicyObject::Queue(team));
    wait(&mut f, Request { queue: "team".into(), ..request(2_000) });
    wait(&mut f, Request { qos: Some(Qos::BestEffort), ..request(2_000) });
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    assert_eq!(look(&mut f), 0);
    assert_eq!(f.ledger.contended("default", LedgerTime(f.now_ms)).elsewhere, 2);
    wait(&mut f, Request { queue: "team".into(), ..request(500) });
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    look(&mut f);
    assert_eq!((open(&f, "cpu").demand, open(&f, "cpu").elsewhere), (500, 2));
}

#[test]
fn nodes_that_take_no_work_have_no_capacity() {
    let mut f = Fixture::new(2);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    f.health(1, NodeHealth::Suspect);
    f.submit(long(active(request(8_000))), on(&[0]));
    wait(&mut f, request(4_000));
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    look(&mut f);
    assert_eq!((open(&f, "cpu").capacity, open(&f, "cpu").pressure_permille()), (8_000, 500));
    assert!(f.ledger.node(NodeId(1)).is_some_and(|node| !node.is_eligible()));
}

#[test]
fn preemption_that_resolves_contention_is_allowed_while_it_is_being_resolved() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    put(&mut f, PolicyObject::Pool(pool(&[Resolve::Preempt], 30_000, Severity::Low)));
    let low = f.submit(long(active(Request { class: "batch".into(), ..request(8_000) })), on(&[0]));
    let high = wait(&mut f, Request { class: "high".into(), ..request(8_000) });
    let preempt = |high: &Reservation, low: &Reservation| Command::Preempt {
        reservation: high.id,
        placement: on(&[0]),
        victims: vec![low.id],
    };
    assert_eq!(f.refused(preempt(&high, &low)), Reason::NotPreemptible);
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    look(&mut f);
    assert_eq!(f.refused(preempt(&high, &low)), Reason::NotPreemptible, "it has not lasted long enough");
    f.now_ms += 30_000;
    look(&mut f);
    let here = f.ledger.pool("default").expect("it is there");
    assert_eq!(f.ledger.preemption_of(here), Preemption::Any);
    reservation(f.run(preempt(&high, &low)));
    let one = open(&f, "cpu");
    let done: Vec<(Resolve, &str, Revision)> =
        one.resolutions.iter().map(|done| (done.kind, done.subject.as_str(), done.revision)).collect();
    let victim = low.id.to_string();
    let revision = f.ledger.revision();
    assert_eq!(done[0].1, "pool/default");
    assert_eq!(done[1], (Resolve::Preempt, victim.as_str(), revision));
    // Without a policy that says so, the pool preempts as it does.
    let plain = Pool { contention: None, ..Pool::clone(f.ledger.pool("default").expect("it is there")) };
    assert_eq!(f.ledger.preemption_of(&plain), Preemption::Any);
}

#[test]
fn the_queue_goes_by_priority_while_that_resolves_it() {
    let mut f = full(1);
    let fair =
        Pool { fairness: Fairness::Fair, ..pool(&[Resolve::Priority, Resolve::Wait], 0, Severity::High) };
    put(&mut f, PolicyObject::Pool(fair));
    let fairness = |f: &Fixture| f.ledger.fairness_of(f.ledger.pool("default").expect("it is there"));
    let first = wait(&mut f, request(4_000));
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    look(&mut f);
    assert_eq!(fairness(&f), Fairness::Fair, "it is not bad enough");
    let second = wait(&mut f, request(4_000));
    look(&mut f);
    assert_eq!(fairness(&f), Fairness::Priority);
    for one in [first, second] {
        f.run(Command::Cancel { reservation: one.id });
    }
    f.now_ms += CONTENTION_HOLD_MS;
    look(&mut f);
    assert_eq!(fairness(&f), Fairness::Fair, "it is over");
    let over = f.ledger.contentions().next().expect("it is kept");
    let kinds: Vec<Resolve> = over.resolutions.iter().map(|done| done.kind).collect();
    assert_eq!((kinds, over.resolving.len()), (vec![Resolve::Wait, Resolve::Priority], 0));
}

#[test]
fn what_ended_is_forgotten_after_a_week_and_past_a_thousand() {
    let mut f = full(1);
    for _ in 0..=MAX_ENDED_CONTENTIONS {
        let one = wait(&mut f, request(1_000));
        f.now_ms += CONTENTION_OPEN_AFTER_MS;
        observe(&mut f, "cpu");
        f.run(Command::Cancel { reservation: one.id });
        f.now_ms += CONTENTION_HOLD_MS;
        observe(&mut f, "cpu");
    }
    assert_eq!(f.ledger.contentions().count(), MAX_ENDED_CONTENTIONS);
    let due = f.ledger.contentions().next().expect("a thousand").ended_at.plus_ms(CONTENTION_RETENTION_MS);
    f.now_ms = due.0 - 1;
    f.run(Command::Expire { limit: 1 });
    assert_eq!(f.ledger.contentions().count(), MAX_ENDED_CONTENTIONS);
    assert!(f.ledger.next_due().is_some_and(|next| next <= due));
    f.now_ms = due.0;
    f.run(Command::Expire { limit: 1 });
    assert_eq!(f.ledger.contentions().count(), MAX_ENDED_CONTENTIONS - 1);
}

#[test]
fn it_ends_with_its_pool() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    put(&mut f, PolicyObject::Pool(Pool { name: "gpu".into(), ..Pool::default() }));
    let one = wait(&mut f, Request { pool: "gpu".into(), ..request(1_000) });
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    look(&mut f);
    let opened = f.ledger.open_contention("gpu", "cpu").expect("it has no nodes");
    assert_eq!((opened.severity, opened.capacity), (Severity::Critical, 0));
    f.run(Command::Cancel { reservation: one.id });
    let delete = vec![PolicyName::Pool("gpu".into())];
    f.run(Command::ApplyPolicy { put: Vec::new(), delete, if_revision: Revision(0) });
    assert!(f.ledger.contentions().all(|one| !one.is_open()));
}

#[test]
fn before_version_8_nobody_measures_and_no_pool_resolves() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 7 });
    wait(&mut f, request(9_000));
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    assert_eq!(f.ledger.contentions_due(LedgerTime(f.now_ms)), []);
    assert_eq!(
        f.refused(Command::ObserveContention { pool: "default".into(), resource: "cpu".into() }),
        Reason::UnsupportedVersion
    );
    let policy = PolicyObject::Pool(pool(&[Resolve::Wait], 0, Severity::Low));
    let command = Command::ApplyPolicy { put: vec![policy], delete: Vec::new(), if_revision: Revision(0) };
    assert_eq!(command.since_version(), 8);
    assert_eq!(f.refused(command), Reason::UnsupportedVersion);
}

#[test]
fn a_policy_that_does_nothing_is_refused() {
    let mut f = full(1);
    let command = |pool| Command::ApplyPolicy {
        put: vec![PolicyObject::Pool(pool)],
        delete: Vec::new(),
        if_revision: Revision(0),
    };
    assert_eq!(f.refused(command(pool(&[], 0, Severity::Low))), Reason::InvalidArgument);
    assert_eq!(f.refused(command(pool(&[Resolve::Wait], u64::MAX, Severity::Low))), Reason::InvalidArgument);
}

#[test]
fn a_ledger_of_its_rows_has_the_same_contentions() {
    let mut f = full(1);
    put(&mut f, PolicyObject::Pool(pool(&[Resolve::Wait, Resolve::Priority], 0, Severity::Low)));
    wait(&mut f, request(1_000));
    f.now_ms += CONTENTION_OPEN_AFTER_MS;
    look(&mut f);
    let again = Ledger::from_rows(f.ledger.rows().map(|(_, row)| row)).expect("its own rows");
    assert!(again.rows().eq(f.ledger.rows()));
    assert_eq!(again.open_contention("default", "cpu"), f.ledger.open_contention("default", "cpu"));
}
