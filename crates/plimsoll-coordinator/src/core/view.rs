//! A read of the ledger: a lock guard with the revision it was served at.

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::RwLockReadGuard;
use plimsoll_ledger::Ledger;
use plimsoll_types::{LedgerTime, Revision};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// It shows all that was acknowledged anywhere before it began.
    #[default]
    Linearizable,
    /// It shows what this replica has applied.
    Stale,
}

/// The ledger under a read lock, or as it was. Derefs to [`Ledger`].
pub struct LedgerView<'a> {
    source: Source<'a>,
    age_ms: u64,
}

/// Where a view looks.
enum Source<'a> {
    /// The present, held.
    Present(RwLockReadGuard<'a, Ledger>),
    /// The past, which nobody changes any more.
    Past(Arc<Ledger>),
}

impl<'a> LedgerView<'a> {
    pub(super) fn new(guard: RwLockReadGuard<'a, Ledger>, age_ms: u64) -> LedgerView<'a> {
        LedgerView { source: Source::Present(guard), age_ms }
    }

    /// A state that was: it is as old as it is, and nothing of it is out of date.
    pub fn past(ledger: Arc<Ledger>) -> LedgerView<'a> {
        LedgerView { source: Source::Past(ledger), age_ms: 0 }
    }

    /// Revision of the latest command it shows.
    pub fn revision(&self) -> Revision {
        Ledger::revision(self)
    }

    /// Ledger time of the latest command it shows.
    pub fn log_time(&self) -> LedgerTime {
        self.clock()
    }

    /// Upper bound of how long ago this was the newest state, in milliseconds; 0 for linearizable reads.
    pub fn age_ms(&self) -> u64 {
        self.age_ms
    }
}

impl Deref for LedgerView<'_> {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        match &self.source {
            Source::Present(guard) => guard,
            Source::Past(ledger) => ledger,
        }
    }
}
