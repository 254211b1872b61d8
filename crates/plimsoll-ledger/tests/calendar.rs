//! Schedules and advance reservations, from ledger version 4 on.

mod fixture;

use std::sync::Arc;

use fixture::{Fixture, active, gpu_request, on, on_device, queued, request, reservation};
use plimsoll_ledger::{
    AdminChange, Command, EndReason, GPU, GpuShare, LATEST_VERSION, Outcome, PolicyName, PolicyObject,
    Reason, Refusal, Request, Reservation, Schedule, State, Users, Verdict, Window,
};
use plimsoll_types::{LedgerTime, NodeId, Resources, Revision};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

fn put(schedule: Schedule) -> Command {
    Command::ApplyPolicy {
        put: vec![PolicyObject::Schedule(schedule)],
        delete: vec![],
        if_revision: Revision(0),
    }
}

/// Keeps cores for what is named `batch_`.
fn nightly(cpu_millis: u64, shorten: bool) -> Schedule {
    Schedule {
        name: "nightly".into(),
        pool: "default".into(),
        resources: Resources::new(cpu_millis, 0),
        rule: "in the words of a test".into(),
        users: Users { pipelines: vec!["batch_*".into()], ..Users::default() },
        shorten,
        ..Schedule::default()
    }
}

/// Two nodes of 8 cores, and a schedule with one window that opens in two hours for an hour.
fn fixture(schedule: Schedule) -> (Fixture, Window) {
    let mut f = Fixture::new(2);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let start = LedgerTime(f.now_ms + 2 * HOUR_MS);
    let window = Window { start, end: start.plus_ms(HOUR_MS) };
    assert_eq!(f.run(put(schedule.clone())), Outcome::Done);
    open(&mut f, &schedule.name, vec![window]);
    (f, window)
}

fn open(f: &mut Fixture, name: &str, windows: Vec<Window>) {
    let changed = f.ledger.schedule(name).expect("it was put").changed;
    let until = windows.last().map_or(LedgerTime(1), |window| window.end);
    let command = Command::OpenWindows { schedule: name.into(), changed, windows, until };
    assert_eq!(f.run(command), Outcome::Done);
}

fn submit(f: &mut Fixture, request: Request, node: u32) -> Result<Arc<Reservation>, Refusal> {
    match f.run(Command::Submit { request, verdict: Verdict::Place(on(&[node])) }) {
        Outcome::Reservation(granted) => Ok(granted),
        Outcome::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn for_ms(request: Request, max_duration_ms: u64) -> Request {
    Request { max_duration_ms, ttl_ms: 4 * HOUR_MS, ..active(request) }
}

fn named(name: &str, request: Request) -> Request {
    Request { name: name.into(), ..request }
}

fn later(f: &Fixture, in_ms: u64, request: Request) -> Request {
    Request { start_at_ms: f.now_ms + in_ms, ..request }
}

#[test]
fn before_version_4_there_is_no_calendar() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 3 });
    assert_eq!(f.refused(put(nightly(1_000, false))), Reason::UnsupportedVersion);
    let request = later(&f, HOUR_MS, for_ms(request(1_000), HOUR_MS));
    let submit = Command::Submit { request, verdict: Verdict::Blocked(vec![]) };
    assert_eq!(submit.since_version(), 4);
    assert_eq!(f.refused(submit), Reason::UnsupportedVersion);
    let delete = Command::ApplyPolicy {
        put: vec![],
        delete: vec![PolicyName::Schedule("nightly".into())],
        if_revision: Revision(0),
    };
    assert_eq!((delete.since_version(), f.refused(delete)), (4, Reason::UnsupportedVersion));
}

#[test]
fn who_would_run_into_a_window_leaves_it_what_it_keeps_and_who_ends_before_does_not_care() {
    let (mut f, window) = fixture(nightly(10_000, false));
    // 16 cores, of which 10 are kept in two hours: 6 may run into the window.
    submit(&mut f, for_ms(request(6_000), 0), 0).unwrap();
    let refusal = submit(&mut f, for_ms(request(1_000), 3 * HOUR_MS), 1).unwrap_err();
    let blocker = &refusal.blockers[0];
    assert_eq!(refusal.reason, Reason::ReservedByCalendar);
    assert_eq!((blocker.asked, blocker.available, blocker.limit), (1_000, 0, 16_000));
    assert!(
        blocker.subject.starts_with("cpu kept for schedule nightly, 1970-01-01T02:16:40Z/"),
        "{blocker:?}"
    );
    // Until just its start is not into it.
    let until = window.start.0 - f.now_ms;
    submit(&mut f, for_ms(request(8_000), until), 1).unwrap();
    // Those for whom it is kept may.
    submit(&mut f, named("batch_1", for_ms(request(2_000), 0)), 0).unwrap();
    assert_eq!(f.ledger.calendar().held_by("default", "nightly"), Resources::new(2_000, fixture::GIB));
}

