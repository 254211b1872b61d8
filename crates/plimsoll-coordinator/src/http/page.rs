//! The small page at `/`: text for people, JSON where it is asked for.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Shown;
use crate::telemetry::{PoolCapacity, capacities};

/// `?format=json`.
#[derive(Deserialize)]
pub(super) struct Asked {
    format: Option<String>,
}

/// What the page says.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    cluster: String,
    node_id: u64,
    role: &'static str,
    leader: Option<Leader>,
    term: u64,
    revision: u64,
    applied_index: u64,
    committed_index: u64,
    serving: bool,
    agents: u64,
    reservations: BTreeMap<&'static str, u64>,
    pools: BTreeMap<String, PoolCapacity>,
}

#[derive(Serialize)]
struct Leader {
    id: u64,
    address: String,
}

pub(super) async fn status(
    State(shown): State<Shown>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let status = status_of(&shown);
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if asked.format.as_deref() == Some("json") || accepts.contains("application/json") {
        axum::Json(status).into_response()
    } else {
        text(&status).into_response()
    }
}

fn status_of(shown: &Shown) -> Status {
    let status = shown.core.status();
    let (reservations, pools) = {
        let view = shown.core.local();
        let counts = view.counts().iter().filter(|(_, count)| **count > 0);
        (counts.map(|(state, count)| (state.name(), *count)).collect(), capacities(&view))
    };
    Status {
        version: env!("CARGO_PKG_VERSION"),
        cluster: status.cluster_id,
        node_id: shown.core.node_id(),
        role: if shown.core.is_leader() { "leader" } else { "follower" },
        leader: shown.core.leader_address().map(|(id, address)| Leader { id, address }),
        term: status.group.term,
        revision: status.revision.0,
        applied_index: status.group.applied,
        committed_index: status.group.committed,
        serving: status.serving,
        agents: status.agents,
        reservations,
        pools,
    }
}

fn text(status: &Status) -> String {
    let mut page = String::new();
    let leader = status.leader.as_ref().map_or_else(
        || "no leader is known".to_owned(),
        |leader| format!("leader {} at {}", leader.id, leader.address),
    );
    // Writing to a string cannot fail.
    let _ =
        writeln!(page, "Plimsoll {} coordinator {} of {}", status.version, status.node_id, status.cluster);
    let _ = writeln!(page, "{} in term {}, {leader}", status.role, status.term);
    let _ = writeln!(
        page,
        "revision {}, applied {} of {}\n",
        status.revision, status.applied_index, status.committed_index
    );
    for (state, count) in &status.reservations {
        let _ = writeln!(page, "reservations {state:<10} {count}");
    }
    for (pool, capacity) in &status.pools {
        for (resource, split) in &capacity.resources {
            let _ = write!(
                page,
                "pool {pool} {resource}: granted {} free {} lost {}",
                split.granted, split.free, split.lost
            );
            if split.best_effort > 0 {
                let _ = write!(page, " best effort {}", split.best_effort);
            }
            page.push('\n');
        }
    }
    page.push_str("\n/metrics  /healthz  /readyz  /?format=json\n");
    page
}
