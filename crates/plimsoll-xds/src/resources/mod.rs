//! Resources made from the catalog: one listener, route configuration, cluster and assignment for each service, all of its name.

mod assignment;
mod cluster;
mod routing;

use std::sync::Arc;

use prost::{Message, Name};
use prost_types::Any;

use crate::catalog::Service;

/// Before the full name of a message, in the type of an `Any`.
const TYPE_PREFIX: &str = "type.googleapis.com/";

/// What clients ask for, in the order in which changes are sent: a cluster and its endpoints are there before a route leads to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// How to choose among a service's endpoints (CDS).
    Cluster,
    /// The endpoints (EDS).
    Endpoints,
    /// The target of a gRPC client (LDS).
    Listener,
    /// From the target to the cluster (RDS).
    Route,
}

impl Kind {
    /// All of them, in the order in which they are sent.
    pub const ALL: [Kind; 4] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route];

    /// The type that a request names, and the resources in the answer have.
    pub fn type_url(self) -> &'static str {
        match self {
            Kind::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Kind::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Kind::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Kind::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The kind of a request.
    pub(crate) fn of(type_url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// True where each answer has all that there is of what was asked for, so that what is missing in it is gone. Of the others an answer has what changed.
    pub(crate) fn answers_are_whole(self) -> bool {
        matches!(self, Kind::Cluster | Kind::Listener)
    }
}

/// Who is served: proxies and libraries need different things of the same service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Grpc,
    Envoy,
}

impl Flavour {
    pub(crate) const ALL: [Flavour; 2] = [Flavour::Grpc, Flavour::Envoy];

    /// By the name that a client gives itself.
    pub(crate) fn of(user_agent_name: &str) -> Flavour {
        if user_agent_name == "envoy" { Flavour::Envoy } else { Flavour::Grpc }
    }
}

/// What one service is to one flavour. Shared by all streams.
pub(crate) struct ServiceResources {
    service: Arc<Service>,
    /// By the order of [`Kind::ALL`].
    made: [Option<Arc<Any>>; 4],
}

impl ServiceResources {
    /// Makes them, and keeps those of `before` that did not change.
    pub(crate) fn make(
        flavour: Flavour,
        name: &str,
        service: &Arc<Service>,
        before: Option<&Arc<ServiceResources>>,
    ) -> Arc<ServiceResources> {
        if let Some(before) = before
            && (Arc::ptr_eq(&before.service, service) || before.service == *service)
        {
            return Arc::clone(before);
        }
        let made = Kind::ALL.map(|kind| {
            let made = resource(flavour, kind, name, service)?;
            let kept = before.and_then(|before| before.of(kind)).filter(|kept| ***kept == made);
            Some(kept.map_or_else(|| Arc::new(made), Arc::clone))
        });
        Arc::new(ServiceResources { service: Arc::clone(service), made })
    }

    /// The one of a kind, if this flavour has such.
    pub(crate) fn of(&self, kind: Kind) -> Option<&Arc<Any>> {
        self.made[kind as usize].as_ref()
    }
}

/// One resource. Envoy listens where its own file says, and so gets no listeners.
fn resource(flavour: Flavour, kind: Kind, name: &str, service: &Service) -> Option<Any> {
    match kind {
        Kind::Cluster => Some(packed(&cluster::cluster(flavour, name, service))),
        Kind::Endpoints => Some(packed(&assignment::assignment(flavour, name, service))),
        Kind::Listener => (flavour == Flavour::Grpc).then(|| packed(&routing::listener(name))),
        Kind::Route => Some(packed(&routing::route_configuration(name, &service.policy))),
    }
}

/// A message with its type.
fn packed<M: Message + Name>(message: &M) -> Any {
    Any { type_url: format!("{TYPE_PREFIX}{}", M::full_name()), value: message.encode_to_vec() }
}

/// Resources of this type from this very stream.
fn from_this_server() -> crate::pb::envoy::config::core::v3::ConfigSource {
    use crate::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
    use crate::pb::envoy::config::core::v3::{AggregatedConfigSource, ApiVersion, ConfigSource};
    ConfigSource {
        // Envoy rejects what does not say V3; gRPC does not look.
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Endpoint, Policy};

    fn service(port: u16, policy: Policy) -> Arc<Service> {
        let endpoint = Endpoint::serving(([127, 0, 0, 1], port).into());
        Arc::new(Service { endpoints: vec![endpoint], policy, ..Service::default() })
    }

    #[test]
    fn each_resource_has_the_type_that_is_asked_for() {
        let made = ServiceResources::make(Flavour::Grpc, "a", &service(1, Policy::RoundRobin), None);
        for kind in Kind::ALL {
            assert_eq!(made.of(kind).expect("made").type_url, kind.type_url());
            assert_eq!(Kind::of(kind.type_url()), Some(kind));
        }
        assert_eq!(Kind::of("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"), None);
    }

    #[test]
    fn a_change_of_endpoints_makes_nothing_else_anew() {
        let before = ServiceResources::make(Flavour::Grpc, "a", &service(1, Policy::RoundRobin), None);
        let after =
            ServiceResources::make(Flavour::Grpc, "a", &service(2, Policy::RoundRobin), Some(&before));
        for kind in Kind::ALL {
            let (was, is) = (before.of(kind).expect("made"), after.of(kind).expect("made"));
            assert_eq!(Arc::ptr_eq(was, is), kind != Kind::Endpoints, "{kind:?}");
        }
        let same = ServiceResources::make(Flavour::Grpc, "a", &service(2, Policy::RoundRobin), Some(&after));
        assert!(Arc::ptr_eq(&after, &same), "an equal service is the same");
    }

    #[test]
    fn envoy_gets_no_listeners() {
        let made = ServiceResources::make(Flavour::Envoy, "a", &service(1, Policy::RoundRobin), None);
        assert!(made.of(Kind::Listener).is_none());
        assert!(made.of(Kind::Route).is_some());
    }
}
