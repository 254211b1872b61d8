//! Putting a core together, and taking it apart.

use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use plimsoll_consensus::{Dialer, Group, GroupConfig, SnapshotDir};
use plimsoll_ledger::Stamp;
use plimsoll_ledger::{Answer, Command, Entry, Ledger, Verdict};
use plimsoll_scheduler::Planner;
use plimsoll_store::memory::{MemoryEngine, MemoryWal};
use plimsoll_store::rocks::{Headroom, RocksEngine, RocksWal, RocksWalOptions};
use plimsoll_types::{LedgerTime, Revision};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::agents::{AgentHub, SessionClosed};
use super::bodies::Bodies;
use super::estimates::Estimates;
use super::identity::Identity;
use super::intake::Intake;
use super::leader::LeaderLoop;
use super::loads::LoadBook;
use super::notice::AppliedNotice;
use super::past::Past;
use super::scrub::{Scrubbable, Scrubbed, Scrubber};
use super::turned_away::TurnedAway;
use super::watch::WatchHub;
use super::{
    Consistency, CoreConfig, CoreStatus, Counters, Data, History, HistoryError, LedgerMachine, LedgerView,
    ReadError, StartError, StateDump, Stores, SubmitError, Watcher, lost,
};
use crate::clock::Clock;
use crate::scaling::{Looks, Rightsizing};

/// Exit code of a process whose storage failed for good (docs/exit-codes.md).
const STORAGE_FAILED: i32 = 74;

/// Bases of the past within the records that are kept.
const BASES: u64 = 8;
/// Fewest revisions between two of them: so many are applied again in a fraction of a second.
const LEAST_BETWEEN_BASES: u64 = 10_000;
/// How often it is looked whether one is due.
const LOOK_FOR_BASES: Duration = Duration::from_secs(5);

/// The parts of a running core.
pub(super) struct Inner {
    pub(super) config: Arc<CoreConfig>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ledger: Arc<RwLock<Ledger>>,
    pub(super) history: Arc<History>,
    pub(super) hub: Arc<WatchHub>,
    pub(super) intake: Arc<Intake>,
    pub(super) agents: AgentHub,
    pub(super) group: Group,
    pub(super) counters: Arc<Counters>,
    /// Of the data directory, where there is one.
    pub(super) disk: Option<Headroom>,
    pub(super) scrubbed: Arc<Scrubbed>,
    pub(super) estimates: Arc<Estimates>,
    pub(super) loads: Arc<LoadBook>,
    pub(super) turned_away: TurnedAway,
    /// What the leader saw of targets of scaling.
    pub(super) looks: Looks,
    pub(super) rightsizing: Rightsizing,
    pub(super) measured: super::Measured,
    /// Until the stop: it reads from the stores.
    scrubber: Mutex<Option<Scrubber>>,
    pub(super) machine: Arc<LedgerMachine>,
    stop: watch::Sender<bool>,
    pub(super) serving: watch::Receiver<bool>,
    /// Turns true when the loops have ended, whether asked to or not.
    ended: watch::Receiver<bool>,
    /// When a leader last confirmed that this replica was up to date.
    confirmed: Mutex<Instant>,
    /// Why this replica stopped itself, if it did.
    pub(super) fault: OnceLock<String>,
    /// The ledger as it was.
    pub(super) past: Arc<Past>,
    /// One `validate_only` at a time: it copies a part of the ledger.
    pub(super) scratch: Semaphore,
}

