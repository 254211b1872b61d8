//! Where the leader's time comes from. Nothing else in the coordinator reads a clock of the machine.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use plimsoll_mutants::mutant;

/// Milliseconds since the Unix epoch, as the leader stamps them into the log.
pub trait Clock: Send + Sync + 'static {
    /// Now. May go back: the ledger clamps what it is given.
    fn now_ms(&self) -> u64;
}

/// The machine's wall clock, held to the monotonic clock: it runs at most [`MOST_DRIFT_PERCENT`] faster or slower, so
/// that a clock that is set forward does not end every lease at once, and one that is set back does not keep them all.
/// The difference is made up for bit by bit.
pub struct SystemClock {
    state: Mutex<Reading>,
}

/// By how much this clock may run faster or slower than the monotonic one: what `semantics.md` allows the leader's clock.
pub const MOST_DRIFT_PERCENT: u64 = 5;

struct Reading {
    at: Instant,
    wall_us: u64,
}

impl SystemClock {
    /// Starts at the machine's present time.
    pub fn new() -> SystemClock {
        SystemClock { state: Mutex::new(Reading { at: Instant::now(), wall_us: wall_us() }) }
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
        let at = Instant::now();
        let elapsed = u64::try_from(at.duration_since(state.at).as_micros()).unwrap_or(u64::MAX);
        let wall_us = step(state.wall_us, elapsed, wall_us());
        *state = Reading { at, wall_us };
        wall_us / 1_000
    }
}

/// The next reading, `elapsed_us` after one of `last_us`, where the wall clock says `wall_us`.
fn step(last_us: u64, elapsed_us: u64, wall_us: u64) -> u64 {
    if mutant!("untamed-clock") {
        return wall_us;
    }
    let drift_us = elapsed_us.saturating_mul(MOST_DRIFT_PERCENT) / 100;
    let honest_us = last_us.saturating_add(elapsed_us);
    wall_us.clamp(honest_us - drift_us, honest_us.saturating_add(drift_us))
}

fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the clock shows after so many seconds of readings each millisecond, beside a wall clock off by `jump_us`.
    fn after(seconds: u64, jump_us: i64) -> u64 {
        let begin = 7_200_000_000_u64;
        let mut now = begin;
        for elapsed in (1..=seconds * 1_000).map(|ms| ms * 1_000) {
            now = step(now, 1_000, (begin + elapsed).saturating_add_signed(jump_us));
        }
        now - begin
    }

    const HOUR_US: i64 = 3_600_000_000;

    #[test]
    fn a_clock_set_back_goes_on_a_little_slower() {
        assert_eq!(after(10, -HOUR_US), 9_500_000);
    }

    #[test]
    fn a_jump_forward_is_taken_over_slowly_however_often_it_is_read() {
        assert_eq!(after(10, HOUR_US), 10_500_000);
    }

    #[test]
    fn an_honest_clock_is_followed_and_a_small_difference_made_up_for() {
        assert_eq!(after(10, 0), 10_000_000);
        assert_eq!(after(10, 200_000), 10_200_000);
    }
}
