//! One coordinator process.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::access::Access;

/// One coordinator process. It may be killed and started again on the same data.
pub struct Coordinator {
    /// Its id.
    pub id: u64,
    /// Where it listens, and clients find it.
    pub address: String,
    /// Address by which other members reach it, where that is not `address`.
    advertise: Option<String>,
    dir: PathBuf,
    data: PathBuf,
    env: Vec<(String, String)>,
    prefix: Vec<String>,
    program: PathBuf,
    access: Access,
    child: Child,
}

/// How to start one.
pub(crate) struct Launch {
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) advertise: Option<String>,
    /// Folder for its log and home.
    pub(crate) dir: PathBuf,
    /// Its data directory.
    pub(crate) data: PathBuf,
    pub(crate) env: Vec<(String, String)>,
    /// A command that becomes the coordinator, such as one that first enters a network namespace; empty for none.
    pub(crate) prefix: Vec<String>,
    /// Which build.
    pub(crate) program: PathBuf,
    pub(crate) access: Access,
    pub(crate) bootstrap: bool,
}

impl Coordinator {
    pub(crate) fn start(launch: Launch) -> Coordinator {
        std::fs::create_dir_all(&launch.dir).expect("a folder");
        let child = spawn(&launch);
        let Launch { id, address, advertise, dir, data, env, prefix, program, access, bootstrap: _ } = launch;
        Coordinator { id, address, advertise, dir, data, env, prefix, program, access, child }
    }

    /// Kills it without a word.
    pub fn kill(&mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it is a child of ours");
    }

    /// Asks it to stop and waits; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.child.wait().expect("it is a child of ours").code()
    }

    /// Sends a signal. It must be running or stopped.
    pub fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("it was running");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it ends within `patience`.
    pub fn wait_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child of ours") {
                return Some(status);
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again on the same data.
    pub fn restart(&mut self) {
        self.child = spawn(&Launch {
            id: self.id,
            address: self.address.clone(),
            advertise: self.advertise.clone(),
            dir: self.dir.clone(),
            data: self.data.clone(),
            env: self.env.clone(),
            prefix: self.prefix.clone(),
            program: self.program.clone(),
            access: self.access.clone(),
            bootstrap: false,
        });
    }

    /// Which build it is, from its next start on.
    pub fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Which build it is.
    pub fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// Empties its data directory. It must not be running.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(&self.data).expect("it had data");
    }

    /// Its data directory.
    pub fn data(&self) -> &std::path::Path {
        &self.data
    }

    /// Address by which other members reach it.
    pub fn reachable(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.address)
    }

    /// What it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log.txt")).unwrap_or_default()
    }

    /// Ends it for good, in whatever state it is.
    pub(crate) fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(launch: &Launch) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(launch.dir.join("log.txt"));
    let log = log.expect("a log file");
    let mut command = match launch.prefix.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(&launch.program);
            command
        }
        None => Command::new(&launch.program),
    };
    command.env("PLIMSOLL_HOME", launch.dir.join("home"));
    command.envs(launch.env.iter().map(|(name, value)| (name, value)));
    command.args(["coordinator", "--cluster", "e2e", "--listen", &launch.address]);
    command.args(["--node-id", &launch.id.to_string()]);
    command.arg("--data-dir").arg(&launch.data);
    if let Some(advertise) = &launch.advertise {
        command.args(["--advertise", advertise]);
    }
    command.args(launch.access.coordinator_flags());
    if launch.bootstrap {
        command.arg("--bootstrap");
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("the coordinator starts")
}
