//! Watches, events of the past, and what auditors read.

use plimsoll_proto::v1;
use plimsoll_proto::v1::audit_service_client::AuditServiceClient;
use plimsoll_proto::v1::watch_service_client::WatchServiceClient;
use plimsoll_proto::v1::{EventKind, ObjectKind};
use plimsoll_proto::{codec, digest};

use super::harness::*;

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_is_resumed_without_a_gap() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    client.create_reservation(create(cpu(100))).await.expect("granted");
    let mut watches = WatchServiceClient::new(served.channel.clone());
    let kinds = vec![ObjectKind::Reservation.into()];
    let request = v1::WatchRequest { include_initial: true, kinds: kinds.clone(), ..Default::default() };
    let mut stream = watches.watch(request).await.expect("open").into_inner();
    let initial = within(stream.message()).await.expect("open").expect("what is there");
    assert!(initial.initial && initial.events.len() == 1);
    assert_eq!(initial.events[0].kind(), EventKind::Created);
    let ready = within(stream.message()).await.expect("open").expect("that was all");
    assert!(ready.bookmark && !ready.initial);
    client.create_reservation(create(cpu(100))).await.expect("granted");
    let live = within(stream.message()).await.expect("open").expect("what happens");
    assert_eq!((live.events.len(), live.events[0].rule.as_str()), (1, "submit"));
    drop(stream);

    client.create_reservation(create(cpu(100))).await.expect("granted");
    let request = v1::WatchRequest { from_revision: live.revision + 1, kinds, ..Default::default() };
    let mut stream = watches.watch(request).await.expect("open").into_inner();
    let next = within(stream.message()).await.expect("open").expect("what was missed");
    assert_eq!(next.events[0].revision, live.revision + 1);
    let future = v1::WatchRequest { from_revision: live.revision + 1_000, ..Default::default() };
    assert_eq!(watches.watch(future).await.expect_err("not yet").code(), tonic::Code::OutOfRange);
    served.stop().await;
}

#[tokio::test]
async fn events_of_the_past_come_in_pages_in_both_directions() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    for _ in 0..7 {
        client.create_reservation(create(cpu(100))).await.expect("granted");
    }
    let mut watches = WatchServiceClient::new(served.channel.clone());
    let mut directions = Vec::new();
    for newest_first in [false, true] {
        let mut request = v1::ListEventsRequest { page_size: 3, newest_first, ..Default::default() };
        let mut seen = Vec::new();
        loop {
            let page = watches.list_events(request.clone()).await.expect("a page").into_inner();
            assert!(page.events.len() <= 3);
            seen.extend(page.events.into_iter().map(|event| (event.revision, event.name)));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        directions.push(seen);
    }
    assert!(directions[0].len() >= 9, "leader, node and seven grants: {:?}", directions[0]);
    directions[1].reverse();
    assert_eq!(directions[0], directions[1]);
    served.stop().await;
}

#[tokio::test]
async fn a_watch_of_one_tenant_shows_nothing_of_others() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    for number in 0..4 {
        let spec = v1::ReservationSpec { tenant: format!("team-{}", number % 2), ..cpu(100) };
        served.reservations().create_reservation(create(spec)).await.expect("granted");
    }
    let mut watches = WatchServiceClient::new(served.channel.clone());
    let request = v1::ListEventsRequest { tenant: "team-1".to_owned(), ..Default::default() };
    let listed = watches.list_events(request).await.expect("a page").into_inner().events;
    assert_eq!(listed.len(), 2, "{listed:?}");
    let request =
        v1::WatchRequest { tenant: "team-1".to_owned(), include_initial: true, ..Default::default() };
    let mut stream = watches.watch(request).await.expect("open").into_inner();
    let initial = within(stream.message()).await.expect("open").expect("what is there");
    assert!(initial.initial && initial.events.len() == 2, "{initial:?}");
    served.stop().await;
}

#[tokio::test]
async fn an_outsider_can_recompute_chain_and_digest() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    served.reservations().create_reservation(create(cpu(100))).await.expect("granted");
    let mut audit = AuditServiceClient::new(served.channel.clone());
    let mut stream = audit.export_log(v1::ExportLogRequest::default()).await.expect("open").into_inner();
    let (mut chain, mut revision) = (digest::GENESIS, 0);
    while let Some(part) = within(stream.message()).await.expect("open") {
        for record in part.records {
            chain = digest::chain(&chain, &record.entry, &record.outcome);
            revision += 1;
            assert_eq!((record.revision, record.chain_hash.as_ref()), (revision, &chain[..]));
            codec::decode_entry(&record.entry).expect("canonical");
        }
    }
    let said =
        audit.get_state_digest(v1::GetStateDigestRequest::default()).await.expect("answered").into_inner();
    assert_eq!((said.revision, said.chain_hash.as_ref()), (revision, &chain[..]));
    let mut stream = audit.dump_state(v1::DumpStateRequest::default()).await.expect("open").into_inner();
    let mut hasher = digest::StateHasher::new();
    while let Some(part) = within(stream.message()).await.expect("open") {
        for row in part.rows {
            hasher.add_bytes(&row.key, &row.value);
        }
    }
    assert_eq!((hasher.rows(), &hasher.finish()[..]), (said.rows, said.digest.as_ref()));
    served.stop().await;
}
