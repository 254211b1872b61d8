//! Simulated nodes in a pool of the benchmark's own, and the requests that are put on them.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_agent::clock::BootClock;
use plimsoll_agent::gpu::FakeGpus;
use plimsoll_agent::inventory::Inventory;
use plimsoll_agent::{FleetConfig, SimulatedFleet, SimulatedNode, fresh_incarnation};
use plimsoll_client::Client;
use plimsoll_client::v1::policy_object::Object;
use plimsoll_client::v1::{
    ApplyPolicyRequest, CreateReservationRequest, PolicyObject, Pool, Quantities, Requirements,
    ReservationSpec, Strategy,
};
use plimsoll_types::Resources;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::commands::agent::dial;
use crate::error::CliError;

/// Pool that the benchmark's nodes are in.
pub(super) const POOL: &str = "bench";
/// Long enough that no lease ends during a run.
const TTL_MS: u64 = 86_400_000;
/// Cores of a node in thousandths: more than any run takes.
const NODE_CPU_MILLIS: u64 = 1_000_000_000;
const REGISTER_WAIT: Duration = Duration::from_secs(120);

/// Nodes that are kept alive until it is dropped.
pub(super) struct Nodes {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

/// Makes the pool and registers `count` nodes through the agents' protocol.
pub(super) async fn register(client: &Client, count: usize, strategy: Strategy) -> Result<Nodes, CliError> {
    let pool = Pool { name: POOL.to_owned(), strategy: strategy.into(), ..Pool::default() };
    let objects = vec![PolicyObject { object: Some(Object::Pool(pool)) }];
    let request = ApplyPolicyRequest { objects, ..ApplyPolicyRequest::default() };
    client.apply_policy(request).await.map_err(super::failed("cannot make the pool"))?;
    let nodes = (0..count).map(|index| {
        let name = format!("bench-{index}");
        let inventory = Inventory::simulated(&name, NODE_CPU_MILLIS, 1 << 50, &FakeGpus::default());
        SimulatedNode { name, pool: POOL.to_owned(), inventory, extra: Resources::default() }
    });
    let config = FleetConfig { incarnation: fresh_incarnation(), ..FleetConfig::default() };
    let fleet = SimulatedFleet::new(nodes.collect(), config, Arc::new(dial(client)), BootClock::shared());
    let mut status = fleet.status();
    let stop = CancellationToken::new();
    let task = tokio::spawn(fleet.run(stop.clone()));
    let nodes = Nodes { stop, task };
    let settled = tokio::time::timeout(REGISTER_WAIT, status.settled()).await;
    if settled.is_err() || status.registered() != count {
        let why = format!("{} of {count} registered; refused: {:?}", status.registered(), status.refused());
        return Err(CliError::local("the benchmark's nodes", why));
    }
    Ok(nodes)
}

/// One reservation: a tenth of a core and 16 MiB, active at once.
pub(super) fn request() -> CreateReservationRequest {
    let amounts = Quantities { cpu_millis: 100, memory_bytes: 16 << 20, ..Quantities::default() };
    let requirements = Requirements { amounts: Some(amounts), ..Requirements::default() };
    let spec = ReservationSpec {
        pool: POOL.to_owned(),
        requirements: Some(requirements),
        ttl_ms: TTL_MS,
        auto_confirm: true,
        ..ReservationSpec::default()
    };
    CreateReservationRequest { spec: Some(spec), ..CreateReservationRequest::default() }
}
