//! Policy objects and the cluster service.

use plimsoll_proto::v1;
use plimsoll_proto::v1::cluster_service_client::ClusterServiceClient;
use plimsoll_proto::v1::policy_service_client::PolicyServiceClient;
use plimsoll_proto::v1::{ErrorReason, MemberRole, PolicyKind};

use super::harness::*;

fn pool(name: &str) -> v1::PolicyObject {
    let pool = v1::Pool { name: name.to_owned(), ..Default::default() };
    v1::PolicyObject { object: Some(v1::policy_object::Object::Pool(pool)) }
}

#[tokio::test]
async fn policy_changes_are_all_or_nothing_and_guarded_by_a_revision() {
    let served = single().await;
    let mut client = PolicyServiceClient::new(served.channel.clone());
    let apply = v1::ApplyPolicyRequest { objects: vec![pool("gpu"), pool("batch")], ..Default::default() };
    let applied = client.apply_policy(apply).await.expect("applied").into_inner();
    let bad =
        v1::ApplyPolicyRequest { objects: vec![pool("more"), pool("NOT A NAME")], ..Default::default() };
    let refused = client.apply_policy(bad).await.expect_err("one is wrong");
    assert_eq!(details(&refused).reason, ErrorReason::InvalidPolicy);

    let page = v1::ListPoolsRequest { page_size: 2, ..Default::default() };
    let first = client.list_pools(page.clone()).await.expect("a page").into_inner();
    let names: Vec<_> = first.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!((names, first.policy_revision), (vec!["batch", "default"], applied.revision));
    let page = v1::ListPoolsRequest { page_token: first.next_page_token, ..page };
    let second = client.list_pools(page).await.expect("a page").into_inner();
    assert_eq!((second.pools.len(), second.pools[0].name.as_str()), (1, "gpu"));
    assert_eq!(second.statuses.len(), 1);

    let names = vec![v1::PolicyName { kind: PolicyKind::Pool.into(), name: "gpu".to_owned() }];
    let moved = v1::DeletePolicyRequest {
        names: names.clone(),
        if_revision: applied.revision - 1,
        ..Default::default()
    };
    let moved = client.delete_policy(moved).await.expect_err("it moved");
    assert_eq!(details(&moved).reason, ErrorReason::RevisionMoved);
    let delete = v1::DeletePolicyRequest { names, if_revision: applied.revision, ..Default::default() };
    client.delete_policy(delete).await.expect("deleted");
    let get = v1::GetPoolRequest { name: "gpu".to_owned(), ..Default::default() };
    assert_eq!(client.get_pool(get).await.expect_err("gone").code(), tonic::Code::NotFound);
    let get = v1::GetClassRequest { name: "standard".to_owned(), ..Default::default() };
    assert_eq!(client.get_class(get).await.expect("there").into_inner().class.expect("shown").priority, 50);
    served.stop().await;
}

#[tokio::test]
async fn the_cluster_service_tells_how_a_coordinator_is() {
    let served = single().await;
    let mut client = ClusterServiceClient::new(served.channel.clone());
    let status = client.get_status(v1::GetStatusRequest::default()).await.expect("answered").into_inner();
    let status = status.status.expect("a status");
    assert_eq!((status.role(), status.node_id, status.cluster_id.as_str()), (MemberRole::Leader, 1, "test"));
    assert!(status.serving && status.revision > 0 && status.chain_hash.len() == 32);
    let members =
        client.list_members(v1::ListMembersRequest::default()).await.expect("answered").into_inner();
    assert_eq!((members.members.len(), members.members[0].address.as_str()), (1, served.address.as_str()));
    let again =
        client.bootstrap_cluster(v1::BootstrapClusterRequest::default()).await.expect_err("it is one");
    assert_eq!(again.code(), tonic::Code::AlreadyExists);
    let remove = v1::RemoveMemberRequest { id: 1, ..Default::default() };
    assert_eq!(
        client.remove_member(remove).await.expect_err("the only one").code(),
        tonic::Code::InvalidArgument
    );
    let add = v1::AddMemberRequest { id: 0, address: "nowhere".to_owned(), ..Default::default() };
    let wrong = client.add_member(add).await.expect_err("two fields");
    assert_eq!(details(&wrong).violations.len(), 2);
    served.stop().await;
}
