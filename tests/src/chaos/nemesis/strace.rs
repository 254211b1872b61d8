//! Faults in system calls of a running process, by a tracer that attaches to it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A tracer at work. It lets go when it is dropped.
pub(super) struct Tracer {
    child: Child,
}

impl Tracer {
    /// Attaches to a process and injects, as `strace -e inject=WHAT` does.
    pub(super) fn attach(pid: u32, calls: &str, what: &str) -> Result<Tracer, String> {
        let child = Command::new("strace")
            .args(["-f", "-q", "-o", "/dev/null", "-p", &pid.to_string()])
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("strace does not start: {error}"))?;
        Ok(Tracer { child })
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // By TERM and not KILL: so it lets go of the process in good order.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        drop(self.child.wait());
    }
}

/// Why processes cannot be traced here; `None` where they can.
pub(super) fn forbidden() -> Option<String> {
    let mut child = Command::new("sleep").arg("5").spawn().ok()?;
    let attached = Tracer::attach(child.id(), "fdatasync", "delay_exit=1").map(|mut tracer| {
        std::thread::sleep(Duration::from_millis(200));
        // One that was not allowed to attach has ended by now.
        matches!(tracer.child.try_wait(), Ok(None))
    });
    drop(child.kill());
    drop(child.wait());
    match attached {
        Ok(true) => None,
        Ok(false) => Some("strace may not attach to processes here".to_owned()),
        Err(error) => Some(error),
    }
}
