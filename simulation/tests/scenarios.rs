//! The named scenarios pass, each with the faults that it is made of.

use std::process::Command;

use plimsoll_simulation::scenario::SCENARIOS;

/// How long load and faults of each last, in simulated seconds.
const SECONDS: u64 = 15;

#[test]
fn the_classic_bugs_of_raft_implementations_are_not_here() {
    for scenario in SCENARIOS {
        let mut command = Command::new(env!("CARGO_BIN_EXE_simulation"));
        command.args(["run", "--seed", &scenario.seed.to_string(), "--seconds", &SECONDS.to_string()]);
        let output = command.args(["--scenario", scenario.name]).output().expect("the simulation runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let against = scenario.against;
        assert!(output.status.success(), "{against}\n{}", String::from_utf8_lossy(&output.stderr));
        let faults = said.lines().find(|line| line.starts_with("faults")).unwrap_or_default();
        for step in scenario.round {
            assert!(
                faults.contains(&format!("{:?} ", step.fault)),
                "{against}: no {:?} in {faults}",
                step.fault
            );
        }
    }
}
