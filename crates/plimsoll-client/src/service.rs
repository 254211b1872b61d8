//! A service whose endpoints are chosen in this process: fed by `WatchEndpoints`, by the policy that the service has in the cluster.
//!
//! A pick costs no call. While no coordinator answers, the endpoints known last are used; [`ServicePicker::age`] says for how long. Coordinators send
//! a change within 5 ms of applying it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use plimsoll_endpoints::{Asked, Finish, Nobody, ServiceBalancer};
use plimsoll_proto::v1::endpoint_service_client::EndpointServiceClient;
use plimsoll_proto::v1::{Service, ServiceEndpoint, WatchEndpointsRequest, WatchEndpointsResponse};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::{Request, Status, Streaming};

use crate::client::MAX_ANSWER_BYTES;
use crate::error::{Error, Refused};
use crate::{Client, reason_name};

/// Endpoints of one service, chosen here. Clones share them; the last one to go ends the watch.
#[derive(Clone)]
pub struct ServicePicker {
    shared: Arc<Shared>,
    _watch: Arc<Aborted>,
}

struct Shared {
    client: Client,
    state: Mutex<State>,
    /// Revision of the latest message.
    revision: watch::Sender<u64>,
}

struct State {
    balancer: ServiceBalancer,
    /// The cluster's time when the latest message came, and when that was here.
    time: (u64, Instant),
    /// When a coordinator was last known to be there; `None` while one is.
    lost_at: Option<Instant>,
}

/// A request's endpoint. Dropped without a word it counts as given up.
pub struct Pick {
    shared: Arc<Shared>,
    number: u64,
    endpoint: Arc<ServiceEndpoint>,
    finished: bool,
}

struct Aborted(JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Follows the endpoints of a service from now on, and waits until they are known. The service need not be there yet.
    ///
    /// # Errors
    /// [`Error::Refused`] where it cannot be watched, and [`Error::Unavailable`] where nobody answers in the client's time.
    pub async fn service(&self, name: &str) -> Result<ServicePicker, Error> {
        let subset = self.ids().jitter(u64::MAX);
        let named = Service { name: name.to_owned(), ..Service::default() };
        let state = State {
            balancer: ServiceBalancer::new(named, Some(subset)),
            time: (0, Instant::now()),
            lost_at: Some(Instant::now()),
        };
        let (revision, mut known) = watch::channel(0);
        let shared = Arc::new(Shared { client: self.clone(), state: Mutex::new(state), revision });
        let (refused, mut why) = watch::channel(None);
        let following = Arc::clone(&shared);
        let name = name.to_owned();
        let task = tokio::spawn(async move {
            if let Err(refusal) = following.follow(&name).await {
                refused.send_replace(Some(refusal));
            }
        });
        let watch = Arc::new(Aborted(task));
        let first = tokio::time::timeout(self.timeout(), async {
            tokio::select! {
                _ = known.wait_for(|revision| *revision > 0) => None,
                refusal = why.wait_for(Option::is_some) => refusal.ok().and_then(|refusal| refusal.clone()),
            }
        });
        match first.await {
            Ok(None) => Ok(ServicePicker { shared, _watch: watch }),
            Ok(Some(refusal)) => Err(Error::Refused(Box::new(refusal))),
            Err(_) => {
                let status = Status::unavailable("no coordinator sent the endpoints in time");
                Err(Error::Refused(Box::new(Refused::from_status(&status))))
            }
        }
    }
}

impl ServicePicker {
    /// The endpoint for a request. Costs as the policy's pick: 10 to 30 ns, and about a microsecond for affinity over 10,000 endpoints.
    ///
    /// # Errors
    /// Where no endpoint may be given a request, with how many there are in which state.
    pub fn pick(&self, asked: &Asked<'_>) -> Result<Pick, Nobody> {
        let draw = self.shared.client.ids().jitter(u64::MAX);
        let mut state = self.shared.state();
        let now_us = state.now_us();
        let (endpoint, number) = state.balancer.pick(now_us, draw, asked)?;
        let endpoint = Arc::clone(endpoint);
        Ok(Pick { shared: Arc::clone(&self.shared), number, endpoint, finished: false })
    }

