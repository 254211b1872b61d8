//! What the tests share: a coordinator in memory behind a loopback listener, and short ways to call it.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::reason::Details;
use plimsoll_proto::v1;
use plimsoll_proto::v1::agent_service_client::AgentServiceClient;
use plimsoll_proto::v1::cluster_service_client::ClusterServiceClient;
use plimsoll_proto::v1::node_service_client::NodeServiceClient;
use plimsoll_proto::v1::reservation_service_client::ReservationServiceClient;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::Coordinator;
use crate::clock::SystemClock;
use crate::config::TlsFiles;
use crate::core::{Core, CoreConfig, Data};
use crate::dialer::TcpDialer;
use crate::services::{ListenerLimits, Port};
use crate::tls::COORDINATOR_NAME;

/// A coordinator that serves.
pub(super) struct Served {
    pub(super) coordinator: Coordinator,
    pub(super) address: String,
    pub(super) channel: Channel,
}

/// How a coordinator of a test differs from others.
#[derive(Default)]
pub(super) struct Setup {
    pub(super) port: Port,
    pub(super) limits: ListenerLimits,
    /// Changes the configuration of the core.
    pub(super) core: Option<fn(&mut CoreConfig)>,
}

/// A single voter in memory, ready.
pub(super) async fn single() -> Served {
    single_as(Setup::default()).await
}

/// The same, set up otherwise.
pub(super) async fn single_as(setup: Setup) -> Served {
    let served = Served::start(1, true, setup).await;
    until("it serves", || served.coordinator.core().status().serving).await;
    served
}

/// Three voters in memory; the first leads.
pub(super) async fn three() -> Vec<Served> {
    three_as(ListenerLimits::default()).await
}

/// The same with other limits.
pub(super) async fn three_as(limits: ListenerLimits) -> Vec<Served> {
    let setup = || Setup { limits: limits.clone(), ..Setup::default() };
    let mut all = vec![single_as(setup()).await];
    for id in [2, 3] {
        let served = Served::start(id, false, setup()).await;
        let add = v1::AddMemberRequest { id, address: served.address.clone(), ..Default::default() };
        all[0].cluster().add_member(add).await.expect("added");
        all.push(served);
    }
    for served in &all {
        let core = served.coordinator.core();
        until("all are voters", || core.status().group.voters.len() == 3 && core.leader_address().is_some())
            .await;
    }
    all
}

pub(super) fn plain(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy()
}

impl Served {
    pub(super) async fn start(id: u64, bootstrap: bool, setup: Setup) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let mut config =
            CoreConfig { bootstrap, seed: id, ..CoreConfig::new(id, "test", address.as_str(), Data::Memory) };
        setup.core.into_iter().for_each(|change| change(&mut config));
        let dialer = Arc::new(TcpDialer::default());
        let clock = Arc::new(SystemClock::new());
        let core = Core::start(config, Arc::clone(&dialer) as _, clock).await.expect("starts");
        let coordinator = Coordinator::with_limits(core, dialer, setup.limits, false);
        coordinator.listen_at(TcpListenerStream::new(listener), Port { peers: true, ..setup.port });
        let channel = plain(&address);
        Served { coordinator, address, channel }
    }

    /// A number on the page of metrics, by its name with labels.
    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        let page = self.coordinator.telemetry().render();
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub(super) fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    pub(super) fn reservations(&self) -> ReservationServiceClient<Channel> {
        ReservationServiceClient::new(self.channel.clone())
    }

    pub(super) fn nodes(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    /// Serves HTTP too; the address.
    pub(super) async fn http(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        self.coordinator.listen_http(listener, None);
        address
    }

    /// An agent of one node with 4 cores, 8 GiB and two devices.
    pub(super) async fn agent(&self, name: &str) -> Agent {
        Agent::connect(self.channel.clone(), name).await
    }

    pub(super) async fn stop(self) {
        self.coordinator.shutdown().await;
    }
}

/// A channel with TLS; `files` are the caller's own certificate.
pub(super) fn tls_channel(address: &str, files: Option<&TlsFiles>, ca: &TlsFiles) -> Channel {
    let read = |path: &std::path::Path| std::fs::read(path).expect("there");
    let mut tls = ClientTlsConfig::new()
        .domain_name(COORDINATOR_NAME)
        .ca_certificate(Certificate::from_pem(read(&ca.ca)));
    if let Some(files) = files {
        tls = tls.identity(Identity::from_pem(read(&files.cert), read(&files.key)));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
    endpoint.tls_config(tls).expect("good").connect_lazy()
}

/// One stream of one node.
pub(super) struct Agent {
    pub(super) up: mpsc::Sender<v1::ConnectRequest>,
    pub(super) down: tonic::Streaming<v1::ConnectResponse>,
    pub(super) node: v1::NodeRegistered,
}

impl Agent {
    pub(super) async fn connect(channel: Channel, name: &str) -> Agent {
        let (up, requests) = mpsc::channel(16);
        let register = v1::RegisterNodes { nodes: vec![registration(name)] };
        let message = Some(v1::connect_request::Message::Register(register));
        up.send(v1::ConnectRequest { sequence: 1, message }).await.expect("open");
        let response =
            AgentServiceClient::new(channel).connect(ReceiverStream::new(requests)).await.expect("taken");
        let mut down = response.into_inner();
        let first = down.message().await.expect("open").expect("an answer");
        assert_eq!(first.sequence, 1);
        let Some(v1::connect_response::Message::Registered(mut registered)) = first.message else {
            panic!("not what was asked: {first:?}");
        };
        let node = registered.nodes.remove(0);
        assert_eq!((node.node.as_str(), &node.failure), (name, &None));
        Agent { up, down, node }
    }

    pub(super) async fn next(&mut self) -> v1::connect_response::Message {
        let response = within(self.down.message()).await.expect("open").expect("more");
        response.message.expect("something")
    }
}

pub(super) fn registration(name: &str) -> v1::NodeRegistration {
    let device = |index: u32| v1::RegisteredDevice {
        uuid: format!("GPU-{name}-{index}"),
        model: "a100".to_owned(),
        memory_bytes: 80 << 30,
        failed: false,
        mig: None,
    };
    v1::NodeRegistration {
        name: name.to_owned(),
        incarnation: 7,
        capacity: Some(v1::Quantities { cpu_millis: 4_000, memory_bytes: 8 << 30, ..Default::default() }),
        devices: vec![device(0), device(1)],
        self_fencing: true,
        ..Default::default()
    }
}

/// So much cpu, at once or not at all.
pub(super) fn cpu(cpu_millis: u64) -> v1::ReservationSpec {
    let amounts = v1::Quantities { cpu_millis, ..Default::default() };
    let requirements = Some(v1::Requirements { amounts: Some(amounts), ..Default::default() });
    v1::ReservationSpec { requirements, ..Default::default() }
}

/// A request for a spec, without a key.
pub(super) fn create(spec: v1::ReservationSpec) -> v1::CreateReservationRequest {
    v1::CreateReservationRequest { spec: Some(spec), ..Default::default() }
}

/// The reason in a refused call.
pub(super) fn details(status: &tonic::Status) -> Details {
    Details::from_status(status).unwrap_or_else(|| panic!("no reason of ours in {status:?}"))
}

/// Waits until a condition holds; fails after a while.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not in time");
}

/// Fails where it takes too long.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

/// One HTTP request by hand: status line and body.
pub(super) async fn get(address: &str, path: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.expect("read");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}
