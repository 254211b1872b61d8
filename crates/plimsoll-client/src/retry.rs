//! When to try again: full-jitter back-off, and a budget that keeps retries from becoming the load.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// How retries are spaced and bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper bound of the first wait, in milliseconds; each further one doubles it.
    pub floor_ms: u64,
    /// Largest upper bound of a wait, in milliseconds.
    pub cap_ms: u64,
    /// Retries that may be made at once after a quiet time.
    pub burst: u32,
    /// Retries that every hundred successes allow.
    pub per_hundred_successes: u32,
    /// Retries that every second allows, so that a client whose calls all fail still probes.
    pub per_second: u32,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy { floor_ms: 100, cap_ms: 30_000, burst: 1_000, per_hundred_successes: 10, per_second: 20 }
    }
}

impl RetryPolicy {
    /// Upper bound of the wait before retry number `attempt` (from 0), in milliseconds. The wait is drawn evenly from 0 to it.
    pub fn ceiling_ms(&self, attempt: u32) -> u64 {
        let doubled = self.floor_ms.checked_shl(attempt.min(63)).unwrap_or(u64::MAX);
        // A shift may lose high bits without overflow being told: past 2^32 times the floor the cap holds anyway.
        if attempt >= 32 { self.cap_ms } else { doubled.min(self.cap_ms) }
    }
}

/// Retries that may still be made. Shared by all calls of a client.
#[derive(Debug)]
pub(crate) struct Budget {
    policy: RetryPolicy,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Hundredths of a retry.
    centi: u64,
    filled_at: Instant,
}

impl Budget {
    pub(crate) fn new(policy: RetryPolicy) -> Budget {
        let state = State { centi: u64::from(policy.burst) * 100, filled_at: Instant::now() };
        Budget { policy, state: Mutex::new(state) }
    }

    /// Notes a call that went through.
    pub(crate) fn succeeded(&self) {
        self.add(u64::from(self.policy.per_hundred_successes));
    }

    /// Takes one retry, if there is one.
    pub(crate) fn take(&self) -> bool {
        let mut state =
            self.state.lock().expect("arithmetic never panics here, so the lock is never poisoned");
        let now = Instant::now();
        let elapsed_ms = u64::try_from(now.duration_since(state.filled_at).as_millis()).unwrap_or(u64::MAX);
        let gained = elapsed_ms.saturating_mul(u64::from(self.policy.per_second)) / 10;
        if gained > 0 {
            state.filled_at = now;
            state.centi = state.centi.saturating_add(gained).min(u64::from(self.policy.burst) * 100);
        }
        let enough = state.centi >= 100;
        if enough {
            state.centi -= 100;
        }
        enough
    }

    fn add(&self, centi: u64) {
        let mut state =
            self.state.lock().expect("arithmetic never panics here, so the lock is never poisoned");
        state.centi = state.centi.saturating_add(centi).min(u64::from(self.policy.burst) * 100);
    }
}

/// Milliseconds as a duration.
pub(crate) fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.ceiling_ms(0), 100);
        assert_eq!(policy.ceiling_ms(3), 800);
        assert_eq!(policy.ceiling_ms(9), 30_000);
        assert_eq!(policy.ceiling_ms(200), 30_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_spent_budget_fills_with_success_and_with_time() {
        let policy =
            RetryPolicy { burst: 2, per_hundred_successes: 50, per_second: 1, ..RetryPolicy::default() };
        let budget = Budget::new(policy);
        assert!(budget.take() && budget.take());
        assert!(!budget.take());
        budget.succeeded();
        assert!(!budget.take(), "half a retry is none");
        budget.succeeded();
        assert!(budget.take());
        tokio::time::advance(millis(1_000)).await;
        assert!(budget.take());
        assert!(!budget.take());
    }
}