    /// All endpoints, those that take no requests included.
    pub fn endpoints(&self) -> Vec<ServiceEndpoint> {
        self.shared.state().balancer.endpoints().cloned().collect()
    }

    /// Revision that the endpoints are of.
    pub fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// Waits until the endpoints are of another revision than `known`, and returns it.
    pub async fn changed(&self, known: u64) -> u64 {
        let mut revision = self.shared.revision.subscribe();
        revision.wait_for(|now| *now != known).await.map_or(known, |now| *now)
    }

    /// For how long no coordinator has been there to tell of changes; zero while one is.
    pub fn age(&self) -> Duration {
        self.shared.state().lost_at.map_or(Duration::ZERO, |lost| lost.elapsed())
    }
}

impl Pick {
    /// `host:port` of the endpoint.
    pub fn address(&self) -> &str {
        self.endpoint.endpoint.as_ref().map_or("", |endpoint| &endpoint.address)
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &ServiceEndpoint {
        &self.endpoint
    }

    /// It was answered, with so many units (tokens, bytes; 0 where nobody counts).
    pub fn answered(mut self, output_units: u64) {
        self.finish(Finish::Answered { output_units });
    }

    /// The endpoint failed it: what counts against it.
    pub fn failed(mut self) {
        self.finish(Finish::Failed);
    }

    fn finish(&mut self, how: Finish) {
        if !self.finished {
            self.finished = true;
            let mut state = self.shared.state();
            let now_us = state.now_us();
            state.balancer.finish(now_us, self.number, how);
        }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.finish(Finish::Cancelled);
    }
}

impl State {
    /// The cluster's time, in microseconds, as far as it is known here.
    fn now_us(&self) -> u64 {
        let (time_ms, at) = self.time;
        let elapsed = u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX);
        time_ms.saturating_mul(1_000).saturating_add(elapsed)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    /// Follows until it is refused for good.
    async fn follow(&self, name: &str) -> Result<(), Refused> {
        let mut attempt = 0;
        loop {
            let status = match self.open(name).await {
                Ok((address, mut stream)) => {
                    let broke = loop {
                        match stream.message().await {
                            Ok(Some(message)) => {
                                attempt = 0;
                                self.take_in(message);
                            }
                            Ok(None) => break Status::unavailable("the coordinator ended the watch"),
                            Err(status) => break status,
                        }
                    };
                    self.client.leave(&address, Refused::from_status(&broke).leader());
                    broke
                }
                Err(status) => status,
            };
            self.state().lost_at.get_or_insert_with(Instant::now);
            let refused = Refused::from_status(&status);
            if matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::Unimplemented) {
                return Err(refused);
            }
            tracing::debug!(reason = reason_name(refused.reason), message = %refused.message, service = name, "endpoints broke");
            let far = Instant::now() + self.client.timeout();
            self.client.back_off(attempt.min(6), refused.retry_after_ms, far).await;
            attempt += 1;
        }
    }

    async fn open(&self, name: &str) -> Result<(String, Streaming<WatchEndpointsResponse>), Status> {
        let (address, channel) =
            self.client.channel().map_err(|error| Status::unavailable(error.to_string()))?;
        let mut service = EndpointServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        // Never older than what was seen: another coordinator may be behind.
        let min_revision = *self.revision.borrow();
        let request = WatchEndpointsRequest { service: name.to_owned(), min_revision };
        let opened = service.watch_endpoints(Request::new(request)).await;
        let stream = opened.inspect_err(|status| {
            let refused = Refused::from_status(status);
            self.client.leave(&address, refused.leader());
        })?;
        Ok((address, stream.into_inner()))
    }

    fn take_in(&self, message: WatchEndpointsResponse) {
        let mut state = self.state();
        state.time = (message.time_ms, Instant::now());
        state.lost_at = None;
        let now_us = state.now_us();
        let name = state.balancer.service().name.clone();
        let service = message.service.unwrap_or_else(|| Service { name, ..Service::default() });
        state.balancer.follow(now_us, &service, message.endpoints);
        drop(state);
        self.revision.send_replace(message.revision);
    }
}
