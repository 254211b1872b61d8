//! `plimsoll simulate`: a recorded workload on a recorded fleet, in this process, without a network.

use clap::Args;

use super::recorded::{Input, Recorded};
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::trace::{Options, Progress, simulate};

/// Runs a workload on the very ledger and planner of a coordinator, in simulated time.
#[derive(Args, Debug)]
pub(crate) struct Simulate {
    #[command(flatten)]
    recorded: Recorded,
}

impl Simulate {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let Input { strategy, strategy_name, nodes, work } = self.recorded.read()?;
        let Recorded { seed, no_departures, .. } = self.recorded;
        let options = Options { strategy, strategy_name, seed, no_departures };
        let progress = Progress::new(work.len(), globals.quiet);
        let report = simulate(&nodes, &work, &options, |arrived| progress.at(arrived))?;
        progress.end();
        globals.out().emit(&format!("{:#}\n", report.document()))?;
        Ok(Exit::Done)
    }
}
