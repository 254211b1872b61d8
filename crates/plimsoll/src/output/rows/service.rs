//! Services and their endpoints as rows.

use plimsoll_client::v1::{
    EndpointLoad, EndpointState, Rightsizing, Service, ServiceEndpoint, ServiceStatus,
};
use serde_json::Value;

use super::{document, word};
use crate::output::{Column, Shown, ago};

/// A service with what it looks like now.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceRow {
    /// The service.
    pub(crate) service: Service,
    /// What it looks like.
    pub(crate) status: ServiceStatus,
    /// What its replicas should ask for; none in lists.
    pub(crate) rightsizing: Vec<Rightsizing>,
}

impl Shown for ServiceRow {
    const COLUMNS: &'static [Column<ServiceRow>] = &[
        Column::new("SERVICE", |s, _| s.service.name.clone()),
        Column::new("POOL", |s, _| s.service.pool.clone()),
        Column::new("CLASS", |s, _| s.service.class.clone()),
        Column::new("BALANCING", |s, _| s.balancing()),
        Column::new("SERVING", |s, _| s.status.serving.to_string()),
        Column::new("DRAINING", |s, _| s.status.draining.to_string()),
        Column::new("UNAVAILABLE", |s, _| s.status.unavailable.to_string()),
        Column::wide("REVISION", |s, _| s.service.revision.to_string()),
    ];

    fn id(&self) -> String {
        self.service.name.clone()
    }

    fn json(&self) -> Value {
        let mut service = document(&self.service);
        service["status"] = document(&self.status);
        if !self.rightsizing.is_empty() {
            service["rightsizing"] = Value::Array(self.rightsizing.iter().map(document).collect());
        }
        service
    }
}

impl ServiceRow {
    fn balancing(&self) -> String {
        let name = self.service.balancing().as_str_name().trim_start_matches("BALANCING_").to_lowercase();
        match self.service.load_bound_permille {
            0 => name,
            bound => format!("{name} up to {} x", f64::from(bound) / 1_000.0),
        }
    }
}

/// An endpoint and the service that it is of.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndpointRow {
    /// Name of the service.
    pub(crate) service: String,
    /// The endpoint.
    pub(crate) endpoint: ServiceEndpoint,
}

impl Shown for EndpointRow {
    const COLUMNS: &'static [Column<EndpointRow>] = &[
        Column::new("ENDPOINT", |e, _| e.address()),
        Column::new("SERVICE", |e, _| e.service.clone()),
        Column::new("STATE", |e, _| endpoint_state(e.endpoint.state())),
        Column::new("RESERVATION", |e, _| last_of(&e.endpoint.reservation)),
        Column::new("NODE", |e, _| e.endpoint.node.clone()),
        Column::new("LOAD", |e, _| {
            let said = e.load().filter(|load| !load.measured_only);
            said.map(|load| percent(load.utilization_permille)).unwrap_or_default()
        }),
        Column::new("IN FLIGHT", |e, _| e.load().map(|load| load.in_flight.to_string()).unwrap_or_default()),
        Column::new("QUEUE", |e, _| e.load().map(|load| load.queue_depth.to_string()).unwrap_or_default()),
        Column::new("SINCE", |e, view| {
            ago(e.endpoint.endpoint.as_ref().map_or(0, |endpoint| endpoint.since_time_ms), view.now_ms)
        }),
        Column::wide("WEIGHT", |e, _| {
            let weight = e.endpoint.endpoint.as_ref().and_then(|endpoint| endpoint.weight_milli);
            (f64::from(weight.unwrap_or(1_000)) / 1_000.0).to_string()
        }),
        Column::wide("ZONE", |e, _| {
            e.endpoint.endpoint.as_ref().map(|endpoint| endpoint.zone.clone()).unwrap_or_default()
        }),
        Column::wide("REQUESTS/S", |e, _| {
            e.load().map(|load| per_second(load.rate_milli)).unwrap_or_default()
        }),
        Column::wide("METRICS", |e, _| e.load().map(metrics).unwrap_or_default()),
        Column::wide("ERRORS/S", |e, _| {
            e.load().map(|load| per_second(load.errors_milli)).unwrap_or_default()
        }),
    ];

    fn id(&self) -> String {
        self.address()
    }

    fn json(&self) -> Value {
        let mut endpoint = document(&self.endpoint);
        endpoint["service"] = Value::String(self.service.clone());
        endpoint
    }
}

impl EndpointRow {
    fn address(&self) -> String {
        self.endpoint.endpoint.as_ref().map(|endpoint| endpoint.address.clone()).unwrap_or_default()
    }

    fn load(&self) -> Option<&EndpointLoad> {
        self.endpoint.load.as_ref()
    }
}

/// `serving`, `draining`, `unavailable`.
pub(crate) fn endpoint_state(state: EndpointState) -> String {
    word(state.as_str_name(), "ENDPOINT_STATE_")
}

fn last_of(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

/// `cpu=37 memory=80 tokens_per_s=12.5`.
fn metrics(load: &EndpointLoad) -> String {
    let one = |(name, milli): (&String, &u64)| format!("{name}={}", *milli as f64 / 1_000.0);
    load.metrics.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn percent(permille: u32) -> String {
    format!("{}%", permille / 10)
}

fn per_second(milli: u64) -> String {
    format!("{}.{}", milli / 1_000, milli % 1_000 / 100)
}
