//! `Group`: one member of a replicated group, as the coordinator uses it.

mod follow;
mod members;
mod propose;
mod read;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{Config, Raft, SnapshotPolicy};
use plimsoll_store::{Engine, Wal};
use tokio::sync::{Mutex, mpsc, watch};

use crate::error::Error;
use crate::internal::raft_service_server::RaftServiceServer;
use crate::log_store::{Held, LogStore};
use crate::machine::{Machine, StateMachine};
use crate::network::{Dialer, MAX_MESSAGE_BYTES, Network};
use crate::service::PeerService;
use crate::snapshot::{Room, SnapshotDir};
use crate::status::{self, GroupStatus};
use crate::types::{NodeInfo, Runtime, TypeConfig};

use propose::{Proposal, propose_in_order};

pub(crate) type RaftHandle = Raft<TypeConfig, StateMachine>;

/// How a member runs.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// This member.
    pub node_id: u64,
    /// The group: messages and snapshots of another are refused.
    pub cluster_id: String,
    /// Address of this member's peer port, as others reach it.
    pub address: String,
    /// Which life of this member this is.
    pub incarnation: String,
    /// Heartbeat of the leader, in milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest and longest election timeout, in milliseconds.
    pub election_ms: (u64, u64),
    /// Most entries in one append message.
    pub max_payload_entries: u64,
    /// Take a snapshot after so many log entries.
    pub snapshot_every: u64,
    /// Keep so many log entries behind a snapshot for followers that lag.
    pub keep_logs: u64,
    /// Take a snapshot early where the log holds so many bytes.
    pub max_log_bytes: u64,
    /// Seed of all random choices.
    pub seed: u64,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            node_id: 1,
            cluster_id: String::new(),
            address: String::new(),
            incarnation: String::new(),
            heartbeat_ms: 100,
            election_ms: (300, 600),
            max_payload_entries: 256,
            snapshot_every: 20_000,
            keep_logs: 5_000,
            max_log_bytes: 256 << 20,
            seed: 0,
        }
    }
}

/// Shutdown waits so often, and so long each time, for the log and the engine to be let go of.
const RELEASE_CHECKS: u32 = 500;
const RELEASE_PAUSE: Duration = Duration::from_millis(10);

/// One member of a replicated group. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    config: GroupConfig,
    raft: RaftHandle,
    network: Network,
    snapshots: SnapshotDir,
    room: Arc<Room>,
    /// Until shutdown: connections of peers may hold this member for longer, and its files must not stay open for them.
    log: parking_lot::Mutex<Option<LogStore>>,
    held: [Held; 2],
    seeds: AtomicU64,
    proposals: mpsc::UnboundedSender<Proposal>,
    applied: watch::Receiver<u64>,
    status: watch::Receiver<GroupStatus>,
    /// What this member is known to have lost.
    lost: watch::Sender<Option<String>>,
    changing: Mutex<()>,
}

impl Group {
    /// Starts a member on what its disk has.
    ///
    /// # Errors
    /// A disk that cannot be read, is of another cluster, or does not make a state.
    pub async fn start(
        config: GroupConfig,
        wal: Arc<dyn Wal>,
        engine: Arc<dyn Engine>,
        snapshots: SnapshotDir,
        machine: Arc<dyn Machine>,
        dialer: Arc<dyn Dialer>,
    ) -> Result<Group, Error> {
        let raft_config = Config {
            cluster_name: config.cluster_id.clone(),
            heartbeat_interval: config.heartbeat_ms,
            election_timeout_min: config.election_ms.0,
            election_timeout_max: config.election_ms.1,
            max_payload_entries: config.max_payload_entries,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
            max_in_snapshot_log_to_keep: config.keep_logs,
            enable_pre_vote: Some(true),
            // Peers may have made a quorum for entries that a restarted leader's own disk lost: it must stand for
            // election like anybody else, or it writes other entries under the same term and index.
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        let raft_config = Arc::new(raft_config.validate().map_err(|error| Error::Raft(error.to_string()))?);
        let log = LogStore::open(wal, Arc::clone(&engine))?;
        let (applied_tx, applied) = watch::channel(0);
        let state_machine = StateMachine::open(
            config.cluster_id.clone(),
            engine,
            machine,
            snapshots.clone(),
            log.clone(),
            applied_tx,
        )?;
        let held = [log.watch_drop(), state_machine.watch_drop()];
        let room = state_machine.room();
        let network = Network::new(&config, dialer);
        let start = RaftHandle::new(config.node_id, raft_config, network.clone(), log.clone(), state_machine);
        let raft =
            Runtime::scope(config.seed, start).await.map_err(|error| Error::Raft(error.to_string()))?;
        let (proposals, queue) = mpsc::unbounded_channel();
        let first = GroupStatus::of(&raft.metrics().borrow_watched());
        let (status_tx, status) = watch::channel(first);
        let inner = Inner {
            raft,
            network,
            snapshots,
            room,
            log: parking_lot::Mutex::new(Some(log)),
            held,
            seeds: AtomicU64::new(config.seed),
            proposals,
            applied,
            status,
            lost: watch::Sender::new(None),
            changing: Mutex::new(()),
            config,
        };
        let group = Group { inner: Arc::new(inner) };
        tokio::spawn(group.scoped_owned(propose_in_order(group.raft().clone(), queue)));
        tokio::spawn(group.scoped_owned(follow::status(group.raft().clone(), status_tx)));
        tokio::spawn(group.scoped_owned(follow::bound_log(Arc::downgrade(&group.inner))));
        if matches!(group.snapshots(), SnapshotDir::Path(_)) {
            tokio::spawn(group.scoped_owned(follow::deferred_snapshots(Arc::downgrade(&group.inner))));
        }
        tokio::spawn(group.scoped_owned(members::finish_changes(Arc::downgrade(&group.inner))));
        tokio::spawn(group.scoped_owned(follow::stand_at_start(group.raft().clone())));
        Ok(group)
    }
}

impl Group {
    /// Id and peer address of the leader, where one is known.
    pub fn leader(&self) -> Option<(u64, String)> {
        self.inner.status.borrow().leader.clone()
    }

