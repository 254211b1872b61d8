//! A member comes back with an old copy of its data, as a machine that is rolled back does: it has forgotten what it promised.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll_tests::Cluster;

use crate::failover::one_core;
use crate::fleet;

/// Exit code of a coordinator that must not go on.
const FAULT: i32 = 70;

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "{} to {}", from.display(), to.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_on_an_old_copy_of_its_data_stops_and_says_so() {
    let mut cluster = Cluster::start(3).await;
    let _nodes = fleet::register(&cluster.addresses(), fleet::small(4)).await;
    let client = cluster.client().await;
    for index in 0..10 {
        client.create_reservation(one_core(format!("before-{index}"))).await.expect("granted");
    }
    let leader = cluster.leader().await;
    let back = (1..=3).find(|id| *id != leader).expect("two follow");
    let old = cluster.root().join("old-copy");
    cluster.member_mut(back).kill();
    copy(cluster.member(back).data(), &old);
    cluster.member_mut(back).restart();
    for index in 0..20 {
        client.create_reservation(one_core(format!("later-{index}"))).await.expect("granted");
    }
    // All three have all of it, so the one has acknowledged it.
    cluster.assert_digests_equal().await;
    assert_eq!(cluster.leader().await, leader, "who heard the promise leads");
    cluster.member_mut(back).kill();
    cluster.member(back).wipe();
    let data = cluster.member(back).data().to_owned();
    copy(&old, &data);
    cluster.member_mut(back).restart();
    let exit = cluster.member_mut(back).wait_exit(Duration::from_secs(30));
    let log = cluster.member(back).log();
    assert_eq!(exit.and_then(|exit| exit.code()), Some(FAULT), "{log}");
    assert!(log.contains("old copy") && log.contains("cluster replace"), "{log}");
    client.create_reservation(one_core("after".to_owned())).await.expect("two of three are enough");
    // Nobody starts it again before somebody has looked.
    cluster.member_mut(back).restart();
    let began = Instant::now();
    assert!(cluster.member_mut(back).wait_exit(Duration::from_secs(30)).is_some(), "{:?}", began.elapsed());
}
