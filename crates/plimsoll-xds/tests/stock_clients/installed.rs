//! Where `.ci/clients` puts the clients.

use std::path::PathBuf;

/// The stock clients of these tests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    Python,
    Node,
    Envoy,
    Haproxy,
}

impl Program {
    /// What to start. Where it is absent the reason is printed, and the test is over.
    pub(crate) fn find(self) -> Option<PathBuf> {
        let path = match self {
            Program::Python => folder().join("python/bin/python"),
            Program::Node => on_path("node")?,
            Program::Envoy => folder().join("envoy/envoy/_bin/envoy"),
            Program::Haproxy => return on_path("haproxy"),
        };
        let needed = if matches!(self, Program::Node) { node_modules() } else { path.clone() };
        if needed.exists() {
            return Some(path);
        }
        eprintln!("skipped: {} is not there; .ci/clients installs it", needed.display());
        None
    }
}

/// The packages of the Node client.
pub(crate) fn node_modules() -> PathBuf {
    folder().join("node/node_modules")
}

/// As `.ci/env` has it.
fn folder() -> PathBuf {
    let cache = std::env::var_os("PLIMSOLL_BUILD_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
        std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("plimsoll")
    });
    cache.join("clients")
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where a user's path does not lead.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: {program} is not there; .ci/clients installs it");
    }
    found
}