    /// True where this member leads as far as it knows, and a quorum has answered it since it was elected: from then on
    /// it takes proposals.
    pub fn is_leader(&self) -> bool {
        status::leads(&self.raft().metrics().borrow_watched())
    }

    /// How this member is now.
    pub fn metrics(&self) -> GroupStatus {
        GroupStatus::of(&self.raft().metrics().borrow_watched())
    }

    /// How many snapshots were put off, or not taken from another member, because the disk had no room for them.
    pub fn snapshots_deferred(&self) -> u64 {
        self.inner.room.deferred()
    }

    /// Waits until another member shows that this one has lost what it had acknowledged, and says what. It must not vote any
    /// more, so its owner has to stop it. Never done while that is not so.
    pub async fn lost(&self) -> String {
        let mut lost = self.inner.lost.subscribe();
        let lost = match lost.wait_for(Option::is_some).await {
            Ok(lost) => lost.clone(),
            Err(_) => None,
        };
        match lost {
            Some(lost) => lost,
            // The group is gone, and nobody will tell.
            None => std::future::pending().await,
        }
    }

    /// Changes of status, leadership among them.
    pub fn watch(&self) -> watch::Receiver<GroupStatus> {
        self.inner.status.clone()
    }

    /// The tonic service for the peer port.
    pub fn rpc(&self) -> RaftServiceServer<PeerService> {
        RaftServiceServer::new(PeerService { group: self.clone(), told: Default::default() })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Stops this member and lets go of its log and engine; when this returns they can be opened again.
    pub async fn shutdown(&self) {
        if let Err(error) = self.scoped(self.raft().shutdown()).await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        drop(self.inner.log.lock().take());
        // Tasks of openraft end on their own after its core has. A snapshot being built may take longer than we wait.
        for _ in 0..RELEASE_CHECKS {
            if self.inner.held.iter().all(|held| held.strong_count() == 0) {
                return;
            }
            tokio::time::sleep(RELEASE_PAUSE).await;
        }
        tracing::warn!("log or engine are still in use after shutdown");
    }

    pub(crate) fn node_id(&self) -> u64 {
        self.inner.config.node_id
    }

    pub(crate) fn cluster_id(&self) -> &str {
        &self.inner.config.cluster_id
    }

    /// Whoever has this is the only one to change who votes.
    #[cfg(test)]
    pub(crate) fn changing(&self) -> &Mutex<()> {
        &self.inner.changing
    }

    pub(crate) fn raft(&self) -> &RaftHandle {
        &self.inner.raft
    }

    pub(crate) fn snapshots(&self) -> &SnapshotDir {
        &self.inner.snapshots
    }

    /// The latest entry that this member has in its log or behind it.
    pub(crate) fn last_stored(&self) -> u64 {
        let logged = self.inner.log.lock().as_ref().map_or(u64::MAX, LogStore::last_index);
        logged.max(*self.inner.applied.borrow()).max(self.metrics().snapshot)
    }

    pub(crate) fn has_lost(&self, what: &str) {
        self.inner.lost.send_if_modified(|lost| {
            let is_new = lost.is_none();
            lost.get_or_insert_with(|| what.to_owned());
            is_new
        });
    }

    pub(crate) fn room(&self) -> &Room {
        &self.inner.room
    }

    /// Runs a call into raft with a seed of its own: its runtime's random choices come from there.
    pub(crate) fn scoped<F: Future>(&self, call: F) -> impl Future<Output = F::Output> {
        Runtime::scope(self.inner.seeds.fetch_add(1, Ordering::Relaxed), call)
    }

    pub(crate) fn scoped_owned<F: Future + Send + 'static>(
        &self,
        call: F,
    ) -> impl Future<Output = F::Output> + Send + 'static
    where
        F::Output: Send,
    {
        Runtime::scope(self.inner.seeds.fetch_add(1, Ordering::Relaxed), call)
    }

    pub(crate) fn incarnation(&self) -> &str {
        &self.inner.config.incarnation
    }

    /// Which life of a member its group knows; empty where that is not known.
    pub(crate) fn known_incarnation(&self, id: u64) -> String {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let node = metrics.membership_config.membership().get_node(&id);
        node.map(|info| info.incarnation.clone()).unwrap_or_default()
    }

    fn own_info(&self) -> NodeInfo {
        let config = &self.inner.config;
        NodeInfo { address: config.address.clone(), incarnation: config.incarnation.clone() }
    }
}
