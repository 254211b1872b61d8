//! Ledger time: milliseconds since the Unix epoch, as stamped into the log by the proposing leader.

use std::fmt;

/// A moment of the ledger, in milliseconds since 1970-01-01T00:00:00Z.
///
/// Only the log makes these: no replica compares them with a clock of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerTime(pub u64);

impl LedgerTime {
    /// The moment `duration_ms` later; the far end of time where that does not fit.
    pub fn plus_ms(self, duration_ms: u64) -> LedgerTime {
        LedgerTime(self.0.saturating_add(duration_ms))
    }

    /// Milliseconds from `earlier` to `self`, zero where `self` is not later.
    pub fn ms_since(self, earlier: LedgerTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for LedgerTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
