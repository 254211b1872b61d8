//! Contention, as the leader sees it: it opens, is resolved and ends by the leader's own looks, and an idle cluster is quiet.

use std::time::Duration;

use plimsoll_ledger::{
    Command, ContentionPolicy, Outcome, PolicyObject, Pool, Preemption, Resolve, Severity, State,
};
use plimsoll_types::Revision;

use super::harness::*;
use crate::core::{Core, CoreConfig};

async fn patient() -> Core {
    // No agent speaks here, and this is not about silent nodes.
    let patient = |config: &mut CoreConfig| config.timings.suspect_after_ms = 3_600_000;
    single_with(&stores(), &TokioClock::new(), patient).await
}

async fn put(core: &Core, pool: Pool) {
    let put = vec![PolicyObject::Pool(pool)];
    let command = Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) };
    assert_eq!(do_it(core, command).await, Outcome::Done);
}

/// Its lease outlasts the test.
fn long(mut request: plimsoll_ledger::Request) -> plimsoll_ledger::Request {
    request.ttl_ms = 24 * 3_600_000;
    request
}

#[tokio::test(start_paused = true)]
async fn it_opens_while_somebody_waits_and_ends_afterwards() {
    let core = patient().await;
    register(&core, "node-01", 4_000, 0).await;
    let first = reserve(&core, long(request(4_000))).await;
    let waiting = reserve(&core, long(queued(request(4_000)))).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(core.local().contentions().count(), 0, "nobody has waited long enough");
    until("it is open", || core.local().open_contention("default", "cpu").is_some()).await;
    let open = core.local().open_contention("default", "cpu").cloned().expect("just now");
    assert_eq!((open.severity, open.waiting, open.demand), (Severity::High, 1, 4_000));
    release(&core, &first).await;
    until("the second is placed", || state(&core, waiting.id) == State::Active).await;
    tokio::time::sleep(Duration::from_secs(65)).await;
    assert!(core.local().contentions().all(|one| !one.is_open()), "it has lasted a minute");
    let at_rest = revision(&core);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(revision(&core), at_rest, "nobody waits: nothing is written");
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_open_one_costs_an_entry_a_minute() {
    let core = patient().await;
    register(&core, "node-01", 4_000, 0).await;
    reserve(&core, long(request(4_000))).await;
    reserve(&core, long(queued(request(1_000)))).await;
    until("it is open", || core.local().open_contention("default", "cpu").is_some()).await;
    let before = revision(&core).0;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let written = revision(&core).0 - before;
    assert!((8..=10).contains(&written), "{written} entries in ten minutes");
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_leader_has_one_go_elsewhere_so_that_another_fits() {
    let core = patient().await;
    register(&core, "node-01", 4_000, 0).await;
    register(&core, "node-02", 4_000, 0).await;
    let resolve = [Resolve::Redistribute].into();
    let contention = Some(ContentionPolicy { resolve, ..ContentionPolicy::default() });
    let strategy = plimsoll_ledger::Strategy::WorstFit;
    put(&core, Pool { name: "default".to_owned(), contention, strategy, ..Pool::default() }).await;
    let batch = |cpu_millis: u64| {
        let mut asked = queued(request(cpu_millis));
        // The slack on its grace is a tenth of its lease.
        (asked.class, asked.ttl_ms) = ("batch".to_owned(), 400_000);
        asked
    };
    let halves = [reserve(&core, batch(2_000)).await, reserve(&core, batch(2_000)).await];
    let whole = reserve(&core, batch(4_000)).await;
    assert_eq!(state(&core, whole.id), State::Pending, "there is room for it, but not in one place");
    // Ten seconds until it is contended, half a minute of grace, and the slack.
    tokio::time::sleep(Duration::from_secs(70)).await;
    until("it has a node for itself", || state(&core, whole.id) == State::Active).await;
    until("nobody waits", || halves.iter().all(|half| state(&core, half.id) == State::Active)).await;
    let moved = |id| core.local().reservation(id).is_some_and(|one| one.preempted().is_some());
    assert_eq!(halves.iter().filter(|half| moved(half.id)).count(), 1, "one goes, and once");
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_leader_preempts_once_that_resolves_it() {
    let core = patient().await;
    register(&core, "node-01", 4_000, 0).await;
    let contention =
        ContentionPolicy { resolve: [Resolve::Preempt].into(), after_ms: 60_000, from: Severity::Low };
    put(&core, Pool { name: "default".to_owned(), contention: Some(contention), ..Pool::default() }).await;
    let mut low = queued(request(4_000));
    // The slack on its grace is a tenth of its lease.
    (low.class, low.ttl_ms) = ("batch".to_owned(), 400_000);
    let low = reserve(&core, low).await;
    let mut high = long(queued(request(4_000)));
    high.class = "high".to_owned();
    let high = reserve(&core, high).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((state(&core, low.id), state(&core, high.id)), (State::Active, State::Pending));
    tokio::time::sleep(Duration::from_secs(60)).await;
    until("the higher class has it", || state(&core, high.id) == State::Active).await;
    let ledger = core.local();
    let noted =
        ledger.contentions().flat_map(|one| &one.resolutions).any(|done| done.subject == low.id.to_string());
    assert!(noted, "who had to leave is noted");
    assert_eq!(ledger.pool("default").expect("it is there").preemption, Preemption::Any);
    drop(ledger);
    core.shutdown().await;
}
