//! Clocks that are wrong: a coordinator's wall clock and an agent's boot clock, shifted and drifting as their machines are.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use plimsoll_agent::clock::BootTime;
use plimsoll_coordinator::clock::Clock;
use tokio::time::Instant;

/// Every simulation begins at this moment, in milliseconds since the Unix epoch.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

/// A wall clock that can be wrong.
#[derive(Clone, Debug, Default)]
pub struct SimClock {
    /// Microseconds that it gains in a second.
    drift_ppm: i64,
    skew_ms: Arc<AtomicI64>,
    last_ms: Arc<AtomicU64>,
}

impl SimClock {
    /// A clock that is so far ahead (or behind, below zero) and gains (or loses) so many microseconds in a second.
    pub fn wrong(skew_ms: i64, drift_ppm: i64) -> SimClock {
        let clock = SimClock { drift_ppm, ..SimClock::default() };
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
        let skew_ms = self.skew_ms.load(Ordering::Relaxed);
        (EPOCH_MS + now_ms).saturating_add_signed(skew_ms + drifted(now_ms, self.drift_ppm))
    }
}

/// Milliseconds that a clock has gained after so many.
fn drifted(elapsed_ms: u64, drift_ppm: i64) -> i64 {
    i64::try_from(elapsed_ms).unwrap_or(i64::MAX).saturating_mul(drift_ppm) / 1_000_000
}

/// The boot clock of a machine of agents.
#[derive(Clone, Copy, Debug)]
pub struct AgentClock {
    start: Instant,
    drift_ppm: i64,
}

impl AgentClock {
    /// A clock that starts now and gains so many microseconds in a second.
    pub fn start(drift_ppm: i64) -> AgentClock {
        AgentClock { start: Instant::now(), drift_ppm }
    }
}

impl plimsoll_agent::clock::Clock for AgentClock {
    fn now(&self) -> BootTime {
        let elapsed_ms =
            u64::try_from(Instant::now().duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        BootTime(1_000 + elapsed_ms.saturating_add_signed(drifted(elapsed_ms, self.drift_ppm)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_as_wrong_as_it_was_told() {
        assert_eq!(SimClock::wrong(-200, 0).now_ms(), EPOCH_MS - 200);
        assert_eq!(drifted(10_000, 50_000), 500);
        assert_eq!(drifted(10_000, -50_000), -500);
    }
}
