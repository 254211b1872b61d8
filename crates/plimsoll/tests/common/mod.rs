//! The binary under test, in a home of its own, and a running `dev`.

// Each test binary uses its part.
#![allow(dead_code)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

pub(crate) const PLIMSOLL: &str = env!("CARGO_BIN_EXE_plimsoll");

/// The binary with nothing of the caller's surroundings.
pub(crate) fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PLIMSOLL);
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("PLIMSOLL_HOME", home);
    command.env("LANG", "C.UTF-8").env("PLIMSOLL_CGROUP", "off").current_dir(home).stdin(Stdio::null());
    command
}

/// Runs it and returns its exit code, stdout and stderr.
pub(crate) fn run(home: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = command(home, arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// What it prints as JSON; it must succeed.
pub(crate) fn json(home: &Path, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = run(home, &[arguments, &["-o", "json"]].concat());
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"))
}

/// A process that is killed when it goes.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts what announces itself with a line of JSON, and returns it with its address.
pub(crate) fn start(home: &Path, arguments: &[&str]) -> (Killed, String) {
    let mut child = command(home, arguments).args(["-o", "jsonl"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child = Killed(child);
    let told: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no announcement: {line:?}"));
    (child, told["address"].as_str().unwrap().to_owned())
}

/// A running `dev` with its own home, in which the files of a test lie.
pub(crate) struct Dev {
    pub(crate) process: Killed,
    pub(crate) home: tempfile::TempDir,
    pub(crate) address: String,
}

impl Dev {
    pub(crate) fn start(arguments: &[&str]) -> Dev {
        let home = tempfile::tempdir().unwrap();
        let (process, address) = start(home.path(), &[&["dev", "--port", "0"], arguments].concat());
        Dev { process, home, address }
    }
}
