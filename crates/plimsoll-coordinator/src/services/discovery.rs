//! Stock clients over xDS: what this coordinator has applied of services, published as catalogs; and what those clients say of their calls.
//!
//! Invariant: an endpoint whose lease is over is in no catalog that is published after its end was applied here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_ledger::{Balancing, EndpointState, Ledger, Reservation, host_and_port};
use plimsoll_xds::{
    AdsServer, AgentAnswer, AgentLimits, AgentQuestion, Catalog, Endpoint, Health, Limits, LoadReport,
    LrsServer, Policy, Reports, serve_agent_checks,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::core::Core;
use crate::telemetry::ServiceCalls;

/// Changes that follow each other faster than this are published as one.
const PAUSE: Duration = Duration::from_millis(5);
/// Load reports of clients that may wait to be counted.
const MOST_REPORTS: usize = 1_024;
/// Header whose value ties requests together, for services with affinity.
pub(super) const AFFINITY_HEADER: &str = "x-plimsoll-key";

/// What stock clients are told. Clones share it.
#[derive(Clone)]
pub(super) struct Discovery {
    catalogs: Arc<watch::Sender<Arc<Catalog>>>,
    pub(super) ads: AdsServer,
    pub(super) lrs: LrsServer,
    /// Taken by whoever follows.
    reports: Arc<Mutex<Option<mpsc::Receiver<LoadReport>>>>,
}

impl Discovery {
    pub(super) fn new() -> Discovery {
        let (catalogs, receiver) = watch::channel(Arc::new(Catalog::empty()));
        let (sender, reports) = mpsc::channel(MOST_REPORTS);
        let ads = AdsServer::new(receiver.clone(), Limits::default());
        let lrs = LrsServer::new(receiver, sender, plimsoll_xds::USUAL_INTERVAL, Limits::default());
        Discovery { catalogs: Arc::new(catalogs), ads, lrs, reports: Arc::new(Mutex::new(Some(reports))) }
    }

    /// Publishes what changes, and counts what clients report, until the core stops.
    pub(super) async fn follow(&self, core: &Core, calls: &ServiceCalls) {
        let reports = self.reports.lock().take();
        let counting = async {
            let Some(mut reports) = reports else { return };
            while let Some(report) = reports.recv().await {
                calls.ended(&report.service, report.requests, report.errors);
            }
        };
        let publishing = async {
            let mut changes = core.endpoint_changes();
            loop {
                changes.borrow_and_update();
                self.publish(&core.local());
                if changes.changed().await.is_err() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = core.ended() => {}
            ((), ()) = async { tokio::join!(counting, publishing) } => {}
        }
    }

    /// Answers HAProxy for as long as it is polled.
    pub(super) async fn answer_agent_checks(&self, listener: TcpListener) {
        let catalogs = Arc::clone(&self.catalogs);
        let lookup = move |question: &AgentQuestion| AgentAnswer::of(&catalogs.borrow(), question);
        serve_agent_checks(listener, AgentLimits::default(), lookup).await;
    }

    /// Publishes the ledger's services where anything of them changed. O(1) where nothing did, O(endpoints) else.
    fn publish(&self, ledger: &Ledger) {
        let revision = ledger.endpoints_changed().0;
        let known = self.catalogs.borrow().clone();
        if known.revision() >= revision {
            return;
        }
        let services = ledger.services().map(|service| {
            let endpoints = ledger.endpoints(&service.name).filter_map(|one| endpoint(ledger, one)).collect();
            let policy = policy(service.balancing);
            let new = plimsoll_xds::Service { endpoints, policy, ..plimsoll_xds::Service::default() };
            // What did not change is the same, so that it is not made anew for clients.
            let same = known.services().get(&service.name).filter(|old| ***old == new);
            (service.name.clone(), same.map_or_else(|| Arc::new(new), Arc::clone))
        });
        match Catalog::new(revision, services) {
            Ok(catalog) => drop(self.catalogs.send_replace(Arc::new(catalog))),
            // Names and addresses were checked before; clients keep what they had.
            Err(error) => tracing::error!(%error, "services cannot be published to xDS clients"),
        }
    }
}

/// `None` for one that is not to be told of: its lease is not active, or it says a name where stock clients take addresses alone.
fn endpoint(ledger: &Ledger, replica: &Reservation) -> Option<Endpoint> {
    let health = match ledger.endpoint_state(replica)? {
        EndpointState::Serving => Health::Serving,
        EndpointState::Draining => Health::Draining,
        EndpointState::Unavailable => return None,
    };
    let said = &replica.endpoint.as_deref()?.announced;
    let (host, port) = host_and_port(&said.address)?;
    let address: IpAddr = host.parse().ok().filter(|address: &IpAddr| is_of_one_machine(*address))?;
    Some(Endpoint {
        address,
        port,
        weight_milli: said.weight_milli,
        health,
        zone: Some(said.zone.clone()).filter(|zone| !zone.is_empty()),
        priority: said.priority,
    })
}

fn is_of_one_machine(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

/// The nearest of what stock clients can do.
fn policy(balancing: Balancing) -> Policy {
    match balancing {
        Balancing::RoundRobin => Policy::RoundRobin,
        Balancing::LeastLoaded | Balancing::Latency | Balancing::Predictive => Policy::LeastLoaded,
        Balancing::Weighted => Policy::Weighted(Reports::default()),
        Balancing::Affinity => Policy::Affinity { header: AFFINITY_HEADER.to_owned() },
    }
}
