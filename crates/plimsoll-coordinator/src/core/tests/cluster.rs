//! Three replicas in one process over loopback: failover, replay, watch resume, equal digests.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_consensus::NodeInfo;
use plimsoll_ledger::{Command, Outcome, Overflow, State};
use plimsoll_types::Revision;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;

use super::harness::*;
use crate::core::{Consistency, Core, CoreConfig, Data, Stores, SubmitError};

struct Member {
    id: u64,
    address: String,
    stores: Stores,
    core: Core,
    server: JoinHandle<()>,
}

impl Member {
    async fn start(id: u64, clock: &Arc<TokioClock>, bootstrap: bool) -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        Member::start_on(id, clock, bootstrap, listener, address, stores()).await
    }

    async fn start_on(
        id: u64,
        clock: &Arc<TokioClock>,
        bootstrap: bool,
        listener: TcpListener,
        address: String,
        stores: Stores,
    ) -> Member {
        let config = CoreConfig {
            bootstrap,
            seed: id,
            snapshot_every: 10,
            keep_logs: 5,
            ..CoreConfig::new(id, "test", address.as_str(), Data::Custom(stores.clone()))
        };
        let core = Core::start(config, Arc::new(PlainDialer), Arc::clone(clock) as _).await.expect("starts");
        let rpc = core.group().rpc();
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let served =
                tonic::transport::Server::builder().add_service(rpc).serve_with_incoming(incoming).await;
            served.expect("serves");
        });
        Member { id, address, stores, core, server }
    }

    /// Stops without handing anything over: the others find out by themselves.
    async fn kill(&self) {
        self.server.abort();
        self.core.group().shutdown().await;
    }

    async fn restart(self, clock: &Arc<TokioClock>) -> Member {
        self.core.shutdown().await;
        let listener = TcpListener::bind(&self.address).await.expect("its port");
        Member::start_on(self.id, clock, false, listener, self.address, self.stores).await
    }
}

async fn cluster(clock: &Arc<TokioClock>) -> Vec<Member> {
    let mut members = vec![Member::start(1, clock, true).await];
    serving(&members[0].core).await;
    for id in 2..=3 {
        let member = Member::start(id, clock, false).await;
        let info = NodeInfo { address: member.address.clone(), incarnation: String::new() };
        members[0].core.group().add_voter(id, info).await.expect("added");
        members.push(member);
    }
    members
}

async fn leader_of(members: &[Member]) -> usize {
    let mut found = None;
    until("somebody leads", || {
        found = members.iter().position(|member| member.core.status().serving);
        found.is_some()
    })
    .await;
    found.expect("just found")
}

async fn equal_digests(members: &[&Member]) {
    let newest = members.iter().map(|member| revision(&member.core)).max().expect("members");
    let mut digests = Vec::new();
    for member in members {
        digests.push(member.core.state_digest(newest).await.expect("digest"));
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}

#[tokio::test]
async fn a_member_that_installed_a_snapshot_takes_the_lead_and_brings_back_who_is_aside() {
    for overflow in [Overflow::SpillToDisk, Overflow::Compress] {
        let clock = TokioClock::new();
        let mut members = vec![Member::start(1, &clock, true).await];
        serving(&members[0].core).await;
        super::overflow::bulk(&members[0].core, overflow).await;
        let (holder, waiting) = super::overflow::crowd(&members[0].core, 20).await;
        super::overflow::rests(&members[0].core, 12).await;
        // The log that led here is gone: those who come later get the state.
        for id in 2..=3 {
            let member = Member::start(id, &clock, false).await;
            let info = NodeInfo { address: member.address.clone(), incarnation: String::new() };
            members[0].core.group().add_voter(id, info).await.expect("added");
            members.push(member);
        }
        let (first, others) = members.split_first().expect("three");
        for other in others {
            until("it has the state", || other.core.local().aside_in("bulk").count() == 12).await;
            assert!(other.core.first_revision() > Revision(1), "it came by a snapshot");
        }
        first.kill().await;
        let next = leader_of(others).await;
        super::overflow::all_in_order(&others[next].core, holder, &waiting).await;
        for member in others {
            member.core.shutdown().await;
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_leader_dies() {
    let clock = TokioClock::new();
    let mut members = cluster(&clock).await;
    let first = leader_of(&members).await;
    let core = members[first].core.clone();
    register(&core, "node-01", 1_000_000, 0).await;
    let mut leases = Vec::new();
    for _ in 0..20 {
        let answers = core.submit_many((0..10).map(|_| entry(submit(request(1_000)))).collect()).await;
        leases.extend(answers.into_iter().map(granted));
    }
    let keyed_answer =
        core.submit(keyed("key-0123456789ab", 1, submit(request(1_000)))).await.expect("applied");
    let mut watcher = members[(first + 1) % 3].core.watch(Revision(1)).expect("kept");
    watcher.next(50).await.expect("kept");
    let resume_at = watcher.position();

    members[first].kill().await;
    let dead = members.remove(first);
    let second = leader_of(&members).await;
    let core = members[second].core.clone();
    let again = core.submit(keyed("key-0123456789ab", 1, submit(request(1_000)))).await.expect("applied");
    assert_eq!(again, keyed_answer);
    for lease in &leases {
        assert_eq!(state(&core, lease.id), State::Active);
    }
    let released = release(&core, &leases[0]).await;
    assert!(matches!(released, Outcome::Reservation(_)), "{released:?}");

    let other = &members[1 - second].core;
    assert!(matches!(
        other.submit(entry(submit(request(1)))).await,
        Err(SubmitError::NotLeader { leader: Some(_) })
    ));
    {
        let view = other.read(Consistency::Linearizable, Revision(0)).await.expect("a follower reads");
        assert_eq!(view.reservation(leases[0].id).map(|lease| lease.state), Some(State::Released));
    }
    let mut watcher = other.watch(resume_at).expect("kept");
    let mut next = resume_at.0;
    while next <= revision(&core).0 {
        for record in watcher.next(16).await.expect("kept") {
            assert_eq!(record.revision.0, next, "gapless");
            next += 1;
        }
    }
    equal_digests(&members.iter().collect::<Vec<_>>()).await;

    let back = dead.restart(&clock).await;
    let newest = revision(&core);
    until("the old leader catches up", || revision(&back.core) >= newest).await;
    equal_digests(&[&back, &members[0], &members[1]]).await;
    for member in members.iter().chain([&back]) {
        member.core.shutdown().await;
        member.server.abort();
    }
}

#[tokio::test]
async fn a_leader_that_shuts_down_hands_over_first() {
    let clock = TokioClock::new();
    let members = cluster(&clock).await;
    let first = leader_of(&members).await;
    register(&members[first].core, "node-01", 10_000, 0).await;
    let lease = reserve(&members[first].core, request(1_000)).await;
    let begun = tokio::time::Instant::now();
    members[first].core.shutdown().await;
    members[first].server.abort();
    let rest: Vec<Member> =
        members.into_iter().enumerate().filter(|(at, _)| *at != first).map(|(_, m)| m).collect();
    let second = leader_of(&rest).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(state(&rest[second].core, lease.id), State::Active);
    let renewed =
        do_it(&rest[second].core, Command::Renew { reservation: lease.id, token: lease.token, ttl_ms: 0 })
            .await;
    assert!(matches!(renewed, Outcome::Reservation(_)));
    for member in &rest {
        member.core.shutdown().await;
        member.server.abort();
    }
}
