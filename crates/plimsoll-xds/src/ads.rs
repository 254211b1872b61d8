//! The aggregated discovery service: what clients subscribed to, sent when it changes.
//!
//! One task serves one stream. It makes an answer only when the client has taken the one before, from the newest catalog: a slow client misses catalogs, and never
//! has a queue of old ones.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use crate::catalog::Catalog;
use crate::limits::{Bound, Limits};
use crate::pb::envoy::config::core::v3::Node;
use crate::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use crate::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use crate::resources::{Flavour, Kind};
use crate::snapshot::Snapshots;
use crate::streams::{Open, Peer, Streams};
use crate::subscription::{Meaning, Subscription, SubscriptionStatus};

/// Tells clients of the newest catalog. Clones are the same server.
#[derive(Clone)]
pub struct AdsServer {
    catalogs: watch::Receiver<Arc<Catalog>>,
    snapshots: Arc<Snapshots>,
    limits: Arc<Limits>,
    streams: Streams<StreamStatus>,
}

/// What is connected, and what it said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdsStatus {
    /// Streams opened since the start.
    pub opened: u64,
    /// Streams refused for a bound.
    pub refused: u64,
    /// Those that are open.
    pub streams: Vec<StreamStatus>,
}

/// One client's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamStatus {
    /// As the client calls itself.
    pub node_id: String,
    /// Its program.
    pub user_agent: String,
    /// What it subscribed to, in the order of [`Kind::ALL`].
    pub subscriptions: Vec<(Kind, SubscriptionStatus)>,
}

impl AdsStatus {
    /// Answers rejected on the open streams, and the reason of one of these.
    pub fn nacks(&self) -> (u64, Option<&str>) {
        let all = || self.streams.iter().flat_map(|stream| &stream.subscriptions);
        let reason = all().find_map(|(_, subscription)| subscription.last_nack.as_deref());
        (all().map(|(_, subscription)| subscription.nacks).sum(), reason)
    }
}

impl AdsServer {
    /// A server of what `catalogs` has, now and later. It ends its streams when the sender is gone.
    pub fn new(catalogs: watch::Receiver<Arc<Catalog>>, limits: Limits) -> AdsServer {
        AdsServer { catalogs, snapshots: Arc::default(), limits: Arc::new(limits), streams: Streams::new() }
    }

    /// The gRPC service.
    pub fn into_service(self) -> AggregatedDiscoveryServiceServer<AdsServer> {
        let request_bytes = self.limits.request_bytes;
        AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(request_bytes)
    }

    /// What is connected now.
    pub fn status(&self) -> AdsStatus {
        let (opened, refused, streams) = self.streams.look(StreamStatus::clone);
        AdsStatus { opened, refused, streams }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for AdsServer {
    type StreamAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let open = self.streams.open(Peer::of(&request), &self.limits)?;
        // One answer waits for the transport, and none behind it.
        let (answers, taken) = mpsc::channel(1);
        let task = Task {
            catalogs: self.catalogs.clone(),
            snapshots: Arc::clone(&self.snapshots),
            limits: Arc::clone(&self.limits),
            open,
            flavour: Flavour::Grpc,
            subscriptions: Kind::ALL.map(|_| None),
            looked_for: [false; Kind::ALL.len()],
            nonces: 0,
        };
        tokio::spawn(task.run(request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(taken))))
    }
}

/// One stream.
struct Task {
    catalogs: watch::Receiver<Arc<Catalog>>,
    snapshots: Arc<Snapshots>,
    limits: Arc<Limits>,
    open: Open<StreamStatus>,
    flavour: Flavour,
    /// By the order of [`Kind::ALL`].
    subscriptions: [Option<Subscription>; Kind::ALL.len()],
    /// Kinds in which there may be something to send.
    looked_for: [bool; Kind::ALL.len()],
    nonces: u64,
}

impl Task {
    /// Serves the stream until one side ends it.
    async fn run(
        mut self,
        mut requests: Streaming<DiscoveryRequest>,
        answers: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    ) {
        let ended = match self.first(&mut requests).await {
            Ok(true) => self.serve(&mut requests, &answers).await,
            Ok(false) => Ok(()),
            Err(status) => Err(status),
        };
        if let Err(status) = ended {
            debug!(code = ?status.code(), message = status.message(), "a discovery stream ends");
            // Where nobody reads it is not worth waiting: the bounds of the connection end that.
            let _ = answers.try_send(Err(status));
        }
    }

