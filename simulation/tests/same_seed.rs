//! The same seed gives the same run, in another process too; and a handful of seeds with faults pass.

use std::path::Path;
use std::process::{Command, Output};

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
    passes(seed, 5, &["--trace", path.to_str().expect("a path in UTF-8")]);
    std::fs::read(path).expect("the trace was written")
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
fn eight_seeds_with_faults_pass() {
    let mut faults = 0;
    // Each of these found something once: 11, 17, 19 and 20 a leader that led on after a power cut without an election,
    // 25 and 41 a leader that span while its pipeline was full, 8 and 15 a log of which no replica had the beginning any more.
    for seed in [8, 11, 15, 17, 19, 20, 25, 41] {
        let said = passes(seed, 8, &[]);
        faults += said.lines().filter(|line| line.starts_with("faults") && !line.contains(" 0: ")).count();
    }
    assert_eq!(faults, 8, "every run had faults");
}

#[test]
fn a_run_that_is_sabotaged_fails_and_says_how_to_have_it_again() {
    for sabotage in ["lose-grant", "deny-success", "diverge"] {
        let output = run(3, 2, &["--sabotage", sabotage]);
        assert!(!output.status.success(), "{sabotage} was not noticed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("run --seed 3 --seconds 2"), "{said}");
    }
}
