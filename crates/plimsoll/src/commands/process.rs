//! A child process that gets the signals that this one gets.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plimsoll_agent::cgroup::WorkloadCgroup;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::error::CliError;
use crate::exit::Exit;

/// Signals that are passed on.
const FORWARDED: [(Signal, fn() -> SignalKind); 6] = [
    (Signal::SIGINT, SignalKind::interrupt),
    (Signal::SIGTERM, SignalKind::terminate),
    (Signal::SIGHUP, SignalKind::hangup),
    (Signal::SIGQUIT, SignalKind::quit),
    (Signal::SIGUSR1, SignalKind::user_defined1),
    (Signal::SIGUSR2, SignalKind::user_defined2),
];

/// Signals that come to this process, from the moment it is made.
pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Signals, CliError> {
        let mut streams = Vec::new();
        for (number, kind) in FORWARDED {
            let stream =
                signal(kind()).map_err(|error| CliError::local("cannot listen for signals", error))?;
            streams.push((number, stream));
        }
        Ok(Signals { streams })
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (number, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// The next one that asks to end.
    pub(crate) async fn next_end(&mut self) -> Signal {
        loop {
            let number = self.next().await;
            if ends(number) {
                return number;
            }
        }
    }
}

/// True for signals that ask to end.
pub(crate) fn ends(number: Signal) -> bool {
    !matches!(number, Signal::SIGUSR1 | Signal::SIGUSR2)
}

/// A running child.
pub(crate) struct Running {
    child: Child,
    pid: Option<u32>,
    /// The terminal sends its signals to the child too.
    shares_terminal: bool,
}

impl Running {
    /// Starts a command with `env` over this process's environment; in a cgroup where one is given.
    pub(crate) fn start(
        command: &[OsString],
        env: &BTreeMap<String, String>,
        group: Option<&WorkloadCgroup>,
    ) -> Result<Running, CliError> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(CliError::usage("no command is given").help("plimsoll run --cpu 2 -- COMMAND"));
        };
        let mut starting = match group {
            None => Command::new(program),
            // This program again, which steps in and then becomes the command: so nothing that the command starts is ever outside.
            Some(group) => {
                let mut entering = Command::new("/proc/self/exe");
                entering.arg("enter-cgroup").arg(group.folder()).arg("--").arg(program);
                entering
            }
        };
        let child =
            starting.args(arguments).envs(env).spawn().map_err(|error| not_started(program, error))?;
        if let (Some(group), Some(pid)) = (group, child.id()) {
            // It steps in by itself; but who asks next where it is shall find it there.
            group.add(pid).map_err(|error| {
                CliError::local("cannot move the command into its cgroup", error).with_exit(Exit::RunFailed)
            })?;
        }
        let pid = child.id();
        Ok(Running { child, pid, shares_terminal: std::io::stdin().is_terminal() })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Waits for its end. Cancel-safe.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus, CliError> {
        self.child
            .wait()
            .await
            .map_err(|error| CliError::local("cannot wait for the command", error).with_exit(Exit::RunFailed))
    }

    /// Passes a signal on, unless the terminal has sent it to the child itself.
    pub(crate) fn forward(&self, number: Signal) {
        let from_terminal = matches!(number, Signal::SIGINT | Signal::SIGQUIT) && self.shares_terminal;
        if !from_terminal {
            self.send(number);
        }
    }

    /// Sends a signal.
    pub(crate) fn send(&self, number: Signal) {
        // `id` is gone once it was waited for: its number may belong to another process by then.
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), number);
        }
    }
}

/// The error of a program that did not start.
pub(crate) fn not_started(program: &OsStr, error: std::io::Error) -> CliError {
    let exit = match error.kind() {
        std::io::ErrorKind::NotFound => Exit::CommandNotFound,
        std::io::ErrorKind::PermissionDenied => Exit::NotExecutable,
        _ if error.raw_os_error() == Some(nix::errno::Errno::ENOEXEC as i32) => Exit::NotExecutable,
        _ => Exit::RunFailed,
    };
    CliError::local(&format!("cannot start {}", program.to_string_lossy()), error).with_exit(exit)
}

/// The exit of a command that ended so.
pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(number)) => 128 + number,
        (None, None) => 1,
    };
    match u8::try_from(code) {
        Ok(0) => Exit::Done,
        Ok(code) => Exit::Command(code),
        Err(_) => Exit::RunFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_signals_pass_through() {
        assert_eq!(exit_of(ExitStatus::from_raw(0)), Exit::Done);
        assert_eq!(exit_of(ExitStatus::from_raw(3 << 8)), Exit::Command(3));
        assert_eq!(exit_of(ExitStatus::from_raw(9)), Exit::Command(137));
    }

    #[tokio::test]
    async fn a_missing_command_is_told_from_a_failed_one() {
        let missing = Running::start(&["/no/such/command".into()], &BTreeMap::new(), None);
        assert_eq!(missing.err().map(|error| error.exit()), Some(Exit::CommandNotFound));
        let env = BTreeMap::from([("CODE".to_owned(), "7".to_owned())]);
        let mut running =
            Running::start(&["sh".into(), "-c".into(), "exit $CODE".into()], &env, None).unwrap();
        assert_eq!(exit_of(running.wait().await.unwrap()), Exit::Command(7));
    }
}
