//! `WaitReservation`: how a request gets on, until it is granted or has ended.

use std::time::Duration;

use plimsoll_ledger::State;
use plimsoll_proto::v1;
use plimsoll_scheduler::rank_of;
use plimsoll_types::{ReservationId, Revision};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use crate::core::HistoryError;
use crate::services::api::Api;
use crate::services::problem::Problem;
use crate::services::{AnswerStream, show, start};

/// Longest wait of one call.
const MOST_WAIT: Duration = Duration::from_secs(24 * 3_600);
/// How often the place in the queue is looked at while nothing else happens.
const LOOK_AT_RANK: Duration = Duration::from_secs(1);
/// Changes that follow each other faster than this are told as one.
const PAUSE: Duration = Duration::from_millis(5);

type Answers = mpsc::Sender<Result<v1::WaitReservationResponse, Status>>;

/// Follows a reservation. `timeout_ms` 0 means for as long as the call lives.
pub(super) fn wait(
    api: Api,
    id: ReservationId,
    timeout_ms: u64,
) -> AnswerStream<v1::WaitReservationResponse> {
    let (answers, receiver) = mpsc::channel(4);
    let wait = if timeout_ms == 0 { MOST_WAIT } else { Duration::from_millis(timeout_ms).min(MOST_WAIT) };
    tokio::spawn(async move {
        let until = Instant::now() + wait;
        match follow(&api, id, until, &answers).await {
            Ok(Over::Settled) => {}
            // Nobody may be left to read it, then it does not matter.
            Ok(Over::TimeIsUp) => drop(answers.send(Err(Problem::deadline(wait, false).into())).await),
            Err(problem) => drop(answers.send(Err(problem.into())).await),
        }
    });
    AnswerStream::new(receiver)
}

/// Why following ended.
enum Over {
    /// It is no longer pending, or nobody listens.
    Settled,
    /// The wait is over.
    TimeIsUp,
}

async fn follow(api: &Api, id: ReservationId, until: Instant, answers: &Answers) -> Result<Over, Problem> {
    let mut told = (Revision(0), 0, 0);
    loop {
        // Opened before the look, so that no change falls between the two.
        let mut watcher = api.core.watch(Revision(0))?;
        let (response, is_over) = look(api, id)?;
        let shown = response.reservation.as_ref();
        let promise = shown.and_then(|shown| shown.start.as_ref()).filter(|start| start.promised);
        let promised_ms = promise.map_or(0, |start| start.start_time_ms);
        let news = (Revision(shown.map_or(0, |shown| shown.revision)), response.rank, promised_ms);
        if news != told && answers.send(Ok(response)).await.is_err() {
            return Ok(Over::Settled);
        }
        told = news;
        if is_over {
            return Ok(Over::Settled);
        }
        let look_again = Instant::now() + LOOK_AT_RANK;
        tokio::select! {
            biased;
            () = answers.closed() => return Ok(Over::Settled),
            records = watcher.next(1) => match records {
                Ok(_) | Err(HistoryError::Compacted { .. } | HistoryError::Future { .. }) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            },
            () = tokio::time::sleep_until(look_again.min(until)) => {}
        }
        if Instant::now() >= until {
            return Ok(Over::TimeIsUp);
        }
    }
}

/// How it stands, and whether there is nothing more to wait for.
fn look(api: &Api, id: ReservationId) -> Result<(v1::WaitReservationResponse, bool), Problem> {
    let view = api.local();
    let reservation =
        view.reservation(id).ok_or_else(|| Problem::not_found("reservation", &id.to_string()))?;
    let start = start::of(&api.core, &view, reservation);
    let response = v1::WaitReservationResponse {
        revision: view.revision().0,
        log_time_ms: view.log_time().0,
        reservation: Some(v1::Reservation { start, ..api.show_whole(&view, reservation)? }),
        rank: rank_of(&view, reservation),
        queue_length: show::queue_length(&view, reservation),
    };
    Ok((response, !matches!(reservation.state, State::Pending | State::Planned)))
}
