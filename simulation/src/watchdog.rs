//! Ends a run whose simulated time stands still: a task that is always ready keeps the others from running, and no limit in
//! simulated time ever comes. It looks from a thread of its own, takes no part in the run and changes nothing in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cpu::cpu_ms;

/// Processor time that may go by while simulated time stands still, in milliseconds. A step takes a few, with judging at its
/// end a second.
const MOST_CPU_MS: u64 = 10_000;
/// Between looks, in real time.
const LOOK: Duration = Duration::from_millis(250);
/// Simulated time of the latest step that ended, in milliseconds, plus one; 0 before the first and after the last.
static STEPPED_MS: AtomicU64 = AtomicU64::new(0);

/// A step of the simulation ended at this simulated time, in milliseconds.
pub fn stepped(now_ms: u64) {
    STEPPED_MS.store(now_ms + 1, Ordering::Relaxed);
}

/// The simulation is over: what is left takes as long as it takes.
pub fn over() {
    STEPPED_MS.store(0, Ordering::Relaxed);
}

/// Looks from now on; `stuck` is told where the simulation stands.
pub fn start(stuck: impl FnOnce(String) + Send + 'static) {
    std::thread::spawn(move || {
        let (mut stands_at, mut since_cpu_ms) = (0, cpu_ms());
        loop {
            std::thread::sleep(LOOK);
            let (now, spent_ms) = (STEPPED_MS.load(Ordering::Relaxed), cpu_ms());
            if now != stands_at || now == 0 {
                (stands_at, since_cpu_ms) = (now, spent_ms);
            } else if spent_ms.saturating_sub(since_cpu_ms) > MOST_CPU_MS {
                let at_ms = now.saturating_sub(1);
                return stuck(format!(
                    "it spins: simulated time stands at {at_ms} ms, and {MOST_CPU_MS} ms of CPU went by"
                ));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_does_not_end_is_told() {
        let (tell, told) = std::sync::mpsc::channel();
        start(move |stuck| drop(tell.send(stuck)));
        stepped(41);
        // A task that is always ready.
        let said = loop {
            std::hint::spin_loop();
            if let Ok(said) = told.try_recv() {
                break said;
            }
        };
        over();
        assert!(said.contains("stands at 41 ms"), "{said}");
    }
}
