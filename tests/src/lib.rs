//! Fixtures of the end-to-end tests: real coordinator and agent processes on loopback ports, the traces where they are at hand, and
//! everything that the chaos tests are made of.

mod access;
pub mod agents;
pub mod chaos;
mod cluster;
mod coordinator;
pub mod hostile;
pub mod ports;

use std::path::{Path, PathBuf};
use std::process::Command;

pub use access::Access;
pub use cluster::{Cluster, Layout};
pub use coordinator::Coordinator;

/// The binary under test: beside the test's own executable.
pub fn plimsoll() -> PathBuf {
    program("plimsoll")
}

/// The chaos program, which is also the client of the tests that need one in a process of its own.
pub fn chaos_program() -> PathBuf {
    program("chaos")
}

fn program(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("a test has an executable");
    path.pop();
    // Tests lie one folder below the programs.
    if path.ends_with("deps") {
        path.pop();
    }
    path.push(name);
    assert!(path.exists(), "{} is not built: cargo build --workspace --bins", path.display());
    path
}

/// A file of `../shared/traces`, unpacked into `dir`; `None` (with a message) where the folder is absent.
pub fn trace(name: &str, dir: &Path) -> Option<PathBuf> {
    let packed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces").join(format!("{name}.csv.gz"));
    if !packed.exists() {
        eprintln!("skipped: {} is not there", packed.display());
        return None;
    }
    let path = dir.join(format!("{name}.csv"));
    let out = std::fs::File::create(&path).expect("a file in a temporary directory");
    let status = Command::new("gzip").arg("-dc").arg(&packed).stdout(out).status().expect("gzip runs");
    assert!(status.success());
    Some(path)
}
