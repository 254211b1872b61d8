//! Preferred hours (`docs/semantics.md` 5.25).

mod fixture;

use fixture::{Fixture, active, on, queued, request, reservation};
use plimsoll_ledger::{
    Blocker, Command, LATEST_VERSION, Outcome, PolicyName, PolicyObject, PreferredHours, Reason, Request,
    Schedule, State, Users, Verdict, Window,
};
use plimsoll_types::{LedgerTime, ReservationId, Resources, Revision};

const HOUR_MS: u64 = 3_600_000;

fn put(objects: Vec<PolicyObject>, delete: Vec<PolicyName>) -> Command {
    Command::ApplyPolicy { put: objects, delete, if_revision: Revision(0) }
}

fn off_peak() -> Schedule {
    let rule = "22:00-06:00 UTC".into();
    Schedule { name: "off-peak".into(), pool: "default".into(), rule, ..Schedule::default() }
}

/// Two nodes at 20:00; off-peak opens from 22:00 to 06:00 and again the next day.
fn evening() -> Fixture {
    let mut f = Fixture::new(2);
    f.now_ms = 20 * HOUR_MS;
    f.run(Command::Upgrade { to: LATEST_VERSION });
    assert_eq!(f.run(put(vec![PolicyObject::Schedule(off_peak())], vec![])), Outcome::Done);
    let window = |day: u64| Window {
        start: LedgerTime((day * 24 + 22) * HOUR_MS),
        end: LedgerTime((day * 24 + 30) * HOUR_MS),
    };
    let changed = f.ledger.schedule("off-peak").expect("it is there").changed;
    let windows = vec![window(0), window(1)];
    let (schedule, until) = ("off-peak".to_owned(), LedgerTime(48 * HOUR_MS));
    f.run(Command::OpenWindows { schedule, changed, windows, until });
    f
}

fn preferring(longest_hours: u64, request: Request) -> Request {
    let hours = PreferredHours { schedule: "off-peak".into(), longest_wait_ms: longest_hours * HOUR_MS };
    Request { hours: Some(hours), ..request }
}

fn waits(f: &mut Fixture, request: Request) -> ReservationId {
    let verdict = Verdict::Blocked(Vec::new());
    reservation(f.run(Command::Submit { request: queued(request), verdict })).id
}

fn place(f: &mut Fixture, id: ReservationId) -> Outcome {
    f.run(Command::Place { reservation: id, placement: on(&[0]) })
}

