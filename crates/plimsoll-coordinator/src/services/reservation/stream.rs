//! `StreamReservations`: as many requests as are there go into the log together; answers go back as they come.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{Map, StreamExt};
use plimsoll_ledger::Answer;
use plimsoll_proto::v1;
use plimsoll_proto::v1::stream_reservations_request::Request as Change;
use plimsoll_proto::v1::stream_reservations_response::Response as Done;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::response;
use crate::services::api::Api;
use crate::services::edge::Actor;
use crate::services::intent::Intent;
use crate::services::problem::Problem;

/// Bytes of a request, or part of them, that take one place in the window of its stream.
const PLACE_BYTES: usize = 256;
/// Places of one stream, which its requests have from when they are read until their answers are; past this its requests are
/// left in the connection. The largest request has a quarter of them.
const WINDOW: usize = 16_384;
/// Most requests taken together, and places that are enough for now.
const MOST_TOGETHER: usize = 1_024;
const PLACES_TOGETHER: usize = 4_096;
/// Longest wait for the answers to what a broken stream had asked for.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// Answers that wait for the connection.
const ANSWERS: usize = 1_024;

type StreamAnswer = Result<v1::StreamReservationsResponse, Status>;
/// An answer with the places of its request, which are free once the connection has taken it.
type Held = (StreamAnswer, Option<OwnedSemaphorePermit>);
type Answers = mpsc::Sender<Held>;
/// Answers as the connection takes them.
pub(super) type Taken = Map<ReceiverStream<Held>, fn(Held) -> StreamAnswer>;

/// Serves one stream until the client ends it or leaves.
pub(super) fn serve(api: Api, actor: Actor, mut requests: Streaming<v1::StreamReservationsRequest>) -> Taken {
    let (answers, receiver) = mpsc::channel(ANSWERS);
    let window = Arc::new(Semaphore::new(WINDOW));
    tokio::spawn(async move {
        loop {
            let first = tokio::select! {
                biased;
                () = answers.closed() => return,
                first = requests.message() => first,
            };
            let Batch { requests: batch, places, end } = gather(first, &mut requests);
            if !batch.is_empty() {
                let Some(permits) = permits_of(&window, places, &answers).await else { return };
                tokio::spawn(answer(api.clone(), actor.clone(), batch, answers.clone(), permits));
            }
            match end {
                End::Open => {}
                End::Closed => return,
                End::Broken(status) => {
                    // What was taken is answered before: a status ends the answers. Where nobody reads them, that takes no longer.
                    let settled = permits_of(&window, WINDOW, &answers);
                    drop(tokio::time::timeout(LAST_ANSWERS, settled).await);
                    // Nobody may be left to read it, then it does not matter.
                    let _ = answers.send((Err(status), None)).await;
                    return;
                }
            }
        }
    });
    let taken: fn(Held) -> StreamAnswer = |(answer, _places)| answer;
    ReceiverStream::new(receiver).map(taken)
}

/// Requests that were there together, with the places that they take.
struct Batch {
    requests: Vec<v1::StreamReservationsRequest>,
    places: usize,
    end: End,
}

/// Whether more requests will come.
enum End {
    Open,
    Closed,
    Broken(Status),
}

type Message = Result<Option<v1::StreamReservationsRequest>, Status>;

/// Places that a request takes.
fn places_of(request: &v1::StreamReservationsRequest) -> usize {
    request.encoded_len().div_ceil(PLACE_BYTES).max(1)
}

/// The first request and those that are there already, up to as many as are taken together.
fn gather(first: Message, requests: &mut Streaming<v1::StreamReservationsRequest>) -> Batch {
    let (mut batch, mut places) = (Vec::new(), 0);
    let mut next = Some(first);
    while let Some(message) = next {
        match message {
            Ok(Some(request)) => {
                places += places_of(&request);
                batch.push(request);
            }
            Ok(None) => return Batch { requests: batch, places, end: End::Closed },
            Err(status) => return Batch { requests: batch, places, end: End::Broken(status) },
        }
        let is_enough = batch.len() >= MOST_TOGETHER || places >= PLACES_TOGETHER;
        next = if is_enough { None } else { requests.message().now_or_never() };
    }
    Batch { requests: batch, places, end: End::Open }
}

/// So many places; `None` where the client has gone.
async fn permits_of(
    window: &Arc<Semaphore>,
    places: usize,
    answers: &Answers,
) -> Option<OwnedSemaphorePermit> {
    let places = u32::try_from(places.min(WINDOW)).expect("a window is far below");
    tokio::select! {
        biased;
        () = answers.closed() => None,
        permits = Arc::clone(window).acquire_many_owned(places) => permits.ok(),
    }
}

async fn answer(
    api: Api,
    actor: Actor,
    batch: Vec<v1::StreamReservationsRequest>,
    answers: Answers,
    mut permits: OwnedSemaphorePermit,
) {
    let (mut kinds, mut intents) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for request in batch {
        kinds.push((request.sequence, places_of(&request), request.request.as_ref().map(Kind::of)));
        let change = request.request.ok_or_else(|| Problem::invalid("request", "is missing"));
        intents.push(change.and_then(|change| Intent::of_stream(&actor, change)));
    }
    let results = api.submit_many(intents).await;
    for ((sequence, places, kind), result) in kinds.into_iter().zip(results) {
        let response = result.and_then(|answer| respond(&api, kind, answer));
        let response = response.unwrap_or_else(|problem| Done::Failure(problem.into_failure()));
        let response = v1::StreamReservationsResponse { sequence, response: Some(response) };
        if answers.send((Ok(response), permits.split(places))).await.is_err() {
            return;
        }
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
