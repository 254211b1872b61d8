//! Envoy in front of the service, told everything over one stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use plimsoll_xds::{Endpoint, Health, Policy, Reports};
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::backend::{Backend, SESSION};
use crate::control::{Control, SERVICE, until};
use crate::grpc::{all_are_called, nothing_arrives, service};
use crate::process::PATIENCE;
use crate::proxy::{Envoy, listener, router, static_cluster};

#[tokio::test(flavor = "multi_thread")]
async fn envoy_calls_only_endpoints_that_are_there_and_reports_each() {
    let mut control = Control::start().await;
    let fleet = Backend::fleet(4).await;
    let serving = |of: &[usize]| of.iter().map(|i| fleet[*i].endpoint()).collect::<Vec<_>>();
    let draining = |i: usize| Endpoint { health: Health::Draining, ..fleet[i].endpoint() };
    let round_robin = || Policy::RoundRobin;

    control.publish(&service(serving(&[0, 1, 2]), round_robin()));
    let Some(envoy) = Envoy::start(|listen| bootstrap(control.address, listen)).await else { return };
    let calls = Calls::start(envoy.address).await;
    all_are_called("three endpoints", &fleet[..3]).await;

    let left = control.publish(&service(serving(&[1, 2]), round_robin()));
    nothing_arrives("Envoy", "left the catalog", &fleet[0], left).await;

    let drained = control.publish(&service(serving(&[2]).into_iter().chain([draining(1)]), round_robin()));
    nothing_arrives("Envoy", "is draining", &fleet[1], drained).await;

    // One of three is well: below half, where Envoy would believe in health no more.
    let most_drain =
        control.publish(&service([fleet[0].endpoint(), draining(1), draining(2)], round_robin()));
    nothing_arrives("Envoy", "drains with most others", &fleet[2], most_drain).await;
    assert!(fleet[1].since(most_drain).is_empty());

    let grown = control.publish(&service(serving(&[0, 2, 3]), round_robin()));
    until("the new endpoint is called", PATIENCE, || fleet[3].count_since(grown) > 10).await;
    let first = fleet[3].since(grown)[0].at - grown;
    eprintln!("Envoy: the first call reached a new endpoint after {} ms", first.as_millis());

    let light = Endpoint { weight_milli: 250, ..fleet[3].endpoint() };
    let weighed = control.publish(&service(serving(&[0, 2]).into_iter().chain([light]), round_robin()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let counts: Vec<usize> =
        fleet.iter().map(|backend| backend.count_since(weighed + Duration::from_secs(1))).collect();
    eprintln!("Envoy: calls at weights 1000, 0, 1000, 250: {counts:?}");
    let share = counts[3] as f64 * 2.0 / (counts[0] + counts[2]) as f64;
    assert!((0.2..0.3).contains(&share), "a quarter of the weight is a quarter of the calls, not {share}");

    // The cluster of Envoy's own file is no service, and not reported on.
    let reports = control.reports();
    for backend in &fleet {
        let of_endpoint = reports.iter().filter(|report| report.endpoint == Some(backend.address));
        let reported: u64 = of_endpoint.map(|report| report.requests).sum();
        assert!(reported > 10, "load reports tell {reported} calls of {}", backend.address);
    }
    let node = reports.iter().all(|report| report.node_id == "envoy-1" && report.service == SERVICE);
    assert!(node, "{reports:?}");
    calls.end();
    control.assert_all_accepted();
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_takes_every_policy_and_changes_between_them_without_a_failed_call() {
    let control = Control::start().await;
    let fleet = [Backend::start(0.1).await, Backend::start(0.9).await];
    let publish = |policy| control.publish(&service(fleet.iter().map(Backend::endpoint), policy));
    publish(Policy::RoundRobin);
    let Some(envoy) = Envoy::start(|listen| bootstrap(control.address, listen)).await else { return };
    let calls = Calls::start(envoy.address).await;
    all_are_called("in turns", &fleet).await;

    publish(Policy::LeastLoaded);
    all_are_called("least loaded", &fleet).await;

    publish(Policy::Weighted(Reports { blackout_ms: 1_000, update_ms: 100, ..Reports::default() }));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let counts = [fleet[0].count_since(begin), fleet[1].count_since(begin)];
    let ratio = counts[0] as f64 / counts[1].max(1) as f64;
    eprintln!("Envoy: calls at utilizations 0.1 and 0.9: {counts:?}, {ratio:.1} to 1");
    assert!((7.0..12.0).contains(&ratio), "{ratio}");

    let hashed = publish(Policy::Affinity { header: SESSION.to_owned() });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sessions = |backend: &Backend| {
        let calls = backend.since(hashed + Duration::from_secs(1)).into_iter();
        calls.filter_map(|call| call.session).collect::<std::collections::BTreeSet<_>>()
    };
    let (one, other) = (sessions(&fleet[0]), sessions(&fleet[1]));
    eprintln!(
        "Envoy: sessions at each endpoint: {} and {}, at both: {}",
        one.len(),
        other.len(),
        one.intersection(&other).count()
    );
    assert_eq!(one.union(&other).count(), SESSIONS);
    // The bound on an endpoint's load may move a call now and then.
    assert!(one.intersection(&other).count() < SESSIONS / 2, "{one:?} and {other:?}");
    calls.end();
    control.assert_all_accepted();
}

/// Different values of the header that affinity hashes.
const SESSIONS: usize = 60;

/// As in `docs/stock-clients.md`.
fn bootstrap(control: SocketAddr, listen: SocketAddr) -> Value {
    let grpc = json!({
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{ "envoy_grpc": { "cluster_name": "plimsoll" } }],
    });
    let manager = json!({
        "stat_prefix": SERVICE,
        "rds": { "route_config_name": SERVICE, "config_source": { "ads": {}, "resource_api_version": "V3" } },
        "http_filters": [router()],
    });
    json!({
        "node": { "id": "envoy-1", "cluster": "test" },
        "dynamic_resources": { "ads_config": grpc, "cds_config": { "ads": {}, "resource_api_version": "V3" } },
        "cluster_manager": { "load_stats_config": grpc },
        "static_resources": {
            "listeners": [listener(listen, manager)],
            "clusters": [static_cluster("plimsoll", &[control])],
        },
    })
}

/// Calls through Envoy, four at once, all the time.
struct Calls {
    stop: Arc<AtomicBool>,
    errors: Arc<Mutex<Vec<String>>>,
    done: Arc<AtomicUsize>,
}

impl Calls {
    /// Returns when the first call has come back.
    async fn start(address: SocketAddr) -> Calls {
        let channel = Channel::from_shared(format!("http://{address}")).expect("an address");
        let channel = channel.connect().await.expect("connected");
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = call(channel.clone(), 0).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let calls = Calls { stop: Arc::default(), errors: Arc::default(), done: Arc::default() };
        for worker in 0..4 {
            let (stop, errors) = (Arc::clone(&calls.stop), Arc::clone(&calls.errors));
            let (done, channel) = (Arc::clone(&calls.done), channel.clone());
            tokio::spawn(async move {
                let mut number = worker * 15;
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = call(channel.clone(), number).await {
                        errors.lock().push(error.to_string());
                    }
                    number += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
            });
        }
        calls
    }

    /// All went well.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let errors = self.errors.lock();
        let done = self.done.load(Ordering::Relaxed);
        assert!(errors.is_empty(), "{} of {done} calls failed: {:?}", errors.len(), errors.first());
        assert!(done > 100, "{done} calls");
    }
}

async fn call(channel: Channel, number: usize) -> Result<(), tonic::Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unknown(error.to_string()))?;
    let mut request = tonic::Request::new(());
    let session = format!("session-{}", number % SESSIONS);
    request.metadata_mut().insert(SESSION, MetadataValue::try_from(session).expect("plain"));
    let path = http::uri::PathAndQuery::from_static("/test.Backend/Call");
    client.unary(request, path, ProstCodec::<(), String>::default()).await.map(drop)
}
