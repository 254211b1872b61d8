//! Gapless watching at each watcher's own pace: recent records from a ring in memory, older ones from history, new ones
//! as they come. A watcher is a position in the log: it buffers nothing, so that a slow one costs nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use plimsoll_mutants::mutant;
use plimsoll_types::Revision;
use tokio::sync::watch;

use super::{Counters, History, HistoryError, Record};

/// Most bytes of recent records kept in memory, estimated.
const RING_BYTES: usize = 16 << 20;

/// Recent records of this replica, shared by all watchers.
pub(super) struct WatchHub {
    ring: Mutex<Ring>,
    history: Arc<History>,
    /// Revision of the latest record published; `None` once closed.
    latest: watch::Sender<Option<Revision>>,
}

struct Ring {
    /// Contiguous, ending with the latest record published.
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    most: usize,
    /// Revision and chain hash before the first record ever published here.
    base: (Revision, [u8; 32]),
}

impl WatchHub {
    pub(super) fn new(history: Arc<History>, most: usize) -> WatchHub {
        let ring =
            Ring { records: VecDeque::new(), bytes: 0, most: most.max(1), base: (Revision(0), [0; 32]) };
        WatchHub { ring: Mutex::new(ring), history, latest: watch::Sender::new(Some(Revision(0))) }
    }

    /// The ledger was restored to this revision: watchers that wanted earlier records find them compacted.
    pub(super) fn restored(&self, revision: Revision, chain: [u8; 32]) {
        let mut ring = self.ring.lock();
        ring.records.clear();
        ring.bytes = 0;
        ring.base = (revision, chain);
        drop(ring);
        self.announce(revision);
    }

    /// Adds records that follow the latest one, and wakes those that wait.
    pub(super) fn publish(&self, records: Vec<Arc<Record>>) {
        let Some(last) = records.last().map(|record| record.revision) else { return };
        let mut ring = self.ring.lock();
        for record in records {
            ring.bytes += record.weight();
            ring.records.push_back(record);
        }
        while ring.records.len() > ring.most || (ring.bytes > RING_BYTES && ring.records.len() > 1) {
            let Some(oldest) = ring.records.pop_front() else { break };
            ring.bytes -= oldest.weight();
        }
        drop(ring);
        self.announce(last);
    }

    /// Wakes every watcher for the last time.
    pub(super) fn close(&self) {
        self.latest.send_replace(None);
    }

    /// Revision of the latest record published.
    pub(super) fn latest(&self) -> Revision {
        let ring = self.ring.lock();
        ring.records.back().map_or(ring.base.0, |record| record.revision)
    }

    /// Tells of every published revision.
    pub(super) fn changes(&self) -> watch::Receiver<Option<Revision>> {
        self.latest.subscribe()
    }

    /// Up to `limit` published records from `from` on.
    pub(super) fn read(&self, from: Revision, limit: usize) -> Result<Vec<Arc<Record>>, HistoryError> {
        let from = Revision(from.0.max(1));
        let latest = {
            let ring = self.ring.lock();
            let latest = ring.records.back().map_or(ring.base.0, |record| record.revision);
            if from > latest {
                return Ok(Vec::new());
            }
            if let Some(first) = ring.records.front().map(|record| record.revision)
                && from >= first
            {
                let skip = usize::try_from(from.0 - first.0).unwrap_or(usize::MAX);
                return Ok(ring.records.iter().skip(skip).take(limit).cloned().collect());
            }
            latest
        };
        let most = usize::try_from(latest.0 - from.0 + 1).unwrap_or(usize::MAX);
        self.history.read(from, limit.min(most))
    }

    /// Chain hash after a published revision, where it is still known.
    pub(super) fn chain_at(&self, revision: Revision) -> Option<[u8; 32]> {
        {
            let ring = self.ring.lock();
            if ring.base.0 == revision {
                return Some(ring.base.1);
            }
        }
        let records = self.read(revision, 1).ok()?;
        records.first().filter(|record| record.revision == revision).map(|record| record.chain)
    }

    fn announce(&self, revision: Revision) {
        self.latest.send_if_modified(|latest| {
            let open = latest.is_some();
            if open {
                *latest = Some(revision);
            }
            open
        });
    }
}

/// One watcher: a position in the log. It fails only where what it needs next is no longer kept.
pub struct Watcher {
    hub: Arc<WatchHub>,
    counters: Arc<Counters>,
    changes: watch::Receiver<Option<Revision>>,
    next: Revision,
}

