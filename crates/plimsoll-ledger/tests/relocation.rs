//! Relocation (`docs/semantics.md` 5.14): a grant that may be preempted is given notice to go elsewhere in its pool, and waits again.

mod fixture;

use std::sync::Arc;

use fixture::{Fixture, active, gang, on, queued, request, reservation};
use plimsoll_ledger::{
    Blocker, Class, Command, ContentionPolicy, LATEST_VERSION, OnPreempt, Outcome, PolicyObject, Pool,
    Preemption, PreemptionRule, Reason, Request, Reservation, Resolve, State, Verdict,
};
use plimsoll_types::{NodeId, Revision};

fn fixture() -> Fixture {
    let mut f = Fixture::new(3);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    f
}

fn put(f: &mut Fixture, object: PolicyObject) {
    let put = Command::ApplyPolicy { put: vec![object], delete: Vec::new(), if_revision: Revision(0) };
    assert_eq!(f.run(put), Outcome::Done);
}

fn batch(cpu_millis: u64) -> Request {
    queued(active(Request { class: "batch".into(), ..request(cpu_millis) }))
}

fn to(one: &Reservation, node: u32) -> Command {
    Command::Relocate { reservation: one.id, placement: on(&[node]) }
}

#[test]
fn a_relocated_grant_has_its_grace_and_waits_again_at_its_old_place_with_a_new_token() {
    let mut f = fixture();
    let first = f.submit(batch(1_000), on(&[0]));
    let told = reservation(f.run(to(&first, 1)));
    let given = told.preempted().expect("it was given notice");
    assert_eq!((told.state, given.by, given.rule), (State::Preempting, first.id, PreemptionRule::Relocation));
    assert_eq!((given.to, told.deadline.0), (Some(NodeId(1)), f.now_ms + 30_000));
    assert_eq!(told.relocates_to(), None, "it is still there");
    let waits = reservation(f.run(Command::Requeue { reservation: first.id, token: first.token }));
    assert_eq!((waits.state, waits.relocates_to()), (State::Pending, Some(NodeId(1))));
    assert_eq!(
        (waits.id, waits.priority, waits.submitted_at),
        (first.id, first.priority, first.submitted_at)
    );
    let again = reservation(f.run(Command::Place { reservation: first.id, placement: on(&[1]) }));
    assert!(again.token > first.token && again.state == State::Active);
}

#[test]
fn who_could_not_be_preempted_or_would_not_come_back_stays() {
    type Change = fn(&mut Request);
    let no: [(&str, Change); 4] = [
        ("class standard is not preemptible", |asked| asked.class = "standard".into()),
        ("it would not wait", |asked| asked.wait = plimsoll_ledger::Wait::Refuse),
        ("it would end", |asked| asked.on_preempt = OnPreempt::End),
        ("it is only held", |asked| asked.auto_confirm = false),
    ];
    for (why, change) in no {
        let mut f = fixture();
        let mut asked = batch(1_000);
        change(&mut asked);
        let one = f.submit(asked, on(&[0]));
        assert_eq!(f.refused(to(&one, 1)), Reason::NotPreemptible, "{why}");
    }
    let mut f = fixture();
    let two = f.submit(queued(active(Request { class: "batch".into(), ..gang(2, 2, true) })), on(&[0, 1]));
    assert_eq!(f.refused(to(&two, 2)), Reason::NotPreemptible, "a gang stays together");
}

#[test]
fn the_pool_says_whether_and_how_often() {
    let mut f = fixture();
    let [first, second] = [0, 0].map(|node| f.submit(batch(1_000), on(&[node])));
    let pool = |preemption, most| Pool {
        name: "default".into(),
        preemption,
        max_preemptions_per_hour: most,
        ..Pool::default()
    };
    for preemption in [Preemption::Never, Preemption::Reclaim] {
        put(&mut f, PolicyObject::Pool(pool(preemption, 0)));
        assert_eq!(f.refused(to(&first, 1)), Reason::NotPreemptible, "{preemption:?}");
    }
    put(&mut f, PolicyObject::Pool(pool(Preemption::LowerClass, 1)));
    reservation(f.run(to(&first, 1)));
    assert_eq!(f.refused(to(&second, 1)), Reason::NotPreemptible, "one in an hour");
    f.now_ms += 3_600_001;
    let renewed = f.run(Command::Renew { reservation: second.id, token: second.token, ttl_ms: 0 });
    reservation(renewed);
    reservation(f.run(to(&second, 1)));
}

