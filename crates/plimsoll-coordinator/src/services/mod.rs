//! The gRPC API of a coordinator, and the edge in front of it.
//!
//! [`Services`] is made once; [`Services::serve`] puts it behind each listener. Any coordinator accepts any call: the
//! edge passes on to the leader what only the leader can answer, byte for byte.

mod agent;
mod api;
mod audit;
mod cluster;
mod connections;
mod contention;
mod defragment;
mod discovery;
mod edge;
mod endpoints;
mod explain;
mod health;
mod intent;
mod limits;
mod names;
mod node;
mod on_demand;
mod page;
mod plan;
mod policy;
mod problem;
mod rate_limit;
mod reservation;
mod scaling;
mod show;
mod slices;
mod standing;
mod start;
mod tokens;
mod validators;
mod watch;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;

use futures_util::Stream;
use plimsoll_consensus::Dialer;
use plimsoll_proto::v1::agent_service_server::AgentServiceServer;
use plimsoll_proto::v1::audit_service_server::AuditServiceServer;
use plimsoll_proto::v1::cluster_service_server::ClusterServiceServer;
use plimsoll_proto::v1::contention_service_server::ContentionServiceServer;
use plimsoll_proto::v1::endpoint_service_server::EndpointServiceServer;
use plimsoll_proto::v1::node_service_server::NodeServiceServer;
use plimsoll_proto::v1::plan_service_server::PlanServiceServer;
use plimsoll_proto::v1::policy_service_server::PolicyServiceServer;
use plimsoll_proto::v1::reservation_service_server::ReservationServiceServer;
use plimsoll_proto::v1::scaling_service_server::ScalingServiceServer;
use plimsoll_proto::v1::watch_service_server::WatchServiceServer;
use plimsoll_xds::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::server::Connected;

use crate::core::Core;
use crate::scaling::Rightsizing;
use crate::telemetry::Telemetry;
use api::Api;
use connections::{Grpc, Pages};
use edge::{EdgeLayer, Heads, Rates};

pub(crate) use connections::{Guarded, Language, Listener, Talk};
pub(crate) use health::serves;
pub use limits::ListenerLimits;

/// Answers of a server stream.
type AnswerStream<T> = ReceiverStream<Result<T, Status>>;

/// All services of one coordinator. Clones share them.
#[derive(Clone)]
pub struct Services {
    core: Core,
    dialer: Arc<dyn Dialer>,
    telemetry: Telemetry,
    routes: Routes,
    health: health::Health,
    standing: standing::Standing,
    discovery: discovery::Discovery,
    /// One for all listeners.
    rates: Arc<Rates>,
    heads: Heads,
    /// One for all listeners.
    pages: Arc<Pages>,
    limits: Arc<ListenerLimits>,
    simulation: bool,
}

/// True where a method's answer is a page, which may be large.
fn lists(path: &str) -> bool {
    edge::lists(path)
}

/// True where a method's answer is a stream, or no method is known by that path.
fn streams(path: &str) -> bool {
    edge::streams(path)
}

/// What a gRPC listener is for.
#[derive(Clone, Debug, Default)]
pub struct Port {
    /// Callers must show certificates of the cluster's authority; `None` on loopback listeners only.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Other coordinators call here too.
    pub peers: bool,
    /// Tells callers what the API is.
    pub reflection: bool,
}

