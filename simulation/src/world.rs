//! The simulated world: three coordinators on disks that lose power and spare ones that may join, a machine of agents, a
//! machine of clients, and the loop that moves time and faults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use plimsoll_agent::dial::LinkError;
use plimsoll_agent::gpu::FakeGpus;
use plimsoll_agent::host::HostReading;
use plimsoll_agent::inventory::Inventory;
use plimsoll_agent::sample::Sample;
use plimsoll_agent::{FleetConfig, GrpcDial, SimulatedFleet, SimulatedNode};
use plimsoll_coordinator::Coordinator;
use plimsoll_coordinator::core::{Core, CoreConfig, Data, Stores, Timings};
use plimsoll_ledger::{CAPACITY_TYPE, LATEST_VERSION, PRICE_PERMILLE, SPOT_POOL};
use plimsoll_store::sim::SimDisk;
use plimsoll_types::Resources;
use tokio_util::sync::{CancellationToken, DropGuard};
use turmoil::net::TcpListener;
use turmoil::{Builder, Sim};

use crate::board::{Board, Phase};
use crate::clock::{AgentClock, EPOCH_MS, SimClock};
use crate::cloud::{Cloud, CloudProviders};
use crate::cpu::cpu_ms;
use crate::driver::drive;
use crate::faults::{Faults, panicked};
use crate::net::{PORT, SimNet, incoming};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::upgrade;
use crate::watchdog;
use crate::workload::{MACHINE_CPU_MILLIS, MACHINE_MEMORY_BYTES, NODES, RACK};

/// Host of the agents.
pub const AGENT: &str = "agent";
/// Host of the clients.
pub const LOAD: &str = "load";
/// Coordinators.
const MEMBERS: [u64; 3] = [1, 2, 3];
/// Coordinators that run and are no members, in seeds that have any.
const SPARES: [u64; 2] = [4, 5];
/// A run that takes so much longer than its chaos is stuck, in simulated time.
const LIMIT: Duration = Duration::from_secs(240);
/// Each tick costs every host its round, whatever happens in it.
const TICK: Duration = Duration::from_millis(2);
/// Between looks of a coordinator at what it is to disturb.
const LOOK: Duration = Duration::from_millis(250);
/// So long after the chaos began a command comes that nobody knows, where one does.
const UNKNOWN_COMMAND_MS: u64 = 1_000;
/// Clocks gain or lose at most so many microseconds in a second: the 5 % that leases allow for.
const MOST_DRIFT_PPM: u64 = 50_000;

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// How long load and faults last, in simulated milliseconds.
    pub chaos_ms: u64,
    /// Where the trace goes; only its hash is kept for `None`.
    pub trace: Option<PathBuf>,
    /// This schedule of faults instead of the seed's own.
    pub scenario: Option<&'static Scenario>,
    /// A command that no build here knows comes into the log a second after the chaos began: the run must fail.
    pub unknown_command: bool,
}

/// A coordinator's machine: what survives its crashes.
#[derive(Clone)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Disk of log and state.
    pub disk: SimDisk,
    /// Disk of the history.
    pub history: SimDisk,
    /// Its wall clock.
    pub clock: SimClock,
    /// Newest ledger version that its build knows.
    newest_version: Arc<AtomicU32>,
    starts: Arc<AtomicU64>,
}

/// What is left of a world when its time is over.
pub struct Ended {
    /// Phase, trace, history and evidence.
    pub board: Arc<Board>,
    /// Faults, counted.
    pub faults: Faults,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Processor time that the simulation took, in milliseconds.
    pub cpu_ms: u64,
    /// Why it did not come to its end, if so.
    pub failure: Option<String>,
}

/// Name of a coordinator's host.
pub fn host(id: u64) -> String {
    format!("c{id}")
}

