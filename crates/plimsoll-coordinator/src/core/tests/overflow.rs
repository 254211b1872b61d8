//! Queues with more than their bound: set aside, kept over restarts and in saved ledgers, and granted in order in the end.

use std::sync::Arc;

use plimsoll_ledger::{Command, Overflow, PolicyObject, Queue, Request, Reservation, State};
use plimsoll_proto::codec;
use plimsoll_types::{ReservationId, Revision};

use super::harness::*;
use crate::clock::SystemClock;
use crate::core::backup::{BackupHead, Target, restore, save, verify};
use crate::core::doctor::{Start, examine};
use crate::core::{Core, CoreConfig, Data};

const BOUND: u32 = 8;

pub(super) async fn bulk(core: &Core, overflow: Overflow) {
    let queue = Queue { name: "bulk".into(), max_pending: BOUND, overflow, ..Queue::default() };
    let put = vec![PolicyObject::Queue(queue)];
    do_it(core, Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }).await;
}

/// A request that takes the whole node, and says which it is.
pub(super) fn numbered(number: usize) -> Request {
    let mut request =
        Request { queue: "bulk".into(), name: format!("job-{number}"), ..queued(request(4_000)) };
    request.labels.insert("number".into(), number.to_string());
    request
}

fn aside(core: &Core) -> Vec<ReservationId> {
    core.local().aside_in("bulk").collect()
}

pub(super) async fn rests(core: &Core, over: usize) {
    until("the queue is even", || aside(core).len() == over).await;
    assert!(core.local().to_set_aside("bulk", 10).is_empty());
}

fn whole(core: &Core, id: ReservationId) -> Arc<Reservation> {
    let ledger = core.local();
    core.whole(&ledger, ledger.reservation(id).expect("it is there")).expect("its body is there")
}

/// A node that is taken, and `count` who wait for it.
pub(super) async fn crowd(core: &Core, count: usize) -> (Arc<Reservation>, Vec<Arc<Reservation>>) {
    register(core, "node-01", 4_000, 0).await;
    let holder = reserve(core, request(4_000)).await;
    let mut waiting = Vec::new();
    for number in 0..count {
        let key = format!("job-{number}");
        waiting.push(granted(core.submit(keyed(&key, 1, submit(numbered(number)))).await));
    }
    (holder, waiting)
}

