//! Unmodified gRPC clients on `xds:///model-a` of a real cluster: Python and Node, while the leader dies, a lease ends, a node drains and replicas come.
//! `.ci/clients` installs them; a client that is absent is skipped by name.

#[path = "../../crates/plimsoll-xds/tests/stock_clients/backend.rs"]
#[expect(dead_code, reason = "its own tests use the rest")]
mod backend;
#[path = "../../crates/plimsoll-xds/tests/stock_clients/installed.rs"]
#[expect(dead_code, reason = "its own tests use the rest")]
mod installed;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backend::Backend;
use installed::{Program, node_modules};
use plimsoll_client::{Client, v1};
use plimsoll_tests::Cluster;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::fleet;
use crate::services::{PROPAGATION, announce, apply_service, reserve_replica};

/// Interpreters start slowly where others build.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nodes of the fleet.
const NODES: u32 = 3;

/// A client that calls all the time, until its input ends; then it says how that went.
struct Caller {
    program: Program,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Caller {
    async fn start(program: Program, bootstrap: &Path) -> Option<Caller> {
        let path = program.find()?;
        let scripts =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/plimsoll-xds/tests/stock_clients");
        let script = scripts.join(if matches!(program, Program::Python) { "caller.py" } else { "caller.js" });
        let mut child = Command::new(path)
            .arg(script)
            .arg("xds:///model-a")
            .env("GRPC_XDS_BOOTSTRAP", bootstrap)
            .env("NODE_PATH", node_modules())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("started");
        let input = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let said = timeout(PATIENCE, output.next_line()).await.expect("in time").expect("read");
        assert_eq!(said.as_deref(), Some("ready"), "{program:?}");
        Some(Caller { program, child, input, output })
    }

    /// What it says in the end: `calls`, and `errors` by their text.
    async fn end(mut self) -> Value {
        drop(self.input);
        let said = timeout(PATIENCE, self.output.next_line()).await.expect("in time").expect("read");
        timeout(PATIENCE, self.child.wait()).await.expect("in time").expect("ended");
        serde_json::from_str(&said.expect("said")).expect("JSON")
    }
}

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
    let servers: Vec<Value> = members
        .iter()
        .map(|member| {
            json!({
                "server_uri": member.address,
                "channel_creds": [{ "type": "insecure" }],
                "server_features": ["xds_v3"],
            })
        })
        .collect();
    let bootstrap = cluster.root().join("bootstrap.json");
    let text = json!({ "xds_servers": servers, "node": { "id": "caller-1", "locality": {} } }).to_string();
    std::fs::write(&bootstrap, text).expect("written");
    let mut callers = Vec::new();
    for program in [Program::Python, Program::Node] {
        callers.extend(Caller::start(program, &bootstrap).await);
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
    for caller in callers {
        let program = caller.program;
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
