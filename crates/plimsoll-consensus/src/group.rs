//! `Group`: one member of a replicated group, as the coordinator uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, InitializeError, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::{ChangeMembers, Config, Raft, ReadPolicy, SnapshotPolicy};
use plimsoll_store::{Engine, Wal};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::error::{Error, ProposeError, ReadError};
use crate::internal::raft_service_server::RaftServiceServer;
use crate::log_store::LogStore;
use crate::machine::{Machine, StateMachine};
use crate::network::{Dialer, MAX_MESSAGE_BYTES, Network};
use crate::service::PeerService;
use crate::snapshot::SnapshotDir;
use crate::status::GroupStatus;
use crate::types::{NodeInfo, Payload, Reply, Runtime, TypeConfig};

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
            election_ms: (600, 1_200),
            max_payload_entries: 256,
            snapshot_every: 20_000,
            keep_logs: 5_000,
            max_log_bytes: 256 << 20,
            seed: 0,
        }
    }
}

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
    log: LogStore,
    seeds: AtomicU64,
    proposals: mpsc::UnboundedSender<(Payload, oneshot::Sender<Result<Reply, ProposeError>>)>,
    applied: watch::Receiver<u64>,
    status: watch::Receiver<GroupStatus>,
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
        let network = Network { cluster_id: config.cluster_id.clone(), node_id: config.node_id, dialer };
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
            log,
            seeds: AtomicU64::new(config.seed),
            proposals,
            applied,
            status,
            changing: Mutex::new(()),
            config,
        };
        let group = Group { inner: Arc::new(inner) };
        tokio::spawn(group.scoped_owned(propose_in_order(group.raft().clone(), queue)));
        tokio::spawn(group.scoped_owned(follow_metrics(group.raft().clone(), status_tx)));
        tokio::spawn(group.scoped_owned(bound_log(Arc::downgrade(&group.inner))));
        Ok(group)
    }
}