#[test]
fn where_a_pool_preempts_only_in_contention_nobody_is_relocated_outside_of_one() {
    for (version, let_go) in [(9, true), (10, false)] {
        let mut f = Fixture::new(3);
        f.run(Command::Upgrade { to: version });
        let resolve = [Resolve::Preempt].into();
        let contention = Some(ContentionPolicy { resolve, ..ContentionPolicy::default() });
        put(&mut f, PolicyObject::Pool(Pool { name: "default".into(), contention, ..Pool::default() }));
        let one = f.submit(batch(1_000), on(&[0]));
        let came = f.run(to(&one, 1));
        assert_eq!(matches!(came, Outcome::Reservation(_)), let_go, "version {version}: {came:?}");
    }
}

#[test]
fn redistribution_needs_version_ten_and_notes_who_goes_where() {
    let resolve = || [Resolve::Redistribute].into();
    let policy = || Some(ContentionPolicy { resolve: resolve(), ..ContentionPolicy::default() });
    let pool =
        || PolicyObject::Pool(Pool { name: "default".into(), contention: policy(), ..Pool::default() });
    let command = || Command::ApplyPolicy { put: vec![pool()], delete: Vec::new(), if_revision: Revision(0) };
    assert_eq!(command().since_version(), 10);
    let mut old = Fixture::new(3);
    old.run(Command::Upgrade { to: 9 });
    assert_eq!(old.refused(command()), Reason::UnsupportedVersion);

    let mut f = fixture();
    put(&mut f, pool());
    let long = |asked: Request| Request { ttl_ms: 3_600_000, ..asked };
    let half = f.submit(long(batch(2_000)), on(&[0]));
    let waits = Command::Submit { request: long(batch(4_000)), verdict: Verdict::Blocked(vec![no_room()]) };
    reservation(f.run(waits));
    f.now_ms += 10_000;
    let look = Command::ObserveContention { pool: "default".into(), resource: "cpu".into() };
    assert_eq!(f.run(look), Outcome::Done);
    reservation(f.run(to(&half, 1)));
    let open = f.ledger.open_contention("default", "cpu").expect("it is open");
    let done: Vec<(&str, &str)> =
        open.resolutions.iter().map(|one| (one.kind.name(), one.subject.as_str())).collect();
    let goes = format!("{} from node-0 to node-1", half.id);
    assert_eq!(done, [("redistribute", "pool/default"), ("redistribute", goes.as_str())]);
}

fn no_room() -> Blocker {
    Blocker::new(Reason::NoCapacity, "cpu", 4_000, 2_000)
}

#[test]
fn a_grant_runs_for_its_protected_minimum() {
    let mut f = fixture();
    let class = Class {
        name: "batch".into(),
        priority: 10,
        preemptible: true,
        min_run_ms: 2_000,
        ..Class::default()
    };
    put(&mut f, PolicyObject::Class(class));
    let one = f.submit(batch(1_000), on(&[0]));
    f.now_ms += 1_999;
    assert_eq!(f.refused(to(&one, 1)), Reason::NotPreemptible);
    f.now_ms += 1;
    reservation(f.run(to(&one, 1)));
}

#[test]
fn there_must_be_a_place_for_it_on_one_other_node() {
    let mut f = fixture();
    let one = f.submit(batch(3_000), on(&[0]));
    f.submit(active(request(6_000)), on(&[1]));
    assert_eq!(f.refused(to(&one, 1)), Reason::NoCapacity, "two cores are left there");
    assert_eq!(f.refused(to(&one, 0)), Reason::InvalidArgument, "it is there already");
    let both = Command::Relocate { reservation: one.id, placement: on(&[1, 2]) };
    assert_eq!(f.refused(both), Reason::InvalidArgument);
    reservation(f.run(to(&one, 2)));
    assert_eq!(f.refused(to(&one, 2)), Reason::NotPreemptible, "it is leaving");
}

#[test]
fn who_leaves_already_is_in_nobodys_way() {
    let mut f = fixture();
    let [big, small] = [(6_000, 0), (3_000, 1)].map(|(cpu, node)| f.submit(batch(cpu), on(&[node])));
    // There is no room for the small one beside the big one, until that goes.
    assert_eq!(f.refused(to(&small, 0)), Reason::NoCapacity);
    reservation(f.run(to(&big, 2)));
    reservation(f.run(to(&small, 0)));
}

#[test]
fn before_version_8_nobody_is_relocated() {
    let mut f = Fixture::new(2);
    f.run(Command::Upgrade { to: 7 });
    let one: Arc<Reservation> = f.submit(batch(1_000), on(&[0]));
    assert_eq!(f.refused(to(&one, 1)), Reason::UnsupportedVersion);
    assert_eq!(to(&one, 1).since_version(), 8);
}
