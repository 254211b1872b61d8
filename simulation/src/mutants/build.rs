//! Builds what the nets need with the seeded bugs compiled in, in a target folder of its own, so that the everyday one stays
//! without them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Crates whose tests are nets.
const PACKAGES: [&str; 6] = [
    "plimsoll-ledger",
    "plimsoll-scheduler",
    "plimsoll-consensus",
    "plimsoll-coordinator",
    "plimsoll-agent",
    "plimsoll-simulation",
];

/// Programs that were built.
#[derive(Clone, Debug, Default)]
pub struct Built {
    /// Test programs, by crate and target.
    tests: BTreeMap<(String, String), PathBuf>,
    /// The simulation.
    simulation: PathBuf,
    /// Where the workspace is.
    root: PathBuf,
}

impl Built {
    /// Builds everything.
    ///
    /// # Errors
    /// Where it does not build.
    pub fn new() -> Result<Built, String> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
        // Beside the everyday target folder where that is set, inside it otherwise.
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(everyday) => PathBuf::from(everyday).with_file_name("mutants"),
            None => root.join("target").join("mutants"),
        };
        println!("building with seeded bugs in {} (minutes, the first time)", target.display());
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&root).env("CARGO_TARGET_DIR", target);
        cargo.args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
        cargo.args(PACKAGES.iter().flat_map(|package| ["-p", package]));
        cargo.args(["--features", "plimsoll-simulation/mutants"]).stderr(Stdio::inherit());
        let output = cargo.output().map_err(|error| format!("cargo cannot be started: {error}"))?;
        if !output.status.success() {
            return Err("it does not build".to_owned());
        }
        let mut built = Built { root, ..Built::default() };
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Ok(message) = serde_json::from_str::<serde_json::Value>(line) {
                built.note(&message);
            }
        }
        Ok(built)
    }

    /// A crate's test program.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn test(&self, package: &str, target: &str) -> Result<PathBuf, String> {
        let found = self.tests.get(&(package.to_owned(), target.to_owned()));
        found.cloned().ok_or_else(|| format!("{package} has no tests {target}"))
    }

    /// Where a crate is: its tests expect to run there.
    pub(super) fn folder(&self, package: &str) -> PathBuf {
        match package {
            "plimsoll-simulation" => self.root.join("simulation"),
            _ => self.root.join("crates").join(package),
        }
    }

    /// The simulation with seeded bugs.
    pub(super) fn simulation(&self) -> PathBuf {
        self.simulation.clone()
    }

    fn note(&mut self, message: &serde_json::Value) {
        let Some(program) = message["executable"].as_str() else { return };
        let target = message["target"]["name"].as_str().unwrap_or_default();
        let manifest = message["manifest_path"].as_str().unwrap_or_default();
        let package = Path::new(manifest).parent().and_then(Path::file_name).unwrap_or_default();
        let package = match package.to_string_lossy() {
            folder if folder == "simulation" => "plimsoll-simulation".to_owned(),
            folder => folder.into_owned(),
        };
        if message["profile"]["test"] == true {
            self.tests.insert((package, target.to_owned()), program.into());
        } else if target == "simulation" {
            self.simulation = program.into();
        }
    }
}
