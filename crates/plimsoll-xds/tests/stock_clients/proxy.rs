//! Envoy as a process.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::installed::Program;
use super::process::PATIENCE;

pub(crate) struct Envoy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _child: Child,
    _folder: tempfile::TempDir,
}

impl Envoy {
    /// Starts it with the configuration for where it is to listen, and waits until it does. None where it is absent.
    pub(crate) async fn start(config: impl FnOnce(SocketAddr) -> Value) -> Option<Envoy> {
        let path = Program::Envoy.find()?;
        let folder = tempfile::tempdir().expect("a folder");
        // Free a moment ago; Envoy cannot be asked for the port that it was given.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let file = folder.path().join("envoy.json");
        std::fs::write(&file, config(address).to_string()).expect("written");
        let child = Command::new(path)
            .arg("-c")
            .arg(&file)
            .args(["--concurrency", "1", "--log-level", "warn", "--disable-hot-restart"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("started");
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "Envoy does not listen");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Some(Envoy { address, _child: child, _folder: folder })
    }
}

/// A cluster of Envoy's own file that speaks HTTP/2.
pub(crate) fn static_cluster(name: &str, addresses: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({ "endpoint": { "address": socket_address(*address) } }))
        .collect();
    json!({
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        } },
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
    })
}

/// A listener with this connection manager.
pub(crate) fn listener(address: SocketAddr, mut manager: Value) -> Value {
    manager["@type"] = json!(
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    );
    json!({
        "name": "in",
        "address": socket_address(address),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }] }],
    })
}

/// The filter that sends requests on.
pub(crate) fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
