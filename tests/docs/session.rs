//! What the shell blocks of one document run in: a folder of its own, free ports, and a `plimsoll dev` where it needs one.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Longest time for a `plimsoll dev` to be ready.
const READY: Duration = Duration::from_secs(30);

/// A folder, a binary, and the processes that were started in it.
pub(crate) struct Session {
    root: tempfile::TempDir,
    groups: Vec<Child>,
    ports: Vec<(String, String)>,
}

impl Session {
    /// Of a document, whose addresses and data folders are put out of the way of whatever else runs on this machine.
    pub(crate) fn new() -> Session {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(root.path().join("work")).expect("a folder in it");
        Session { root, groups: Vec::new(), ports: Vec::new() }
    }

    /// Where its commands run.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// Starts `plimsoll dev` with the arguments that the document gives it, and waits until it answers. What it printed.
    pub(crate) fn start_dev(&mut self, arguments: &str) -> String {
        let log = self.root.path().join("dev.log");
        let out = File::create(&log).expect("a log file");
        let mut command = self.command(Path::new("bash"));
        command.arg("-c").arg(format!("exec plimsoll dev --port 0 --http-port 0 {arguments}"));
        command.stdout(out.try_clone().expect("a second handle")).stderr(out);
        self.spawn(command);
        let deadline = Instant::now() + READY;
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains("Ctrl-C stops everything") {
                return said;
            }
            assert!(Instant::now() < deadline, "plimsoll dev is not ready:\n{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a script to its end and says how it ended.
    pub(crate) fn run(&mut self, script: &str, limit: Duration) -> std::process::ExitStatus {
        let path = self.root.path().join("script.sh");
        std::fs::write(&path, script).expect("a script file");
        let mut command = self.command(Path::new("bash"));
        let log = File::create(self.root.path().join("script.log")).expect("a log file");
        command.arg(&path).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let index = self.spawn(command);
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.groups[index].try_wait().expect("it is a child of ours") {
                return status;
            }
            assert!(Instant::now() < deadline, "ran for more than {limit:?}:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the script printed.
    pub(crate) fn output(&self) -> String {
        let bytes = std::fs::read(self.root.path().join("script.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Addresses become free ones (the same one each time), and `/var/lib/plimsoll` and `/etc/plimsoll` a folder of ours.
    pub(crate) fn localize(&mut self, text: &str) -> String {
        let mut text = text
            .replace("/var/lib/plimsoll", &self.root.path().join("var").to_string_lossy())
            .replace("/etc/plimsoll", &self.root.path().join("etc").to_string_lossy());
        for port in 7420..7440 {
            let shown = format!("127.0.0.1:{port}");
            if text.contains(&shown) {
                let free = self.address(&shown);
                text = text.replace(&shown, &free);
            }
        }
        text
    }

    fn address(&mut self, shown: &str) -> String {
        if let Some((_, free)) = self.ports.iter().find(|(known, _)| known == shown) {
            return free.clone();
        }
        let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let free = bound.expect("a free port").to_string();
        self.ports.push((shown.to_owned(), free.clone()));
        free
    }

    fn command(&self, program: &Path) -> Command {
        let binary = plimsoll_tests::plimsoll();
        let folder = binary.parent().expect("the binary lies in a folder").to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command.current_dir(self.folder()).stdin(Stdio::null()).process_group(0);
        command.env("PATH", format!("{}:{path}", folder.display()));
        command.env("PLIMSOLL_HOME", self.root.path().join("home"));
        // What `run` says shall not depend on what cgroups this machine has.
        command.env("PLIMSOLL_CGROUP", "off");
        for name in ["PLIMSOLL_ADDR", "PLIMSOLL_CONTEXT", "RUST_LOG", "PLIMSOLL_CA"] {
            command.env_remove(name);
        }
        command
    }

    fn spawn(&mut self, mut command: Command) -> usize {
        self.groups.push(command.spawn().expect("it starts"));
        self.groups.len() - 1
    }
}

impl Drop for Session {
    /// Ends the processes that were started here, by their groups.
    fn drop(&mut self) {
        for child in &mut self.groups {
            let group = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
            // A group whose processes have all ended is no longer there: nothing to do.
            let _ = killpg(group, Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}
