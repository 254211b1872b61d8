//! How the endpoints of a service are found and chosen from.

use std::collections::BTreeMap;

use prost::{Message, Name};
use prost_types::Duration;

use super::{Flavour, from_this_server, packed};
use crate::catalog::{Ejection, EjectionRule, Policy, Protocol, Reports, Service};
use crate::pb::envoy::config::cluster::v3::cluster::{CommonLbConfig, DiscoveryType, EdsClusterConfig};
use crate::pb::envoy::config::cluster::v3::load_balancing_policy::Policy as Listed;
use crate::pb::envoy::config::cluster::v3::{Cluster, LoadBalancingPolicy, OutlierDetection};
use crate::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use crate::pb::envoy::config::core::v3::{
    ApiVersion, ConfigSource, Http1ProtocolOptions, Http2ProtocolOptions, SelfConfigSource,
    TypedExtensionConfig,
};
use crate::pb::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use crate::pb::envoy::extensions::load_balancing_policies::common::v3::ConsistentHashingLbConfig;
use crate::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use crate::pb::envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash;
use crate::pb::envoy::extensions::load_balancing_policies::ring_hash::v3::ring_hash::HashFunction;
use crate::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use crate::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use crate::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use crate::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::ExplicitHttpConfig;
use crate::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use crate::pb::envoy::r#type::v3::Percent;

/// Under this key Envoy looks for the protocol of a cluster.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Load of an endpoint over the mean, in percent, beyond which a hashed request goes to the next one, where the service says nothing
/// (`docs/load-balancing.md`; Envoy only).
const USUAL_LOAD_BOUND_PERCENT: u32 = 125;
/// What load reports say beside counts: what endpoints report of themselves (gRFC A85).
const REPORTED: [&str; 4] =
    ["cpu_utilization", "mem_utilization", "application_utilization", "named_metrics.*"];

/// The cluster of a service, of its name.
pub(super) fn cluster(flavour: Flavour, name: &str, service: &Service) -> Cluster {
    let mut cluster = Cluster {
        name: name.to_owned(),
        r#type: Some(DiscoveryType::Eds.into()),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(from_this_server()),
            service_name: name.to_owned(),
        }),
        load_balancing_policy: Some(LoadBalancingPolicy {
            policies: match flavour {
                Flavour::Grpc => policies_of_grpc(&service.policy),
                Flavour::Envoy => policies_of_envoy(service),
            },
        }),
        lrs_report_endpoint_metrics: REPORTED.map(str::to_owned).to_vec(),
        outlier_detection: service.ejection.as_ref().map(outlier_detection),
        ..Cluster::default()
    };
    match flavour {
        // Load goes to the server that the cluster came from; Envoy is told in its own file.
        Flavour::Grpc => cluster.lrs_server = Some(same_server()),
        Flavour::Envoy => {
            // A node that is lost is given up sooner than after Envoy's 5 s.
            cluster.connect_timeout = Some(Duration { seconds: 1, nanos: 0 });
            // Below half healthy Envoy would send requests to draining endpoints too ("panic").
            cluster.common_lb_config =
                Some(CommonLbConfig { healthy_panic_threshold: Some(Percent { value: 0.0 }) });
            cluster.typed_extension_protocol_options =
                BTreeMap::from([(HTTP_OPTIONS.to_owned(), packed(&http_options(service.protocol)))]);
        }
    }
    cluster
}

/// A client takes the first that it knows; every gRPC client knows round robin.
fn policies_of_grpc(policy: &Policy) -> Vec<Listed> {
    let by_locality = |choices: Vec<Listed>| {
        let endpoint_picking_policy = Some(LoadBalancingPolicy { policies: choices });
        listed("wrr_locality", &WrrLocality { endpoint_picking_policy })
    };
    let in_turns = || listed("round_robin", &RoundRobin {});
    match policy {
        Policy::RoundRobin => vec![by_locality(vec![in_turns()])],
        Policy::LeastLoaded => vec![by_locality(vec![least_request(), in_turns()])],
        Policy::Weighted(reports) => vec![by_locality(vec![by_reports(reports), in_turns()])],
        Policy::Affinity { .. } => vec![ring_hash(None), by_locality(vec![in_turns()])],
    }
}

