//! In front of every service: who calls, whether the method exists, who answers it, how long it may take. Calls that
//! only the leader can answer are passed on to it.

mod caller;
mod ending;
mod forward;
mod heads;
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
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service};

use super::connections::ConnectionInfo;
use super::problem::Problem;
use super::{Port, Services};
use crate::core::Core;
use crate::telemetry::Calls;
use forward::Forwarder;
pub(super) use heads::Heads;
use leading::Leading;
use methods::{AnsweredBy, Method};
pub(super) use rates::Rates;

pub(crate) use caller::Actor;

/// True where the answer to a path is not that of an ordinary call.
pub(super) fn streams(path: &str) -> bool {
    methods::find(path).is_none_or(|method| method.most.is_none())
}

/// True where the answer to a path is a page of a list.
pub(super) fn lists(path: &str) -> bool {
    methods::LISTS.contains(&path)
}

/// Label of calls that are no method's.
const UNKNOWN: &str = "(unknown)";
/// Taken off a caller's own timeout, so that our answer is there before the caller gives up.
const HEAD_START: Duration = Duration::from_millis(2);

/// Puts the edge in front of services.
#[derive(Clone)]
pub(super) struct EdgeLayer {
    shared: Arc<Shared>,
    port: PortKind,
}

/// What the edge must know of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PortKind {
    /// Callers show certificates of the cluster's authority.
    tls: bool,
    /// Other coordinators call here too.
    peers: bool,
    /// Tells callers what the API is.
    reflection: bool,
}

struct Shared {
    core: Core,
    forwarder: Forwarder,
    calls: Calls,
    rates: Arc<Rates>,
    heads: Heads,
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
    /// For a port of these services.
    pub(super) fn new(services: &Services, port: &Port) -> EdgeLayer {
        let core = services.core.clone();
        let shared = Shared {
            forwarder: Forwarder::new(core.clone(), Arc::clone(&services.dialer)),
            core,
            calls: services.telemetry.calls().clone(),
            rates: Arc::clone(&services.rates),
            heads: services.heads.clone(),
            fixed_date: services.simulation,
        };
        let port = PortKind { tls: port.tls.is_some(), peers: port.peers, reflection: port.reflection };
        EdgeLayer { shared: Arc::new(shared), port }
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
        let _open = self.calls.open();
        let found = methods::find(request.uri().path()).filter(|method| method.is_offered(port.reflection));
        let Some(method) = found else {
            let mut response = Problem::unimplemented(request.uri().path()).into_status().into_http();
            self.heads.put(response.headers_mut());
            self.calls.ended(UNKNOWN, tonic::Code::Unimplemented, Duration::ZERO);
            return response;
        };
        let counted = Counted { calls: &self.calls, path: method.path, began: Instant::now(), code: None };
        // What streams ends with the core; ordinary calls are answered by it in any case.
        let streams = method.most.is_none();
        let request = if streams { request.map(|body| ending::request(body, &self.core)) } else { request };
        let mut response = match self.route(port, method, inner, request).await {
            Ok(response) if streams => response.map(|body| ending::response(body, &self.core)),
            Ok(response) => response,
            Err(problem) => problem.into_status().into_http(),
        };
        if method.by != AnsweredBy::Peer {
            self.heads.put(response.headers_mut());
        }
        counted.ended(code_of(&response));
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
        let was_forwarded = request.headers().contains_key(forward::FORWARDED);
        if caller.is_coordinator
            && (method.by == AnsweredBy::Peer || was_forwarded)
            && let Some(connection) = request.extensions().get::<ConnectionInfo>()
        {
            connection.note_coordinator();
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

/// A call that is counted in any case: one that its caller gave up is dropped where it waits, and nobody is left to answer.
struct Counted<'a> {
    calls: &'a Calls,
    path: &'static str,
    began: Instant,
    code: Option<tonic::Code>,
}

impl Counted<'_> {
    fn ended(mut self, code: tonic::Code) {
        self.code = Some(code);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.calls.ended(self.path, self.code.unwrap_or(tonic::Code::Cancelled), self.began.elapsed());
    }
}

/// How a call ended, as far as its head tells: streams end later.
fn code_of(response: &Response<Body>) -> tonic::Code {
    match response.headers().get("grpc-status") {
        Some(code) => tonic::Code::from_bytes(code.as_bytes()),
        None => tonic::Code::Ok,
    }
}
