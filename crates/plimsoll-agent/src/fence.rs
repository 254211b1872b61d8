//! Ending what runs under a lease that is over.
//!
//! Whoever starts a workload attaches its process to the token. When the lease ends without the holder's doing, the
//! processes are killed: at once where the lease is over, after a notice where there is still time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};
use parking_lot::Mutex;

use crate::cgroup::WorkloadCgroup;
use crate::lease::Lease;
use crate::usage::{ProcessTable, start_ticks};

/// What an agent does to the processes of a lease. Simulated nodes have none.
pub trait Fence: Send + Sync + 'static {
    /// Asks the processes of a lease to stop.
    fn ask_to_stop(&self, lease: &Lease);

    /// Ends the processes of a lease, without a chance for them to object.
    fn kill(&self, lease: &Lease);

    /// What the processes of each lease have used so far and hold now, by token. Leases without processes are left out.
    fn counted(&self) -> BTreeMap<u64, Counted> {
        BTreeMap::new()
    }
}

/// What the processes of a lease were counted for. What nobody can tell is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Processor time since they began, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Memory that they hold now, in bytes.
    pub memory_bytes: Option<u64>,
}

/// For nodes on which nothing runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProcesses;

impl Fence for NoProcesses {
    fn ask_to_stop(&self, _: &Lease) {}

    fn kill(&self, _: &Lease) {}
}

/// A process that cannot be attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// No such process.
    #[error("process {0} does not exist")]
    NoProcess(u32),
    /// The first process of a system, or this one.
    #[error("process {0} may not be attached")]
    Forbidden(u32),
    /// Too many for one lease.
    #[error("a lease holds at most {MAX_PER_LEASE} processes")]
    TooMany,
}

/// Most processes that one lease may have attached: a job names its first process per node, and that leads the rest.
const MAX_PER_LEASE: usize = 256;

/// The processes attached to leases of this machine.
#[derive(Clone, Debug)]
pub struct Processes {
    attached: Arc<Mutex<BTreeMap<u64, Vec<Attached>>>>,
    cgroups: Arc<Mutex<BTreeMap<u64, WorkloadCgroup>>>,
    proc_folder: PathBuf,
}

/// A process with the moment of its start, so that a reused process id is never mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attached {
    pid: u32,
    start_ticks: u64,
    leads_group: bool,
}

impl Default for Processes {
    fn default() -> Processes {
        Processes { attached: Arc::default(), cgroups: Arc::default(), proc_folder: PathBuf::from("/proc") }
    }
}

impl Processes {
    /// Ties a process to a lease. Where it leads its process group, the whole group counts.
    pub fn attach(&self, token: u64, pid: u32) -> Result<(), AttachError> {
        if pid <= 1 || pid == std::process::id() {
            return Err(AttachError::Forbidden(pid));
        }
        let start_ticks = start_ticks(&self.proc_folder, pid).ok_or(AttachError::NoProcess(pid))?;
        let mut attached = self.attached.lock();
        let of_lease = attached.entry(token).or_default();
        if of_lease.len() >= MAX_PER_LEASE {
            return Err(AttachError::TooMany);
        }
        let process = Attached { pid, start_ticks, leads_group: leads_own_group(pid) };
        if !of_lease.contains(&process) {
            of_lease.push(process);
        }
        Ok(())
    }

    /// Process ids attached to a lease.
    pub fn of(&self, token: u64) -> Vec<u32> {
        self.attached.lock().get(&token).map(|list| list.iter().map(|p| p.pid).collect()).unwrap_or_default()
    }

    /// Ties a cgroup to a lease: whatever is in it dies with the lease, however it got there.
    pub fn attach_cgroup(&self, token: u64, cgroup: WorkloadCgroup) {
        self.cgroups.lock().insert(token, cgroup);
    }

    /// Signals what is still there of a list, and says how many that were.
    fn signal_all(&self, list: &[Attached], signal: Signal) -> usize {
        let mut reached = 0;
        for process in list {
            let was_there = match start_ticks(&self.proc_folder, process.pid) {
                Some(start_ticks) if start_ticks == process.start_ticks => {
                    send(process.pid, signal, process.leads_group)
                }
                // The leader is gone, and while members of its group live nobody else can get its number.
                None if process.leads_group => send(process.pid, signal, true),
                _ => false,
            };
            reached += usize::from(was_there);
        }
        reached
    }
}

impl Fence for Processes {
    /// By the cgroup of a lease where it has one; else of the trees of its processes. O(processes of the machine) for the latter.
    fn counted(&self) -> BTreeMap<u64, Counted> {
        let cgroups = self.cgroups.lock().clone();
        let mut found: BTreeMap<u64, Counted> =
            cgroups.iter().map(|(token, cgroup)| (*token, cgroup.counted())).collect();
        let attached = self.attached.lock().clone();
        let bare: Vec<_> = attached.iter().filter(|(token, _)| !cgroups.contains_key(token)).collect();
        if bare.is_empty() {
            return found;
        }
        let table = ProcessTable::read(&self.proc_folder);
        for (token, processes) in bare {
            let mut sum = Counted::default();
            // Whoever has a number anew is a stranger.
            let mine = processes.iter().filter(|one| table.start_ticks(one.pid) == Some(one.start_ticks));
            for usage in mine.map(|one| table.tree(one.pid)) {
                let cpu_ms = usage.cpu_user_ms.saturating_add(usage.cpu_system_ms);
                sum.cpu_ms = Some(sum.cpu_ms.unwrap_or(0).saturating_add(cpu_ms));
                sum.memory_bytes = Some(sum.memory_bytes.unwrap_or(0).saturating_add(usage.peak_rss_bytes));
            }
            if sum != Counted::default() {
                found.insert(*token, sum);
            }
        }
        found
    }

