//! Batches, streams and waits.

use std::collections::BTreeSet;

use plimsoll_proto::v1;
use plimsoll_proto::v1::batch_create_reservations_result::Result as BatchResult;
use plimsoll_proto::v1::stream_reservations_request::Request as Change;
use plimsoll_proto::v1::stream_reservations_response::Response as Done;
use plimsoll_proto::v1::{ErrorReason, ReservationState};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::harness::*;

#[tokio::test]
async fn a_batch_answers_each_request_by_itself() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    let bad = v1::ReservationSpec { pool: "NO".to_owned(), ..cpu(1) };
    let requests = vec![create(cpu(1_000)), create(bad), create(cpu(64_000)), create(cpu(2_000))];
    let batch = v1::BatchCreateReservationsRequest { requests };
    let answer = client.batch_create_reservations(batch).await.expect("answered").into_inner();
    let results: Vec<_> =
        answer.results.into_iter().map(|result| result.result.expect("an answer")).collect();
    assert!(
        matches!(&results[0], BatchResult::Response(_)) && matches!(&results[3], BatchResult::Response(_))
    );
    let reason = |result: &BatchResult| match result {
        BatchResult::Failure(failure) => (failure.reason(), failure.definite),
        BatchResult::Response(_) => panic!("it was refused"),
    };
    assert_eq!(reason(&results[1]), (ErrorReason::InvalidArgument, true));
    assert_eq!(reason(&results[2]), (ErrorReason::Infeasible, true));
    let empty = client.batch_create_reservations(v1::BatchCreateReservationsRequest::default()).await;
    assert_eq!(empty.expect_err("nothing to do").code(), tonic::Code::InvalidArgument);
    served.stop().await;
}

#[tokio::test]
async fn one_stream_keeps_thousands_in_flight() {
    const MANY: u64 = 3_000;
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let (up, requests) = mpsc::channel(64);
    let sender = tokio::spawn(async move {
        for sequence in 0..MANY {
            let request = Some(Change::Create(create(cpu(1))));
            up.send(v1::StreamReservationsRequest { sequence, request }).await.expect("open");
        }
        up.send(v1::StreamReservationsRequest { sequence: MANY, request: None }).await.expect("open");
    });
    let stream = served.reservations().stream_reservations(ReceiverStream::new(requests)).await;
    let mut answers = stream.expect("open").into_inner();
    let mut seen = BTreeSet::new();
    let (mut granted, mut failed) = (0, 0);
    while let Some(answer) = within(answers.message()).await.expect("open") {
        assert!(seen.insert(answer.sequence), "each is answered once");
        match answer.response.expect("an answer") {
            Done::Create(created) => granted += u64::from(created.reservation.expect("shown").token > 0),
            Done::Failure(failure) => {
                assert_eq!((answer.sequence, failure.reason()), (MANY, ErrorReason::InvalidArgument));
                failed += 1;
            }
            other => panic!("not what was asked: {other:?}"),
        }
    }
    sender.await.expect("all sent");
    assert_eq!((granted, failed), (MANY, 1));
    served.stop().await;
}

#[tokio::test]
async fn waiting_shows_the_rank_and_ends_with_the_grant() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    let first = client.create_reservation(create(cpu(4_000))).await.expect("granted").into_inner();
    let wait = Some(v1::WaitPolicy { queue: true, deadline_ms: 0 });
    let queued = v1::ReservationSpec { wait, ..cpu(4_000) };
    let queued = client.create_reservation(create(queued)).await.expect("queued").into_inner();
    let queued = queued.reservation.expect("shown");
    assert_eq!(queued.state(), ReservationState::Pending);
    assert!(!queued.blockers.is_empty());

    let request = v1::WaitReservationRequest { name: queued.id.clone(), timeout_ms: 0 };
    let mut answers = client.wait_reservation(request).await.expect("open").into_inner();
    let now = within(answers.message()).await.expect("open").expect("how it is");
    assert_eq!((now.rank, now.queue_length), (1, 1));
    let holder = first.reservation.expect("shown");
    let release =
        v1::ReleaseReservationRequest { name: holder.id, token: holder.token, ..Default::default() };
    client.release_reservation(release).await.expect("released");
    let mut last = now;
    while let Some(answer) = within(answers.message()).await.expect("open") {
        last = answer;
    }
    assert_eq!(last.reservation.expect("shown").state(), ReservationState::Held);

    let again =
        client.create_reservation(create(v1::ReservationSpec { wait, ..cpu(4_000) })).await.expect("queued");
    let id = again.into_inner().reservation.expect("shown").id;
    let request = v1::WaitReservationRequest { name: id, timeout_ms: 50 };
    let mut answers = client.wait_reservation(request).await.expect("open").into_inner();
    within(answers.message()).await.expect("how it is");
    let late = within(answers.message()).await.expect_err("time is up");
    assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
    served.stop().await;
}
