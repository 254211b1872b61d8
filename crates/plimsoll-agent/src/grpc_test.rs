//! An agent against a gRPC server on a loopback port.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use plimsoll_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request as TonicRequest, Response as TonicResponse, Status, Streaming};

use super::*;
use crate::agent::{Agent, AgentConfig};
use crate::clock::BootClock;

/// Takes every node and grants it one lease.
struct Coordinator {
    registrations: mpsc::UnboundedSender<v1::NodeRegistration>,
    samples: mpsc::UnboundedSender<v1::NodeSample>,
}

fn say(sequence: u64, message: Response) -> Result<v1::ConnectResponse, Status> {
    Ok(v1::ConnectResponse { revision: 42, log_time_ms: 1, sequence, message: Some(message) })
}

fn node_lease() -> v1::NodeLease {
    let member = |member, device: Option<&str>| v1::Allocation {
        member,
        node: "n1".into(),
        amounts: Some(v1::Quantities { cpu_millis: 500, memory_bytes: 1024, ..v1::Quantities::default() }),
        devices: device
            .map(|uuid| v1::DeviceGrant {
                uuid: uuid.into(),
                milli: 400,
                memory_bytes: 10,
                ..Default::default()
            })
            .into_iter()
            .collect(),
        token: 0,
        role: String::new(),
    };
    let mut lease = v1::NodeLease {
        reservation: "r-7k2m".into(),
        token: 41,
        deadline_ms: 61_000,
        remaining_ms: 60_000,
        ttl_ms: 60_000,
        allocations: vec![member(0, Some("GPU-a")), member(1, Some("GPU-a")), member(2, None)],
        ..v1::NodeLease::default()
    };
    lease.set_state(v1::ReservationState::Active);
    lease
}

#[tonic::async_trait]
impl AgentService for Coordinator {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<v1::ConnectResponse, Status>> + Send>>;

    async fn connect(
        &self,
        requests: TonicRequest<Streaming<v1::ConnectRequest>>,
    ) -> Result<TonicResponse<Self::ConnectStream>, Status> {
        let (registrations, samples) = (self.registrations.clone(), self.samples.clone());
        let (answers, queue) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut requests = requests.into_inner();
            while let Ok(Some(request)) = requests.message().await {
                let answer = match request.message {
                    Some(Request::Register(list)) => {
                        let mut nodes = Vec::new();
                        for node in list.nodes {
                            let leases = vec![node_lease()];
                            let answer = v1::NodeRegistered {
                                node: node.name.clone(),
                                epoch: 40,
                                leases,
                                ..Default::default()
                            };
                            nodes.push(answer);
                            drop(registrations.send(node));
                        }
                        Response::Registered(v1::NodesRegistered { nodes, ..Default::default() })
                    }
                    Some(Request::Heartbeat(beats)) => {
                        for sample in beats.nodes.into_iter().filter_map(|beat| beat.sample) {
                            drop(samples.send(sample));
                        }
                        Response::HeartbeatSeen(v1::HeartbeatSeen::default())
                    }
                    _ => continue,
                };
                drop(answers.send(say(request.sequence, answer)).await);
            }
        });
        Ok(TonicResponse::new(Box::pin(ReceiverStream::new(queue))))
    }
}

#[tokio::test]
async fn an_agent_registers_reports_readings_and_learns_its_lease_over_grpc() {
    let (registrations, mut registered) = mpsc::unbounded_channel();
    let (samples, mut sampled) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = AgentServiceServer::new(Coordinator { registrations, samples });
    let server = tonic::transport::Server::builder().add_service(service);
    let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let mut config = AgentConfig::new("n1");
    config.incarnation = 7;
    config.fake_gpus = Some("a100:2".parse().unwrap());
    config.extra.set("license/foo", plimsoll_types::Amount(4));
    config.heartbeat_interval_ms = 20;
    config.local_listen = Some("127.0.0.1:0".parse().unwrap());
    let nowhere = tonic::transport::Endpoint::from_static("http://127.0.0.1:1");
    let right = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let dial = GrpcDial::round_robin(vec![nowhere, right]);
    let agent = Agent::prepare(config, Arc::new(dial), BootClock::shared()).await.unwrap();
    let (mut status, local) = (agent.status(), agent.local());
    assert!(agent.local_address().is_some());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(agent.run(shutdown.clone()));

    let within = Duration::from_secs(20);
    tokio::time::timeout(within, status.wait_for(|status| status.registered == 1)).await.unwrap().unwrap();
    let node = registered.recv().await.unwrap();
    assert_eq!((node.name.as_str(), node.incarnation, node.devices.len()), ("n1", 7, 2));
    assert!(node.self_fencing && node.capacity.as_ref().unwrap().cpu_millis > 0);
    assert_eq!(node.capacity.unwrap().other["license/foo"], 4);
    let sample = tokio::time::timeout(within, sampled.recv()).await.unwrap().unwrap();
    assert!(sample.memory_used_bytes.is_some_and(|bytes| bytes > 0));
    let answer = loop {
        let (_, answer) = local.check(41, Some("GPU-a"));
        if answer.valid {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let lease = answer.lease.unwrap();
    assert_eq!((lease.reservation.as_str(), lease.cpu_millis, lease.devices[0].milli), ("r-7k2m", 1500, 800));
    assert!(answer.remaining_ms.is_some_and(|remaining_ms| (50_000..=60_000).contains(&remaining_ms)));

    shutdown.cancel();
    running.await.unwrap().unwrap();
    serving.abort();
}

#[test]
fn what_a_lease_says_about_its_end() {
    let news = lease_news(node_lease());
    assert_eq!((news.remaining_ms, news.stopping), (Some(60_000), false));
    let mut over = v1::NodeLease { remaining_ms: 0, ..node_lease() };
    assert_eq!(lease_news(over.clone()).remaining_ms, Some(0), "past its end, not without one");
    over.deadline_ms = 0;
    assert_eq!(lease_news(over.clone()).remaining_ms, None);
    over.set_state(v1::ReservationState::Preempting);
    assert!(lease_news(over).stopping);
}

#[test]
fn messages_of_a_later_version_are_passed_over() {
    assert_eq!(response(v1::ConnectResponse::default()), None);
    let blocker = v1::Blocker { message: "no pool gold".into(), ..v1::Blocker::default() };
    let failure = v1::Failure {
        message: "node refused".into(),
        definite: true,
        blockers: vec![blocker],
        ..v1::Failure::default()
    };
    let refused =
        v1::NodeRegistered { node: "n1".into(), failure: Some(failure.clone()), ..Default::default() };
    let expected = RegisterFailure { message: "node refused; no pool gold".into(), definite: true };
    assert_eq!(register_answer(refused).result, Err(expected));
    let busy = v1::Failure { retry_after_ms: 100, ..failure };
    assert!(!register_failure(busy).definite, "a queue that is full is no word on the node");
}