/// See [`super::Core::start`].
pub(super) async fn start(
    mut config: CoreConfig,
    dialer: Arc<dyn Dialer>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Inner>, StartError> {
    let Opened { stores, snapshots, incarnation } = open(&config)?;
    config.incarnation = incarnation;
    let config = Arc::new(config);
    let scrubbable = scrubbable(&config, &stores);
    let counters = Arc::new(Counters::default());
    let wake = Arc::new(Notify::new());
    let ledger = Arc::new(RwLock::new(Ledger::new()));
    let (state_rows, bases) = (Arc::downgrade(&stores.engine), Arc::clone(&stores.history));
    let history = History::open(stores.history, config.history_revisions)
        .map_err(|source| StartError::Store { place: "history".to_owned(), source })?;
    let history = Arc::new(history);
    let every = (config.history_revisions / BASES).max(LEAST_BETWEEN_BASES);
    let bodies = Arc::new(Bodies::new(Arc::clone(&ledger), state_rows.clone()));
    let past = Past::new(Arc::clone(&history), state_rows, bases, every);
    let hub = Arc::new(WatchHub::new(Arc::clone(&history), config.watch_ring));
    let notice = Arc::new(AppliedNotice::new(Arc::clone(&wake)));
    let intake = Arc::new(Intake::new(config.intake.clone(), Arc::clone(&wake), Arc::clone(&counters)));
    let agents = AgentHub::new(Arc::clone(&ledger), Arc::clone(&intake), config.timings.suspect_after_ms);
    let machine = Arc::new(LedgerMachine::new(
        Arc::clone(&bodies),
        Arc::clone(&history),
        Arc::clone(&hub),
        Arc::clone(&notice),
        agents.clone(),
        Arc::clone(&counters),
        config.newest_version,
    ));
    let group_config = GroupConfig {
        node_id: config.node_id,
        cluster_id: config.cluster_id.clone(),
        address: config.peer_address.clone(),
        incarnation: config.incarnation.clone(),
        heartbeat_ms: config.timings.heartbeat_ms,
        election_ms: config.timings.election_ms,
        snapshot_every: config.snapshot_every,
        keep_logs: config.keep_logs,
        seed: config.seed,
        ..GroupConfig::default()
    };
    let group =
        Group::start(group_config, stores.wal, stores.engine, snapshots, Arc::clone(&machine) as _, dialer)
            .await
            .map_err(|error| match machine.refused_version() {
                Some(found) => StartError::TooOld { found, newest: config.newest_version },
                None => StartError::Group(error),
            })?;
    machine.runs();
    if config.bootstrap {
        match group.initialize().await {
            Ok(()) | Err(plimsoll_consensus::Error::AlreadyInitialized) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (stop, stopped) = watch::channel(false);
    let (serving, serves) = watch::channel(false);
    let estimates = Arc::new(Estimates::default());
    let loads = Arc::new(LoadBook::new(Arc::clone(&wake)));
    let leader_loop = LeaderLoop {
        bodies,
        estimates: Arc::clone(&estimates),
        loads: Arc::clone(&loads),
        config: Arc::clone(&config),
        group: group.clone(),
        ledger: Arc::clone(&ledger),
        intake: Arc::clone(&intake),
        notice,
        agents: agents.clone(),
        clock: Arc::clone(&clock),
        counters: Arc::clone(&counters),
        wake,
        stop: stopped,
        serving,
    };
    let disk = keep_headroom(&config);
    let scrubbed = Arc::new(Scrubbed::default());
    let (found, damage) = oneshot::channel();
    let scrubber = match scrubbable {
        Some(what) => {
            let every = Duration::from_millis(config.scrub_every_ms);
            Scrubber::start(what, every, Arc::clone(&scrubbed), found)
                .inspect_err(|error| tracing::warn!(%error, "the data are not read again while this runs"))
                .ok()
        }
        None => None,
    };
    let (end, ended) = watch::channel(false);
    tokio::spawn(supervise(
        tokio::spawn(leader_loop.run()),
        Arc::clone(&intake),
        agents.clone(),
        Arc::clone(&hub),
        end,
    ));
    let has_scrubber = scrubber.is_some();
    let inner = Arc::new(Inner {
        config,
        clock,
        ledger,
        history,
        hub,
        intake,
        agents,
        group,
        counters,
        disk,
        scrubbed,
        estimates,
        loads,
        turned_away: TurnedAway::default(),
        looks: Looks::default(),
        rightsizing: Rightsizing::default(),
        scrubber: Mutex::new(scrubber),
        machine,
        stop,
        serving: serves,
        ended,
        confirmed: Mutex::new(Instant::now()),
        fault: OnceLock::new(),
        past,
        scratch: Semaphore::new(1),
        measured: super::Measured::default(),
    });
    tokio::spawn(keep_bases(Arc::downgrade(&inner.past), inner.hub.changes()));
    tokio::spawn(lost::halt(inner.group.clone(), Arc::downgrade(&inner), inner.stop.subscribe()));
    if has_scrubber {
        let rotten = Arc::downgrade(&inner);
        tokio::spawn(async move {
            // An error means that nothing was found until the end.
            let Ok(damage) = damage.await else { return };
            if let Some(inner) = rotten.upgrade() {
                inner.give_up(&damage).await;
            }
        });
    }
    Ok(inner)
}

/// Writes a base for reads of the past whenever it is time for one, until the core stops.
async fn keep_bases(past: Weak<Past>, mut changes: watch::Receiver<Option<Revision>>) {
    let mut pause = LOOK_FOR_BASES;
    loop {
        // Not at once either: a start has other things to do than to write a large state.
        tokio::time::sleep(pause).await;
        let begun = Instant::now();
        let Some(applied) = *changes.borrow_and_update() else { return };
        if applied.0 >= LEAST_BETWEEN_BASES {
            let Some(past) = past.upgrade() else { return };
            // An error is a panic there, which was told.
            let _ = tokio::task::spawn_blocking(move || past.keep_base(applied)).await;
        }
        // Looking again costs a moment at most every so often, and writing a large state at most a twentieth of the time.
        pause = LOOK_FOR_BASES.max(begun.elapsed() * 20);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Room on the disk with the data, where they are on one.
fn keep_headroom(config: &CoreConfig) -> Option<Headroom> {
    let Data::Directory(directory) = &config.data else { return None };
    Headroom::keep(directory)
        .inspect_err(|error| tracing::warn!(%error, "no room is set aside on the disk"))
        .ok()
}

/// What is read again while the core runs; `None` where that is not wanted.
fn scrubbable(config: &CoreConfig, stores: &Stores) -> Option<Scrubbable> {
    let Data::Directory(directory) = &config.data else { return None };
    (config.scrub_every_ms > 0).then(|| Scrubbable {
        wal: Arc::downgrade(&stores.wal),
        engines: vec![
            ("state", Arc::downgrade(&stores.engine)),
            ("history", Arc::downgrade(&stores.history)),
        ],
        snapshots: directory.join("snapshots"),
    })
}

/// Waits for the end of the leader's loop, and ends everything that depends on it.
async fn supervise(
    leader_loop: JoinHandle<()>,
    intake: Arc<Intake>,
    agents: AgentHub,
    hub: Arc<WatchHub>,
    end: watch::Sender<bool>,
) {
    if let Err(error) = leader_loop.await {
        tracing::error!(%error, "the leader's loop failed; this coordinator serves no more");
    }
    intake.close(&SubmitError::Stopped);
    agents.end(SessionClosed::Stopped);
    hub.close();
    end.send_replace(true);
}

/// What a data source holds.
struct Opened {
    stores: Stores,
    snapshots: SnapshotDir,
    incarnation: String,
}

/// Opens the stores of a data source. Layout of a directory: `identity.json`, `log`, `state`, `history`, `snapshots`.
fn open(config: &CoreConfig) -> Result<Opened, StartError> {
    match &config.data {
        Data::Memory => {
            let stores = Stores {
                wal: Arc::new(MemoryWal::new()),
                engine: Arc::new(MemoryEngine::new()),
                history: Arc::new(MemoryEngine::new()),
            };
            // Each start begins with nothing, so each is another life; the seed is another one each time.
            let incarnation = if config.incarnation.is_empty() {
                format!("memory-{:016x}", config.seed)
            } else {
                config.incarnation.clone()
            };
            Ok(Opened { stores, snapshots: SnapshotDir::Memory, incarnation })
        }
        Data::Custom(stores) => Ok(Opened {
            stores: stores.clone(),
            snapshots: SnapshotDir::Memory,
            incarnation: config.incarnation.clone(),
        }),
        Data::Directory(directory) => {
            let at = |name: &str| directory.join(name);
            let failed =
                |path: &Path, source| StartError::Store { place: path.display().to_string(), source };
            let (log, state, history) = (at("log"), at("state"), at("history"));
            let (cluster, node_id) = (config.cluster_id.as_str(), config.node_id);
            // Before anything is opened: a wrong directory stays as it is.
            Identity::check(directory, &log, cluster, node_id)?;
            let stores = Stores {
                wal: Arc::new(
                    RocksWal::open_with(&log, log_options()).map_err(|source| failed(&log, source))?,
                ),
                engine: Arc::new(
                    RocksEngine::open_repeatable(&state).map_err(|source| failed(&state, source))?,
                ),
                history: Arc::new(RocksEngine::open(&history).map_err(|source| failed(&history, source))?),
            };
            // The log's lock is ours now, so nobody else makes an identity here.
            let identity = match Identity::check(directory, &log, cluster, node_id)? {
                Some(identity) => identity,
                None => Identity::create(directory, cluster, node_id)?,
            };
            let snapshots = SnapshotDir::Path(at("snapshots"));
            Ok(Opened { stores, snapshots, incarnation: identity.incarnation })
        }
    }
}

/// A log that cannot be written ends the process at once: what a failed sync has left on the disk is anybody's guess, and
/// nothing that was not acknowledged may look as if it were.
fn log_options() -> RocksWalOptions {
    let fatal = |problem: &str| {
        tracing::error!(problem, "the log cannot be written any more, so this process ends");
        std::process::exit(STORAGE_FAILED);
    };
    RocksWalOptions { fatal: Arc::new(fatal), ..RocksWalOptions::default() }
}

impl Inner {
    fn read_timeout(&self) -> Duration {
        Duration::from_millis(self.config.timings.read_timeout_ms)
    }

    /// See [`super::Core::linearize`].
    pub(super) async fn linearize(&self) -> Result<Revision, ReadError> {
        let begun = Instant::now();
        let no_leader = |detail: String| ReadError::NoLeader { detail };
        match tokio::time::timeout(self.read_timeout(), self.group.linearize()).await {
            Ok(Ok(_)) => {}
            Ok(Err(plimsoll_consensus::ReadError::NoMember(members))) => {
                return Err(ReadError::NoMember { members });
            }
            Ok(Err(error)) => return Err(no_leader(error.to_string())),
            Err(_) => {
                return Err(no_leader(format!("none within {} ms", self.config.timings.read_timeout_ms)));
            }
        }
        let mut confirmed = self.confirmed.lock();
        *confirmed = begun.max(*confirmed);
        drop(confirmed);
        Ok(self.ledger.read().revision())
    }

    /// See [`super::Core::read`].
    pub(super) async fn read(
        &self,
        consistency: Consistency,
        min_revision: Revision,
    ) -> Result<LedgerView<'_>, ReadError> {
        if consistency == Consistency::Linearizable {
            self.linearize().await?;
        }
        self.reach(min_revision).await?;
        Ok(match consistency {
            Consistency::Linearizable => LedgerView::new(self.ledger.read(), 0),
            Consistency::Stale => self.local(),
        })
    }

    /// See [`super::Core::local`].
    pub(super) fn local(&self) -> LedgerView<'_> {
        let age_ms = if *self.serving.borrow() {
            0
        } else {
            u64::try_from(self.confirmed.lock().elapsed().as_millis()).unwrap_or(u64::MAX)
        };
        LedgerView::new(self.ledger.read(), age_ms)
    }

    /// Waits until a revision is applied here.
    async fn reach(&self, wanted: Revision) -> Result<(), ReadError> {
        if self.ledger.read().revision() >= wanted {
            return Ok(());
        }
        let mut changes = self.hub.changes();
        let wait = async {
            loop {
                match *changes.borrow_and_update() {
                    None => return Err(ReadError::Stopped),
                    Some(_) if self.ledger.read().revision() >= wanted => return Ok(()),
                    Some(_) => {}
                }
                changes.changed().await.map_err(|_| ReadError::Stopped)?;
            }
        };
        let late = || ReadError::TimedOut { wanted, applied: self.ledger.read().revision() };
        tokio::time::timeout(self.read_timeout(), wait).await.unwrap_or_else(|_| Err(late()))
    }

    /// See [`super::Core::watch`].
    pub(super) fn watch(&self, from: Revision) -> Result<Watcher, HistoryError> {
        Watcher::new(Arc::clone(&self.hub), Arc::clone(&self.counters), from)
    }

    /// See [`super::Core::dump`].
    pub(super) async fn dump(&self, at: Revision, with_bodies: bool) -> Result<StateDump, ReadError> {
        self.reach(at).await?;
        loop {
            let (revision, log_time, rows, bodies) = {
                let ledger = self.ledger.read();
                let revision = ledger.revision();
                if at.0 != 0 && revision > at {
                    return Err(ReadError::Moved { wanted: at, applied: revision });
                }
                let bodies = if with_bodies { self.machine.bodies().all(&ledger)? } else { Vec::new() };
                (revision, ledger.clock(), ledger.rows().collect(), bodies)
            };
            // The records of what was just applied come a moment after the state.
            let mut changes = self.hub.changes();
            let published = async {
                while self.hub.latest() < revision {
                    if changes.borrow_and_update().is_none() || changes.changed().await.is_err() {
                        return;
                    }
                }
            };
            let late = || ReadError::TimedOut { wanted: revision, applied: self.hub.latest() };
            tokio::time::timeout(self.read_timeout(), published).await.map_err(|_| late())?;
            if let Some(chain) = self.hub.chain_at(revision) {
                return Ok(StateDump { revision, log_time, chain, rows, bodies });
            }
            // A snapshot was installed in between.
            tokio::task::yield_now().await;
        }
    }

    /// See [`super::Core::validate_only`].
    pub(super) async fn validate_only(
        &self,
        mut entry: Entry,
        hint: Option<(u64, String)>,
    ) -> Result<Answer, SubmitError> {
        let _turn = self.scratch.acquire().await.map_err(|_| SubmitError::Stopped)?;
        if !*self.serving.borrow() {
            return Err(SubmitError::NotLeader { leader: hint });
        }
        let mut scratch = self.ledger.read().excerpt(&entry);
        if let Command::Submit { request, verdict } = &mut entry.command {
            let mut planner = Planner::new(&scratch, self.config.seed);
            let mut planned = planner.plan_batch_for(&scratch, &[request], &[entry.actor.as_str()]);
            *verdict = planned.pop().map_or(Verdict::Blocked(Vec::new()), |(verdict, _)| verdict);
        }
        let revision = Revision(scratch.revision().0 + 1);
        let stamp = Stamp { revision, proposed_at: LedgerTime(self.clock.now_ms()) };
        Ok(scratch.apply(stamp, &entry).answer)
    }

    /// See [`super::Core::status`].
    pub(super) fn status(&self) -> CoreStatus {
        let (meta, chain) = {
            let ledger = self.ledger.read();
            (*ledger.meta(), self.machine.chain())
        };
        CoreStatus {
            group: self.group.metrics(),
            cluster_id: self.config.cluster_id.clone(),
            ledger_version: meta.version,
            revision: meta.revision,
            log_time: meta.clock,
            chain,
            first_revision: self.history.first_revision(),
            waiting: self.intake.waiting() as u64,
            serving: *self.serving.borrow(),
            agents: self.agents.sessions() as u64,
        }
    }

    /// See [`super::Core::shutdown`].
    pub(super) async fn shutdown(&self) {
        if self.group.is_leader() && self.group.metrics().voters.len() > 1 {
            let patience = Duration::from_millis(self.config.timings.election_ms.1);
            if let Err(error) = self.hand_over(patience).await {
                tracing::warn!(%error, "leadership was not handed over");
            }
        }
        self.stop.send_replace(true);
        self.ended().await;
        self.stop_scrubbing().await;
        self.group.shutdown().await;
        if let Err(error) = self.history.sync() {
            tracing::error!(%error, "history was not synced");
        }
    }

    /// See [`super::Core::halt`].
    pub(super) async fn halt(&self, why: String) {
        tracing::error!(why, "this coordinator stops itself");
        if let Data::Directory(directory) = &self.config.data
            && let Err(error) = Identity::condemn(directory, &why)
        {
            tracing::error!(%error, "the data directory could not be marked; it must not be used again");
        }
        let _ = self.fault.set(why);
        self.stop.send_replace(true);
        self.group.shutdown().await;
    }

    /// Stops this replica because its disk has lost something: what it does next might need just that. The others have it.
    async fn give_up(&self, damage: &str) {
        tracing::error!(
            damage,
            "this coordinator stops itself; run `plimsoll doctor` on its data, then replace the member"
        );
        self.stop.send_replace(true);
        self.group.shutdown().await;
    }

    /// Ends the thread that reads the stores, which then can be closed.
    async fn stop_scrubbing(&self) {
        let Some(scrubber) = self.scrubber.lock().take() else { return };
        // It may be in the middle of a page.
        let _ = tokio::task::spawn_blocking(move || drop(scrubber)).await;
    }

    /// Makes this replica differ from the others from the next command on.
    #[cfg(test)]
    pub(super) fn break_chain(&self) {
        self.machine.break_chain();
    }

    /// See [`super::Core::ended`].
    pub(super) async fn ended(&self) {
        // An error means that the supervisor is gone with its runtime.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Gives leadership to another voter and waits until it is there.
    async fn hand_over(&self, patience: Duration) -> Result<(), plimsoll_consensus::Error> {
        let mut leadership = self.group.watch();
        self.group.transfer_leader(None).await?;
        let gone = async {
            while self.group.is_leader() {
                if leadership.changed().await.is_err() {
                    return;
                }
            }
        };
        // Where nobody takes it in time, the others elect one after we are gone.
        let _ = tokio::time::timeout(patience, gone).await;
        Ok(())
    }
}
