//! The same seed gives the same run, in another process too; and a handful of seeds with faults pass, in which everything
//! that can happen does.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

/// Each of these found something once: 11, 17, 19 and 20 a leader that led on after a power cut without an election,
/// 25 and 41 a leader that span while its pipeline was full, 8 and 15 a log of which no replica had the beginning any more.
const SEEDS: [u64; 9] = [8, 11, 15, 17, 19, 20, 25, 41, 78];
/// What those did not do has to be done by some of these: which seed takes a seldom course changes with every message more.
const FURTHER_SEEDS: std::ops::Range<u64> = 57..73;
/// How long their load and faults last, in simulated seconds.
const SECONDS: u64 = 40;

/// Commands of the ledger, as coverage names them.
const COMMANDS: [&str; 26] = [
    "ApplyPolicy",
    "BecomeLeader",
    "Cancel",
    "Confirm",
    "Expire",
    "InterruptNode",
    "ObserveContention",
    "OpenIntent",
    "OpenWindows",
    "Place",
    "Preempt",
    "RegisterNode",
    "Release",
    "Relocate",
    "RemoveNode",
    "Renew",
    "Resize",
    "SetDesired",
    "SetDeviceHealth",
    "SetEndpoint",
    "SetNodeAdmin",
    "SetNodeHealth",
    "StepIntent",
    "Submit",
    "TakeTokens",
    "Upgrade",
];
/// Why reservations end, by which rules others leave, and what users have too little left of: as coverage names them.
const COURSES: [&str; 18] = [
    "Submit BudgetExhausted",
    "Submit LimitExceeded",
    "Submit ReservedByCalendar",
    "end Cancelled",
    "end Drained",
    "end MaxDuration",
    "end NeverStarted",
    "end NodeFailed",
    "end NodeFenced",
    "end NodeLost",
    "end NotConfirmed",
    "end NotRenewed",
    "end Preempted",
    "end Released",
    "end WaitedTooLong",
    "end WindowOpened",
    "notice LowerClass",
    "notice Reclaim",
];
/// What clients do in another way than one call for one request, and what happens to the cluster.
const CALLS: [&str; 9] =
    ["add-member", "apply", "delete", "drain", "fence", "fail", "replace-member", "take", "transfer"];
/// Faults that have to have happened.
const FAULTS: [&str; 8] = [
    "BitRot",
    "CrashAll",
    "CrashLeader",
    "FailSync",
    "IsolateLeader",
    "LoseAnswers",
    "SilenceAgent",
    "StepClock",
];

/// Calls that have to have been left in doubt.
const LEAST_UNKNOWN: u64 = 20;

/// What some seeds did together.
#[derive(Default)]
struct Covered {
    commands: BTreeSet<String>,
    courses: BTreeSet<String>,
    calls: BTreeSet<String>,
    faults: BTreeSet<String>,
    unknown: u64,
}

impl Covered {
    fn run(&mut self, seed: u64) {
        let said = passes(seed, SECONDS, &[]);
        self.commands.extend(counted(&said, "log"));
        self.courses.extend(courses(&said, "log"));
        self.calls.extend(counted(&said, "calls"));
        let happened = counted(&said, "faults");
        assert!(!happened.is_empty(), "seed {seed} had no faults: {said}");
        self.faults.extend(happened);
        let line = said.lines().find(|one| one.starts_with("unknown")).unwrap_or_default();
        self.unknown += line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
    }

    /// What is wanted and was not done.
    fn missing(&self) -> Vec<String> {
        let wanted = [
            (&COMMANDS[..], &self.commands),
            (&COURSES, &self.courses),
            (&CALLS, &self.calls),
            (&FAULTS, &self.faults),
        ];
        let missing =
            wanted.into_iter().flat_map(|(names, had)| names.iter().filter(|name| !had.contains(**name)));
        let mut missing: Vec<String> = missing.map(|name| (*name).to_owned()).collect();
        if self.unknown < LEAST_UNKNOWN {
            missing.push(format!("{LEAST_UNKNOWN} calls left in doubt: only {}", self.unknown));
        }
        missing
    }
}

fn run(seed: u64, seconds: u64, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulation"));
    command.args(["run", "--seed", &seed.to_string(), "--seconds", &seconds.to_string()]);
    command.args(more).output().expect("the simulation runs")
}

fn passes(seed: u64, seconds: u64, more: &[&str]) -> String {
    let output = run(seed, seconds, more);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn traced(seed: u64, folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(name);
    passes(seed, 10, &["--trace", path.to_str().expect("a path in UTF-8")]);
    std::fs::read(path).expect("the trace was written")
}

/// What a line of the report counts, without the numbers.
fn courses(said: &str, line: &str) -> Vec<String> {
    let line = said.lines().find(|one| one.starts_with(line)).unwrap_or_default();
    let counts = line.split_once(": ").map_or("", |(_, counts)| counts);
    let named = counts.split([',', ';']).filter_map(|one| one.trim().rsplit_once(' '));
    named.map(|(name, _)| name.to_owned()).collect()
}

/// The first words of it.
fn counted(said: &str, line: &str) -> Vec<String> {
    let first = |one: String| one.split_whitespace().next().map(str::to_owned);
    courses(said, line).into_iter().filter_map(first).collect()
}

#[test]
fn a_seed_decides_every_byte_of_the_trace() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = traced(1, folder.path(), "first");
    assert!(
        first == traced(1, folder.path(), "second"),
        "two processes differ: simulation meta --seed 1 says where"
    );
    assert!(first != traced(2, folder.path(), "other"), "another seed must give another run");
}

#[test]
fn seeds_with_faults_pass_and_cover_everything() {
    let mut covered = Covered::default();
    for seed in SEEDS {
        covered.run(seed);
    }
    for seed in FURTHER_SEEDS {
        if covered.missing().is_empty() {
            break;
        }
        covered.run(seed);
    }
    assert_eq!(covered.missing(), Vec::<String>::new(), "no seed did that");
}

#[test]
fn a_run_that_is_sabotaged_fails_and_says_how_to_have_it_again() {
    for sabotage in ["lose-grant", "deny-success", "diverge", "skip-event"] {
        let output = run(4, 4, &["--sabotage", sabotage]);
        assert!(!output.status.success(), "{sabotage} was not noticed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("run --seed 4 --seconds 4"), "{said}");
    }
}
