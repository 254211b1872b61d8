//! A member is replaced while clients go on.

use plimsoll_client::v1;
use plimsoll_tests::Cluster;

use crate::failover::{live, one_core};
use crate::fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_replaced_under_load() {
    let mut cluster = Cluster::start(3).await;
    let _nodes = fleet::register(&cluster.addresses(), fleet::small(8)).await;
    let client = cluster.client().await;
    let load = {
        let client = client.clone();
        tokio::spawn(async move {
            for index in 0..200 {
                client.create_reservation(one_core(format!("load-{index}"))).await.expect("granted");
            }
        })
    };
    cluster.spawn(4, false);
    let leader = cluster.leader().await;
    let gone = (1..=3).find(|id| *id != leader).expect("a follower");
    let new = cluster.member(4).address.clone();
    let mut replaced = cluster.cli(&["cluster", "replace", &gone.to_string(), &new]);
    for _ in 0..50 {
        if replaced.status.success() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        replaced = cluster.cli(&["cluster", "replace", &gone.to_string(), &new]);
    }
    assert!(replaced.status.success(), "{}", String::from_utf8_lossy(&replaced.stderr));
    load.await.expect("no call failed");
    cluster.member_mut(gone).kill();
    cluster.members.retain(|member| member.id != gone);
    let members = client.list_members(v1::ListMembersRequest::default()).await.expect("a list").members;
    let mut ids: Vec<u64> = members.iter().map(|member| member.id).collect();
    ids.sort_unstable();
    let mut expected: Vec<u64> = (1..=4).filter(|id| *id != gone).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected);
    assert_eq!(live(&cluster.client().await).await.len(), 200);
    cluster.assert_digests_equal().await;
}
