//! Simulated nodes for a running cluster, through the real agent loop.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_agent::{FleetConfig, GrpcDial, SimulatedFleet, SimulatedNode};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Endpoint;

/// Keeps the nodes alive until it is dropped.
pub(crate) struct Running {
    _stop: DropGuard,
}

/// Registers nodes and waits until the ledger has them all.
pub(crate) async fn register(addresses: &[String], nodes: Vec<SimulatedNode>) -> Running {
    let endpoint = |address: &String| {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        endpoint.connect_timeout(Duration::from_secs(1))
    };
    let dial = Arc::new(GrpcDial::round_robin(addresses.iter().map(endpoint).collect()));
    let clock = plimsoll_agent::clock::BootClock::shared();
    let count = nodes.len();
    let fleet = SimulatedFleet::new(nodes, FleetConfig::default(), dial, clock);
    let mut status = fleet.status();
    let stop = CancellationToken::new();
    tokio::spawn(fleet.run(stop.clone()));
    let settled = tokio::time::timeout(Duration::from_secs(60), status.settled()).await;
    assert!(settled.is_ok(), "only {} of {count} nodes registered", status.registered());
    assert_eq!(status.registered(), count, "refused: {:?}", status.refused());
    Running { _stop: stop.drop_guard() }
}

/// `count` equal nodes of 8 cores and two GPUs.
pub(crate) fn small(count: u32) -> Vec<SimulatedNode> {
    let node = |index: u32| {
        let name = format!("node-{index}");
        let gpus = plimsoll_agent::gpu::FakeGpus::of("a100", 80 << 30, 2);
        let inventory = plimsoll_agent::inventory::Inventory::simulated(&name, 8_000, 64 << 30, &gpus);
        SimulatedNode { name, pool: String::new(), inventory, extra: plimsoll_types::Resources::default() }
    };
    (0..count).map(node).collect()
}
