//! Long chaos runs on demand: `cargo run -p plimsoll-tests --bin chaos -- --minutes 10 --seed 1`.
//!
//! Ends with 0 where everything held, 1 where a property is violated, 3 where too little was covered, 4 where the harness failed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use plimsoll_tests::chaos::report::{Report, Verdict, percentile};
use plimsoll_tests::chaos::run::{Schedule, run};
use plimsoll_tests::chaos::{nemesis, scenario};

/// Length of one schedule. Each begins with a new cluster.
const SCHEDULE: Duration = Duration::from_secs(120);

/// Breaks real clusters, and judges what clients saw.
#[derive(Parser, Debug)]
struct Options {
    /// How long, in minutes
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Seed of the first schedule; the others have the next ones
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which faults; all without
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    nemesis: Vec<String>,
    /// Clients at once
    #[arg(long, default_value_t = 16)]
    clients: u32,
    /// Pause between the calls of a client, in milliseconds
    #[arg(long, default_value_t = 20)]
    pause_ms: u64,
    /// List the faults, and whether this machine allows them
    #[arg(long)]
    list: bool,
    /// Instead: so many leases that end together
    #[arg(long, value_name = "LEASES")]
    expiry_storm: Option<usize>,
    /// Instead: so many requests that wait for one GPU
    #[arg(long, value_name = "WAITERS")]
    waiters: Option<usize>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for one in nemesis::all() {
            println!("{:<16} {}", one.name(), one.forbidden().unwrap_or_else(|| "possible here".to_owned()));
        }
        return ExitCode::SUCCESS;
    }
    if options.expiry_storm.is_some() || options.waiters.is_some() {
        let storm = match (options.expiry_storm, options.waiters) {
            (Some(leases), _) => scenario::expiry_storm(leases).await,
            (None, waiters) => scenario::waiters_on_one_gpu(waiters.unwrap_or(0)).await,
        };
        return match storm {
            Ok(summary) => {
                println!("{summary}");
                ExitCode::SUCCESS
            }
            Err(wrong) => {
                println!("VIOLATED {wrong}");
                ExitCode::from(1)
            }
        };
    }
    schedules(&options).await
}

async fn schedules(options: &Options) -> ExitCode {
    let until = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let (mut reports, mut failed): (Vec<Report>, u64) = (Vec::new(), 0);
    for seed in options.seed.. {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let nemeses = match nemesis::named(&options.nemesis) {
            Ok(nemeses) => nemeses,
            Err(wrong) => {
                eprintln!("{wrong}");
                return ExitCode::from(2);
            }
        };
        let schedule = Schedule {
            seed,
            nemeses,
            order: Vec::new(),
            length: left.min(SCHEDULE),
            clients: options.clients,
            pause_ms: options.pause_ms,
            is_loud: true,
            least_operations: 100 * usize::try_from(left.min(SCHEDULE).as_secs()).unwrap_or(0),
        };
        // A panic in the harness must not end the whole run.
        match tokio::spawn(run(schedule)).await.map_err(|error| error.to_string()).and_then(|done| done) {
            Ok(report) => {
                print!("{report}");
                reports.push(report);
            }
            Err(why) => {
                println!("seed {seed}: the harness failed: {why}");
                failed += 1;
            }
        }
    }
    summary(&reports, failed)
}

fn summary(reports: &[Report], failed: u64) -> ExitCode {
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let (operations, faults) = (sum(|report| report.operations), sum(|report| report.faults.len()));
    let violations = sum(|report| report.findings.len());
    let mut outages: Vec<u64> = reports.iter().flat_map(|report| report.outages_ms.iter().copied()).collect();
    outages.sort_unstable();
    println!(
        "{} schedules, {operations} operations, {faults} faults, {violations} violations, {failed} failures of the harness",
        reports.len()
    );
    if !outages.is_empty() {
        let of = |hundredths| percentile(&outages, hundredths);
        println!(
            "outage after {} leader kills: p50 {} ms, p99 {} ms, max {} ms",
            outages.len(),
            of(50),
            of(99),
            of(100)
        );
    }
    if violations > 0 {
        ExitCode::from(1)
    } else if failed > 0 {
        ExitCode::from(4)
    } else if reports.iter().any(|report| report.verdict() == Verdict::NotCovered) {
        ExitCode::from(3)
    } else {
        ExitCode::SUCCESS
    }
}
