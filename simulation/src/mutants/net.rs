//! A net: tests of a crate, or seeds of the simulation, run with one seeded bug.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::build::Built;
use crate::child::{self, Child, Ended};

/// Seeds that a bug may live through.
pub const MOST_SEEDS: u64 = 200;
/// How long load and faults of a seed last, in simulated seconds.
const SECONDS: u64 = 60;
/// Seeds at the same time.
const AT_ONCE: usize = 2;
/// Tests that take longer than this do not end.
const LONGEST: Duration = Duration::from_secs(240);

/// What may catch a seeded bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Tests of a crate.
    Tests {
        /// The crate.
        package: &'static str,
        /// Its library, or one of its test files.
        target: &'static str,
        /// Part of the names of the tests; empty for all.
        filter: &'static str,
    },
    /// Seeds of the simulation, from the first on, until one fails.
    Seeds,
    /// One seed twice: the traces must be equal.
    Twice,
}

/// What a net said.
#[derive(Clone, Debug)]
pub struct Catch {
    /// It failed, as it should.
    pub caught: bool,
    /// Seeds that it took; 0 where it is no matter of seeds.
    pub seeds: u64,
    /// How long it took.
    pub took: Duration,
    /// The first line that says what is wrong.
    pub said: String,
}

impl Net {
    pub(super) const fn tests(package: &'static str, target: &'static str, filter: &'static str) -> Net {
        Net::Tests { package, target, filter }
    }

    /// Its name for people.
    pub fn name(self) -> String {
        match self {
            Net::Tests { package, target, filter: "" } => format!("{package} {target}"),
            Net::Tests { package, filter, .. } => format!("{package} {filter}"),
            Net::Seeds => "simulation".to_owned(),
            Net::Twice => "simulation, twice".to_owned(),
        }
    }

    /// Runs it with a seeded bug, or without any.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn run(self, built: &Built, mutant: Option<&'static str>) -> Result<Catch, String> {
        let began = Instant::now();
        let (seeds, said) = match self {
            Net::Tests { package, target, filter } => {
                (0, tests(&built.test(package, target)?, &built.folder(package), filter, mutant)?)
            }
            Net::Seeds => seeds(built, mutant)?,
            Net::Twice => (1, twice(built, mutant)?),
        };
        let caught = said.is_some();
        Ok(Catch { caught, seeds, took: began.elapsed(), said: said.unwrap_or_default() })
    }
}

/// What is wrong, in the words of the first test that failed.
fn tests(
    program: &Path,
    folder: &Path,
    filter: &str,
    mutant: Option<&'static str>,
) -> Result<Option<String>, String> {
    let mut command = Command::new(program);
    command.current_dir(folder).args([filter, "--test-threads=2"]);
    // What a seeded bug makes fail is no regression to be kept, nor worth being made small.
    command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1").env("PROPTEST_MAX_SHRINK_ITERS", "0");
    let output = match child::wait(command, mutant, LONGEST)? {
        Ended::Never(_) => return Ok(Some("it does not end".to_owned())),
        Ended::ByItself(output) => output,
    };
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return match said.contains("running 0 tests") {
            true => Err(format!("no test of {} is called {filter:?}", program.display())),
            false => Ok(None),
        };
    }
    let failed = said.lines().find(|line| line.ends_with("FAILED")).unwrap_or("it broke off");
    Ok(Some(failed.trim_start_matches("test ").trim_end_matches(" ... FAILED").to_owned()))
}

/// Seeds until one fails: how many, and what is wrong. A seed that fails without the bug too proves nothing.
fn seeds(built: &Built, mutant: Option<&'static str>) -> Result<(u64, Option<String>), String> {
    let (next, stop) = (AtomicU64::new(1), AtomicBool::new(false));
    let found = parking_lot::Mutex::new(Ok(None));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > MOST_SEEDS {
                return;
            }
            let wrong = match failure(built, seed, mutant) {
                Ok(None) => continue,
                Ok(Some(wrong)) => wrong,
                Err(error) => {
                    *found.lock() = Err(error);
                    stop.store(true, Ordering::Relaxed);
                    return;
                }
            };
            if mutant.is_some() && matches!(failure(built, seed, None), Ok(Some(_))) {
                println!("         seed {seed} fails without any seeded bug: {wrong}");
                continue;
            }
            stop.store(true, Ordering::Relaxed);
            let mut found = found.lock();
            if !matches!(&*found, Ok(Some((earlier, _))) if *earlier < seed) {
                *found = Ok(Some((seed, wrong)));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let found = found.into_inner()?;
    Ok(found.map_or((MOST_SEEDS, None), |(seed, wrong)| (seed, Some(format!("seed {seed}: {wrong}")))))
}

/// What is wrong with one seed.
fn failure(built: &Built, seed: u64, mutant: Option<&'static str>) -> Result<Option<String>, String> {
    let child =
        Child { program: built.simulation(), seed, seconds: SECONDS, trace: None, scenario: None, mutant };
    let output = match child.run() {
        Ok(output) => output,
        Err(never) if never.contains("it does not end") => return Ok(Some("it does not end".to_owned())),
        Err(error) => return Err(error),
    };
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let failed =
        said.lines().find_map(|line| line.strip_prefix("FAILED")?.split_once(": ")).map(|(_, what)| what);
    // A panic in the midst of another ends the process at once: its words come after the place.
    let panicked = || said.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
    let failed = failed.or_else(panicked).unwrap_or("it broke off");
    Ok(Some(failed.chars().take(160).collect()))
}

fn twice(built: &Built, mutant: Option<&'static str>) -> Result<Option<String>, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let trace = |name: &str| -> Result<Vec<u8>, String> {
        let path: PathBuf = folder.path().join(name);
        let child =
            Child { program: built.simulation(), seed: 1, seconds: 20, trace: None, scenario: None, mutant };
        child.traced(&path).run()?;
        std::fs::read(&path).map_err(|error| format!("no trace: {error}"))
    };
    Ok((trace("first")? != trace("second")?).then(|| "one seed gave two traces".to_owned()))
}