#[test]
fn what_its_users_hold_is_no_longer_kept_from_others_twice() {
    let (mut f, window) = fixture(nightly(10_000, false));
    f.now_ms = window.start.0 + 1;
    submit(&mut f, named("batch_1", for_ms(request(8_000), 0)), 0).unwrap();
    // 8 of 16 are taken, 2 of the 10 kept are still to come: 6 are left for others.
    assert!(submit(&mut f, for_ms(request(6_001), 0), 1).is_err());
    submit(&mut f, for_ms(request(6_000), 0), 1).unwrap();
    // Users are not bound by what is kept for them, only by what is there.
    submit(&mut f, named("batch_2", for_ms(request(2_000), 0)), 1).unwrap();
    f.now_ms = window.end.0;
    assert!(submit(&mut f, for_ms(request(1), 0), 1).is_err(), "nodes are full");
}

#[test]
fn a_window_that_is_over_keeps_nothing() {
    let (mut f, window) = fixture(nightly(16_000, false));
    f.now_ms = window.end.0 - 1;
    assert!(submit(&mut f, for_ms(request(1_000), 0), 0).is_err());
    f.now_ms = window.end.0;
    submit(&mut f, for_ms(request(8_000), 0), 0).unwrap();
}

#[test]
fn devices_are_counted_in_thousandths_and_nodes_that_take_no_work_offer_nothing() {
    let schedule = Schedule { resources: Resources::default().with(GPU, 2_500), ..nightly(0, false) };
    let (mut f, _) = fixture(schedule);
    // Four devices, of which 2.5 are kept.
    let half = |node, device| Command::Submit {
        request: for_ms(gpu_request(GpuShare::Milli(500)), 0),
        verdict: Verdict::Place(on_device(node, device, GpuShare::Milli(500))),
    };
    for device in 0..2 {
        reservation(f.run(half(0, device)));
    }
    let whole = Command::Submit {
        request: for_ms(gpu_request(GpuShare::Whole), 0),
        verdict: Verdict::Place(on_device(1, 0, GpuShare::Whole)),
    };
    assert_eq!(f.refused(whole), Reason::ReservedByCalendar);
    reservation(f.run(half(0, 0)));
    assert_eq!(f.refused(half(0, 1)), Reason::ReservedByCalendar);
    // A node less: what runs on it is gone with it.
    let admin = AdminChange::Cordon { reason: "test".into() };
    f.run(Command::SetNodeAdmin { node: NodeId(1), admin });
    assert_eq!(f.refused(half(0, 1)), Reason::ReservedByCalendar);
    f.run(Command::SetNodeAdmin { node: NodeId(1), admin: AdminChange::Uncordon });
    assert_eq!(f.refused(half(0, 1)), Reason::ReservedByCalendar);
}

#[test]
fn where_a_schedule_cuts_others_a_grant_ends_at_its_window_and_says_so() {
    let (mut f, window) = fixture(nightly(16_000, true));
    let cut = submit(&mut f, for_ms(request(1_000), 0), 0).unwrap();
    assert_eq!(cut.hard_end, window.start);
    let short = submit(&mut f, for_ms(request(1_000), HOUR_MS), 0).unwrap();
    assert_eq!(short.hard_end.0, f.now_ms + HOUR_MS);
    f.now_ms = window.start.0 - 500;
    assert!(submit(&mut f, for_ms(request(1_000), 0), 0).is_err(), "half a second is no use");
    f.now_ms = window.start.0 + HOUR_MS;
    f.run(Command::Expire { limit: 9 });
    assert_eq!(f.get(cut.id).end_reason, Some(EndReason::WindowOpened));
}

#[test]
fn room_is_made_ten_minutes_before_a_window_and_only_as_much_as_it_takes() {
    let mut f = Fixture::new(2);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let old = submit(&mut f, for_ms(request(4_000), 0), 0).unwrap();
    let young = submit(&mut f, for_ms(request(4_000), 0), 1).unwrap();
    let batch = submit(&mut f, named("batch_1", for_ms(request(4_000), 0)), 0).unwrap();
    f.run(put(nightly(12_000, true)));
    let start = LedgerTime(f.now_ms + 2 * HOUR_MS);
    open(&mut f, "nightly", vec![Window { start, end: start.plus_ms(HOUR_MS) }]);
    f.now_ms = start.0 - 11 * MINUTE_MS;
    f.run(Command::BecomeLeader { leader: 1 });
    f.run(Command::Expire { limit: 9 });
    assert_eq!(f.get(young.id).hard_end, LedgerTime(0), "it is too early");
    f.now_ms = start.0 - 10 * MINUTE_MS;
    assert!(f.ledger.next_due().expect("a window is near").0 <= f.now_ms);
    f.run(Command::Expire { limit: 9 });
    // 12 are kept, 4 of them its own user has: of the 12 others, 8 are free with one of the two gone.
    assert_eq!((f.get(young.id).hard_end, f.get(young.id).state), (start, State::Active));
    assert_eq!((f.get(old.id).hard_end, f.get(batch.id).hard_end), (LedgerTime(0), LedgerTime(0)));
    assert!(f.ledger.next_due().is_none_or(|due| due.0 > f.now_ms), "and that is all");
}

