//! Many simulated nodes in one process: a handful of streams, no thread and no task per node.

use std::sync::Arc;

use futures_util::future::join_all;
use plimsoll_types::Resources;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::DEFAULT_HEARTBEAT_INTERVAL_MS;
use crate::clock::SharedClock;
use crate::dial::Dial;
use crate::fence::NoProcesses;
use crate::inventory::Inventory;
use crate::lease::SharedLeases;
use crate::link::{Link, LinkStatus, LinkTiming};
use crate::sample::{Played, Readings};
use crate::session::{NodeIdentity, NodeSession};

/// A node that is only played.
#[derive(Clone, Debug)]
pub struct SimulatedNode {
    /// Unique name.
    pub name: String,
    /// Pool; empty lets the pools' selectors decide.
    pub pool: String,
    /// What it offers.
    pub inventory: Inventory,
    /// Custom countables.
    pub extra: Resources,
}

/// How a fleet behaves.
#[derive(Clone, Copy, Debug)]
pub struct FleetConfig {
    /// Nodes that share a stream.
    pub nodes_per_stream: usize,
    /// Between heartbeats, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Another value at each start.
    pub incarnation: u64,
    /// What its nodes measure, by their names and the time of the clock; nothing without it.
    pub played: Option<Played>,
}

impl Default for FleetConfig {
    fn default() -> FleetConfig {
        FleetConfig {
            nodes_per_stream: 256,
            heartbeat_interval_ms: DEFAULT_HEARTBEAT_INTERVAL_MS,
            incarnation: 1,
            played: None,
        }
    }
}

/// Simulated nodes, ready to run.
pub struct SimulatedFleet {
    links: Vec<Link>,
    leases: Vec<(String, SharedLeases)>,
}

/// How a fleet is doing, while it runs.
#[derive(Clone)]
pub struct FleetStatus {
    links: Vec<watch::Receiver<LinkStatus>>,
    nodes: usize,
}

impl SimulatedFleet {
    /// A fleet of these nodes.
    pub fn new(
        nodes: Vec<SimulatedNode>,
        config: FleetConfig,
        dial: Arc<dyn Dial>,
        clock: SharedClock,
    ) -> SimulatedFleet {
        let timing = LinkTiming::for_interval(config.heartbeat_interval_ms);
        let mut leases = Vec::new();
        let mut links = Vec::new();
        for group in nodes.chunks(config.nodes_per_stream.max(1)) {
            let session = |node: &SimulatedNode| {
                let table = SharedLeases::default();
                leases.push((node.name.clone(), table.clone()));
                let identity = NodeIdentity {
                    name: node.name.clone(),
                    pool: node.pool.clone(),
                    incarnation: config.incarnation,
                    self_fencing: true,
                };
                NodeSession::new(identity, &node.inventory, &node.extra, table, Arc::new(NoProcesses))
            };
            let sessions = group.iter().map(session).collect();
            let readings = config.played.map_or(Readings::None, Readings::Played);
            links.push(Link::new(sessions, dial.clone(), clock.clone(), timing, readings));
        }
        SimulatedFleet { links, leases }
    }

    /// The leases of each node, by name, in the order given.
    pub fn leases(&self) -> &[(String, SharedLeases)] {
        &self.leases
    }

    /// How it is doing, from now on.
    pub fn status(&self) -> FleetStatus {
        FleetStatus { links: self.links.iter().map(Link::status).collect(), nodes: self.leases.len() }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        join_all(self.links.into_iter().map(|link| link.run(shutdown.clone()))).await;
    }
}

impl FleetStatus {
    /// Nodes of the fleet.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Nodes that the ledger has now.
    pub fn registered(&self) -> usize {
        self.links.iter().map(|link| link.borrow().registered).sum()
    }

    /// Nodes that the ledger does not take, with why.
    pub fn refused(&self) -> Vec<(String, String)> {
        let of_link = |link: &watch::Receiver<LinkStatus>| link.borrow().refused.clone();
        self.links.iter().flat_map(of_link).collect()
    }

    /// Waits until the ledger has answered for each node; false where the fleet stopped before.
    pub async fn settled(&mut self) -> bool {
        while self.registered() + self.refused().len() < self.nodes {
            let waits = self.links.iter_mut().map(|link| Box::pin(link.changed()));
            let (changed, ..) = futures_util::future::select_all(waits).await;
            if changed.is_err() {
                return false;
            }
        }
        true
    }
}