fn policies_of_envoy(service: &Service) -> Vec<Listed> {
    vec![match &service.policy {
        Policy::RoundRobin => listed("round_robin", &RoundRobin {}),
        Policy::LeastLoaded => least_request(),
        Policy::Weighted(reports) => by_reports(reports),
        Policy::Affinity { .. } => {
            // Below the mean no bound holds, and Envoy rejects it.
            ring_hash(Some(service.load_bound_percent.unwrap_or(USUAL_LOAD_BOUND_PERCENT).max(100)))
        }
    }]
}

/// Both rules are said also where one is off: what is left out is on for one client and off for another.
fn outlier_detection(ejection: &Ejection) -> OutlierDetection {
    let (by_rate, by_failures) = (ejection.success_rate, ejection.failure_percentage);
    let of = |rule: Option<EjectionRule>, what: fn(EjectionRule) -> u32| rule.map(what);
    OutlierDetection {
        interval: Some(milliseconds(ejection.interval_ms)),
        base_ejection_time: Some(milliseconds(ejection.base_ms)),
        // Clients take no longest time below the shortest.
        max_ejection_time: Some(milliseconds(ejection.max_ms.max(ejection.base_ms))),
        max_ejection_percent: Some(ejection.max_percent.min(100)),
        // Envoy's own rules of failures in a row are none of the balancer's.
        enforcing_consecutive_5xx: Some(0),
        enforcing_consecutive_gateway_failure: Some(0),
        enforcing_success_rate: Some(by_rate.map_or(0, |rule| rule.enforcement_percent.min(100))),
        success_rate_minimum_hosts: of(by_rate, |rule| rule.least_endpoints),
        success_rate_request_volume: of(by_rate, |rule| rule.least_calls),
        success_rate_stdev_factor: of(by_rate, |rule| rule.bound),
        enforcing_failure_percentage: Some(by_failures.map_or(0, |rule| rule.enforcement_percent.min(100))),
        failure_percentage_threshold: of(by_failures, |rule| rule.bound.min(100)),
        failure_percentage_minimum_hosts: of(by_failures, |rule| rule.least_endpoints),
        failure_percentage_request_volume: of(by_failures, |rule| rule.least_calls),
    }
}

fn least_request() -> Listed {
    listed("least_request", &LeastRequest { choice_count: Some(2) })
}

fn by_reports(reports: &Reports) -> Listed {
    let config = ClientSideWeightedRoundRobin {
        blackout_period: Some(milliseconds(reports.blackout_ms)),
        weight_expiration_period: Some(milliseconds(reports.expiry_ms)),
        weight_update_period: Some(milliseconds(reports.update_ms)),
        error_utilization_penalty: Some(reports.error_penalty_milli as f32 / 1000.0),
    };
    listed("client_side_weighted_round_robin", &config)
}

fn ring_hash(hash_balance_factor: Option<u32>) -> Listed {
    let config = RingHash {
        // gRPC rejects every other function.
        hash_function: HashFunction::XxHash.into(),
        consistent_hashing_lb_config: hash_balance_factor
            .map(|factor| ConsistentHashingLbConfig { hash_balance_factor: Some(factor) }),
        ..RingHash::default()
    };
    listed("ring_hash", &config)
}

fn listed<M: Message + Name>(name: &str, config: &M) -> Listed {
    Listed {
        typed_extension_config: Some(TypedExtensionConfig {
            name: format!("envoy.load_balancing_policies.{name}"),
            typed_config: Some(packed(config)),
        }),
    }
}

fn same_server() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Self_(SelfConfigSource {
            transport_api_version: ApiVersion::V3.into(),
        })),
    }
}

fn http_options(protocol: Protocol) -> HttpProtocolOptions {
    let protocol_config = match protocol {
        Protocol::Grpc => ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions {}),
        Protocol::Http1 => ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions {}),
    };
    HttpProtocolOptions {
        explicit_http_config: Some(ExplicitHttpConfig { protocol_config: Some(protocol_config) }),
    }
}

