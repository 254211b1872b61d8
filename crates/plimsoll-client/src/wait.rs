//! Waiting for a queued request, with its place in the queue as it moves.

use std::time::Duration;

use plimsoll_proto::v1::reservation_service_client::ReservationServiceClient;
use plimsoll_proto::v1::{Reservation, ReservationState, WaitReservationRequest, WaitReservationResponse};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Status, Streaming};

use crate::client::MAX_ANSWER_BYTES;
use crate::error::{Error, Refused};
use crate::{Client, reason_name};

/// Longest time that one wait stream is asked for.
const STREAM_MS: u64 = 3_600_000;

impl Client {
    /// Waits until a reservation is granted or has ended, or for `longest`; `seen` gets each step on the way.
    /// Returns it as it is then: still pending where `longest` ran out.
    ///
    /// # Errors
    /// As for every call. Broken streams are opened again.
    pub async fn wait_reservation(
        &self,
        name: &str,
        longest: Option<Duration>,
        mut seen: impl FnMut(&WaitReservationResponse),
    ) -> Result<Reservation, Error> {
        // Without an end a year does: tokio's timers take no more than a few years.
        let end = Instant::now() + longest.unwrap_or(Duration::from_secs(366 * 86_400));
        let mut latest: Option<Reservation> = None;
        let mut silent_since = Instant::now();
        let mut attempt = 0;
        loop {
            let failure = match self.wait_once(name, end, &mut latest, &mut seen).await {
                Ok(()) => None,
                // The stream had its time; the wait may have more.
                Err(status) if status.code() == Code::DeadlineExceeded => None,
                Err(status) => Some(Refused::from_status(&status)),
            };
            if let Some(reservation) = latest.take_if(|latest| !is_waiting(latest.state())) {
                return Ok(reservation);
            }
            if Instant::now() >= end {
                return match latest {
                    Some(reservation) => Ok(reservation),
                    None => Err(self.unanswered(failure)),
                };
            }
            let Some(refused) = failure else {
                (silent_since, attempt) = (Instant::now(), 0);
                continue;
            };
            let goes_on = [Code::Unavailable, Code::Aborted, Code::ResourceExhausted, Code::DeadlineExceeded]
                .contains(&refused.code);
            let final_answer = refused.definite && !goes_on;
            if final_answer {
                return Err(Error::Refused(Box::new(refused)));
            }
            if silent_since.elapsed() > self.timeout() {
                return Err(self.unanswered(Some(refused)));
            }
            tracing::debug!(reason = reason_name(refused.reason), message = %refused.message, "wait broke");
            self.back_off(attempt, refused.retry_after_ms, end).await;
            attempt = attempt.saturating_add(1).min(6);
        }
    }

    async fn wait_once(
        &self,
        name: &str,
        end: Instant,
        latest: &mut Option<Reservation>,
        seen: &mut impl FnMut(&WaitReservationResponse),
    ) -> Result<(), Status> {
        let (address, channel) =
            self.channel().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut service = ReservationServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let left_ms =
            u64::try_from(end.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX);
        let request =
            WaitReservationRequest { name: name.to_owned(), timeout_ms: left_ms.clamp(1, STREAM_MS) };
        let talk = async {
            let opened = service.wait_reservation(Request::new(request)).await;
            let mut stream: Streaming<WaitReservationResponse> = opened?.into_inner();
            while let Some(step) = stream.message().await? {
                seen(&step);
                *latest = step.reservation;
                if latest.as_ref().is_some_and(|latest| !is_waiting(latest.state())) {
                    break;
                }
            }
            Ok(())
        };
        let outcome = timeout_at(end, talk).await.unwrap_or(Ok(()));
        outcome.inspect_err(|status| self.leave(&address, Refused::from_status(status).leader()))
    }

    fn unanswered(&self, failure: Option<Refused>) -> Error {
        let message =
            failure.map_or_else(|| "it did not answer in time".to_owned(), |refused| refused.message);
        Error::Unavailable { message, reason: None }
    }
}

/// True for states before a grant.
pub(crate) fn is_waiting(state: ReservationState) -> bool {
    matches!(state, ReservationState::Unspecified | ReservationState::Pending | ReservationState::Planned)
}
