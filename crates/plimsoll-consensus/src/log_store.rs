//! The raft log: an in-memory tail over a `Wal`. What openraft reads comes from memory; what it is told to be durable is
//! on disk.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Weak};

use futures_util::{Stream, stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use plimsoll_mutants::mutant;
use plimsoll_store::{Engine, Op, Wal};
use tokio::sync::oneshot;

use crate::types::{Entry, EntryPayload, LogId, TypeConfig, Vote};
use crate::wire;

/// Tells whether something is still held by anybody.
pub(crate) type Held = Weak<dyn Any + Send + Sync>;

/// The log of one node. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    wal: Arc<dyn Wal>,
    engine: Arc<dyn Engine>,
    tail: Arc<Mutex<Tail>>,
}

struct Tail {
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    /// `committed` is not on its way to the disk yet: it travels with the next append, since a sync of its own would
    /// double the syncs of a quiet group.
    committed_waits: bool,
    /// Contiguous, from the first entry that was not purged.
    entries: VecDeque<Entry>,
    bytes: u64,
}

impl LogStore {
    /// Reads what the disk has.
    pub(crate) fn open(wal: Arc<dyn Wal>, engine: Arc<dyn Engine>) -> Result<LogStore, crate::Error> {
        let loaded = wal.load()?;
        let vote = loaded.vote.map(wire::decode_vote).transpose()?;
        let purged = loaded.purged.map(|(_, marker)| wire::decode_log_id(marker)).transpose()?;
        let committed = loaded.committed.map(wire::decode_log_id).transpose()?;
        let mut tail =
            Tail { vote, purged, committed, committed_waits: false, entries: VecDeque::new(), bytes: 0 };
        for (index, bytes) in loaded.entries {
            let entry = wire::decode_entry(bytes)?;
            if entry.log_id.index != index || tail.last().is_some_and(|last| last.index + 1 != index) {
                return Err(crate::Error::Damaged("order of the log's entries"));
            }
            tail.push(entry);
        }
        // What is committed must also be there to be applied.
        tail.committed = tail.committed.filter(|committed| Some(*committed) <= tail.last());
        Ok(LogStore { wal, engine, tail: Arc::new(Mutex::new(tail)) })
    }

    /// Bytes of payload in the tail.
    pub(crate) fn bytes(&self) -> u64 {
        self.tail.lock().bytes
    }

    /// Index of the latest entry that it has, or has let go of.
    pub(crate) fn last_index(&self) -> u64 {
        self.tail.lock().last().map_or(0, |last| last.index)
    }

    /// Dead once no clone of this store is left.
    pub(crate) fn watch_drop(&self) -> Held {
        Arc::downgrade(&self.tail) as Held
    }

    /// The latest entry that was let go of.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.tail.lock().purged
    }

    /// Lets go of the proposers' decoded forms up to an applied index: from here on bytes do.
    pub(crate) fn forget_decoded(&self, from: u64, to: u64) {
        let mut tail = self.tail.lock();
        for index in from..=to {
            if let Some(Entry { payload: EntryPayload::Normal(payload), .. }) = tail.get_mut(index) {
                payload.decoded = None;
            }
        }
    }

    fn whole(&self, start: u64, end: Option<u64>) -> io::Result<Vec<Entry>> {
        let tail = self.tail.lock();
        let end = end.unwrap_or(u64::MAX).min(tail.end());
        if start >= end {
            return Ok(Vec::new());
        }
        tail.check(start, end)?;
        Ok(tail.between(start, end).cloned().collect())
    }

    async fn durable(&self, ops: Vec<Op>) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.wal.submit(ops, Box::new(move |result| drop(done.send(result))));
        wait.await.map_err(|_| io::Error::other("the log was closed"))?
    }
}

impl Tail {
    fn first(&self) -> u64 {
        self.purged.map_or(0, |id| id.index + 1)
    }

