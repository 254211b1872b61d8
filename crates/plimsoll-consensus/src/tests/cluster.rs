//! Groups of three on loopback.

use std::time::Duration;

use super::fixture::{Member, three, until};
use crate::{Error, ProposeError};

fn leader(members: &[Member]) -> usize {
    members.iter().position(|member| member.group.is_leader()).expect("somebody leads")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_the_leader_and_a_restart() {
    let root = tempfile::tempdir().expect("a directory");
    let mut members = three(root.path(), 100_000).await;
    let proposals = (0..1_000).map(|item| members[0].propose(item));
    let acknowledged = futures_util::future::join_all(proposals).await;
    assert!(acknowledged.iter().all(|ok| *ok));
    let dead = members.remove(leader(&members));
    let (dead_id, dead_address) = (dead.group.node_id(), dead.address);
    dead.stop().await;
    until("another leader", || members.iter().any(|member| member.group.is_leader())).await;
    assert!(members[leader(&members)].propose(1_000).await);
    let back =
        Member::start(dead_id, &root.path().join(dead_id.to_string()), Some(dead_address), 100_000).await;
    until("catch-up", || back.items().len() == 1_001).await;
    assert_eq!(back.items(), (0..=1_000).collect::<Vec<_>>(), "in the order proposed, each once");
    members.push(back);
    for member in members {
        until("all equal", || member.items().len() == 1_001).await;
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_linearizable_from_every_member() {
    let root = tempfile::tempdir().expect("a directory");
    let members = three(root.path(), 100_000).await;
    for item in 0..20 {
        assert!(members[0].propose(item).await);
        for member in &members {
            member.group.linearize().await.expect("a read index");
            assert_eq!(member.items().len() as u64, item + 1, "node {}", member.group.node_id());
        }
    }
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_refuses_proposals_and_names_the_leader() {
    let root = tempfile::tempdir().expect("a directory");
    let members = three(root.path(), 100_000).await;
    until("followers know", || members[1].group.leader().is_some()).await;
    let refused = members[1].group.propose(crate::Payload::default()).await;
    let leader = Some((1, members[0].address.to_string()));
    assert_eq!(refused, Err(ProposeError::NotLeader { leader }));
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_replaced_and_leadership_moves_under_load() {
    let root = tempfile::tempdir().expect("a directory");
    let mut members = three(root.path(), 50).await;
    let fourth = Member::start(4, &root.path().join("4"), None, 50).await;
    let load = async {
        let mut acknowledged = Vec::new();
        for item in 0..400 {
            if members[0].propose(item).await {
                acknowledged.push(item);
            }
        }
        acknowledged
    };
    let change = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        members[0].group.replace(3, 4, fourth.info()).await
    };
    let (acknowledged, changed) = tokio::join!(load, change);
    changed.expect("one change at a time is allowed");
    assert_eq!(acknowledged.len(), 400);
    assert_eq!(members[0].group.metrics().voters, [1, 2, 4]);
    assert!(!members[0].group.metrics().joint);
    until("the new member has all", || fourth.items().len() == 400).await;
    assert!(matches!(members[0].group.remove(9).await, Err(Error::NoSuchMember(9))));
    members[0].group.transfer_leader(Some(4)).await.expect("it is asked to lead");
    until("the new member leads", || fourth.group.is_leader()).await;
    assert!(fourth.propose(400).await);
    members.push(fourth);
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_gets_a_snapshot_where_the_log_is_gone() {
    let root = tempfile::tempdir().expect("a directory");
    let members = three(root.path(), 20).await;
    for item in 0..200 {
        assert!(members[0].propose(item).await);
    }
    until("the log was purged", || members[0].group.metrics().purged > 100).await;
    let late = Member::start(4, &root.path().join("4"), None, 20).await;
    members[0].group.add_learner(4, late.info()).await.expect("it learns");
    until("all rows", || late.items().len() == 200).await;
    assert_eq!(late.items(), (0..200).collect::<Vec<_>>());
    assert!(late.group.metrics().snapshot > 0);
    late.stop().await;
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_cluster_is_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let ours = Member::start(1, &root.path().join("1"), None, 100).await;
    ours.group.initialize().await.expect("a new group");
    until("it leads", || ours.group.is_leader()).await;
    assert!(matches!(ours.group.initialize().await, Err(Error::AlreadyInitialized)));
    let stranger = Member::start_as("other", 'a', 2, &root.path().join("2"), None, 100).await;
    let refused = ours.group.add_voter(2, stranger.info()).await;
    assert!(matches!(refused, Err(Error::Unusable { .. })), "{refused:?}");
    assert!(!ours.group.metrics().voters.contains(&2));
    assert!(stranger.items().is_empty());
    stranger.stop().await;
    ours.stop().await;
}
