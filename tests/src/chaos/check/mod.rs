//! Judges of a run: each looks at what clients saw and what the replicas export, and knows nothing of how either came to be.

mod acknowledged;
mod device_search;
mod devices;
mod digests;
mod evidence;
pub mod fixture;
mod honesty;
mod lease_search;
mod once;
mod real_time;
pub mod replay;
mod results;
mod search;
mod unknowns;

use std::fmt;

pub use evidence::{Evidence, Replica};
pub use replay::{Replay, replay};

/// Findings kept of each judge; one broken property tends to break thousands of times.
const MOST_OF_ONE: usize = 20;

/// One property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which judge found it.
    pub judge: &'static str,
    /// What is wrong.
    pub detail: String,
}

/// What judges find.
#[derive(Debug, Default)]
pub struct Findings {
    all: Vec<Finding>,
    judge: &'static str,
    of_judge: usize,
    more: usize,
}

/// One judge.
pub trait Judge {
    /// Its name, with the invariant's id where there is one.
    fn name(&self) -> &'static str;
    /// Looks at everything.
    fn judge(&self, evidence: &Evidence, replay: &Replay, findings: &mut Findings);
}

/// All judges.
pub fn all() -> Vec<Box<dyn Judge>> {
    vec![
        Box::new(honesty::Honesty),
        Box::new(digests::Digests),
        Box::new(results::Results),
        Box::new(real_time::RealTime),
        Box::new(unknowns::Unknowns),
        Box::new(once::Once),
        Box::new(acknowledged::Acknowledged),
        Box::new(devices::Devices),
        Box::new(lease_search::LeaseSearch),
        Box::new(device_search::DeviceSearch),
    ]
}

/// Everything that any judge finds.
pub fn judge(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Findings::default();
    findings.begin("replay");
    let replay = replay(&evidence.log, &mut findings);
    for judge in all() {
        findings.begin(judge.name());
        judge.judge(evidence, &replay, &mut findings);
    }
    findings.finish()
}

impl Findings {
    fn begin(&mut self, judge: &'static str) {
        self.end_of_judge();
        (self.judge, self.of_judge) = (judge, 0);
    }

    /// Notes one.
    pub fn add(&mut self, detail: impl Into<String>) {
        self.of_judge += 1;
        if self.of_judge > MOST_OF_ONE {
            self.more += 1;
            return;
        }
        self.all.push(Finding { judge: self.judge, detail: detail.into() });
    }

    fn end_of_judge(&mut self) {
        let more = std::mem::take(&mut self.more);
        if more > 0 {
            self.all.push(Finding { judge: self.judge, detail: format!("and {more} more") });
        }
    }

    fn finish(mut self) -> Vec<Finding> {
        self.end_of_judge();
        self.all
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.judge, self.detail)
    }
}
