//! `ReservationService`: reserve, hold, give back, look up.

mod list;
mod stream;
mod wait;

use plimsoll_ledger::{Answer, Command, Entry};
use plimsoll_proto::convert;
use plimsoll_proto::limits::MAX_BATCH;
use plimsoll_proto::v1;
use plimsoll_proto::v1::explain_reservation_request::Subject;
use plimsoll_proto::v1::reservation_service_server::ReservationService;
use plimsoll_scheduler::{Explanation, SingleChange, rank_of};
use plimsoll_types::Revision;
use tonic::{Request, Response, Status, Streaming};

use super::api::{Api, as_of};
use super::edge::Actor;
use super::intent::Intent;
use super::problem::Problem;
use super::{AnswerStream, explain, names, show, start};

/// The service.
#[derive(Clone)]
pub(super) struct Reservations {
    api: Api,
}

impl Reservations {
    pub(super) fn new(api: Api) -> Reservations {
        Reservations { api }
    }

    /// Drops suggestions that the rules of the cluster's validators refuse.
    fn keep_allowed(&self, explanation: &mut Explanation) {
        explanation.suggestions.retain(|suggestion| match &suggestion.change {
            SingleChange::Request(changed) => self.api.broken_rules(changed).is_empty(),
            SingleChange::Policy(object) => {
                let put = vec![(**object).clone()];
                let command = Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) };
                self.api.judge(&Entry::system(command)).is_ok()
            }
            SingleChange::Uncordon(_) | SingleChange::End(_) => true,
        });
    }

    async fn batch<T>(
        &self,
        request: Request<Vec<T>>,
        read: impl Fn(&Actor, T) -> Result<Intent, Problem>,
    ) -> Result<Vec<Result<Answer, Problem>>, Status> {
        let actor = Actor::of(&request);
        let requests = request.into_inner();
        if requests.is_empty() {
            return Err(Problem::invalid("requests", "is empty").into());
        }
        if requests.len() > MAX_BATCH {
            let what = format!("has {} requests, at most {MAX_BATCH} are taken in one call", requests.len());
            return Err(Problem::invalid("requests", what).into());
        }
        let intents = requests.into_iter().map(|request| read(&actor, request)).collect();
        Ok(self.api.submit_many(intents).await)
    }
}

/// The response to one mutating call.
macro_rules! response {
    ($api:expr, $answer:expr, $response:ident) => {{
        let answer = $answer;
        $api.reservation_of(&answer).map(|reservation| v1::$response {
            revision: answer.revision.0,
            log_time_ms: answer.log_time.0,
            reservation: Some(reservation),
        })
    }};
}
use response;

/// One mutating call: read it, do it, answer with the reservation.
macro_rules! change {
    ($self:ident, $request:ident, $read:expr, $response:ident) => {{
        let actor = Actor::of(&$request);
        let answer = $self.api.submit($read(&actor, $request.into_inner())?).await?;
        Ok(Response::new(response!($self.api, answer, $response)?))
    }};
}

/// One batch call: read all, do them together, answer each by itself.
macro_rules! batch {
    ($self:ident, $request:ident, $read:expr, $response:ident, $batch:ident, $result:ident, $one:ident) => {{
        let answers = $self.batch($request.map(|batch| batch.requests), $read).await?;
        let mut latest = (0, 0);
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            let response = answer.and_then(|answer| response!($self.api, answer, $response));
            let result = match response {
                Ok(response) => {
                    latest = latest.max((response.revision, response.log_time_ms));
                    v1::$one::Result::Response(response)
                }
                Err(problem) => v1::$one::Result::Failure(problem.into_failure()),
            };
            results.push(v1::$result { result: Some(result) });
        }
        Ok(Response::new(v1::$batch { revision: latest.0, log_time_ms: latest.1, results }))
    }};
}

#[tonic::async_trait]
impl ReservationService for Reservations {
    async fn create_reservation(
        &self,
        request: Request<v1::CreateReservationRequest>,
    ) -> Result<Response<v1::CreateReservationResponse>, Status> {
        change!(self, request, Intent::create, CreateReservationResponse)
    }

    async fn batch_create_reservations(
        &self,
        request: Request<v1::BatchCreateReservationsRequest>,
    ) -> Result<Response<v1::BatchCreateReservationsResponse>, Status> {
        batch!(
            self,
            request,
            Intent::create,
            CreateReservationResponse,
            BatchCreateReservationsResponse,
            BatchCreateReservationsResult,
            batch_create_reservations_result
        )
    }

    async fn confirm_reservation(
        &self,
        request: Request<v1::ConfirmReservationRequest>,
    ) -> Result<Response<v1::ConfirmReservationResponse>, Status> {
        change!(self, request, Intent::confirm, ConfirmReservationResponse)
    }

    async fn renew_reservation(
        &self,
        request: Request<v1::RenewReservationRequest>,
    ) -> Result<Response<v1::RenewReservationResponse>, Status> {
        change!(self, request, Intent::renew, RenewReservationResponse)
    }

    async fn batch_renew_reservations(
        &self,
        request: Request<v1::BatchRenewReservationsRequest>,
    ) -> Result<Response<v1::BatchRenewReservationsResponse>, Status> {
        batch!(
            self,
            request,
            Intent::renew,
            RenewReservationResponse,
            BatchRenewReservationsResponse,
            BatchRenewReservationsResult,
            batch_renew_reservations_result
        )
    }

