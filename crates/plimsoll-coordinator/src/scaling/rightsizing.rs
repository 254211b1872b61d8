//! What replicas of a service should ask for, by what their nodes measured of them: a decaying histogram of each service and resource.
//!
//! Every coordinator keeps its own, from the loads in the ledger; they are about the same, and none is lost with the leader. One that starts anew begins with nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_autoscaler::{Histogram, Recommendation, VerticalPolicy};
use plimsoll_ledger::{EndpointState, Ledger, Reservation};
use plimsoll_types::LedgerTime;

use super::signals::LOAD_COUNTS_MS;
use crate::core::Core;

/// Between two looks at what replicas use.
const EVERY: Duration = Duration::from_secs(10);
/// A sample counts half after a day, as the Kubernetes Vertical Pod Autoscaler has it.
const HALF_LIFE_MS: u64 = 86_400_000;
/// What is sized. Devices are granted whole.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Histograms of use, by service and resource.
#[derive(Debug, Default)]
pub struct Rightsizing {
    used: Mutex<BTreeMap<(String, &'static str), Histogram>>,
}

/// What a replica of a service should ask for of one resource: thousandths of a core, or bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rightsized {
    /// `cpu` or `memory`.
    pub resource: &'static str,
    /// What its latest replica has.
    pub requested: u64,
    /// What it should be, and by what.
    pub recommendation: Recommendation,
}

impl Rightsizing {
    /// Looks at all services about every ten seconds, until the core stops.
    pub async fn follow(core: &Core) {
        let looks = async {
            loop {
                tokio::time::sleep(EVERY).await;
                let now_ms = core.clock().now_ms();
                core.rightsizing().sample(&core.local(), LedgerTime(now_ms));
            }
        };
        tokio::select! {
            () = core.ended() => {}
            () = looks => {}
        }
    }

    /// Adds what each replica uses now. O(endpoints).
    pub fn sample(&self, ledger: &Ledger, now: LedgerTime) {
        let mut used = self.used.lock();
        used.retain(|(service, _), _| ledger.service(service).is_some());
        for service in ledger.services() {
            for replica in ledger.endpoints(&service.name) {
                if ledger.endpoint_state(replica) != Some(EndpointState::Serving) {
                    continue;
                }
                for resource in RESOURCES {
                    if let Some(amount) = amount_used(ledger, replica, resource, now) {
                        let histogram = used
                            .entry((service.name.clone(), resource))
                            .or_insert_with(|| Histogram::new(HALF_LIFE_MS));
                        histogram.add(amount, now.0);
                    }
                }
            }
        }
    }

    /// What is recommended for a service: nothing where too little was seen. No more than its pool's largest node has. O(endpoints + nodes).
    pub fn of(&self, ledger: &Ledger, service: &str) -> Vec<Rightsized> {
        let Some(latest) = ledger.endpoints(service).max_by_key(|replica| replica.token) else {
            return Vec::new();
        };
        let used = self.used.lock();
        let sized = |resource: &'static str| {
            let histogram = used.get(&(service.to_owned(), resource))?;
            let nodes = ledger.nodes().filter(|node| node.pool == latest.request.pool);
            let max = nodes.map(|node| node.allocatable.get(resource).0).max().unwrap_or(u64::MAX);
            let recommendation = histogram.recommend(&VerticalPolicy { max, ..VerticalPolicy::default() })?;
            Some(Rightsized { resource, requested: granted(latest, resource), recommendation })
        };
        RESOURCES.into_iter().filter_map(sized).collect()
    }
}

/// What the first member of a replica has: members of a replica are alike.
fn granted(replica: &Reservation, resource: &str) -> u64 {
    replica.members.first().map_or(0, |member| replica.amounts_of(member).get(resource).0)
}

