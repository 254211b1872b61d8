//! What a log holds after some ops: the one in-memory meaning of [`Op`], used by the memory log, by the simulated disk
//! and, in tests, as the model for RocksDB.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use crate::wal::{Loaded, Op};
use crate::{Error, frame};

/// A log in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogState {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    /// Framed, so that the simulated disk can tear and damage them like real ones.
    entries: BTreeMap<u64, Bytes>,
    /// The index of a last record that a crash cut off, until [`LogState::recover`].
    torn: Option<u64>,
}

impl LogState {
    /// Applies one change.
    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Put { index, bytes } if !self.is_purged(*index) => {
                self.entries.insert(*index, frame::seal(&index.to_be_bytes(), bytes));
            }
            Op::PurgeTo { index, marker } if !self.is_purged(*index) => {
                self.entries = self.entries.split_off(&index.saturating_add(1));
                if *index == u64::MAX {
                    self.entries.clear();
                }
                self.purged = Some((*index, marker.clone()));
            }
            // Already purged: what came later in the log's life is already there.
            Op::Put { .. } | Op::PurgeTo { .. } => {}
            Op::TruncateFrom { index } => drop(self.entries.split_off(index)),
            Op::Vote { bytes } => self.vote = Some(bytes.clone()),
            Op::Committed { bytes } => self.committed = Some(bytes.clone()),
        }
    }

    /// Stores the first half of the entry's record at the end of the log, as a write cut off by a power cut would.
    /// Does nothing where the index is not past the end.
    pub(crate) fn apply_torn(&mut self, index: u64, bytes: &Bytes) {
        if self.is_purged(index) || self.entries.last_key_value().is_some_and(|(last, _)| *last >= index) {
            return;
        }
        let framed = frame::seal(&index.to_be_bytes(), bytes);
        self.entries.insert(index, framed.slice(..framed.len() / 2));
        self.torn = Some(index);
    }

    /// Leaves a torn last record out, as recovery does when it reopens a log after a crash.
    pub(crate) fn recover(&mut self) {
        if let Some(index) = self.torn.take() {
            self.entries.remove(&index);
        }
    }

    /// Flips one bit of the entry that `choose` picks out of so many; returns its index, or `None` where there is none.
    pub(crate) fn flip_bit(&mut self, mut choose: impl FnMut(usize) -> usize) -> Option<u64> {
        let index = *self.entries.keys().nth(choose(self.entries.len().max(1)))?;
        let stored = self.entries.get_mut(&index).expect("the key was just read from this map");
        let mut bytes = stored.to_vec();
        let bit = choose(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        *stored = bytes.into();
        Some(index)
    }

    /// Everything, verified: damage and gaps are errors.
    pub(crate) fn load(&self, path: &Path) -> Result<Loaded, Error> {
        let mut entries: Vec<(u64, Bytes)> = Vec::with_capacity(self.entries.len());
        let mut expected = self.purged.as_ref().map(|(index, _)| index.saturating_add(1));
        for (index, framed) in &self.entries {
            check_contiguous(path, expected, *index)?;
            let payload = frame::open(&index.to_be_bytes(), framed)
                .map_err(|detail| Error::corrupt(path, Some(*index), detail))?;
            entries.push((*index, framed.slice_ref(payload)));
            expected = index.checked_add(1);
        }
        Ok(Loaded {
            vote: self.vote.clone(),
            committed: self.committed.clone(),
            purged: self.purged.clone(),
            entries,
        })
    }

    fn is_purged(&self, index: u64) -> bool {
        self.purged.as_ref().is_some_and(|(purged, _)| index <= *purged)
    }
}

/// An error where `index` is not the one that has to follow.
pub(crate) fn check_contiguous(path: &Path, expected: Option<u64>, index: u64) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != index => {
            let detail = format!("entry is missing, the next one is {index}");
            Err(Error::corrupt(path, Some(expected), detail))
        }
        Some(_) | None => Ok(()),
    }
}
