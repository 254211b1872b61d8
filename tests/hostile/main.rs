//! Hostile clients and failing disks on one real coordinator process: it stays up, serves everybody else in time, keeps its
//! memory, and says why it hung up where that can be said. Its limits are those of `docs/limits.md`.

mod connections;
mod disk;
#[path = "../cluster/fleet.rs"]
mod fleet;
mod flood;
mod frames;
mod messages;
mod unread;

use std::time::Duration;

use plimsoll_tests::hostile::{Pulse, Target};

/// The longest that a call of somebody else may take during an attack. On two cores that the attacker has, too, and that run
/// other tests beside it.
const BOUND: Duration = Duration::from_secs(5);

/// A coordinator with two nodes, and a well-behaved client that calls it all the time.
async fn stage(config: &str) -> (Target, fleet::Running, Pulse) {
    let target = Target::start(config).await;
    let nodes = fleet::register(std::slice::from_ref(&target.address), fleet::small(2)).await;
    let pulse = Pulse::start(&target.address);
    tokio::time::sleep(Duration::from_millis(300)).await;
    (target, nodes, pulse)
}

/// It runs, served everybody else in time, and has taken no more than `most_mib` more memory than before.
async fn assert_unharmed(target: &mut Target, pulse: Pulse, before_mib: u64, most_mib: u64) {
    assert!(target.exit().is_none(), "it ended: {}", target.log());
    pulse.finish().await.assert_within(BOUND);
    let (now, peak) = target.memory_mib();
    println!("memory: {before_mib} MiB before, {now} now, {peak} at most");
    assert!(
        peak <= before_mib + most_mib,
        "it took {peak} MiB, {before_mib} before, {most_mib} more are allowed"
    );
    assert!(!target.log().contains("panicked"), "{}", target.log());
}
