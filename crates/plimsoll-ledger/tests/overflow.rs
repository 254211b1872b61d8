//! Overflow of bounded queues, from ledger version 11 on.

mod fixture;

use std::sync::Arc;

use fixture::{Fixture, on, queued, request, reservation};
use plimsoll_ledger::{
    AsideHow, Command, Entry, LATEST_VERSION, Ledger, Outcome, Overflow, PolicyObject, Queue, Reason,
    Request, Reservation, Row, RowError, RowPlace, SetAsideOne, State, StoredRow, Verdict, Wait,
};
use plimsoll_types::{ReservationId, Revision};

const BOUND: u32 = 3;

fn policy(overflow: Overflow, max_pending: u32) -> Command {
    let queue = Queue { name: "bulk".into(), max_pending, overflow, ..Queue::default() };
    Command::ApplyPolicy { put: vec![PolicyObject::Queue(queue)], delete: vec![], if_revision: Revision(0) }
}

/// One node, and a queue that takes three and more.
fn bounded(overflow: Overflow) -> Fixture {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    assert_eq!(f.run(policy(overflow, BOUND)), Outcome::Done);
    f
}

fn asked(class: &str) -> Request {
    let mut asked = Request { queue: "bulk".into(), class: class.into(), ..queued(request(1_000)) };
    asked.labels.insert("team".into(), "blue".into());
    asked
}

fn wait(f: &mut Fixture, class: &str) -> ReservationId {
    let command = Command::Submit { request: asked(class), verdict: Verdict::Blocked(Vec::new()) };
    reservation(f.run(command)).id
}

fn wait_many(f: &mut Fixture, count: usize) {
    for _ in 0..count {
        wait(f, "standard");
    }
}

fn aside(ids: &[ReservationId]) -> Command {
    let one =
        |id: &ReservationId| SetAsideOne { reservation: *id, body: vec![7; 10].into(), body_hash: [1; 32] };
    Command::SetAside { aside: ids.iter().map(one).collect() }
}

fn back(f: &Fixture, ids: &[ReservationId]) -> Command {
    let whole = |id: &ReservationId| (*id, Request { ttl_ms: 10_000, ..asked(&f.get(*id).request.class) });
    Command::Return { requests: ids.iter().map(whole).collect() }
}

/// What a leader does until there is nothing to do.
fn even(f: &mut Fixture) {
    for _ in 0..100 {
        let ids = f.ledger.to_set_aside("bulk", 2);
        if !ids.is_empty() {
            assert_eq!(f.run(aside(&ids)), Outcome::Done);
            continue;
        }
        let ids = f.ledger.to_return("bulk", 2);
        if ids.is_empty() {
            return;
        }
        let command = back(f, &ids);
        assert_eq!(f.run(command), Outcome::Done);
    }
    panic!("it never comes to rest");
}

fn in_memory(f: &Fixture) -> Vec<ReservationId> {
    f.ledger.pending("default").collect()
}

fn over(f: &Fixture) -> Vec<ReservationId> {
    f.ledger.aside_in("bulk").collect()
}

#[test]
fn a_queue_that_spills_is_never_full_and_its_last_are_set_aside() {
    let mut f = bounded(Overflow::SpillToDisk);
    let ids: Vec<ReservationId> = (0..6).map(|_| wait(&mut f, "standard")).collect();
    even(&mut f);
    assert_eq!((in_memory(&f), over(&f)), (ids[..3].to_vec(), ids[3..].to_vec()));
    let last = f.get(ids[5]);
    assert_eq!((last.state, last.is_waiting()), (State::Pending, false));
    assert!(last.request.labels.is_empty() && last.request.queue == "bulk", "{:?}", last.request);
    let tally = f.ledger.overflow_of("bulk");
    assert_eq!((tally.spilled, tally.spilled_bytes, tally.compressed), (3, 30, 0));
}

#[test]
fn a_higher_class_goes_before_those_that_are_aside_and_takes_the_place_of_the_last() {
    let mut f = bounded(Overflow::Compress);
    let ids: Vec<ReservationId> = (0..5).map(|_| wait(&mut f, "standard")).collect();
    even(&mut f);
    let urgent = wait(&mut f, "critical");
    even(&mut f);
    assert_eq!(in_memory(&f), [urgent, ids[0], ids[1]]);
    assert_eq!(over(&f), [ids[2], ids[3], ids[4]]);
    let low = wait(&mut f, "batch");
    even(&mut f);
    assert_eq!(over(&f).last(), Some(&low));
}

