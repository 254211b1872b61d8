//! The options that name a recorded workload, the fleet for it and how it is placed: the same for `simulate` and `replay`.

use std::path::PathBuf;

use clap::Args;
use plimsoll_ledger::Strategy;

use crate::error::CliError;
use crate::trace::{NodeRow, WorkRow, read_nodes, read_workload, strategy_by_name, uniform_fleet};

/// A workload and the fleet that it is placed on.
#[derive(Args, Debug)]
pub(crate) struct Recorded {
    /// CSV of the fleet: sn,cpu_milli,memory_mib,gpu,model
    #[arg(long, value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// A fleet of equal nodes in place of a file: NODESxGPUS
    #[arg(long, value_name = "NODESxGPUS", conflicts_with = "nodes")]
    fleet: Option<String>,
    /// CSV of the workload: openb tasks or philly jobs, told apart by their columns
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// greedy, balanced, priority, first_fit, best_fit, worst_fit, first_fit_decreasing, random, fragmentation or optimized
    #[arg(long, default_value = "best_fit")]
    strategy: String,
    /// Seed of the random strategy
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Place the rows in file order and keep them, in place of arrivals and departures in time
    #[arg(long)]
    pub(crate) no_departures: bool,
    /// Only the first so many rows
    #[arg(long)]
    limit: Option<usize>,
}

/// What the options name.
pub(crate) struct Input {
    pub(crate) strategy: Strategy,
    /// As the report writes it.
    pub(crate) strategy_name: String,
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) work: Vec<WorkRow>,
}

impl Recorded {
    /// Reads the files.
    pub(crate) fn read(&self) -> Result<Input, CliError> {
        let strategy = strategy_by_name(&self.strategy)?;
        let nodes = match (&self.nodes, &self.fleet) {
            (Some(path), _) => read_nodes(path)?,
            (None, Some(fleet)) => uniform_fleet(fleet)?,
            (None, None) => return Err(CliError::usage("name a fleet: --nodes FILE or --fleet NODESxGPUS")),
        };
        let Some(workload) = &self.workload else {
            return Err(CliError::usage("name a workload: --workload FILE"));
        };
        let mut work = read_workload(workload)?;
        work.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(Input { strategy, strategy_name: self.strategy.replace('-', "_"), nodes, work })
    }
}
