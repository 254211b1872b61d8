//! What the coordinator tells of itself: numbers for `/metrics`, and logs.
//!
//! Names have the prefix `plimsoll_` and base units; ratios go from 0 to 1. Numbers that the core keeps
//! are read when asked for, so that a quiet scraper costs nothing; only calls and waits are counted as they happen.

mod calls;
mod gather;
mod logging;
mod pools;
mod waits;

use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::core::Core;

pub use calls::Calls;
pub(crate) use pools::{PoolCapacity, capacities};

pub use logging::{LogFormat, init_logging};

/// All numbers of one coordinator. Clones are handles to the same.
#[derive(Clone)]
pub struct Telemetry {
    registry: Arc<Registry>,
    calls: Calls,
    waits: waits::Waits,
}

impl Telemetry {
    /// The numbers of a core.
    pub fn new(core: Core) -> Telemetry {
        let mut registry = Registry::with_prefix("plimsoll");
        let calls = Calls::register(&mut registry);
        let waits = waits::Waits::register(&mut registry);
        registry.register_collector(Box::new(gather::Gatherer::new(core)));
        Telemetry { registry: Arc::new(registry), calls, waits }
    }

    /// The numbers about calls, for the services to add to.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Follows the log for as long as the core runs, to measure how long requests wait for their grants.
    pub async fn follow(&self, core: &Core) {
        self.waits.follow(core).await;
    }

    /// The page that Prometheus reads.
    pub fn render(&self) -> String {
        let mut page = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut page, &self.registry) {
            // Writing to a string cannot fail; a collector that does so has a fault that must show.
            tracing::error!(%error, "metrics could not be written");
        }
        page
    }
}
