//! Scaling with a cloud that fails, is slow, loses its answers and its machines, while leaders come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use plimsoll_autoscaler::{Behavior, Policy};
use plimsoll_ledger::{
    Command, IntentState, PolicyObject, Provider, ProviderKind, ScalingPolicy, ScalingTarget, WorkTemplate,
};
use plimsoll_provider::{Ask, Machines, ProviderError, Providers, Started};
use plimsoll_types::{Resources, Revision};
use tokio::task::JoinHandle;

use super::harness::*;
use crate::core::{Core, Stores};
use crate::scaling::Scaler;

/// Milliseconds of one call's time limit.
pub(super) const TIMEOUT_MS: u64 = 2_000;

/// A cloud that does what is asked, in the end. All that it has is in one place, so that leaders can come and go.
#[derive(Clone, Default)]
pub(super) struct Cloud {
    pub(super) state: Arc<Mutex<CloudState>>,
}

#[derive(Default)]
pub(super) struct CloudState {
    /// By key: the name of the node.
    pub(super) machines: BTreeMap<String, String>,
    /// Every machine that was ever made.
    bought: u64,
    /// Most machines at once.
    most: usize,
    /// Calls so far: what goes wrong goes by their number and the seed.
    calls: u64,
    seed: u64,
    /// Machines that never register.
    dead: BTreeSet<String>,
    broken: bool,
}

enum Luck {
    Fine,
    Fails,
    DoneButNotTold,
    TooSlow,
    StillBorn,
}

impl Cloud {
    fn luck(&self) -> Luck {
        let mut state = self.state.lock();
        state.calls += 1;
        if state.broken {
            return Luck::Fails;
        }
        if state.seed == 0 {
            return Luck::Fine;
        }
        // Any spread of the five will do.
        match (state.calls.wrapping_mul(2_654_435_761) ^ state.seed.wrapping_mul(40_503)) % 9 {
            0 => Luck::Fails,
            1 => Luck::DoneButNotTold,
            2 => Luck::TooSlow,
            3 => Luck::StillBorn,
            _ => Luck::Fine,
        }
    }

    fn make(&self, ask: &Ask, dead: bool) {
        let mut state = self.state.lock();
        if !state.machines.contains_key(&ask.key()) {
            state.bought += 1;
            state.machines.insert(ask.key(), ask.node.clone());
            if dead {
                state.dead.insert(ask.key());
            }
        }
        state.most = state.most.max(state.machines.len());
    }

    pub(super) fn live(&self) -> usize {
        self.state.lock().machines.len()
    }

    /// Machines whose agents would register.
    pub(super) fn booted(&self) -> Vec<String> {
        let state = self.state.lock();
        let alive = state.machines.iter().filter(|(key, _)| !state.dead.contains(*key));
        alive.map(|(_, node)| node.clone()).collect()
    }
}

impl Machines for Cloud {
    fn start<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Started, ProviderError>> {
        async move {
            let started = Started { handle: format!("vm-{}", ask.machine), node: String::new() };
            match self.luck() {
                Luck::Fine => self.make(ask, false),
                Luck::Fails => return Err(ProviderError::again("the cloud is out of sorts")),
                Luck::DoneButNotTold => {
                    self.make(ask, false);
                    return Err(ProviderError::again("the answer was lost"));
                }
                Luck::TooSlow => {
                    self.make(ask, false);
                    tokio::time::sleep(Duration::from_millis(3 * TIMEOUT_MS)).await;
                }
                Luck::StillBorn => self.make(ask, true),
            }
            Ok(started)
        }
        .boxed()
    }

    fn stop<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<(), ProviderError>> {
        async move {
            let luck = self.luck();
            if matches!(luck, Luck::Fails) {
                return Err(ProviderError::again("the cloud is out of sorts"));
            }
            self.state.lock().machines.remove(&ask.key());
            match luck {
                Luck::DoneButNotTold => Err(ProviderError::again("the answer was lost")),
                Luck::TooSlow => {
                    tokio::time::sleep(Duration::from_millis(3 * TIMEOUT_MS)).await;
                    Ok(())
                }
                _ => Ok(()),
            }
        }
        .boxed()
    }
}