impl Group {
    /// Makes this member the only voter of a new group.
    ///
    /// # Errors
    /// `AlreadyInitialized` where the group has members.
    pub async fn initialize(&self) -> Result<(), Error> {
        let own = BTreeMap::from([(self.node_id(), self.own_info())]);
        match self.scoped(self.raft().initialize(own)).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Err(Error::AlreadyInitialized),
            Err(error) => Err(Error::Raft(error.to_string())),
        }
    }

    /// Adds a member that follows the log without a vote, and waits until it has caught up.
    ///
    /// # Errors
    /// Not the leader, another change in progress, or the member cannot be reached.
    pub async fn add_learner(&self, id: u64, info: NodeInfo) -> Result<(), Error> {
        let _one = self.inner.changing.try_lock().map_err(|_| Error::ChangeInProgress)?;
        self.learn(id, info).await
    }

    /// Adds a voter: learner first, voter once it has caught up.
    ///
    /// # Errors
    /// As `add_learner`.
    pub async fn add_voter(&self, id: u64, info: NodeInfo) -> Result<(), Error> {
        let _one = self.inner.changing.try_lock().map_err(|_| Error::ChangeInProgress)?;
        self.learn(id, info).await?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Removes a member.
    ///
    /// # Errors
    /// Not the leader, no such member, or another change in progress.
    pub async fn remove(&self, id: u64) -> Result<(), Error> {
        let _one = self.inner.changing.try_lock().map_err(|_| Error::ChangeInProgress)?;
        let status = self.metrics();
        if status.voters.contains(&id) {
            self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await
        } else if status.learners.contains(&id) {
            self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await
        } else {
            Err(Error::NoSuchMember(id))
        }
    }

    /// Puts one member in another's place, in one change of voters.
    ///
    /// # Errors
    /// As `add_voter` and `remove`.
    pub async fn replace(&self, old: u64, new: u64, info: NodeInfo) -> Result<(), Error> {
        let _one = self.inner.changing.try_lock().map_err(|_| Error::ChangeInProgress)?;
        let mut voters: BTreeSet<u64> = self.metrics().voters.into_iter().collect();
        if !voters.remove(&old) {
            return Err(Error::NoSuchMember(old));
        }
        self.learn(new, info).await?;
        voters.insert(new);
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Hands leadership to a member, or to the voter that lags least.
    ///
    /// # Errors
    /// Not the leader, or nobody to hand over to.
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<(), Error> {
        if !self.is_leader() {
            return Err(Error::NotLeader { leader: self.leader() });
        }
        let status = self.metrics();
        let others = status.voters.iter().filter(|id| **id != self.node_id());
        let best = || others.min_by_key(|id| status.lag.get(id).copied().unwrap_or(u64::MAX)).copied();
        let Some(target) = to.or_else(best) else { return Err(Error::NoSuchMember(0)) };
        if !status.voters.contains(&target) {
            return Err(Error::NoSuchMember(target));
        }
        let trigger = async { self.raft().trigger().transfer_leader(target).await };
        self.scoped(trigger).await.map_err(|error| Error::Raft(error.to_string()))
    }

    /// Proposes a payload and waits until it is applied here.
    ///
    /// # Errors
    /// See [`ProposeError`]; only `Unknown` may still be applied.
    pub async fn propose(&self, payload: Payload) -> Result<Reply, ProposeError> {
        self.propose_pipelined(payload).await
    }

    /// Enqueues a payload now and resolves when it is applied. The order of calls is the order in the log.
    pub fn propose_pipelined(
        &self,
        payload: Payload,
    ) -> impl Future<Output = Result<Reply, ProposeError>> + Send + 'static {
        let (answer, wait) = oneshot::channel();
        let refused = if self.is_leader() {
            self.inner.proposals.send((payload, answer)).err().map(|_| ProposeError::Stopped)
        } else {
            Some(ProposeError::NotLeader { leader: self.leader() })
        };
        async move {
            match refused {
                Some(error) => Err(error),
                None => wait.await.unwrap_or(Err(ProposeError::Unknown)),
            }
        }
    }

    /// The raft index that a linearizable read must have applied. A follower asks the leader.
    ///
    /// # Errors
    /// No leader, or none with a quorum.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        if self.is_leader() {
            return self.own_read_index().await;
        }
        let Some((leader, address)) = self.leader() else {
            return Err(ReadError::NoLeader("no leader is known".to_owned()));
        };
        let info = NodeInfo { address, incarnation: String::new() };
        let patience = Duration::from_millis(self.inner.config.election_ms.1);
        self.inner.network.link(leader, &info).read_index(patience).await.map_err(ReadError::NoLeader)
    }

    /// Waits until this member has applied a raft index.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ReadError> {
        let mut applied = self.inner.applied.clone();
        applied.wait_for(|have| *have >= index).await.map(drop).map_err(|_| ReadError::Stopped)
    }

    /// After this, reads of this member's state show everything acknowledged before the call.
    ///
    /// # Errors
    /// As `read_index`.
    pub async fn linearize(&self) -> Result<u64, ReadError> {
        let index = self.read_index().await?;
        self.wait_applied(index).await?;
        Ok(index)
    }

    /// Id and peer address of the leader, where one is known.
    pub fn leader(&self) -> Option<(u64, String)> {
        self.inner.status.borrow().leader.clone()
    }

    /// True where this member leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.raft().is_leader()
    }

    /// How this member is now.
    pub fn metrics(&self) -> GroupStatus {
        GroupStatus::of(&self.raft().metrics().borrow_watched())
    }

    /// Changes of status, leadership among them.
    pub fn watch(&self) -> watch::Receiver<GroupStatus> {
        self.inner.status.clone()
    }

    /// The tonic service for the peer port.
    pub fn rpc(&self) -> RaftServiceServer<PeerService> {
        RaftServiceServer::new(PeerService { group: self.clone() })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Stops this member.
    pub async fn shutdown(&self) {
        if let Err(error) = self.scoped(self.raft().shutdown()).await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
    }

    pub(crate) fn node_id(&self) -> u64 {
        self.inner.config.node_id
    }

    pub(crate) fn cluster_id(&self) -> &str {
        &self.inner.config.cluster_id
    }

    pub(crate) fn raft(&self) -> &RaftHandle {
        &self.inner.raft
    }

    pub(crate) fn snapshots(&self) -> &SnapshotDir {
        &self.inner.snapshots
    }

    pub(crate) async fn own_read_index(&self) -> Result<u64, ReadError> {
        let patience = Duration::from_millis(self.inner.config.election_ms.1);
        let read = self.scoped(self.raft().get_read_linearizer(ReadPolicy::ReadIndex));
        match tokio::time::timeout(patience, read).await {
            Err(_) => Err(ReadError::NoLeader("no quorum answered in time".to_owned())),
            Ok(Ok(linearizer)) => Ok(linearizer.read_log_id().index()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_)))) => {
                Err(ReadError::NoLeader("this node does not lead".to_owned()))
            }
            Ok(Err(RaftError::APIError(error))) => Err(ReadError::NoLeader(error.to_string())),
            Ok(Err(RaftError::Fatal(_))) => Err(ReadError::Stopped),
        }
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

    fn own_info(&self) -> NodeInfo {
        let config = &self.inner.config;
        NodeInfo { address: config.address.clone(), incarnation: config.incarnation.clone() }
    }

    async fn learn(&self, id: u64, info: NodeInfo) -> Result<(), Error> {
        let known = self.metrics();
        if known.voters.contains(&id) {
            return Ok(());
        }
        self.scoped(self.raft().add_learner(id, info, true))
            .await
            .map(drop)
            .map_err(|error| self.change_error(error))
    }

    async fn change(&self, change: ChangeMembers<u64, NodeInfo>) -> Result<(), Error> {
        let changed = self.scoped(self.raft().change_membership(change, false)).await;
        changed.map(drop).map_err(|error| self.change_error(error))
    }

    fn change_error(&self, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Error {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                Error::NotLeader { leader: self.leader() }
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(
                openraft::errors::ChangeMembershipError::InProgress(_),
            )) => Error::ChangeInProgress,
            error => Error::Raft(error.to_string()),
        }
    }
}

