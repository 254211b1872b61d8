//! Services: who answers requests together. Their endpoints are leases.
//!
//! An endpoint is part of its reservation, so it leaves in the very entry in which the lease ends, and stops taking requests in the one in which
//! the lease is given notice or its node drains. `docs/semantics.md` 5.7.

use std::collections::BTreeMap;

use plimsoll_types::{Labels, LedgerTime, ReservationId, Revision};

use crate::limits::{
    MAX_ADDRESS_BYTES, MAX_ENDPOINT_WEIGHT_MILLI, MAX_ITEMS, MAX_METRIC_BYTES, MAX_METRICS,
    MAX_PRIORITY_LEVEL, MAX_SUBSET, MAX_TTL_MS,
};
use crate::{Blocker, Reason};

/// First ledger version that knows services.
pub(crate) const SINCE_VERSION: u32 = 5;

/// Endpoints that answer the same requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Unique name.
    pub name: String,
    /// Labels of the service itself.
    pub labels: Labels,
    /// Pool that its replicas are in.
    pub pool: String,
    /// Class that they are of.
    pub class: String,
    /// How an endpoint is chosen for a request.
    pub balancing: Balancing,
    /// With `Affinity`: most load of an endpoint, in thousandths of the mean; 0 for the balancer's own bound.
    pub load_bound_permille: u32,
    /// Most endpoints that one client uses; 0 for all.
    pub subset_size: u32,
    /// Over which a new endpoint comes to its full weight, in milliseconds; 0 for at once.
    pub slow_start_ms: u64,
    /// Revision of the latest change.
    pub changed: Revision,
}

/// How an endpoint is chosen; `docs/load-balancing.md` says what each does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Balancing {
    /// In turns, by weight.
    RoundRobin,
    /// Of two at random the one with fewer requests outstanding.
    #[default]
    LeastLoaded,
    /// Of two at random the one that answers sooner.
    Latency,
    /// In turns, by the load that endpoints report.
    Weighted,
    /// The one that the request's key belongs to, up to a bound on its load.
    Affinity,
    /// The one that is expected to be done first.
    Predictive,
}

impl Balancing {
    /// All of them, by the names that people write.
    pub const NAMED: [(&str, Balancing); 6] = [
        ("round_robin", Balancing::RoundRobin),
        ("least_loaded", Balancing::LeastLoaded),
        ("latency", Balancing::Latency),
        ("weighted", Balancing::Weighted),
        ("affinity", Balancing::Affinity),
        ("predictive", Balancing::Predictive),
    ];
}

/// Where a replica says that it listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// `host:port`, an IPv6 host in brackets. Unique among the endpoints of a service.
    pub address: String,
    /// Part of the network that it is in; may be empty.
    pub zone: String,
    /// Share of the requests beside other endpoints', in thousandths; 0 for none.
    pub weight_milli: u32,
    /// Level that it is in: those of level 0 are used first, the next as those do not suffice.
    pub priority: u32,
    /// Requests that it serves at once; 0 where it does not say.
    pub concurrency: u32,
    /// It finishes what it has and takes nothing new.
    pub draining: bool,
}

/// An endpoint: a replica's word, and since when it is known at that address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The replica's word.
    pub announced: Announcement,
    /// When it was first announced at this address.
    pub since: LedgerTime,
}

/// Whether an endpoint takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointState {
    /// Yes.
    Serving,
    /// It finishes what it has: by its own word, since its lease was given notice, or since its node is drained.
    Draining,
    /// Its lease is not confirmed, or its node is silent.
    Unavailable,
}

impl EndpointState {
    /// Lower-case name, as screens and files show it.
    pub fn name(self) -> &'static str {
        match self {
            EndpointState::Serving => "serving",
            EndpointState::Draining => "draining",
            EndpointState::Unavailable => "unavailable",
        }
    }
}

/// What an endpoint says of its load. The leader quantizes reports before they are written (`docs/load-balancing.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Whose.
    pub reservation: ReservationId,
    /// Of what it can do, in thousandths; above 1,000 where it is overloaded.
    pub utilization_permille: u32,
    /// Requests answered, in thousandths a second.
    pub rate_milli: u64,
    /// Of them failed, in thousandths a second.
    pub errors_milli: u64,
    /// Requests that it works on.
    pub in_flight: u32,
    /// Requests that wait for it.
    pub queue_depth: u32,
    /// Time of an answer, in microseconds; 0 where none was measured.
    pub latency_us: u64,
    /// What else was measured, in thousandths, by name: of [`MEASURED`] by its node, everything else by its own word. From ledger version 16 on.
    pub metrics: BTreeMap<String, u64>,
    /// It said nothing itself: but for the metrics of its node nothing is known, and the numbers above say nothing. From ledger version 16 on.
    pub measured_only: bool,
}

