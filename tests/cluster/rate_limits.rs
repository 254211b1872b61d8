//! Envoy asks a cluster of three before each request, while its leader is killed: what arrives stays within the rate.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use plimsoll_client::{Client, v1};
use plimsoll_tests::Cluster;
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::stock_clients::backend::Backend;
use crate::stock_clients::proxy::{Envoy, listener, router, static_cluster};

/// Requests a second that may pass, and at once.
const RATE: u64 = 50;
const BURST: u64 = 25;
/// So long a slice is good for.
const VALID: Duration = Duration::from_secs(1);

async fn put_rate(client: &Client) {
    let rate = v1::UsageRate { tokens: RATE, period_ms: 1_000, burst: BURST };
    let rates = [("api".to_owned(), rate)].into();
    let quota = v1::UsageQuota { name: "edge".to_owned(), rates, ..Default::default() };
    let objects = vec![v1::PolicyObject { object: Some(v1::policy_object::Object::Quota(quota)) }];
    let apply = v1::ApplyPolicyRequest { objects, ..Default::default() };
    client.apply_policy(apply).await.expect("applied");
}

/// As in `docs/stock-clients.md`.
fn config(coordinators: &[SocketAddr], backend: SocketAddr, listen: SocketAddr) -> Value {
    let rate = json!({ "generic_key": { "descriptor_key": "rate", "descriptor_value": "api" } });
    let limiter = json!({
        "name": "envoy.filters.http.ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": "edge",
            "timeout": "1s",
            "failure_mode_deny": true,
            "rate_limit_service": {
                "transport_api_version": "V3",
                "grpc_service": { "envoy_grpc": { "cluster_name": "plimsoll" } },
            },
        },
    });
    let manager = json!({
        "stat_prefix": "edge",
        "route_config": { "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "rate_limits": [{ "actions": [rate] }],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "backend" } }],
        }] },
        "http_filters": [limiter, router()],
    });
    json!({
        "node": { "id": "envoy-1", "cluster": "test" },
        "static_resources": {
            "listeners": [listener(listen, manager)],
            "clusters": [static_cluster("plimsoll", coordinators), static_cluster("backend", &[backend])],
        },
    })
}

async fn call(channel: Channel) -> Result<(), tonic::Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unknown(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static("/test.Backend/Call");
    client.unary(tonic::Request::new(()), path, ProstCodec::<(), String>::default()).await.map(drop)
}

/// No window of time has more than the rate allows, slices and what was under way for so long included.
fn assert_within_the_rate(mut times: Vec<Instant>, slack: Duration) {
    times.sort();
    for (first, from) in times.iter().enumerate() {
        for (count, to) in (1_u64..).zip(&times[first..]) {
            let time = *to - *from + VALID + slack;
            let most = BURST + (RATE * time.as_millis() as u64).div_ceil(1_000);
            assert!(count <= most, "{count} in {:?}, at most {most} may pass", *to - *from);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_limit_themselves_stay_within_the_rate_also_when_the_leader_is_killed() {
    let mut cluster = Cluster::start(3).await;
    put_rate(&cluster.client().await).await;
    let begin = Instant::now();
    let mut spending = Vec::new();
    for _ in 0..3 {
        let rate = cluster.client().await.rate("edge", "api", "");
        spending.push(tokio::spawn(async move {
            let mut spent = Vec::new();
            while begin.elapsed() < Duration::from_secs(8) {
                rate.spend(1, Duration::from_secs(20)).await.expect("there is more in time");
                spent.push(Instant::now());
            }
            spent
        }));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let leader = cluster.leader().await;
    cluster.member_mut(leader).kill();
    let mut times = Vec::new();
    for one in spending {
        times.extend(one.await.expect("no panic"));
    }
    eprintln!("{} tokens spent in {:?}", times.len(), begin.elapsed());
    // All of the rate but for the outage, and a burst.
    assert!(times.len() as u64 > RATE * 5, "{} tokens spent", times.len());
    assert_within_the_rate(times, Duration::ZERO);

    let client = cluster.client().await;
    let never = client.rate("edge", "api", "other").spend(BURST + 1, Duration::from_secs(1)).await;
    assert_eq!(never.expect_err("more than the burst").reason_name(), "RATE_EXCEEDED");
    let unknown = client.rate("edge", "none", "").spend(1, Duration::from_secs(1)).await;
    assert_eq!(unknown.expect_err("there is no such rate").reason_name(), "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_envoy_stays_within_the_rate_also_when_the_leader_is_killed() {
    let mut cluster = Cluster::start(3).await;
    put_rate(&cluster.client().await).await;
    let backend = Backend::start(0.5).await;
    let coordinators: Vec<SocketAddr> =
        cluster.addresses().iter().map(|address| address.parse().expect("an address")).collect();
    let Some(envoy) = Envoy::start(|listen| config(&coordinators, backend.address, listen)).await else {
        return;
    };
    let channel =
        Channel::from_shared(format!("http://{}", envoy.address)).expect("an address").connect_lazy();

    let begin = Instant::now();
    let calling: Vec<_> = (0..8)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let mut refused = 0;
                while begin.elapsed() < Duration::from_secs(8) {
                    refused += u32::from(call(channel.clone()).await.is_err());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                refused
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let leader = cluster.leader().await;
    cluster.member_mut(leader).kill();
    let killed = Instant::now();
    let mut refused = 0;
    for one in calling {
        refused += one.await.expect("no panic");
    }

    let arrived = backend.since(begin);
    eprintln!("{} of {} calls passed", arrived.len(), arrived.len() + refused as usize);
    // A call that Envoy let pass arrives a moment later.
    assert_within_the_rate(arrived.iter().map(|call| call.at).collect(), Duration::from_millis(100));
    let before = arrived.iter().filter(|call| call.at < killed).count();
    assert!(before >= (RATE * 2) as usize, "{before} calls passed before the leader was killed");
    let after = backend.since(killed + Duration::from_secs(3)).len();
    assert!(after >= RATE as usize / 2, "{after} calls passed when another led");
    assert!(refused > 100, "{refused} calls were over the limit");
}
