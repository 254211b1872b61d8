//! `docs/scheduling.md` describes the strategies that there are: all of them, and no other.

use std::collections::BTreeSet;
use std::process::Command;

use crate::page;

#[test]
fn every_strategy_is_described() {
    let out = Command::new(plimsoll_tests::plimsoll())
        .args(["simulate", "--nodes", "none.csv", "--workload", "none.csv", "--strategy", "none"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let text = page::read("docs/scheduling.md");
    // The first table: others on the page list other things.
    let table = text.lines().skip_while(|line| !line.starts_with("| strategy |"));
    let listed: BTreeSet<&str> = table
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | ").map(|(name, _)| name))
        .collect();
    for name in [
        "greedy",
        "balanced",
        "priority",
        "first_fit",
        "best_fit",
        "worst_fit",
        "first_fit_decreasing",
        "random",
        "fragmentation",
        "optimized",
    ] {
        assert!(listed.contains(name), "{name} is not in the table");
        assert!(said.contains(name), "{name} is not offered: {said}");
    }
    assert_eq!(listed.len(), 10, "{listed:?}");
}
