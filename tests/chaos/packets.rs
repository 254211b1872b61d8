//! A short run over the switch: packets between members are lost, doubled and overtaken, and a leader is cut off, under load.

use std::time::Duration;

use plimsoll_tests::chaos::nemesis;
use plimsoll_tests::chaos::net::tun;
use plimsoll_tests::chaos::report::Verdict;
use plimsoll_tests::chaos::run::{Schedule, run};
use plimsoll_tests::chaos::setup::{Carrier, Setup};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_property_holds_while_packets_are_lost_doubled_and_overtaken() {
    if let Some(why) = tun::forbidden() {
        eprintln!("skipped lose-packets, duplicate-packets, reorder-packets: {why}");
        return;
    }
    let order = vec!["lose-packets", "cut-leader", "reorder-packets", "duplicate-packets"];
    let names: Vec<String> = order.iter().map(|name| (*name).to_owned()).collect();
    let schedule = Schedule {
        seed: 11,
        setup: Setup { carrier: Carrier::Tun, ..Setup::default() },
        nemeses: nemesis::named(&names).expect("these are their names"),
        order,
        length: Duration::ZERO,
        clients: 8,
        pause_ms: 10,
        is_loud: true,
        least_operations: 1_000,
    };
    let report = run(schedule).await.expect("the harness does its part");
    println!("{report}");
    assert_eq!(report.verdict(), Verdict::Held, "{report}");
}
