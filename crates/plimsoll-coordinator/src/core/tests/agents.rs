//! Agents' sessions on one replica: registration, leases as they come and go, silence.

use std::time::Duration;

use plimsoll_ledger::{Command, Gang, NodeHealth, Outcome, Request, State};

use super::harness::*;
use crate::core::{AgentNotice, Core, HeartbeatError, SessionClosed};

fn health(core: &Core, name: &str) -> NodeHealth {
    core.local().node_by_name(name).expect("registered").health
}

#[tokio::test(start_paused = true)]
async fn an_agent_hears_of_the_leases_on_its_node() {
    let core = single(&stores(), &TokioClock::new()).await;
    register(&core, "node-01", 8_000, 0).await;
    let early = reserve(&core, request(1_000)).await;
    let session = core.agents().open("agent-01").expect("leads");
    let node =
        session.register(registration("node-01", 1, 8_000, 0)).await.expect("applied").expect("accepted");
    assert_eq!(session.next(10).await, Ok(vec![AgentNotice::Lease(node.id, early.clone())]));
    let late = reserve(&core, request(1_000)).await;
    assert_eq!(session.next(10).await, Ok(vec![AgentNotice::Lease(node.id, late)]));
    release(&core, &early).await;
    let ended = session.next(10).await.expect("open");
    assert!(
        matches!(&ended[..], [AgentNotice::LeaseEnded(at, id, Some(r))]
            if *at == node.id && *id == early.id && r.state == State::Released),
        "{ended:?}"
    );
    core.shutdown().await;
    assert_eq!(session.next(1).await, Err(SessionClosed::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_suspect_then_lost_and_its_place_stays_taken_until_it_is_back() {
    let core = single(&stores(), &TokioClock::new()).await;
    let session = core.agents().open("agent-01").expect("leads");
    let node =
        session.register(registration("node-01", 1, 4_000, 0)).await.expect("applied").expect("accepted");
    let lease = reserve(&core, request(4_000)).await;
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        session.heartbeat(node.id, node.epoch).expect("alive");
    }
    assert_eq!(health(&core, "node-01"), NodeHealth::Available);
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(health(&core, "node-01"), NodeHealth::Suspect);
    assert_eq!(state(&core, lease.id), State::Unknown);
    session.heartbeat(node.id, node.epoch).expect("may come back");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(health(&core, "node-01"), NodeHealth::Available);
    assert_eq!(state(&core, lease.id), State::Active);

    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(health(&core, "node-01"), NodeHealth::Lost);
    assert_eq!(state(&core, lease.id), State::Failed);
    assert_eq!(session.heartbeat(node.id, node.epoch), Err(HeartbeatError::Lost));
    assert_eq!(core.local().free(node.id).cpu_millis.0, 0, "the workload may still run");
    let waiting = reserve(&core, queued(request(4_000))).await;
    session.register(registration("node-01", 2, 4_000, 0)).await.expect("applied").expect("accepted");
    until("the node takes work again", || state(&core, waiting.id) == State::Active).await;
    assert!(core.local().check_invariants().is_empty());
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn silence_of_all_nodes_at_once_loses_none() {
    let core = single(&stores(), &TokioClock::new()).await;
    for index in 0..4 {
        register(&core, &format!("node-{index}"), 4_000, 0).await;
    }
    let lease = reserve(&core, request(4_000)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(health(&core, "node-0"), NodeHealth::Suspect);
    assert_eq!(state(&core, lease.id), State::Unknown);
    let session = core.agents().open("agent-3").expect("leads");
    let node =
        session.register(registration("node-3", 1, 4_000, 0)).await.expect("applied").expect("accepted");
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        session.heartbeat(node.id, node.epoch).expect("alive");
    }
    assert_eq!(health(&core, "node-0"), NodeHealth::Lost, "one that is heard shows that we hear");
    assert_eq!(health(&core, "node-3"), NodeHealth::Available);
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_session_of_a_node_has_it() {
    let core = single(&stores(), &TokioClock::new()).await;
    let old = core.agents().open("agent-01").expect("leads");
    let node = old.register(registration("node-01", 1, 4_000, 0)).await.expect("applied").expect("accepted");
    let new = core.agents().open("agent-01").expect("leads");
    let again = new.register(registration("node-01", 2, 4_000, 0)).await.expect("applied").expect("accepted");
    assert!(again.epoch > node.epoch);
    assert_eq!(old.heartbeat(node.id, node.epoch), Err(HeartbeatError::Fenced));
    assert_eq!(old.heartbeat(node.id, again.epoch), Err(HeartbeatError::Fenced));
    assert_eq!(new.heartbeat(node.id, again.epoch), Ok(()));
    drop(old);
    assert_eq!(core.agents().sessions(), 1);
    core.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_gang_that_loses_a_node_gets_another_before_those_who_wait_and_its_agent_hears_of_the_new_token() {
    let core = single(&stores(), &TokioClock::new()).await;
    for index in 1..=3 {
        register(&core, &format!("node-{index}"), 4_000, 0).await;
    }
    let pair = Gang { min_members: 2, max_members: 2, spread: true };
    let gang = Request { gang: pair, repair_within_ms: 600_000, ..request(4_000) };
    let gang = reserve(&core, Request { ttl_ms: 3_600_000, ..gang }).await;
    let other = reserve(&core, Request { ttl_ms: 3_600_000, ..request(4_000) }).await;
    let waiting = reserve(&core, queued(request(4_000))).await;
    let lost = gang.members[0].node;
    let epoch = core.local().node(lost).expect("registered").epoch;
    do_it(&core, Command::SetNodeHealth { node: lost, epoch, health: NodeHealth::Fenced }).await;
    assert_eq!(state(&core, gang.id), State::Partial);

    let name = core.local().node(other.members[0].node).expect("registered").name().to_owned();
    let session = core.agents().open("agent").expect("leads");
    let node = session.register(registration(&name, 1, 4_000, 0)).await.expect("applied").expect("accepted");
    session.next(10).await.expect("it is told of the lease there");
    release(&core, &other).await;
    until("the gang is whole", || state(&core, gang.id) == State::Active).await;
    assert_eq!(state(&core, waiting.id), State::Pending, "who waits comes after it");
    let whole = core.local().reservation(gang.id).expect("there").clone();
    assert_eq!(whole.token, gang.token);
    assert!(whole.token_on(node.id) > gang.token);
    let told = session.next(10).await.expect("open");
    assert!(told.contains(&AgentNotice::Lease(node.id, whole)), "{told:?}");
    let renew = Command::Renew { reservation: gang.id, token: gang.token, ttl_ms: 0 };
    assert!(matches!(do_it(&core, renew).await, Outcome::Reservation(_)), "its holder goes on as before");
    assert!(core.local().check_invariants().is_empty());
    core.shutdown().await;
}
