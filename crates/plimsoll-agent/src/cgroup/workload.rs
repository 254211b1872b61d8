//! The cgroup of one workload: its limits, who is in it, what it used, and its end.

use std::io;
use std::path::{Path, PathBuf};

use super::limits::WorkloadLimits;
use crate::fence::Counted;

/// The cgroup of one workload. Kept until [`WorkloadCgroup::remove`]; dropping the value leaves it in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadCgroup {
    folder: PathBuf,
}

/// What the kernel counted of a cgroup. What it does not tell is absent, never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupUsage {
    /// Largest memory at one moment, in bytes; older kernels do not say.
    pub peak_memory_bytes: Option<u64>,
    /// Processor time in programs, in milliseconds.
    pub cpu_user_ms: Option<u64>,
    /// Processor time in the kernel, in milliseconds.
    pub cpu_system_ms: Option<u64>,
    /// How often the kernel killed a process in it for want of memory.
    pub oom_kills: Option<u64>,
}

impl WorkloadCgroup {
    /// A cgroup that is there already.
    pub fn at(folder: PathBuf) -> WorkloadCgroup {
        WorkloadCgroup { folder }
    }

    /// The cgroup that a process is in, where that was made for a workload of `reservation`: what the kernel says of the process, read from a
    /// folder such as `/proc`, and never what somebody claims.
    pub fn of_process(
        proc_folder: &Path,
        root: &Path,
        pid: u32,
        reservation: &str,
    ) -> Option<WorkloadCgroup> {
        let membership = std::fs::read_to_string(proc_folder.join(pid.to_string()).join("cgroup")).ok()?;
        let path = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let folder = root.join(path);
        let name = folder.file_name()?.to_str()?;
        let is_its_own = name.strip_prefix("plimsoll-")?.strip_prefix(reservation)?.starts_with('-');
        (is_its_own && folder.join("cgroup.kill").is_file()).then_some(WorkloadCgroup { folder })
    }

    /// Sets the limits, also of a workload that runs: the kernel takes them over at once.
    pub fn set(&self, limits: &WorkloadLimits) -> io::Result<()> {
        for (file, text) in limits.files() {
            self.write(file, &text)?;
        }
        match limits.io_weight {
            // The controller is not everywhere handed down, and only a weight: without it nobody exceeds anything.
            Some(weight) if self.folder.join("io.weight").is_file() => {
                self.write("io.weight", &format!("default {weight}"))
            }
            _ => Ok(()),
        }
    }

    /// When the kernel kills for want of memory, it kills all of it: half a workload is none.
    pub(super) fn die_as_one(&self) -> io::Result<()> {
        self.write("memory.oom.group", "1")
    }

    /// Moves a process in; its later children follow.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Kills every process in it, at once. One that is gone has none.
    pub fn kill(&self) -> io::Result<()> {
        if !self.folder.is_dir() {
            return Ok(());
        }
        self.write("cgroup.kill", "1")
    }

    /// What the kernel counted so far.
    pub fn usage(&self) -> CgroupUsage {
        let ms = |us: u64| us / 1_000;
        CgroupUsage {
            peak_memory_bytes: self.read("memory.peak").and_then(|text| text.trim().parse().ok()),
            cpu_user_ms: self.keyed("cpu.stat", "user_usec").map(ms),
            cpu_system_ms: self.keyed("cpu.stat", "system_usec").map(ms),
            oom_kills: self.keyed("memory.events", "oom_kill"),
        }
    }

    /// What it has used so far, and holds now: memory without what the kernel may drop at any moment, as Kubernetes counts a working set.
    pub fn counted(&self) -> Counted {
        let number = |file: &str| self.read(file)?.trim().parse::<u64>().ok();
        let idle = self.keyed("memory.stat", "inactive_file").unwrap_or(0);
        Counted {
            cpu_ms: self.keyed("cpu.stat", "usage_usec").map(|us| us / 1_000),
            memory_bytes: number("memory.current").map(|bytes| bytes.saturating_sub(idle)),
        }
    }

    /// True while a process is in it; unknown counts as none.
    pub fn is_populated(&self) -> bool {
        self.keyed("cgroup.events", "populated") == Some(1)
    }

    /// Removes it. Fails while processes are in it.
    pub fn remove(&self) -> io::Result<()> {
        std::fs::remove_dir(&self.folder)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let path = self.folder.join(file);
        std::fs::write(&path, text)
            .map_err(|error| io::Error::new(error.kind(), format!("{} = {text}: {error}", path.display())))
    }

    fn read(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.join(file)).ok()
    }

    /// The number behind a key of a file with a key and a number on each line.
    fn keyed(&self, file: &str, key: &str) -> Option<u64> {
        let text = self.read(file)?;
        let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
        text.lines().find_map(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_counted_is_read_and_what_it_does_not_say_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let group = WorkloadCgroup::at(folder.path().to_owned());
        assert_eq!(group.usage(), CgroupUsage::default(), "absent, not zero");
        let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
        write("memory.peak", "1048576\n");
        write("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 1\n");
        write("cpu.stat", "usage_usec 30\nuser_usec 2500999\nsystem_usec 100000\n");
        write("cgroup.events", "populated 1\nfrozen 0\n");
        let usage = CgroupUsage {
            peak_memory_bytes: Some(1 << 20),
            cpu_user_ms: Some(2_500),
            cpu_system_ms: Some(100),
            oom_kills: Some(2),
        };
        assert_eq!(group.usage(), usage);
        assert!(group.is_populated());
    }

    #[test]
    fn the_cgroup_of_a_process_counts_only_where_it_was_made_for_the_reservation() {
        let root = tempfile::tempdir().unwrap();
        let process = root.path().join("7");
        let group = root.path().join("user.slice/plimsoll-r-0007-99");
        for folder in [&process, &group] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(group.join("cgroup.kill"), "").unwrap();
        let of = |membership: &str, reservation: &str| {
            std::fs::write(process.join("cgroup"), membership).unwrap();
            WorkloadCgroup::of_process(root.path(), root.path(), 7, reservation)
        };
        let own = "1:name=systemd:/x\n0::/user.slice/plimsoll-r-0007-99\n";
        assert_eq!(of(own, "r-0007"), Some(WorkloadCgroup::at(group)));
        assert_eq!(of(own, "r-0008"), None);
        assert_eq!(of(own, "r-000"), None, "the beginning of an id is not it");
        assert_eq!(of("0::/user.slice\n", "r-0007"), None);
        assert_eq!(of("4:memory:/plimsoll-r-0007-99\n", "r-0007"), None, "version 1");
        let gone = WorkloadCgroup::at(root.path().join("gone"));
        assert!(gone.kill().is_ok(), "nobody is in it");
    }
}
