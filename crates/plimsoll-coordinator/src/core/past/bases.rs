//! Bases: all rows of the state as they were at some revisions, beside the history that goes on from them.
//!
//! A base is written whole before its mark is; one without a mark does not count, and is deleted when the next one is written.

use std::sync::{Arc, Weak};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use plimsoll_consensus::ROW_PREFIX;
use plimsoll_ledger::{Ledger, Row, StoredRow};
use plimsoll_store::{Engine, Error, View, WriteBatch};
use plimsoll_types::Revision;

use crate::core::stored::StoredRows;
use crate::core::{HistoryError, stored};

/// Parts of bases: revision, number of the part.
const PARTS: &[u8] = b"s";
/// Marks of bases that are whole: revision, with the number of parts.
const MARKS: &[u8] = b"t";
/// Bytes of rows in one part, before compression.
const PART_BYTES: usize = 1 << 20;

/// Bases of the past.
pub(super) struct Bases {
    /// Not kept open by reads of the past.
    state: Weak<dyn Engine>,
    kept: Arc<dyn Engine>,
    every: u64,
    /// Revision of the latest base that was written or found; `None` before the first look.
    latest: Mutex<Option<u64>>,
}

impl Bases {
    pub(super) fn new(state: Weak<dyn Engine>, kept: Arc<dyn Engine>, every: u64) -> Bases {
        Bases { state, kept, every: every.max(1), latest: Mutex::new(None) }
    }

    /// Revisions of bases from which history goes on without a gap, ascending. The empty ledger is one where history begins with the first command.
    pub(super) fn all(&self, first: Revision) -> Vec<Revision> {
        let view = self.kept.view();
        let marks = view.scan(MARKS, &[]).filter_map(Result::ok);
        let mut found: Vec<Revision> = marks.filter_map(|(key, _)| revision_of(MARKS, &key)).collect();
        found.retain(|base| base.0 + 1 >= first.0);
        if first.0 <= 1 {
            found.insert(0, Revision(0));
        }
        found
    }

    /// Writes a base where the latest is too old or there is none. O(state) where one is written.
    pub(super) fn keep(&self, applied: Revision, first: Revision) -> Result<(), HistoryError> {
        let mut latest = self.latest.lock();
        let known = match *latest {
            Some(known) if known + 1 >= first.0 => Some(known),
            _ => self.all(first).last().map(|base| base.0),
        };
        *latest = known;
        if known.is_some_and(|known| applied.0 < known + self.every) {
            return Ok(());
        }
        let written = self.write(first).map_err(damaged)?;
        *latest = Some(written.0);
        tracing::debug!(revision = written.0, "a base for reads of the past is written");
        Ok(())
    }

    /// The state of a base.
    pub(super) fn load(&self, base: Revision) -> Result<Ledger, HistoryError> {
        if base.0 == 0 {
            return Ok(Ledger::new());
        }
        let view = self.kept.view();
        let prefix = [PARTS, &base.0.to_be_bytes()].concat();
        let mut rows: Vec<StoredRow> = Vec::new();
        let mut reader = StoredRows::default();
        for part in view.scan(&prefix, &[]) {
            let (_, packed) = part.map_err(damaged)?;
            let plain = lz4_flex::decompress_size_prepended(&packed).map_err(damaged)?;
            let mut plain = Bytes::from(plain);
            while plain.has_remaining() {
                let key = take(&mut plain).ok_or_else(|| damaged("a base ends within a row"))?;
                let value = take(&mut plain).ok_or_else(|| damaged("a base ends within a row"))?;
                rows.push(reader.read(&key, &value).map_err(damaged)?);
            }
        }
        let ledger = Ledger::from_stored(rows).map_err(damaged)?;
        if ledger.revision() != base {
            return Err(damaged(format!("the base of revision {base} is of {}", ledger.revision())));
        }
        Ok(ledger)
    }

