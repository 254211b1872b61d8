//! Records of applied commands on disk, for auditors and for watchers that come back late.
//!
//! History is each replica's own: it is not part of the replicated state and not in snapshots. Where a replica has not
//! got every record (a crash lost the tail of its history, or a snapshot was installed), the oldest revision that it
//! serves is raised past the gap, and older reads are refused rather than answered with a hole.
//!
//! Records lie in compressed blocks under the revision of the last one in each.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use plimsoll_ledger::Outcome;
use plimsoll_store::{Engine, WriteBatch};
use plimsoll_types::Revision;

use super::record::{decode_block, encode_block};
use super::{HistoryError, Record};

/// Records of applied commands, oldest to newest without a gap.
pub struct History {
    engine: Arc<dyn Engine>,
    keep: u64,
    state: Mutex<State>,
}

struct State {
    bounds: Bounds,
    /// Blocks that end before this revision are deleted.
    deleted: u64,
}

/// Revisions kept: from `first` up to and including `last`; none where `last < first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    first: u64,
    last: u64,
}

const BLOCKS: &[u8] = b"h";
const BOUNDS: &[u8] = b"b";
/// Most records of a block: whoever reads one of them decodes all.
const BLOCK_RECORDS: usize = 256;

impl History {
    /// Opens what the engine holds; keeps at most `keep` records.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn open(engine: Arc<dyn Engine>, keep: u64) -> Result<History, plimsoll_store::Error> {
        let bounds =
            engine.get(BOUNDS)?.as_deref().and_then(Bounds::decode).unwrap_or(Bounds { first: 1, last: 0 });
        let state = State { bounds, deleted: 0 };
        Ok(History { engine, keep: keep.max(1), state: Mutex::new(state) })
    }

    /// Oldest revision of which a record is kept.
    pub fn first_revision(&self) -> Revision {
        Revision(self.state.lock().bounds.first)
    }

    /// Oldest and latest revision of which records are kept; none where the latest is before the oldest.
    pub(super) fn bounds(&self) -> (Revision, Revision) {
        let bounds = self.state.lock().bounds;
        (Revision(bounds.first), Revision(bounds.last))
    }

    /// Says what the ledger was restored to. Records after it are dropped, and a gap before it ends history.
    ///
    /// # Errors
    /// Where the store cannot be read or written.
    pub(super) fn restored(&self, revision: Revision) -> Result<(), plimsoll_store::Error> {
        let mut state = self.state.lock();
        let bounds = &mut state.bounds;
        let mut batch = WriteBatch::new();
        let from = if bounds.last < revision.0 {
            *bounds = Bounds { first: revision.0 + 1, last: revision.0 };
            Bytes::new()
        } else {
            // Applied again from here on; the records are written again with the same content.
            bounds.last = revision.0;
            bounds.first = bounds.first.min(revision.0 + 1);
            key(revision.0 + 1)
        };
        let view = self.engine.view();
        for (index, row) in view.scan(BLOCKS, &from).enumerate() {
            let (key, block) = row?;
            // Only the first one may begin before the end of the ledger; it is kept as far as that.
            if index == 0
                && !from.is_empty()
                && let Some(records) = revision_of(&key).and_then(|last| decode_block(last, &block).ok())
                && records.first().is_some_and(|record| record.revision <= revision)
            {
                let kept: Vec<Arc<Record>> =
                    records.into_iter().filter(|record| record.revision <= revision).map(Arc::new).collect();
                // No outcome is taken for what an event shows: that spares room only.
                batch
                    .put(self::key(revision.0), encode_block(kept.iter().map(|kept| (kept, &Outcome::Done))));
            }
            batch.delete(key);
        }
        batch.put(BOUNDS, bounds.encode());
        self.engine.write(batch)
    }

    /// Adds records, with their outcomes, that follow one another and what is kept; drops the oldest beyond the bound.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub(super) fn append(&self, records: &[(&Arc<Record>, &Outcome)]) -> Result<(), plimsoll_store::Error> {
        let Some((first, _)) = records.first() else { return Ok(()) };
        let mut state = self.state.lock();
        let State { bounds, deleted } = &mut *state;
        if first.revision.0 > bounds.last + 1 {
            *bounds = Bounds { first: first.revision.0, last: bounds.last };
        }
        let mut batch = WriteBatch::new();
        for block in records.chunks(BLOCK_RECORDS) {
            let last = block.last().map_or(bounds.last, |(record, _)| record.revision.0);
            batch.put(key(last), encode_block(block.iter().copied()));
            bounds.last = last;
        }
        bounds.first = bounds.last.saturating_sub(self.keep - 1).max(bounds.first);
        batch.put(BOUNDS, bounds.encode());
        if bounds.first - (*deleted).min(bounds.first) > self.keep / 8 {
            self.delete_old(&mut batch, bounds.first)?;
            *deleted = bounds.first;
        }
        self.engine.write(batch)
    }

    /// Up to `limit` records from `from` on.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] before the first record kept; [`HistoryError::Damaged`] where the store fails.
    pub(super) fn read(&self, from: Revision, limit: usize) -> Result<Vec<Arc<Record>>, HistoryError> {
        let (view, last) = {
            let state = self.state.lock();
            let bounds = state.bounds;
            if from.0 < bounds.first {
                return Err(HistoryError::Compacted { wanted: from, first: Revision(bounds.first) });
            }
            if from.0 > bounds.last {
                return Ok(Vec::new());
            }
            (self.engine.view(), bounds.last)
        };
        let damaged = |detail: String| HistoryError::Damaged { detail };
        let most = usize::try_from(last - from.0 + 1).unwrap_or(usize::MAX).min(limit);
        let mut records: Vec<Arc<Record>> = Vec::with_capacity(most.min(1_024));
        for row in view.scan(BLOCKS, &key(from.0)) {
            if records.len() >= most {
                break;
            }
            let (found, block) = row.map_err(|error| damaged(error.to_string()))?;
            let end = revision_of(&found).ok_or_else(|| damaged("a key of history is damaged".to_owned()))?;
            let block = decode_block(end, &block).map_err(|error| damaged(error.to_string()))?;
            let next = from.0 + records.len() as u64;
            if block.first().is_none_or(|first| first.revision.0 > next) {
                return Err(damaged(format!("the record of revision {next} is missing")));
            }
            let wanted = block.into_iter().filter(|record| record.revision.0 >= next);
            records.extend(wanted.take(most - records.len()).map(Arc::new));
        }
        if records.len() < most {
            let next = from.0 + records.len() as u64;
            return Err(damaged(format!("the record of revision {next} is missing")));
        }
        Ok(records)
    }

    /// Deletes the blocks that end before `first`.
    fn delete_old(&self, batch: &mut WriteBatch, first: u64) -> Result<(), plimsoll_store::Error> {
        let view = self.engine.view();
        for row in view.scan(BLOCKS, &[]) {
            let (key, _) = row?;
            if revision_of(&key).is_some_and(|last| last.0 >= first) {
                break;
            }
            batch.delete(key);
        }
        Ok(())
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
    let mut key = BLOCKS.to_vec();
    key.extend_from_slice(&revision.to_be_bytes());
    key.into()
}