#[test]
fn an_advance_reservation_keeps_its_amounts_until_it_is_placed() {
    let (mut f, window) = fixture(nightly(4_000, false));
    let ask = later(&f, HOUR_MS, for_ms(request(7_000), 2 * HOUR_MS));
    let verdict = || Verdict::Blocked(vec![]);
    let planned = reservation(f.run(Command::Submit { request: ask.clone(), verdict: verdict() }));
    assert_eq!((planned.state, planned.hard_end), (State::Planned, window.end));
    // 16 less 7 less 4 in the window: 5 are left then, 9 before it.
    assert!(submit(&mut f, for_ms(request(6_000), 3 * HOUR_MS), 1).is_err());
    submit(&mut f, for_ms(request(5_000), 3 * HOUR_MS), 1).unwrap();
    let second = Command::Submit { request: ask, verdict: verdict() };
    assert_eq!(f.refused(second), Reason::ReservedByCalendar);
    let place = |f: &mut Fixture| f.run(Command::Place { reservation: planned.id, placement: on(&[0]) });
    assert!(matches!(place(&mut f), Outcome::Refused(refusal) if refusal.reason == Reason::WrongState));
    f.now_ms += HOUR_MS;
    assert_eq!(f.ledger.due_plans("default", LedgerTime(f.now_ms)), [planned.id]);
    let granted = reservation(place(&mut f));
    assert_eq!((granted.state, granted.hard_end), (State::Active, window.end));
    assert!(f.ledger.due_plans("default", LedgerTime(f.now_ms)).is_empty());
}

#[test]
fn an_advance_reservation_is_kept_in_a_pool_without_schedules_and_given_up_when_it_is_cancelled_or_too_late()
{
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let plan = |f: &mut Fixture, cpu| {
        let request = later(f, HOUR_MS, queued(for_ms(request(cpu), HOUR_MS)));
        f.run(Command::Submit { request, verdict: Verdict::Blocked(vec![]) })
    };
    let Outcome::Refused(refusal) = plan(&mut f, 8_001) else { panic!("more than there is") };
    assert_eq!((refusal.reason, refusal.blockers[0].available), (Reason::ReservedByCalendar, 8_000));
    let first = reservation(plan(&mut f, 8_000));
    assert!(submit(&mut f, for_ms(request(1), 0), 0).is_err());
    f.run(Command::Cancel { reservation: first.id });
    assert_eq!(f.get(first.id).state, State::Rejected);
    assert!(f.ledger.calendar().is_empty());
    let second = reservation(plan(&mut f, 8_000));
    f.now_ms += 2 * HOUR_MS;
    f.run(Command::Expire { limit: 9 });
    let ended = f.get(second.id);
    assert_eq!((ended.state, ended.end_reason), (State::Expired, Some(EndReason::NeverStarted)));
    submit(&mut f, for_ms(request(8_000), 0), 0).unwrap();
}

#[test]
fn windows_go_with_the_rule_that_they_came_from() {
    let (mut f, window) = fixture(nightly(4_000, false));
    let stale = Command::OpenWindows {
        schedule: "nightly".into(),
        changed: Revision(1),
        windows: vec![],
        until: window.end,
    };
    assert_eq!(f.refused(stale), Reason::RevisionMoved);
    f.run(put(nightly(5_000, false)));
    assert_eq!(f.ledger.schedule("nightly").unwrap().windows, [window], "the rule is the same");
    f.run(put(Schedule { rule: "another".into(), ..nightly(5_000, false) }));
    assert_eq!(f.ledger.schedule("nightly").unwrap().windows, []);
    let changed = f.ledger.schedule("nightly").unwrap().changed;
    let overlapping = Command::OpenWindows {
        schedule: "nightly".into(),
        changed,
        windows: vec![window, window],
        until: window.end,
    };
    assert_eq!(f.refused(overlapping), Reason::InvalidArgument);
    f.run(Command::ApplyPolicy {
        put: vec![],
        delete: vec![PolicyName::Schedule("nightly".into())],
        if_revision: Revision(0),
    });
    assert!(f.ledger.calendar().is_empty());
}

#[test]
fn a_grant_that_runs_into_a_window_grows_only_beside_what_is_kept() {
    let (mut f, _) = fixture(nightly(10_000, false));
    let lease = submit(&mut f, for_ms(request(5_000), 0), 0).unwrap();
    let resize = |amount| Command::Resize {
        reservation: lease.id,
        token: lease.token,
        amounts: Resources::new(amount, fixture::GIB),
    };
    assert_eq!(f.refused(resize(6_001)), Reason::ReservedByCalendar);
    reservation(f.run(resize(6_000)));
}
