//! What a schedule came to, for people and for exit codes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::check::{Evidence, Finding};
use super::history::{Operation, Outcome};

/// One fault that struck.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which.
    pub nemesis: &'static str,
    /// Whom.
    pub target: String,
    /// When it began, in microseconds of the observer's clock.
    pub began_us: u64,
    /// When it was mended, likewise.
    pub ended_us: u64,
}

/// What is known after a run. Where the harness failed there is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything held, and enough was tried.
    Held,
    /// A property does not hold.
    Violated,
    /// Nothing wrong was found, and too little was tried to say more.
    NotCovered,
}

/// What a schedule came to. Durations are in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Faults that struck.
    pub faults: Vec<Fault>,
    /// Faults that were to strike, where their order was given.
    pub planned: Vec<&'static str>,
    /// Faults that this machine does not allow, and why.
    pub skipped: Vec<(&'static str, String)>,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
    /// Calls of clients.
    pub operations: usize,
    /// Of those, done.
    pub done: usize,
    /// Refused for good.
    pub refused: usize,
    /// Of unknown outcome.
    pub unknown: usize,
    /// Entries of the log.
    pub revisions: usize,
    /// From each leader's death to the next change that was asked for after it and done.
    pub outages_ms: Vec<u64>,
    /// Operations below which the run proves too little.
    pub least_operations: usize,
    /// Building the cluster.
    pub build_ms: u64,
    /// From the last mending until every member serves.
    pub healed_ms: u64,
    /// And until all replicas are at one revision, the clients' last calls included.
    pub converged_ms: u64,
    /// From the first process to the last record.
    pub wall_ms: u64,
    /// Judging.
    pub judged_ms: u64,
    /// Where logs were kept, where something is wrong.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Counts what clients saw.
    pub fn count(&mut self, evidence: &Evidence) {
        self.operations = evidence.history.len();
        self.revisions = evidence.log.len();
        for operation in &evidence.history {
            match operation.outcome {
                Outcome::Done { .. } => self.done += 1,
                Outcome::Refused { .. } => self.refused += 1,
                Outcome::Unknown => self.unknown += 1,
            }
        }
        self.outages_ms = self
            .faults
            .iter()
            .filter(|fault| fault.nemesis == "kill-leader")
            .filter_map(|fault| outage_us(&evidence.history, fault.began_us))
            .map(|us| us / 1_000)
            .collect();
        self.outages_ms.sort_unstable();
    }

    /// What is known now.
    pub fn verdict(&self) -> Verdict {
        if !self.findings.is_empty() {
            Verdict::Violated
        } else if self.uncovered().is_empty() {
            Verdict::Held
        } else {
            Verdict::NotCovered
        }
    }

    /// What was not reached.
    pub fn uncovered(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.operations < self.least_operations {
            missing.push(format!("{} of {} operations", self.operations, self.least_operations));
        }
        let struck = self.by_name();
        let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
        for name in &self.planned {
            *wanted.entry(name).or_default() += 1;
        }
        for (name, count) in wanted {
            let had = struck.get(name).copied().unwrap_or(0);
            if had < count {
                missing.push(format!("{had} of {count} {name}"));
            }
        }
        if self.done * 2 < self.operations {
            missing.push(format!("only {} of {} operations were done", self.done, self.operations));
        }
        missing
    }

    fn by_name(&self) -> BTreeMap<&'static str, usize> {
        let mut names = BTreeMap::new();
        for fault in &self.faults {
            *names.entry(fault.nemesis).or_default() += 1;
        }
        names
    }
}

/// From a moment to the first change that was asked for after it and done.
fn outage_us(history: &[Operation], from_us: u64) -> Option<u64> {
    let after =
        |one: &&Operation| one.called_us >= from_us && !one.call.is_read() && one.outcome.done().is_some();
    history.iter().filter(after).map(|one| one.returned_us).min().map(|returned_us| returned_us - from_us)
}

/// The value below which so many hundredths of a sorted list lie.
pub fn percentile(sorted: &[u64], hundredths: usize) -> u64 {
    let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> =
            self.by_name().iter().map(|(name, count)| format!("{count} {name}")).collect();
        writeln!(
            f,
            "seed {}: {:?}: {} operations ({} done, {} refused, {} unknown), {} revisions, {} faults ({}), {} violations, {:.1} s",
            self.seed,
            self.verdict(),
            self.operations,
            self.done,
            self.refused,
            self.unknown,
            self.revisions,
            self.faults.len(),
            faults.join(", "),
            self.findings.len(),
            self.wall_ms as f64 / 1_000.0,
        )?;
        if !self.outages_ms.is_empty() {
            let of = |hundredths| percentile(&self.outages_ms, hundredths);
            let count = self.outages_ms.len();
            writeln!(
                f,
                "  outage after {count} leader kills: p50 {} ms, p99 {} ms, max {} ms",
                of(50),
                of(99),
                of(100)
            )?;
        }
        writeln!(
            f,
            "  built in {} ms; after the last fault all serve in {} ms, equal in {} ms; judged in {} ms",
            self.build_ms, self.healed_ms, self.converged_ms, self.judged_ms
        )?;
        for (name, why) in &self.skipped {
            writeln!(f, "  skipped {name}: {why}")?;
        }
        for missing in self.uncovered() {
            writeln!(f, "  not covered: {missing}")?;
        }
        for finding in &self.findings {
            writeln!(f, "  VIOLATED {finding}")?;
        }
        if let Some(folder) = &self.kept {
            writeln!(f, "  logs are in {}", folder.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_told_apart() {
        let mut report = Report { operations: 10, done: 10, least_operations: 10, ..Report::default() };
        assert_eq!(report.verdict(), Verdict::Held);
        report.planned = vec!["kill-leader"];
        assert_eq!(report.verdict(), Verdict::NotCovered);
        report.findings.push(Finding { judge: "x", detail: String::new() });
        assert_eq!(report.verdict(), Verdict::Violated);
    }

    #[test]
    fn percentiles_are_values_of_the_list() {
        assert_eq!(percentile(&[1, 2, 3, 4], 50), 2);
        assert_eq!(percentile(&[1, 2, 3, 4], 99), 4);
        assert_eq!(percentile(&[], 50), 0);
    }
}
