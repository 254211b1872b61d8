//! Unmodified gRPC clients on `xds:///model-a` of a real cluster: Python and Node, while the leader dies, a lease ends, a node drains and replicas come.
//! `.ci/clients` installs them; a client that is absent is skipped by name.

#[path = "../../crates/plimsoll-xds/tests/stock_clients/backend.rs"]
#[expect(dead_code, reason = "its own tests use the rest")]
pub(crate) mod backend;
#[path = "../../crates/plimsoll-xds/tests/stock_clients/installed.rs"]
#[expect(dead_code, reason = "its own tests use the rest")]
mod installed;
#[path = "../../crates/plimsoll-xds/tests/stock_clients/process.rs"]
mod process;
#[path = "../../crates/plimsoll-xds/tests/stock_clients/proxy.rs"]
pub(crate) mod proxy;

use std::time::{Duration, Instant};

use backend::Backend;
use installed::Program;
use plimsoll_client::{Client, v1};
use plimsoll_tests::Cluster;
use process::{Caller, PATIENCE};
use serde_json::json;

use crate::fleet;
use crate::services::{PROPAGATION, announce, apply_service, reserve_replica};

/// Nodes of the fleet.
const NODES: u32 = 3;

/// A gRPC server that is an endpoint of the service, on a node of its own choice.
struct Model {
    server: Backend,
    replica: v1::Reservation,
}

async fn model(client: &Client, number: u32) -> Model {
    let server = Backend::start(0.5).await;
    let replica = reserve_replica(client, number, &format!("node-{}", number % NODES)).await;
    announce(client, &replica, &server.address.to_string()).await;
    Model { server, replica }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_grpc_clients_call_only_endpoints_that_are_there() {
    let mut cluster = Cluster::start(3).await;
    let _nodes = fleet::register(&cluster.addresses(), fleet::small(NODES)).await;
    let client = cluster.client().await;
    apply_service(&client).await;
    let mut models = Vec::new();
    for number in 0..6 {
        models.push(model(&client, number).await);
    }
    // The first server is one that lives on; the others are there for when it does not.
    let leader = cluster.leader().await;
    let mut members: Vec<_> = cluster.members.iter().collect();
    members.sort_by_key(|member| member.id == leader);
    let servers: Vec<String> = members.iter().map(|member| member.address.to_string()).collect();
    let mut callers = Vec::new();
    for program in [Program::Python, Program::Node] {
        callers.extend(Caller::start(program, &servers).await.map(|caller| (program, caller)));
    }
    if callers.is_empty() {
        return;
    }
    wait_for_calls(&models).await;

    let mut left: Vec<(usize, Instant)> = Vec::new();
    release(&client, &models[0].replica).await;
    left.push((0, Instant::now()));
    cluster.member_mut(leader).kill();
    release(&client, &models[1].replica).await;
    left.push((1, Instant::now()));
    cluster.member_mut(leader).restart();
    let request = v1::DrainNodeRequest { name: "node-2".to_owned(), ..v1::DrainNodeRequest::default() };
    client.drain_node(request).await.expect("drained");
    left.extend([2, 5].map(|index| (index, Instant::now())));
    for number in [6, 7] {
        models.push(model(&client, number).await);
    }
    tokio::time::sleep(PROPAGATION + Duration::from_secs(1)).await;
    let mut slowest = Duration::ZERO;
    for (index, at) in &left {
        let late = models[*index].server.last_after(*at);
        assert!(late < PROPAGATION, "endpoint {index} was called {late:?} after it left");
        slowest = slowest.max(late);
    }
    wait_for_calls(&models[6..]).await;
    for (program, caller) in callers {
        let said = caller.end().await;
        assert_eq!(said["errors"], json!({}), "{program:?}: {said}");
        println!("{program:?}: {} calls, none failed", said["calls"]);
    }
    println!("the last call reached an endpoint {slowest:?} after it left");
}

async fn release(client: &Client, replica: &v1::Reservation) {
    let (name, token) = (replica.id.clone(), replica.token);
    let request = v1::ReleaseReservationRequest { name, token, ..v1::ReleaseReservationRequest::default() };
    client.release_reservation(request).await.expect("released");
}

async fn wait_for_calls(models: &[Model]) {
    let begin = Instant::now();
    while !models.iter().all(|model| !model.server.since(begin).is_empty()) {
        assert!(begin.elapsed() < PATIENCE, "all are called");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
