//! Limits of listeners: sources, rest, age, pings, memory, rates, and what is offered where.

use std::time::Duration;

use plimsoll_proto::v1;
use plimsoll_proto::v1::ErrorReason;
use plimsoll_proto::v1::batch_create_reservations_result::Result as BatchResult;
use plimsoll_proto::v1::reservation_service_client::ReservationServiceClient;
use plimsoll_proto::v1::watch_service_client::WatchServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use super::harness::*;
use crate::core::CallLimits;
use crate::services::{ListenerLimits, Port};
use crate::tls::tests::TestAuthority;
use crate::tls::{COORDINATOR_NAME, TlsMaterial};

fn list() -> v1::ListReservationsRequest {
    v1::ListReservationsRequest::default()
}

/// A listener with TLS, and an authority for its callers.
async fn with_tls(setup: Setup) -> (Served, TestAuthority) {
    let authority = TestAuthority::new();
    let material = TlsMaterial::load(&authority.issue("c1", &["localhost", COORDINATOR_NAME])).expect("good");
    let port = Port { tls: Some(material.server()), ..setup.port };
    (single_as(Setup { port, ..setup }).await, authority)
}

fn caller(served: &Served, authority: &TestAuthority, name: &str) -> Channel {
    let files = authority.issue(name, &[name]);
    tls_channel(&served.address, Some(&files), &files)
}

#[tokio::test]
async fn a_source_has_few_connections_until_it_shows_who_it_is() {
    let limits = ListenerLimits { connections_per_source: 2, ..ListenerLimits::default() };
    let (served, authority) = with_tls(Setup { limits, ..Setup::default() }).await;
    let connect = || TcpStream::connect(served.address.clone());
    let (first, _second) = (connect().await.expect("taken"), connect().await.expect("taken"));
    until("both are open", || served.metric("plimsoll_connections") == Some(2.0)).await;
    let mut third = connect().await.expect("taken by the system");
    let read = within(third.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "closed at once: {read:?}");
    assert_eq!(served.metric("plimsoll_connections_refused_total{reason=\"source\"}"), Some(1.0));
    drop(first);
    until("there is a place", || served.metric("plimsoll_connections") == Some(1.0)).await;
    for name in ["ada", "bob", "eve"] {
        let mut client = ReservationServiceClient::new(caller(&served, &authority, name));
        client.list_reservations(list()).await.expect("who has shown a certificate is not counted");
        std::mem::forget(client);
    }
    assert_eq!(served.metric("plimsoll_connections"), Some(4.0));
    served.stop().await;
}

#[tokio::test]
async fn a_connection_without_calls_is_closed_and_one_with_a_watch_goes_on() {
    let limits = ListenerLimits { connection_idle_ms: 400, ..ListenerLimits::default() };
    let served = single_as(Setup { limits, ..Setup::default() }).await;
    let mut client = served.reservations();
    client.list_reservations(list()).await.expect("served");
    assert_eq!(served.metric("plimsoll_connections"), Some(1.0));
    until("it is closed", || served.metric("plimsoll_connections") == Some(0.0)).await;
    client.list_reservations(list()).await.expect("over another one");

    let mut watches = WatchServiceClient::new(plain(&served.address));
    let mut watch = watches.watch(v1::WatchRequest::default()).await.expect("open").into_inner();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    client.create_reservation(create(cpu(1))).await.expect_err("no nodes");
    let _agent = served.agent("node-01").await;
    let message = within(watch.message()).await.expect("still open").expect("an event");
    assert!(!message.events.is_empty());
    served.stop().await;
}

/// What a client hears that sends so many pings, so far apart, and no call.
async fn pinging(served: &Served, pings: usize, gap: Duration) -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let mut stream = TcpStream::connect(&served.address).await.expect("connects");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    stream.write_all(&SETTINGS).await.expect("sent");
    let (mut reading, mut writing) = stream.into_split();
    let heard = tokio::spawn(async move {
        let mut heard = Vec::new();
        // A reset after the last word is as good as an end.
        let _ = reading.read_to_end(&mut heard).await;
        heard
    });
    for _ in 0..pings {
        if writing.write_all(&PING).await.is_err() {
            break;
        }
        tokio::time::sleep(gap).await;
    }
    drop(writing);
    within(heard).await.expect("read")
}

#[tokio::test]
async fn a_client_that_pings_too_often_is_told_so() {
    let limits = ListenerLimits { client_ping_ms: 300, ..ListenerLimits::default() };
    let served = single_as(Setup { limits, ..Setup::default() }).await;
    let too_many = |heard: &[u8]| heard.windows(14).any(|part| part == b"too_many_pings");
    let heard = pinging(&served, 10, Duration::from_millis(20)).await;
    assert!(too_many(&heard), "{heard:?}");
    let heard = pinging(&served, 6, Duration::from_millis(320)).await;
    assert!(
        !too_many(&heard) && heard.len() >= 6 * 17,
        "every ping of a patient client is answered: {heard:?}"
    );
    served.stop().await;
}

