//! The raft log: an in-memory tail over a `Wal`. What openraft reads comes from memory; what it is told to be durable is
//! on disk.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use plimsoll_store::{Engine, Op, Wal};
use tokio::sync::oneshot;

use crate::types::{Entry, EntryPayload, LogId, TypeConfig, Vote};
use crate::wire;

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
        let mut tail = Tail { vote, purged, entries: VecDeque::new(), bytes: 0 };
        for (_, bytes) in loaded.entries {
            tail.push(wire::decode_entry(bytes)?);
        }
        Ok(LogStore { wal, engine, tail: Arc::new(Mutex::new(tail)) })
    }

    /// Bytes of payload in the tail.
    pub(crate) fn bytes(&self) -> u64 {
        self.tail.lock().bytes
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

fn size(entry: &Entry) -> u64 {
    match &entry.payload {
        EntryPayload::Normal(payload) => payload.bytes.len() as u64,
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let tail = self.tail.lock();
        let Some(have) = tail.entries.front().map(|entry| entry.log_id.index) else { return Ok(Vec::new()) };
        let end_have = have + tail.entries.len() as u64;
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => have,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => end_have,
        };
        let (start, end) = (start.max(have), end.min(end_have));
        if start >= end {
            return Ok(Vec::new());
        }
        let offset = |index: u64| (index - have) as usize;
        Ok(tail.entries.range(offset(start)..offset(end)).cloned().collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.tail.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        // A message to a peer stays below its port's limit of 16 MiB.
        const MOST_BYTES: u64 = 4 << 20;
        let mut entries = self.try_get_log_entries(start..end).await?;
        let mut total = 0;
        let fits = entries.iter().take_while(|entry| {
            total += size(entry);
            total <= MOST_BYTES
        });
        let keep = fits.count().max(1);
        entries.truncate(keep);
        Ok(entries)
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
        self.durable(vec![Op::Vote { bytes: wire::encode_vote(vote) }]).await?;
        self.tail.lock().vote = Some(*vote);
        Ok(())
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
        self.engine.sync().map_err(io::Error::other)?;
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