impl Watcher {
    /// A watcher from `from` on; 0 for what comes after the present revision.
    pub(super) fn new(
        hub: Arc<WatchHub>,
        counters: Arc<Counters>,
        from: Revision,
    ) -> Result<Watcher, HistoryError> {
        let changes = hub.changes();
        let latest = hub.latest();
        let next = if from.0 == 0 { Revision(latest.0 + 1) } else { from };
        let next = if mutant!("watch-skips-one") && from.0 > 1 { Revision(next.0 + 1) } else { next };
        if next.0 > latest.0 + 1 {
            return Err(HistoryError::Future { wanted: from, applied: latest });
        }
        if next <= latest {
            hub.read(next, 1)?;
        }
        counters.watchers.fetch_add(1, Ordering::Relaxed);
        Ok(Watcher { hub, counters, changes, next })
    }

    /// The next records, at least one and at most `limit`, waiting for one if need be. Safe to cancel.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] where it fell behind all that is kept: read the state and watch from there.
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Arc<Record>>, HistoryError> {
        loop {
            if self.changes.borrow_and_update().is_none() {
                return Err(HistoryError::Stopped);
            }
            let records = self.read(limit)?;
            if !records.is_empty() {
                return Ok(records);
            }
            self.changes.changed().await.map_err(|_| HistoryError::Stopped)?;
        }
    }

    /// The next records that are there already, at most `limit`; empty where there are none.
    ///
    /// # Errors
    /// As for [`Watcher::next`].
    pub fn read(&mut self, limit: usize) -> Result<Vec<Arc<Record>>, HistoryError> {
        let records = self.hub.read(self.next, limit.max(1))?;
        if let Some(last) = records.last() {
            self.next = Revision(last.revision.0 + 1);
        } else if self.hub.latest().0 + 1 < self.next.0 {
            // Only a replica that was wiped and restored can be behind its own watcher.
            return Err(HistoryError::Future { wanted: self.next, applied: self.hub.latest() });
        }
        Ok(records)
    }

    /// The next record is one that was read already: what followed it was not used.
    pub(crate) fn go_back(&mut self, to: Revision) {
        self.next = self.next.min(to);
    }

    /// Revision that the next record will have.
    pub fn position(&self) -> Revision {
        self.next
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.counters.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use plimsoll_store::memory::MemoryEngine;
    use plimsoll_types::LedgerTime;

    use super::*;

    fn record(revision: u64) -> Arc<Record> {
        Arc::new(Record {
            revision: Revision(revision),
            log_time: LedgerTime(revision),
            actor: String::new(),
            request_id: String::new(),
            entry: Bytes::new(),
            outcome: Bytes::new(),
            chain: [revision as u8; 32],
            events: Vec::new(),
        })
    }

    fn hub(ring: usize, kept: u64, records: u64) -> Arc<WatchHub> {
        let history = Arc::new(History::open(Arc::new(MemoryEngine::new()), kept).expect("opens"));
        let hub = Arc::new(WatchHub::new(Arc::clone(&history), ring));
        for revision in 1..=records {
            history.append(&[(&record(revision), &plimsoll_ledger::Outcome::Done)]).expect("written");
            hub.publish(vec![record(revision)]);
        }
        hub
    }

    #[tokio::test]
    async fn a_watcher_reads_history_then_the_ring_then_what_comes() {
        let hub = hub(3, 100, 10);
        let mut watcher = Watcher::new(Arc::clone(&hub), Arc::default(), Revision(2)).expect("kept");
        let mut seen = Vec::new();
        while watcher.position() <= Revision(10) {
            seen.extend(watcher.next(4).await.expect("kept").iter().map(|record| record.revision.0));
        }
        let waiting = tokio::spawn(async move { watcher.next(4).await.map(|records| records[0].revision) });
        tokio::task::yield_now().await;
        hub.publish(vec![record(11)]);
        assert_eq!(seen, (2..=10).collect::<Vec<_>>());
        assert_eq!(waiting.await.expect("ran").expect("kept"), Revision(11));
    }

    #[tokio::test]
    async fn a_watcher_of_compacted_revisions_is_told_where_to_begin() {
        let hub = hub(2, 4, 10);
        let error = Watcher::new(Arc::clone(&hub), Arc::default(), Revision(3)).err().expect("compacted");
        assert!(matches!(error, HistoryError::Compacted { first: Revision(7), .. }), "{error}");
        assert!(Watcher::new(Arc::clone(&hub), Arc::default(), Revision(12)).is_err(), "the future");
        assert_eq!(hub.chain_at(Revision(8)), Some([8; 32]), "from history");
        assert_eq!(hub.chain_at(Revision(10)), Some([10; 32]), "from the ring");
    }

    #[tokio::test]
    async fn closing_ends_every_watcher() {
        let hub = hub(2, 4, 1);
        let mut watcher = Watcher::new(Arc::clone(&hub), Arc::default(), Revision(0)).expect("now");
        let waiting = tokio::spawn(async move { watcher.next(1).await.is_err() });
        tokio::task::yield_now().await;
        hub.close();
        assert!(waiting.await.expect("ran"));
    }
}
