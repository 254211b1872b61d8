//! `plimsoll simulate`: a recorded workload on a recorded fleet, in this process, without a network.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use plimsoll_scheduler::forecast::PolicyChange;
use plimsoll_scheduler::queueing::Discipline;

use super::apply_files::FileArgs;
use super::recorded::{Input, Recorded};
use super::simulate_autoscale::SimulateAutoscale;
use super::simulate_balance::SimulateBalance;
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::trace::{Options, Progress, past, simulate};

/// Runs a workload on the very ledger and planner of a coordinator, in simulated time.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Simulate {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    recorded: Recorded,
    /// Run the past again under these policy files, beside the recorded policy: of --log, or of the workload
    #[arg(long, value_name = "FILE", conflicts_with_all = ["queueing", "no_departures"])]
    policy: Vec<PathBuf>,
    /// The log of a cluster in place of a workload and a fleet: what plimsoll audit log writes
    #[arg(long, value_name = "FILE", requires = "policy", conflicts_with_all = ["workload", "nodes", "fleet"])]
    log: Option<PathBuf>,
    /// Serve the queue by fcfs, skip, backfill_1, backfill_all (any backfill_K), fair, priority, learned or las
    #[arg(long, value_name = "NAME", value_parser = discipline, conflicts_with = "no_departures")]
    queueing: Option<(Discipline, String)>,
}

/// What else can be simulated than a workload on a fleet.
#[derive(Subcommand, Debug)]
enum Part {
    Autoscale(SimulateAutoscale),
    Balance(SimulateBalance),
}

impl Simulate {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        match self.part {
            Some(Part::Autoscale(autoscale)) => return autoscale.run(globals),
            Some(Part::Balance(balance)) => return balance.run(globals),
            None => {}
        }
        if !self.policy.is_empty() {
            return self.compare(globals);
        }
        let Input { strategy, strategy_name, nodes, work } = self.recorded.read()?;
        let Recorded { seed, no_departures, .. } = self.recorded;
        let (queueing, queueing_name) = self.queueing.unzip();
        let options = Options { strategy, strategy_name, seed, no_departures, queueing, queueing_name };
        let progress = Progress::new(work.len(), globals.quiet);
        let report = simulate(&nodes, &work, &options, |arrived| progress.at(arrived))?;
        progress.end();
        globals.out().emit(&format!("{:#}\n", report.document()))?;
        Ok(Exit::Done)
    }
}

impl Simulate {
    /// The past under another policy.
    fn compare(self, globals: &Globals) -> Result<Exit, CliError> {
        let files = FileArgs::of(self.policy.clone());
        let put = files.load("cannot simulate")?.into_iter().map(|parsed| parsed.object).collect();
        let policy = PolicyChange { put, ..PolicyChange::default() };
        let past = match &self.log {
            Some(path) => past::read_log(path)?,
            None => {
                let Input { nodes, work, .. } = self.recorded.read()?;
                past::of_trace(&nodes, &work)
            }
        };
        let comparison = past::compare(past, &policy, self.recorded.seed)?;
        let out = globals.out();
        if out.is_human() {
            out.emit(&comparison.text())?
        } else {
            out.document(&comparison.document())?
        }
        Ok(Exit::Done)
    }
}

/// A discipline, and its name as the report has it.
fn discipline(name: &str) -> Result<(Discipline, String), String> {
    let name = name.replace('-', "_");
    let known = Discipline::NAMES;
    let unknown = |()| {
        let meant = plimsoll_policy::nearest(&name, &known);
        let meant = meant.map_or_else(String::new, |word| format!("did you mean {word}? "));
        format!("{meant}choose one of {}", known.join(", "))
    };
    let discipline = name.parse().map_err(unknown)?;
    Ok((discipline, name))
}
