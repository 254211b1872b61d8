//! A call that only the leader can answer, at a coordinator that does not lead: finding the leader, and finding it again
//! where it changes under way.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tokio::time::Instant;
use tonic::body::Body;
use tower::Service;

use super::Shared;
use super::caller::Actor;
use super::forward::Leader;
use super::methods::Method;
use crate::services::limits::MOST_REQUEST;
use crate::services::problem::Problem;

/// Pause between looks for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Bytes of a gRPC message beside its content.
const FRAME: usize = 5;

/// One such call.
pub(super) struct Leading<'a> {
    pub(super) shared: &'a Shared,
    pub(super) method: Method,
    pub(super) actor: &'a Actor,
    /// When the call came.
    pub(super) began: Instant,
    /// Time for it from there.
    pub(super) left: Option<Duration>,
}

impl Leading<'_> {
    /// A unary call: kept until it is answered, so that it can be sent again to where the leader is by then. Only what
    /// certainly had no effect is sent again.
    pub(super) async fn call<S>(&self, inner: S, request: Request<Body>) -> Result<Response<Body>, Problem>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    {
        let (head, body) = request.into_parts();
        let body = read(body).await?;
        let until = self.patience();
        loop {
            let request = Request::from_parts(head.clone(), Body::new(Full::new(body.clone())));
            let problem = match self.once(inner.clone(), request).await {
                Ok(response) => match Problem::in_headers(response.headers()) {
                    Some(problem) if problem.is_not_leader() => problem,
                    _ => return Ok(response),
                },
                Err(problem) if problem.is_not_leader() => problem,
                Err(problem) => return Err(problem),
            };
            if Instant::now() >= until {
                return Err(problem);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A stream goes to one leader, and ends with it.
    pub(super) async fn stream<S>(&self, inner: S, request: Request<Body>) -> Result<Response<Body>, Problem>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let until = self.patience();
        while self.shared.forwarder.leader() == Leader::None
            && self.nobody().is_not_leader()
            && Instant::now() < until
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.once(inner, request).await
    }

    /// Waits for this coordinator, which leads, to take commands.
    pub(super) async fn wait_to_serve(&self) -> Result<(), Problem> {
        let until = self.patience();
        loop {
            if !self.shared.core.is_leader() || Instant::now() >= until {
                let leader = self.shared.core.leader_address().map(|(_, address)| address);
                return Err(Problem::not_leader(leader.as_deref()));
            }
            if self.shared.core.status().serving {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn once<S>(&self, mut inner: S, request: Request<Body>) -> Result<Response<Body>, Problem>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        match self.shared.forwarder.leader() {
            Leader::Here => {
                let Ok(response) = inner.call(request).await;
                Ok(response)
            }
            Leader::At(address) => {
                self.shared.calls.forwarded(self.method.path);
                let left = self.left.map(|left| left.saturating_sub(self.began.elapsed()));
                self.shared.forwarder.pass_on(&address, request, self.actor, left).await
            }
            Leader::None => Err(self.nobody()),
        }
    }

    /// No leader is known; without a cluster there will be none.
    fn nobody(&self) -> Problem {
        if self.shared.core.group().metrics().members.is_empty() {
            Problem::uninitialized()
        } else {
            Problem::not_leader(None)
        }
    }

    /// Until when a leader is looked for: the old one's silence has to be noticed, then there is an election.
    fn patience(&self) -> Instant {
        self.began + Duration::from_millis(2 * self.shared.core.config().timings.election_ms.1)
    }
}

/// The whole body of a unary request.
async fn read(body: Body) -> Result<Bytes, Problem> {
    let read = Limited::new(body, MOST_REQUEST + FRAME).collect().await;
    read.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<LengthLimitError>() {
            Problem::too_large(MOST_REQUEST)
        } else {
            Problem::invalid("", format!("the request broke off: {error}"))
        }
    })
}
