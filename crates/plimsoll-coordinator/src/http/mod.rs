//! HTTP beside the gRPC API: metrics and targets for Prometheus, health for orchestrators, and a small page for people.

mod discovery;
mod page;
mod pages;

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

use crate::core::Core;
use crate::services::{Listener, ListenerLimits};
use crate::telemetry::Telemetry;
use pages::Pages;

/// What the pages show.
#[derive(Clone)]
struct Shown {
    core: Core,
    telemetry: Telemetry,
}

/// Most open connections; more wait in the system's queue. Who reads pages needs few.
const MOST_OPEN: usize = 1_000;

/// Serves HTTP on a bound listener until `shutdown` is done. With `tls`, callers must show a certificate.
///
/// # Errors
/// None so far: a connection that cannot be accepted is not the listener's end.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: &ListenerLimits,
    core: Core,
    telemetry: Telemetry,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let limits = ListenerLimits { connections: MOST_OPEN.min(limits.connections), ..limits.clone() };
    let seed = core.config().seed;
    let talk = Pages(router(core, telemetry));
    let listening = Listener { talk, tls, limits: Arc::new(limits), counts: None, seed };
    listening.serve(TcpIncoming::from(listener), shutdown).await;
    Ok(())
}

/// The pages, for callers with a server of their own.
pub fn router(core: Core, telemetry: Telemetry) -> Router {
    Router::new()
        .route("/", get(page::status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/sd/prometheus", get(discovery::all))
        .route("/sd/prometheus/{service}", get(discovery::one))
        .with_state(Shown { core, telemetry })
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shown.telemetry.render()).into_response()
}

/// The process is there and its loops run.
async fn healthz() -> &'static str {
    "ok\n"
}

/// It can serve: a leader with a quorum answers, or this coordinator leads and takes commands.
async fn readyz(State(shown): State<Shown>) -> Response {
    if !crate::services::serves(&shown.core).await {
        return (StatusCode::SERVICE_UNAVAILABLE, "no leader with a quorum answers\n").into_response();
    }
    if shown.core.is_leader() && !shown.core.status().serving {
        return (StatusCode::SERVICE_UNAVAILABLE, "leadership has only just begun\n").into_response();
    }
    "ready\n".into_response()
}
