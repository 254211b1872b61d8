//! `ReservationStream`: one conversation with thousands of requests in flight. Where it breaks, another is opened and what
//! was not answered is sent again with the same request ids, so nothing is done twice and nothing is forgotten.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use plimsoll_proto::v1::reservation_service_client::ReservationServiceClient;
use plimsoll_proto::v1::stream_reservations_request::Request as Kind;
use plimsoll_proto::v1::stream_reservations_response::Response as Outcome;
use plimsoll_proto::v1::{
    ErrorReason, Failure, Reservation, StreamReservationsRequest, StreamReservationsResponse,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use crate::client::MAX_ANSWER_BYTES;
use crate::error::{Error, Refused};
use crate::retry::millis;
use crate::{Client, reason_name};

/// A reservation as one request left it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The reservation after the request.
    pub reservation: Reservation,
    /// Revision of the command.
    pub revision: u64,
    /// Ledger time of the command, in milliseconds since the Unix epoch.
    pub log_time_ms: u64,
}

/// One conversation with many requests in flight. Cheap to clone; it ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct ReservationStream {
    shared: Arc<Shared>,
    _guard: Arc<DropGuard>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    permits: Semaphore,
    next_sequence: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: BTreeMap<u64, Unanswered>,
    outgoing: Option<mpsc::UnboundedSender<StreamReservationsRequest>>,
}

#[derive(Debug)]
struct Unanswered {
    request: StreamReservationsRequest,
    answer: oneshot::Sender<Result<Answer, Error>>,
}

impl Client {
    /// Opens a conversation with at most `in_flight` unanswered requests.
    pub fn reservation_stream(&self, in_flight: usize) -> ReservationStream {
        let shared = Arc::new(Shared {
            client: self.clone(),
            permits: Semaphore::new(in_flight.clamp(1, Semaphore::MAX_PERMITS)),
            next_sequence: AtomicU64::new(1),
            waiting: Mutex::default(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&shared).keep_talking()));
        ReservationStream { shared, _guard: Arc::new(stop.drop_guard()) }
    }
}

impl ReservationStream {
    /// Sends one request and waits for its answer. Waits for a place first where too many are in flight.
    ///
    /// # Errors
    /// As for every call. A request that was not answered before the client's deadline is [`Error::Unknown`].
    pub async fn send(&self, mut request: Kind) -> Result<Answer, Error> {
        let shared = &self.shared;
        let request_id = request_id(&mut request);
        if request_id.is_empty() {
            *request_id = shared.client.ids().request_id();
        }
        let request_id = request_id.clone();
        let deadline = Instant::now() + shared.client.timeout();
        let permit = timeout_at(deadline, shared.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            let message = "too many requests are in flight".to_owned();
            return Err(Error::Unavailable { message, reason: None });
        };
        let sequence = shared.next_sequence.fetch_add(1, Ordering::Relaxed);
        let forget = Forget { shared, sequence };
        let receiver = shared.put(StreamReservationsRequest { sequence, request: Some(request) });
        let answered = timeout_at(deadline, receiver).await;
        drop(forget);
        match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => {
                Err(Error::Unknown { request_id, message: "it was not answered in time".to_owned() })
            }
        }
    }
}

