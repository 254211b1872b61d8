//! Processor time of this process.

use nix::time::{ClockId, clock_gettime};

/// What was used so far, in milliseconds; 0 where the system does not say.
pub fn cpu_ms() -> u64 {
    let spent = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok();
    let ms = spent.map(|spent| spent.tv_sec() * 1_000 + spent.tv_nsec() / 1_000_000);
    ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0)
}
