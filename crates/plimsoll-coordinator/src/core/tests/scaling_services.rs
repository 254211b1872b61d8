//! Services that scale: woken by requests that found nobody, grown by what their replicas say, and let go of only once their clients know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_autoscaler::{Activation, Aim, Behavior, Metric, Policy, Target};
use plimsoll_ledger::{
    Announcement, Command, EndpointState, LoadReport, PolicyObject, Provider, ProviderKind, Request,
    Reservation, ScalingPolicy, ScalingTarget, Service,
};
use plimsoll_types::{LedgerTime, ReservationId, Revision};
use tokio::task::JoinHandle;

use super::harness::*;
use super::scaling::{Cloud, TIMEOUT_MS};
use crate::core::Core;
use crate::scaling::Scaler;

/// A leader with its scaler on a cloud whose machines are replicas.
struct Leader {
    core: Core,
    cloud: Cloud,
    /// What each replica says that it has in flight; all of them the same.
    in_flight: Arc<Mutex<u32>>,
    /// Each replica that was stopped, and for how long its endpoint had drained by then, in milliseconds.
    stopped: Arc<Mutex<Vec<(String, u64)>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Leader {
    async fn start() -> Leader {
        let (stores, clock, cloud) = (stores(), TokioClock::new(), Cloud::default());
        let core =
            single_with(&stores, &clock, |config| config.timings.suspect_after_ms = u64::MAX / 2).await;
        do_it(&core, Command::RegisterNode(registration("n1", 1, 16_000, 0))).await;
        let scaler = Scaler::new(core.clone(), Arc::new(cloud.clone()), "test");
        let (in_flight, stopped) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
        let tasks = vec![tokio::spawn(scaler.run())];
        let mut leader = Leader { core, cloud, in_flight, stopped, tasks };
        leader.tasks.push(tokio::spawn(leader.play()));
        leader
    }

    /// The replicas: each listens once it is started, says its load, and ends when it is stopped.
    fn play(&self) -> impl Future<Output = ()> + use<> {
        let (core, cloud) = (self.core.clone(), self.cloud.clone());
        let (in_flight, stopped) = (Arc::clone(&self.in_flight), Arc::clone(&self.stopped));
        async move {
            let mut draining: BTreeMap<ReservationId, LedgerTime> = BTreeMap::new();
            loop {
                let booted = cloud.booted();
                let replicas: Vec<Arc<Reservation>> = core.local().endpoints("web").cloned().collect();
                let now = LedgerTime(core.clock().now_ms());
                for replica in &replicas {
                    if core.local().endpoint_state(replica) == Some(EndpointState::Draining) {
                        draining.entry(replica.id).or_insert(now);
                    }
                    if !booted.contains(&replica.request.name) {
                        let drained_ms = draining.get(&replica.id).map_or(0, |since| now.ms_since(*since));
                        stopped.lock().push((replica.request.name.clone(), drained_ms));
                        do_it(&core, Command::Release { reservation: replica.id, token: replica.token })
                            .await;
                    } else {
                        let said = LoadReport {
                            reservation: replica.id,
                            utilization_permille: 10,
                            rate_milli: 0,
                            errors_milli: 0,
                            in_flight: *in_flight.lock(),
                            queue_depth: 0,
                            latency_us: 1,
                            ..Default::default()
                        };
                        core.loads().take_in([said]);
                    }
                }
                for name in booted.iter().filter(|name| replicas.iter().all(|r| r.request.name != **name)) {
                    listen(&core, name).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    fn replicas(&self) -> usize {
        self.core.local().endpoints("web").count()
    }

    async fn stop(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.core.shutdown().await;
        self.core.ended().await;
    }
}

async fn listen(core: &Core, name: &str) {
    let asked = Request { service: "web".into(), name: name.to_owned(), ttl_ms: 3_600_000, ..request(500) };
    let made = reserve(core, Request { auto_confirm: true, ..asked }).await;
    let address = format!("10.0.0.1:{}", 1_000 + made.id.0 % 60_000);
    let announced = Some(Announcement { address, weight_milli: 1_000, ..Announcement::default() });
    do_it(core, Command::SetEndpoint { reservation: made.id, token: made.token, announced }).await;
}

/// One replica for ten requests in flight, and none after five seconds without any.
fn policy(least: u64) -> ScalingPolicy {
    let aim = Aim::PerReplica { target_milli: 10_000 };
    let targets = vec![Target { metric: Metric::Custom("in_flight".to_owned()), aim }];
    let activation = Activation { above_milli: Vec::new(), cooldown_ms: 5_000 };
    let down = Behavior { cooldown_ms: 1_000, ..Behavior::unlimited() };
    let rules = Policy { min: least, max: 4, targets, up: Behavior::unlimited(), down, ..Policy::default() };
    ScalingPolicy {
        name: "web".to_owned(),
        target: ScalingTarget::Service("web".to_owned()),
        rules: Policy { activation: (least == 0).then_some(activation), ..rules },
        provider: Some(Provider { kind: ProviderKind::Process, timeout_ms: TIMEOUT_MS, attempts: 4 }),
        max_leaving: 2,
        drain_ms: 10_000,
        start_within_ms: 15_000,
        ..ScalingPolicy::default()
    }
}

async fn put(core: &Core, policy: ScalingPolicy) {
    let service = Service {
        name: "web".into(),
        pool: "default".into(),
        class: "standard".into(),
        ..Service::default()
    };
    let put = vec![PolicyObject::Service(service), PolicyObject::ScalingPolicy(policy)];
    do_it(core, Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_at_zero_is_woken_by_who_found_nobody_and_sleeps_again() {
    let leader = Leader::start().await;
    let core = &leader.core;
    put(core, policy(0)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(leader.replicas(), 0, "nobody asks for it");
    core.turned_away().note("web", 3);
    let seen = || core.looks().get("web").map(|look| look.lines.join("; ")).unwrap_or_default();
    until("it is told of", || seen().contains("3 requests of late found no endpoint: at least 1")).await;
    until("one serves", || leader.replicas() == 1).await;
    *leader.in_flight.lock() = 25;
    until("what it says makes it more", || leader.replicas() == 3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(leader.replicas(), 4, "three that say so much are too few");
    *leader.in_flight.lock() = 0;
    until("nobody is left", || leader.replicas() == 0 && leader.cloud.live() == 0).await;
    leader.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_stopped_before_its_clients_know_or_while_it_has_requests() {
    let leader = Leader::start().await;
    let core = &leader.core;
    put(core, policy(1)).await;
    let pin = |to| Command::PinScale {
        target: ScalingTarget::Service("web".to_owned()),
        to: Some(to),
        for_ms: 3_600_000,
    };
    do_it(core, pin(3)).await;
    until("three serve", || leader.replicas() == 3).await;
    do_it(core, pin(2)).await;
    until("one is gone", || leader.stopped.lock().len() == 1).await;
    *leader.in_flight.lock() = 7;
    tokio::time::sleep(Duration::from_secs(2)).await;
    do_it(core, pin(1)).await;
    until("another is gone", || leader.stopped.lock().len() == 2).await;
    let stopped = leader.stopped.lock().clone();
    assert!((950..5_000).contains(&stopped[0].1), "once its clients know: {stopped:?}");
    assert!((9_900..15_000).contains(&stopped[1].1), "once it has had its time: {stopped:?}");
    leader.stop().await;
}
