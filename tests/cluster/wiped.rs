//! A member comes back with an empty disk: it is not the one that promised, and does not count until it is replaced.

use std::time::{Duration, Instant};

use plimsoll_client::v1;
use plimsoll_tests::Cluster;

use crate::failover::{live, one_core};
use crate::fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_does_not_count_until_it_is_replaced() {
    let mut cluster = Cluster::start(3).await;
    let _nodes = fleet::register(&cluster.addresses(), fleet::small(4)).await;
    let client = cluster.client().await;
    for index in 0..20 {
        client.create_reservation(one_core(format!("before-{index}"))).await.expect("granted");
    }
    let leader = cluster.leader().await;
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let (wiped, other) = (followers[0], followers[1]);
    cluster.member_mut(wiped).kill();
    cluster.member(wiped).wipe();
    cluster.member_mut(wiped).restart();
    wait_for_log(&cluster, wiped, &format!("cluster replace {wiped}"));

    // It does not vote or acknowledge: with the third member gone as well there is no quorum.
    cluster.member_mut(other).kill();
    let alone = client.create_reservation(one_core("alone".to_owned()));
    let alone = tokio::time::timeout(Duration::from_secs(5), alone).await;
    assert!(!matches!(alone, Ok(Ok(_))), "acknowledged by a quorum that was none: {alone:?}");
    cluster.member_mut(other).restart();
    client.create_reservation(one_core("again".to_owned())).await.expect("two of three are enough");

    let address = cluster.member(wiped).address.clone();
    let joined = cluster.cli(&["cluster", "join", &address]);
    let said = String::from_utf8_lossy(&joined.stderr).into_owned();
    assert!(!joined.status.success() && said.contains("cluster replace"), "{said}");

    cluster.spawn(4, false);
    let new = cluster.member(4).address.clone();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let replaced = cluster.cli(&["cluster", "replace", &wiped.to_string(), &new]);
        if replaced.status.success() {
            break;
        }
        let said = String::from_utf8_lossy(&replaced.stderr).into_owned();
        assert!(Instant::now() < deadline, "{said}");
        std::thread::sleep(Duration::from_millis(200));
    }
    cluster.member_mut(wiped).kill();
    cluster.members.retain(|member| member.id != wiped);
    let client = cluster.client().await;
    client.create_reservation(one_core("after".to_owned())).await.expect("granted");
    let members = client.list_members(v1::ListMembersRequest::default()).await.expect("a list").members;
    let all_known = members.iter().all(|member| !member.incarnation.is_empty());
    assert!(members.len() == 3 && all_known, "{members:?}");
    let names: Vec<String> =
        live(&client).await.into_values().filter_map(|r| r.spec.map(|spec| spec.name)).collect();
    for name in (0..20).map(|index| format!("before-{index}")).chain(["again".into(), "after".into()]) {
        assert!(names.contains(&name), "{name} was acknowledged, and is not there: {names:?}");
    }
    cluster.assert_digests_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_another_node_is_refused_by_name() {
    let mut cluster = Cluster::start(1).await;
    cluster.member_mut(1).kill();
    cluster.member_mut(1).id = 7;
    cluster.member_mut(7).restart();
    wait_for_log(&cluster, 7, "is the data of node 1 of cluster \"e2e\", and this is node 7");
}

fn wait_for_log(cluster: &Cluster, id: u64, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !cluster.member(id).log().contains(what) {
        assert!(Instant::now() < deadline, "{what:?} was never said:\n{}", cluster.member(id).log());
        std::thread::sleep(Duration::from_millis(100));
    }
}