/// By the part of what was granted that its node measured lately.
fn amount_used(ledger: &Ledger, replica: &Reservation, resource: &str, now: LedgerTime) -> Option<u64> {
    let load = ledger.load(replica.id).filter(|load| now.ms_since(load.at) < LOAD_COUNTS_MS)?;
    let parts = load.report.metrics.get(resource)?;
    let amount = u128::from(granted(replica, resource)) * u128::from(*parts) / 100_000;
    u64::try_from(amount).ok()
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{
        Announcement, Command, Entry, LATEST_VERSION, LoadReport, MemberPlacement, Outcome, Placement,
        PolicyObject, Registration, Request, Requirements, Service, Stamp, Verdict,
    };
    use plimsoll_types::{NodeId, Resources, Revision};

    use super::*;

    const GIB: u64 = 1 << 30;

    fn apply(ledger: &mut Ledger, at_ms: u64, command: Command) -> Outcome {
        let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: LedgerTime(at_ms) };
        ledger.apply(stamp, &Entry::system(command)).answer.outcome
    }

    /// A node of 8 cores, and a replica of 4 cores and 4 GiB on it.
    fn ledger() -> (Ledger, plimsoll_types::ReservationId) {
        let mut ledger = Ledger::new();
        apply(&mut ledger, 1, Command::Upgrade { to: LATEST_VERSION });
        let (pool, class) = ("default".to_owned(), "standard".to_owned());
        let web =
            Service { name: "web".into(), pool: pool.clone(), class: class.clone(), ..Service::default() };
        let put = vec![PolicyObject::Service(web)];
        apply(&mut ledger, 1, Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
        let capacity = Resources::new(8_000, 16 * GIB);
        let node = Registration { name: "n".into(), incarnation: 1, capacity, ..Registration::default() };
        apply(&mut ledger, 1, Command::RegisterNode(node));
        let request = Request {
            pool,
            class,
            service: "web".into(),
            auto_confirm: true,
            requirements: Requirements { amounts: Resources::new(4_000, 4 * GIB), ..Requirements::default() },
            ..Request::default()
        };
        let member = MemberPlacement { node: NodeId(0), devices: vec![], role: 0 };
        let verdict = Verdict::Place(Placement { members: vec![member] });
        let Outcome::Reservation(replica) = apply(&mut ledger, 1, Command::Submit { request, verdict })
        else {
            panic!("it fits")
        };
        let announced = Some(Announcement {
            address: "10.0.0.1:80".into(),
            weight_milli: 1_000,
            ..Announcement::default()
        });
        let (reservation, token) = (replica.id, replica.token);
        apply(&mut ledger, 1, Command::SetEndpoint { reservation, token, announced });
        (ledger, reservation)
    }

    #[test]
    fn a_replica_that_uses_a_quarter_should_ask_for_a_quarter_and_some_more() {
        let (mut ledger, reservation) = ledger();
        let sizing = Rightsizing::default();
        for sample in 1..=20_u64 {
            let metrics = [("cpu".to_owned(), 25_000), ("memory".to_owned(), 150_000)].into();
            let report = LoadReport { metrics, ..LoadReport::silent(reservation) };
            let now = LedgerTime(sample * 10_000);
            assert_eq!(
                apply(&mut ledger, now.0, Command::ReportLoad { reports: vec![report] }),
                Outcome::Done
            );
            assert_eq!(sizing.of(&ledger, "web").is_empty(), sample <= 8, "after {} samples", sample - 1);
            sizing.sample(&ledger, now);
        }
        let found = sizing.of(&ledger, "web");
        let told: Vec<_> = found.iter().map(|one| (one.resource, one.requested)).collect();
        assert_eq!(told, [("cpu", 4_000), ("memory", 4 * GIB)]);
        // A quarter of 4 cores, 15 % more, and up to 5 % for the bucket; of memory half as much again.
        assert!((1_150..=1_210).contains(&found[0].recommendation.request), "{found:?}");
        assert!((69 * GIB / 10..=73 * GIB / 10).contains(&found[1].recommendation.request), "{found:?}");
        assert_eq!(found[0].recommendation.samples, 20);
    }

    #[test]
    fn what_was_measured_long_ago_and_what_nobody_measured_says_nothing() {
        let (mut ledger, reservation) = ledger();
        let sizing = Rightsizing::default();
        let silent = LoadReport { measured_only: false, ..LoadReport::silent(reservation) };
        apply(&mut ledger, 1_000, Command::ReportLoad { reports: vec![silent.clone()] });
        sizing.sample(&ledger, LedgerTime(1_000));
        let metrics = [("cpu".to_owned(), 50_000)].into();
        apply(&mut ledger, 1_000, Command::ReportLoad { reports: vec![LoadReport { metrics, ..silent }] });
        sizing.sample(&ledger, LedgerTime(1_000 + LOAD_COUNTS_MS));
        assert!(sizing.used.lock().is_empty());
        sizing.sample(&ledger, LedgerTime(2_000));
        assert_eq!(sizing.used.lock().len(), 1);
        let delete = vec![plimsoll_ledger::PolicyName::Service("web".to_owned())];
        apply(&mut ledger, 3_000, Command::ApplyPolicy { put: vec![], delete, if_revision: Revision(0) });
        sizing.sample(&ledger, LedgerTime(3_000));
        assert_eq!(sizing.used.lock().is_empty(), ledger.service("web").is_none());
    }
}
