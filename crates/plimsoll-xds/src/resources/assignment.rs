//! The endpoints of a service as clients want them: grouped by level and locality, weighted, without doubles.
//!
//! Clients reject the whole assignment for one mistake in it: levels with a gap, an address twice, weights that add up to more than 32 bits.
//! None of these can be sent.

use std::collections::{BTreeMap, BTreeSet};

use super::Flavour;
use crate::catalog::{Endpoint, Health, Policy, Service};
use crate::pb::envoy::config::core::v3::{Address, HealthStatus, Locality, SocketAddress};
use crate::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as Sent, LbEndpoint, LocalityLbEndpoints,
};

/// Endpoints that are weighed together.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group<'a> {
    /// 0, 1, 2 and so on without gaps.
    level: u32,
    zone: &'a str,
    /// gRPC's round robin knows weights of localities only: there, endpoints of one weight are a locality of their own.
    weight: Option<u32>,
}

/// The assignment of a service, of its name.
pub(super) fn assignment(flavour: Flavour, name: &str, service: &Service) -> ClusterLoadAssignment {
    let mut addresses = BTreeSet::new();
    let endpoints: Vec<&Endpoint> =
        service.endpoints.iter().filter(|endpoint| addresses.insert(endpoint.socket_address())).collect();
    let levels: BTreeSet<u32> = endpoints.iter().map(|endpoint| endpoint.priority).collect();
    let levels: BTreeMap<u32, u32> = levels.into_iter().zip(0..).collect();
    let by_weight = flavour == Flavour::Grpc && service.policy == Policy::RoundRobin;

    let mut groups: BTreeMap<Group<'_>, Vec<&Endpoint>> = BTreeMap::new();
    let mut totals: BTreeMap<u32, u64> = BTreeMap::new();
    for endpoint in endpoints {
        let level = levels[&endpoint.priority];
        *totals.entry(level).or_default() += u64::from(endpoint.weight_milli);
        let weight = by_weight.then_some(endpoint.weight_milli);
        let group = Group { level, zone: endpoint.zone.as_deref().unwrap_or_default(), weight };
        groups.entry(group).or_default().push(endpoint);
    }
    let endpoints = groups
        .into_iter()
        .map(|(group, endpoints)| locality(&group, &endpoints, divisor(totals[&group.level])))
        .collect();
    ClusterLoadAssignment { cluster_name: name.to_owned(), endpoints }
}

/// What weights of a level are divided by, so that together they fit 32 bits also where each is rounded up to 1.
fn divisor(total: u64) -> u64 {
    total.div_ceil(u64::from(u32::MAX / 2)).max(1)
}

fn locality(group: &Group<'_>, endpoints: &[&Endpoint], divisor: u64) -> LocalityLbEndpoints {
    let sub_zone = group.weight.map(|weight| format!("weight-{weight}")).unwrap_or_default();
    let scaled = |weight: u32| u32::try_from(u64::from(weight) / divisor).unwrap_or(u32::MAX).max(1);
    // Those that take nothing must not draw requests to their neighbours.
    let taking = endpoints.iter().filter(|endpoint| endpoint.takes_requests());
    let weight: u32 = taking.map(|endpoint| scaled(endpoint.weight_milli)).fold(0, u32::saturating_add);
    let mut lb_endpoints: Vec<LbEndpoint> = endpoints
        .iter()
        .map(|endpoint| LbEndpoint {
            endpoint: Some(Sent { address: Some(address(endpoint)) }),
            health_status: health(endpoint).into(),
            load_balancing_weight: Some(scaled(endpoint.weight_milli)),
        })
        .collect();
    // The same endpoints in another order are the same assignment.
    lb_endpoints.sort_by(|one, other| order(one).cmp(&order(other)));
    LocalityLbEndpoints {
        locality: Some(Locality { zone: group.zone.to_owned(), sub_zone, ..Locality::default() }),
        lb_endpoints,
        // Without a weight gRPC ignores the locality.
        load_balancing_weight: Some(weight.max(1)),
        priority: group.level,
    }
}

fn address(endpoint: &Endpoint) -> Address {
    let address = endpoint.address.to_string();
    let socket_address =
        SocketAddress { address, port_value: Some(u32::from(endpoint.port)), ..SocketAddress::default() };
    Address { socket_address: Some(socket_address) }
}

fn health(endpoint: &Endpoint) -> HealthStatus {
    match endpoint.health {
        Health::Serving if endpoint.weight_milli == 0 => HealthStatus::Draining,
        Health::Serving => HealthStatus::Healthy,
        Health::Draining => HealthStatus::Draining,
        Health::Unhealthy => HealthStatus::Unhealthy,
    }
}

