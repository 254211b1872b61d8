//! What the coordinator tells of itself: numbers for `/metrics`, and logs.
//!
//! Names have the prefix `plimsoll_` and base units; ratios go from 0 to 1. Numbers that the core keeps
//! are read when asked for, so that a quiet scraper costs nothing; only calls and waits are counted as they happen.

mod calls;
mod connections;
mod contention;
mod gather;
mod invariants;
mod logging;
mod measured;
mod memory;
mod pools;
mod rates;
mod services;
mod tallies;
mod waits;

use std::sync::Arc;

use plimsoll_types::Revision;
use prometheus_client::registry::Registry;

use crate::agreement::Agreement;
use crate::core::{Core, HistoryError};

pub use calls::Calls;
pub(crate) use connections::{Connections, Refused};
pub(crate) use memory::{Memory, available_bytes};
pub(crate) use pools::{PoolCapacity, capacities};
pub(crate) use rates::RateDecisions;
pub(crate) use services::ServiceCalls;

pub use logging::{LogFormat, init_logging};

/// Records of the log read at once.
const BATCH: usize = 1_024;

/// All numbers of one coordinator. Clones are handles to the same.
#[derive(Clone)]
pub struct Telemetry {
    registry: Arc<Registry>,
    calls: Calls,
    connections: Connections,
    services: ServiceCalls,
    rates: RateDecisions,
    memory: Arc<Memory>,
    waits: waits::Waits,
    tallies: tallies::Tallies,
    episodes: contention::Episodes,
    invariants: invariants::Invariants,
    agreement: Agreement,
}

impl Telemetry {
    /// The numbers of a core.
    pub fn new(core: Core) -> Telemetry {
        let mut registry = Registry::with_prefix("plimsoll");
        let calls = Calls::register(&mut registry);
        let connections = Connections::register(&mut registry);
        let services = ServiceCalls::register(&mut registry);
        let rates = RateDecisions::register(&mut registry);
        let help = "Time from the proposal of a raft entry by this leader until it was applied here";
        registry.register("raft_commit_latency_seconds", help, core.counters().commits.seconds.clone());
        let waits = waits::Waits::register(&mut registry);
        let (memory, tallies) = (Arc::new(Memory::default()), tallies::Tallies::default());
        let episodes = contention::Episodes::default();
        let (invariants, agreement) = (invariants::Invariants::default(), Agreement::default());
        registry.register_collector(Box::new(gather::Gatherer {
            core,
            memory: Arc::clone(&memory),
            tallies: tallies.clone(),
            episodes: episodes.clone(),
            invariants: invariants.clone(),
            agreement: agreement.clone(),
        }));
        let registry = Arc::new(registry);
        Telemetry {
            registry,
            calls,
            connections,
            services,
            rates,
            memory,
            waits,
            tallies,
            episodes,
            invariants,
            agreement,
        }
    }

    /// The numbers about calls, for the services to add to.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// The numbers about connections, for the listeners to add to.
    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The numbers about calls of services.
    pub(crate) fn services(&self) -> &ServiceCalls {
        &self.services
    }

    /// The numbers about decisions of rates.
    pub(crate) fn rates(&self) -> &RateDecisions {
        &self.rates
    }

    /// How much memory is used.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Whether the replicas agree.
    pub(crate) fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// Follows the log for as long as the core runs, to count what happens and to measure how long requests wait.
    pub async fn follow(&self, core: &Core) {
        loop {
            let Ok(mut watcher) = core.watch(Revision(0)) else { return };
            let begun = {
                let view = core.local();
                self.tallies.begin(&view);
                view.revision()
            };
            loop {
                match watcher.next(BATCH).await {
                    Ok(records) => {
                        for record in records {
                            self.waits.look(&record.events, || core.local());
                            // What was there at the beginning shows what came before it.
                            if record.revision > begun {
                                self.tallies.look(&record.events);
                                self.episodes.look(&record.events);
                            }
                        }
                    }
                    Err(HistoryError::Stopped) => return,
                    Err(error) => {
                        // What was missed is missing from the histogram, no more.
                        tracing::debug!(%error, "began to follow the log anew");
                        break;
                    }
                }
            }
        }
    }

    /// Watches this process for as long as the core runs: its memory, and whether the ledger's invariants hold.
    pub(crate) async fn follow_process(&self, core: &Core) {
        tokio::select! {
            () = self.memory.follow() => core.ended().await,
            () = self.invariants.follow(core) => {}
        }
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