#[tokio::test]
async fn a_connection_ends_at_its_age_and_its_watch_loses_no_event() {
    let limits = ListenerLimits { connection_age_ms: 500, ..ListenerLimits::default() };
    let served = single_as(Setup { limits, ..Setup::default() }).await;
    let _agent = served.agent("node-01").await;
    let channel = plain(&served.address);
    let mut watches = WatchServiceClient::new(channel.clone());
    let kinds = vec![v1::ObjectKind::Reservation.into()];
    let request = v1::WatchRequest { kinds, ..Default::default() };
    let mut watch = watches.watch(request).await.expect("open").into_inner();
    let mut client = ReservationServiceClient::new(channel);
    let (mut made, mut not_sent, mut most) = (0, 0, 0.0_f64);
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(2_500) {
        match client.create_reservation(create(cpu(1))).await {
            Ok(_) => made += 1,
            // This bare client hands calls to a connection that has just ended; they never leave it. The SDK asks again.
            Err(status) if status.code() == tonic::Code::Cancelled => not_sent += 1,
            Err(status) => panic!("{status:?}"),
        }
        most = most.max(served.metric("plimsoll_connections").expect("told"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(not_sent <= 5, "at most one for each connection that ended: {not_sent}");
    assert!(most >= 3.0, "the agent's, the watch's, and one for the calls after it: {most}");
    let mut seen = 0;
    while seen < made {
        seen += within(watch.message()).await.expect("open").expect("an event").events.len();
    }
    assert_eq!(seen, made);
    served.stop().await;
}

#[tokio::test]
async fn coordinators_keep_their_connections_on_a_shared_port() {
    let limits =
        ListenerLimits { connection_age_ms: 200, connection_idle_ms: 200, ..ListenerLimits::default() };
    let all = three_as(limits).await;
    let _agent = all[0].agent("node-01").await;
    let term = all[0].coordinator.core().status().group.term;
    let mut follower = all[1].reservations();
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        follower.create_reservation(create(cpu(1))).await.expect("passed on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = all[0].coordinator.core().status();
    assert!(status.serving && status.group.term == term, "{status:?}");
    for served in all {
        served.stop().await;
    }
}

#[tokio::test]
async fn where_memory_is_short_new_requests_wait_and_leases_are_kept() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    let auto_confirm = true;
    let created = client.create_reservation(create(v1::ReservationSpec { auto_confirm, ..cpu(1) })).await;
    let held = created.expect("granted").into_inner().reservation.expect("shown");
    let memory = served.coordinator.telemetry().memory();
    memory.set_budget(1);
    until("it is short", || memory.is_short()).await;

    let refused = client.create_reservation(create(cpu(1))).await.expect_err("no memory for it");
    let said = details(&refused);
    assert_eq!((refused.code(), said.reason), (tonic::Code::ResourceExhausted, ErrorReason::RateLimited));
    assert!(said.retry_after_ms > 0 && said.definite && said.metadata["memory_budget_bytes"] == "1");
    let batch = v1::BatchCreateReservationsRequest { requests: vec![create(cpu(1))] };
    let results = client.batch_create_reservations(batch).await.expect("answered").into_inner().results;
    let Some(BatchResult::Failure(failure)) = &results[0].result else { panic!("{results:?}") };
    assert_eq!(failure.reason(), ErrorReason::RateLimited);
    let (name, token) = (held.name.clone(), held.token);
    let renew =
        v1::RenewReservationRequest { name: name.clone(), token, ttl_ms: 60_000, ..Default::default() };
    client.renew_reservation(renew).await.expect("a lease is kept");
    let release = v1::ReleaseReservationRequest { name, token, ..Default::default() };
    client.release_reservation(release).await.expect("and given back");
    assert_eq!(served.metric("plimsoll_requests_shed_total"), Some(2.0));

    memory.set_budget(0);
    client.create_reservation(create(cpu(1))).await.expect("there is room again");
    served.stop().await;
}

#[tokio::test]
async fn over_tls_a_caller_at_its_limit_may_give_back_and_slows_nobody_else() {
    let core: fn(&mut crate::core::CoreConfig) =
        |config| config.calls = CallLimits { per_second: 1, burst: 4 };
    let (served, authority) = with_tls(Setup { core: Some(core), ..Setup::default() }).await;
    let _agent = Agent::connect(caller(&served, &authority, "node"), "node-01").await;
    let mut ada = ReservationServiceClient::new(caller(&served, &authority, "ada"));
    let spec = v1::ReservationSpec { auto_confirm: true, ..cpu(1) };
    let created = ada.create_reservation(create(spec)).await.expect("granted").into_inner();
    let held = created.reservation.expect("shown");
    let refused = loop {
        if let Err(status) = ada.list_reservations(list()).await {
            break status;
        }
    };
    let said = details(&refused);
    assert_eq!((refused.code(), said.reason), (tonic::Code::ResourceExhausted, ErrorReason::RateLimited));
    assert!((1..=1_000).contains(&said.retry_after_ms) && said.metadata["limit"] == "1", "{said:?}");
    let mut bob = ReservationServiceClient::new(caller(&served, &authority, "bob"));
    bob.list_reservations(list()).await.expect("somebody else");
    let (name, token) = (held.name, held.token);
    let release = v1::ReleaseReservationRequest { name, token, ..Default::default() };
    ada.release_reservation(release).await.expect("what gives back is not counted");
    tokio::time::sleep(Duration::from_millis(said.retry_after_ms)).await;
    ada.list_reservations(list()).await.expect("after the time that was told");
    served.stop().await;
}

#[tokio::test]
async fn what_the_api_is_is_told_only_where_it_is_offered() {
    let ask = async |channel: Channel| {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let requests = tokio_stream::iter([request]);
        let answers = ServerReflectionClient::new(channel).server_reflection_info(requests).await?;
        within(answers.into_inner().message()).await
    };
    let (closed, authority) = with_tls(Setup::default()).await;
    let refused = ask(caller(&closed, &authority, "ada")).await.expect_err("not offered");
    assert_eq!(details(&refused).reason, ErrorReason::Unimplemented, "{refused:?}");
    closed.stop().await;
    let port = Port { reflection: true, ..Port::default() };
    let open = single_as(Setup { port, ..Setup::default() }).await;
    assert!(ask(open.channel.clone()).await.expect("offered").is_some());
    open.stop().await;
}
