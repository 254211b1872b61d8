//! What clients are told: services, their endpoints, and how to choose among them.
//!
//! A catalog is whole and never changes; the coordinator publishes a new one, with a higher revision, for each change.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Longest name of a service, in bytes: a name is the target of `xds:///NAME`.
pub const MOST_NAME_BYTES: usize = 253;

/// All services at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    revision: u64,
    services: BTreeMap<String, Arc<Service>>,
}

impl Catalog {
    /// A catalog with nothing in it, older than every other.
    pub fn empty() -> Catalog {
        Catalog::default()
    }

    /// The services of one revision. Services that did not change should be the same `Arc` as before: then nothing is made anew for them.
    ///
    /// `revision` grows with every published change, also one that is none of the ledger's, such as an endpoint's health.
    ///
    /// # Errors
    /// Where a service cannot have its name, or an endpoint cannot be connected to.
    pub fn new(
        revision: u64,
        services: impl IntoIterator<Item = (String, Arc<Service>)>,
    ) -> Result<Catalog, CatalogError> {
        let services: BTreeMap<String, Arc<Service>> = services.into_iter().collect();
        for (name, service) in &services {
            check(name, service)?;
        }
        Ok(Catalog { revision, services })
    }

    /// Grows with each change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Services by name.
    pub fn services(&self) -> &BTreeMap<String, Arc<Service>> {
        &self.services
    }
}

/// A service that is not there is no target; one without endpoints is, and its callers wait or fail at once as they chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Only those whose lease is active. Of two with one address the first counts.
    pub endpoints: Vec<Endpoint>,
    /// How clients choose.
    pub policy: Policy,
    /// What the endpoints speak; gRPC clients need [`Protocol::Grpc`].
    pub protocol: Protocol,
    /// With [`Policy::Affinity`]: most load of an endpoint, in percent of the mean, at least 100; `None` for the usual one. Envoy only.
    pub load_bound_percent: Option<u32>,
    /// When clients leave alone what fails; `None` for never.
    pub ejection: Option<Ejection>,
}

/// Ejection of endpoints that fail far more than the others, each client by its own calls (gRFC A50, Envoy's outlier detection).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Time between two looks.
    pub interval_ms: u32,
    /// An ejection takes so long, times how often the endpoint was ejected.
    pub base_ms: u32,
    /// But not longer than this.
    pub max_ms: u32,
    /// Most of the endpoints that are ejected at once, in percent; one always may be.
    pub max_percent: u32,
    /// Of those that succeed less than the mean by so many thousandths of the deviation.
    pub success_rate: Option<EjectionRule>,
    /// Of those that fail more than so many percent of their calls.
    pub failure_percentage: Option<EjectionRule>,
}

/// Beyond which an endpoint is an outlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionRule {
    /// The bound, in the unit of the rule.
    pub bound: u32,
    /// Chance that an outlier is ejected, in percent.
    pub enforcement_percent: u32,
    /// Endpoints with enough calls that it takes.
    pub least_endpoints: u32,
    /// Calls in an interval that are enough.
    pub least_calls: u32,
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// An IP address: stock clients resolve no names of endpoints, and reject all of a service's endpoints for one that has a name.
    pub address: IpAddr,
    /// Never 0.
    pub port: u16,
    /// Share of the requests, in thousandths of a usual endpoint. With 0 it takes no new ones, as if it were draining.
    pub weight_milli: u32,
    /// Whether it takes requests.
    pub health: Health,
    /// Where it is, for clients that prefer near ones, and in load reports.
    pub zone: Option<String>,
    /// Level: 0 is used first, a higher one where lower ones are not well. Clients are sent levels without gaps.
    pub priority: u32,
}

impl Endpoint {
    /// One that serves, with the usual weight, at the first level.
    pub fn serving(address: SocketAddr) -> Endpoint {
        Endpoint {
            address: address.ip(),
            port: address.port(),
            weight_milli: 1000,
            health: Health::Serving,
            zone: None,
            priority: 0,
        }
    }

    /// Where to connect.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// True where new requests may go there.
    pub fn takes_requests(&self) -> bool {
        self.health == Health::Serving && self.weight_milli > 0
    }
}

/// Whether an endpoint takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It is failing.
    Unhealthy,
}

/// How clients choose among the endpoints of a service. `docs/stock-clients.md` says which client does what with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// In turns, by weight.
    #[default]
    RoundRobin,
    /// Of two at random the one with fewer requests outstanding; clients that cannot take turns.
    LeastLoaded,
    /// In turns, by what the endpoints report of their load (ORCA).
    Weighted(Reports),
    /// Equal values of a request header to one endpoint.
    Affinity {
        /// Name of the header, in lower case.
        header: String,
    },
}

