//! `EndpointService`: where replicas of services listen, who is picked for a request, and how loaded they are.

mod follow;
mod picks;

use std::sync::Arc;
use std::time::Duration;

use plimsoll_consensus::Dialer;
use plimsoll_ledger::limits::{MAX_METRIC_BYTES, MAX_METRICS};
use plimsoll_ledger::{Command, Ledger, Reservation};
use plimsoll_proto::convert;
use plimsoll_proto::v1::endpoint_service_client::EndpointServiceClient;
use plimsoll_proto::v1::endpoint_service_server::EndpointService;
use plimsoll_proto::v1::{self, ErrorReason};
use plimsoll_types::Revision;
use prost::Message;
use tonic::{Request, Response, Status};

use super::AnswerStream;
use super::api::{Api, as_of};
use super::edge::Actor;
use super::intent::Intent;
use super::names;
use super::problem::Problem;
use picks::Picks;

/// Most reports or outcomes in one call.
pub(super) const MOST_REPORTS: usize = 1_000;
/// Longest wait for the leader to hear of what was turned away.
const TELL_WITHIN: Duration = Duration::from_secs(2);
/// Most blocks of a prompt.
const MOST_BLOCKS: usize = 4_096;

/// The service.
#[derive(Clone)]
pub(super) struct Endpoints {
    api: Api,
    picks: Arc<Picks>,
    dialer: Arc<dyn Dialer>,
}

impl Endpoints {
    pub(super) fn new(api: Api, dialer: Arc<dyn Dialer>) -> Endpoints {
        let picks = Arc::new(Picks::new(api.core.config().seed));
        Endpoints { api, picks, dialer }
    }

    /// A request was turned away: whoever leads is to know, since nobody else would say so of a service without replicas. What does not arrive is said of the
    /// next one.
    fn turn_away(&self, service: &str) {
        let untold = self.api.core.turned_away().note_here(service);
        let leader = self.api.core.leader_address().filter(|(id, _)| *id != self.api.core.node_id());
        let Some((_, address)) = leader.filter(|_| !untold.is_empty()) else { return };
        let turned_away =
            untold.into_iter().map(|(service, requests)| v1::TurnedAway { service, requests }).collect();
        let mut client = EndpointServiceClient::new(self.dialer.channel(&address));
        tokio::spawn(async move {
            let told = client.report_load(v1::ReportLoadRequest { reports: Vec::new(), turned_away });
            if !matches!(tokio::time::timeout(TELL_WITHIN, told).await, Ok(Ok(_))) {
                tracing::debug!(address, "the leader was not told of requests that found no endpoint");
            }
        });
    }
}

#[tonic::async_trait]
impl EndpointService for Endpoints {
    async fn set_endpoint(
        &self,
        request: Request<v1::SetEndpointRequest>,
    ) -> Result<Response<v1::SetEndpointResponse>, Status> {
        let actor = Actor::of(&request);
        let mut request = request.into_inner();
        let request_id = std::mem::take(&mut request.request_id);
        let validate_only = std::mem::take(&mut request.validate_only);
        let reservation = names::reservation(&request.name)?;
        let announced = match &request.endpoint {
            None => None,
            Some(endpoint) => Some(
                convert::announcement_from_v1(endpoint)
                    .map_err(|violations| Problem::fields("endpoint", violations))?,
            ),
        };
        let command = Command::SetEndpoint { reservation, token: Revision(request.token), announced };
        let intent =
            Intent::of_command(&actor, "set-endpoint", request_id, validate_only, &request, command)?;
        let answer = self.api.submit(intent).await?;
        Ok(Response::new(v1::SetEndpointResponse {
            revision: answer.revision.0,
            log_time_ms: answer.log_time.0,
            reservation: Some(self.api.reservation_of(&answer)?),
        }))
    }

