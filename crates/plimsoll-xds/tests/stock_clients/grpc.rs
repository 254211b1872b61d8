//! gRPC clients on `xds:///model-a`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use plimsoll_xds::{Ejection, EjectionRule, Endpoint, Health, Policy, Reports, Service};
use tokio::time::sleep;

use crate::backend::{Backend, SESSION};
use crate::control::{Control, until};
use crate::installed::Program;
use crate::process::{Caller, PATIENCE};

/// Calls after which a weight of a ninth is within the bounds of its test but for five standard deviations: clients draw the weights at random.
const DRAWS: usize = 6_000;

/// What `docs/stock-clients.md` promises.
pub(crate) const PROPAGATION: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn python_calls_only_endpoints_that_are_there() {
    follows_the_catalog(Program::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_calls_only_endpoints_that_are_there() {
    follows_the_catalog(Program::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_weighs_by_reported_load() {
    weighs_by_reports(Program::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_weighs_by_reported_load() {
    weighs_by_reports(Program::Node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_keeps_a_session_to_one_endpoint() {
    keeps_sessions(Program::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_keeps_a_session_to_one_endpoint() {
    keeps_sessions(Program::Node).await;
}

/// Endpoints that serve, and one service of them, with the ejection that coordinators send: every client must take it.
pub(crate) fn service(endpoints: impl IntoIterator<Item = Endpoint>, policy: Policy) -> Service {
    let rule = |bound, least_calls| {
        Some(EjectionRule { bound, enforcement_percent: 100, least_endpoints: 5, least_calls })
    };
    let ejection = Ejection {
        interval_ms: 10_000,
        base_ms: 30_000,
        max_ms: 300_000,
        max_percent: 10,
        success_rate: rule(1_900, 100),
        failure_percentage: rule(85, 50),
    };
    Service {
        endpoints: endpoints.into_iter().collect(),
        policy,
        ejection: Some(ejection),
        ..Service::default()
    }
}

async fn follows_the_catalog(program: Program) {
    let mut control = Control::start().await;
    let fleet = Backend::fleet(4).await;
    let serving = |of: &[usize]| of.iter().map(|i| fleet[*i].endpoint()).collect::<Vec<_>>();
    let draining = |i: usize| Endpoint { health: Health::Draining, ..fleet[i].endpoint() };

    control.publish(&service(serving(&[0, 1, 2]), Policy::LeastLoaded));
    let Some(caller) = Caller::start(program, &[control.address.to_string()]).await else { return };
    all_are_called("three endpoints", &fleet[..3]).await;

    let left = control.publish(&service(serving(&[1, 2]), Policy::LeastLoaded));
    nothing_arrives(program, "left the catalog", &fleet[0], left).await;

    let drained =
        control.publish(&service(serving(&[2]).into_iter().chain([draining(1)]), Policy::LeastLoaded));
    nothing_arrives(program, "is draining", &fleet[1], drained).await;
    assert!(!fleet[2].since(drained).is_empty(), "the one that is left takes the calls");

    let grown =
        control.publish(&service(serving(&[0, 2, 3]).into_iter().chain([draining(1)]), Policy::LeastLoaded));
    until("the new endpoints are called", PATIENCE, || {
        [0, 3].iter().all(|i| fleet[*i].count_since(grown) > 10)
    })
    .await;
    let first = fleet[3].since(grown)[0].at - grown;
    eprintln!("{program:?}: the first call reached a new endpoint after {} ms", first.as_millis());

    let light = Endpoint { weight_milli: 250, ..fleet[3].endpoint() };
    let weighed = control.publish(&service(serving(&[0, 2]).into_iter().chain([light]), Policy::RoundRobin));
    sleep(PROPAGATION).await;
    let counts = counts_of(DRAWS, &fleet).await;
    eprintln!("{program:?}: calls at weights 1000, 0, 1000, 250: {counts:?}");
    let usual = (counts[0] + counts[2]) as f64 / 2.0;
    let share = counts[3] as f64 / usual;
    assert!((0.2..0.3).contains(&share), "a quarter of the weight is a quarter of the calls, not {share}");
    assert!(fleet[1].since(weighed + PROPAGATION).is_empty());

    let said = caller.end().await;
    assert_eq!(said["errors"], serde_json::json!({}), "{said}");
    control.assert_all_accepted();
    let reports = control.reports();
    let reported: u64 = reports.iter().map(|report| report.requests).sum();
    let arrived: usize = fleet.iter().map(|backend| backend.count_since(grown)).sum();
    eprintln!(
        "{program:?}: {} calls, of which load reports tell {reported}, in {} reports",
        said["calls"],
        reports.len()
    );
    assert!(
        reported as usize > arrived / 2,
        "load reports tell {reported} calls, and {arrived} arrived after the growth alone"
    );
}

async fn weighs_by_reports(program: Program) {
    let control = Control::start().await;
    let fleet = [Backend::start(0.1).await, Backend::start(0.9).await];
    let reports = Reports { blackout_ms: 1_000, update_ms: 100, ..Reports::default() };
    control.publish(&service(fleet.iter().map(Backend::endpoint), Policy::Weighted(reports)));
    let Some(caller) = Caller::start(program, &[control.address.to_string()]).await else { return };
    all_are_called("two endpoints", &fleet).await;
    sleep(Duration::from_secs(3)).await;
    let counts = counts_over(Duration::from_secs(4), &fleet).await;
    let ratio = counts[0] as f64 / counts[1].max(1) as f64;
    eprintln!("{program:?}: calls at utilizations 0.1 and 0.9: {counts:?}, {ratio:.1} to 1");
    assert!((7.0..12.0).contains(&ratio), "{ratio}");
    let said = caller.end().await;
    assert_eq!(said["errors"], serde_json::json!({}), "{said}");
    control.assert_all_accepted();
}

async fn keeps_sessions(program: Program) {
    let control = Control::start().await;
    let fleet = Backend::fleet(3).await;
    let affinity = Policy::Affinity { header: SESSION.to_owned() };
    control.publish(&service(fleet.iter().map(Backend::endpoint), affinity.clone()));
    let Some(caller) = Caller::start(program, &[control.address.to_string()]).await else { return };
    // While connections are made, calls go on to the next on the ring.
    sleep(Duration::from_secs(2)).await;
    let begin = Instant::now();
    sleep(Duration::from_secs(3)).await;
    let before = places(&fleet, begin);
    assert_eq!(before.len(), 60, "sixty sessions call");
    assert!(before.values().all(|at| at.len() == 1), "{before:?}");
    let used: BTreeSet<&SocketAddr> = before.values().flatten().collect();
    assert!(used.len() > 1, "{before:?}");

    let left = control.publish(&service(fleet[1..].iter().map(Backend::endpoint), affinity));
    sleep(PROPAGATION + Duration::from_secs(3)).await;
    let after = places(&fleet, left + PROPAGATION);
    assert!(after.values().all(|at| at.len() == 1 && !at.contains(&fleet[0].address)), "{after:?}");
    // The ring has as many points for two as for three, so some move that had no reason to: a sixth; by a plain remainder it would be half.
    let could_stay: Vec<_> = before.iter().filter(|(_, at)| !at.contains(&fleet[0].address)).collect();
    let moved = could_stay.iter().filter(|(session, at)| after.get(*session) != Some(*at)).count();
    eprintln!("{program:?}: of {} sessions whose endpoint stayed, {moved} moved", could_stay.len());
    assert!(moved * 3 <= could_stay.len(), "{moved} of {} moved", could_stay.len());
    let said = caller.end().await;
    assert_eq!(said["errors"], serde_json::json!({}), "{said}");
    control.assert_all_accepted();
}

/// Which endpoints each session reached since then.
fn places(fleet: &[Backend], begin: Instant) -> BTreeMap<String, BTreeSet<SocketAddr>> {
    let mut places: BTreeMap<String, BTreeSet<SocketAddr>> = BTreeMap::new();
    for backend in fleet {
        for session in backend.since(begin).into_iter().filter_map(|call| call.session) {
            places.entry(session).or_default().insert(backend.address);
        }
    }
    places
}

/// Each of them has its share of calls.
pub(crate) async fn all_are_called(what: &str, fleet: &[Backend]) {
    let begin = Instant::now();
    until(what, PATIENCE, || fleet.iter().all(|backend| backend.count_since(begin) > 20)).await;
}

/// After the promised time no call reaches it any more; the time it took is printed.
pub(crate) async fn nothing_arrives(
    who: impl std::fmt::Debug,
    what: &str,
    backend: &Backend,
    published: Instant,
) {
    sleep(PROPAGATION * 2).await;
    let last = backend.last_after(published);
    let calls = backend.count_since(published);
    eprintln!("{who:?}: an endpoint that {what} was called for {} ms more ({calls} calls)", last.as_millis());
    assert!(last <= PROPAGATION, "called until {last:?} after it {what}");
}

/// Calls that arrive at each in this time.
async fn counts_over(time: Duration, fleet: &[Backend]) -> Vec<usize> {
    let begin = Instant::now();
    sleep(time).await;
    fleet.iter().map(|backend| backend.count_since(begin)).collect()
}

/// How many calls each has taken when this many have arrived.
async fn counts_of(calls: usize, fleet: &[Backend]) -> Vec<usize> {
    let begin = Instant::now();
    let counts = || fleet.iter().map(|backend| backend.count_since(begin)).collect::<Vec<_>>();
    until("enough calls", PATIENCE * 4, || counts().iter().sum::<usize>() >= calls).await;
    counts()
}
