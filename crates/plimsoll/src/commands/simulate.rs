//! `plimsoll simulate`: a recorded workload on a recorded fleet, in this process, without a network.

use std::path::PathBuf;

use clap::Args;

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::trace::{Options, Progress, read_nodes, read_workload, simulate, strategy_by_name, uniform_fleet};

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
        let progress = Progress::new(work.len(), globals.quiet);
        let report = simulate(&nodes, &work, &options, |arrived| progress.at(arrived))?;
        progress.end();
        globals.out().emit(&format!("{:#}\n", report.document()))?;
        Ok(Exit::Done)
    }
}