    async fn list_endpoints(
        &self,
        request: Request<v1::ListEndpointsRequest>,
    ) -> Result<Response<v1::ListEndpointsResponse>, Status> {
        let mut request = request.into_inner();
        let (size, token) = (std::mem::take(&mut request.page_size), std::mem::take(&mut request.page_token));
        let min_revision = std::mem::take(&mut request.min_revision);
        let page = self.api.page(size, &token, &request.encode_to_vec())?;
        let service = names::object("services", &request.service)?;
        let min_revision = min_revision.max(page.revision.0);
        let view = self.api.read_at(request.consistency, min_revision, as_of!(request)).await?;
        let after = page.after_name()?;
        if view.service(service).is_none() {
            return Err(Problem::not_found("service", service).into());
        }
        let replicas = view.endpoints(service).filter(|replica| address(replica) > after);
        let replicas: Vec<&Arc<Reservation>> = replicas.take(page.size + 1).collect();
        let more = replicas.len() > page.size;
        let shown = &replicas[..replicas.len().min(page.size)];
        let last = shown.last().filter(|_| more).map(|replica| address(replica).as_bytes());
        Ok(Response::new(v1::ListEndpointsResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            endpoints: shown.iter().filter_map(|one| convert::service_endpoint_to_v1(one, &view)).collect(),
            next_page_token: last.map(|last| page.next(last, view.revision())).unwrap_or_default(),
        }))
    }

    type WatchEndpointsStream = AnswerStream<v1::WatchEndpointsResponse>;

    async fn watch_endpoints(
        &self,
        request: Request<v1::WatchEndpointsRequest>,
    ) -> Result<Response<Self::WatchEndpointsStream>, Status> {
        let request = request.into_inner();
        let service = names::object("services", &request.service)?.to_owned();
        drop(self.api.read(v1::Consistency::Stale.into(), request.min_revision).await?);
        Ok(Response::new(follow::follow(self.api.clone(), service)))
    }

    async fn pick_endpoint(
        &self,
        request: Request<v1::PickEndpointRequest>,
    ) -> Result<Response<v1::PickEndpointResponse>, Status> {
        let request = request.into_inner();
        let service = names::object("services", &request.service)?;
        check_count("finished", request.finished.len(), MOST_REPORTS)?;
        check_count("blocks", request.blocks.len(), MOST_BLOCKS)?;
        let view = self.api.read(v1::Consistency::Stale.into(), request.min_revision).await?;
        let now_us = self.api.core.clock().now_ms().saturating_mul(1_000);
        self.picks.finish(now_us, &request.finished);
        let picked = self.picks.pick(&view, service, now_us, &request);
        drop(view);
        if picked.as_ref().is_err_and(|problem| problem.reason() == ErrorReason::NoEndpoint) {
            self.turn_away(service);
        }
        Ok(Response::new(picked?))
    }

    async fn finish_picks(
        &self,
        request: Request<v1::FinishPicksRequest>,
    ) -> Result<Response<v1::FinishPicksResponse>, Status> {
        let request = request.into_inner();
        check_count("finished", request.finished.len(), MOST_REPORTS)?;
        let now_us = self.api.core.clock().now_ms().saturating_mul(1_000);
        let known = self.picks.finish(now_us, &request.finished);
        Ok(Response::new(v1::FinishPicksResponse { revision: self.api.local().revision().0, known }))
    }

    async fn report_load(
        &self,
        request: Request<v1::ReportLoadRequest>,
    ) -> Result<Response<v1::ReportLoadResponse>, Status> {
        let request = request.into_inner();
        check_count("reports", request.reports.len(), MOST_REPORTS)?;
        check_count("turned_away", request.turned_away.len(), MOST_REPORTS)?;
        let (revision, read): (_, Vec<_>) = {
            let view = self.api.local();
            let book = self.api.core.turned_away();
            book.retain(|service| view.service(service).is_some());
            for one in request.turned_away.iter().filter(|one| view.service(&one.service).is_some()) {
                book.note(&one.service, one.requests);
            }
            let read = request.reports.iter().map(|report| self::report(&view, report)).collect();
            (view.revision().0, read)
        };
        self.api.core.loads().take_in(read.iter().filter_map(|report| report.as_ref().ok().cloned()));
        let results = read
            .into_iter()
            .map(|report| v1::LoadReportResult { failure: report.err().map(Problem::into_failure) });
        Ok(Response::new(v1::ReportLoadResponse { revision, results: results.collect() }))
    }
}

/// Where the report belongs, or why it does not count.
pub(super) fn report(
    ledger: &Ledger,
    report: &v1::LoadReport,
) -> Result<plimsoll_ledger::LoadReport, Problem> {
    let id = names::reservation(&report.name)?;
    let replica = ledger.reservation(id).ok_or_else(|| Problem::not_found("reservation", &report.name))?;
    if replica.token.0 != report.token || report.token == 0 {
        let message = format!("{id}: token {} given, {} is the current one", report.token, replica.token);
        return Err(Problem::new(ErrorReason::Fenced, message));
    }
    if replica.endpoint.is_none() {
        let message = format!("{id} is no endpoint: it said of no service where it listens");
        return Err(Problem::new(ErrorReason::WrongState, message));
    }
    let load = report.load.as_ref().ok_or_else(|| Problem::invalid("load", "is missing"))?;
    check_count("load.metrics", load.metrics.len(), MAX_METRICS)?;
    let too_long = |name: &&String| name.is_empty() || name.len() > MAX_METRIC_BYTES;
    if let Some(name) = load.metrics.keys().find(too_long) {
        let message = format!("the name {name:?} has not 1 to {MAX_METRIC_BYTES} bytes");
        return Err(Problem::invalid("load.metrics", message));
    }
    Ok(convert::load_from_v1(id, load))
}

fn address(replica: &Reservation) -> &str {
    replica.endpoint.as_deref().map_or("", |endpoint| endpoint.announced.address.as_str())
}

fn check_count(field: &str, count: usize, most: usize) -> Result<(), Problem> {
    if count <= most {
        return Ok(());
    }
    Err(Problem::invalid(field, format!("at most {most} are taken, {count} are given")))
}
