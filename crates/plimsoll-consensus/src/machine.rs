//! The state machine: openraft's trait over our `Machine`, rows and applied index in one write batch.
//!
//! Rows go to the engine some entries after they changed, many at once: what the engine has not got yet, the log has.
//! Whoever reads the engine for the state (snapshots) or lets go of the log (purge, which follows a snapshot) flushes first.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use plimsoll_mutants::mutant;
use plimsoll_store::{Engine, WriteBatch};
use prost::Message as _;
use tokio::sync::watch;

use crate::internal as wire_types;
use crate::log_store::{Held, LogStore};
use crate::snapshot::{Current, Room, SnapshotData, SnapshotDir, is_full};
use crate::types::{
    EntryPayload, LogId, Payload, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};
use crate::{MachineError, wire};

/// The replicated state machine as this crate sees it. Synchronous; called from one task at a time, in log order.
pub trait Machine: Send + Sync + 'static {
    /// Applies one payload.
    fn apply(&self, payload: &Payload) -> Reply;
    /// All payloads up to this raft index are applied.
    fn applied(&self, last_raft_index: u64);
    /// Rows changed since the last call, as they are now, under keys that begin with [`ROW_PREFIX`]. What the machine keeps
    /// elsewhere and must not be behind the rows is durable when this returns.
    fn take_rows(&self, rows: &mut WriteBatch);
    /// Replaces the whole state by these rows, under keys that begin with [`ROW_PREFIX`]: at start, and when a snapshot was
    /// installed.
    ///
    /// # Errors
    /// Rows that do not make a state.
    fn restore(
        &self,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Bytes), plimsoll_store::Error>>,
    ) -> Result<(), MachineError>;
}

/// First byte of the keys of a machine's rows.
pub const ROW_PREFIX: u8 = b'r';
pub(crate) const META_KEY: &[u8] = b"m";
/// After payloads of so many bytes the changed rows go to the engine. More would spare writes of rows that change often,
/// and make those that wait for the write wait longer.
const FLUSH_BYTES: usize = 256 << 10;

/// openraft's state machine.
pub(crate) struct StateMachine {
    shared: Arc<Shared>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    applied: watch::Sender<u64>,
    log: LogStore,
    /// Bytes of payloads applied since the latest flush.
    unflushed_bytes: usize,
    /// Something was applied since the latest flush.
    dirty: bool,
    /// Rows were taken from the machine and did not reach the engine. What it has must stay as it is then: the applied
    /// index of a later write would claim them.
    rows_lost: bool,
}

struct Shared {
    cluster_id: String,
    engine: Arc<dyn Engine>,
    machine: Arc<dyn Machine>,
    dir: SnapshotDir,
    room: Arc<Room>,
    current: Current,
}

impl StateMachine {
    pub(crate) fn open(
        cluster_id: String,
        engine: Arc<dyn Engine>,
        machine: Arc<dyn Machine>,
        dir: SnapshotDir,
        log: LogStore,
        applied: watch::Sender<u64>,
    ) -> Result<StateMachine, crate::Error> {
        let (last_applied, membership) = match engine.get(META_KEY)? {
            None => (None, StoredMembership::default()),
            Some(bytes) => {
                let meta = wire_types::SnapshotMeta::decode(bytes)
                    .map_err(|_| crate::Error::Damaged("applied state"))?;
                if meta.cluster_id != cluster_id {
                    return Err(crate::Error::Raft(format!(
                        "the state on disk is of cluster {:?}, not {cluster_id:?}",
                        meta.cluster_id
                    )));
                }
                let meta = wire::snapshot_meta_back(meta)?;
                (meta.last_log_id, meta.last_membership)
            }
        };
        restore(engine.as_ref(), machine.as_ref())?;
        applied.send_replace(last_applied.map_or(0, |id| id.index));
        dir.tidy();
        // One older than what the log let go of is of no use to a follower: openraft then builds another.
        let newest = dir.newest(&cluster_id).filter(|(meta, _)| meta.last_log_id >= log.purged());
        let current = Arc::new(parking_lot::Mutex::new(newest));
        let room = Arc::default();
        let shared = Arc::new(Shared { cluster_id, engine, machine, dir, room, current });
        Ok(StateMachine {
            shared,
            last_applied,
            membership,
            applied,
            log,
            unflushed_bytes: 0,
            dirty: false,
            rows_lost: false,
        })
    }

    /// Where it is counted how many snapshots were put off.
    pub(crate) fn room(&self) -> Arc<Room> {
        Arc::clone(&self.shared.room)
    }

    /// Dead once neither this nor a snapshot being built holds the engine.
    pub(crate) fn watch_drop(&self) -> Held {
        Arc::downgrade(&self.shared) as Held
    }

    /// Tells that everything up to here is applied.
    fn publish(&self, first_index: u64) {
        let index = self.last_applied.map_or(0, |id| id.index);
        self.shared.machine.applied(index);
        self.log.forget_decoded(first_index, index);
        self.applied.send_replace(index);
    }

