//! One replica in memory: grants, queue, expiry, replay, restart, watch.

use std::time::Duration;

use plimsoll_ledger::{Command, Outcome, PolicyObject, Pool, QueueOrder, Reason, State, Wait};
use plimsoll_types::Revision;

use super::harness::*;
use crate::core::{Consistency, Core, CoreConfig, Data, HistoryError, IntakeLimits, ReadError, SubmitError};

#[tokio::test(start_paused = true)]
async fn a_grant_is_held_confirmed_renewed_and_released() {
    let core = single(&stores(), &TokioClock::new()).await;
    register(&core, "node-01", 8_000, 2).await;
    let mut wanted = gpu_request(1);
    wanted.auto_confirm = false;
    let held = reserve(&core, wanted).await;
    assert_eq!((held.state, held.token.0, held.id.0), (State::Held, held.token.0, held.token.0));
    let confirmed = do_it(&core, Command::Confirm { reservation: held.id, token: held.token }).await;
    assert!(matches!(&confirmed, Outcome::Reservation(r) if r.state == State::Active), "{confirmed:?}");
    let renewed = do_it(&core, Command::Renew { reservation: held.id, token: held.token, ttl_ms: 0 }).await;
    assert!(matches!(renewed, Outcome::Reservation(_)));
    release(&core, &held).await;
    assert_eq!(state(&core, held.id), State::Released);
    let node = core.local().node_by_name("node-01").expect("registered").id;
    assert_eq!(core.local().free(node).cpu_millis.0, 8_000);
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_gets_what_is_released() {
    let core = single(&stores(), &TokioClock::new()).await;
    register(&core, "node-01", 4_000, 0).await;
    let first = reserve(&core, request(4_000)).await;
    let refused = do_it(&core, submit(request(1_000))).await;
    assert!(
        matches!(&refused, Outcome::Refused(refusal) if refusal.reason == Reason::NoCapacity),
        "{refused:?}"
    );
    let second = reserve(&core, queued(request(3_000))).await;
    assert_eq!(second.state, State::Pending);
    assert!(!second.blockers.is_empty());
    release(&core, &first).await;
    until("the second is placed", || state(&core, second.id) == State::Active).await;
    assert!(core.local().check_invariants().is_empty());
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_renews_expires_and_frees_its_place() {
    // No agent speaks here, and this is not about silent nodes.
    let patient = |config: &mut CoreConfig| config.timings.suspect_after_ms = 3_600_000;
    let core = single_with(&stores(), &TokioClock::new(), patient).await;
    register(&core, "node-01", 4_000, 0).await;
    let lease = reserve(&core, request(4_000)).await;
    let waiting = reserve(&core, queued(request(4_000))).await;
    tokio::time::sleep(Duration::from_millis(60_000)).await;
    assert_eq!(state(&core, lease.id), State::Active, "the slack is not over");
    tokio::time::sleep(Duration::from_millis(8_000)).await;
    assert_eq!(state(&core, lease.id), State::Expired);
    assert_eq!(state(&core, waiting.id), State::Active);
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_overtakes_a_request_on_its_way_to_a_strict_queue() {
    // One command an entry: several are in flight at once, each planned before the one before it is applied.
    let core =
        single_with(&stores(), &TokioClock::new(), |config| config.intake.max_entry_commands = 1).await;
    let pool = Pool { name: "default".to_owned(), queue_order: QueueOrder::StrictFifo, ..Pool::default() };
    let put = vec![PolicyObject::Pool(pool)];
    let policy = Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) };
    assert!(!matches!(do_it(&core, policy).await, Outcome::Refused(_)));
    register(&core, "node-01", 4_000, 0).await;
    let first = reserve(&core, request(2_000)).await;
    let (large, small, now) = tokio::join!(
        core.submit(entry(submit(queued(request(3_000))))),
        core.submit(entry(submit(queued(request(1_000))))),
        core.submit(entry(submit(request(1_000)))),
    );
    let (large, small) = (granted(large), granted(small));
    assert_eq!((large.state, small.state), (State::Pending, State::Pending));
    assert_eq!(small.blockers[0].reason, Reason::BehindInQueue);
    assert!(matches!(now.expect("applied").outcome, Outcome::Refused(_)));
    release(&core, &first).await;
    until("both are placed", || {
        state(&core, large.id) == State::Active && state(&core, small.id) == State::Active
    })
    .await;
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_next_of_a_strict_queue_is_placed_when_its_head_goes_without_a_place() {
    let core = single(&stores(), &TokioClock::new()).await;
    let pool = Pool { name: "default".to_owned(), queue_order: QueueOrder::StrictFifo, ..Pool::default() };
    let put = vec![PolicyObject::Pool(pool)];
    do_it(&core, Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }).await;
    register(&core, "node-01", 4_000, 0).await;
    reserve(&core, request(1_000)).await;
    let cancelled = reserve(&core, queued(request(4_000))).await;
    let mut impatient = queued(request(4_000));
    impatient.wait = Wait::Queue { deadline_ms: 3_000 };
    let impatient = reserve(&core, impatient).await;
    let last = reserve(&core, queued(request(1_000))).await;
    do_it(&core, Command::Cancel { reservation: cancelled.id }).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(state(&core, last.id), State::Pending, "the next head does not fit either");
    tokio::time::sleep(Duration::from_millis(3_000)).await;
    assert_eq!((state(&core, impatient.id), state(&core, last.id)), (State::Expired, State::Active));

    let head = reserve(&core, queued(request(4_000))).await;
    let behind = reserve(&core, queued(request(1_000))).await;
    do_it(&core, Command::Cancel { reservation: head.id }).await;
    until("the one behind it is placed", || state(&core, behind.id) == State::Active).await;
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_core_does_nothing() {
    let core = single(&stores(), &TokioClock::new()).await;
    let before = revision(&core);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(revision(&core), before);
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeat_gets_the_same_answer_and_another_request_a_conflict() {
    let core = single(&stores(), &TokioClock::new()).await;
    register(&core, "node-01", 8_000, 0).await;
    let first = core.submit(keyed("key-0123456789ab", 1, submit(request(1_000)))).await.expect("applied");
    let again = core.submit(keyed("key-0123456789ab", 1, submit(request(1_000)))).await.expect("applied");
    assert_eq!(first, again);
    let other = core.submit(keyed("key-0123456789ab", 2, submit(request(2_000)))).await.expect("applied");
    assert!(matches!(other.outcome, Outcome::Refused(refusal) if refusal.reason == Reason::KeyConflict));
    assert_eq!(core.local().reservations().count(), 1);
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn everything_is_there_after_a_restart() {
    let (stores, clock) = (stores(), TokioClock::new());
    let core = single(&stores, &clock).await;
    register(&core, "node-01", 64_000, 0).await;
    let answers = core.submit_many((0..50).map(|_| entry(submit(request(1_000)))).collect()).await;
    let reservations: Vec<_> = answers.into_iter().map(granted).collect();
    let first = core.submit(keyed("key-0123456789ab", 1, submit(request(1_000)))).await.expect("applied");
    let before = core.dump(Revision(0)).await.expect("dumped");
    core.shutdown().await;

    let core = single(&stores, &clock).await;
    let again = core.submit(keyed("key-0123456789ab", 1, submit(request(1_000)))).await.expect("applied");
    assert_eq!(first, again);
    for reservation in &reservations {
        let view = core.local();
        assert_eq!(view.reservation(reservation.id), Some(reservation));
    }
    assert_eq!(core.first_revision(), Revision(1));
    let history = core.history(Revision(1), 10_000).expect("kept");
    assert_eq!(history.len() as u64, revision(&core).0);
    assert_eq!(history[before.revision.0 as usize - 1].chain, before.chain, "the chain goes on");
    assert!(core.local().check_invariants().is_empty());
    core.shutdown().await;
}

// On real time: a paused clock runs on while the disk works.
#[tokio::test]
async fn a_directory_keeps_data_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = TokioClock::new();
    let start = async || {
        let data = Data::Directory(directory.path().to_owned());
        let config = CoreConfig { bootstrap: true, ..CoreConfig::new(1, "test", "127.0.0.1:1", data) };
        let core =
            Core::start(config, std::sync::Arc::new(PlainDialer), clock.clone()).await.expect("starts");
        serving(&core).await;
        core
    };
    let core = start().await;
    register(&core, "node-01", 8_000, 0).await;
    let lease = reserve(&core, request(1_000)).await;
    core.shutdown().await;
    drop(core);
    let core = start().await;
    assert_eq!(state(&core, lease.id), State::Active);
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn watchers_miss_nothing_over_a_restart() {
    let (stores, clock) = (stores(), TokioClock::new());
    let core = single(&stores, &clock).await;
    register(&core, "node-01", 64_000, 0).await;
    let mut watcher = core.watch(Revision(1)).expect("kept");
    let mut seen = Vec::new();
    while watcher.position() <= revision(&core) {
        seen.extend(watcher.next(1).await.expect("kept"));
    }
    for _ in 0..10 {
        reserve(&core, request(1_000)).await;
    }
    let resume_at = watcher.position();
    core.shutdown().await;
    assert!(matches!(watcher.next(1).await, Err(HistoryError::Stopped)));

    let core = single(&stores, &clock).await;
    let mut watcher = core.watch(resume_at).expect("kept");
    reserve(&core, request(1_000)).await;
    while watcher.position() <= revision(&core) {
        seen.extend(watcher.next(3).await.expect("kept"));
    }
    let revisions: Vec<u64> = seen.iter().map(|record| record.revision.0).collect();
    assert_eq!(revisions, (1..=revision(&core).0).collect::<Vec<_>>());
    let submits =
        seen.iter().flat_map(|record| &record.events).filter(|event| event.rule.starts_with("submit"));
    assert_eq!(submits.count(), 11);
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn validating_says_what_would_happen_and_writes_nothing() {
    let core = single(&stores(), &TokioClock::new()).await;
    register(&core, "node-01", 4_000, 0).await;
    let before = core.state_digest(Revision(0)).await.expect("digest");
    let answer = core.validate_only(entry(submit(request(1_000)))).await;
    assert_eq!(granted(answer).state, State::Active);
    let refused = core.validate_only(entry(submit(request(9_000)))).await.expect("judged");
    assert!(matches!(refused.outcome, Outcome::Refused(refusal) if refusal.reason == Reason::Infeasible));
    assert_eq!(core.state_digest(Revision(0)).await.expect("digest"), before);
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn reads_wait_for_the_revision_asked_or_say_that_it_is_not_there() {
    let core = single(&stores(), &TokioClock::new()).await;
    register(&core, "node-01", 4_000, 0).await;
    let now = revision(&core);
    {
        let view = core.read(Consistency::Linearizable, now).await.expect("there");
        assert_eq!((view.revision(), view.age_ms()), (now, 0));
    }
    let late = core.read(Consistency::Stale, Revision(now.0 + 5)).await.err();
    assert_eq!(late, Some(ReadError::TimedOut { wanted: Revision(now.0 + 5), applied: now }));
    assert!(matches!(core.state_digest(Revision(1)).await, Err(ReadError::Moved { .. })));
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_intake_turns_away_and_a_stopped_one_says_so() {
    let config = CoreConfig {
        bootstrap: true,
        intake: IntakeLimits { max_waiting: 8, ..IntakeLimits::default() },
        ..CoreConfig::new(1, "test", "127.0.0.1:1", Data::Memory)
    };
    let core =
        Core::start(config, std::sync::Arc::new(PlainDialer), TokioClock::new()).await.expect("starts");
    serving(&core).await;
    let many = core.submit_many((0..9).map(|_| entry(submit(request(1)))).collect()).await;
    let (taken, turned_away) = many.split_at(8);
    assert!(taken.iter().all(Result::is_ok), "{taken:?}");
    assert!(
        matches!(turned_away, [Err(SubmitError::Overloaded { retry_after_ms: 1.., .. })]),
        "{turned_away:?}"
    );
    core.shutdown().await;
    assert_eq!(core.submit(entry(submit(request(1)))).await, Err(SubmitError::Stopped));
}
