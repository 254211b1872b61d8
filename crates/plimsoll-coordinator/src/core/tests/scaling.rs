//! Scaling with a cloud that fails, is slow, loses its answers and its machines, while leaders come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use plimsoll_autoscaler::{Activation, Behavior, Expander, Policy};
use plimsoll_ledger::{
    CapacityType, Command, IntentState, NodeTemplate, PolicyObject, Provider, ProviderKind, Registration,
    Request, ScalingPolicy, ScalingTarget, TemplateDevice, WorkTemplate,
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
    /// Of which template each machine was asked for, and what it is, by the name of its node.
    templates: BTreeMap<String, (String, WorkTemplate)>,
    /// Templates of which there are none to be had.
    sold_out: BTreeSet<String>,
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

    /// The node of a machine, as its template says where it has a name.
    fn node(&self, name: &str) -> Registration {
        let template = self.state.lock().templates.get(name).cloned();
        let Some((_, machine)) = template.filter(|(name, _)| !name.is_empty()) else {
            return registration(name, 1, 2_000, 0);
        };
        let capacity = machine.resources.clone();
        let gpus = u16::try_from(machine.gpus()).unwrap_or(0);
        Registration { capacity, labels: machine.labels, ..registration(name, 1, 2_000, gpus) }
    }

    /// How many machines of a template there are.
    fn count(&self, template: &str) -> usize {
        let state = self.state.lock();
        let of = |node: &&String| state.templates.get(*node).is_some_and(|(name, _)| name == template);
        state.machines.values().filter(of).count()
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
            {
                let mut state = self.state.lock();
                if state.sold_out.contains(&ask.template_name) {
                    return Err(ProviderError::never(format!("no {} is left", ask.template_name)));
                }
                let of = (ask.template_name.clone(), ask.template.clone());
                state.templates.insert(ask.node.clone(), of);
            }
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
                        let node = booting.node(&name);
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

fn template(name: &str, cpu_millis: u64, gpus: u32) -> NodeTemplate {
    let device = TemplateDevice { model: "a100".to_owned(), memory_bytes: 80 << 30, count: gpus };
    let devices = if gpus > 0 { vec![device] } else { Vec::new() };
    let offers =
        WorkTemplate { resources: Resources::new(cpu_millis, 1 << 40), devices, ..WorkTemplate::default() };
    NodeTemplate { name: name.to_owned(), offers, ..NodeTemplate::default() }
}

fn several(templates: Vec<NodeTemplate>, expander: Vec<Expander>) -> ScalingPolicy {
    // It may sleep: one that is awake has a machine of the first template before anybody waits.
    let activation = Some(Activation { above_milli: Vec::new(), cooldown_ms: 1_000 });
    let rules = Policy { min: 0, activation, ..policy().rules };
    ScalingPolicy { templates, expander, rules, template: WorkTemplate::default(), ..policy() }
}

fn lines(core: &Core) -> Vec<String> {
    core.looks().get("grow").map(|look| look.lines).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn who_needs_a_gpu_gets_the_template_that_has_one() {
    let (stores, clock, cloud) = (stores(), TokioClock::new(), Cloud::default());
    let leader = Leader::start(&stores, &clock, &cloud).await;
    let core = &leader.core;
    let templates = vec![template("cpu", 8_000, 0), template("gpu", 8_000, 2)];
    put(core, several(templates, vec![Expander::LeastWaste])).await;
    let held = reserve(core, queued(gpu_request(2))).await.id;
    until("it runs", || state(core, held) == plimsoll_ledger::State::Active).await;
    assert_eq!((cloud.count("gpu"), cloud.count("cpu")), (1, 0));
    let decided = core.local().scaling("grow").map(|state| state.inputs.clone()).unwrap_or_default();
    assert!(
        decided.iter().any(|line| line.contains("template gpu (1 machines for 1 requests")),
        "{decided:?}"
    );
    // One that asks for cores alone wastes least where there is no GPU beside them.
    let mut plain = Vec::new();
    for _ in 0..2 {
        plain.push(reserve(core, queued(request(8_000))).await.id);
    }
    until("all run", || plain.iter().all(|id| state(core, *id) == plimsoll_ledger::State::Active)).await;
    assert_eq!((cloud.count("gpu"), cloud.count("cpu")), (1, 2));
    assert!(core.local().intents().any(|intent| intent.template == "gpu"), "the next leader knows");
    for id in plain.into_iter().chain([held]) {
        do_it(core, Command::Cancel { reservation: id }).await;
    }
    in_the_end("nothing is left", || cloud.live() == 0).await;
    leader.crash().await;
}

#[tokio::test(start_paused = true)]
async fn by_price_the_spot_template_is_bought_up_to_its_own_bound() {
    let (stores, clock, cloud) = (stores(), TokioClock::new(), Cloud::default());
    let leader = Leader::start(&stores, &clock, &cloud).await;
    let core = &leader.core;
    let spot = NodeTemplate {
        capacity_type: Some(CapacityType::Spot),
        price_permille: 300,
        max: 2,
        ..template("spot", 2_000, 0)
    };
    put(core, several(vec![template("usual", 2_000, 0), spot], vec![Expander::Price])).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(reserve(core, queued(request(2_000))).await.id);
    }
    until("all run", || held.iter().all(|id| state(core, *id) == plimsoll_ledger::State::Active)).await;
    assert_eq!((cloud.count("spot"), cloud.count("usual")), (2, 1));
    let spots = core.local().nodes().filter(|node| node.capacity_type() == CapacityType::Spot).count();
    assert_eq!(spots, 2, "its nodes say how they are paid for");
    until("it is told of", || lines(core).iter().any(|line| line.contains("spot has 2 machines, 2 at most")))
        .await;
    leader.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_template_that_fails_is_passed_over_for_another_that_would_do() {
    let (stores, clock, cloud) = (stores(), TokioClock::new(), Cloud::default());
    cloud.state.lock().sold_out.insert("cheap".to_owned());
    let leader = Leader::start(&stores, &clock, &cloud).await;
    let core = &leader.core;
    let cheap = NodeTemplate { price_permille: 100, ..template("cheap", 2_000, 0) };
    put(core, several(vec![cheap, template("dear", 2_000, 0)], vec![Expander::Price])).await;
    let held = reserve(core, queued(request(2_000))).await.id;
    until("it runs", || state(core, held) == plimsoll_ledger::State::Active).await;
    assert_eq!((cloud.count("cheap"), cloud.count("dear")), (0, 1));
    let resting = |core: &Core| {
        let view = core.local();
        view.scaling("grow").map(|state| state.resting.iter().map(|one| one.failures).sum()).unwrap_or(0)
    };
    assert_eq!(resting(core), 1_u32, "it was tried once");
    cloud.state.lock().sold_out.clear();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let more = reserve(core, queued(request(2_000))).await.id;
    until("that one runs too", || state(core, more) == plimsoll_ledger::State::Active).await;
    assert_eq!((cloud.count("cheap"), cloud.count("dear")), (1, 1), "its back-off is over");
    until("what failed is forgotten", || resting(core) == 0).await;
    // Where no other would do, it is waited for.
    cloud.state.lock().sold_out.extend(["cheap".to_owned(), "dear".to_owned()]);
    let late = reserve(core, queued(request(2_000))).await.id;
    until("both were tried", || resting(core) == 2).await;
    cloud.state.lock().sold_out.clear();
    in_the_end("it comes", || state(core, late) == plimsoll_ledger::State::Active).await;
    leader.crash().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_two_templates_is_bought_once_whatever_leaders_do() {
    for seed in 1..=6 {
        let (stores, clock, cloud) = (stores(), TokioClock::new(), Cloud::default());
        cloud.state.lock().seed = seed;
        let mut leader = Leader::start(&stores, &clock, &cloud).await;
        let templates = vec![template("cpu", 2_000, 0), template("gpu", 2_000, 1)];
        put(&leader.core, several(templates, vec![Expander::LeastWaste])).await;
        let mut held = Vec::new();
        for number in 0..4 {
            let gpu = (number % 2 == 0).then(|| plimsoll_ledger::GpuAsk::whole(1));
            let mut asks = Request { ttl_ms: 36_000_000, ..queued(request(2_000)) };
            asks.requirements.gpu = gpu;
            held.push(reserve(&leader.core, asks).await.id);
        }
        for crash in 0..3 {
            tokio::time::sleep(Duration::from_millis(600 + 900 * ((seed + crash) % 5))).await;
            leader.crash().await;
            leader = Leader::start(&stores, &clock, &cloud).await;
        }
        let core = &leader.core;
        in_the_end("it converges", || {
            let active = |id: &plimsoll_types::ReservationId| {
                let view = core.local();
                view.reservation(*id).is_some_and(|one| one.state == plimsoll_ledger::State::Active)
            };
            held.iter().all(active) && cloud.live() == 4
        })
        .await;
        // Where the one rests, the other holds what needs no GPU.
        assert!(cloud.count("gpu") >= 2, "seed {seed}");
        assert_eq!(core.local().check_invariants(), [], "seed {seed}");
        leader.crash().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_bought_that_the_pool_has_no_power_for() {
    let (stores, clock, cloud) = (stores(), TokioClock::new(), Cloud::default());
    let leader = Leader::start(&stores, &clock, &cloud).await;
    let core = &leader.core;
    let pool = plimsoll_ledger::Pool {
        name: "default".to_owned(),
        power_budget_watts: 2_600,
        ..plimsoll_ledger::Pool::default()
    };
    let drawing = |name: &str, watts, price_permille| NodeTemplate {
        watts,
        price_permille,
        ..template(name, 2_000, 0)
    };
    let several = several(vec![drawing("hot", 1_000, 100), drawing("cool", 500, 900)], vec![Expander::Price]);
    let put = vec![PolicyObject::Pool(pool), PolicyObject::ScalingPolicy(several)];
    do_it(core, Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(reserve(core, queued(request(2_000))).await.id);
    }
    // Two of the cheap ones, and what is left does for one of the other.
    let runs = || held.iter().filter(|id| state(core, **id) == plimsoll_ledger::State::Active).count();
    until("three run", || runs() == 3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((runs(), cloud.count("hot"), cloud.count("cool")), (3, 2, 1));
    let power = core.local().power("default").map(|power| (power.committed, power.budget));
    assert_eq!(power, Some((2_500, 2_600)));
    let said = lines(core);
    let told = |text: &str| said.iter().any(|line| line.contains(text));
    assert!(told("power: 2500 of 2600 W committed"), "{said:?}");
    assert!(told("template cool draws 500 W, 100 W are left"), "{said:?}");
    assert!(
        core.looks().get("grow").is_some_and(|look| look.problem.is_empty()),
        "nothing was tried in vain"
    );
    leader.crash().await;
}