    /// Writes the rows that changed since the last time, with how far that is.
    fn flush(&mut self) -> io::Result<()> {
        if !self.dirty {
            return Ok(());
        }
        if self.rows_lost {
            return Err(io::Error::other(
                "rows were lost in an earlier write; only a restart brings them back",
            ));
        }
        self.rows_lost = true;
        let mut rows = WriteBatch::default();
        self.shared.machine.take_rows(&mut rows);
        let meta = SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() };
        let meta = wire::snapshot_meta(&meta, &self.shared.cluster_id).encode_to_vec();
        if mutant!("rows-after-index") {
            let index = WriteBatch { ops: vec![(Bytes::from_static(META_KEY), Some(meta.clone().into()))] };
            self.shared.engine.write(index).map_err(io::Error::other)?;
        }
        rows.ops.push((Bytes::from_static(META_KEY), Some(meta.into())));
        self.shared.engine.write(rows).map_err(io::Error::other)?;
        self.flushed();
        Ok(())
    }

    /// The engine has everything that was applied.
    fn flushed(&mut self) {
        self.rows_lost = false;
        self.dirty = false;
        self.unflushed_bytes = 0;
    }
}

/// A clean stop leaves nothing to be applied again.
impl Drop for StateMachine {
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Err(error) = self.flush()
        {
            tracing::warn!(%error, "the last rows were not written; the log has them");
        }
    }
}

fn restore(engine: &dyn Engine, machine: &dyn Machine) -> Result<(), crate::Error> {
    let view = engine.view();
    machine.restore(&mut view.scan(&[ROW_PREFIX], &[]))?;
    Ok(())
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let mut replies = Vec::new();
        let mut first = None;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.last_applied = Some(entry.log_id);
            self.dirty = true;
            first.get_or_insert(entry.log_id.index);
            let reply = match &entry.payload {
                EntryPayload::Blank => Reply::new(),
                EntryPayload::Normal(payload) => {
                    self.unflushed_bytes += payload.bytes.len();
                    self.shared.machine.apply(payload)
                }
                EntryPayload::Membership(members) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), members.clone());
                    Reply::new()
                }
            };
            if let Some(responder) = responder {
                replies.push((responder, reply));
            }
        }
        if let Some(first) = first {
            self.publish(first);
        }
        for (responder, reply) in replies {
            responder.send(reply);
        }
        // After the answers are on their way: nobody waits for it.
        if self.unflushed_bytes > FLUSH_BYTES {
            tokio::task::yield_now().await;
            self.flush()?;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let shared = &self.shared;
        if !force && !shared.room.is_there(&shared.dir, shared.engine.approximate_bytes()) {
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Without the rows of right now the builder would build another state than it says: it has no view then, and
        // its build fails.
        let flushed = self.flush();
        if let Err(error) = &flushed {
            tracing::error!(%error, "the changed rows cannot be written");
        }
        let meta = SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() };
        // The view is taken here, between two applies: it shows exactly `meta`.
        Builder {
            shared: Arc::clone(&self.shared),
            meta,
            view: parking_lot::Mutex::new(flushed.ok().map(|()| self.shared.engine.view())),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> Result<(), io::Error> {
        let (_, mut rows) = data.load(&self.shared.cluster_id)?;
        let own = wire::snapshot_meta(meta, &self.shared.cluster_id).encode_to_vec();
        rows.ops.push((Bytes::from_static(META_KEY), Some(own.into())));
        crate::at_length(|| {
            self.shared.engine.replace_all(rows).map_err(io::Error::other)?;
            self.flushed();
            restore(self.shared.engine.as_ref(), self.shared.machine.as_ref()).map_err(io::Error::other)
        })?;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let data = self.shared.dir.adopt(data, meta)?;
        *self.shared.current.lock() = Some((meta.clone(), data));
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.shared.machine.applied(index);
        self.applied.send_replace(index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let current = self.shared.current.lock();
        Ok(current.as_ref().map(|(meta, data)| Snapshot { meta: meta.clone(), snapshot: data.clone() }))
    }
}

/// Builds one snapshot from one view.
pub(crate) struct Builder {
    shared: Arc<Shared>,
    meta: SnapshotMeta,
    /// Taken once; in a lock because openraft shares builders between threads.
    view: parking_lot::Mutex<Option<Box<dyn plimsoll_store::View>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let view =
            self.view.lock().take().ok_or_else(|| io::Error::other("there is no view to build from"))?;
        let (shared, meta) = (Arc::clone(&self.shared), self.meta.clone());
        let build = move || shared.dir.build(&shared.cluster_id, &[ROW_PREFIX], &meta, view.as_ref());
        let built = match self.shared.dir {
            // No threads in a simulation.
            SnapshotDir::Memory => build(),
            SnapshotDir::Path(_) => tokio::task::spawn_blocking(build).await.map_err(io::Error::other)?,
        };
        let data = match built {
            Ok(data) => data,
            // openraft takes a failed build for a broken disk and stops. One that covers nothing changes nothing there.
            Err(error) if is_full(&error) => {
                self.shared.room.ran_out(&error);
                return Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: SnapshotData::nothing() });
            }
            Err(error) => return Err(error),
        };
        let mut current = self.shared.current.lock();
        // One may have been installed while this one was being built.
        if current.as_ref().is_none_or(|(have, _)| have.last_log_id <= self.meta.last_log_id) {
            *current = Some((self.meta.clone(), data.clone()));
        }
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}