    /// The first request, which says who asks. False where there is none.
    async fn first(&mut self, requests: &mut Streaming<DiscoveryRequest>) -> Result<bool, Status> {
        let within = self.limits.first_request_within;
        let silence = |_| Status::from(Bound::Silence { seconds: within.as_secs() });
        let Some(request) = timeout(within, requests.message()).await.map_err(silence)?? else {
            return Ok(false);
        };
        let node = request.node.clone().unwrap_or_default();
        self.flavour = Flavour::of(&node.user_agent_name);
        self.open.note(|status| {
            status.user_agent = user_agent(&node);
            status.node_id = node.id;
        });
        self.request(request)?;
        Ok(true)
    }

    async fn serve(
        &mut self,
        requests: &mut Streaming<DiscoveryRequest>,
        answers: &mpsc::Sender<Result<DiscoveryResponse, Status>>,
    ) -> Result<(), Status> {
        loop {
            let something = self.looked_for.contains(&true);
            tokio::select! {
                biased;
                request = requests.message() => match request? {
                    Some(request) => self.request(request)?,
                    None => return Ok(()),
                },
                changed = self.catalogs.changed() => {
                    changed.map_err(|_| Status::unavailable("this coordinator stops; ask another one"))?;
                    self.looked_for = [true; Kind::ALL.len()];
                }
                room = answers.reserve(), if something => {
                    let Ok(room) = room else { return Ok(()) };
                    if let Some(answer) = self.answer()? {
                        room.send(Ok(answer));
                    }
                }
            }
        }
    }

    fn request(&mut self, request: DiscoveryRequest) -> Result<(), Status> {
        let Some(kind) = Kind::of(&request.type_url) else {
            // A stream carries many kinds, and one that is unknown here must not end the others: the client is never answered, which means that there is none.
            debug!(type_url = request.type_url, "resources of this type are not served");
            return Ok(());
        };
        let first = self.subscriptions[kind as usize].is_none();
        let subscription = self.subscriptions[kind as usize].get_or_insert_with(|| Subscription::new(kind));
        let meaning = subscription.request(request, first, &self.limits)?;
        if meaning == Meaning::Nack {
            let reason = subscription.status().last_nack.unwrap_or_default();
            warn!(?kind, reason, "a client rejects what it was sent");
        }
        self.looked_for[kind as usize] = true;
        self.note();
        Ok(())
    }

    /// The next answer, from the newest catalog.
    fn answer(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        // Taken out at once: who publishes the next catalog must not wait for this one to be made up.
        let catalog = Arc::clone(&self.catalogs.borrow_and_update());
        let snapshot = self.snapshots.of(self.flavour, &catalog);
        for kind in Kind::ALL {
            if !std::mem::take(&mut self.looked_for[kind as usize]) {
                continue;
            }
            let Some(subscription) = &mut self.subscriptions[kind as usize] else { continue };
            let nonces = &mut self.nonces;
            let nonce = || {
                *nonces += 1;
                nonces.to_string()
            };
            let Some(answer) = subscription.answer(&snapshot, nonce, &self.limits)? else { continue };
            // There may be another part.
            self.looked_for[kind as usize] = true;
            if self.flavour == Flavour::Envoy && kind == Kind::Cluster {
                self.changed_clusters(&answer.changed);
            }
            self.note();
            return Ok(Some(answer.response));
        }
        Ok(None)
    }

    /// Envoy sets a cluster that changed up anew, and waits for its endpoints to be sent again.
    fn changed_clusters(&mut self, names: &[Arc<str>]) {
        if let Some(endpoints) = &mut self.subscriptions[Kind::Endpoints as usize] {
            endpoints.forget(names);
            self.looked_for[Kind::Endpoints as usize] = true;
        }
    }

    fn note(&self) {
        let subscriptions = Kind::ALL.into_iter().zip(&self.subscriptions);
        let subscriptions =
            subscriptions.filter_map(|(kind, one)| Some((kind, one.as_ref()?.status()))).collect();
        self.open.note(|status| status.subscriptions = subscriptions);
    }
}

/// The client's program, with its version where it says that.
fn user_agent(node: &Node) -> String {
    match &node.user_agent_version {
        Some(version) => format!("{} {version}", node.user_agent_name),
        None => node.user_agent_name.clone(),
    }
}
