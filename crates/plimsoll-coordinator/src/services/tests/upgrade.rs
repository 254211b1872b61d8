//! Raising the ledger version: only with everybody's word, and nobody comes in who could not follow.

use plimsoll_proto::v1::{self, ErrorReason};

use super::harness::*;
use crate::core::CoreConfig;

/// As an older build is: it knows the first version only.
fn older() -> Setup {
    Setup { core: Some(|config: &mut CoreConfig| config.newest_version = 1), ..Setup::default() }
}

async fn raise(served: &Served, to: u32, validate_only: bool) -> Result<v1::UpgradeResponse, tonic::Status> {
    let request = v1::UpgradeRequest { to, validate_only, ..Default::default() };
    served.cluster().upgrade(request).await.map(tonic::Response::into_inner)
}

fn version(served: &Served) -> u32 {
    served.coordinator.core().status().ledger_version
}

#[tokio::test]
async fn a_new_cluster_is_of_the_newest_version_and_takes_no_older_member() {
    let served = single().await;
    assert_eq!(version(&served), plimsoll_ledger::LATEST_VERSION);
    let older = Served::start(2, false, older()).await;
    let add = v1::AddMemberRequest { id: 2, address: older.address.clone(), ..Default::default() };
    let refused = served.cluster().add_member(add).await.expect_err("it could not follow");
    let said = details(&refused);
    assert_eq!(
        (refused.code(), said.reason),
        (tonic::Code::FailedPrecondition, ErrorReason::UnsupportedVersion)
    );
    assert!(refused.message().contains("knows ledger versions up to 1"), "{}", refused.message());
    assert_eq!(said.metadata.get("member").map(String::as_str), Some("2"));
    let listed = served.cluster().list_members(v1::ListMembersRequest::default()).await.expect("there");
    assert_eq!(listed.into_inner().members.len(), 1);
    // Nothing is done where nothing is to be done, and there is no way back.
    let same = raise(&served, 0, false).await.expect("it is there already");
    let newest = plimsoll_ledger::LATEST_VERSION;
    assert_eq!((same.from, same.to), (newest, newest));
    let back = raise(&served, 1, false).await.expect_err("versions only grow");
    assert_eq!(details(&back).reason, ErrorReason::WrongState);
    let ahead = raise(&served, newest + 1, false).await.expect_err("nobody knows it");
    assert_eq!(details(&ahead).reason, ErrorReason::UnsupportedVersion);
    older.stop().await;
    served.stop().await;
}

#[tokio::test]
async fn the_version_is_raised_once_every_member_can_apply_the_new_one() {
    let first = single_as(older()).await;
    assert_eq!(version(&first), 1, "it begins with what it knows");
    let second = Served::start(2, false, Setup::default()).await;
    let add = v1::AddMemberRequest { id: 2, address: second.address.clone(), ..Default::default() };
    first.cluster().add_member(add).await.expect("newer builds apply older versions");
    let _agent = first.agent("node-01").await;

    let refused = raise(&second, 2, false).await.expect_err("one cannot");
    let said = details(&refused);
    assert_eq!(
        (refused.code(), said.reason),
        (tonic::Code::FailedPrecondition, ErrorReason::UnsupportedVersion)
    );
    assert_eq!(said.metadata.get("member_1").map(String::as_str), Some("1"), "{said:?}");
    assert!(!said.metadata.contains_key("member_2"), "{said:?}");
    let newest = raise(&first, 0, false).await.expect("the newest that the leader knows is in force");
    assert_eq!((newest.from, newest.to, newest.members.len()), (1, 1, 2));

    // The older one goes; whoever is left can.
    let transfer = v1::TransferLeaderRequest { to: 2, ..Default::default() };
    first.cluster().transfer_leader(transfer).await.expect("handed on");
    until("the second serves", || second.coordinator.core().status().serving).await;
    let down = first.address.clone();
    let remove = v1::RemoveMemberRequest { id: 1, ..Default::default() };
    second.cluster().remove_member(remove).await.expect("one is left");
    first.stop().await;
    let planned = raise(&second, 2, true).await.expect("it can");
    assert_eq!((planned.from, planned.to, version(&second)), (1, 2, 1));
    let raised = raise(&second, 2, false).await.expect("it can");
    assert_eq!((raised.from, raised.to, version(&second)), (1, 2, 2));
    assert!(raised.members.iter().all(|member| member.address != down));
    second.stop().await;
}

#[tokio::test]
async fn an_answer_stays_the_same_when_its_node_is_removed_and_so_does_the_removal() {
    let served = single().await;
    let agent = served.agent("node-01").await;
    let request =
        v1::CreateReservationRequest { request_id: "names-are-kept-here".to_owned(), ..create(cpu(1_000)) };
    let first =
        served.reservations().create_reservation(request.clone()).await.expect("granted").into_inner();
    let name = first.reservation.clone().expect("shown").name;
    drop(agent);
    let cancel = v1::CancelReservationRequest { name, ..Default::default() };
    served.reservations().cancel_reservation(cancel).await.expect("ended");
    let remove = v1::RemoveNodeRequest {
        name: "node-01".to_owned(),
        request_id: "removed-only-once".to_owned(),
        validate_only: false,
    };
    let removed = served.nodes().remove_node(remove.clone()).await.expect("nobody is there").into_inner();
    let again = served.reservations().create_reservation(request).await.expect("the same").into_inner();
    assert_eq!(first, again);
    let removed_again = served.nodes().remove_node(remove.clone()).await.expect("the same").into_inner();
    assert_eq!(removed, removed_again);
    let other = v1::RemoveNodeRequest { request_id: String::new(), ..remove };
    assert_eq!(served.nodes().remove_node(other).await.expect_err("gone").code(), tonic::Code::NotFound);
    served.stop().await;
}
