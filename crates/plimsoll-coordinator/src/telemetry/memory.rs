//! How much memory this process uses, and whether that is too much: then new requests are turned away before the system
//! ends the process, and everything with it.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Pause between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Parts of the budget, in percent: from the first on it is short, below the second no longer.
const SHORT_FROM: u64 = 80;
const ENOUGH_BELOW: u64 = 75;

/// Memory of this process.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// In bytes; 0 where there is no bound.
    budget: AtomicU64,
    used: AtomicU64,
    is_short: AtomicBool,
    /// Requests turned away for it.
    shed: AtomicU64,
}

impl Memory {
    /// Sets the budget, in bytes; 0 for none.
    pub(crate) fn set_budget(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
        self.note(self.used());
    }

    /// The budget, in bytes; 0 for none.
    pub(crate) fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    /// What was used at the latest look, in bytes.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// So much of the budget is used that nothing new is taken in.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    /// A request was turned away.
    pub(crate) fn turned_away(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were.
    pub(crate) fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// Looks again and again. Ends only where this system does not say how much is used.
    pub(crate) async fn follow(&self) {
        while let Some(used) = used_bytes() {
            self.note(used);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn note(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
        let budget = self.budget();
        let percent = if self.is_short() { ENOUGH_BELOW } else { SHORT_FROM };
        let is_short = budget > 0 && used >= budget / 100 * percent;
        if self.is_short.swap(is_short, Ordering::Relaxed) != is_short {
            if is_short {
                tracing::warn!(used, budget, "memory is short: new requests are turned away");
            } else {
                tracing::info!(used, budget, "memory is enough again");
            }
        }
    }
}

/// What a process may use here: the memory of the machine, or what its control group has of it.
pub(crate) fn available_bytes() -> Option<u64> {
    let machine = field(Path::new("/proc/meminfo"), "MemTotal:")?;
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group = limits.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    Some(group.fold(machine, u64::min))
}

/// Bytes of this process that no file backs: what the system cannot take back.
fn used_bytes() -> Option<u64> {
    field(Path::new("/proc/self/status"), "RssAnon:")
}

/// A line such as `MemTotal:  16323 kB`, in bytes.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_short_at_four_fifths_and_enough_again_somewhat_below() {
        let memory = Memory::default();
        memory.note(u64::MAX);
        assert!(!memory.is_short(), "no budget");
        memory.note(0);
        memory.set_budget(1_000);
        for (used, short) in [(799, false), (800, true), (760, true), (749, false), (799, false), (900, true)]
        {
            memory.note(used);
            assert_eq!(memory.is_short(), short, "{used} of 1000");
        }
        memory.set_budget(10_000);
        assert!(!memory.is_short());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_system_says_how_much_is_used_and_there() {
        let (used, available) = (used_bytes().expect("linux"), available_bytes().expect("linux"));
        assert!(used > 100_000 && used < available, "{used} of {available}");
    }
}
