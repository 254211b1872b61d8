//! Limits on a workload through cgroup v2, where the host has handed this process a subtree. It often has not, and that
//! is normal: grants are then kept by agreement, and the caller says so once.

mod limits;
mod workload;

use std::io;
use std::path::{Path, PathBuf};

pub use limits::{Reach, WorkloadAmounts, WorkloadLimits};
pub use workload::{CgroupUsage, WorkloadCgroup};

/// Where version 2 is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// Controllers without which there are no limits.
const NEEDED: [&str; 2] = ["cpu", "memory"];

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
    #[error("the cgroup at {folder} is not ours to divide: {source}")]
    NotDelegated {
        /// The cgroup of this process.
        folder: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A subtree that this process may divide among workloads.
#[derive(Clone, Debug)]
pub struct CgroupTree {
    folder: PathBuf,
}

impl CgroupTree {
    /// The subtree of this process on this host.
    pub fn open() -> Result<CgroupTree, CgroupUnavailable> {
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        CgroupTree::open_at(Path::new(ROOT), &membership)
    }

    /// The subtree under the mount point `root` of a process whose `/proc/PID/cgroup` reads `membership`: its own cgroup, or the nearest one above
    /// that hands the controllers down already and in which this process may make another. A cgroup with other processes in it can be divided
    /// no further, so that a shell's commands get places beside the shell.
    pub fn open_at(root: &Path, membership: &str) -> Result<CgroupTree, CgroupUnavailable> {
        let own = membership.lines().find_map(|line| line.strip_prefix("0::/"));
        let folder = own.map(|path| root.join(path.trim_end_matches(" (deleted)")));
        let folder = folder.filter(|folder| folder.join("cgroup.controllers").is_file());
        let folder = folder.ok_or_else(|| CgroupUnavailable::NotMounted(root.to_owned()))?;
        let above = folder.ancestors().skip(1).take_while(|above| above.starts_with(root));
        let above: Vec<CgroupTree> = above.map(|above| CgroupTree { folder: above.to_owned() }).collect();
        CgroupTree::open_in(folder).or_else(|error| above.into_iter().find(CgroupTree::is_open).ok_or(error))
    }

    /// The subtree below `folder`, a cgroup that somebody made for this.
    pub fn open_in(folder: PathBuf) -> Result<CgroupTree, CgroupUnavailable> {
        if !folder.join("cgroup.controllers").is_file() {
            return Err(CgroupUnavailable::NotMounted(folder));
        }
        let tree = CgroupTree { folder };
        if let Some(missing) = tree.missing("cgroup.controllers") {
            return Err(CgroupUnavailable::NoController { folder: tree.folder, missing });
        }
        match tree.hand_down() {
            Ok(()) => Ok(tree),
            Err(source) => Err(CgroupUnavailable::NotDelegated { folder: tree.folder, source }),
        }
    }

    /// Makes a cgroup for a workload of `reservation`, which this process starts, and removes what processes that are gone left behind.
    pub fn create(&self, reservation: &str, limits: &WorkloadLimits) -> io::Result<WorkloadCgroup> {
        self.sweep(Path::new("/proc"));
        let folder = self.folder.join(format!("plimsoll-{reservation}-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let group = WorkloadCgroup::at(folder);
        let made = group.die_as_one().and_then(|()| group.set(limits));
        made.map(|()| group.clone()).inspect_err(|_| {
            tracing::debug!(removed = ?group.remove(), "gave a cgroup up that takes no limits");
        })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes the cgroups of workloads whose starter is gone. The kernel keeps those in which somebody lives.
    fn sweep(&self, proc_folder: &Path) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let starter = name.to_str().and_then(|name| name.strip_prefix("plimsoll-r-")?.rsplit_once('-'));
            if let Some((_, pid)) = starter
                && !proc_folder.join(pid).exists()
            {
                let removed = std::fs::remove_dir(entry.path());
                tracing::debug!(?name, ?removed, "found the cgroup of a process that is gone");
            }
        }
    }

    /// The first needed controller that a file does not list.
    fn missing(&self, file: &str) -> Option<&'static str> {
        let present = std::fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        NEEDED.into_iter().find(|needed| !present.split_whitespace().any(|name| name == *needed))
    }

    /// True where children have the controllers, and this process may make one and move processes into it.
    fn is_open(&self) -> bool {
        let probe = self.folder.join(format!("plimsoll-probe-{}", std::process::id()));
        let may_move =
            || std::fs::OpenOptions::new().write(true).open(self.folder.join("cgroup.procs")).is_ok();
        let may_make = || std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe)).is_ok();
        self.missing("cgroup.subtree_control").is_none() && may_move() && may_make()
    }

    /// Hands the two controllers down to children, and that of the disks where it is there. A cgroup with processes of its own cannot, so this
    /// process steps into a leaf first where that is what stands in the way.
    fn hand_down(&self) -> io::Result<()> {
        let control = self.folder.join("cgroup.subtree_control");
        if self.missing("cgroup.subtree_control").is_none() {
            return std::fs::OpenOptions::new().write(true).open(self.folder.join("cgroup.procs")).map(drop);
        }
        let enable = || std::fs::write(&control, "+cpu +memory");
        match enable() {
            Err(busy) if busy.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32) => {
                self.step_into_a_leaf(enable)?;
            }
            outcome => outcome?,
        }
        self.hand_down_io(&control);
        Ok(())
    }

    fn step_into_a_leaf(&self, enable: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
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

    fn hand_down_io(&self, control: &Path) {
        let present = std::fs::read_to_string(self.folder.join("cgroup.controllers")).unwrap_or_default();
        if present.split_whitespace().any(|name| name == "io") {
            // Appended to a plain file of a test; the kernel takes one write as one change.
            let added = std::fs::OpenOptions::new().append(true).open(control);
            let added = added.and_then(|mut file| io::Write::write_all(&mut file, b" +io"));
            tracing::debug!(?added, "handed the io controller down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: fn() -> WorkloadLimits = || {
        let granted = WorkloadAmounts { cpu_millis: 1_500, memory_bytes: 1 << 30 };
        WorkloadLimits::new(granted, Reach::Exactly, None)
    };

    fn host(controllers: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("user.slice/shell.scope");
        std::fs::create_dir_all(&own).unwrap();
        for folder in own.ancestors().take(3) {
            std::fs::write(folder.join("cgroup.controllers"), controllers).unwrap();
            std::fs::write(folder.join("cgroup.procs"), "").unwrap();
        }
        (root, own)
    }

    #[test]
    fn limits_are_written_in_the_kernels_words() {
        let (root, own) = host("cpuset cpu io memory pids\n");
        let tree =
            CgroupTree::open_at(root.path(), "1:name=systemd:/x\n0::/user.slice/shell.scope\n").unwrap();
        assert_eq!(std::fs::read_to_string(own.join("cgroup.subtree_control")).unwrap(), "+cpu +memory +io");
        let group = tree.create("r-7k2m", &LIMITS()).unwrap();
        assert_eq!(group.folder(), own.join(format!("plimsoll-r-7k2m-{}", std::process::id())));
        let read = |file: &str| std::fs::read_to_string(group.folder().join(file)).unwrap();
        assert_eq!((read("cpu.max"), read("cpu.weight")), ("150000 100000".into(), "150".into()));
        assert_eq!((read("memory.max"), read("memory.oom.group")), ("1073741824".into(), "1".into()));
        group.add(123).unwrap();
        assert_eq!(read("cgroup.procs"), "123");
        group.kill().unwrap();
        assert_eq!(read("cgroup.kill"), "1");
        assert!(!group.folder().join("io.weight").exists(), "the controller is not there");
        std::fs::write(group.folder().join("io.weight"), "").unwrap();
        let granted = WorkloadAmounts { cpu_millis: 500, memory_bytes: 1 << 20 };
        group.set(&WorkloadLimits::new(granted, Reach::Exactly, Some(300))).unwrap();
        assert_eq!((read("cpu.max"), read("memory.max")), ("50000 100000".into(), "1048576".into()));
        assert_eq!(read("io.weight"), "default 300");
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let (root, _) = host("cpuset io\n");
        let own = "0::/user.slice/shell.scope\n";
        let error = CgroupTree::open_at(root.path(), own).unwrap_err().to_string();
        assert!(error.ends_with("has no cpu controller"), "{error}");
        for membership in ["", "0::/gone\n", "4:cpu:/user.slice\n"] {
            let error = CgroupTree::open_at(root.path(), membership).unwrap_err();
            assert!(matches!(error, CgroupUnavailable::NotMounted(_)), "{membership:?}: {error}");
        }
        let (root, folder) = host("cpu memory\n");
        std::fs::create_dir(folder.join("cgroup.subtree_control")).unwrap();
        let error = CgroupTree::open_at(root.path(), own).unwrap_err();
        assert!(matches!(error, CgroupUnavailable::NotDelegated { .. }), "{error}");
        // Two above hands the controllers down: there is a place beside the shell.
        std::fs::write(root.path().join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        let tree = CgroupTree::open_at(root.path(), own).unwrap();
        assert_eq!(tree.folder(), root.path());
    }

    #[test]
    fn cgroups_of_processes_that_are_gone_are_removed() {
        let (root, own) = host("cpu memory\n");
        let tree = CgroupTree::open_at(root.path(), "0::/user.slice/shell.scope\n").unwrap();
        let proc_folder = root.path().join("proc");
        std::fs::create_dir_all(proc_folder.join("8")).unwrap();
        let left = ["plimsoll-r-7k2m-8", "plimsoll-r-7k2m-9", "plimsoll-supervisor", "other-9"];
        for name in left {
            std::fs::create_dir(own.join(name)).unwrap();
        }
        tree.sweep(&proc_folder);
        assert_eq!(left.map(|name| own.join(name).exists()), [true, false, true, true]);
    }

    /// On a host that hands nothing down this test says so and ends: then the others, against folders, are what there is.
    #[test]
    fn the_kernel_takes_the_limits_where_this_host_has_version_2() {
        let tree = match CgroupTree::open() {
            Ok(tree) => tree,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let group = tree.create("r-0000", &LIMITS()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        group.add(child.id()).unwrap();
        assert!(group.is_populated());
        let read = |file: &str| std::fs::read_to_string(group.folder().join(file)).unwrap();
        assert_eq!((read("cpu.max").trim(), read("memory.max").trim()), ("150000 100000", "1073741824"));
        let found =
            WorkloadCgroup::of_process(Path::new("/proc"), Path::new(ROOT), child.id(), "r-0000").unwrap();
        found.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "it was killed");
        assert!(group.usage().cpu_user_ms.is_some());
        for _ in 0..100 {
            if group.remove().is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("it stays: {:?}", group.remove());
    }
}
