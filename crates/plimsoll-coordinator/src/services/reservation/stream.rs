//! `StreamReservations`: as many requests as are there go into the log together; answers go back as they come.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use plimsoll_ledger::Answer;
use plimsoll_proto::v1;
use plimsoll_proto::v1::stream_reservations_request::Request as Change;
use plimsoll_proto::v1::stream_reservations_response::Response as Done;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Status, Streaming};

use super::response;
use crate::services::AnswerStream;
use crate::services::api::Api;
use crate::services::edge::Actor;
use crate::services::intent::Intent;
use crate::services::problem::Problem;

/// Most requests of one stream in flight; past this its requests are left in the connection.
const WINDOW: usize = 16_384;
/// Most requests taken together.
const MOST_TOGETHER: usize = 1_024;
/// Longest wait for the answers to what a broken stream had asked for.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// Answers that wait for the connection.
const ANSWERS: usize = 1_024;

/// Serves one stream until the client ends it or leaves.
pub(super) fn serve(
    api: Api,
    actor: Actor,
    mut requests: Streaming<v1::StreamReservationsRequest>,
) -> AnswerStream<v1::StreamReservationsResponse> {
    let (answers, receiver) = mpsc::channel(ANSWERS);
    let window = Arc::new(Semaphore::new(WINDOW));
    tokio::spawn(async move {
        loop {
            let first = tokio::select! {
                biased;
                () = answers.closed() => return,
                first = requests.message() => first,
            };
            let (batch, end) = gather(first, &mut requests);
            if !batch.is_empty() {
                let Some(permits) = permits(&window, batch.len(), &answers).await else { return };
                tokio::spawn(answer(api.clone(), actor.clone(), batch, answers.clone(), permits));
            }
            match end {
                End::Open => {}
                End::Closed => return,
                End::Broken(status) => {
                    // What was taken is answered before: a status ends the answers. Where nobody reads them, that takes no longer.
                    let all = u32::try_from(WINDOW).expect("a window is bounded far below");
                    let settled = permits_of(&window, all, &answers);
                    drop(tokio::time::timeout(LAST_ANSWERS, settled).await);
                    // Nobody may be left to read it, then it does not matter.
                    let _ = answers.send(Err(status)).await;
                    return;
                }
            }
        }
    });
    AnswerStream::new(receiver)
}

/// Whether more requests will come.
enum End {
    Open,
    Closed,
    Broken(Status),
}

type Message = Result<Option<v1::StreamReservationsRequest>, Status>;

/// The first request and all that are there already.
fn gather(
    first: Message,
    requests: &mut Streaming<v1::StreamReservationsRequest>,
) -> (Vec<v1::StreamReservationsRequest>, End) {
    let mut batch = Vec::new();
    let mut next = Some(first);
    while let Some(message) = next {
        match message {
            Ok(Some(request)) => batch.push(request),
            Ok(None) => return (batch, End::Closed),
            Err(status) => return (batch, End::Broken(status)),
        }
        next = if batch.len() < MOST_TOGETHER { requests.message().now_or_never() } else { None };
    }
    (batch, End::Open)
}

async fn permits<T>(
    window: &Arc<Semaphore>,
    count: usize,
    answers: &mpsc::Sender<T>,
) -> Option<OwnedSemaphorePermit> {
    let count = u32::try_from(count).expect("a batch is bounded far below");
    permits_of(window, count, answers).await
}

async fn permits_of<T>(
    window: &Arc<Semaphore>,
    count: u32,
    answers: &mpsc::Sender<T>,
) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        biased;
        () = answers.closed() => None,
        permits = Arc::clone(window).acquire_many_owned(count) => permits.ok(),
    }
}

async fn answer(
    api: Api,
    actor: Actor,
    batch: Vec<v1::StreamReservationsRequest>,
    answers: mpsc::Sender<Result<v1::StreamReservationsResponse, Status>>,
    mut permits: OwnedSemaphorePermit,
) {
    let (mut kinds, mut intents) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for request in batch {
        kinds.push((request.sequence, request.request.as_ref().map(Kind::of)));
        let change = request.request.ok_or_else(|| Problem::invalid("request", "is missing"));
        intents.push(change.and_then(|change| Intent::of_stream(&actor, change)));
    }
    let results = api.submit_many(intents).await;
    for ((sequence, kind), result) in kinds.into_iter().zip(results) {
        let response = result.and_then(|answer| respond(&api, kind, answer));
        let response = response.unwrap_or_else(|problem| Done::Failure(problem.into_failure()));
        let response = v1::StreamReservationsResponse { sequence, response: Some(response) };
        if answers.send(Ok(response)).await.is_err() {
            return;
        }
        drop(permits.split(1));
    }
}

/// What a request asks for, kept until its answer is there.
#[derive(Clone, Copy)]
enum Kind {
    Create,
    Confirm,
    Renew,
    Resize,
    Release,
    Cancel,
}

impl Kind {
    fn of(change: &Change) -> Kind {
        match change {
            Change::Create(_) => Kind::Create,
            Change::Confirm(_) => Kind::Confirm,
            Change::Renew(_) => Kind::Renew,
            Change::Resize(_) => Kind::Resize,
            Change::Release(_) => Kind::Release,
            Change::Cancel(_) => Kind::Cancel,
        }
    }
}

fn respond(api: &Api, kind: Option<Kind>, answer: Answer) -> Result<Done, Problem> {
    match kind {
        Some(Kind::Create) => response!(api, answer, CreateReservationResponse).map(Done::Create),
        Some(Kind::Confirm) => response!(api, answer, ConfirmReservationResponse).map(Done::Confirm),
        Some(Kind::Renew) => response!(api, answer, RenewReservationResponse).map(Done::Renew),
        Some(Kind::Resize) => response!(api, answer, ResizeReservationResponse).map(Done::Resize),
        Some(Kind::Release) => response!(api, answer, ReleaseReservationResponse).map(Done::Release),
        Some(Kind::Cancel) => response!(api, answer, CancelReservationResponse).map(Done::Cancel),
        None => Err(Problem::internal("an answer to no request")),
    }
}
