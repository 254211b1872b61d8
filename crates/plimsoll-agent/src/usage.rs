//! What a workload used, for the used-versus-granted line at the end of `plimsoll run`.

use std::collections::BTreeMap;
use std::path::Path;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// What a process and its descendants used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUsage {
    /// Largest memory at one moment, in bytes.
    pub peak_rss_bytes: u64,
    /// Processor time in the program, in milliseconds.
    pub cpu_user_ms: u64,
    /// Processor time in the kernel for the program, in milliseconds.
    pub cpu_system_ms: u64,
    /// Wall-clock time from start to end, in milliseconds.
    pub elapsed_ms: u64,
}

impl ProcessUsage {
    /// Mean use of processors over the whole run, in thousandths of a core.
    pub fn mean_cpu_millis(&self) -> u64 {
        let cpu_ms = self.cpu_user_ms.saturating_add(self.cpu_system_ms);
        cpu_ms.saturating_mul(1000).checked_div(self.elapsed_ms).unwrap_or(0)
    }

    /// The larger of both per field, for joining samples with the kernel's final count.
    pub fn max(self, other: ProcessUsage) -> ProcessUsage {
        ProcessUsage {
            peak_rss_bytes: self.peak_rss_bytes.max(other.peak_rss_bytes),
            cpu_user_ms: self.cpu_user_ms.max(other.cpu_user_ms),
            cpu_system_ms: self.cpu_system_ms.max(other.cpu_system_ms),
            elapsed_ms: self.elapsed_ms.max(other.elapsed_ms),
        }
    }
}

/// Measures the children of this process from one moment to another.
///
/// The kernel counts processor time of waited-for children exactly. Its peak memory is that of the largest single
/// process, so trees are sampled too: call [`UsageMeter::sample`] every second or so while the child runs.
#[derive(Debug)]
pub struct UsageMeter {
    before: Option<Usage>,
    started: std::time::Instant,
    sampled: ProcessUsage,
}

impl UsageMeter {
    /// Begins. Call before the child is started.
    pub fn start() -> UsageMeter {
        UsageMeter {
            before: getrusage(UsageWho::RUSAGE_CHILDREN).ok(),
            started: std::time::Instant::now(),
            sampled: ProcessUsage::default(),
        }
    }

    /// Looks at the process and all its descendants now.
    pub fn sample(&mut self, pid: u32) {
        self.sampled = self.sampled.max(sample_tree(Path::new("/proc"), pid));
    }

    /// What the children used. Call after the child was waited for.
    pub fn finish(&self) -> ProcessUsage {
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut usage = ProcessUsage { elapsed_ms, ..self.sampled };
        if let (Some(before), Ok(after)) = (&self.before, getrusage(UsageWho::RUSAGE_CHILDREN)) {
            let ms = |after: i64, before: i64| u64::try_from(after - before).unwrap_or(0);
            let kernel = ProcessUsage {
                // Kibibytes on Linux.
                peak_rss_bytes: u64::try_from(after.max_rss()).unwrap_or(0).saturating_mul(1024),
                cpu_user_ms: ms(after.user_time().num_milliseconds(), before.user_time().num_milliseconds()),
                cpu_system_ms: ms(
                    after.system_time().num_milliseconds(),
                    before.system_time().num_milliseconds(),
                ),
                elapsed_ms,
            };
            // An earlier, larger child of this process would show as this one's peak, and so does this process itself: until
            // the child's program is loaded, its memory is ours. Then the samples know better.
            let own = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |own| own.max_rss());
            let is_foreign = before.max_rss() >= after.max_rss() || own >= after.max_rss();
            let foreign_peak = is_foreign && self.sampled.peak_rss_bytes > 0;
            let peak = if foreign_peak { self.sampled.peak_rss_bytes } else { kernel.peak_rss_bytes };
            usage = usage.max(ProcessUsage { peak_rss_bytes: peak, ..kernel });
        }
        usage
    }
}

/// Sums memory and processor time over a process and its descendants, from a folder such as `/proc`.
pub fn sample_tree(proc_folder: &Path, root: u32) -> ProcessUsage {
    ProcessTable::read(proc_folder).tree(root)
}

/// All processes of a machine at one moment.
pub struct ProcessTable {
    all: BTreeMap<u32, Stat>,
    children: BTreeMap<u32, Vec<u32>>,
}

