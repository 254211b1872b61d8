//! `simulation`: runs seeds. One process runs one seed; `fuzz` and `meta` start processes of their own.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use parking_lot::Mutex;
use plimsoll_simulation::child::Child;
use plimsoll_simulation::faults::{note_panic, power_fails};
use plimsoll_simulation::mutants;
use plimsoll_simulation::report::{report, reproduce};
use plimsoll_simulation::sabotage::Sabotage;
use plimsoll_simulation::scenario::{self, SCENARIOS};
use plimsoll_simulation::watchdog;
use plimsoll_simulation::world::{self, Options};

/// Deterministic simulation of a Plimsoll cluster.
#[derive(Debug, Parser)]
#[command(name = "simulation", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Runs one seed and judges it.
    Run {
        /// Decides everything.
        #[arg(long)]
        seed: u64,
        /// How long load and faults last, in simulated seconds.
        #[arg(long, default_value_t = SECONDS)]
        seconds: u64,
        /// Writes the trace here.
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
        /// A named schedule of faults instead of the seed's own.
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(SCENARIOS.map(|one| one.name)))]
        scenario: Option<String>,
        /// Breaks the evidence on purpose: the run must fail.
        #[arg(long)]
        sabotage: Option<Sabotage>,
        /// A command that no build here knows comes into the log: the run must fail.
        #[arg(long)]
        unknown_command: bool,
    },
    /// Runs the named schedules of faults, or all for none, and judges each.
    Scenarios {
        /// Only these.
        names: Vec<String>,
        /// How long load and faults of each last, in simulated seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// A seed other than the scenario's own.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Runs one seed after the other until the time is over or one fails.
    Fuzz {
        /// Real seconds.
        #[arg(long)]
        seconds: u64,
        /// First seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// Go on after a seed that fails, and count those.
        #[arg(long)]
        keep_going: bool,
    },
    /// Runs every seeded bug against the nets that are to catch it.
    Mutants {
        /// Only these.
        names: Vec<String>,
        /// Try every net that may catch one, not the first that does.
        #[arg(long)]
        every_net: bool,
    },
    /// Proves that a seed decides everything: runs it twice, compares the traces byte by byte; another seed must differ.
    Meta {
        /// The seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// A tenth of a run is allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long load and faults last unless told otherwise, in simulated seconds.
const SECONDS: u64 = 60;

/// What panicked, in any task: tokio would keep it to itself.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    let done = match Arguments::parse().action {
        Action::Run { seed, seconds, trace, sabotage, scenario, unknown_command } => {
            let scenario = scenario.as_deref().and_then(scenario::find);
            run(&Options { seed, chaos_ms: seconds * 1_000, trace, scenario, unknown_command }, sabotage)
        }
        Action::Scenarios { names, seconds, seed } => scenarios(&names, seconds, seed),
        Action::Fuzz { seconds, from, keep_going } => fuzz(Duration::from_secs(seconds), from, keep_going),
        Action::Mutants { names, every_net } => mutants::run(&names, every_net),
        Action::Meta { seed } => meta(seed),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, sabotage: Option<Sabotage>) -> Result<(), String> {
    // A run is short and its memory small pieces: clearing two megabytes for each took a tenth of its time.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let filter = tracing_subscriber::EnvFilter::try_from_env("SIMULATION_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // A destructor that wanted to write to a disk whose power is gone: in the world it would not have run.
        if power_fails() {
            return;
        }
        note_panic();
        PANICS.lock().push(panic.to_string().replace('\n', " "));
        shown(panic);
    }));
    let (seed, seconds) = (options.seed, options.chaos_ms / 1_000);
    watchdog::start(move |stuck| {
        let panics = PANICS.lock().join("; ");
        let after = if panics.is_empty() { String::new() } else { format!(" after a panic: {panics}") };
        eprintln!("FAILED seed {seed}: {stuck}{after}\nreproduce with: {}", reproduce(seed, seconds));
        std::process::exit(1);
    });
    let ended = world::run(options).map_err(|error| format!("the trace cannot be written: {error}"))?;
    let panics = std::mem::take(&mut *PANICS.lock());
    let report = report(options, &ended, panics, sabotage);
    print!("{}", report.text);
    if report.failures.is_empty() {
        return Ok(());
    }
    let what = report.failures.iter().map(|failure| format!("FAILED seed {}: {failure}\n", options.seed));
    Err(format!(
        "{}reproduce with: {}",
        what.collect::<String>(),
        match options.scenario {
            Some(scenario) => {
                format!("{} --scenario {}", reproduce(options.seed, options.chaos_ms / 1_000), scenario.name)
            }
            None => reproduce(options.seed, options.chaos_ms / 1_000),
        }
    ))
}