/// How reports become weights: weight = requests per second / (utilization + errors per second / requests per second × penalty) (gRFC A58).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reports {
    /// An endpoint's reports count after this time of them.
    pub blackout_ms: u32,
    /// They count until this time after the last one.
    pub expiry_ms: u32,
    /// Pause between two computations of the weights. Clients take 100 ms at least.
    pub update_ms: u32,
    /// Weight of errors, in thousandths.
    pub error_penalty_milli: u32,
}

impl Default for Reports {
    /// The defaults of gRFC A58.
    fn default() -> Reports {
        Reports { blackout_ms: 10_000, expiry_ms: 180_000, update_ms: 1_000, error_penalty_milli: 1_000 }
    }
}

/// What the endpoints of a service speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 without TLS, as gRPC has it.
    #[default]
    Grpc,
    /// HTTP/1.1: reached through Envoy or HAProxy only.
    Http1,
}

/// A catalog that cannot be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// The name would not survive as a target.
    #[error(
        "service {name:?} cannot be offered: a name is 1 to {MOST_NAME_BYTES} letters, digits, '.', '_' or '-'; this has {bytes} bytes"
    )]
    Name {
        /// As given.
        name: String,
        /// Its length.
        bytes: usize,
    },
    /// Nobody can connect there.
    #[error("endpoint {address} of service {service:?} cannot be offered: {problem}")]
    Endpoint {
        /// Whose.
        service: String,
        /// Which.
        address: SocketAddr,
        /// Why.
        problem: &'static str,
    },
    /// The header could not be sent.
    #[error("service {service:?} cannot have affinity by the header {header:?}: {problem}")]
    Header {
        /// Whose.
        service: String,
        /// As given.
        header: String,
        /// Why.
        problem: &'static str,
    },
}

fn check(name: &str, service: &Service) -> Result<(), CatalogError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > MOST_NAME_BYTES || !name.bytes().all(plain) {
        return Err(CatalogError::Name { name: name.to_owned(), bytes: name.len() });
    }
    for endpoint in &service.endpoints {
        let problem = if endpoint.port == 0 {
            "its port is 0"
        } else if endpoint.address.is_unspecified() || endpoint.address.is_multicast() {
            "its address is not one machine's"
        } else {
            continue;
        };
        return Err(CatalogError::Endpoint {
            service: name.to_owned(),
            address: endpoint.socket_address(),
            problem,
        });
    }
    if let Policy::Affinity { header } = &service.policy {
        let token = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.')
        };
        let problem = if header.is_empty() || header.len() > MOST_NAME_BYTES || !header.bytes().all(token) {
            "it is not a name of 1 to 253 lower-case letters, digits, '.', '_' or '-'"
        } else if header.ends_with("-bin") || header.starts_with("grpc-") {
            "gRPC clients do not hash binary headers and those of the protocol"
        } else {
            return Ok(());
        };
        return Err(CatalogError::Header { service: name.to_owned(), header: header.clone(), problem });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(endpoint: Endpoint) -> Arc<Service> {
        Arc::new(Service { endpoints: vec![endpoint], ..Service::default() })
    }

    #[test]
    fn a_name_that_is_no_target_is_refused_with_its_length() {
        let long = "x".repeat(254);
        for name in ["", "*", "a/b", "xdstp://a", "ä", long.as_str()] {
            let error = Catalog::new(1, [(name.to_owned(), Arc::new(Service::default()))]).expect_err(name);
            assert!(error.to_string().contains(&format!("this has {} bytes", name.len())), "{error}");
        }
        let longest = "x".repeat(253);
        Catalog::new(1, [(longest, Arc::new(Service::default()))]).expect("253 bytes are allowed");
    }

    #[test]
    fn an_endpoint_that_nobody_can_reach_is_refused() {
        for address in ["127.0.0.1:0", "0.0.0.0:80", "[::]:80", "224.0.0.1:80"] {
            let endpoint = Endpoint::serving(address.parse().expect("an address"));
            let error = Catalog::new(1, [("a".to_owned(), with(endpoint))]).expect_err(address);
            assert!(error.to_string().contains(address), "{error}");
        }
    }

    #[test]
    fn affinity_needs_a_header_that_clients_hash() {
        for header in ["", "Session", "x y", "trace-bin", "grpc-timeout"] {
            let policy = Policy::Affinity { header: header.to_owned() };
            let service = Arc::new(Service { policy, ..Service::default() });
            Catalog::new(1, [("a".to_owned(), service)]).expect_err(header);
        }
        let policy = Policy::Affinity { header: "x-session".to_owned() };
        let service = Arc::new(Service { policy, ..Service::default() });
        Catalog::new(1, [("a".to_owned(), service)]).expect("a plain header");
    }
}
