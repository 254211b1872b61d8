//! What a run prints: what it did, how fast, and what is wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::cpu::cpu_ms;
use crate::oracle::{Settled, Verdict, judge};
use crate::sabotage::{self, Sabotage};
use crate::world::{Ended, Options};

/// A judged run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Everything worth printing.
    pub text: String,
    /// What is wrong; empty is good.
    pub failures: Vec<String>,
}

/// Judges what is left of a run.
pub fn report(options: &Options, ended: &Ended, panics: Vec<String>, sabotage: Option<Sabotage>) -> Report {
    let mut calls = ended.board.history.calls();
    let mut failures: Vec<String> = panics.into_iter().map(|panic| format!("panic: {panic}")).collect();
    failures.extend(ended.failure.clone());
    failures.extend(ended.board.take_findings());
    let mut verdict = Verdict::default();
    match ended.board.take_evidence() {
        Some(mut evidence) => {
            if let Some(sabotage) = sabotage {
                sabotage::apply(sabotage, &mut evidence, &mut calls);
            }
            for record in evidence.log().values() {
                let chain = plimsoll_proto::digest::hex(&record.chain);
                ended.board.trace.add(record.log_time.0, format_args!("log {} {chain}", record.revision));
            }
            verdict = judge(&calls, &evidence);
        }
        None if failures.is_empty() => failures.push("no evidence was collected".to_owned()),
        None => {}
    }
    failures.extend(verdict.findings.list().iter().map(ToString::to_string));
    for failure in &failures {
        ended.board.trace.add(ended.simulated_ms, format_args!("FAILED {failure}"));
    }
    let text = describe(options, ended, &verdict);
    Report { text, failures }
}

/// The one line that reproduces a run.
pub fn reproduce(seed: u64, seconds: u64) -> String {
    format!("cargo run -p plimsoll-simulation -- run --seed {seed} --seconds {seconds}")
}

fn describe(options: &Options, ended: &Ended, verdict: &Verdict) -> String {
    let mut text = String::new();
    let cpu_ms = cpu_ms();
    let (hash, lines) = ended.board.trace.finish();
    let per_second = u128::from(ended.simulated_ms) * 10 / u128::from(cpu_ms.max(1));
    let faults: BTreeMap<String, u64> =
        ended.faults.counts().iter().map(|(fault, count)| (format!("{fault:?}"), *count)).collect();
    let total: u64 = faults.values().sum();
    let calls = ended.board.history.counts();
    let made: u64 = calls.values().sum();
    let elections = ended.board.elections();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<12} {value}").expect("a string takes everything");
    };
    line("seed", options.seed.to_string());
    line(
        "simulated",
        format!(
            "{} ms in {cpu_ms} ms of CPU: {}.{} times ({} ms running, {} ms judging)",
            ended.simulated_ms,
            per_second / 10,
            per_second % 10,
            ended.cpu_ms,
            cpu_ms.saturating_sub(ended.cpu_ms)
        ),
    );
    line("faults", format!("{total}: {}; {elections} times somebody began to lead", list(&faults)));
    line("calls", format!("{made}: {}", list(&calls)));
    let Settled { applied, refused, absent, elsewhere } = verdict.unknown;
    line(
        "unknown",
        format!(
            "{} calls: {applied} took effect, {refused} were refused, {absent} are not in the log, {elsewhere} were about members",
            applied + refused + absent + elsewhere
        ),
    );
    line("log", format!("{} commands: {}", verdict.commands, list(&verdict.coverage)));
    let cloud: BTreeMap<String, u64> =
        ended.board.cloud.counts().into_iter().map(|(what, count)| (what.to_owned(), count)).collect();
    line("machines", list(&cloud));
    line("watches", format!("{} segments of {} events", verdict.segments, verdict.watched));
    line("refusals", list(&reasons(&calls)));
    line("trace", format!("{hash} over {lines} lines"));
    text
}

/// How often clients were refused for each reason.
fn reasons(calls: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for (name, count) in calls {
        if let Some((_, reason)) = name.split_once(" refused/") {
            *reasons.entry(reason.to_owned()).or_default() += count;
        }
    }
    reasons
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
