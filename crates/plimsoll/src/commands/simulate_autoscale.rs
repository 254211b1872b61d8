//! `plimsoll simulate autoscale`: the scaling engine on a recorded load, in this process.

use std::path::{Path, PathBuf};

use clap::Args;
use plimsoll_autoscaler::Policy;
use plimsoll_policy::{Source, parse_scaling_policy};

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::trace::autoscale::{Comparison, Report, Series, Setup, default_policy, run};

/// Scales replicas to a recorded load, step by step, and scores the last 40 % of it.
#[derive(Args, Debug)]
pub(crate) struct SimulateAutoscale {
    /// CSV of the load: time,value; plain or packed by gzip
    #[arg(value_name = "SERIES")]
    series: PathBuf,
    /// Load that one replica serves in one step
    #[arg(long, value_parser = capacity)]
    capacity: f64,
    /// Steps from the decision until a new replica serves
    #[arg(long, value_name = "STEPS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=288))]
    startup_steps: u16,
    /// A file of kind ScalingPolicy; the default is predictive with a reactive floor
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Compare with Kubernetes' HPA at every target utilization
    #[arg(long)]
    compare: bool,
}

impl SimulateAutoscale {
    pub(crate) fn run(&self, globals: &Globals) -> Result<Exit, CliError> {
        let series = Series::read(&self.series)?;
        let setup = Setup { startup_steps: self.startup_steps.into(), step_ms: series.step_ms };
        let default = default_policy(setup.step_ms);
        let policy = match &self.policy {
            Some(path) => read_policy(path, &default)?,
            None => default,
        };
        let loads_milli = series.loads_milli(self.capacity);
        let course = run(&loads_milli, &policy, setup);
        let comparison = self.compare.then(|| Comparison::new(&loads_milli, setup, &course));
        let report = Report { series: &series, capacity: self.capacity, setup, course: &course, comparison };
        let out = globals.out();
        match out.is_human() {
            true => out.emit(&report.text())?,
            false => out.document(&report.document())?,
        }
        Ok(Exit::Done)
    }
}

fn read_policy(path: &Path, default: &Policy) -> Result<Policy, CliError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| CliError::local(&format!("cannot read {}", path.display()), error))?;
    let source = Source { name: path.display().to_string(), text };
    parse_scaling_policy(&source, default)
        .map_err(|problems| CliError::usage("the policy cannot be read").at_places(&problems))
}

/// A finite number above 0.
fn capacity(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "a number above 0 is expected".to_owned())
}
