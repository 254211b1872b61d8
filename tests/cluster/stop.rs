//! A coordinator that is asked to stop does so soon, whatever streams clients, agents and other coordinators have open with it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plimsoll_client::v1;
use plimsoll_client::v1::reservation_service_client::ReservationServiceClient;
use plimsoll_client::v1::stream_reservations_request::Request as Change;
use plimsoll_client::v1::watch_service_client::WatchServiceClient;
use plimsoll_tests::Cluster;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::failover::one_core;
use crate::fleet;

/// Past five seconds a stop cuts what is still open; nothing here may be.
const SOON: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

/// Streams of one kind each, opened through one coordinator and left open.
struct Open {
    watch: Streaming<v1::WatchResponse>,
    wait: Streaming<v1::WaitReservationResponse>,
    answers: Streaming<v1::StreamReservationsResponse>,
    requests: mpsc::Sender<v1::StreamReservationsRequest>,
}

impl Open {
    async fn with(channel: Channel, pending: &str) -> Open {
        let request = v1::WatchRequest { include_initial: true, ..Default::default() };
        let watch = WatchServiceClient::new(channel.clone()).watch(request).await.expect("watched");
        let mut service = ReservationServiceClient::new(channel);
        let request = v1::WaitReservationRequest { name: pending.to_owned(), ..Default::default() };
        let wait = service.wait_reservation(request).await.expect("waited for");
        let (requests, queue) = mpsc::channel(8);
        let request = Some(Change::Create(one_core("streamed".to_owned())));
        requests.send(v1::StreamReservationsRequest { sequence: 1, request }).await.expect("open");
        let answers = service.stream_reservations(ReceiverStream::new(queue)).await.expect("open");
        let mut open = Open {
            watch: watch.into_inner(),
            wait: wait.into_inner(),
            answers: answers.into_inner(),
            requests,
        };
        let answer = open.answers.message().await.expect("answered").expect("open");
        assert_eq!(answer.sequence, 1);
        open
    }

    /// Reads all to their ends; how each ended.
    async fn ends(mut self) -> Vec<(&'static str, Option<Status>)> {
        let watch = async {
            while let Some(_event) = self.watch.message().await? {}
            Ok::<_, Status>(())
        };
        let wait = async {
            while let Some(_rank) = self.wait.message().await? {}
            Ok::<_, Status>(())
        };
        let answers = async {
            while let Some(_answer) = self.answers.message().await? {}
            Ok::<_, Status>(())
        };
        let (watch, wait, answers) = tokio::join!(watch, wait, answers);
        drop(self.requests);
        vec![("watch", watch.err()), ("wait", wait.err()), ("stream", answers.err())]
    }
}

/// Asks it to stop; how long that took.
async fn stop(cluster: &mut Cluster, id: u64) -> Duration {
    let asked = Instant::now();
    cluster.member(id).signal(Signal::SIGTERM);
    loop {
        if let Some(exit) = cluster.member_mut(id).wait_exit(Duration::ZERO) {
            assert_eq!(exit.code(), Some(0), "{}", cluster.member(id).log());
            return asked.elapsed();
        }
        assert!(asked.elapsed() < PATIENCE, "c{id} does not stop: {}", cluster.member(id).log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_do_not_hold_a_coordinator_that_stops() {
    let mut cluster = Cluster::start(3).await;
    let _nodes = fleet::register(&cluster.addresses(), fleet::small(12)).await;
    let client = cluster.client().await;
    // It waits for more cores than there are.
    let mut never = one_core("never".to_owned());
    if let Some(spec) = &mut never.spec {
        spec.requirements = Some(v1::Requirements {
            amounts: Some(v1::Quantities { cpu_millis: 7_990, ..Default::default() }),
            ..Default::default()
        });
        spec.gang = Some(v1::Gang { min_members: 12, max_members: 12, spread: true });
        spec.wait = Some(v1::WaitPolicy { queue: true, deadline_ms: 0 });
    }
    client.create_reservation(one_core("taken".to_owned())).await.expect("granted");
    let pending = client.create_reservation(never).await.expect("queued").reservation.expect("shown");
    assert_eq!(pending.state(), v1::ReservationState::Pending);
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).expect("three");
    for (what, id) in [("follower", follower), ("leader", leader)] {
        let mut streams = JoinSet::new();
        for member in &cluster.members {
            let channel = cluster.access().channel(&member.address);
            let (of, pending) = (member.id, pending.id.clone());
            let open = Open::with(channel, &pending).await;
            streams.spawn(async move { (of, open.ends().await) });
        }
        // Connections without calls, in plain TCP and in HTTP/2, do not hold it either.
        let silent = tokio::net::TcpStream::connect(&cluster.member(id).address).await.expect("connects");
        let took = stop(&mut cluster, id).await;
        assert!(took < SOON, "the {what} took {took:?} to stop:\n{}", cluster.member(id).log());
        drop(silent);
        // Whoever had a stream there was told, and not with a success.
        let told = async {
            while let Some(ended) = streams.join_next().await {
                let (of, ends) = ended.expect("no panic");
                if of == id {
                    return ends;
                }
            }
            panic!("nobody had a stream with it");
        };
        for (stream, status) in tokio::time::timeout(SOON, told).await.expect("they ended") {
            let status = status.unwrap_or_else(|| panic!("{stream} ended as if all were well"));
            assert!(
                matches!(status.code(), Code::Unavailable | Code::FailedPrecondition),
                "{stream}: {status}"
            );
        }
        cluster.restart(id).await;
    }
    cluster.assert_digests_equal().await;
}
