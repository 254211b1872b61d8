//! A coordinator's wall clock: simulated time, shifted by as much as its machine is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use plimsoll_coordinator::clock::Clock;

/// Every simulation begins at this moment, in milliseconds since the Unix epoch.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

/// A wall clock that can be wrong.
#[derive(Clone, Debug, Default)]
pub struct SimClock {
    skew_ms: Arc<AtomicI64>,
    last_ms: Arc<AtomicU64>,
}

impl SimClock {
    /// A clock that is so far ahead (or behind, below zero).
    pub fn skewed(skew_ms: i64) -> SimClock {
        let clock = SimClock::default();
        clock.step(skew_ms);
        clock
    }

    /// Sets it forward or back.
    pub fn step(&self, by_ms: i64) {
        self.skew_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        // Outside a host (a destructor after a crash) time stands still.
        let now_ms = match turmoil::sim_elapsed() {
            Some(elapsed) => u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            None => self.last_ms.load(Ordering::Relaxed),
        };
        self.last_ms.store(now_ms, Ordering::Relaxed);
        (EPOCH_MS + now_ms).saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))
    }
}
