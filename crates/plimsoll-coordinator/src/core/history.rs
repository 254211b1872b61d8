//! Records of applied commands on disk, for auditors and for watchers that come back late.
//!
//! History is each replica's own: it is not part of the replicated state and not in snapshots. Where a replica has not
//! got every record (a crash lost the tail of its history, or a snapshot was installed), the oldest revision that it
//! serves is raised past the gap, and older reads are refused rather than answered with a hole.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use plimsoll_ledger::Outcome;
use plimsoll_store::{Engine, WriteBatch};
use plimsoll_types::Revision;

use super::{HistoryError, Record};

/// Records of applied commands, oldest to newest without a gap.
pub struct History {
    engine: Arc<dyn Engine>,
    keep: u64,
    bounds: Mutex<Bounds>,
}

/// Revisions kept: from `first` up to and including `last`; none where `last < first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    first: u64,
    last: u64,
}

const RECORDS: &[u8] = b"r";
const BOUNDS: &[u8] = b"b";

impl History {
    /// Opens what the engine holds; keeps at most `keep` records.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn open(engine: Arc<dyn Engine>, keep: u64) -> Result<History, plimsoll_store::Error> {
        let bounds =
            engine.get(BOUNDS)?.as_deref().and_then(Bounds::decode).unwrap_or(Bounds { first: 1, last: 0 });
        Ok(History { engine, keep: keep.max(1), bounds: Mutex::new(bounds) })
    }

    /// Oldest revision of which a record is kept.
    pub fn first_revision(&self) -> Revision {
        Revision(self.bounds.lock().first)
    }

    /// Says what the ledger was restored to. Records after it are dropped from view, and a gap before it ends history.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub(super) fn restored(&self, revision: Revision) -> Result<(), plimsoll_store::Error> {
        let mut bounds = self.bounds.lock();
        let mut batch = WriteBatch::new();
        if bounds.last < revision.0 {
            for old in bounds.first..=bounds.last {
                batch.delete(key(old));
            }
            *bounds = Bounds { first: revision.0 + 1, last: revision.0 };
        } else {
            // Applied again from here on; the records are written again with the same content.
            bounds.last = revision.0;
            bounds.first = bounds.first.min(revision.0 + 1);
        }
        batch.put(BOUNDS, bounds.encode());
        self.engine.write(batch)
    }

    /// Adds records, with their outcomes, that follow one another and what is kept; drops the oldest beyond the bound.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub(super) fn append<'a>(
        &self,
        records: impl IntoIterator<Item = (&'a Arc<Record>, &'a Outcome)>,
    ) -> Result<(), plimsoll_store::Error> {
        let mut records = records.into_iter().peekable();
        let Some(from) = records.peek().map(|(record, _)| record.revision) else { return Ok(()) };
        let mut bounds = self.bounds.lock();
        let mut batch = WriteBatch::new();
        if from.0 > bounds.last + 1 {
            *bounds = Bounds { first: from.0, last: bounds.last };
        }
        for (record, outcome) in records {
            bounds.last = record.revision.0;
            batch.put(key(record.revision.0), record.encode(outcome));
        }
        let oldest = bounds.last.saturating_sub(self.keep - 1).max(bounds.first);
        for old in bounds.first..oldest {
            batch.delete(key(old));
        }
        bounds.first = oldest;
        batch.put(BOUNDS, bounds.encode());
        self.engine.write(batch)
    }

    /// Up to `limit` records from `from` on.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] before the first record kept; [`HistoryError::Damaged`] where the store fails.
    pub(super) fn read(&self, from: Revision, limit: usize) -> Result<Vec<Arc<Record>>, HistoryError> {
        let view = {
            let bounds = self.bounds.lock();
            if from.0 < bounds.first {
                return Err(HistoryError::Compacted { wanted: from, first: Revision(bounds.first) });
            }
            if from.0 > bounds.last {
                return Ok(Vec::new());
            }
            self.engine.view()
        };
        let last = self.bounds.lock().last;
        let damaged = |detail: String| HistoryError::Damaged { detail };
        let most =
            usize::try_from(last.saturating_sub(from.0).saturating_add(1)).unwrap_or(usize::MAX).min(limit);
        let mut records = Vec::with_capacity(most.min(1_024));
        for (expected, row) in (from.0..).zip(view.scan(RECORDS, &key(from.0))).take(most) {
            let (found, bytes) = row.map_err(|error| damaged(error.to_string()))?;
            if found != key(expected) {
                return Err(damaged(format!("the record of revision {expected} is missing")));
            }
            let record =
                Record::decode(Revision(expected), bytes).map_err(|error| damaged(error.to_string()))?;
            records.push(Arc::new(record));
        }
        Ok(records)
    }

    /// Makes what was appended durable.
    ///
    /// # Errors
    /// Where the store cannot be synced.
    pub(super) fn sync(&self) -> Result<(), plimsoll_store::Error> {
        self.engine.sync()
    }
}