fn milliseconds(ms: u32) -> Duration {
    Duration { seconds: i64::from(ms / 1000), nanos: (ms % 1000 * 1_000_000) as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(flavour: Flavour, policy: Policy) -> Cluster {
        cluster(flavour, "a", &Service { policy, ..Service::default() })
    }

    fn first_policy(cluster: &Cluster) -> &TypedExtensionConfig {
        let policies = &cluster.load_balancing_policy.as_ref().expect("a policy").policies;
        policies[0].typed_extension_config.as_ref().expect("configured")
    }

    #[test]
    fn grpc_is_told_where_load_goes_and_envoy_which_http_to_speak() {
        let grpc = made(Flavour::Grpc, Policy::RoundRobin);
        assert!(grpc.lrs_server.is_some() && grpc.typed_extension_protocol_options.is_empty());
        let envoy = made(Flavour::Envoy, Policy::RoundRobin);
        assert!(envoy.lrs_server.is_none());
        let options = &envoy.typed_extension_protocol_options[HTTP_OPTIONS];
        let options = HttpProtocolOptions::decode(options.value.as_slice()).expect("reads");
        assert_eq!(options, http_options(Protocol::Grpc));
        assert_ne!(options, http_options(Protocol::Http1));
    }

    #[test]
    fn envoy_never_panics_into_draining_endpoints() {
        let panic = made(Flavour::Envoy, Policy::LeastLoaded).common_lb_config.expect("set");
        assert_eq!(panic.healthy_panic_threshold, Some(Percent { value: 0.0 }));
    }

    #[test]
    fn what_a_grpc_client_may_not_know_has_round_robin_behind_it() {
        for policy in [Policy::LeastLoaded, Policy::Weighted(Reports::default())] {
            let cluster = made(Flavour::Grpc, policy);
            let config = first_policy(&cluster).typed_config.as_ref().expect("typed");
            let locality = WrrLocality::decode(config.value.as_slice()).expect("reads");
            let choices = locality.endpoint_picking_policy.expect("choices").policies;
            let last = choices[1].typed_extension_config.as_ref().expect("configured");
            assert_eq!(last.name, "envoy.load_balancing_policies.round_robin");
        }
        let hashed = made(Flavour::Grpc, Policy::Affinity { header: "x".to_owned() });
        assert_eq!(first_policy(&hashed).name, "envoy.load_balancing_policies.ring_hash");
    }

    #[test]
    fn the_load_bound_is_the_services_own() {
        let bound_of = |load_bound_percent| {
            let policy = Policy::Affinity { header: "x".to_owned() };
            let service = Service { policy, load_bound_percent, ..Service::default() };
            let cluster = cluster(Flavour::Envoy, "a", &service);
            let config = first_policy(&cluster).typed_config.as_ref().expect("typed");
            let ring = RingHash::decode(config.value.as_slice()).expect("reads");
            ring.consistent_hashing_lb_config.expect("bounded").hash_balance_factor
        };
        assert_eq!([None, Some(150), Some(99)].map(bound_of), [Some(125), Some(150), Some(100)]);
    }

    #[test]
    fn ejection_is_sent_with_its_rules_and_without_those_that_are_off() {
        let rule = EjectionRule { bound: 85, enforcement_percent: 100, least_endpoints: 5, least_calls: 50 };
        let ejection = Ejection {
            interval_ms: 10_000,
            base_ms: 30_000,
            max_ms: 1,
            max_percent: 10,
            success_rate: None,
            failure_percentage: Some(rule),
        };
        for flavour in Flavour::ALL {
            let with = Service { ejection: Some(ejection), ..Service::default() };
            let sent = cluster(flavour, "a", &with).outlier_detection.expect("sent");
            assert_eq!(sent.interval, Some(Duration { seconds: 10, nanos: 0 }));
            assert_eq!(sent.max_ejection_time, sent.base_ejection_time);
            assert_eq!((sent.enforcing_success_rate, sent.success_rate_stdev_factor), (Some(0), None));
            assert_eq!(
                (sent.enforcing_failure_percentage, sent.failure_percentage_threshold),
                (Some(100), Some(85))
            );
            assert_eq!(sent.enforcing_consecutive_5xx, Some(0));
            assert_eq!(cluster(flavour, "a", &Service::default()).outlier_detection, None);
        }
    }

    #[test]
    fn report_settings_arrive_in_their_units() {
        let reports =
            Reports { blackout_ms: 1_500, expiry_ms: 60_000, update_ms: 100, error_penalty_milli: 250 };
        let cluster = made(Flavour::Envoy, Policy::Weighted(reports));
        let config = first_policy(&cluster).typed_config.as_ref().expect("typed");
        let sent = ClientSideWeightedRoundRobin::decode(config.value.as_slice()).expect("reads");
        assert_eq!(sent.blackout_period, Some(Duration { seconds: 1, nanos: 500_000_000 }));
        assert_eq!(sent.weight_expiration_period, Some(Duration { seconds: 60, nanos: 0 }));
        assert_eq!(sent.error_utilization_penalty, Some(0.25));
    }
}