    /// Copies all rows of the present, and deletes the bases before `first` and what is left of others.
    fn write(&self, first: Revision) -> Result<Revision, String> {
        let view = self.state.upgrade().ok_or("the state is closed")?.view();
        let revision = revision_in(view.as_ref())?;
        let stale: Vec<Bytes> = {
            let kept = self.kept.view();
            let useful = self.all(first);
            let old = |prefix: &'static [u8], (key, _): &(Bytes, Bytes)| {
                revision_of(prefix, key).is_none_or(|base| base == revision || !useful.contains(&base))
            };
            let parts = kept.scan(PARTS, &[]).filter_map(Result::ok).filter(|row| old(PARTS, row));
            let marks = kept.scan(MARKS, &[]).filter_map(Result::ok).filter(|row| old(MARKS, row));
            parts.chain(marks).map(|(key, _)| key).collect()
        };
        let mut batch = WriteBatch::new();
        stale.into_iter().for_each(|key| batch.delete(key));
        self.kept.write(batch).map_err(text)?;
        let mut number = 0u32;
        let mut part = BytesMut::with_capacity(PART_BYTES);
        let mut flush = |part: &mut BytesMut| -> Result<(), String> {
            let key = [PARTS, &revision.0.to_be_bytes(), &number.to_be_bytes()].concat();
            let mut batch = WriteBatch::new();
            batch.put(key, lz4_flex::compress_prepend_size(part));
            part.clear();
            number += 1;
            self.kept.write(batch).map_err(text)
        };
        for row in view.scan(&[ROW_PREFIX, stored::LEDGER_ROWS], &[]) {
            let (key, value) = row.map_err(text)?;
            for piece in [key.slice(1..), value] {
                part.put_u32(u32::try_from(piece.len()).map_err(text)?);
                part.extend_from_slice(&piece);
            }
            if part.len() >= PART_BYTES {
                flush(&mut part)?;
            }
        }
        flush(&mut part)?;
        let mut mark = WriteBatch::new();
        mark.put([MARKS, &revision.0.to_be_bytes()].concat(), number.to_be_bytes().to_vec());
        self.kept.write(mark).map_err(text)?;
        self.kept.sync().map_err(text)?;
        Ok(revision)
    }
}

/// Revision of the rows of a view.
fn revision_in(view: &dyn View) -> Result<Revision, String> {
    let key = stored::key(&plimsoll_ledger::RowPlace::Meta);
    let value = view.get(&key).map_err(text)?.ok_or("there is no state yet")?;
    match StoredRows::default().read(&key[1..], &value)? {
        StoredRow::Whole(Row::Meta(meta)) => Ok(meta.revision),
        _ => Err("the first row is not what it should be".to_owned()),
    }
}

fn revision_of(prefix: &[u8], key: &[u8]) -> Option<Revision> {
    let rest = key.strip_prefix(prefix)?.get(..8)?;
    Some(Revision(u64::from_be_bytes(rest.try_into().ok()?)))
}

/// One piece with its length before it.
fn take(from: &mut Bytes) -> Option<Bytes> {
    if from.remaining() < 4 {
        return None;
    }
    let length = from.get_u32() as usize;
    (from.remaining() >= length).then(|| from.split_to(length))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn damaged(detail: impl std::fmt::Display) -> HistoryError {
    HistoryError::Damaged { detail: detail.to_string() }
}

impl From<Error> for HistoryError {
    fn from(error: Error) -> HistoryError {
        damaged(error)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Command, Entry, NodeLimits, PolicyObject, Stamp};
    use plimsoll_store::memory::MemoryEngine;
    use plimsoll_types::{LedgerTime, Resources};

    use super::*;

    fn apply(ledger: &mut Ledger, name: &str) {
        let limits = NodeLimits { name: name.into(), max: Resources::new(1, 0), ..NodeLimits::default() };
        let put = vec![PolicyObject::NodeLimits(limits)];
        let command = Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) };
        let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: LedgerTime(5) };
        ledger.apply(stamp, &Entry::system(command));
    }

    fn store(ledger: &mut Ledger, engine: &MemoryEngine) {
        let mut batch = WriteBatch::new();
        for row in ledger.take_rows() {
            batch.ops.push((stored::key(&row.place).into(), stored::value(&row)));
        }
        engine.write(batch).unwrap();
    }

    #[test]
    fn a_base_is_the_state_of_its_revision_and_old_ones_go() {
        let (state, kept) = (Arc::new(MemoryEngine::new()), Arc::new(MemoryEngine::new()));
        let rows: Arc<dyn Engine> = Arc::clone(&state) as _;
        let bases = Bases::new(Arc::downgrade(&rows), Arc::clone(&kept) as _, 2);
        let mut ledger = Ledger::new();
        for name in ["a", "b", "c"] {
            apply(&mut ledger, name);
        }
        store(&mut ledger, &state);
        bases.keep(Revision(3), Revision(3)).unwrap();
        let then = bases.load(Revision(3)).unwrap();
        assert!(then.rows().eq(ledger.rows()), "row for row");
        apply(&mut ledger, "d");
        store(&mut ledger, &state);
        bases.keep(Revision(4), Revision(3)).unwrap();
        assert_eq!(bases.all(Revision(3)), [Revision(3)], "too soon for another");
        apply(&mut ledger, "e");
        store(&mut ledger, &state);
        bases.keep(Revision(5), Revision(3)).unwrap();
        assert_eq!(bases.all(Revision(3)), [Revision(3), Revision(5)]);
        assert_eq!(bases.all(Revision(5)), [Revision(5)], "history has a gap after the older one");
        assert_eq!(bases.all(Revision(1))[0], Revision(0), "the empty ledger");
    }
}