/// Runs a world from its seed to its end.
///
/// # Errors
/// Where the trace cannot be written.
pub fn run(options: &Options) -> std::io::Result<Ended> {
    let seed = options.seed;
    let board = Arc::new(Board::new(seed, Trace::new(options.trace.as_deref())?));
    MEMBERS.iter().for_each(|id| board.joins(*id));
    // Half of the seeds change members; coordinators that wait for that cost time.
    let spares = usize::try_from(Rng::of(seed, "spares").between(0, 3)).unwrap_or(0).saturating_sub(1);
    let spares = SPARES.get(..spares).unwrap_or_default();
    let knows = upgrade::first_version(seed, options.scenario);
    let members: Vec<Member> = MEMBERS.iter().chain(spares).map(|id| Member::new(seed, *id, knows)).collect();
    let mut sim = build(options, &board, &members, spares);
    let mut faults = Faults::new(seed, options.scenario);
    if knows < LATEST_VERSION {
        faults.install_at(upgrade::installs(seed, members.len(), options.chaos_ms));
    }
    let mut chaos_since = None;
    let failure = loop {
        let now_ms = u64::try_from(sim.elapsed().as_millis()).unwrap_or(u64::MAX);
        board.note_leaders(now_ms);
        let mut chaos = board.phase() == Phase::Chaos;
        if chaos && chaos_since.is_none() && options.unknown_command {
            board.let_unknown_command_come(now_ms + UNKNOWN_COMMAND_MS);
        }
        if chaos && now_ms >= *chaos_since.get_or_insert(now_ms) + options.chaos_ms {
            faults.heal(now_ms, &mut sim, &members, &board);
            board.enter(now_ms, Phase::Heal);
            chaos = false;
        }
        faults.advance(now_ms, chaos, &mut sim, &members, &board);
        watchdog::stepped(now_ms);
        match sim.step() {
            // What goes on is a host that a process would not have outlived.
            Ok(_) if panicked() => break Some("a coordinator, client or agent panicked".to_owned()),
            Ok(false) => {}
            Ok(true) => break None,
            Err(error) => break Some(format!("{error}; {}", board.describe())),
        }
    };
    watchdog::over();
    let simulated_ms = u64::try_from(sim.elapsed().as_millis()).unwrap_or(u64::MAX);
    // Tasks that are dropped outside of the simulation may want its clock or network: one process runs one world and
    // ends, so nothing is lost by keeping it.
    std::mem::forget(sim);
    Ok(Ended { board, faults, simulated_ms, cpu_ms: cpu_ms(), failure })
}

impl Member {
    fn new(seed: u64, id: u64, knows: u32) -> Member {
        let mut rng = Rng::of(seed, &format!("member-{id}"));
        let skew_ms = i64::try_from(rng.between(0, 400)).unwrap_or(0) - 200;
        Member {
            id,
            disk: SimDisk::new(rng.draw()),
            history: SimDisk::new(rng.draw()),
            clock: SimClock::wrong(skew_ms, drift_ppm(&mut rng)),
            newest_version: Arc::new(AtomicU32::new(knows)),
            starts: Arc::default(),
        }
    }

    /// It has the newest build, from its next start on at the latest.
    pub fn is_newest(&self) -> bool {
        self.newest_version.load(Ordering::Relaxed) == LATEST_VERSION
    }

    /// Its next start is that of the newest build.
    pub fn install(&self) {
        self.newest_version.store(LATEST_VERSION, Ordering::Relaxed);
    }

    fn config(&self, seed: u64) -> CoreConfig {
        let stores = Stores {
            wal: Arc::new(self.disk.wal()),
            engine: Arc::new(self.disk.engine()),
            history: Arc::new(self.history.engine()),
        };
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let address = format!("{}:{PORT}", host(self.id));
        CoreConfig {
            bootstrap: self.id == MEMBERS[0],
            incarnation: format!("disk-of-{}", host(self.id)),
            timings: Timings { suspect_after_ms: 2_000, read_timeout_ms: 2_000, ..Timings::default() },
            // Small, so that snapshots are taken and installed in every run.
            snapshot_every: 150,
            keep_logs: 40,
            seed: Rng::of(seed, &format!("raft-{}-{start}", self.id)).draw(),
            newest_version: self.newest_version.load(Ordering::Relaxed),
            ..CoreConfig::new(self.id, "simulation", address, Data::Custom(stores))
        }
    }
}

