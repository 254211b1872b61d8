//! Any coordinator accepts any call: three of them, asked at the wrong one.

use plimsoll_proto::v1;
use plimsoll_proto::v1::connect_response::Message as Down;
use plimsoll_proto::v1::stream_reservations_request::Request as Change;
use plimsoll_proto::v1::stream_reservations_response::Response as Done;
use plimsoll_proto::v1::{ErrorReason, MemberRole, ReservationState};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::harness::*;

#[tokio::test]
async fn a_follower_passes_on_calls_agents_and_streams() {
    let all = three().await;
    let mut agent = all[1].agent("node-01").await;
    let mut follower = all[2].reservations();
    let created = follower.create_reservation(create(cpu(100))).await.expect("granted").into_inner();
    let reservation = created.reservation.expect("shown");
    let Down::LeaseGranted(lease) = agent.next().await else { panic!("the agent hears of it") };
    assert_eq!(lease.lease.expect("a lease").reservation, reservation.id);

    // What one coordinator acknowledged, another one shows: reads are linearizable everywhere.
    let get = v1::GetReservationRequest { name: reservation.id.clone(), ..Default::default() };
    let seen = all[1].reservations().get_reservation(get).await.expect("there").into_inner();
    assert!(seen.revision >= created.revision && seen.age_ms == 0);
    let refused = follower.create_reservation(create(cpu(64_000))).await.expect_err("too large");
    assert_eq!(details(&refused).reason, ErrorReason::Infeasible, "details survive the way");

    let (up, requests) = mpsc::channel(8);
    let stream = all[1].reservations().stream_reservations(ReceiverStream::new(requests)).await;
    let mut answers = stream.expect("open").into_inner();
    for sequence in 0..20 {
        let request = Some(Change::Create(create(cpu(1))));
        up.send(v1::StreamReservationsRequest { sequence, request }).await.expect("open");
        let answer = within(answers.message()).await.expect("open").expect("an answer");
        assert!(matches!(answer.response, Some(Done::Create(_))) && answer.sequence == sequence);
    }
    let status = all[2].cluster().get_status(v1::GetStatusRequest {}).await.expect("answered").into_inner();
    let status = status.status.expect("a status");
    assert_eq!((status.node_id, status.role(), status.leader_id), (3, MemberRole::Follower, 1));
    assert_eq!(status.members.len(), 3);
    for served in all {
        served.stop().await;
    }
}

#[tokio::test]
async fn a_call_that_is_passed_on_stays_its_callers() {
    let all = three().await;
    let _agent = all[0].agent("node-01").await;
    for served in &all {
        let mut request = tonic::Request::new(create(cpu(100)));
        request.metadata_mut().insert("plimsoll-actor", "ada".parse().expect("a value"));
        let created = served.reservations().create_reservation(request).await.expect("granted").into_inner();
        assert_eq!(created.reservation.expect("shown").requester, "ada");
    }
    for served in all {
        served.stop().await;
    }
}

#[tokio::test]
async fn after_a_change_of_leader_the_same_request_gets_the_same_answer() {
    let all = three().await;
    let _agent = all[0].agent("node-01").await;
    let request =
        v1::CreateReservationRequest { request_id: "0123456789abcdef".to_owned(), ..create(cpu(100)) };
    let first =
        all[1].reservations().create_reservation(request.clone()).await.expect("granted").into_inner();
    let transfer = v1::TransferLeaderRequest { to: 2, ..Default::default() };
    let moved = all[2].cluster().transfer_leader(transfer).await.expect("handed over").into_inner();
    assert_eq!(moved.leader_id, 2);
    let again = all[2].reservations().create_reservation(request).await.expect("the same").into_inner();
    let (first, again) = (first.reservation.expect("shown"), again.reservation.expect("shown"));
    assert_eq!(first, again);
    assert_eq!(first.state(), ReservationState::Held);
    for served in all {
        served.stop().await;
    }
}

#[tokio::test]
async fn without_a_leader_changes_are_refused_definitely_and_stale_reads_go_on() {
    let mut all = three().await;
    let last = all.pop().expect("three");
    for served in all {
        // Not handed over: they are gone at once.
        served.coordinator.core().group().shutdown().await;
        served.stop().await;
    }
    let refused = last.reservations().create_reservation(create(cpu(1))).await.expect_err("nobody leads");
    let told = details(&refused);
    assert_eq!((told.reason, told.definite), (ErrorReason::NotLeader, true));
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    let consistency = v1::Consistency::Stale.into();
    let stale = v1::ListReservationsRequest { consistency, ..Default::default() };
    last.reservations().list_reservations(stale).await.expect("what is applied here");
    let http = last.http().await;
    assert!(get(&http, "/readyz").await.0.contains("503"));
    assert!(get(&http, "/healthz").await.0.contains("200"));
    last.stop().await;
}