impl Services {
    /// The services of a core. With `simulation`, answers carry a fixed `date` header and nothing of this machine is
    /// looked at, so that runs are reproducible.
    pub fn new(
        core: Core,
        dialer: Arc<dyn Dialer>,
        telemetry: Telemetry,
        limits: ListenerLimits,
        simulation: bool,
    ) -> Services {
        let api = Api::new(core.clone(), telemetry.clone());
        let heads = Heads::new(core.clone(), api.shown());
        let (health, health_server) = health::Health::new();
        let standing = standing::Standing::new();
        let discovery = discovery::Discovery::new();
        let routes = Routes::new(health_server)
            .add_service(
                ReservationServiceServer::new(reservation::Reservations::new(api.clone()))
                    .max_decoding_message_size(limits::MOST_REQUEST),
            )
            .add_service(
                NodeServiceServer::new(node::Nodes::new(api.clone()))
                    .max_decoding_message_size(limits::MOST_REQUEST),
            )
            .add_service(
                PolicyServiceServer::new(policy::Policies::new(api.clone()))
                    .max_decoding_message_size(limits::MOST_REQUEST),
            )
            .add_service(
                PlanServiceServer::new(plan::Plans::new(api.clone()))
                    .max_decoding_message_size(limits::MOST_REQUEST),
            )
            .add_service(
                EndpointServiceServer::new(endpoints::Endpoints::new(api.clone(), Arc::clone(&dialer)))
                    .max_decoding_message_size(limits::MOST_REQUEST),
            )
            .add_service(
                ScalingServiceServer::new(scaling::Scalings::new(api.clone()))
                    .max_decoding_message_size(limits::MOST_REQUEST),
            )
            .add_service(
                ContentionServiceServer::new(contention::Contentions::new(api.clone()))
                    .max_decoding_message_size(limits::MOST_REQUEST),
            )
            .add_service(discovery.ads.clone().into_service())
            .add_service(discovery.lrs.clone().into_service())
            .add_service(
                RateLimitServiceServer::new(rate_limit::RateLimits::new(
                    api.clone(),
                    telemetry.rates().clone(),
                ))
                .max_decoding_message_size(limits::MOST_REQUEST),
            )
            .add_service(
                AgentServiceServer::new(agent::Agents::new(api.clone()))
                    .max_decoding_message_size(limits::MOST_AGENT_MESSAGE),
            )
            .add_service(
                WatchServiceServer::new(watch::Watches::new(api.clone(), standing.clone()))
                    .max_decoding_message_size(limits::MOST_REQUEST),
            )
            .add_service(
                ClusterServiceServer::new(cluster::Cluster::new(api.clone(), Arc::clone(&dialer)))
                    .max_decoding_message_size(limits::MOST_REQUEST),
            )
            .add_service(
                AuditServiceServer::new(audit::Audit::new(api))
                    .max_decoding_message_size(limits::MOST_REQUEST),
            );
        let rates = Arc::new(Rates::new(core.config().calls));
        let limits = Arc::new(limits);
        let pages = Arc::default();
        Services {
            core,
            dialer,
            telemetry,
            routes,
            health,
            standing,
            discovery,
            rates,
            heads,
            pages,
            limits,
            simulation,
        }
    }

    /// Serves connections until `shutdown` is done, then lets open calls end. Streams end with the core or their client:
    /// stop the core first, or drop this future.
    pub async fn serve<I, IO, IE>(&self, incoming: I, port: Port, shutdown: impl Future<Output = ()>)
    where
        I: Stream<Item = Result<IO, IE>>,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        IE: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let edge = EdgeLayer::new(self, &port);
        let mut routes = self.routes.clone();
        if port.peers {
            routes = routes.add_service(self.core.group().rpc());
        }
        if port.reflection {
            routes = routes.add_service(health::reflection());
        }
        let listener = Listener {
            talk: Grpc::new(&edge, routes, &port, Arc::clone(&self.pages)),
            tls: port.tls,
            limits: Arc::clone(&self.limits),
            counts: Some(self.telemetry.connections().clone()),
            seed: self.core.config().seed,
        };
        listener.serve(incoming, shutdown).await;
    }

    /// Answers HAProxy's agent checks for as long as it is polled.
    pub async fn answer_agent_checks(&self, listener: TcpListener) {
        self.discovery.answer_agent_checks(listener).await;
    }

    /// Keeps health and numbers up to date, until the core stops.
    pub async fn follow(&self) {
        let process = async {
            if !self.simulation {
                self.telemetry.follow_process(&self.core).await;
            }
        };
        tokio::join!(
            self.health.follow(&self.core),
            self.standing.follow(&self.core),
            self.discovery.follow(&self.core, self.telemetry.services()),
            self.telemetry.follow(&self.core),
            Rightsizing::follow(&self.core),
            process
        );
    }
}
