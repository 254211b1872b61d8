//! `Client`: the way to a cluster. Every call has a deadline, is sent to the leader where it is known, and is tried again
//! only where that is safe: with the same request id, so that it never has a second effect.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::reason::{self as registry, Retry};
use plimsoll_proto::v1::{self, ErrorReason};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::answer::Answer;
use crate::error::{Error, Refused, reason_name};
use crate::ids::IdSource;
use crate::options::ClientOptions;
use crate::retry::{Budget, millis};
use crate::route::Routes;

/// Largest answer taken, in bytes: a page of 1,000 large nodes is above tonic's default.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The way to a cluster. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    timeout: Duration,
}

struct Inner {
    routes: Routes,
    options: ClientOptions,
    budget: Budget,
}

/// What a repeat of a call would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it only reads.
    Read,
    /// Nothing more than the first: the ledger knows it by this request id.
    Keyed(String),
}

/// What an attempt came to, where it gave no answer.
enum Attempt {
    /// Nothing was done, and another coordinator or moment may do better.
    NotDone(Refused),
    /// It may have been done.
    Perhaps(Refused),
    /// The answer is no.
    Final(Refused),
}

impl Client {
    /// A client of the cluster that these coordinators (`HOST:PORT`) belong to. Connections are made at the first call.
    ///
    /// # Errors
    /// [`Error::Invalid`] where an address or a certificate cannot be used.
    pub fn new<A: Into<String>>(
        endpoints: impl IntoIterator<Item = A>,
        options: ClientOptions,
    ) -> Result<Client, Error> {
        let strip =
            |address: String| address.trim_start_matches("http://").trim_start_matches("https://").to_owned();
        let endpoints: Vec<String> = endpoints.into_iter().map(|address| strip(address.into())).collect();
        let Some(last) = endpoints.len().checked_sub(1) else {
            return Err(Error::Invalid("no coordinator was named".to_owned()));
        };
        // Clients that start together must not all begin at the same coordinator.
        let first = usize::try_from(options.ids.jitter(last as u64)).unwrap_or(0);
        let routes = Routes::new(endpoints, first);
        for endpoint in routes.endpoints() {
            routes.channel(endpoint, options.dialer.as_ref())?;
        }
        let budget = Budget::new(options.retry);
        let timeout = options.timeout;
        Ok(Client { inner: Arc::new(Inner { routes, options, budget }), timeout })
    }

    /// Like [`Client::new`], and asks who leads, so that the next calls go there directly.
    ///
    /// # Errors
    /// As for [`Client::new`], and [`Error::Unavailable`] where no coordinator answers before the deadline.
    pub async fn connect<A: Into<String>>(
        endpoints: impl IntoIterator<Item = A>,
        options: ClientOptions,
    ) -> Result<Client, Error> {
        let client = Client::new(endpoints, options)?;
        client.follow_leader().await?;
        Ok(client)
    }

    /// Asks who leads and sends the next calls there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where no coordinator answers.
    pub async fn follow_leader(&self) -> Result<(), Error> {
        let answer = self.get_status(v1::GetStatusRequest {}).await?;
        if let Some(status) = answer.status.filter(|status| !status.leader_address.is_empty()) {
            self.inner.routes.prefer(&status.leader_address);
        }
        Ok(())
    }

    /// Address of the coordinator that the next call goes to.
    pub fn address(&self) -> String {
        self.inner.routes.current()
    }

    /// Addresses that the client was given.
    pub fn endpoints(&self) -> &[String] {
        self.inner.routes.endpoints()
    }