impl ProcessTable {
    /// Reads a folder such as `/proc`. O(processes).
    pub fn read(proc_folder: &Path) -> ProcessTable {
        let mut table = ProcessTable { all: BTreeMap::new(), children: BTreeMap::new() };
        for entry in std::fs::read_dir(proc_folder).into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            let stat = pid.and_then(|pid| Some((pid, read_stat(&proc_folder.join(pid.to_string()))?)));
            let Some((pid, stat)) = stat else { continue };
            if stat.parent != pid {
                table.children.entry(stat.parent).or_default().push(pid);
            }
            table.all.insert(pid, stat);
        }
        table
    }

    /// When a process started, in clock ticks since boot; `None` where it is not there.
    pub fn start_ticks(&self, pid: u32) -> Option<u64> {
        self.all.get(&pid).map(|stat| stat.start_ticks)
    }

    /// Memory and processor time of a process and its living descendants; of those that ended too, once they were waited for. O(descendants).
    pub fn tree(&self, root: u32) -> ProcessUsage {
        let page_bytes = system_value(SysconfVar::PAGE_SIZE, 4096);
        let ticks_per_s = system_value(SysconfVar::CLK_TCK, 100);
        let ms = |ticks: u64| ticks.saturating_mul(1000) / ticks_per_s;
        let mut usage = ProcessUsage::default();
        let mut left = vec![root];
        while let Some(pid) = left.pop() {
            left.extend(self.children.get(&pid).into_iter().flatten());
            let Some(stat) = self.all.get(&pid) else { continue };
            usage.peak_rss_bytes =
                usage.peak_rss_bytes.saturating_add(stat.rss_pages.saturating_mul(page_bytes));
            usage.cpu_user_ms = usage.cpu_user_ms.saturating_add(ms(stat.user_ticks));
            usage.cpu_system_ms = usage.cpu_system_ms.saturating_add(ms(stat.system_ticks));
        }
        usage
    }
}

/// The start time of a process in clock ticks since boot: with the pid, it names a process beyond doubt.
pub fn start_ticks(proc_folder: &Path, pid: u32) -> Option<u64> {
    read_stat(&proc_folder.join(pid.to_string())).map(|stat| stat.start_ticks)
}

fn system_value(name: SysconfVar, fallback: u64) -> u64 {
    sysconf(name)
        .ok()
        .flatten()
        .and_then(|value| u64::try_from(value).ok())
        .filter(|v| *v > 0)
        .unwrap_or(fallback)
}

struct Stat {
    parent: u32,
    /// Of children that were waited for, too; and so is the next.
    user_ticks: u64,
    system_ticks: u64,
    start_ticks: u64,
    rss_pages: u64,
}

fn read_stat(folder: &Path) -> Option<Stat> {
    let text = std::fs::read_to_string(folder.join("stat")).ok()?;
    // The name in parentheses may hold anything, parentheses and spaces too: fields count from the last one.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        user_ticks: number(11)?.saturating_add(number(13)?),
        system_ticks: number(12)?.saturating_add(number(14)?),
        start_ticks: number(19)?,
        rss_pages: number(21)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(root: &Path, pid: u32, name: &str, parent: u32, ticks: u64, rss_pages: u64) {
        let folder = root.join(pid.to_string());
        std::fs::create_dir(&folder).unwrap();
        let stat = format!(
            "{pid} ({name}) S {parent} 1 1 0 -1 4194560 1 0 0 0 {ticks} {ticks} 0 0 20 0 1 0 {} 1000 {rss_pages} 184\n",
            pid * 10
        );
        std::fs::write(folder.join("stat"), stat).unwrap();
    }

    #[test]
    fn a_recorded_tree_is_summed_and_strangers_are_not() {
        let proc_folder = tempfile::tempdir().unwrap();
        record(proc_folder.path(), 10, "train (a) b", 1, 100, 1000);
        record(proc_folder.path(), 11, "worker", 10, 50, 500);
        record(proc_folder.path(), 12, "worker", 11, 50, 500);
        record(proc_folder.path(), 99, "stranger", 1, 900, 9000);
        let usage = sample_tree(proc_folder.path(), 10);
        let page = system_value(SysconfVar::PAGE_SIZE, 4096);
        let tick_ms = 1000 / system_value(SysconfVar::CLK_TCK, 100);
        assert_eq!(usage.peak_rss_bytes, 2000 * page);
        assert_eq!((usage.cpu_user_ms, usage.cpu_system_ms), (200 * tick_ms, 200 * tick_ms));
        assert_eq!(start_ticks(proc_folder.path(), 11), Some(110));
        assert_eq!(sample_tree(proc_folder.path(), 500), ProcessUsage::default());
    }

    #[test]
    fn a_real_child_is_measured() {
        let mut meter = UsageMeter::start();
        let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        meter.sample(child.id());
        assert!(child.wait().unwrap().success());
        let usage = meter.finish();
        assert!(usage.peak_rss_bytes > 100_000, "{usage:?}");
        assert!(usage.elapsed_ms > 0 && usage.cpu_user_ms + usage.cpu_system_ms > 0, "{usage:?}");
    }

    #[test]
    fn mean_use_of_a_run_without_length_is_zero() {
        assert_eq!(ProcessUsage::default().mean_cpu_millis(), 0);
        let usage =
            ProcessUsage { cpu_user_ms: 1500, cpu_system_ms: 500, elapsed_ms: 1000, peak_rss_bytes: 0 };
        assert_eq!(usage.mean_cpu_millis(), 2000);
    }
}