#[test]
fn the_first_that_are_aside_come_back_with_all_they_asked_as_places_come_free() {
    let mut f = bounded(Overflow::Compress);
    let ids: Vec<ReservationId> = (0..6).map(|_| wait(&mut f, "standard")).collect();
    even(&mut f);
    for id in &ids {
        let placed = f.run(Command::Place { reservation: *id, placement: on(&[0]) });
        assert_eq!(reservation(placed).state, State::Held, "{id}");
        even(&mut f);
    }
    let last = f.get(ids[5]);
    assert_eq!(last.request.labels.get("team").map(String::as_str), Some("blue"));
    assert_eq!((last.aside.clone(), f.ledger.body(ids[5]).is_some()), (None, false));
}

#[test]
fn nobody_is_granted_at_once_while_others_of_its_queue_go_before_it_and_are_aside() {
    let mut f = bounded(Overflow::SpillToDisk);
    wait_many(&mut f, 5);
    even(&mut f);
    let submit = |request| Command::Submit { request, verdict: Verdict::Place(on(&[0])) };
    let now = Request { wait: Wait::Refuse, ..asked("standard") };
    assert_eq!(f.refused(submit(now)), Reason::Overflowed);
    let waits = reservation(f.run(submit(asked("standard"))));
    assert_eq!(
        (waits.state, waits.blockers[0].reason, waits.blockers[0].asked),
        (State::Pending, Reason::Overflowed, 2)
    );
    assert_eq!(reservation(f.run(submit(asked("critical")))).state, State::Held, "nobody goes before it");
    let elsewhere = Request { queue: String::new(), ..asked("batch") };
    assert_eq!(reservation(f.run(submit(elsewhere))).state, State::Held, "it is of no queue");
}

#[test]
fn only_those_past_the_bound_are_set_aside_and_only_the_first_come_back() {
    let mut f = bounded(Overflow::SpillToDisk);
    let ids: Vec<ReservationId> = (0..5).map(|_| wait(&mut f, "standard")).collect();
    assert_eq!(f.refused(aside(&ids[..3])), Reason::WrongState, "they are within it");
    assert_eq!(f.run(aside(&[ids[0], ids[4], ids[4], ids[3]])), Outcome::Done);
    assert_eq!(over(&f), ids[3..]);
    let too_late = back(&f, &[ids[4]]);
    assert_eq!(f.refused(too_late), Reason::WrongState, "another is before it");
    let full = back(&f, &[ids[3]]);
    assert_eq!(f.refused(full), Reason::WrongState, "there is no room");
    f.run(Command::Cancel { reservation: ids[0] });
    let mut other = asked("standard");
    other.requirements.amounts.cpu_millis.0 += 1;
    let wrong = Command::Return { requests: vec![(ids[3], Request { ttl_ms: 10_000, ..other })] };
    assert_eq!(f.refused(wrong), Reason::InvalidArgument, "that is not what it asked");
    let right = back(&f, &[ids[3]]);
    assert_eq!(f.run(right), Outcome::Done);
    let refused = f.run(Command::Place { reservation: ids[4], placement: on(&[0]) });
    assert!(format!("{refused:?}").contains("set aside"), "{refused:?}");
}

#[test]
fn a_queue_that_refuses_again_or_has_no_bound_takes_all_back() {
    for (overflow, bound) in [(Overflow::Reject, BOUND), (Overflow::Reject, 0), (Overflow::SpillToDisk, 9)] {
        let mut f = bounded(Overflow::SpillToDisk);
        wait_many(&mut f, 8);
        even(&mut f);
        f.run(policy(overflow, bound));
        even(&mut f);
        assert_eq!((in_memory(&f).len(), over(&f).len()), (8, 0), "{overflow:?} {bound}");
    }
}

#[test]
fn one_that_ends_while_it_is_aside_keeps_its_body_as_long_as_anybody_may_ask_for_it() {
    let mut f = bounded(Overflow::Compress);
    wait_many(&mut f, 3);
    let command = Command::Submit { request: asked("standard"), verdict: Verdict::Blocked(Vec::new()) };
    let entry = Entry { actor: "ada".into(), request_id: "one".into(), request_hash: [1; 32], command };
    let first = reservation(f.apply(&entry).answer.outcome);
    even(&mut f);
    let again = f.apply(&entry);
    let shown = reservation(again.answer.outcome);
    assert!(again.replayed && shown.was_shown_whole() && shown.request.labels.is_empty());
    assert_eq!(
        shown.with_body(Arc::clone(&first.request)).map(|whole| whole.request),
        Some(first.request.clone())
    );
    f.run(Command::Cancel { reservation: first.id });
    assert!(f.get(first.id).aside.is_some() && over(&f).is_empty());
    assert_eq!(f.ledger.overflow_of("bulk").compressed, 0);
    f.now_ms += 2 * 3_600_000;
    f.run(Command::Expire { limit: 100 });
    assert!(
        f.ledger.reservation(first.id).is_none() && f.ledger.body(first.id).is_some(),
        "the answer needs it"
    );
    f.now_ms += 24 * 3_600_000;
    f.run(Command::Expire { limit: 100 });
    assert!(f.ledger.body(first.id).is_none());
}