fn revision_of(key: &[u8]) -> Option<Revision> {
    let number = key.strip_prefix(BLOCKS)?.try_into().ok()?;
    Some(Revision(u64::from_be_bytes(number)))
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
            history.append(&[(&record(revision), &Outcome::Done)]).expect("written");
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
    fn a_long_append_is_read_from_anywhere_in_it() {
        let history = History::open(Arc::new(MemoryEngine::new()), 10_000).expect("opens");
        let records: Vec<_> = (1..=1_000).map(record).collect();
        let records: Vec<_> = records.iter().map(|record| (record, &Outcome::Done)).collect();
        history.append(&records).expect("written");
        for from in [1, 2, 256, 257, 700, 1_000] {
            let read = history.read(Revision(from), 300).expect("kept");
            let expected: Vec<u64> = (from..=1_000).take(300).collect();
            assert_eq!(read.iter().map(|record| record.revision.0).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_block_that_the_ledger_was_restored_into_is_kept_as_far_as_that() {
        let history = History::open(Arc::new(MemoryEngine::new()), 10_000).expect("opens");
        let records: Vec<_> = (1..=20).map(record).collect();
        let pairs: Vec<_> = records.iter().map(|record| (record, &Outcome::Done)).collect();
        history.append(&pairs).expect("written");
        history.restored(Revision(7)).expect("written");
        assert_eq!(revisions(&history, 3), [3, 4, 5, 6, 7]);
        history.append(&pairs[7..10]).expect("written");
        assert_eq!(revisions(&history, 6), [6, 7, 8, 9, 10]);
    }

    #[test]
    fn a_gap_ends_what_was_before_it() {
        let history = History::open(Arc::new(MemoryEngine::new()), 100).expect("opens");
        history.append(&[(&record(1), &Outcome::Done), (&record(2), &Outcome::Done)]).expect("written");
        history.restored(Revision(9)).expect("written");
        assert_eq!(history.first_revision(), Revision(10));
        history.append(&[(&record(10), &Outcome::Done)]).expect("written");
        assert_eq!(revisions(&history, 10), [10]);
        assert!(history.read(Revision(2), 1).is_err());
    }

    #[test]
    fn records_ahead_of_a_restored_ledger_are_out_of_view_until_written_again() {
        let history = History::open(Arc::new(MemoryEngine::new()), 100).expect("opens");
        for revision in 1..=3 {
            history.append(&[(&record(revision), &Outcome::Done)]).expect("written");
        }
        history.restored(Revision(1)).expect("written");
        assert_eq!(revisions(&history, 1), [1]);
        history.append(&[(&record(2), &Outcome::Done)]).expect("written");
        assert_eq!(revisions(&history, 1), [1, 2]);
    }
}
