//! Where the leader's time comes from. Nothing else in the coordinator reads a clock of the machine.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Milliseconds since the Unix epoch, as the leader stamps them into the log.
pub trait Clock: Send + Sync + 'static {
    /// Now. May go back: the ledger clamps what it is given.
    fn now_ms(&self) -> u64;
}

/// The machine's wall clock, held to the monotonic clock: it never goes back, and a jump forward is taken over only as
/// far as [`MAX_STEP_MS`] per reading, so that a wrongly set clock does not end every lease at once.
pub struct SystemClock {
    state: Mutex<Reading>,
}

/// Most milliseconds by which one reading may run ahead of the monotonic clock.
pub const MAX_STEP_MS: u64 = 500;

struct Reading {
    at: Instant,
    wall_ms: u64,
}

impl SystemClock {
    /// Starts at the machine's present time.
    pub fn new() -> SystemClock {
        SystemClock { state: Mutex::new(Reading { at: Instant::now(), wall_ms: wall_ms() }) }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let mut state = self.state.lock();
        let elapsed = u64::try_from(state.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = step(state.wall_ms, elapsed, wall_ms());
        if elapsed > 0 {
            *state = Reading { at: Instant::now(), wall_ms: now };
        }
        now
    }
}

/// The next reading, `elapsed_ms` after one of `last_ms`, where the wall clock says `wall_ms`.
fn step(last_ms: u64, elapsed_ms: u64, wall_ms: u64) -> u64 {
    let most =
        last_ms.saturating_add(elapsed_ms).saturating_add(if elapsed_ms > 0 { MAX_STEP_MS } else { 0 });
    wall_ms.clamp(last_ms, most)
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_stands_still() {
        assert_eq!(step(10_000, 50, 4_000), 10_000);
    }

    #[test]
    fn a_jump_forward_is_taken_over_slowly() {
        assert_eq!(step(10_000, 50, 3_610_000), 10_550);
        assert_eq!(step(10_000, 0, 3_610_000), 10_000);
    }

    #[test]
    fn an_honest_clock_is_followed() {
        assert_eq!(step(10_000, 50, 10_050), 10_050);
    }
}
