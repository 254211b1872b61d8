//! The ledger as it was: a base that is kept, and the recorded commands after it applied again by the ledger's own rules.
//!
//! Invariant: what is rebuilt is checked against the recorded outcomes command by command; a state that differs is never shown. One state is
//! rebuilt at a time and the latest is kept for a minute, so that memory is bounded by one more ledger.

mod bases;

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_ledger::{Ledger, Stamp};
use plimsoll_proto::codec::decode_entry;
use plimsoll_store::Engine;
use plimsoll_types::{LedgerTime, Revision};
use tokio::sync::Semaphore;

use super::{History, HistoryError, encoding};
use bases::Bases;

/// Records read at a time.
const RECORDS: usize = 1_024;
/// How long a state that was rebuilt is kept for whoever asks for the next page of it.
const KEPT: Duration = Duration::from_secs(60);

/// States of the past.
pub(super) struct Past {
    history: Arc<History>,
    bases: Bases,
    latest: Mutex<Option<Arc<Ledger>>>,
    turn: Semaphore,
}

impl Past {
    /// `state` has the rows of the present, `kept` takes the bases; `every` so many revisions one is written.
    pub(super) fn new(
        history: Arc<History>,
        state: Weak<dyn Engine>,
        kept: Arc<dyn Engine>,
        every: u64,
    ) -> Arc<Past> {
        let bases = Bases::new(state, kept, every);
        Arc::new(Past { history, bases, latest: Mutex::new(None), turn: Semaphore::new(1) })
    }

    /// The oldest revision of which the state can be rebuilt; `None` where there is none yet.
    pub(super) fn first(&self) -> Option<Revision> {
        self.bases.all(self.history.first_revision()).first().copied()
    }

    /// The latest revision at that ledger time.
    ///
    /// # Errors
    /// Before the first record that is kept, and where history cannot be read.
    pub(super) fn revision_at(&self, time: LedgerTime) -> Result<Revision, HistoryError> {
        let (first, last) = self.history.bounds();
        let time_of = |revision: u64| -> Result<LedgerTime, HistoryError> {
            let records = self.history.read(Revision(revision), 1)?;
            let missing = || HistoryError::Damaged { detail: format!("no record of revision {revision}") };
            records.first().map(|record| record.log_time).ok_or_else(missing)
        };
        if last.0 < first.0 || time_of(first.0)? > time {
            return Err(HistoryError::TooEarly { first });
        }
        let (mut before, mut after) = (first.0, last.0 + 1);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if time_of(middle)? <= time {
                before = middle;
            } else {
                after = middle;
            }
        }
        Ok(Revision(before))
    }

    /// The ledger at that revision, which is applied here. O(state + revisions since its base).
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] before the oldest base.
    pub(super) async fn at(self: &Arc<Self>, revision: Revision) -> Result<Arc<Ledger>, HistoryError> {
        let _turn = self.turn.acquire().await.map_err(|_| HistoryError::Stopped)?;
        if let Some(known) = self.latest.lock().clone().filter(|known| known.revision() == revision) {
            return Ok(known);
        }
        let past = Arc::clone(self);
        let rebuilt = tokio::task::spawn_blocking(move || past.rebuild(revision)).await;
        let ledger = Arc::new(rebuilt.map_err(|_| HistoryError::Stopped)??);
        *self.latest.lock() = Some(Arc::clone(&ledger));
        let (past, shown) = (Arc::downgrade(self), Arc::downgrade(&ledger));
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            let Some(past) = past.upgrade() else { return };
            let mut latest = past.latest.lock();
            if latest.as_ref().is_some_and(|latest| std::ptr::eq(Arc::as_ptr(latest), shown.as_ptr())) {
                *latest = None;
            }
        });
        Ok(ledger)
    }

    /// Writes a base where it is time for one. Blocks.
    pub(super) fn keep_base(&self, applied: Revision) {
        if let Err(error) = self.bases.keep(applied, self.history.first_revision()) {
            tracing::warn!(%error, "no base was written, so the past of this time cannot be shown later");
        }
    }

    fn rebuild(&self, revision: Revision) -> Result<Ledger, HistoryError> {
        let first = self.history.first_revision();
        let bases = self.bases.all(first);
        let Some(base) = bases.iter().rev().find(|base| **base <= revision).copied() else {
            let first = bases.first().copied().unwrap_or_else(|| self.history.bounds().1);
            return Err(HistoryError::Compacted { wanted: revision, first });
        };
        let mut ledger = self.bases.load(base)?;
        while ledger.revision() < revision {
            let next = Revision(ledger.revision().0 + 1);
            let left = usize::try_from(revision.0 - ledger.revision().0).unwrap_or(usize::MAX);
            let records = self.history.read(next, RECORDS.min(left))?;
            if records.is_empty() {
                return Err(HistoryError::Future { wanted: revision, applied: ledger.revision() });
            }
            for record in records {
                let damaged = |detail: String| HistoryError::Damaged { detail };
                let entry = decode_entry(&record.entry).map_err(|error| damaged(error.to_string()))?;
                let stamp = Stamp { revision: record.revision, proposed_at: record.log_time };
                let answer = ledger.apply(stamp, &entry).answer;
                if encoding::encode_outcome(&answer.outcome) != record.outcome {
                    return Err(damaged(format!(
                        "the command of revision {} came to something else than is recorded",
                        record.revision
                    )));
                }
            }
            ledger.clear_touched();
            drop(ledger.take_violations());
        }
        Ok(ledger)
    }
}