/// How wrong a clock runs: half of them are right.
fn drift_ppm(rng: &mut Rng) -> i64 {
    let drawn = rng.between(0, 2 * MOST_DRIFT_PPM);
    let drift = i64::try_from(drawn).unwrap_or(0) - i64::try_from(MOST_DRIFT_PPM).unwrap_or(0);
    if rng.percent(50) { drift } else { 0 }
}

fn build(options: &Options, board: &Arc<Board>, members: &[Member], spares: &[u64]) -> Sim<'static> {
    let seed = options.seed;
    let mut rng = Rng::of(seed, "network");
    let mut sim = Builder::new()
        .rng_seed(rng.draw())
        .epoch(UNIX_EPOCH + Duration::from_millis(EPOCH_MS))
        .simulation_duration(LIMIT + Duration::from_millis(options.chaos_ms))
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(0))
        .max_message_latency(Duration::from_millis(rng.between(1, 6)))
        .tcp_capacity(65_536)
        .enable_random_order()
        .build();
    for member in members {
        let (member, board) = (member.clone(), Arc::clone(board));
        sim.host(host(member.id), move || coordinator(member.clone(), Arc::clone(&board)));
    }
    let starts = Arc::new(AtomicU64::new(0));
    let agent_drift_ppm = drift_ppm(&mut Rng::of(seed, "agent-clock"));
    let cloud = Arc::clone(&board.cloud);
    sim.host(AGENT, move || {
        agents(Arc::clone(&cloud), starts.fetch_add(1, Ordering::Relaxed) + 1, agent_drift_ppm)
    });
    let driven = drive(Arc::clone(board), MEMBERS.to_vec(), spares.to_vec());
    sim.client(LOAD, async move { Ok(Box::pin(driven).await?) });
    sim
}

async fn coordinator(member: Member, board: Arc<Board>) -> turmoil::Result {
    let dialer = Arc::new(SimNet);
    let config = member.config(board.seed);
    let core = match Core::start(config, Arc::clone(&dialer) as _, Arc::new(member.clock.clone())).await {
        Ok(core) => core,
        Err(error) => return stopped(&member, &board, &causes(&error)).await,
    };
    let coordinator = Coordinator::around(core.clone(), dialer, true);
    coordinator.scale_with(Arc::new(CloudProviders(Arc::clone(&board.cloud))), "simulation");
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    coordinator.listen(incoming(listener), None, true);
    board.joined(member.id, core.group().watch());
    tokio::select! {
        biased;
        () = core.ended() => {}
        () = disturb(core.clone(), &board, member.id) => {}
    }
    stopped(&member, &board, "it ended by itself").await
}

/// What is proposed on this coordinator while it leads, besides what clients want. Never ends.
async fn disturb(core: Core, board: &Board, id: u64) {
    loop {
        tokio::time::sleep(LOOK).await;
        if core.is_leader() && board.wants_unknown_command(Board::now_ms()) {
            board.trace.add(Board::now_ms(), format_args!("c{id} proposes what nobody knows"));
            upgrade::propose_unknown(core.group());
        }
    }
}

/// A process that is over: the world takes it down.
async fn stopped(member: &Member, board: &Board, why: &str) -> turmoil::Result {
    board.stopped(Board::now_ms(), member.id, why.to_owned());
    std::future::pending().await
}