impl Providers for Cloud {
    fn machines(&self, _: &ProviderKind) -> Result<Arc<dyn Machines>, ProviderError> {
        Ok(Arc::new(self.clone()))
    }
}

/// A leader with its scaler, and the agents of the machines that have booted.
struct Leader {
    core: Core,
    tasks: Vec<JoinHandle<()>>,
}

impl Leader {
    async fn start(stores: &Stores, clock: &Arc<TokioClock>, cloud: &Cloud) -> Leader {
        let core = single_with(stores, clock, |config| config.timings.suspect_after_ms = u64::MAX / 2).await;
        let scaler = Scaler::new(core.clone(), Arc::new(cloud.clone()), "test");
        let (agents, booting) = (core.clone(), cloud.clone());
        let boot = async move {
            loop {
                for name in booting.booted() {
                    let there = agents.local().node_by_name(&name).is_some();
                    if !there {
                        let node = registration(&name, 1, 2_000, 0);
                        // A core that stops takes nothing; the next one will.
                        let _ = agents.submit(entry(Command::RegisterNode(node))).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
        };
        Leader { core, tasks: vec![tokio::spawn(scaler.run()), tokio::spawn(boot)] }
    }

    /// Stops at once: calls that are under way are never told of.
    async fn crash(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.core.shutdown().await;
        self.core.ended().await;
    }
}

fn policy() -> ScalingPolicy {
    let down = Behavior { cooldown_ms: 1_000, ..Behavior::unlimited() };
    ScalingPolicy {
        name: "grow".to_owned(),
        target: ScalingTarget::Pool("default".to_owned()),
        rules: Policy { min: 1, max: 6, up: Behavior::unlimited(), down, ..Policy::default() },
        provider: Some(Provider { kind: ProviderKind::Process, timeout_ms: TIMEOUT_MS, attempts: 4 }),
        template: WorkTemplate { resources: Resources::new(2_000, 1 << 40), ..WorkTemplate::default() },
        max_leaving: 2,
        start_within_ms: 15_000,
        ..ScalingPolicy::default()
    }
}

async fn put(core: &Core, policy: ScalingPolicy) {
    let put = vec![PolicyObject::ScalingPolicy(policy)];
    do_it(core, Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }).await;
}

/// Waits until `condition` holds: machines that fail are tried again after minutes.
async fn in_the_end(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

fn fleet(core: &Core) -> plimsoll_ledger::Fleet {
    core.local().fleet(&policy())
}

#[tokio::test(start_paused = true)]
async fn a_pool_grows_for_what_waits_and_shrinks_after_it() {
    let (stores, clock, cloud) = (stores(), TokioClock::new(), Cloud::default());
    let leader = Leader::start(&stores, &clock, &cloud).await;
    let core = &leader.core;
    put(core, policy()).await;
    until("the least is there", || fleet(core).ready == 1).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(reserve(core, queued(request(2_000))).await.id);
    }
    until("all hold something", || held.iter().all(|id| state(core, *id) == plimsoll_ledger::State::Active))
        .await;
    assert_eq!((fleet(core).present, cloud.live()), (4, 4), "one for each, and no more");
    let seen = || core.looks().get("grow").map(|look| look.lines).unwrap_or_default();
    until("it is told of", || seen().iter().any(|line| line.contains("in use: at least 4"))).await;
    // Nobody loses what he holds, however long it is.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(cloud.live(), 4);
    for id in held {
        do_it(core, Command::Cancel { reservation: id }).await;
    }
    until("only the least stays", || cloud.live() == 1 && fleet(core).present == 1).await;
    leader.crash().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_bought_twice_whatever_providers_and_leaders_do() {
    for seed in 1..=12 {
        let (stores, clock, cloud) = (stores(), TokioClock::new(), Cloud::default());
        cloud.state.lock().seed = seed;
        let mut leader = Leader::start(&stores, &clock, &cloud).await;
        put(&leader.core, policy()).await;
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(reserve(&leader.core, queued(request(2_000))).await.id);
        }
        for crash in 0..4 {
            tokio::time::sleep(Duration::from_millis(600 + 900 * ((seed + crash) % 5))).await;
            leader.crash().await;
            leader = Leader::start(&stores, &clock, &cloud).await;
        }
        let core = &leader.core;
        in_the_end("it converges", || {
            let all_run = held.iter().all(|id| {
                core.local().reservation(*id).is_some_and(|one| one.state == plimsoll_ledger::State::Active)
            });
            all_run && cloud.live() == 4
        })
        .await;
        let (bought, most) = {
            let state = cloud.state.lock();
            (state.bought, state.most)
        };
        assert!(most <= 4, "seed {seed}: {most} machines at once for 4 requests, {bought} bought in all");
        assert_eq!(core.local().check_invariants(), [], "seed {seed}");
        for id in &held {
            do_it(core, Command::Cancel { reservation: *id }).await;
        }
        in_the_end("it shrinks", || cloud.live() == 1 && fleet(core).present == 1).await;
        leader.crash().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_for_good_is_left_alone_longer_each_time_and_is_told_of() {
    let (stores, clock, cloud) = (stores(), TokioClock::new(), Cloud::default());
    cloud.state.lock().broken = true;
    let leader = Leader::start(&stores, &clock, &cloud).await;
    put(&leader.core, policy()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let calls = cloud.state.lock().calls;
    assert!(calls < 120, "{calls} calls in ten minutes");
    let view = leader.core.local();
    let failed = view.intents().filter(|intent| intent.state == IntentState::Failed).count();
    assert!(failed > 0);
    assert!(view.scaling("grow").is_some_and(|state| state.failures > 1));
    assert!(view.intents().any(|intent| intent.detail.contains("out of sorts")));
    drop(view);
    cloud.state.lock().broken = false;
    in_the_end("it is tried again", || fleet(&leader.core).ready == 1).await;
    let failures = || leader.core.local().scaling("grow").map(|state| state.failures);
    in_the_end("the failures are forgotten", || failures() == Some(0)).await;
    leader.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_is_lent_to_the_pool_in_which_somebody_waits_whoever_leads() {
    let (stores, clock, cloud) = (stores(), TokioClock::new(), Cloud::default());
    let leader = Leader::start(&stores, &clock, &cloud).await;
    let elastic = |name: &str| {
        let elasticity = plimsoll_ledger::Elasticity::Elastic;
        let elastic = plimsoll_ledger::Elastic { elasticity, idle_timeout_ms: 5_000, ..Default::default() };
        PolicyObject::Pool(plimsoll_ledger::Pool { name: name.into(), elastic, ..Default::default() })
    };
    let put = vec![elastic("default"), elastic("other")];
    do_it(&leader.core, Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }).await;
    do_it(&leader.core, Command::RegisterNode(registration("n1", 1, 2_000, 0))).await;
    let waits = plimsoll_ledger::Request { pool: "other".into(), ..queued(request(1_000)) };
    let waits = reserve(&leader.core, waits).await.id;
    let pool_of = |core: &Core| core.local().node_by_name("n1").map(|node| node.pool.clone());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(pool_of(&leader.core).as_deref(), Some("default"), "it is not idle for long enough");
    let said = leader.core.looks().get("pool/default").map(|look| look.lines).unwrap_or_default();
    assert!(said.iter().any(|line| line.contains("n1 stays: idle for")), "{said:?}");
    // The next leader counts anew.
    leader.crash().await;
    let leader = Leader::start(&stores, &clock, &cloud).await;
    let core = &leader.core;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(pool_of(core).as_deref(), Some("default"));
    until("it is lent", || pool_of(core).as_deref() == Some("other")).await;
    until("who waited has it", || state(core, waits) == plimsoll_ledger::State::Active).await;
    assert_eq!(
        core.local().node_by_name("n1").and_then(|n| n.lent_by().map(str::to_owned)).as_deref(),
        Some("default")
    );
    leader.crash().await;
}