    /// How it behaves.
    pub fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// The same connections with another deadline for calls.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        Client { inner: Arc::clone(&self.inner), timeout }
    }

    /// Longest time for a call with all its retries.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Where ids and jitter come from.
    pub(crate) fn ids(&self) -> &dyn IdSource {
        self.inner.options.ids.as_ref()
    }

    /// The address in use and a channel to it.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a leader's address cannot be used.
    pub fn channel(&self) -> Result<(String, Channel), Error> {
        self.inner.routes.pick(self.inner.options.dialer.as_ref())
    }

    /// Tells the client that a coordinator did not serve, and which one leads if that is known: for users of [`Client::channel`].
    pub fn leave(&self, failed: &str, leader: Option<&str>) {
        self.inner.routes.leave(failed, leader);
    }

    /// Waits before retry number `attempt`.
    pub(crate) async fn back_off(&self, attempt: u32, advice_ms: Option<u64>, until: Instant) {
        let drawn = self.ids().jitter(self.inner.options.retry.ceiling_ms(attempt));
        // Advice wins over the drawn wait, and is spread so that those who got it do not come back together.
        let wait_ms = advice_ms.map_or(drawn, |ms| ms.saturating_add(self.ids().jitter(ms / 2 + 1)));
        let wake = Instant::now() + millis(wait_ms);
        sleep(wake.min(until).saturating_duration_since(Instant::now())).await;
    }

    /// Makes a call, and again where that is safe, until an answer or the deadline.
    pub(crate) async fn call<Q, R, F, Fut>(&self, effect: Effect, request: Q, send: F) -> Result<R, Error>
    where
        Q: Clone,
        R: Answer,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut perhaps_done = false;
        let mut nobody_since: Option<Instant> = None;
        let mut attempt = 0;
        loop {
            let (address, channel) = self.channel()?;
            let attempt_end = deadline.min(Instant::now() + self.inner.options.attempt_timeout);
            let mut message = Request::new(request.clone());
            message.set_timeout(attempt_end.saturating_duration_since(Instant::now()).max(millis(1)));
            let outcome = timeout_at(attempt_end, send(channel, message)).await;
            let status = match outcome {
                Ok(Ok(response)) => {
                    self.inner.budget.succeeded();
                    let mut answer = response.into_inner();
                    if perhaps_done {
                        answer.doubt();
                    }
                    return Ok(answer);
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("{address} did not answer in time")),
            };
            nobody_since =
                if never_connected(&status) { nobody_since.or_else(|| Some(Instant::now())) } else { None };
            let nobody = self.inner.options.unreachable_after;
            let nobody = nobody.zip(nobody_since).is_some_and(|(longest, since)| since.elapsed() >= longest);
            let refused = match judge(&status, &address) {
                Attempt::Final(refused) => return Err(Error::Refused(Box::new(refused))),
                Attempt::NotDone(refused) => refused,
                Attempt::Perhaps(refused) => {
                    perhaps_done |= effect != Effect::Read;
                    refused
                }
            };
            tracing::debug!(%address, attempt, reason = reason_name(refused.reason), message = %refused.message, "attempt failed");
            self.inner.routes.leave(&address, refused.leader());
            let retry = !nobody && Instant::now() < deadline && self.inner.budget.take();
            if retry {
                // A leader that was named is asked at once, the first time.
                if attempt > 0 || refused.leader().is_none() {
                    self.back_off(attempt, refused.retry_after_ms, deadline).await;
                }
                attempt += 1;
            }
            if !retry || Instant::now() >= deadline {
                return Err(give_up(&effect, perhaps_done, refused));
            }
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("endpoints", &self.endpoints())
            .field("current", &self.address())
            .finish_non_exhaustive()
    }
}

/// What a status says about whether it was done and whether to ask again.
fn judge(status: &Status, address: &str) -> Attempt {
    let mut refused = Refused::from_status(status);
    if refused.message.is_empty() {
        refused.message = status.code().description().to_owned();
    }
    if refused.reason != ErrorReason::Unspecified {
        return match registry::retry(refused.reason) {
            Retry::Again if refused.definite => Attempt::NotDone(refused),
            _ if !refused.definite => Attempt::Perhaps(refused),
            // It was this attempt's deadline, not the call's.
            _ if refused.reason == ErrorReason::Deadline => Attempt::NotDone(refused),
            _ => Attempt::Final(refused),
        };
    }
    match refused.code {
        Code::Unavailable if never_connected(status) => {
            refused.message = format!("{address}: {}", innermost(status));
            Attempt::NotDone(refused)
        }
        // A broken connection or a proxy: nobody knows how far the request got.
        _ if !refused.definite => Attempt::Perhaps(refused),
        _ => Attempt::Final(refused),
    }
}

/// True where the request was never sent, since there was no connection.
fn never_connected(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The cause behind all others, in words.
fn innermost(status: &Status) -> String {
    let mut last: &dyn std::error::Error = status;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

fn give_up(effect: &Effect, perhaps_done: bool, refused: Refused) -> Error {
    let request_id = match effect {
        Effect::Keyed(request_id) => request_id.clone(),
        Effect::Read => String::new(),
    };
    if perhaps_done {
        return Error::Unknown { request_id, message: refused.message };
    }
    if matches!(refused.reason, ErrorReason::RateLimited | ErrorReason::DiskFull) {
        return Error::Refused(Box::new(refused));
    }
    let reason = Some(refused.reason).filter(|reason| *reason != ErrorReason::Unspecified);
    Error::Unavailable { message: refused.message, reason }
}
