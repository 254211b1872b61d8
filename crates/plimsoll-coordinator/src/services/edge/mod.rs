//! In front of every service: who calls, whether the method exists, who answers it, how long it may take. Calls that
//! only the leader can answer are passed on to it.

mod caller;
mod forward;
mod leading;
mod methods;
mod rates;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{DATE, HeaderValue};
use http::{Request, Response};
use plimsoll_consensus::Dialer;
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service};

use super::problem::Problem;
use crate::core::Core;
use crate::telemetry::Calls;
use forward::Forwarder;
use leading::Leading;
use methods::{AnsweredBy, Method};
pub(super) use rates::Rates;

pub(crate) use caller::Actor;

/// Taken off a caller's own timeout, so that our answer is there before the caller gives up.
const HEAD_START: Duration = Duration::from_millis(2);

/// Puts the edge in front of services.
#[derive(Clone)]
pub(super) struct EdgeLayer {
    shared: Arc<Shared>,
    port: PortKind,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortKind {
    /// Callers show certificates of the cluster's authority.
    pub(super) tls: bool,
    /// Other coordinators call here too.
    pub(super) peers: bool,
}

struct Shared {
    core: Core,
    forwarder: Forwarder,
    calls: Calls,
    rates: Arc<Rates>,
    /// Answers carry a fixed `date`, so that a simulation is reproducible.
    fixed_date: bool,
}

/// The edge in front of a service.
#[derive(Clone)]
pub(super) struct Edge<S> {
    shared: Arc<Shared>,
    port: PortKind,
    inner: S,
}

impl EdgeLayer {
    pub(super) fn new(
        core: Core,
        dialer: Arc<dyn Dialer>,
        calls: Calls,
        rates: Arc<Rates>,
        port: PortKind,
        fixed_date: bool,
    ) -> EdgeLayer {
        let forwarder = Forwarder::new(core.clone(), dialer);
        EdgeLayer { shared: Arc::new(Shared { core, forwarder, calls, rates, fixed_date }), port }
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge { shared: Arc::clone(&self.shared), port: self.port, inner }
    }
}

impl<S> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone takes the place of the service that was found ready.
        let fresh = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, fresh);
        let shared = Arc::clone(&self.shared);
        let port = self.port;
        Box::pin(async move {
            let mut response = shared.answer(port, inner, request).await;
            if shared.fixed_date {
                response
                    .headers_mut()
                    .insert(DATE, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
            }
            Ok(response)
        })
    }
}

impl Shared {
    async fn answer<S>(&self, port: PortKind, inner: S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    {
        let began = Instant::now();
        let _open = self.calls.open();
        let Some(method) = methods::find(request.uri().path()) else {
            let path = request.uri().path().to_owned();
            return tonic::Status::unimplemented(format!("{path} is not a method of this API")).into_http();
        };
        let response = match self.route(port, method, inner, request).await {
            Ok(response) => response,
            Err(problem) => problem.into_status().into_http(),
        };
        self.calls.ended(method.path, code_of(&response), began.elapsed());
        response
    }

    async fn route<S>(
        &self,
        port: PortKind,
        method: Method,
        mut inner: S,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Problem>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    {
        let caller = caller::identify(port.tls, request.headers(), request.extensions());
        let caller = caller.ok_or_else(Problem::no_certificate)?;
        if method.by == AnsweredBy::Peer && !(port.peers && caller.is_coordinator) {
            return Err(Problem::not_a_coordinator());
        }
        // A coordinator speaks for others, and counted them where they called. Without TLS nobody is anybody.
        if !caller.is_coordinator {
            self.rates.take(&caller.actor.0, method.path, Instant::now())?;
        }
        let asked = forward::timeout_of(request.headers()).map(|asked| asked.saturating_sub(HEAD_START));
        let left = match (method.most, asked) {
            (Some(most), Some(asked)) => Some(asked.min(most)),
            (Some(most), None) => Some(most),
            (None, asked) => asked,
        };
        let was_forwarded = request.headers().contains_key(forward::FORWARDED);
        request.extensions_mut().insert(caller.actor.clone());
        let began = Instant::now();
        let answer = async {
            if method.by != AnsweredBy::Leader || self.core.is_leader() && self.is_serving() {
                let Ok(response) = inner.call(request).await;
                return Ok(response);
            }
            let leading = Leading { shared: self, method, actor: &caller.actor, began, left };
            if was_forwarded {
                // Not passed on again; but a leader that has only just begun is worth a moment.
                leading.wait_to_serve().await?;
                let Ok(response) = inner.call(request).await;
                return Ok(response);
            }
            match method.most {
                Some(_) => leading.call(inner, request).await,
                None => leading.stream(inner, request).await,
            }
        };
        let Some(left) = left else { return answer.await };
        let changes = method.by == AnsweredBy::Leader;
        tokio::time::timeout(left, answer).await.unwrap_or_else(|_| Err(Problem::deadline(left, changes)))
    }

    /// True on a leader that takes commands. Asked on every call, so it must cost nothing: the leader alone shows its
    /// state without age. A wrong yes, possible for a millisecond, is answered NOT_LEADER by the core.
    fn is_serving(&self) -> bool {
        self.core.local().age_ms() == 0
    }
}

/// How a call ended, as far as its head tells: streams end later.
fn code_of(response: &Response<Body>) -> tonic::Code {
    match response.headers().get("grpc-status") {
        Some(code) => tonic::Code::from_bytes(code.as_bytes()),
        None => tonic::Code::Ok,
    }
}
