//! One seed in a process of its own: nothing leaks from one run into the next, and one that never ends is ended.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::report::reproduce;

/// A run that takes longer than this never ends, in real time.
const LONGEST_RUN: Duration = Duration::from_secs(120);
/// Between looks whether a process has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A seed to be run.
#[derive(Clone, Debug)]
pub struct Child {
    /// The simulation's program.
    pub program: PathBuf,
    /// The seed.
    pub seed: u64,
    /// How long load and faults last, in simulated seconds.
    pub seconds: u64,
    /// Where its trace goes.
    pub trace: Option<PathBuf>,
    /// A named schedule of faults instead of the seed's own.
    pub scenario: Option<&'static str>,
    /// A seeded bug that it is to have, where the program was built with them.
    pub mutant: Option<&'static str>,
}

impl Child {
    /// A run by this very program.
    ///
    /// # Errors
    /// Where the program is not to be found.
    pub fn new(seed: u64, seconds: u64) -> Result<Child, String> {
        let program =
            std::env::current_exe().map_err(|error| format!("this program is not to be found: {error}"))?;
        Ok(Child { program, seed, seconds, trace: None, scenario: None, mutant: None })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// A run that cannot be started, or does not end.
    pub fn run(&self) -> Result<Output, String> {
        let mut command = Command::new(&self.program);
        command.args(["run", "--seed", &self.seed.to_string(), "--seconds", &self.seconds.to_string()]);
        if let Some(trace) = &self.trace {
            command.arg("--trace").arg(trace);
        }
        if let Some(scenario) = self.scenario {
            command.args(["--scenario", scenario]);
        }
        match wait(command, self.mutant, LONGEST_RUN)? {
            Ended::ByItself(output) => Ok(output),
            Ended::Never(said) => Err(format!(
                "{said}FAILED seed {}: it does not end\nreproduce with: {}",
                self.seed,
                reproduce(self.seed, self.seconds)
            )),
        }
    }

    /// The same with a named schedule of faults.
    #[must_use]
    pub fn playing(self, scenario: &'static str) -> Child {
        Child { scenario: Some(scenario), ..self }
    }

    /// The same with a trace.
    #[must_use]
    pub fn traced(self, trace: &Path) -> Child {
        Child { trace: Some(trace.to_owned()), ..self }
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By itself.
    ByItself(Output),
    /// It was ended; what it had said.
    Never(String),
}

/// Runs a command, with a seeded bug or without any, for so long at most.
pub(crate) fn wait(
    mut command: Command,
    mutant: Option<&'static str>,
    longest: Duration,
) -> Result<Ended, String> {
    let failed = |error: std::io::Error| format!("cannot start a run: {error}");
    command.env_remove(plimsoll_mutants::VARIABLE);
    if let Some(mutant) = mutant {
        command.env(plimsoll_mutants::VARIABLE, mutant);
    }
    // Into files: a pipe that nobody reads would fill up, and the process would wait for ever.
    let file = || tempfile::tempfile().map_err(failed);
    let (out, err) = (file()?, file()?);
    let copy = |file: &std::fs::File| file.try_clone().map_err(failed);
    command.stdin(Stdio::null()).stdout(copy(&out)?).stderr(copy(&err)?);
    let mut running = command.spawn().map_err(failed)?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = running.try_wait().map_err(failed)? {
            break Some(status);
        }
        if begun.elapsed() > longest {
            // Simulated time stands still: something spins.
            running.kill().map_err(failed)?;
            running.wait().map_err(failed)?;
            break None;
        }
        std::thread::sleep(LOOK);
    };
    let (stdout, stderr) = (read(out).map_err(failed)?, read(err).map_err(failed)?);
    Ok(match status {
        Some(status) => Ended::ByItself(Output { status, stdout, stderr }),
        None => Ended::Never(String::from_utf8_lossy(&stderr).into_owned()),
    })
}

fn read(mut file: std::fs::File) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
