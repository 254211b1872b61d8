//! A command of a later version stops a coordinator, and is never skipped.

use std::process::Command;

#[test]
fn a_command_that_nobody_knows_stops_every_coordinator_that_would_apply_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulation"));
    let output = command.args(["run", "--seed", "5", "--seconds", "3", "--unknown-command"]).output();
    let output = output.expect("the simulation runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "they went on as if nothing had happened");
    assert!(said.contains("a committed entry cannot be decoded"), "{said}");
    // Whoever skips it is behind or ahead of those that do not, or serves on.
    for wrong in ["FAILED seed 5: I1", "FAILED seed 5: I9", "FAILED seed 5: I12", "FAILED seed 5: I13"] {
        assert!(!said.lines().any(|line| line.starts_with(&format!("{wrong}:"))), "{said}");
    }
}