impl LoadReport {
    /// What an endpoint said that said nothing.
    pub fn silent(reservation: ReservationId) -> LoadReport {
        LoadReport { reservation, measured_only: true, ..LoadReport::default() }
    }

    /// Processor time that its node measured, in thousandths of what it was granted.
    pub fn cpu_permille(&self) -> Option<u32> {
        let parts = self.metrics.get("cpu")?;
        Some(u32::try_from(parts / 100).unwrap_or(u32::MAX))
    }

    /// How much of what it can do it does, in thousandths, by its own word; where it has none, by its processors.
    pub fn utilization(&self) -> Option<u32> {
        match self.measured_only {
            true => self.cpu_permille(),
            false => Some(self.utilization_permille),
        }
    }

    /// True where it says what ledgers before version 16 do not know.
    pub fn names_metrics(&self) -> bool {
        self.measured_only || !self.metrics.is_empty()
    }
}

/// Names of what an endpoint's node measures, each in percent of what the endpoint was granted: processor time, memory, device time.
pub const MEASURED: [&str; 3] = ["cpu", "memory", "gpu"];

/// First ledger version in which reports of load name metrics.
pub const METRICS_SINCE_VERSION: u32 = 16;

/// The latest report of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// What it said.
    pub report: LoadReport,
    /// When that was written.
    pub at: LedgerTime,
}

/// Everything that is wrong with the metrics of a report.
pub(crate) fn validate_metrics(report: &LoadReport) -> Vec<Blocker> {
    let (count, longest) =
        (report.metrics.len(), report.metrics.keys().map(String::len).max().unwrap_or_default());
    let checks = [("metrics", count, MAX_METRICS), ("metrics: a name", longest, MAX_METRIC_BYTES)];
    let beyond = checks.into_iter().filter(|(_, value, most)| value > most);
    let blocker = |(field, value, most): (&str, usize, usize)| {
        let subject = format!("{field} of {}", report.reservation);
        Blocker {
            limit: most as u64,
            ..Blocker::new(Reason::InvalidArgument, subject, value as u64, most as u64)
        }
    };
    beyond.map(blocker).collect()
}

/// Every bound that a service breaks: field, value given, least and most.
pub(crate) fn service_bounds(service: &Service) -> Vec<(&'static str, u64, u64, u64)> {
    let mut found = vec![
        ("service.labels", service.labels.len() as u64, 0, MAX_ITEMS as u64),
        ("service.subset_size", service.subset_size.into(), 0, MAX_SUBSET.into()),
        ("service.slow_start_ms", service.slow_start_ms, 0, MAX_TTL_MS),
    ];
    if service.load_bound_permille != 0 {
        // Below its mean no bound can hold; above a hundred times it is none.
        found.push(("service.load_bound_permille", service.load_bound_permille.into(), 1_000, 100_000));
    }
    found.retain(|(_, value, least, most)| value < least || value > most);
    found
}

/// Every way in which an announcement makes no sense.
pub(crate) fn validate_announcement(announced: &Announcement) -> Vec<Blocker> {
    let mut bad = Vec::new();
    let mut bound = |field: &str, value: u64, most: u64| {
        if value > most {
            bad.push(Blocker { limit: most, ..Blocker::new(Reason::InvalidArgument, field, value, most) });
        }
    };
    bound("endpoint.address", announced.address.len() as u64, MAX_ADDRESS_BYTES as u64);
    bound("endpoint.zone", announced.zone.len() as u64, 63);
    bound("endpoint.priority", announced.priority.into(), MAX_PRIORITY_LEVEL.into());
    bound("endpoint.weight_milli", announced.weight_milli.into(), MAX_ENDPOINT_WEIGHT_MILLI.into());
    if host_and_port(&announced.address).is_none() {
        let subject = format!("endpoint.address {:?} is not host:port", announced.address);
        bad.push(Blocker::new(Reason::InvalidArgument, subject, 1, 0));
    }
    bad
}

/// Host (without brackets) and port of an address; `None` where it is not one.
pub fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| digits && *port > 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|inner| inner.contains(':'))?,
        None => Some(host).filter(|plain| !plain.contains([':', ']']))?,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    (!host.is_empty() && host.chars().all(plain)).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let good =
            [("10.0.0.7:8000", "10.0.0.7", 8000), ("a-1.b:1", "a-1.b", 1), ("[fe80::1]:80", "fe80::1", 80)];
        for (address, host, port) in good {
            assert_eq!(host_and_port(address), Some((host, port)), "{address}");
        }
        for bad in [
            "",
            "a",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a b:1",
            "fe80::1:80",
            "[a]:1",
            "[::1:80",
            "a]:1",
        ] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }
}
