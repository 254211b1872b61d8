//! Long chaos runs on demand: `cargo run -p plimsoll-tests --bin chaos -- --minutes 10 --seed 1`.
//!
//! Ends with 0 where everything held, 1 where a property is violated, 3 where too little was covered, 4 where the harness failed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use plimsoll_tests::chaos::report::{Report, Verdict, percentile};
use plimsoll_tests::chaos::run::{Schedule, run};
use plimsoll_tests::chaos::setup::{Carrier, Setup};
use plimsoll_tests::chaos::{holder, nemesis, scenario};

/// Length of one schedule. Each begins with a new cluster.
const SCHEDULE: Duration = Duration::from_secs(120);
/// Kills in one schedule, where they are counted.
const KILLS: usize = 25;

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
    /// Coordinators
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    members: u64,
    /// What is between them
    #[arg(long, value_enum, default_value_t = Network::Proxies)]
    network: Network,
    /// An earlier build of plimsoll: members then run one or the other
    #[arg(long, value_name = "PROGRAM")]
    previous: Option<PathBuf>,
    /// So many kills of the leader instead of faults for some time
    #[arg(long, value_name = "COUNT", conflicts_with = "minutes")]
    kills: Option<usize>,
    /// List the faults, and whether this machine allows them
    #[arg(long)]
    list: bool,
    /// Instead: so many leases that end together
    #[arg(long, value_name = "LEASES")]
    expiry_storm: Option<usize>,
    /// Instead: so many requests that wait for one GPU
    #[arg(long, value_name = "WAITERS")]
    waiters: Option<usize>,
    /// Instead: so many agents that lose the leader
    #[arg(long, value_name = "AGENTS")]
    agents: Option<usize>,
    /// How many of them share a connection
    #[arg(long, value_name = "AGENTS", default_value_t = 100)]
    agents_per_connection: usize,
    /// Hold a lease by these coordinators and obey the standard input: the client that is paused is this program
    #[arg(long, value_name = "ADDRS", value_delimiter = ',', hide = true)]
    hold: Vec<String>,
    /// Length of that lease
    #[arg(long, default_value_t = 2_000, hide = true)]
    hold_ttl_ms: u64,
}

/// What is between coordinators.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Network {
    /// Loopback, with TCP proxies
    Proxies,
    /// Network namespaces and a switch for packets, where this machine allows it
    Tun,
}

impl Options {
    fn setup(&self) -> Setup {
        let carrier = match self.network {
            Network::Proxies => Carrier::Proxies,
            Network::Tun => Carrier::Tun,
        };
        Setup { members: self.members, carrier, previous: self.previous.clone() }
    }

    fn is_scenario(&self) -> bool {
        self.expiry_storm.is_some() || self.waiters.is_some() || self.agents.is_some()
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for one in nemesis::all() {
            let why = one.forbidden(&options.setup());
            println!("{:<18} {}", one.name(), why.unwrap_or_else(|| "possible here".to_owned()));
        }
        return ExitCode::SUCCESS;
    }
    if !options.hold.is_empty() {
        return match holder::hold(options.hold, options.hold_ttl_ms).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{why}");
                ExitCode::from(4)
            }
        };
    }
    if options.is_scenario() {
        let storm = if let Some(leases) = options.expiry_storm {
            scenario::expiry_storm(leases).await
        } else if let Some(waiters) = options.waiters {
            scenario::waiters_on_one_gpu(waiters).await
        } else {
            scenario::reconnecting(options.agents.unwrap_or(0), options.agents_per_connection).await
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
    let mut kills = options.kills.unwrap_or(0);
    let names = if kills > 0 { vec!["kill-leader".to_owned()] } else { options.nemesis.clone() };
    for seed in options.seed.. {
        let left = until.saturating_duration_since(Instant::now());
        if options.kills.map_or_else(|| left.is_zero(), |_| kills == 0) {
            break;
        }
        let order = vec!["kill-leader"; kills.min(KILLS)];
        kills -= order.len();
        let nemeses = match nemesis::named(&names) {
            Ok(nemeses) => nemeses,
            Err(wrong) => {
                eprintln!("{wrong}");
                return ExitCode::from(2);
            }
        };
        let schedule = Schedule {
            seed,
            setup: options.setup(),
            nemeses,
            least_operations: least_operations(&order, left.min(SCHEDULE)),
            order,
            length: left.min(SCHEDULE),
            clients: options.clients,
            pause_ms: options.pause_ms,
            is_loud: true,
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

/// A hundred in a second, or in each kill.
fn least_operations(order: &[&str], length: Duration) -> usize {
    let seconds = usize::try_from(length.as_secs()).unwrap_or(0);
    100 * if order.is_empty() { seconds } else { order.len() }
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
