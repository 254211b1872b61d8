//! gRPC on one connection: the services behind the edge, with what is known of the connection.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Layer, Service};

use super::pages::{OwnPages, Pages};
use super::{Connection, Guarded, Language, Talk};
use crate::services::edge::{Edge, EdgeLayer};
use crate::services::limits::{self, CALL_UNREAD, STREAM_UNREAD};
use crate::services::problem::Problem;
use crate::services::{Port, lists, streams};

/// The gRPC API of a port.
#[derive(Clone)]
pub(in crate::services) struct Grpc {
    service: Edge<Routes>,
    /// Coordinators call here, too.
    peers: bool,
    pages: Arc<Pages>,
}

impl Grpc {
    /// With the edge in front of the routes.
    pub(in crate::services) fn new(edge: &EdgeLayer, routes: Routes, port: &Port, pages: Arc<Pages>) -> Grpc {
        Grpc { service: edge.layer(routes.prepare()), peers: port.peers, pages }
    }
}

impl Talk for Grpc {
    const LANGUAGE: Language = Language::Frames;

    async fn talk<IO>(self, io: Guarded<IO>, end: impl Future<Output = ()> + Send + 'static)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Arc::clone(io.connection());
        // Where it is known that no coordinator is at the other end, few streams will do.
        let is_client = connection.holder.as_ref().is_some_and(|holder| !holder.is_coordinator);
        let server = limits::server(self.peers && !is_client);
        let service = Reading { inner: self.service, connection, pages: OwnPages::new(self.pages) };
        let only = stream::iter([Ok::<_, std::io::Error>(io)]).chain(stream::pending());
        if let Err(error) = server.serve_with_incoming_shutdown(service, only, end).await {
            tracing::debug!(%error, "a connection could not be served");
        }
    }
}

/// Notes which answers of a connection are not read, and says of messages that cannot be read whose fault that is.
#[derive(Clone)]
struct Reading<S> {
    inner: S,
    connection: Arc<Connection>,
    pages: OwnPages,
}

impl<S> Service<Request<Body>> for Reading<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let patience = if streams(request.uri().path()) { STREAM_UNREAD } else { CALL_UNREAD };
        let open = self.connection.called();
        if lists(request.uri().path()) {
            // The clone takes the place of the service that was found ready.
            let fresh = self.inner.clone();
            let mut inner = std::mem::replace(&mut self.inner, fresh);
            let pages = self.pages.clone();
            return Box::pin(async move {
                let place = match pages.place().await {
                    Ok(place) => place,
                    Err(problem) => return Ok(problem.into_status().into_http()),
                };
                // The place may be one of a page that was just given up, and the next ones would be made for nobody.
                if open.0.unread.is_cut_off() {
                    return Ok(tonic::Status::cancelled("the connection is cut off").into_http());
                }
                let Ok(response) = inner.call(request).await;
                let (response, sending) = place.page(readable(response)).await;
                Ok(response.map(|body| open.0.unread.watch(body, patience, sending)))
            });
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Ok(response) = answer.await;
            Ok(readable(response).map(|body| open.0.unread.watch(body, patience, None)))
        })
    }
}

/// The answer, where the message could be read; else what was wrong with it.
fn readable(response: Response<Body>) -> Response<Body> {
    unreadable(&response).map_or(response, |problem| problem.into_status().into_http())
}

/// The transport's complaint about a message, as a problem of the caller. It takes a message that is none for a fault of
/// ours: nothing else in the head of an answer is called internal without a reason of ours.
fn unreadable(response: &Response<Body>) -> Option<Problem> {
    let code = response.headers().get("grpc-status")?;
    let is_internal = tonic::Code::from_bytes(code.as_bytes()) == tonic::Code::Internal;
    if !is_internal || response.headers().contains_key("grpc-status-details-bin") {
        return None;
    }
    let status = tonic::Status::from_header_map(response.headers())?;
    Some(Problem::invalid("", format!("the message cannot be read: {}", status.message())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_the_callers_fault_and_what_is_ours_stays_ours() {
        let theirs = tonic::Status::internal("failed to decode a message").into_http::<Body>();
        let problem = unreadable(&theirs).expect("no reason of ours").into_status();
        assert_eq!(problem.code(), tonic::Code::InvalidArgument);
        assert!(problem.message().contains("failed to decode"), "{problem:?}");
        let ours = Problem::internal("a fault").into_status().into_http::<Body>();
        assert!(unreadable(&ours).is_none());
        let other = tonic::Status::unavailable("not now").into_http::<Body>();
        assert!(unreadable(&other).is_none());
    }
}
