//! Pages of lists while the ledger changes, and watchers that fall behind.

use std::collections::BTreeSet;

use plimsoll_proto::v1;
use plimsoll_proto::v1::ErrorReason;
use plimsoll_proto::v1::policy_service_client::PolicyServiceClient;
use plimsoll_proto::v1::watch_service_client::WatchServiceClient;

use super::harness::*;

#[tokio::test]
async fn a_list_goes_on_where_it_ended_while_the_ledger_changes() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    let mut there = BTreeSet::new();
    for _ in 0..12 {
        let created = client.create_reservation(create(cpu(1))).await.expect("granted").into_inner();
        there.insert(created.reservation.expect("shown").name);
    }
    let mut request = v1::ListReservationsRequest { page_size: 5, ..Default::default() };
    let (mut seen, mut revisions) = (Vec::new(), Vec::new());
    loop {
        let page = client.list_reservations(request.clone()).await.expect("a page").into_inner();
        seen.extend(page.reservations.into_iter().map(|reservation| reservation.name));
        revisions.push(page.revision);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        client.create_reservation(create(cpu(1))).await.expect("granted");
    }
    assert_eq!(seen.iter().filter(|name| there.contains(*name)).count(), there.len(), "each once: {seen:?}");
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "none twice: {seen:?}");
    assert!(revisions.is_sorted_by(|one, next| one < next), "each page says what it shows: {revisions:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_page_of_a_list_that_began_too_long_ago_is_refused() {
    let core: fn(&mut crate::core::CoreConfig) = |config| config.history_revisions = 10;
    let served = single_as(Setup { core: Some(core), ..Setup::default() }).await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    for _ in 0..3 {
        client.create_reservation(create(cpu(1))).await.expect("granted");
    }
    let mut request = v1::ListReservationsRequest { page_size: 1, ..Default::default() };
    let page = client.list_reservations(request.clone()).await.expect("a page").into_inner();
    request.page_token = page.next_page_token;
    client.list_reservations(request.clone()).await.expect("the next page");
    let first_kept = || served.coordinator.core().first_revision().0;
    while first_kept() <= page.revision + 1 {
        client.create_reservation(create(cpu(1))).await.expect("granted");
    }
    let refused = client.list_reservations(request).await.expect_err("too old");
    let said = details(&refused);
    assert_eq!((refused.code(), said.reason), (tonic::Code::OutOfRange, ErrorReason::Compacted));
    assert_eq!(said.metadata["wanted"], page.revision.to_string());
    served.stop().await;
}

#[tokio::test]
async fn a_watcher_whose_backlog_is_gone_is_told_that_it_was_too_slow() {
    let core: fn(&mut crate::core::CoreConfig) = |config| {
        config.history_revisions = 20;
        config.watch_ring = 20;
    };
    let served = single_as(Setup { core: Some(core), ..Setup::default() }).await;
    let mut watches = WatchServiceClient::new(served.channel.clone());
    let mut slow = watches.watch(v1::WatchRequest::default()).await.expect("open").into_inner();
    // Large events fill the connection, so that the watch stands still where nobody reads.
    let mut policies = PolicyServiceClient::new(plain(&served.address));
    let labels = (0..60).map(|index| (format!("label-{index:03}"), "x".repeat(100))).collect();
    let pool = v1::Pool { name: "wide".to_owned(), labels, ..Default::default() };
    for round in 0..600u32 {
        let pool = v1::Pool { max_pending: 1 + round, ..pool.clone() };
        let objects = vec![v1::PolicyObject { object: Some(v1::policy_object::Object::Pool(pool)) }];
        let request = v1::ApplyPolicyRequest { objects, ..Default::default() };
        policies.apply_policy(request).await.expect("applied");
    }
    let mut seen = 0;
    let refused = loop {
        match within(slow.message()).await {
            Ok(Some(message)) => seen += message.events.len(),
            Ok(None) => panic!("it ended without a word after {seen} events"),
            Err(status) => break status,
        }
    };
    let said = details(&refused);
    assert_eq!((refused.code(), said.reason), (tonic::Code::Aborted, ErrorReason::WatcherTooSlow));
    let number = |key: &str| said.metadata[key].parse::<u64>().expect("a number");
    assert!(seen > 0 && number("wanted") < number("first_revision"), "{said:?}");
    served.stop().await;
}