type Proposal = (Payload, oneshot::Sender<Result<Reply, ProposeError>>);

/// Hands proposals to raft one after the other, without waiting for their replies.
async fn propose_in_order(raft: RaftHandle, mut queue: mpsc::UnboundedReceiver<Proposal>) {
    while let Some((payload, answer)) = queue.recv().await {
        let (responder, reply) = ProgressResponder::complete_only();
        if raft.client_write_ff(payload, Some(responder)).await.is_err() {
            drop(answer.send(Err(ProposeError::Stopped)));
            continue;
        }
        tokio::spawn(async move {
            let reply: Result<ClientWriteResult<TypeConfig>, _> = reply.await;
            let result = match reply {
                Ok(Ok(response)) => Ok(response.data),
                // Raft says so of proposals that it never took, and of those that it took and lost sight of: only the
                // log knows which.
                Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
            };
            drop(answer.send(result));
        });
    }
}

/// Turns raft's metrics into ours.
async fn follow_metrics(raft: RaftHandle, status: watch::Sender<GroupStatus>) {
    let mut metrics = raft.metrics();
    drop(raft);
    loop {
        let now = GroupStatus::of(&metrics.borrow_watched());
        status.send_if_modified(|old| {
            let changed = *old != now;
            *old = now;
            changed
        });
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Takes a snapshot where the log grows large between two by count.
async fn bound_log(group: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(inner) = group.upgrade() else { return };
        if inner.log.bytes() > inner.config.max_log_bytes && inner.raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