fn order(endpoint: &LbEndpoint) -> Option<(&str, Option<u32>)> {
    let address = endpoint.endpoint.as_ref()?.address.as_ref()?.socket_address.as_ref()?;
    Some((&address.address, address.port_value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::serving(([127, 0, 0, 1], port).into())
    }

    fn made(flavour: Flavour, policy: Policy, endpoints: Vec<Endpoint>) -> Vec<LocalityLbEndpoints> {
        assignment(flavour, "a", &Service { endpoints, policy, ..Service::default() }).endpoints
    }

    fn ports(locality: &LocalityLbEndpoints) -> Vec<u32> {
        locality
            .lb_endpoints
            .iter()
            .map(|endpoint| order(endpoint).expect("an address").1.expect("a port"))
            .collect()
    }

    #[test]
    fn levels_are_sent_without_gaps() {
        let levels = [7, 2, 9].map(|priority| Endpoint { priority, ..endpoint(priority as u16) });
        let sent = made(Flavour::Envoy, Policy::RoundRobin, levels.to_vec());
        let sent: Vec<(u32, Vec<u32>)> =
            sent.iter().map(|locality| (locality.priority, ports(locality))).collect();
        assert_eq!(sent, [(0, vec![2]), (1, vec![7]), (2, vec![9])]);
    }

    #[test]
    fn an_address_is_sent_once() {
        let twice = vec![endpoint(1), Endpoint { health: Health::Draining, priority: 3, ..endpoint(1) }];
        let sent = made(Flavour::Grpc, Policy::RoundRobin, twice);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].lb_endpoints.len(), 1);
        assert_eq!(sent[0].lb_endpoints[0].health_status(), HealthStatus::Healthy);
    }

    #[test]
    fn grpcs_round_robin_gets_weights_as_localities_and_envoy_as_they_are() {
        let light = Endpoint { weight_milli: 250, ..endpoint(3) };
        let endpoints = vec![endpoint(1), endpoint(2), light];
        let grpc = made(Flavour::Grpc, Policy::RoundRobin, endpoints.clone());
        let sent: Vec<_> = grpc.iter().map(|one| (one.load_balancing_weight, ports(one))).collect();
        assert_eq!(sent, [(Some(250), vec![3]), (Some(2000), vec![1, 2])]);
        for other in [Policy::LeastLoaded, Policy::Affinity { header: "x".to_owned() }] {
            assert_eq!(made(Flavour::Grpc, other, endpoints.clone()).len(), 1);
        }
        let envoy = made(Flavour::Envoy, Policy::RoundRobin, endpoints);
        let weights: Vec<_> = envoy[0].lb_endpoints.iter().map(|one| one.load_balancing_weight).collect();
        assert_eq!((envoy.len(), weights), (1, vec![Some(1000), Some(1000), Some(250)]));
    }

    #[test]
    fn a_draining_endpoint_draws_nothing_to_its_zone() {
        let zoned =
            |port, zone: &str, health| Endpoint { zone: Some(zone.to_owned()), health, ..endpoint(port) };
        let endpoints = vec![
            zoned(1, "a", Health::Serving),
            zoned(2, "a", Health::Draining),
            zoned(3, "a", Health::Unhealthy),
            zoned(4, "b", Health::Serving),
            Endpoint { weight_milli: 0, ..zoned(5, "b", Health::Serving) },
        ];
        let sent = made(Flavour::Grpc, Policy::LeastLoaded, endpoints);
        assert_eq!(sent.len(), 2);
        assert_eq!([sent[0].load_balancing_weight, sent[1].load_balancing_weight], [Some(1000), Some(1000)]);
        let health: Vec<_> =
            sent.iter().flat_map(|one| &one.lb_endpoints).map(LbEndpoint::health_status).collect();
        use HealthStatus::{Draining, Healthy, Unhealthy};
        assert_eq!(health, [Healthy, Draining, Unhealthy, Healthy, Draining]);
    }

    #[test]
    fn weights_together_fit_thirty_two_bits() {
        let heavy = |port| Endpoint { weight_milli: u32::MAX, ..endpoint(port) };
        let mut endpoints: Vec<Endpoint> = (1..=5_000).map(heavy).collect();
        endpoints.push(Endpoint { weight_milli: 1, ..endpoint(6_000) });
        for flavour in Flavour::ALL {
            let sent = made(flavour, Policy::RoundRobin, endpoints.clone());
            let localities: u64 =
                sent.iter().filter_map(|one| one.load_balancing_weight).map(u64::from).sum();
            let of_endpoints =
                sent.iter().flat_map(|one| &one.lb_endpoints).filter_map(|one| one.load_balancing_weight);
            assert!(localities <= u64::from(u32::MAX), "{localities}");
            assert!(of_endpoints.map(u64::from).sum::<u64>() <= u64::from(u32::MAX));
        }
    }

    #[test]
    fn the_order_of_endpoints_is_no_change() {
        let one = made(Flavour::Grpc, Policy::LeastLoaded, vec![endpoint(1), endpoint(2)]);
        let other = made(Flavour::Grpc, Policy::LeastLoaded, vec![endpoint(2), endpoint(1)]);
        assert_eq!(one, other);
    }

    #[test]
    fn an_ipv6_address_is_sent_bare() {
        let six = Endpoint::serving("[::1]:80".parse().expect("an address"));
        let sent = made(Flavour::Grpc, Policy::LeastLoaded, vec![six]);
        assert_eq!(order(&sent[0].lb_endpoints[0]), Some(("::1", Some(80))));
    }
}
