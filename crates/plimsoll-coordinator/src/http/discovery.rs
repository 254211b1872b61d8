//! Endpoints of services for Prometheus' HTTP service discovery: one group of targets for each endpoint of an active lease, those that drain
//! included, since they still work.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use plimsoll_ledger::{EndpointState, Ledger, Reservation, Service};
use serde_json::{Value, json};

use super::Shown;

/// `/sd/prometheus`: endpoints of all services.
pub(super) async fn all(State(shown): State<Shown>) -> Json<Value> {
    let ledger = shown.core.local();
    Json(ledger.services().flat_map(|service| targets(&ledger, service)).collect())
}

/// `/sd/prometheus/SERVICE`: those of one. A service that is not there is 404, so that Prometheus keeps what it had.
pub(super) async fn one(State(shown): State<Shown>, Path(name): Path<String>) -> Response {
    let ledger = shown.core.local();
    match ledger.service(&name) {
        Some(service) => Json(targets(&ledger, service)).into_response(),
        None => (StatusCode::NOT_FOUND, format!("there is no service {name:?}\n")).into_response(),
    }
}

fn targets(ledger: &Ledger, service: &Service) -> Vec<Value> {
    ledger.endpoints(&service.name).filter_map(|replica| target(ledger, service, replica)).collect()
}

fn target(ledger: &Ledger, service: &Service, replica: &Reservation) -> Option<Value> {
    let state = ledger.endpoint_state(replica).filter(|state| *state != EndpointState::Unavailable)?;
    let announced = &replica.endpoint.as_ref()?.announced;
    let node = replica.members.first().and_then(|member| ledger.node_name(member.node)).unwrap_or_default();
    Some(json!({
        "targets": [announced.address],
        "labels": {
            "__meta_plimsoll_service": service.name,
            "__meta_plimsoll_state": state.name(),
            "__meta_plimsoll_reservation": replica.id.to_string(),
            "__meta_plimsoll_pool": replica.request.pool,
            "__meta_plimsoll_node": node,
            "__meta_plimsoll_zone": announced.zone,
        },
    }))
}
