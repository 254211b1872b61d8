//! HAProxy with agent checks.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use plimsoll_xds::{Endpoint, Health, Policy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::sleep;

use crate::control::{Control, SERVICE, bind, until};
use crate::grpc::service;
use crate::installed::Program;
use crate::process::PATIENCE;

/// Checks come every 100 ms; after this many HAProxy has heard of a change.
const HEARD: Duration = Duration::from_millis(600);

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_weighs_drains_and_drops_servers_as_it_is_told() {
    let Some(program) = Program::Haproxy.find() else { return };
    let control = Control::start().await;
    let servers = [server().await, server().await];
    let [one, other] = servers.map(Endpoint::serving);
    let publish = |endpoints: &[&Endpoint]| {
        control.publish(&service(endpoints.iter().map(|endpoint| (*endpoint).clone()), Policy::RoundRobin));
    };
    publish(&[&one, &other]);

    let (listener, front) = bind().await;
    drop(listener);
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("haproxy.cfg");
    std::fs::write(&config, configuration(front, control.agent, &servers)).expect("written");
    let _child = Command::new(program)
        .arg("-f")
        .arg(&config)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("started");
    until("HAProxy listens", PATIENCE, || std::net::TcpStream::connect(front).is_ok()).await;

    sleep(HEARD).await;
    assert_shares(front, &servers, 50, "equal weights").await;

    publish(&[&Endpoint { weight_milli: 250, ..one.clone() }, &other]);
    sleep(HEARD).await;
    assert_shares(front, &servers, 20, "25 % of the weight").await;

    publish(&[&Endpoint { health: Health::Draining, ..one.clone() }, &other]);
    sleep(HEARD).await;
    assert_shares(front, &servers, 0, "drained").await;

    publish(&[&one, &other]);
    sleep(HEARD).await;
    assert_shares(front, &servers, 50, "ready again").await;

    publish(&[&one]);
    sleep(HEARD).await;
    assert_shares(front, &servers, 100, "the lease of the other is over").await;

    publish(&[&one, &Endpoint { health: Health::Unhealthy, ..other.clone() }]);
    sleep(HEARD).await;
    assert_shares(front, &servers, 100, "the other is unhealthy").await;

    publish(&[&one, &other]);
    sleep(HEARD).await;
    assert_shares(front, &servers, 50, "up again").await;
}

/// As in `docs/stock-clients.md`.
fn configuration(front: SocketAddr, agent: SocketAddr, servers: &[SocketAddr]) -> String {
    let mut text = format!(
        "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 10s\n  timeout server 10s\n\
         frontend in\n  bind {front}\n  default_backend {SERVICE}\n\
         backend {SERVICE}\n  balance roundrobin\n"
    );
    for (number, server) in servers.iter().enumerate() {
        let (address, port) = (agent.ip(), agent.port());
        let agent = format!("agent-check agent-addr {address} agent-port {port} agent-inter 100ms");
        writeln!(text, "  server s{number} {server} weight 100 {agent} agent-send \"{SERVICE}/{server}\\n\"")
            .expect("a string takes all");
    }
    text
}

/// A server that says its port to whoever connects.
async fn server() -> SocketAddr {
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_u16(address.port()).await;
        }
    });
    address
}

/// The first server takes this many of a hundred; one more or less where HAProxy is in the middle of its turns, but all and none are exact.
async fn assert_shares(front: SocketAddr, servers: &[SocketAddr], wanted: usize, what: &str) {
    let seen = shares(front, servers).await;
    eprintln!("HAProxy: {seen:?}: {what}");
    let near = if wanted.is_multiple_of(100) { 0 } else { 2 };
    assert!(seen[0].abs_diff(wanted) <= near, "{what}: {seen:?}");
}

/// Of a hundred connections, how many reach each server.
async fn shares(front: SocketAddr, servers: &[SocketAddr]) -> Vec<usize> {
    let mut counts = vec![0; servers.len()];
    for _ in 0..100 {
        let mut stream = TcpStream::connect(front).await.expect("connected");
        let port = stream.read_u16().await.expect("a server answers");
        let reached = servers.iter().position(|server| server.port() == port).expect("one of them");
        counts[reached] += 1;
    }
    counts
}