/// Takes a request out when its sender stops waiting.
struct Forget<'a> {
    shared: &'a Shared,
    sequence: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.lock().requests.remove(&self.sequence);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it is held, so the lock is never poisoned")
    }

    fn put(&self, request: StreamReservationsRequest) -> oneshot::Receiver<Result<Answer, Error>> {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        if let Some(outgoing) = &waiting.outgoing {
            // A conversation that just broke drops it; the next one sends it again.
            let _ = outgoing.send(request.clone());
        }
        waiting.requests.insert(request.sequence, Unanswered { request, answer });
        receiver
    }

    async fn keep_talking(self: Arc<Shared>) {
        let mut attempt = 0;
        loop {
            let (address, channel) = match self.client.channel() {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "no coordinator can be dialled");
                    let far = Instant::now() + self.client.timeout();
                    self.client.back_off(attempt, None, far).await;
                    attempt += 1;
                    continue;
                }
            };
            let service = ReservationServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            let mut heard = false;
            let status = self.converse(service, &mut heard).await;
            self.lock().outgoing = None;
            let refused = Refused::from_status(&status);
            tracing::debug!(%address, reason = reason_name(refused.reason), message = %refused.message, "conversation ended");
            self.client.leave(&address, refused.leader());
            attempt = if heard { 0 } else { attempt + 1 };
            let far = Instant::now() + self.client.timeout();
            // The first wait of a working conversation is short: the next coordinator most likely serves.
            self.client.back_off(attempt.min(5), refused.retry_after_ms, far).await;
        }
    }

    async fn converse(
        &self,
        mut service: ReservationServiceClient<tonic::transport::Channel>,
        heard: &mut bool,
    ) -> Status {
        let (outgoing, receiver) = mpsc::unbounded_channel();
        {
            let mut waiting = self.lock();
            for unanswered in waiting.requests.values() {
                let _ = outgoing.send(unanswered.request.clone());
            }
            waiting.outgoing = Some(outgoing);
        }
        let opened = service.stream_reservations(UnboundedReceiverStream::new(receiver)).await;
        let mut incoming = match opened {
            Ok(response) => response.into_inner(),
            Err(status) => return status,
        };
        loop {
            match incoming.message().await {
                Ok(Some(response)) => {
                    *heard = true;
                    if let Some(status) = self.answered(response) {
                        return status;
                    }
                }
                Ok(None) => return Status::unavailable("the coordinator ended the conversation"),
                Err(status) => return status,
            }
        }
    }

    /// Hands an answer on. An answer that says "elsewhere" ends the conversation instead: its request stays and is sent
    /// again with the others.
    fn answered(&self, response: StreamReservationsResponse) -> Option<Status> {
        let answer = match read(response.response) {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(failure)) => {
                let refused = Refused::from_failure(failure);
                match refused.reason {
                    ErrorReason::NotLeader | ErrorReason::Unavailable | ErrorReason::OutcomeUnknown => {
                        return Some(refused.to_status());
                    }
                    ErrorReason::RateLimited | ErrorReason::DiskFull => {
                        self.send_later(response.sequence, refused.retry_after_ms.unwrap_or(50));
                        return None;
                    }
                    _ => Err(Error::Refused(Box::new(refused))),
                }
            }
            None => Err(Error::Invalid("the coordinator's answer was empty".to_owned())),
        };
        if let Some(unanswered) = self.lock().requests.remove(&response.sequence) {
            // Whoever asked may have stopped waiting.
            let _ = unanswered.answer.send(answer);
        }
        None
    }

    fn send_later(&self, sequence: u64, after_ms: u64) {
        let waiting = self.lock();
        let Some(unanswered) = waiting.requests.get(&sequence) else { return };
        let Some(outgoing) = waiting.outgoing.clone() else { return };
        let request = unanswered.request.clone();
        let wait = millis(after_ms.saturating_add(self.client.ids().jitter(after_ms)));
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = outgoing.send(request);
        });
    }
}

/// What an answer says, whichever change it answers.
fn read(outcome: Option<Outcome>) -> Option<Result<Answer, Failure>> {
    let (reservation, revision, log_time_ms) = match outcome? {
        Outcome::Create(answer) => (answer.reservation, answer.revision, answer.log_time_ms),
        Outcome::Confirm(answer) => (answer.reservation, answer.revision, answer.log_time_ms),
        Outcome::Renew(answer) => (answer.reservation, answer.revision, answer.log_time_ms),
        Outcome::Resize(answer) => (answer.reservation, answer.revision, answer.log_time_ms),
        Outcome::Release(answer) => (answer.reservation, answer.revision, answer.log_time_ms),
        Outcome::Cancel(answer) => (answer.reservation, answer.revision, answer.log_time_ms),
        Outcome::Failure(failure) => return Some(Err(failure)),
    };
    Some(Ok(Answer { reservation: reservation?, revision, log_time_ms }))
}

fn request_id(request: &mut Kind) -> &mut String {
    match request {
        Kind::Create(request) => &mut request.request_id,
        Kind::Confirm(request) => &mut request.request_id,
        Kind::Renew(request) => &mut request.request_id,
        Kind::Resize(request) => &mut request.request_id,
        Kind::Release(request) => &mut request.request_id,
        Kind::Cancel(request) => &mut request.request_id,
    }
}
