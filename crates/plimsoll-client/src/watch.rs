//! `Watch`: events without gaps. A broken stream is opened again from the last revision seen.

use plimsoll_proto::v1::watch_service_client::WatchServiceClient;
use plimsoll_proto::v1::{ErrorReason, ListPoolsRequest, WatchRequest, WatchResponse};
use tokio::time::Instant;
use tonic::{Code, Request, Streaming};

use crate::client::MAX_ANSWER_BYTES;
use crate::error::{Error, Refused};
use crate::{Client, reason_name};

/// A running watch.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    request: WatchRequest,
    stream: Option<(String, Streaming<WatchResponse>)>,
    /// Failures since the last message.
    attempt: u32,
    /// The present objects have all been sent.
    initial_done: bool,
    /// Where it goes on was said by a coordinator, so that it is a revision that exists.
    resumes: bool,
}

/// Times that it is tried elsewhere where a coordinator is behind what another one gave out.
const MOST_ATTEMPTS_BEHIND: u32 = 20;

impl Client {
    /// Watches from `request.from_revision` on, that one included; 0 means from now on.
    ///
    /// # Errors
    /// As for every call: the present revision is asked for first, so that nothing after this call is missed.
    pub async fn watch(&self, mut request: WatchRequest) -> Result<Watch, Error> {
        let resumes = request.from_revision == 0 && !request.include_initial;
        if resumes {
            let page = ListPoolsRequest { page_size: 1, ..ListPoolsRequest::default() };
            request.from_revision = self.list_pools(page).await?.revision + 1;
        }
        let initial_done = !request.include_initial;
        Ok(Watch { client: self.clone(), request, stream: None, attempt: 0, initial_done, resumes })
    }
}

impl Watch {
    /// The next message. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] where it cannot go on: with `COMPACTED` the events after the last revision are no longer kept, so
    /// the caller must read the objects anew. Broken streams are not errors.
    pub async fn next(&mut self) -> Result<WatchResponse, Error> {
        loop {
            let failure = match &mut self.stream {
                Some((_, stream)) => match stream.message().await {
                    Ok(Some(message)) => {
                        self.attempt = 0;
                        self.note(&message);
                        return Ok(message);
                    }
                    Ok(None) => tonic::Status::unavailable("the coordinator ended the watch"),
                    Err(status) => status,
                },
                None => match self.open().await {
                    Ok(()) => continue,
                    Err(status) => status,
                },
            };
            self.failed(&failure).await?;
        }
    }

    /// All events up to and including this revision have been given out.
    pub fn revision(&self) -> u64 {
        self.request.from_revision.saturating_sub(1)
    }

    async fn open(&mut self) -> Result<(), tonic::Status> {
        let (address, channel) =
            self.client.channel().map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
        let mut service = WatchServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let opened = service.watch(Request::new(self.request.clone())).await;
        let stream = opened.inspect_err(|status| {
            let leader = Refused::from_status(status);
            self.client.leave(&address, leader.leader());
        })?;
        self.stream = Some((address, stream.into_inner()));
        Ok(())
    }

    fn note(&mut self, message: &WatchResponse) {
        if message.initial {
            return;
        }
        if !self.initial_done {
            self.initial_done = true;
            self.request.include_initial = false;
        }
        self.request.from_revision = self.request.from_revision.max(message.revision.saturating_add(1));
        self.resumes = true;
    }

    async fn failed(&mut self, status: &tonic::Status) -> Result<(), Error> {
        let refused = Refused::from_status(status);
        if let Some((address, _)) = self.stream.take() {
            self.client.leave(&address, refused.leader());
        }
        let resumable = matches!(
            refused.code,
            Code::Unavailable
                | Code::Aborted
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Unknown
                | Code::Internal
        );
        // Elsewhere than where it broke, the log may not be as far yet. Only a revision that nobody ever gave out stays
        // in the future.
        let behind = refused.reason == ErrorReason::FutureRevision;
        let waits = behind && self.resumes && self.attempt < MOST_ATTEMPTS_BEHIND;
        if !waits && (!resumable || behind) {
            return Err(Error::Refused(Box::new(refused)));
        }
        tracing::debug!(reason = reason_name(refused.reason), message = %refused.message, "watch broke");
        let far = Instant::now() + self.client.timeout();
        self.client.back_off(self.attempt.min(6), refused.retry_after_ms, far).await;
        self.attempt = self.attempt.saturating_add(1);
        Ok(())
    }
}
