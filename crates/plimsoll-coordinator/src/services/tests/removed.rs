//! A coordinator that was taken out of the cluster and runs on: it shows nothing of the past as the present, and says
//! whom to ask.

use plimsoll_proto::v1::watch_service_client::WatchServiceClient;
use plimsoll_proto::v1::{self, ErrorReason};

use super::harness::*;

#[tokio::test]
async fn one_that_was_taken_out_ends_its_watches_and_points_at_the_members() {
    let mut all = three().await;
    let (leader, removed) = (&all[0], &all[1]);
    let mut stream = WatchServiceClient::new(removed.channel.clone())
        .watch(v1::WatchRequest { progress_interval_ms: 100, ..Default::default() })
        .await
        .expect("a member has watchers")
        .into_inner();
    within(stream.message()).await.expect("open").expect("how far it is");
    let remove = v1::RemoveMemberRequest { id: 2, ..Default::default() };
    leader.cluster().remove_member(remove).await.expect("two are left");

    let ended = within(async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => return status,
            }
        }
    })
    .await;
    let said = details(&ended);
    assert_eq!((ended.code(), said.reason), (tonic::Code::Unavailable, ErrorReason::Unavailable));
    let members = format!("{},{}", leader.address, all[2].address);
    assert_eq!(said.metadata.get("members"), Some(&members), "{said:?}");
    assert_eq!(said.metadata.get("leader"), Some(&leader.address));

    let listed = removed.cluster().list_members(v1::ListMembersRequest::default()).await;
    assert_eq!(details(&listed.expect_err("it does not know")).metadata.get("members"), Some(&members));
    let read = removed.nodes().list_nodes(v1::ListNodesRequest::default()).await;
    assert_eq!(details(&read.expect_err("it is not current")).metadata.get("members"), Some(&members));
    let stale = v1::ListNodesRequest { consistency: v1::Consistency::Stale.into(), ..Default::default() };
    removed.nodes().list_nodes(stale).await.expect("who wants the past may have it");
    let now = leader.cluster().list_members(v1::ListMembersRequest::default()).await.expect("a member");
    assert_eq!(now.into_inner().members.len(), 2);
    for served in all.drain(..) {
        served.stop().await;
    }
}