    fn ask_to_stop(&self, lease: &Lease) {
        let list = self.attached.lock().get(&lease.token).cloned().unwrap_or_default();
        self.signal_all(&list, Signal::SIGTERM);
    }

    fn kill(&self, lease: &Lease) {
        let list = self.attached.lock().remove(&lease.token).unwrap_or_default();
        // A holder that ended in order left nothing behind: then there is nothing to tell.
        let killed = self.signal_all(&list, Signal::SIGKILL);
        if killed > 0 {
            tracing::warn!(
                reservation = %lease.reservation,
                token = lease.token,
                processes = killed,
                "killed the processes of a lease that is over"
            );
        }
        let cgroup = self.cgroups.lock().remove(&lease.token);
        if let Some(cgroup) = cgroup
            && let Err(error) = cgroup.kill()
        {
            tracing::error!(folder = %cgroup.folder().display(), %error, "a cgroup could not be killed");
        }
    }
}

/// True where the process leads a group that this process is not part of.
fn leads_own_group(pid: u32) -> bool {
    let target = i32::try_from(pid).map(Pid::from_raw);
    target.is_ok_and(|target| getpgid(Some(target)) == Ok(target) && getpgid(None) != Ok(target))
}

/// True where something was there to take the signal.
fn send(pid: u32, signal: Signal, to_group: bool) -> bool {
    let Ok(raw) = i32::try_from(pid) else { return false };
    let target = Pid::from_raw(raw);
    let sent = if to_group { killpg(target, signal) } else { kill(target, signal) };
    match sent {
        Ok(()) => true,
        Err(Errno::ESRCH) => false,
        Err(error) => {
            tracing::error!(pid, %signal, %error, "a process of a lease that is over could not be signalled");
            false
        }
    }
}

/// True where the caller with user id `uid` may attach the process: it owns it, or is the superuser.
pub fn may_attach(proc_folder: &Path, uid: u32, pid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(proc_folder.join(pid.to_string())).map(|meta| meta.uid());
    uid == 0 || owner.is_ok_and(|owner| owner == uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};

    fn lease(token: u64) -> Lease {
        Lease { reservation: "r-0001".into(), token, cpu_millis: 0, memory_bytes: 0, devices: Vec::new() }
    }

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").process_group(0).spawn().unwrap()
    }

    #[test]
    fn the_end_of_a_lease_kills_its_processes_and_no_others() {
        let processes = Processes::default();
        let (mut mine, mut other) = (sleeper(), sleeper());
        processes.attach(1, mine.id()).unwrap();
        processes.attach(1, mine.id()).unwrap();
        processes.attach(2, other.id()).unwrap();
        assert_eq!(processes.of(1), [mine.id()]);
        processes.kill(&lease(1));
        assert_eq!(mine.wait().unwrap().signal(), Some(9));
        assert_eq!(other.try_wait().unwrap(), None, "the other lease lives on");
        processes.ask_to_stop(&lease(2));
        assert_eq!(other.wait().unwrap().signal(), Some(15));
        assert_eq!(processes.of(1), Vec::<u32>::new());
    }

    #[test]
    fn a_group_whose_leader_has_left_dies_with_the_lease() {
        use std::io::Read;
        let processes = Processes::default();
        let mut leader = Command::new("sh")
            .args(["-c", "sleep 600 & read wait"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        processes.attach(1, leader.id()).unwrap();
        let mut output = leader.stdout.take().unwrap();
        drop(leader.stdin.take());
        leader.wait().unwrap();
        processes.kill(&lease(1));
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "the sleeper held the pipe, and is gone");
    }

    #[test]
    fn what_has_ended_by_itself_is_nothing_to_kill() {
        let processes = Processes::default();
        let mut gone = sleeper();
        processes.attach(1, gone.id()).unwrap();
        let list = processes.attached.lock()[&1].clone();
        gone.kill().unwrap();
        gone.wait().unwrap();
        assert_eq!(processes.signal_all(&list, Signal::SIGKILL), 0, "no word of it in the log");
        let mut alive = sleeper();
        processes.attach(2, alive.id()).unwrap();
        let list = processes.attached.lock()[&2].clone();
        assert_eq!(processes.signal_all(&list, Signal::SIGKILL), 1);
        alive.wait().unwrap();
    }

    #[test]
    fn a_process_id_that_was_used_again_is_left_alone() {
        let processes = Processes::default();
        let mut child = sleeper();
        processes.attach(1, child.id()).unwrap();
        processes.attached.lock().get_mut(&1).unwrap()[0].start_ticks -= 1;
        processes.kill(&lease(1));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_must_not_be_attached_is_refused() {
        let processes = Processes::default();
        assert_eq!(processes.attach(1, 1), Err(AttachError::Forbidden(1)));
        assert_eq!(processes.attach(1, std::process::id()), Err(AttachError::Forbidden(std::process::id())));
        assert_eq!(processes.attach(1, u32::MAX), Err(AttachError::NoProcess(u32::MAX)));
        let own = std::process::id();
        assert!(may_attach(Path::new("/proc"), 0, own));
        assert!(!may_attach(Path::new("/proc"), 54_321, own));
    }
}
