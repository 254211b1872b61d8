//! Changes of members that overlap, are cut short, or bring back a node without its disk.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt as _;
use openraft::ChangeMembers;

use super::fixture::{Member, three, until};
use crate::{Error, GroupConfig, NodeInfo, Payload};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_change_is_refused_while_one_is_under_way() {
    let root = tempfile::tempdir().expect("a directory");
    let members = three(root.path(), 100_000).await;
    // Accepts connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("a bound port").to_string();
    let slow = members[0].group.add_voter(9, NodeInfo { address, incarnation: String::new() });
    let second = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        members[0].group.remove(3).await
    };
    let (slow, second) = tokio::join!(slow, second);
    assert!(matches!(slow, Err(Error::Unusable { id: 9, .. })), "{slow:?}");
    assert!(matches!(second, Err(Error::ChangeInProgress)), "{second:?}");
    members[0].group.remove(3).await.expect("the way is free again");
    assert_eq!(members[0].group.metrics().voters, [1, 2]);
    assert!(matches!(members[1].group.remove(1).await, Err(Error::NotLeader { .. })));
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_nobody_waits_for_any_more_is_finished() {
    let root = tempfile::tempdir().expect("a directory");
    let one = Member::start(1, &root.path().join("1"), None, 100_000).await;
    one.group.initialize().await.expect("a new group");
    until("it leads", || one.group.is_leader()).await;
    let two = Member::start(2, &root.path().join("2"), None, 100_000).await;
    one.group.add_learner(2, two.info()).await.expect("it learns");
    let address = two.address;
    two.stop().await;
    // Between the two sets of voters nothing is decided without the member that is away; then the caller goes.
    let group = one.group.clone();
    let change = tokio::spawn(async move {
        let add = ChangeMembers::AddVoterIds(BTreeSet::from([2]));
        drop(group.scoped(group.raft().change_membership(add, false)).await);
    });
    until("two sets of voters", || one.group.metrics().joint).await;
    change.abort();
    drop(change.await);
    let two = Member::start(2, &root.path().join("2"), Some(address), 100_000).await;
    until("one set of voters", || !one.group.metrics().joint).await;
    assert_eq!(one.group.metrics().voters, [1, 2]);
    until("a leader", || one.group.is_leader() || two.group.is_leader()).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_disk_counts_only_after_it_was_added_again() {
    let root = tempfile::tempdir().expect("a directory");
    let mut members = three(root.path(), 100_000).await;
    assert!(members[0].propose(0).await);
    let lost = members.pop().expect("three members");
    let address = lost.address;
    lost.stop().await;
    let wiped = Member::start_as("test", 'b', 3, &root.path().join("3-again"), Some(address), 100_000).await;
    for item in 1..50 {
        assert!(members[0].propose(item).await, "two of three go on");
    }
    assert!(wiped.items().is_empty(), "the members know another incarnation");
    assert_eq!(wiped.group.metrics().last_log, 0);
    members[0].group.remove(3).await.expect("the lost one goes");
    members[0].group.add_voter(3, wiped.info()).await.expect("the wiped one joins");
    until("it has all", || wiped.items().len() == 50).await;
    assert_eq!(members[0].group.metrics().voters, [1, 2, 3]);
    members.push(wiped);
    for member in members {
        member.stop().await;
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_on_an_old_copy_of_its_data_is_found_out_and_one_that_was_only_away_is_not() {
    let root = tempfile::tempdir().expect("a directory");
    let mut members = three(root.path(), 100_000).await;
    assert!(members[0].group.is_leader());
    for item in 0..20 {
        assert!(members[0].propose(item).await);
    }
    let (own, old) = (root.path().join("3"), root.path().join("3-old"));
    let mut third = members.pop().expect("three members");
    until("it has all", || third.items().len() == 20).await;
    let address = third.address;
    third.stop().await;
    copy(&own, &old);
    for from in [20, 40] {
        third = Member::start(3, &own, Some(address), 100_000).await;
        for item in from..from + 20 {
            assert!(members[0].propose(item).await);
        }
        let count = usize::try_from(from).expect("small") + 20;
        until("it has all", || third.items().len() == count).await;
        assert!(third.group.lost().now_or_never().is_none(), "it has lost nothing");
        third.stop().await;
    }
    third = Member::start(3, &old, Some(address), 100_000).await;
    let lost = tokio::time::timeout(Duration::from_secs(20), third.group.lost()).await.expect("found out");
    assert!(lost.contains("old copy"), "{lost}");
    assert!(members[0].propose(60).await, "two of three go on");
    assert!(third.items().len() <= 20, "it takes nothing any more");
    third.stop().await;
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_away_does_not_hold_the_log() {
    let root = tempfile::tempdir().expect("a directory");
    let mut members = three(root.path(), 20).await;
    let away = members.pop().expect("three members");
    let address = away.address;
    away.stop().await;
    for item in 0..300 {
        assert!(members[0].propose(item).await);
    }
    until("the log was purged", || members[0].group.metrics().purged > 150).await;
    let back = Member::start(3, &root.path().join("3"), Some(address), 20).await;
    until("it has all", || back.items().len() == 300).await;
    assert_eq!(back.items(), (0..300).collect::<Vec<_>>());
    members.push(back);
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_large_entries_is_kept_short() {
    let root = tempfile::tempdir().expect("a directory");
    let config = GroupConfig { max_log_bytes: 1 << 20, keep_logs: 10_000, ..GroupConfig::default() };
    let one = Member::configured(config, 'a', root.path(), None).await;
    one.group.initialize().await.expect("a new group");
    until("it leads", || one.group.is_leader()).await;
    for _ in 0..40 {
        let payload = Payload { bytes: vec![7; 100 << 10].into(), decoded: None };
        one.group.propose(payload).await.expect("applied");
    }
    until("most of it is gone", || one.group.metrics().purged > 30).await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_voter_comes_back_with_everything_it_acknowledged() {
    let root = tempfile::tempdir().expect("a directory");
    let one = Member::start(1, root.path(), None, 20).await;
    one.group.initialize().await.expect("a new group");
    until("it leads", || one.group.is_leader()).await;
    for item in 0..100 {
        assert!(one.propose(item).await);
    }
    one.stop().await;
    let one = Member::start(1, root.path(), None, 20).await;
    until("it leads again", || one.group.is_leader()).await;
    one.group.linearize().await.expect("a read");
    assert_eq!(one.items(), (0..100).collect::<Vec<_>>());
    one.stop().await;
}