/// Releases the node again and again: whoever is next has it, with all that it asked.
pub(super) async fn all_in_order(core: &Core, holder: Arc<Reservation>, waiting: &[Arc<Reservation>]) {
    let mut holder = holder;
    for (number, next) in waiting.iter().enumerate() {
        release(core, &holder).await;
        until("the next has the node", || state(core, next.id) == State::Active).await;
        holder = core.local().reservation(next.id).cloned().expect("it is there");
        assert_eq!(holder.request.labels.get("number"), Some(&number.to_string()));
        assert_eq!(holder.request, next.request);
        assert!(core.local().check_invariants().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn forty_requests_of_a_queue_of_eight_are_granted_in_order_over_a_restart() {
    for overflow in [Overflow::SpillToDisk, Overflow::Compress] {
        let (stores, clock) = (stores(), TokioClock::new());
        let patient = |config: &mut CoreConfig| config.timings.suspect_after_ms = 3_600_000;
        let core = single_with(&stores, &clock, patient).await;
        bulk(&core, overflow).await;
        let (holder, waiting) = crowd(&core, 40).await;
        rests(&core, 32).await;
        assert_eq!(aside(&core), waiting[8..].iter().map(|one| one.id).collect::<Vec<_>>());
        let last = &waiting[39];
        assert_eq!(whole(&core, last.id).request, last.request);
        let before = core.state_digest(Revision(0)).await.expect("a digest");
        core.shutdown().await;
        let core = single_with(&stores, &clock, patient).await;
        rests(&core, 32).await;
        let thin = core.local().reservation(last.id).cloned().expect("it is there");
        assert!(thin.request.labels.is_empty(), "{thin:?}");
        assert_eq!(core.local().body(last.id).is_some(), overflow == Overflow::Compress, "{overflow:?}");
        assert_eq!(whole(&core, last.id).request, last.request);
        // The same key gives the same answer, aside or not.
        let again = granted(core.submit(keyed("job-39", 1, submit(numbered(39)))).await);
        assert!(again.was_shown_whole());
        let shown = core.whole(&core.local(), &again).expect("its body is there");
        assert_eq!(&shown, last);
        let past = core.past(before.revision).await.expect("kept");
        let then = past.reservation(last.id).expect("it was there");
        assert_eq!(core.whole(&past, then).map(|then| then.request.clone()), Ok(last.request.clone()));
        all_in_order(&core, holder, &waiting).await;
        let now = core.past(before.revision).await.expect("kept");
        let then = now.reservation(last.id).expect("it was there");
        assert_eq!(core.whole(&now, then).map(|then| then.request.clone()), Ok(last.request.clone()));
        let explained = core.explain(last.id).expect("it is there");
        assert!(explained.blockers.is_empty());
        core.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_aside_is_explained_with_numbers_and_a_new_one_waits_behind_it() {
    let core = single(&stores(), &TokioClock::new()).await;
    bulk(&core, Overflow::SpillToDisk).await;
    let (_, waiting) = crowd(&core, 12).await;
    rests(&core, 4).await;
    let explained = core.explain(waiting[10].id).expect("it is there");
    assert_eq!(
        explained.blockers[0].subject,
        "set aside (spilled): 8 of queue bulk wait in memory, and of those set aside 2 go before it"
    );
    assert!(!explained.admissible);
    register(&core, "node-02", 1_000, 0).await;
    let small = Request { queue: "bulk".into(), ..queued(request(500)) };
    let behind = reserve(&core, small).await;
    assert_eq!(behind.state, State::Pending, "there is room, and others are before it");
    assert_eq!(behind.blockers[0].subject, "4 of queue bulk go before it and are set aside");
    rests(&core, 5).await;
    core.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_ledger_has_what_those_asked_who_are_aside_and_a_directory_is_found_sound() {
    let place = tempfile::tempdir().expect("a directory");
    let (file, directory) = (place.path().join("ledger.plim"), place.path().join("data"));
    let start = async |data: Data, cluster: &str, bootstrap: bool| {
        let mut config = CoreConfig { bootstrap, ..CoreConfig::new(1, cluster, "127.0.0.1:1", data) };
        config.timings.suspect_after_ms = 3_600_000;
        let clock = Arc::new(SystemClock::new());
        let core = Core::start(config, Arc::new(PlainDialer), clock).await.expect("starts");
        serving(&core).await;
        core
    };
    let old = start(Data::Memory, "lab", true).await;
    bulk(&old, Overflow::SpillToDisk).await;
    let (holder, waiting) = crowd(&old, 20).await;
    rests(&old, 12).await;
    let dump = old.dump(Revision(0)).await.expect("read");
    assert_eq!(dump.bodies.len(), 12);
    let head = BackupHead::new("lab", 1, dump.revision.0, dump.log_time.0, &dump.chain);
    let rows = dump.rows.iter().chain(&dump.bodies);
    let rows = rows.map(|(key, row)| Ok((codec::encode_key(key), codec::encode_row(row))));
    save(&file, &head, rows).expect("saved");
    let short = place.path().join("short.plim");
    let rows = dump.rows.iter().map(|(key, row)| Ok((codec::encode_key(key), codec::encode_row(row))));
    save(&short, &head, rows).expect("saved");
    old.shutdown().await;
    let unsound = verify(&short).expect_err("bodies are missing").to_string();
    assert!(unsound.contains("which is set aside, has no row"), "{unsound}");
    let verified = verify(&file).expect("whole");
    assert_eq!(verified.digest, plimsoll_proto::digest::hex(&dump.digest().digest));
    let target = Target {
        directory: directory.clone(),
        cluster: "lab-2".to_owned(),
        node_id: 1,
        address: "127.0.0.1:1".to_owned(),
        skip_revisions: 1_000,
    };
    restore(&file, &target).expect("made");
    for _ in 0..2 {
        let diagnosis = examine(&directory, |_| ()).expect("looked at");
        assert_eq!((diagnosis.start, diagnosis.is_sound()), (Start::Normal, true), "{:#?}", diagnosis.checks);
        let new = start(Data::Directory(directory.clone()), "lab-2", false).await;
        assert_eq!(whole(&new, waiting[19].id).request, waiting[19].request);
        new.shutdown().await;
    }
    let new = start(Data::Directory(directory), "lab-2", false).await;
    all_in_order(&new, holder, &waiting).await;
    new.shutdown().await;
}
