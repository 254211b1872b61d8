//! Stock clients over xDS: what this coordinator has applied of services, published as catalogs; and what those clients say of their calls.
//!
//! Weights are those of `plimsoll-endpoints`, worked out anew each second: slow start and reported loads change them without an entry of the log, so the
//! catalog's revision is the ledger's or the next one.
//!
//! Invariant: an endpoint whose lease is over is in no catalog that is published after its end was applied here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_endpoints::{EjectionSettings, Facts, Member, Weigher};
use plimsoll_ledger::{Balancing, EndpointState, Ledger, Load, Reservation, Service, host_and_port};
use plimsoll_proto::convert;
use plimsoll_types::Revision;
use plimsoll_xds::{
    AdsServer, AgentAnswer, AgentLimits, AgentQuestion, Catalog, Ejection, EjectionRule, Endpoint, Health,
    Limits, LoadReport, LrsServer, Policy, Reports, serve_agent_checks,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::core::Core;
use crate::telemetry::ServiceCalls;

/// Changes that follow each other faster than this are published as one.
const PAUSE: Duration = Duration::from_millis(5);
/// Weights are worked out so often.
const WEIGH_EVERY: Duration = Duration::from_secs(1);
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
            let mut published = Published::default();
            loop {
                changes.borrow_and_update();
                let now_us = core.clock().now_ms().saturating_mul(1_000);
                self.publish(&core.local(), &mut published, now_us);
                match tokio::time::timeout(WEIGH_EVERY, changes.changed()).await {
                    Ok(Ok(())) => tokio::time::sleep(PAUSE).await,
                    Ok(Err(_)) => return,
                    // Time alone moves weights.
                    Err(_) => {}
                }
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

    /// Publishes the ledger's services where anything of them changed, weights too. O(endpoints log endpoints).
    fn publish(&self, ledger: &Ledger, published: &mut Published, now_us: u64) {
        let revision = ledger.endpoints_changed();
        let is_changed = published.revision != revision;
        if is_changed {
            published.follow(ledger, now_us);
        }
        // Every weigher looks: none is passed by because another has news.
        let moved = published.weighers.values_mut().fold(false, |moved, one| one.weigh(now_us) | moved);
        if !is_changed && !moved {
            return;
        }
        let known = self.catalogs.borrow().clone();
        let services = ledger.services().map(|service| {
            let new = published.service(ledger, service);
            // What did not change is the same, so that it is not made anew for clients.
            let same = known.services().get(&service.name).filter(|old| ***old == new);
            (service.name.clone(), same.map_or_else(|| Arc::new(new), Arc::clone))
        });
        match Catalog::new(revision.0.max(known.revision() + 1), services) {
            Ok(catalog) => drop(self.catalogs.send_replace(Arc::new(catalog))),
            // Names and addresses were checked before; clients keep what they had.
            Err(error) => tracing::error!(%error, "services cannot be published to xDS clients"),
        }
    }
}

/// What the latest catalog was made of.
#[derive(Default)]
struct Published {
    /// Of the endpoints (see [`Ledger::endpoints_changed`]).
    revision: Revision,
    /// By service.
    weighers: BTreeMap<String, Weigher>,
}

impl Published {
    fn follow(&mut self, ledger: &Ledger, now_us: u64) {
        self.revision = ledger.endpoints_changed();
        self.weighers.retain(|name, _| ledger.service(name).is_some());
        for service in ledger.services() {
            let told = convert::service_to_v1(service);
            let serving = ledger
                .endpoints(&service.name)
                .filter(|one| ledger.endpoint_state(one) == Some(EndpointState::Serving));
            let present = serving.filter_map(|one| Some((member(one), facts(ledger, one)?))).collect();
            let weigher =
                self.weighers.entry(service.name.clone()).or_insert_with(|| Weigher::new(told.clone()));
            weigher.follow(now_us, &told, present);
        }
    }

    fn service(&self, ledger: &Ledger, service: &Service) -> plimsoll_xds::Service {
        let weigher = self.weighers.get(&service.name);
        let weighed = |replica: &Reservation| {
            let endpoint = endpoint(ledger, replica)?;
            let weight_milli = weigher.and_then(|weigher| weigher.weight_milli(member(replica)));
            Some(Endpoint { weight_milli: weight_milli.unwrap_or(endpoint.weight_milli), ..endpoint })
        };
        let bound = service.load_bound_permille;
        plimsoll_xds::Service {
            endpoints: ledger.endpoints(&service.name).filter_map(|one| weighed(one)).collect(),
            policy: policy(service.balancing),
            load_bound_percent: (bound > 0).then(|| bound.div_ceil(10)),
            ejection: Weigher::ejection().as_ref().map(ejection),
            ..plimsoll_xds::Service::default()
        }
    }
}

/// One that was requeued and granted again is another endpoint.
fn member(replica: &Reservation) -> Member {
    (replica.id.0, replica.token.0)
}

fn facts(ledger: &Ledger, replica: &Reservation) -> Option<Facts> {
    let endpoint = replica.endpoint.as_deref()?;
    Some(Facts {
        weight_milli: endpoint.announced.weight_milli,
        priority: endpoint.announced.priority,
        since_us: endpoint.since.0.saturating_mul(1_000),
        load: ledger.load(replica.id).map(|load| (load.at.0.saturating_mul(1_000), reported(load))),
    })
}

fn reported(load: &Load) -> plimsoll_endpoints::LoadReport {
    plimsoll_endpoints::LoadReport {
        cpu_utilization_permille: load.report.cpu_permille().unwrap_or(0),
        application_utilization_permille: load.report.utilization_permille,
        requests_per_s_milli: load.report.rate_milli,
        errors_per_s_milli: load.report.errors_milli,
        ..plimsoll_endpoints::LoadReport::default()
    }
}

/// The balancer's ejection, in the words of stock clients.
fn ejection(from: &EjectionSettings) -> Ejection {
    let ms = |us: u64| u32::try_from(us / 1_000).unwrap_or(u32::MAX);
    Ejection {
        interval_ms: ms(from.interval_us),
        base_ms: ms(from.base_us),
        max_ms: ms(from.max_us),
        max_percent: from.max_ejected_percent,
        success_rate: from.success_rate.map(|rule| EjectionRule {
            bound: rule.stdev_factor_permille,
            enforcement_percent: rule.enforcement_percent,
            least_endpoints: rule.minimum_hosts,
            least_calls: rule.request_volume,
        }),
        failure_percentage: from.failure_percentage.map(|rule| EjectionRule {
            bound: rule.threshold_percent,
            enforcement_percent: rule.enforcement_percent,
            least_endpoints: rule.minimum_hosts,
            least_calls: rule.request_volume,
        }),
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

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{
        Announcement, Command, Entry, MemberPlacement, Outcome, Placement, PolicyObject, Registration,
        Request, Requirements, Stamp, Verdict,
    };
    use plimsoll_types::{LedgerTime, NodeId, Resources};

    use super::*;

    const START_MS: u64 = 1_000_000;

    fn apply(ledger: &mut Ledger, command: Command) -> Outcome {
        let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: LedgerTime(START_MS) };
        ledger.apply(stamp, &Entry::system(command)).answer.outcome
    }

    /// A node, and services that ramp up over 100 s, and not at all.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new();
        apply(&mut ledger, Command::Upgrade { to: 5 });
        let service = |name: &str, slow_start_ms, balancing, load_bound_permille| {
            PolicyObject::Service(Service {
                name: name.to_owned(),
                pool: "default".to_owned(),
                class: "standard".to_owned(),
                slow_start_ms,
                balancing,
                load_bound_permille,
                ..Service::default()
            })
        };
        let put = vec![
            service("steady", 0, Balancing::Affinity, 1_505),
            service("web", 100_000, Balancing::LeastLoaded, 0),
        ];
        apply(&mut ledger, Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
        let registration = Registration {
            name: "n".into(),
            incarnation: 1,
            capacity: Resources::new(8_000, 1 << 34),
            ..Registration::default()
        };
        apply(&mut ledger, Command::RegisterNode(registration));
        ledger
    }

    fn announce(ledger: &mut Ledger, service: &str, port: u16) {
        let member = MemberPlacement { node: NodeId(0), devices: vec![], role: 0 };
        let request = Request {
            pool: "default".to_owned(),
            class: "standard".to_owned(),
            service: service.to_owned(),
            auto_confirm: true,
            requirements: Requirements { amounts: Resources::new(1_000, 0), ..Requirements::default() },
            ..Request::default()
        };
        let verdict = Verdict::Place(Placement { members: vec![member] });
        let Outcome::Reservation(granted) = apply(ledger, Command::Submit { request, verdict }) else {
            panic!("it fits")
        };
        let announced = Some(Announcement {
            address: format!("10.0.0.1:{port}"),
            weight_milli: 1_000,
            ..Announcement::default()
        });
        apply(ledger, Command::SetEndpoint { reservation: granted.id, token: granted.token, announced });
    }

    fn answer(discovery: &Discovery, service: &str, port: u16) -> String {
        let endpoint = ([10, 0, 0, 1], port).into();
        let question = AgentQuestion { service: service.to_owned(), endpoint };
        AgentAnswer::of(&discovery.catalogs.borrow(), &question).to_string()
    }

    #[test]
    fn weights_of_the_balancer_reach_stock_clients_and_grow_without_an_entry() {
        let mut ledger = ledger();
        announce(&mut ledger, "web", 80);
        announce(&mut ledger, "steady", 81);
        let discovery = Discovery::new();
        let mut published = Published::default();
        let publish = |published: &mut Published, ledger: &Ledger, after_ms: u64| {
            discovery.publish(ledger, published, (START_MS + after_ms) * 1_000);
            Arc::clone(&discovery.catalogs.borrow())
        };
        let first = publish(&mut published, &ledger, 0);
        assert_eq!(first.revision(), ledger.endpoints_changed().0);
        assert_eq!(answer(&discovery, "web", 80), "ready up 10%", "slow start");
        assert_eq!(answer(&discovery, "steady", 81), "ready up 100%");
        let steady = &first.services()["steady"];
        assert_eq!(steady.load_bound_percent, Some(151));
        assert_eq!(steady.ejection.map(|ejection| ejection.base_ms), Some(30_000));

        // Nothing moved far enough.
        assert!(Arc::ptr_eq(&first, &publish(&mut published, &ledger, 2_000)));
        let half = publish(&mut published, &ledger, 50_000);
        assert_eq!(half.revision(), first.revision() + 1, "no entry, and yet a newer catalog");
        assert_eq!(answer(&discovery, "web", 80), "ready up 50%");
        assert!(Arc::ptr_eq(steady, &half.services()["steady"]), "what did not change is not sent again");

        // A change of the ledger is never taken for an older one.
        announce(&mut ledger, "web", 82);
        let third = publish(&mut published, &ledger, 50_001);
        assert!(third.revision() > half.revision());
        let whole = publish(&mut published, &ledger, 200_000);
        assert_eq!(answer(&discovery, "web", 80), "ready up 100%");
        assert!(Arc::ptr_eq(&whole, &publish(&mut published, &ledger, 300_000)), "it rests at the whole");
    }
}