/// An error with all that led to it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What a node measures: its memory is nearly full for three seconds of twelve, each node at other times.
fn played(node: &str, now: plimsoll_agent::clock::BootTime) -> Sample {
    let offset_ms = node.bytes().fold(0_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 12_000);
    let is_full = (now.0 + offset_ms) % 12_000 < 3_000;
    let used = if is_full { 31 << 30 } else { 8_u64 << 30 };
    let host = HostReading {
        memory_used_bytes: Some(used),
        memory_available_bytes: Some((32 << 30) - used),
        ..HostReading::default()
    };
    Sample { taken_at_ms: now.0, host, ..Sample::default() }
}

/// Nodes that are paid for by what others leave, and their markets.
const SPOT_NODES: [(&str, &str); 2] = [("n2", "east"), ("n4", "west")];

async fn agents(cloud: Arc<Cloud>, incarnation: u64, drift_ppm: i64) -> turmoil::Result {
    let gpus = |list: &str| list.parse::<FakeGpus>();
    let devices = [gpus("a100:2")?, gpus("a100:2,h100:1")?, gpus("t4:1")?, FakeGpus::default()];
    // Two of them may be taken back by their provider.
    let node = |(name, gpus): (&str, &FakeGpus)| {
        let mut inventory = Inventory::simulated(name, 8_000, 32 << 30, gpus);
        let rack = if ["n1", "n2"].contains(&name) { "r1" } else { "r2" };
        inventory.labels.insert(RACK.to_owned(), rack.to_owned());
        if let Some((_, market)) = SPOT_NODES.iter().find(|(spot, _)| *spot == name) {
            for (key, value) in [(CAPACITY_TYPE, "spot"), (PRICE_PERMILLE, "400"), (SPOT_POOL, *market)] {
                inventory.labels.insert(key.to_owned(), value.to_owned());
            }
        }
        let extra = Resources::default().with("license/sim", 4);
        SimulatedNode { name: name.to_owned(), pool: String::new(), inventory, extra }
    };
    let nodes = NODES.into_iter().zip(&devices).map(node).collect();
    let clock = AgentClock::start(drift_ppm);
    tokio::select! {
        biased;
        () = fleet(nodes, incarnation, &clock).run(CancellationToken::new()) => {}
        () = machines(&cloud, incarnation, &clock) => {}
    }
    Err("the agents ended by themselves".into())
}

/// Nodes of the machines that the cloud runs, as they come and go. Never ends.
async fn machines(cloud: &Cloud, incarnation: u64, clock: &AgentClock) {
    let mut running: BTreeMap<String, DropGuard> = BTreeMap::new();
    loop {
        let nodes = cloud.nodes(Board::now_ms());
        running.retain(|name, _| nodes.contains(name));
        for name in nodes {
            running.entry(name).or_insert_with_key(|name| {
                let node = SimulatedNode {
                    name: name.clone(),
                    pool: "default".to_owned(),
                    inventory: Inventory::simulated(
                        name,
                        MACHINE_CPU_MILLIS,
                        MACHINE_MEMORY_BYTES,
                        &FakeGpus::default(),
                    ),
                    extra: Resources::default(),
                };
                let (stop, fleet) = (CancellationToken::new(), fleet(vec![node], incarnation, clock));
                let stopped = stop.clone();
                tokio::spawn(async move { fleet.run(stopped).await });
                stop.drop_guard()
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn fleet(nodes: Vec<SimulatedNode>, incarnation: u64, clock: &AgentClock) -> SimulatedFleet {
    let config =
        FleetConfig { nodes_per_stream: 2, heartbeat_interval_ms: 400, incarnation, played: Some(played) };
    let members = MEMBERS.len() as u64;
    let dial = GrpcDial::new(move |attempt| {
        let address = format!("{}:{PORT}", host(MEMBERS[0] + attempt % members));
        SimNet.lazy(&address).map_err(|error| LinkError::new(error.to_string()))
    });
    SimulatedFleet::new(nodes, config, Arc::new(dial), Arc::new(*clock))
}
