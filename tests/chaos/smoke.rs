//! The smoke of every commit: leader kills, partitions, a pause, under load; a minute of it.

use std::time::Duration;

use plimsoll_tests::chaos::nemesis;
use plimsoll_tests::chaos::report::Verdict;
use plimsoll_tests::chaos::run::{Schedule, run};
use plimsoll_tests::chaos::setup::Setup;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_property_holds_through_kills_partitions_and_a_pause() {
    let order = vec![
        "kill-leader",
        "cut-leader",
        "kill-leader",
        "pause-leader",
        "kill-leader",
        "deaf-leader",
        "kill-leader",
        "reset",
        "kill-follower",
    ];
    let names: Vec<String> = order.iter().map(|name| (*name).to_owned()).collect();
    let schedule = Schedule {
        seed: 7,
        setup: Setup::default(),
        nemeses: nemesis::named(&names).expect("these are their names"),
        order,
        length: Duration::ZERO,
        clients: 16,
        pause_ms: 10,
        is_loud: true,
        least_operations: 5_000,
    };
    let report = run(schedule).await.expect("the harness does its part");
    println!("{report}");
    assert_eq!(report.verdict(), Verdict::Held, "{report}");
}