    /// One past the last index.
    fn end(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    /// The entries of a range that are there.
    fn between(&self, start: u64, end: u64) -> impl Iterator<Item = &Entry> {
        let have = self.entries.front().map_or(0, |entry| entry.log_id.index);
        let length = self.entries.len();
        let offset =
            |index: u64| usize::try_from(index.saturating_sub(have)).map_or(length, |at| at.min(length));
        let (start, end) = (offset(start), offset(end));
        self.entries.range(start..end.max(start))
    }

    fn check(&self, start: u64, end: u64) -> io::Result<()> {
        let have = self.entries.front().map_or_else(|| self.end(), |entry| entry.log_id.index);
        if have <= start && end <= self.end() {
            return Ok(());
        }
        let what = format!("entries {start}..{end} were asked for, {have}..{} are there", self.end());
        Err(io::Error::new(io::ErrorKind::NotFound, what))
    }

    fn get_mut(&mut self, index: u64) -> Option<&mut Entry> {
        let first = self.entries.front()?.log_id.index;
        self.entries.get_mut(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += size(&entry);
        self.entries.push_back(entry);
    }

    fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }
}

/// First index, and the one past the last where the range has an end.
fn limits(range: &impl RangeBounds<u64>) -> (u64, Option<u64>) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => Some(end.saturating_add(1)),
        Bound::Excluded(end) => Some(*end),
        Bound::Unbounded => None,
    };
    (start, end)
}

fn size(entry: &Entry) -> u64 {
    match &entry.payload {
        EntryPayload::Normal(payload) => payload.bytes.len() as u64,
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    /// The part of the range that the log contains.
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let tail = self.tail.lock();
        let (start, end) = limits(&range);
        Ok(tail.between(start, end.unwrap_or(u64::MAX)).cloned().collect())
    }

    /// From the first of the range on without a gap, or an error: what is applied skips nothing. The end may be open.
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = limits(&range);
        let entries = self.whole(start, end);
        stream::iter(match entries {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.tail.lock().vote)
    }

    /// The beginning of exactly this range, or an error: what is sent has no gap either. Nothing where its beginning was let go of meanwhile: after a call
    /// that failed a replication stream may read once more what nobody counts as in use. Then it is a heartbeat, and the follower is sent a snapshot.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        // A message to a peer stays below its port's limit of 16 MiB.
        const MOST_BYTES: u64 = 4 << 20;
        if start >= end {
            return Ok(Vec::new());
        }
        let tail = self.tail.lock();
        if start < tail.first() {
            tracing::debug!(start, end, first = tail.first(), "entries to send were let go of");
            return Ok(Vec::new());
        }
        tail.check(start, end)?;
        let mut total = 0;
        let fits = tail.between(start, end).take_while(|entry| {
            let first = total == 0;
            // An entry without payload counts for something too, or the first test would not hold.
            total += size(entry).max(1);
            first || total <= MOST_BYTES
        });
        Ok(fits.cloned().collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last() })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if !mutant!("vote-not-persisted") {
            self.durable(vec![Op::Vote { bytes: wire::encode_vote(vote) }]).await?;
        }
        self.tail.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut tail = self.tail.lock();
        tail.committed = committed;
        tail.committed_waits = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.tail.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut ops = Vec::new();
        {
            let mut tail = self.tail.lock();
            for entry in entries {
                ops.push(Op::Put { index: entry.log_id.index, bytes: wire::encode_entry(&entry) });
                tail.push(entry);
            }
            if std::mem::take(&mut tail.committed_waits)
                && let Some(committed) = tail.committed
            {
                ops.push(Op::Committed { bytes: wire::encode_log_id(&committed) });
            }
        }
        if mutant!("skip-fsync") {
            self.wal.submit(ops, Box::new(|_| {}));
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.wal.submit(ops, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        {
            let mut tail = self.tail.lock();
            while tail.entries.back().is_some_and(|entry| entry.log_id.index >= from) {
                if let Some(entry) = tail.entries.pop_back() {
                    tail.bytes -= size(&entry);
                }
            }
        }
        self.durable(vec![Op::TruncateFrom { index: from }]).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        // The log is the authority for what the engine has not synced yet: sync before letting go of it.
        if !mutant!("purge-before-sync") {
            crate::at_length(|| self.engine.sync()).map_err(io::Error::other)?;
        }
        {
            let mut tail = self.tail.lock();
            while tail.entries.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
                if let Some(entry) = tail.entries.pop_front() {
                    tail.bytes -= size(&entry);
                }
            }
            if tail.first() <= upto.index {
                tail.purged = Some(upto);
            }
        }
        self.durable(vec![Op::PurgeTo { index: upto.index, marker: wire::encode_log_id(&upto) }]).await
    }
}
