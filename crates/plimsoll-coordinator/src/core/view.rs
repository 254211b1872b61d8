//! A read of the ledger: a lock guard with the revision it was served at.

use std::ops::Deref;

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

/// The ledger under a read lock. Derefs to [`Ledger`].
pub struct LedgerView<'a> {
    guard: RwLockReadGuard<'a, Ledger>,
    age_ms: u64,
}

impl<'a> LedgerView<'a> {
    pub(super) fn new(guard: RwLockReadGuard<'a, Ledger>, age_ms: u64) -> LedgerView<'a> {
        LedgerView { guard, age_ms }
    }

    /// Revision of the latest command it shows.
    pub fn revision(&self) -> Revision {
        self.guard.revision()
    }

    /// Ledger time of the latest command it shows.
    pub fn log_time(&self) -> LedgerTime {
        self.guard.clock()
    }

    /// Upper bound of how long ago this was the newest state, in milliseconds; 0 for linearizable reads.
    pub fn age_ms(&self) -> u64 {
        self.age_ms
    }
}

impl Deref for LedgerView<'_> {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.guard
    }
}
