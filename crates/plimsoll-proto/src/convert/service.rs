//! Services and their endpoints.

use plimsoll_ledger::limits::{
    MAX_ADDRESS_BYTES, MAX_ENDPOINT_WEIGHT_MILLI, MAX_PRIORITY_LEVEL, MAX_SUBSET, MAX_TTL_MS,
};
use plimsoll_ledger::{
    Announcement, Balancing, DEFAULT_CLASS, DEFAULT_POOL, Endpoint, EndpointState, Ledger, Load, LoadReport,
    Reservation, Service, host_and_port,
};
use plimsoll_types::{ReservationId, Revision};

use super::check::Check;
use super::{Violation, node_name, reservation_name};
use crate::v1;

/// Thousandths of a weight that is not given.
const WHOLE_WEIGHT_MILLI: u32 = 1_000;

/// Both directions from one table.
macro_rules! balancings {
    ($($name:ident),+ $(,)?) => {
        /// How endpoints are chosen, as a message has it.
        pub fn balancing_to_v1(from: Balancing) -> v1::Balancing {
            match from {
                $(Balancing::$name => v1::Balancing::$name,)+
            }
        }

        /// The ledger's; the default for `Unspecified`, `None` for what is not known.
        pub fn balancing_from_v1(from: i32) -> Option<Balancing> {
            match v1::Balancing::try_from(from).ok()? {
                v1::Balancing::Unspecified => Some(Balancing::default()),
                $(v1::Balancing::$name => Some(Balancing::$name),)+
            }
        }
    };
}

balancings!(RoundRobin, LeastLoaded, Latency, Weighted, Affinity, Predictive);

/// A service from its message, with the names of pool and class filled in.
///
/// # Errors
/// Everything that is wrong with it.
pub fn service_from_v1(from: &v1::Service) -> Result<Service, Vec<Violation>> {
    let mut check = Check::new();
    let service = service(&mut check, from);
    check.finish(service)
}

/// A service as a message.
pub fn service_to_v1(from: &Service) -> v1::Service {
    v1::Service {
        name: from.name.clone(),
        labels: from.labels.clone(),
        pool: from.pool.clone(),
        class: from.class.clone(),
        balancing: balancing_to_v1(from.balancing).into(),
        load_bound_permille: from.load_bound_permille,
        subset_size: from.subset_size,
        slow_start_ms: from.slow_start_ms,
        revision: from.changed.0,
    }
}

/// What a service looks like now. O(its endpoints).
pub fn service_status(from: &Service, ledger: &Ledger) -> v1::ServiceStatus {
    let mut status = v1::ServiceStatus {
        endpoints_revision: ledger.endpoints_changed().0,
        ..v1::ServiceStatus::default()
    };
    for replica in ledger.endpoints(&from.name) {
        match ledger.endpoint_state(replica) {
            Some(EndpointState::Serving) => status.serving += 1,
            Some(EndpointState::Draining) => status.draining += 1,
            Some(EndpointState::Unavailable) | None => status.unavailable += 1,
        }
    }
    status
}

/// Where a replica says that it listens, from its message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn announcement_from_v1(from: &v1::Endpoint) -> Result<Announcement, Vec<Violation>> {
    let mut check = Check::new();
    check.text("address", &from.address, MAX_ADDRESS_BYTES);
    if host_and_port(&from.address).is_none() {
        check.fail("address", format!("{:?} is not host:port with a port from 1 to 65535", from.address));
    }
    check.short_text("zone", &from.zone);
    let weight_milli = from.weight_milli.unwrap_or(WHOLE_WEIGHT_MILLI);
    check.range("weight_milli", weight_milli.into(), 0, MAX_ENDPOINT_WEIGHT_MILLI.into());
    check.range("priority", from.priority.into(), 0, MAX_PRIORITY_LEVEL.into());
    let (priority, concurrency, draining) = (from.priority, from.concurrency, from.draining);
    let (address, zone) = (from.address.clone(), from.zone.clone());
    check.finish(Announcement { address, zone, weight_milli, priority, concurrency, draining })
}

/// Where a replica listens, as a message.
pub fn endpoint_to_v1(from: &Endpoint) -> v1::Endpoint {
    let Announcement { address, zone, weight_milli, priority, concurrency, draining } = &from.announced;
    v1::Endpoint {
        address: address.clone(),
        zone: zone.clone(),
        weight_milli: Some(*weight_milli),
        priority: *priority,
        concurrency: *concurrency,
        draining: *draining,
        since_time_ms: from.since.0,
    }
}

/// A reservation as an endpoint of its service; `None` where it is none.
pub fn service_endpoint_to_v1(from: &Reservation, ledger: &Ledger) -> Option<v1::ServiceEndpoint> {
    let endpoint = from.endpoint.as_deref()?;
    let state = match ledger.endpoint_state(from)? {
        EndpointState::Serving => v1::EndpointState::Serving,
        EndpointState::Draining => v1::EndpointState::Draining,
        EndpointState::Unavailable => v1::EndpointState::Unavailable,
    };
    Some(v1::ServiceEndpoint {
        reservation: reservation_name(&from.request.pool, from.id),
        node: from.members.first().map(|member| node_name(ledger, member.node)).unwrap_or_default(),
        endpoint: Some(endpoint_to_v1(endpoint)),
        state: state.into(),
        load: ledger.load(from.id).map(load_to_v1),
        token: from.token.0,
    })
}

/// A report of load from its message.
pub fn load_from_v1(reservation: ReservationId, from: &v1::EndpointLoad) -> LoadReport {
    LoadReport {
        reservation,
        utilization_permille: from.utilization_permille,
        rate_milli: from.rate_milli,
        errors_milli: from.errors_milli,
        in_flight: from.in_flight,
        queue_depth: from.queue_depth,
        latency_us: from.latency_us,
        metrics: from.metrics.clone(),
        measured_only: false,
    }
}

fn load_to_v1(from: &Load) -> v1::EndpointLoad {
    v1::EndpointLoad {
        utilization_permille: from.report.utilization_permille,
        rate_milli: from.report.rate_milli,
        errors_milli: from.report.errors_milli,
        in_flight: from.report.in_flight,
        queue_depth: from.report.queue_depth,
        latency_us: from.report.latency_us,
        report_time_ms: from.at.0,
        metrics: from.report.metrics.clone(),
        measured_only: from.report.measured_only,
    }
}

pub(super) fn service(check: &mut Check, from: &v1::Service) -> Service {
    let or_default = |name: &str, default: &str| if name.is_empty() { default } else { name }.to_owned();
    let (pool, class) = (or_default(&from.pool, DEFAULT_POOL), or_default(&from.class, DEFAULT_CLASS));
    check.name("name", &from.name);
    check.name("pool", &pool);
    check.name("class", &class);
    let balancing = balancing_from_v1(from.balancing).unwrap_or_else(|| {
        check.fail("balancing", format!("{} is not a policy", from.balancing));
        Balancing::default()
    });
    check.range_or_default("load_bound_permille", from.load_bound_permille.into(), 1_000, 100_000);
    check.range("subset_size", from.subset_size.into(), 0, MAX_SUBSET.into());
    check.range("slow_start_ms", from.slow_start_ms, 0, MAX_TTL_MS);
    Service {
        name: from.name.clone(),
        labels: check.labels("labels", &from.labels),
        pool,
        class,
        balancing,
        load_bound_permille: from.load_bound_permille,
        subset_size: from.subset_size,
        slow_start_ms: from.slow_start_ms,
        changed: Revision(0),
    }
}
