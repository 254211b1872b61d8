//! What the head of every answer says, and refusals of coordinators that cannot answer.

use std::time::{Duration, Instant};

use plimsoll_proto::v1;
use plimsoll_proto::v1::ErrorReason;
use plimsoll_proto::v1::watch_service_client::WatchServiceClient;
use tonic::metadata::MetadataMap;

use super::harness::*;

fn head(metadata: &MetadataMap) -> (u64, String) {
    let text = |key: &str| metadata.get(key).unwrap_or_else(|| panic!("no {key}")).to_str().expect("text");
    (text("plimsoll-revision").parse().expect("a number"), text("plimsoll-leader").to_owned())
}

#[tokio::test]
async fn every_answer_and_every_error_says_revision_and_leader() {
    let all = three().await;
    let _agent = all[0].agent("node-01").await;
    let leader = all[0].address.clone();
    let mut latest = 0;
    for served in &all {
        let created = served.reservations().create_reservation(create(cpu(100))).await.expect("granted");
        let said = head(created.metadata());
        let revision = created.into_inner().revision;
        assert!(said.0 >= revision && revision > latest, "{said:?} for {revision}");
        assert_eq!(said.1, leader);
        latest = revision;

        let refused =
            served.reservations().create_reservation(create(cpu(64_000))).await.expect_err("too large");
        let said = head(refused.metadata());
        assert!(said.0 > latest && said.1 == leader, "{said:?}");
        let read = v1::ListReservationsRequest::default();
        let listed = served.reservations().list_reservations(read).await.expect("a list");
        let said = head(listed.metadata());
        assert!(said.0 >= listed.into_inner().revision && said.1 == leader, "{said:?}");
        let absent = v1::GetNodeRequest { name: "nodes/nothing".to_owned(), ..Default::default() };
        assert_eq!(head(served.nodes().get_node(absent).await.expect_err("absent").metadata()).1, leader);
    }
    for served in all {
        served.stop().await;
    }
}

#[tokio::test]
async fn what_a_head_says_can_be_asked_for_elsewhere() {
    let all = three().await;
    let _agent = all[0].agent("node-01").await;
    for _ in 0..20 {
        let created = all[0].reservations().create_reservation(create(cpu(1))).await.expect("granted");
        let (min_revision, _) = head(created.metadata());
        let name = created.into_inner().reservation.expect("shown").name;
        let consistency = v1::Consistency::Stale.into();
        let read = v1::GetReservationRequest { name, consistency, min_revision, ..Default::default() };
        all[1].reservations().get_reservation(read).await.expect("it is there by then");
    }
    for served in all {
        served.stop().await;
    }
}

#[tokio::test]
async fn a_coordinator_without_a_cluster_says_so_at_once() {
    let alone = Served::start(9, false, Setup::default()).await;
    let began = Instant::now();
    let write = alone.reservations().create_reservation(create(cpu(1))).await.expect_err("no cluster");
    let list = v1::ListReservationsRequest::default();
    let read = alone.reservations().list_reservations(list.clone()).await.expect_err("no cluster");
    let stale = v1::ListReservationsRequest { consistency: v1::Consistency::Stale.into(), ..list };
    let stale = alone.reservations().list_reservations(stale).await.expect_err("not the cluster's emptiness");
    let mut watches = WatchServiceClient::new(alone.channel.clone());
    let watch = watches.watch(v1::WatchRequest::default()).await.expect_err("no cluster");
    for status in [write, read, stale, watch] {
        let details = details(&status);
        assert_eq!(details.reason, ErrorReason::ClusterUninitialized, "{status:?}");
        assert!(status.code() == tonic::Code::Unavailable && details.definite && details.retry_after_ms > 0);
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let status = alone.cluster().get_status(v1::GetStatusRequest::default()).await.expect("its own");
    assert_eq!(status.into_inner().status.expect("shown").role(), v1::MemberRole::Uninitialized);
    let bootstrap = v1::BootstrapClusterRequest::default();
    alone.cluster().bootstrap_cluster(bootstrap).await.expect("now there is one");
    until("it serves", || alone.coordinator.core().status().serving).await;
    alone.reservations().list_reservations(v1::ListReservationsRequest::default()).await.expect("served");
    alone.stop().await;
}

#[tokio::test]
async fn a_call_that_its_caller_gives_up_is_counted() {
    let served = single().await;
    // A listener that never answers: who asks it waits.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let add = v1::AddMemberRequest { id: 2, address, ..Default::default() };
    let mut cluster = served.cluster();
    let given_up = tokio::time::timeout(Duration::from_millis(200), cluster.add_member(add)).await;
    assert!(given_up.is_err(), "{given_up:?}");
    let counted =
        "plimsoll_rpc_calls_total{method=\"/plimsoll.v1.ClusterService/AddMember\",code=\"CANCELLED\"}";
    until("it is counted", || served.metric(counted) == Some(1.0)).await;
    assert_eq!(served.metric("plimsoll_rpc_open"), Some(0.0));
    served.stop().await;
}
