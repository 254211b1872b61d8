//! Limits of the cgroup that this process runs in: inside a container, the machine is smaller than it looks.

use std::path::{Path, PathBuf};

/// Limits that hold for a process, the tightest of its cgroup and all above. Absent means none was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Compute, in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
}

/// A limit above this is how version 1 writes "none" (the largest multiple of the page size).
const V1_NO_LIMIT: u64 = 1 << 60;

impl CgroupLimits {
    /// The limits of this process.
    pub fn of_self() -> CgroupLimits {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        CgroupLimits::read(Path::new("/sys/fs/cgroup"), &own)
    }

    /// The limits found under `root` for a process whose `/proc/PID/cgroup` reads `membership`. Both versions count,
    /// since hybrid machines mount both.
    pub fn read(root: &Path, membership: &str) -> CgroupLimits {
        let mut limits = CgroupLimits::default();
        for line in membership.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            if controllers.is_empty() {
                for base in [root.to_owned(), root.join("unified")] {
                    limits.tighten_along(&base, path, read_v2);
                }
            }
            for controller in controllers.split(',').filter(|name| matches!(*name, "cpu" | "memory")) {
                for base in [root.join(controller), root.join(controllers)] {
                    limits.tighten_along(&base, path, read_v1);
                }
            }
        }
        limits
    }

    /// Takes the limits of the folder at `path` and of each above it, up to `base`.
    fn tighten_along(&mut self, base: &Path, path: &str, read: fn(&Path) -> CgroupLimits) {
        let mut folder: PathBuf = base.join(path.trim_start_matches('/'));
        while folder.starts_with(base) {
            let found = read(&folder);
            self.cpu_millis = tighter(self.cpu_millis, found.cpu_millis);
            self.memory_bytes = tighter(self.memory_bytes, found.memory_bytes);
            if !folder.pop() {
                return;
            }
        }
    }
}

fn tighter(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn read_v2(folder: &Path) -> CgroupLimits {
    let cpu = std::fs::read_to_string(folder.join("cpu.max")).ok();
    let quota = cpu.as_deref().and_then(|text| text.trim().split_once(' '));
    CgroupLimits {
        cpu_millis: quota.and_then(|(quota, period)| millis(quota.parse().ok()?, period.parse().ok()?)),
        memory_bytes: number(folder, "memory.max"),
    }
}

fn read_v1(folder: &Path) -> CgroupLimits {
    let quota = number(folder, "cpu.cfs_quota_us").zip(number(folder, "cpu.cfs_period_us"));
    CgroupLimits {
        cpu_millis: quota.and_then(|(quota, period)| millis(quota, period)),
        memory_bytes: number(folder, "memory.limit_in_bytes").filter(|limit| *limit < V1_NO_LIMIT),
    }
}

/// The number in a file; `None` for "max", "-1" and what is not there.
fn number(folder: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
}

fn millis(quota_us: u64, period_us: u64) -> Option<u64> {
    quota_us.checked_mul(1000)?.checked_div(period_us).filter(|millis| *millis > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn version_2_takes_the_tightest_limit_on_the_way_up() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "pod/cpu.max", "150000 100000\n");
        write(root.path(), "pod/memory.max", "4294967296\n");
        write(root.path(), "pod/box/cpu.max", "max 100000\n");
        write(root.path(), "pod/box/memory.max", "1073741824\n");
        let limits = CgroupLimits::read(root.path(), "0::/pod/box\n");
        assert_eq!(limits, CgroupLimits { cpu_millis: Some(1500), memory_bytes: Some(1 << 30) });
    }

    #[test]
    fn version_1_reads_each_controller_and_knows_its_word_for_none() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n");
        write(root.path(), "cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
        write(root.path(), "cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
        write(root.path(), "memory/a/memory.limit_in_bytes", "9223372036854771712\n");
        let limits = CgroupLimits::read(root.path(), "4:cpu,cpuacct:/a\n7:memory:/a\n");
        assert_eq!(limits, CgroupLimits { cpu_millis: Some(500), memory_bytes: None });
    }

    #[test]
    fn no_cgroup_is_no_limit() {
        let root = tempfile::tempdir().unwrap();
        for membership in ["", "garbage", "0::/gone\n", "0::/../../etc\n"] {
            assert_eq!(
                CgroupLimits::read(root.path(), membership),
                CgroupLimits::default(),
                "{membership:?}"
            );
        }
    }
}
