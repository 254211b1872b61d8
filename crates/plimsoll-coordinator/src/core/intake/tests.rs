//! What is taken, turned away, and answered.

use plimsoll_ledger::{Outcome, Verdict};
use plimsoll_types::{LedgerTime, ReservationId, Revision};

use super::*;

fn request() -> Entry {
    Entry::system(Command::Submit { request: Request::default(), verdict: Verdict::Blocked(Vec::new()) })
}

fn cancel(id: u64) -> Entry {
    Entry::system(Command::Cancel { reservation: ReservationId(id) })
}

fn done(revision: u64) -> Result1 {
    Ok(Answer { revision: Revision(revision), log_time: LedgerTime(0), outcome: Outcome::Done })
}

fn intake(max_waiting: usize) -> Arc<Intake> {
    let limits = IntakeLimits { max_waiting, ..IntakeLimits::default() };
    let intake = Arc::new(Intake::new(limits, Arc::default(), Arc::default()));
    intake.open();
    intake
}

#[tokio::test]
async fn answers_come_back_in_the_order_of_the_call() {
    let intake = intake(100);
    let caller = Arc::clone(&intake);
    let call = tokio::spawn(async move { caller.submit(vec![request(), cancel(1), request()], None).await });
    tokio::task::yield_now().await;
    for (revision, item) in (1..).zip(intake.take_urgent(10).into_iter().chain(intake.take_requests(10))) {
        item.answer(done(revision));
    }
    let answers = call.await.expect("ran");
    assert_eq!(answers, [done(2), done(1), done(3)]);
}

#[tokio::test]
async fn requests_cannot_crowd_out_releases() {
    let intake = intake(2);
    for _ in 0..2 {
        let caller = Arc::clone(&intake);
        tokio::spawn(async move { caller.submit(vec![request()], None).await });
    }
    tokio::task::yield_now().await;
    let refused = intake.submit(vec![request()], None).await;
    assert!(matches!(refused[..], [Err(SubmitError::Overloaded { .. })]));
    let caller = Arc::clone(&intake);
    let release = tokio::spawn(async move { caller.submit(vec![cancel(1)], None).await });
    tokio::task::yield_now().await;
    intake.take_urgent(1).pop().expect("waits").answer(done(1));
    assert_eq!(release.await.expect("ran"), [done(1)]);
}

#[tokio::test]
async fn the_beginning_of_what_does_not_fit_is_taken_and_the_rest_may_come_back() {
    let intake = intake(3);
    let caller = Arc::clone(&intake);
    let call = tokio::spawn(async move {
        caller.submit(vec![request(), request(), cancel(1), request(), request(), cancel(2)], None).await
    });
    tokio::task::yield_now().await;
    assert_eq!((intake.take_urgent(10).len(), intake.waiting()), (2, 3));
    for (revision, item) in (1..).zip(intake.take_requests(10)) {
        item.answer(done(revision));
    }
    let answers = call.await.expect("ran");
    let shown: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Ok(answer) => answer.revision.0,
            Err(SubmitError::Overloaded { waiting: 3, limit: 3, retry_after_ms: 1.. }) => 100,
            Err(SubmitError::Unknown) => 200,
            Err(other) => panic!("{other}"),
        })
        .collect();
    assert_eq!(shown, [1, 2, 200, 3, 100, 200]);
}

#[tokio::test]
async fn bytes_are_bounded_and_what_never_fits_is_told_so() {
    let limits = IntakeLimits { max_waiting_bytes: 20_000, ..IntakeLimits::default() };
    let intake = Arc::new(Intake::new(limits, Arc::default(), Arc::default()));
    intake.open();
    let labelled = |bytes: usize| {
        let labels = [("l".to_owned(), "v".repeat(bytes))].into();
        let request = Request { labels, ..Request::default() };
        Entry::system(Command::Submit { request, verdict: Verdict::Blocked(Vec::new()) })
    };
    let never = intake.submit(vec![labelled(30_000)], None).await;
    assert!(matches!(never[..], [Err(SubmitError::TooLarge { what: "bytes", .. })]), "{never:?}");
    let caller = Arc::clone(&intake);
    tokio::spawn(async move { caller.submit(vec![labelled(8_000), labelled(8_000)], None).await });
    tokio::task::yield_now().await;
    let later = intake.submit(vec![labelled(8_000)], None).await;
    assert!(matches!(later[..], [Err(SubmitError::Overloaded { limit: 20_000, .. })]), "{later:?}");
    drop(intake.take_requests(10));
    let caller = Arc::clone(&intake);
    tokio::spawn(async move { caller.submit(vec![labelled(8_000)], None).await });
    tokio::task::yield_now().await;
    assert_eq!(intake.waiting(), 1, "there is room again");
}

#[tokio::test]
async fn what_is_taken_at_once_fits_into_a_message() {
    let intake = intake(10_000);
    let labels = |_| ("l".repeat(100), "v".repeat(1_000_000));
    let request = Request { labels: (0..1).map(labels).collect(), ..Request::default() };
    let entry = Entry::system(Command::Submit { request, verdict: Verdict::Blocked(Vec::new()) });
    let caller = Arc::clone(&intake);
    tokio::spawn(async move { caller.submit(vec![entry; 10], None).await });
    tokio::task::yield_now().await;
    let taken: Vec<usize> = (0..4).map(|_| intake.take_requests(1_024).len()).collect();
    assert_eq!(taken, [4, 4, 2, 0]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_proposed() {
    let intake = intake(10);
    let caller = Arc::clone(&intake);
    let call = tokio::spawn(async move { caller.submit(vec![request()], None).await });
    tokio::task::yield_now().await;
    call.abort();
    let _ = call.await;
    assert!(intake.take_requests(10).is_empty());
}

#[tokio::test]
async fn closing_answers_all_that_wait() {
    let intake = intake(10);
    let caller = Arc::clone(&intake);
    let call = tokio::spawn(async move { caller.submit(vec![request(), cancel(4)], None).await });
    tokio::task::yield_now().await;
    let error = SubmitError::NotLeader { leader: Some((2, "there".to_owned())) };
    intake.close(&error);
    assert_eq!(call.await.expect("ran"), [Err(error.clone()), Err(error)]);
    let hint = Some((3, "elsewhere".to_owned()));
    let later = intake.submit(vec![request()], hint.clone()).await;
    assert_eq!(later, [Err(SubmitError::NotLeader { leader: hint })]);
}

#[tokio::test]
async fn a_dropped_command_is_answered_as_unknown() {
    let intake = intake(10);
    let caller = Arc::clone(&intake);
    let call = tokio::spawn(async move { caller.submit(vec![request()], None).await });
    tokio::task::yield_now().await;
    drop(intake.take_requests(1));
    assert_eq!(call.await.expect("ran"), [Err(SubmitError::Unknown)]);
}