fn scenarios(names: &[String], seconds: u64, seed: Option<u64>) -> Result<(), String> {
    let mut failed = String::new();
    for one in SCENARIOS.iter().filter(|one| names.is_empty() || names.iter().any(|name| name == one.name)) {
        let child = Child::new(seed.unwrap_or(one.seed), seconds)?.playing(one.name);
        let output = child.run()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let line =
            |name: &str| said.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        println!("{:<18} {}\n{:<18} {}", one.name, line("simulated"), "", line("faults"));
        if !output.status.success() {
            failed.push_str(&String::from_utf8_lossy(&output.stderr));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed) }
}

fn fuzz(time: Duration, from: u64, keep_going: bool) -> Result<(), String> {
    let begun = Instant::now();
    let (mut seed, mut simulated_ms, mut cpu_ms, mut failures) = (from, 0, 0, 0_u64);
    while begun.elapsed() < time {
        let output = Child::new(seed, SECONDS)?.run()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let failed = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
            if !keep_going {
                return Err(failed);
            }
            let first = failed.lines().find(|line| line.starts_with("FAILED")).unwrap_or("FAILED");
            println!("{}", first.chars().take(240).collect::<String>());
            failures += 1;
        }
        let line = said.lines().find(|line| line.starts_with("simulated")).unwrap_or_default();
        println!("seed {seed}: {}", line.trim_start_matches("simulated").trim());
        // "N ms in M ms of CPU"
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        simulated_ms += numbers.next().unwrap_or(0);
        cpu_ms += numbers.next().unwrap_or(0);
        seed += 1;
    }
    let tenths = simulated_ms * 10 / cpu_ms.max(1);
    println!(
        "{} seeds, from {from}, {failures} failed: {simulated_ms} ms in {cpu_ms} ms of CPU, {}.{} times",
        seed - from,
        tenths / 10,
        tenths % 10
    );
    match failures {
        0 => Ok(()),
        _ => Err(format!("{failures} seeds failed")),
    }
}

fn meta(seed: u64) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let trace = |seed: u64, name: &str| {
        let path = folder.path().join(name);
        let output = Child::new(seed, SECONDS)?.traced(&path).run()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        std::fs::read(&path).map_err(|error| format!("no trace: {error}"))
    };
    let (first, second, other) = (trace(seed, "first")?, trace(seed, "second")?, trace(seed + 1, "other")?);
    if first != second {
        let (first, second) = (String::from_utf8_lossy(&first), String::from_utf8_lossy(&second));
        let differs = first.lines().zip(second.lines()).position(|(one, two)| one != two);
        let line = differs.unwrap_or_else(|| first.lines().count().min(second.lines().count()));
        let show = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
        return Err(format!(
            "seed {seed} gave two traces; line {}:\n{}\n{}",
            line + 1,
            show(&first),
            show(&second)
        ));
    }
    if first == other {
        return Err(format!("seeds {seed} and {} gave the same trace: the seed decides nothing", seed + 1));
    }
    println!("seed {seed}: two processes, one trace of {} bytes; seed {} differs", first.len(), seed + 1);
    Ok(())
}
