//! A server of discovery and load reports on a port of its own, and clients of both that send what the test wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_xds::pb::envoy::config::core::v3::Node;
use plimsoll_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use plimsoll_xds::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use plimsoll_xds::pb::google::rpc;
use plimsoll_xds::{
    AdsServer, Catalog, Endpoint, Kind, Limits, LoadReport, LrsServer, Policy, Service, USUAL_INTERVAL,
};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// No answer takes as long here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// In this time an answer would be here, if there were one.
pub(crate) const QUIET: Duration = Duration::from_millis(200);

pub(crate) struct Bench {
    pub(crate) address: SocketAddr,
    pub(crate) catalogs: watch::Sender<Arc<Catalog>>,
    pub(crate) ads: AdsServer,
    pub(crate) lrs: LrsServer,
    pub(crate) reports: mpsc::Receiver<LoadReport>,
}

impl Bench {
    pub(crate) async fn start(limits: Limits) -> Bench {
        let (catalogs, receiver) = watch::channel(Arc::new(Catalog::empty()));
        let (sender, reports) = mpsc::channel(16);
        let ads = AdsServer::new(receiver.clone(), limits.clone());
        let lrs = LrsServer::new(receiver, sender, USUAL_INTERVAL, limits);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let router = tonic::transport::Server::builder()
            .add_service(ads.clone().into_service())
            .add_service(lrs.clone().into_service());
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Bench { address, catalogs, ads, lrs, reports }
    }

    pub(crate) fn publish(&self, revision: u64, services: &[(&str, &[u16])]) {
        self.catalogs.send_replace(Arc::new(catalog(revision, services)));
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).expect("an address");
        // A window as small as the protocol's default, so that a client that does not read is noticed.
        let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        endpoint.connect().await.expect("connected")
    }

    pub(crate) async fn client(&self) -> Client {
        Client::over(self.channel().await, "test").await.expect("a stream")
    }
}

/// Services of serving endpoints on the loopback.
pub(crate) fn catalog(revision: u64, services: &[(&str, &[u16])]) -> Catalog {
    let services = services.iter().map(|(name, ports)| {
        let endpoints = ports.iter().map(|port| Endpoint::serving(([127, 0, 0, 1], *port).into())).collect();
        (
            (*name).to_owned(),
            Arc::new(Service { endpoints, policy: Policy::LeastLoaded, ..Service::default() }),
        )
    });
    Catalog::new(revision, services).expect("a catalog")
}

/// One stream of discovery.
pub(crate) struct Client {
    requests: mpsc::Sender<DiscoveryRequest>,
    answers: Streaming<DiscoveryResponse>,
    user_agent: String,
    first: bool,
}

impl Client {
    pub(crate) async fn over(channel: Channel, user_agent: &str) -> Result<Client, Status> {
        let (requests, sent) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let answers = client.stream_aggregated_resources(ReceiverStream::new(sent)).await?.into_inner();
        Ok(Client { requests, answers, user_agent: user_agent.to_owned(), first: true })
    }

    pub(crate) async fn send(&mut self, mut request: DiscoveryRequest) {
        if std::mem::take(&mut self.first) {
            request.node = Some(Node {
                id: "node-1".to_owned(),
                user_agent_name: self.user_agent.clone(),
                user_agent_version: Some("1.2".to_owned()),
                ..Node::default()
            });
        }
        self.requests.send(request).await.expect("the stream is open");
    }

    pub(crate) async fn ask(&mut self, kind: Kind, names: &[&str]) {
        self.send(request(kind, names)).await;
    }

    pub(crate) async fn ack(&mut self, kind: Kind, names: &[&str], answer: &DiscoveryResponse) {
        let (version_info, response_nonce) = (answer.version_info.clone(), answer.nonce.clone());
        self.send(DiscoveryRequest { version_info, response_nonce, ..request(kind, names) }).await;
    }

    pub(crate) async fn nack(
        &mut self,
        kind: Kind,
        names: &[&str],
        answer: &DiscoveryResponse,
        reason: &str,
    ) {
        let error_detail = Some(rpc::Status { code: 3, message: reason.to_owned() });
        self.send(DiscoveryRequest {
            response_nonce: answer.nonce.clone(),
            error_detail,
            ..request(kind, names)
        })
        .await;
    }

    /// The next answer.
    pub(crate) async fn next(&mut self) -> DiscoveryResponse {
        self.ended_or_next().await.expect("not ended").expect("an answer")
    }

    pub(crate) async fn ended_or_next(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        timeout(PATIENCE, self.answers.message()).await.expect("in time")
    }

    /// Nothing comes.
    pub(crate) async fn quiet(&mut self) {
        let came = timeout(QUIET, self.answers.message()).await;
        assert!(came.is_err(), "{came:?}");
    }
}

pub(crate) fn request(kind: Kind, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: kind.type_url().to_owned(),
        ..DiscoveryRequest::default()
    }
}

/// Waits for what must come to be.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
