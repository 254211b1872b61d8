//! The gRPC API of a coordinator, and the edge in front of it.
//!
//! [`Services`] is made once; [`Services::serve`] puts it behind each listener. Any coordinator accepts any call: the
//! edge passes on to the leader what only the leader can answer, byte for byte.

mod agent;
mod api;
mod audit;
mod cluster;
mod connections;
mod edge;
mod explain;
mod health;
mod intent;
mod limits;
mod names;
mod node;
mod page;
mod policy;
mod problem;
mod reservation;
mod show;
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
use plimsoll_proto::v1::node_service_server::NodeServiceServer;
use plimsoll_proto::v1::policy_service_server::PolicyServiceServer;
use plimsoll_proto::v1::reservation_service_server::ReservationServiceServer;
use plimsoll_proto::v1::watch_service_server::WatchServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::ServerTlsConfig;
use tonic::transport::server::Connected;

use crate::core::Core;
use crate::telemetry::Telemetry;
use api::Api;
use edge::{EdgeLayer, PortKind, Rates};

pub(crate) use health::serves;

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
    /// One for all listeners.
    rates: Arc<Rates>,
    fixed_date: bool,
}

impl Services {
    /// The services of a core. With `simulation`, answers carry a fixed `date` header, so that runs are reproducible.
    pub fn new(core: Core, dialer: Arc<dyn Dialer>, telemetry: Telemetry, simulation: bool) -> Services {
        let api = Api { core: core.clone(), calls: telemetry.calls().clone() };
        let (health, health_server) = health::Health::new();
        let routes = Routes::new(health_server)
            .add_service(health::reflection())
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
                AgentServiceServer::new(agent::Agents::new(api.clone()))
                    .max_decoding_message_size(limits::MOST_AGENT_MESSAGE),
            )
            .add_service(
                WatchServiceServer::new(watch::Watches::new(api.clone()))
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
        Services { core, dialer, telemetry, routes, health, rates, fixed_date: simulation }
    }

    /// Serves connections until `shutdown` is done, then lets open calls end. Streams end with the core or their client:
    /// stop the core first, or drop this future. Where `tls` is given, `IO` must be a TCP stream by its connect info.
    ///
    /// # Errors
    /// Where TLS cannot be set up, or `incoming` fails.
    pub async fn serve<I, IO, IE>(
        &self,
        incoming: I,
        tls: Option<ServerTlsConfig>,
        peers: bool,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error>
    where
        I: Stream<Item = Result<IO, IE>>,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        IE: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let port = PortKind { tls: tls.is_some(), peers };
        let calls = self.telemetry.calls().clone();
        let (dialer, rates) = (Arc::clone(&self.dialer), Arc::clone(&self.rates));
        let edge = EdgeLayer::new(self.core.clone(), dialer, calls, rates, port, self.fixed_date);
        let mut routes = self.routes.clone();
        if peers {
            routes = routes.add_service(self.core.group().rpc());
        }
        let server = limits::server(port);
        let server = match tls {
            Some(tls) => server.tls_config(tls)?,
            None => server,
        };
        let incoming = connections::Bounded::new(incoming, limits::MOST_CONNECTIONS, limits::FIRST_BYTES);
        let mut server = server.layer(edge);
        server.add_routes(routes.prepare()).serve_with_incoming_shutdown(incoming, shutdown).await
    }

    /// Keeps health and numbers up to date, until the core stops.
    pub async fn follow(&self) {
        tokio::join!(self.health.follow(&self.core), self.telemetry.follow(&self.core));
    }
}
