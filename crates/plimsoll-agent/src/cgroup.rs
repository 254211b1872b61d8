//! Limits on a workload through cgroup v2, where the host has handed this process a subtree. It often has not, and that
//! is normal: grants are then kept by agreement, and the caller says so once.

use std::io;
use std::path::{Path, PathBuf};

/// Scheduling period of the processor limit, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// Smallest processor share that the kernel takes, in microseconds per period.
const MIN_CPU_QUOTA_US: u64 = 1_000;

/// Why there are no limits on this host.
#[derive(Debug, thiserror::Error)]
pub enum CgroupUnavailable {
    /// Version 2 is not mounted, or this process is not in it.
    #[error("cgroup v2 is not mounted at {0}")]
    NotMounted(PathBuf),
    /// The controllers are not there to be handed out.
    #[error("the cgroup at {folder} has no {missing} controller")]
    NoController {
        /// The cgroup of this process.
        folder: PathBuf,
        /// The controller that is missing.
        missing: &'static str,
    },
    /// The subtree belongs to somebody else.
    #[error("the cgroup at {folder} is not ours to divide")]
    NotDelegated {
        /// The cgroup of this process.
        folder: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A subtree that this process may divide among workloads.
#[derive(Clone, Debug)]
pub struct CgroupTree {
    folder: PathBuf,
}

/// The cgroup of one workload. Kept until [`WorkloadCgroup::remove`]; dropping the value leaves it in place.
#[derive(Clone, Debug)]
pub struct WorkloadCgroup {
    folder: PathBuf,
}

impl CgroupTree {
    /// The subtree of this process on this host.
    pub fn open() -> Result<CgroupTree, CgroupUnavailable> {
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        CgroupTree::open_at(Path::new("/sys/fs/cgroup"), &membership)
    }

    /// The subtree under the mount point `root` of a process whose `/proc/PID/cgroup` reads `membership`.
    pub fn open_at(root: &Path, membership: &str) -> Result<CgroupTree, CgroupUnavailable> {
        let own = membership.lines().find_map(|line| line.strip_prefix("0::/"));
        let folder = own.map(|path| root.join(path.trim_end_matches(" (deleted)")));
        let folder = folder.filter(|folder| folder.join("cgroup.controllers").is_file());
        let folder = folder.ok_or_else(|| CgroupUnavailable::NotMounted(root.to_owned()))?;
        let present = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        for missing in ["cpu", "memory"] {
            if !present.split_whitespace().any(|name| name == missing) {
                return Err(CgroupUnavailable::NoController { folder, missing });
            }
        }
        let tree = CgroupTree { folder };
        match tree.hand_down() {
            Ok(()) => Ok(tree),
            Err(source) => Err(CgroupUnavailable::NotDelegated { folder: tree.folder, source }),
        }
    }

    /// Makes a cgroup with these limits; zero means no limit of that kind. An old one of the same name is reused.
    pub fn create(&self, name: &str, cpu_millis: u64, memory_bytes: u64) -> io::Result<WorkloadCgroup> {
        let folder = self.folder.join(format!("plimsoll-{name}"));
        if let Err(error) = std::fs::create_dir(&folder)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        if cpu_millis > 0 {
            std::fs::write(folder.join("cpu.max"), cpu_max(cpu_millis))?;
        }
        if memory_bytes > 0 {
            std::fs::write(folder.join("memory.max"), memory_bytes.to_string())?;
        }
        Ok(WorkloadCgroup { folder })
    }

    /// Hands the two controllers down to children. A cgroup with processes of its own cannot, so this process steps
    /// into a leaf first where that is what stands in the way.
    fn hand_down(&self) -> io::Result<()> {
        let control = self.folder.join("cgroup.subtree_control");
        let enable = || std::fs::write(&control, "+cpu +memory");
        let Err(busy) = enable() else { return Ok(()) };
        if busy.raw_os_error() != Some(nix::errno::Errno::EBUSY as i32) {
            return Err(busy);
        }
        let leaf = self.folder.join("plimsoll-supervisor");
        let own_pid = std::process::id().to_string();
        std::fs::create_dir_all(&leaf)?;
        std::fs::write(leaf.join("cgroup.procs"), &own_pid)?;
        enable().inspect_err(|_| {
            // Others are in there with us. Step back; the first error is the one to report.
            let back = std::fs::write(self.folder.join("cgroup.procs"), &own_pid);
            tracing::debug!(?back, removed = ?std::fs::remove_dir(&leaf), "left the leaf cgroup again");
        })
    }
}

impl WorkloadCgroup {
    /// Moves a process in; its later children follow. Do this directly after the start.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        std::fs::write(self.folder.join("cgroup.procs"), pid.to_string())
    }

    /// Kills every process in it, at once.
    pub fn kill(&self) -> io::Result<()> {
        std::fs::write(self.folder.join("cgroup.kill"), "1")
    }

    /// Largest memory use so far, in bytes; absent on older kernels.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        std::fs::read_to_string(self.folder.join("memory.peak")).ok()?.trim().parse().ok()
    }

