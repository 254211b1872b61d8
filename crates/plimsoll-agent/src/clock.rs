//! Time as the agent measures it: milliseconds since boot, suspend included, never set back.
//!
//! Lease deadlines live on this clock and on no other. The wall clock may jump, and the monotonic clock stops while a
//! machine sleeps: a holder that slept through its lease must wake up knowing that the lease is over.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::time::{ClockId, clock_gettime};

/// A moment on the boot clock of this machine, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(pub u64);

impl BootTime {
    /// The moment `duration_ms` later; the far end of time where that does not fit.
    pub fn plus_ms(self, duration_ms: u64) -> BootTime {
        BootTime(self.0.saturating_add(duration_ms))
    }

    /// Milliseconds from `earlier` to `self`, zero where `self` is not later.
    pub fn ms_since(self, earlier: BootTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for BootTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms since boot", self.0)
    }
}

/// Where the agent reads time. One implementation for machines, one for tests and simulated time.
pub trait Clock: Send + Sync + 'static {
    /// The present moment. Never earlier than any moment returned before.
    fn now(&self) -> BootTime;
}

/// A clock that is shared by the parts of an agent.
pub type SharedClock = Arc<dyn Clock>;

/// `CLOCK_BOOTTIME` of the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl BootClock {
    /// The clock, ready to be shared.
    pub fn shared() -> SharedClock {
        Arc::new(BootClock)
    }
}

impl Clock for BootClock {
    fn now(&self) -> BootTime {
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had this clock since 2.6.39");
        let seconds = u64::try_from(time.tv_sec()).expect("the boot clock starts at zero");
        let nanos = u64::try_from(time.tv_nsec()).expect("nanoseconds are 0 to 999,999,999");
        BootTime(seconds * 1000 + nanos / 1_000_000)
    }
}

/// The clock of tokio's runtime, so that an agent inside a simulation sees simulated time.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    start: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that reads one second now. Must be called inside a runtime whose time it is to follow.
    pub fn start() -> TokioClock {
        TokioClock { start: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> BootTime {
        let elapsed = tokio::time::Instant::now().duration_since(self.start);
        BootTime(1000 + u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX - 1000))
    }
}

/// A clock that moves only when told to.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now_ms: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that stands at `now_ms`.
    pub fn at_ms(now_ms: u64) -> ManualClock {
        ManualClock { now_ms: Arc::new(AtomicU64::new(now_ms)) }
    }

    /// Moves the clock forward.
    pub fn advance_ms(&self, by_ms: u64) {
        self.now_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> BootTime {
        BootTime(self.now_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_runs_and_never_goes_back() {
        let first = BootClock.now();
        std::thread::sleep(std::time::Duration::from_millis(5));
        let second = BootClock.now();
        assert!(first.0 > 0);
        assert!(second.ms_since(first) >= 4, "{first} to {second}");
    }

    #[test]
    fn a_manual_clock_moves_only_when_told_to() {
        let clock = ManualClock::at_ms(10);
        let same = clock.clone();
        assert_eq!(clock.now(), BootTime(10));
        same.advance_ms(5);
        assert_eq!(clock.now(), BootTime(15));
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_follows_paused_time() {
        let clock = TokioClock::start();
        let before = clock.now();
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert_eq!(clock.now().ms_since(before), 60_000);
    }
}