    async fn resize_reservation(
        &self,
        request: Request<v1::ResizeReservationRequest>,
    ) -> Result<Response<v1::ResizeReservationResponse>, Status> {
        change!(self, request, Intent::resize, ResizeReservationResponse)
    }

    async fn release_reservation(
        &self,
        request: Request<v1::ReleaseReservationRequest>,
    ) -> Result<Response<v1::ReleaseReservationResponse>, Status> {
        change!(self, request, Intent::release, ReleaseReservationResponse)
    }

    async fn batch_release_reservations(
        &self,
        request: Request<v1::BatchReleaseReservationsRequest>,
    ) -> Result<Response<v1::BatchReleaseReservationsResponse>, Status> {
        batch!(
            self,
            request,
            Intent::release,
            ReleaseReservationResponse,
            BatchReleaseReservationsResponse,
            BatchReleaseReservationsResult,
            batch_release_reservations_result
        )
    }

    async fn cancel_reservation(
        &self,
        request: Request<v1::CancelReservationRequest>,
    ) -> Result<Response<v1::CancelReservationResponse>, Status> {
        change!(self, request, Intent::cancel, CancelReservationResponse)
    }

    async fn get_reservation(
        &self,
        request: Request<v1::GetReservationRequest>,
    ) -> Result<Response<v1::GetReservationResponse>, Status> {
        let request = request.into_inner();
        let view = self.api.read_at(request.consistency, request.min_revision, as_of!(request)).await?;
        let id = names::find_reservation(&view, &request.name)?;
        let reservation =
            view.reservation(id).ok_or_else(|| Problem::not_found("reservation", &request.name))?;
        let start = start::of(&self.api.core, &view, reservation);
        Ok(Response::new(v1::GetReservationResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            reservation: Some(v1::Reservation { start, ..self.api.show_whole(&view, reservation)? }),
            rank: rank_of(&view, reservation),
            queue_length: show::queue_length(&view, reservation),
        }))
    }

    async fn list_reservations(
        &self,
        request: Request<v1::ListReservationsRequest>,
    ) -> Result<Response<v1::ListReservationsResponse>, Status> {
        Ok(Response::new(list::list(&self.api, request.into_inner()).await?))
    }

    async fn explain_reservation(
        &self,
        request: Request<v1::ExplainReservationRequest>,
    ) -> Result<Response<v1::ExplainReservationResponse>, Status> {
        let actor = Actor::of(&request);
        let request = request.into_inner();
        let (consistency, min_revision) = (request.consistency, request.min_revision);
        let age_ms = self.api.read(consistency, min_revision).await?.age_ms();
        let (explanation, revision) = match request.subject {
            Some(Subject::Name(name)) => {
                let id = names::find_reservation(&self.api.local(), &name)?;
                let found = self.api.at_length(|| self.api.core.explain(id)).await;
                let mut found = found.ok_or_else(|| Problem::not_found("reservation", &name))?;
                self.keep_allowed(&mut found);
                let view = self.api.core.local();
                let whole = view.reservation(id).map(|known| self.api.core.whole(&view, known)).transpose();
                let whole = whole.map_err(Problem::from)?;
                let mut told = explain::of_reservation(&view, whole.as_deref(), &found);
                let start =
                    view.reservation(id).and_then(|waiting| start::of(&self.api.core, &view, waiting));
                told.expected_start_ms = start.as_ref().map_or(0, |start| start.start_time_ms);
                if let Some(shown) = &mut told.reservation {
                    shown.start = start;
                }
                (told, found.revision)
            }
            Some(Subject::Spec(spec)) => {
                let asked = convert::request_from_v1(&spec)
                    .map_err(|violations| Problem::fields("spec", violations))?;
                let explain = || self.api.core.explain_request(&asked, &actor.0);
                let mut found = self.api.at_length(explain).await;
                self.keep_allowed(&mut found);
                let mut shown = explain::of_request(&self.api.core.local(), &asked, &found);
                explain::refused_by_rules(&mut shown, self.api.broken_rules(&asked));
                (shown, found.revision)
            }
            None => return Err(Problem::invalid("name", "give either a name or a spec").into()),
        };
        Ok(Response::new(v1::ExplainReservationResponse {
            revision: revision.0,
            age_ms,
            explanation: Some(explanation),
        }))
    }

    type WaitReservationStream = AnswerStream<v1::WaitReservationResponse>;

    async fn wait_reservation(
        &self,
        request: Request<v1::WaitReservationRequest>,
    ) -> Result<Response<Self::WaitReservationStream>, Status> {
        let request = request.into_inner();
        let id = {
            let view = self.api.read(v1::Consistency::Linearizable.into(), 0).await?;
            names::find_reservation(&view, &request.name)?
        };
        Ok(Response::new(wait::wait(self.api.clone(), id, request.timeout_ms)))
    }

    type StreamReservationsStream = stream::Taken;

    async fn stream_reservations(
        &self,
        request: Request<Streaming<v1::StreamReservationsRequest>>,
    ) -> Result<Response<Self::StreamReservationsStream>, Status> {
        let actor = Actor::of(&request);
        Ok(Response::new(stream::serve(self.api.clone(), actor, request.into_inner())))
    }
}