fn refusal(outcome: Outcome) -> Blocker {
    match outcome {
        Outcome::Refused(refusal) => refusal.blockers[0].clone(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn it_starts_in_its_hours_and_not_before_them() {
    let mut f = evening();
    let id = waits(&mut f, preferring(24, active(request(1_000))));
    let early = refusal(place(&mut f, id));
    assert_eq!((early.reason, early.asked, early.available), (Reason::AwaitsHours, 1, 0));
    let told = "schedule off-peak: opens 1970-01-01 22:00:00 UTC, and its longest wait is over 1970-01-02 20:00:00 UTC";
    assert_eq!(early.subject, told);
    assert_eq!(f.ledger.next_hours_at(), Some(LedgerTime(22 * HOUR_MS)));
    f.now_ms = 22 * HOUR_MS;
    assert_eq!(reservation(place(&mut f, id)).state, State::Active);
    assert_eq!(f.ledger.next_hours_at(), None, "nobody waits for hours any more");
    assert!(!f.ledger.awaits_hours());
}

#[test]
fn it_starts_at_any_time_once_it_has_waited_long_enough() {
    let mut f = evening();
    let id = waits(&mut f, preferring(1, active(request(1_000))));
    let told = refusal(place(&mut f, id)).subject;
    assert_eq!(told, "schedule off-peak: opens later than its longest wait is over, 1970-01-01 21:00:00 UTC");
    f.now_ms = 21 * HOUR_MS - 1;
    assert_eq!(refusal(place(&mut f, id)).reason, Reason::AwaitsHours);
    f.now_ms = 21 * HOUR_MS;
    assert_eq!(reservation(place(&mut f, id)).state, State::Active);
}

#[test]
fn hours_that_went_by_come_again_and_a_schedule_that_is_gone_keeps_nobody() {
    let mut f = evening();
    let (first, second) = (
        waits(&mut f, preferring(72, active(request(1_000)))),
        waits(&mut f, preferring(72, active(request(1_000)))),
    );
    f.now_ms = 30 * HOUR_MS;
    assert_eq!(refusal(place(&mut f, first)).reason, Reason::AwaitsHours, "the last moment is not in it");
    assert_eq!(f.ledger.next_hours_at(), Some(LedgerTime(46 * HOUR_MS)));
    let waiting = f.ledger.reservation(first).expect("it waits").clone();
    let from = |hours: u64| f.ledger.may_start_from(&waiting, LedgerTime(hours * HOUR_MS)).0 / HOUR_MS;
    assert_eq!([from(31), from(46), from(53), from(54), from(95)], [46, 46, 53, 92, 95]);
    f.now_ms = 46 * HOUR_MS;
    assert_eq!(reservation(place(&mut f, first)).state, State::Active);
    f.now_ms = 60 * HOUR_MS;
    assert_eq!(refusal(place(&mut f, second)).reason, Reason::AwaitsHours);
    f.run(put(vec![], vec![PolicyName::Schedule("off-peak".into())]));
    assert_eq!(reservation(place(&mut f, second)).state, State::Active);
}

#[test]
fn who_does_not_wait_is_refused_outside_of_its_hours_and_granted_in_them() {
    let mut f = evening();
    let now = || Command::Submit {
        request: preferring(24, active(request(1_000))),
        verdict: Verdict::Place(on(&[1])),
    };
    assert_eq!(f.refused(now()), Reason::AwaitsHours);
    f.now_ms = 23 * HOUR_MS;
    assert_eq!(reservation(f.run(now())).state, State::Active);
}

#[test]
fn a_schedule_that_keeps_nothing_is_in_nobodys_way() {
    let mut f = evening();
    f.now_ms = 23 * HOUR_MS;
    assert!(!f.ledger.calendar().has("default"), "the pool has no calendar for it");
    let all = Command::Submit { request: active(request(8_000)), verdict: Verdict::Place(on(&[0])) };
    assert_eq!(reservation(f.run(all)).state, State::Active);
}

#[test]
fn nonsense_is_told_and_before_version_14_none_of_it_is_known() {
    let mut f = evening();
    let blocked =
        |request: Request| Command::Submit { request: queued(request), verdict: Verdict::Blocked(vec![]) };
    let other = PreferredHours { schedule: "weekend".into(), longest_wait_ms: HOUR_MS };
    assert_eq!(f.refused(blocked(Request { hours: Some(other), ..active(request(1)) })), Reason::NotFound);
    assert_eq!(f.refused(blocked(preferring(0, active(request(1))))), Reason::InvalidArgument);
    let planned = Request { start_at_ms: 30 * HOUR_MS, max_duration_ms: HOUR_MS, ..active(request(1)) };
    assert_eq!(f.refused(blocked(preferring(1, planned))), Reason::InvalidArgument, "it says when it starts");
    let users = Users { queues: vec!["vision".into()], ..Users::default() };
    let nothing_for_some = PolicyObject::Schedule(Schedule { users, ..off_peak() });
    assert_eq!(f.refused(put(vec![nothing_for_some], vec![])), Reason::InvalidArgument);

    let mut old = Fixture::new(1);
    old.run(Command::Upgrade { to: 13 });
    let put_it = put(vec![PolicyObject::Schedule(off_peak())], vec![]);
    assert_eq!(put_it.since_version(), 14);
    assert_eq!(old.refused(put_it), Reason::InvalidArgument, "schedules kept something until then");
    let kept = Schedule { resources: Resources::new(1_000, 0), ..off_peak() };
    assert_eq!(old.run(put(vec![PolicyObject::Schedule(kept)], vec![])), Outcome::Done);
    let asks = blocked(preferring(1, active(request(1))));
    assert_eq!(asks.since_version(), 14);
    assert_eq!(old.refused(asks), Reason::UnsupportedVersion);
}