    /// Number of times that the kernel killed a process in it for want of memory.
    pub fn oom_kills(&self) -> Option<u64> {
        let events = std::fs::read_to_string(self.folder.join("memory.events")).ok()?;
        events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }

    /// Removes it. Fails while processes are in it.
    pub fn remove(&self) -> io::Result<()> {
        std::fs::remove_dir(&self.folder)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The text of `cpu.max` for a number of thousandths of a core.
fn cpu_max(cpu_millis: u64) -> String {
    let quota_us = cpu_millis.saturating_mul(CPU_PERIOD_US / 1000).max(MIN_CPU_QUOTA_US);
    format!("{quota_us} {CPU_PERIOD_US}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(controllers: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("user.slice");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("cgroup.controllers"), controllers).unwrap();
        (root, own)
    }

    #[test]
    fn limits_are_written_in_the_kernels_words() {
        let (root, own) = host("cpuset cpu io memory pids\n");
        let tree = CgroupTree::open_at(root.path(), "1:name=systemd:/x\n0::/user.slice\n").unwrap();
        assert_eq!(std::fs::read_to_string(own.join("cgroup.subtree_control")).unwrap(), "+cpu +memory");
        let group = tree.create("r-7k2m", 1500, 1 << 30).unwrap();
        let read = |file: &str| std::fs::read_to_string(group.folder().join(file)).unwrap();
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("memory.max"), "1073741824");
        group.add(123).unwrap();
        assert_eq!(read("cgroup.procs"), "123");
        group.kill().unwrap();
        assert_eq!(read("cgroup.kill"), "1");
        assert_eq!((group.peak_memory_bytes(), group.oom_kills()), (None, None), "absent, not zero");
        std::fs::write(group.folder().join("memory.events"), "low 0\noom 3\noom_kill 2\n").unwrap();
        assert_eq!(group.oom_kills(), Some(2));
        let unlimited = tree.create("r-0000", 0, 0).unwrap();
        assert!(!unlimited.folder().join("cpu.max").exists());
        unlimited.remove().unwrap();
        assert_eq!(cpu_max(1), "1000 100000", "never below what the kernel takes");
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let (root, _) = host("cpuset io\n");
        let error = CgroupTree::open_at(root.path(), "0::/user.slice\n").unwrap_err().to_string();
        assert!(error.ends_with("has no cpu controller"), "{error}");
        for membership in ["", "0::/gone\n", "4:cpu:/user.slice\n"] {
            let error = CgroupTree::open_at(root.path(), membership).unwrap_err();
            assert!(matches!(error, CgroupUnavailable::NotMounted(_)), "{membership:?}: {error}");
        }
        let (root, own) = host("cpu memory\n");
        std::fs::create_dir(own.join("cgroup.subtree_control")).unwrap();
        let error = CgroupTree::open_at(root.path(), "0::/user.slice\n").unwrap_err();
        assert!(matches!(error, CgroupUnavailable::NotDelegated { .. }), "{error}");
    }
}
