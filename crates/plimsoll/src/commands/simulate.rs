//! `plimsoll simulate`: a recorded workload on a recorded fleet, in this process, without a network.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::trace::{Options, read_nodes, read_workload, simulate, strategy_by_name, uniform_fleet};

/// Runs a workload on the very ledger and planner of a coordinator, in simulated time.
#[derive(Args, Debug)]
pub(crate) struct Simulate {
    /// CSV of the fleet: sn,cpu_milli,memory_mib,gpu,model
    #[arg(long, value_name = "FILE", required_unless_present = "fleet")]
    nodes: Option<PathBuf>,
    /// A fleet of equal nodes in place of a file: NODESxGPUS
    #[arg(long, value_name = "NODESxGPUS", conflicts_with = "nodes")]
    fleet: Option<String>,
    /// CSV of the workload: openb tasks or philly jobs, told apart by their columns
    #[arg(long, value_name = "FILE")]
    workload: PathBuf,
    /// greedy, balanced, priority, first_fit, best_fit, worst_fit, first_fit_decreasing or random
    #[arg(long, default_value = "best_fit")]
    strategy: String,
    /// Seed of the random strategy
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Place the rows in file order and keep them, in place of arrivals and departures in time
    #[arg(long)]
    no_departures: bool,
    /// Only the first so many rows
    #[arg(long)]
    limit: Option<usize>,
}

impl Simulate {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let strategy = strategy_by_name(&self.strategy)?;
        let nodes = match (&self.nodes, &self.fleet) {
            (Some(path), _) => read_nodes(path)?,
            (None, Some(fleet)) => uniform_fleet(fleet)?,
            (None, None) => return Err(CliError::usage("name a fleet: --nodes FILE or --fleet NODESxGPUS")),
        };
        let mut work = read_workload(&self.workload)?;
        work.truncate(self.limit.unwrap_or(usize::MAX));
        let options = Options {
            strategy,
            strategy_name: self.strategy.replace('-', "_"),
            seed: self.seed,
            no_departures: self.no_departures,
        };
        let bar = progress_bar(work.len());
        let report = simulate(&nodes, &work, &options, |arrived| bar.set_position(arrived as u64))?;
        bar.finish_and_clear();
        globals.out().emit(&format!("{:#}\n", report.document()))?;
        Ok(Exit::Done)
    }
}

/// A bar on stderr; nothing where that is no terminal.
fn progress_bar(rows: usize) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(rows as u64), target);
    match ProgressStyle::with_template("{bar:40} {pos}/{len} rows  {per_sec}  {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
