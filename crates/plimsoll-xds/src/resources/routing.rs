//! From the target of a client to the cluster: every call of `xds:///NAME` goes to cluster NAME.

use prost_types::Duration;

use super::{from_this_server, packed};
use crate::catalog::Policy;
use crate::pb::envoy::config::listener::v3::{ApiListener, Listener};
use crate::pb::envoy::config::route::v3::route_action::HashPolicy;
use crate::pb::envoy::config::route::v3::route_action::hash_policy::Header;
use crate::pb::envoy::config::route::v3::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use crate::pb::envoy::extensions::filters::http::router::v3::Router;
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds,
};

/// What a gRPC client asks for under the name of its target.
pub(super) fn listener(name: &str) -> Listener {
    let manager = HttpConnectionManager {
        stat_prefix: name.to_owned(),
        rds: Some(Rds { config_source: Some(from_this_server()), route_config_name: name.to_owned() }),
        // The router stands last, or the listener is rejected.
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            typed_config: Some(packed(&Router {})),
        }],
    };
    Listener {
        name: name.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(packed(&manager)) }),
    }
}

/// Everything to the cluster, hashed by the header where the policy wants it.
pub(super) fn route_configuration(name: &str, policy: &Policy) -> RouteConfiguration {
    let hash_policy = match policy {
        Policy::Affinity { header } => {
            vec![HashPolicy { header: Some(Header { header_name: header.clone() }), terminal: true }]
        }
        _ => Vec::new(),
    };
    let action = RouteAction {
        cluster: Some(name.to_owned()),
        hash_policy,
        // Envoy would end each call after 15 s; how long a call may take is its caller's business.
        timeout: Some(Duration::default()),
    };
    let route = Route { r#match: Some(RouteMatch { prefix: Some(String::new()) }), route: Some(action) };
    let host = VirtualHost { name: name.to_owned(), domains: vec!["*".to_owned()], routes: vec![route] };
    RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host] }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn an_empty_prefix_is_sent_and_not_left_out() {
        let sent = route_configuration("a", &Policy::RoundRobin).encode_to_vec();
        let read = RouteConfiguration::decode(sent.as_slice()).expect("reads");
        let route = &read.virtual_hosts[0].routes[0];
        assert_eq!(route.r#match.as_ref().expect("a match").prefix.as_deref(), Some(""));
        assert_eq!(route.route.as_ref().expect("an action").timeout, Some(Duration::default()));
    }

    #[test]
    fn affinity_hashes_the_header_and_nothing_else_does() {
        let hash = |policy: &Policy| {
            let route = route_configuration("a", policy).virtual_hosts.remove(0).routes.remove(0);
            route.route.expect("an action").hash_policy
        };
        assert!(hash(&Policy::LeastLoaded).is_empty());
        let by_header = hash(&Policy::Affinity { header: "x-session".to_owned() });
        assert_eq!(by_header[0].header.as_ref().expect("a header").header_name, "x-session");
    }
}