impl Bounds {
    fn encode(self) -> Vec<u8> {
        [self.first.to_be_bytes(), self.last.to_be_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Bounds> {
        let (first, last) = bytes.split_at_checked(8)?;
        Some(Bounds {
            first: u64::from_be_bytes(first.try_into().ok()?),
            last: u64::from_be_bytes(last.try_into().ok()?),
        })
    }
}

fn key(revision: u64) -> Bytes {
    let mut key = RECORDS.to_vec();
    key.extend_from_slice(&revision.to_be_bytes());
    key.into()
}

#[cfg(test)]
mod tests {
    use plimsoll_store::memory::MemoryEngine;
    use plimsoll_types::LedgerTime;

    use super::*;

    fn record(revision: u64) -> Arc<Record> {
        Arc::new(Record {
            revision: Revision(revision),
            log_time: LedgerTime(revision * 10),
            actor: "ada".to_owned(),
            request_id: String::new(),
            entry: Bytes::from(revision.to_be_bytes().to_vec()),
            outcome: Bytes::new(),
            chain: [0; 32],
            events: Vec::new(),
        })
    }

    fn revisions(history: &History, from: u64) -> Vec<u64> {
        history.read(Revision(from), 100).expect("kept").iter().map(|record| record.revision.0).collect()
    }

    #[test]
    fn the_oldest_records_go_first_and_reading_them_is_refused() {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let history = History::open(Arc::clone(&engine), 3).expect("opens");
        for revision in 1..=5 {
            history.append([(&record(revision), &Outcome::Done)]).expect("written");
        }
        assert_eq!(revisions(&history, 3), [3, 4, 5]);
        assert_eq!(revisions(&history, 6), [0; 0]);
        assert!(matches!(
            history.read(Revision(2), 1),
            Err(HistoryError::Compacted { first: Revision(3), .. })
        ));
        let again = History::open(engine, 3).expect("opens again");
        assert_eq!(revisions(&again, 4), [4, 5]);
    }

    #[test]
    fn a_gap_ends_what_was_before_it() {
        let history = History::open(Arc::new(MemoryEngine::new()), 100).expect("opens");
        history.append([(&record(1), &Outcome::Done), (&record(2), &Outcome::Done)]).expect("written");
        history.restored(Revision(9)).expect("written");
        assert_eq!(history.first_revision(), Revision(10));
        history.append([(&record(10), &Outcome::Done)]).expect("written");
        assert_eq!(revisions(&history, 10), [10]);
        assert!(history.read(Revision(2), 1).is_err());
    }

    #[test]
    fn records_ahead_of_a_restored_ledger_are_out_of_view_until_written_again() {
        let history = History::open(Arc::new(MemoryEngine::new()), 100).expect("opens");
        for revision in 1..=3 {
            history.append([(&record(revision), &Outcome::Done)]).expect("written");
        }
        history.restored(Revision(1)).expect("written");
        assert_eq!(revisions(&history, 1), [1]);
        history.append([(&record(2), &Outcome::Done)]).expect("written");
        assert_eq!(revisions(&history, 1), [1, 2]);
    }
}