#[test]
fn an_answer_is_whole_again_once_its_reservation_is_back() {
    let mut f = bounded(Overflow::SpillToDisk);
    let ids: Vec<ReservationId> = (0..3).map(|_| wait(&mut f, "standard")).collect();
    let command = Command::Submit { request: asked("standard"), verdict: Verdict::Blocked(Vec::new()) };
    let entry = Entry { actor: "ada".into(), request_id: "one".into(), request_hash: [1; 32], command };
    let first = f.apply(&entry).answer;
    even(&mut f);
    assert_ne!(f.apply(&entry).answer, first);
    f.run(Command::Cancel { reservation: ids[0] });
    even(&mut f);
    assert_eq!(f.apply(&entry).answer, first);
}

#[test]
fn what_is_spilled_is_handed_out_once_and_loaded_by_nobody_and_what_is_compressed_stays() {
    for overflow in [Overflow::SpillToDisk, Overflow::Compress] {
        let mut f = bounded(overflow);
        let ids: Vec<ReservationId> = (0..5).map(|_| wait(&mut f, "standard")).collect();
        even(&mut f);
        let stays = overflow == Overflow::Compress;
        let touched = f.ledger.take_rows();
        let body = |row: &Row| matches!(row, Row::Body(body) if body.reservation == ids[4]);
        let handed: Vec<Row> = touched.into_iter().filter_map(|row| row.row).collect();
        assert_eq!(handed.iter().filter(|row| body(row)).count(), 1);
        assert_eq!(f.ledger.body(ids[4]).is_some(), stays);
        assert!(f.ledger.take_rows().is_empty());
        let mut bodies: Vec<Row> = handed.into_iter().filter(|row| matches!(row, Row::Body(_))).collect();
        let stored = |bodies: &[Row]| {
            let rows = f.ledger.rows().map(|(_, row)| row).chain(bodies.iter().cloned());
            Ledger::from_stored(rows.map(StoredRow::Whole))
        };
        let loaded = stored(&bodies).expect("all are there");
        assert!(loaded.rows().eq(f.ledger.rows()) && loaded.check_invariants().is_empty());
        assert_eq!((loaded.body(ids[4]).is_some(), loaded.aside_in("bulk").count()), (stays, 2));
        let lost = bodies.pop().expect("two");
        assert_eq!(stored(&bodies).err(), Some(RowError::NoBody(ids[4])), "a body is lost: {lost:?}");
        let fork = f.ledger.fork().expect("its own rows");
        assert_eq!(fork.check_invariants(), Vec::new());
        f.run(Command::Cancel { reservation: ids[0] });
        even(&mut f);
        let gone = f.ledger.take_rows().into_iter().find(|row| row.place == RowPlace::Body(ids[3]));
        assert_eq!(gone.map(|row| row.row), Some(None), "it is back");
    }
}

#[test]
fn a_wait_that_is_too_long_ends_one_that_is_aside() {
    let mut f = bounded(Overflow::SpillToDisk);
    wait_many(&mut f, 3);
    let request = Request { wait: Wait::Queue { deadline_ms: 5_000 }, ..asked("standard") };
    let command = Command::Submit { request, verdict: Verdict::Blocked(Vec::new()) };
    let late = reservation(f.run(command)).id;
    even(&mut f);
    assert_eq!(over(&f), [late]);
    f.now_ms += 5_000;
    f.run(Command::Expire { limit: 10 });
    let ended: Arc<Reservation> = f.get(late);
    assert_eq!((ended.state, over(&f).len()), (State::Expired, 0));
    assert_eq!(ended.aside.as_ref().map(|aside| aside.how), Some(AsideHow::Spilled));
}

#[test]
fn before_version_11_none_of_it_is_known_and_overflow_needs_a_bound() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 10 });
    for command in [policy(Overflow::Compress, 3), aside(&[ReservationId(1)]), back(&f, &[])] {
        assert_eq!(command.since_version(), 11);
        assert_eq!(f.refused(command), Reason::UnsupportedVersion);
    }
    f.run(Command::Upgrade { to: LATEST_VERSION });
    assert_eq!(f.refused(policy(Overflow::Compress, 0)), Reason::InvalidArgument);
}
