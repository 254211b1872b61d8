//! The edge: health, HTTP, TLS and who calls, unknown methods, deadlines.

use plimsoll_proto::v1;
use plimsoll_proto::v1::ErrorReason;
use plimsoll_proto::v1::reservation_service_client::ReservationServiceClient;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::harness::*;
use crate::services::Port;
use crate::tls::tests::TestAuthority;
use crate::tls::{COORDINATOR_NAME, TlsMaterial};

#[tokio::test]
async fn health_reflection_and_pages_answer() {
    let served = single().await;
    let mut health = HealthClient::new(served.channel.clone());
    for service in ["", "plimsoll.v1.ReservationService", "plimsoll.v1.stale-reads"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.expect("known").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    served.reservations().create_reservation(create(cpu(1))).await.expect_err("no nodes");
    let http = served.http().await;
    assert!(get(&http, "/healthz").await.0.contains("200"));
    assert!(get(&http, "/readyz").await.0.contains("200"));
    let (_, metrics) = get(&http, "/metrics").await;
    for expected in [
        "plimsoll_raft_is_leader 1",
        "plimsoll_raft_leader_changes_total 1",
        "plimsoll_rpc_calls_total{method=\"/plimsoll.v1.ReservationService/CreateReservation\",code=\"FAILED_PRECONDITION\"} 1",
        "plimsoll_queue_length{pool=\"default\"} 0",
        "# EOF",
    ] {
        assert!(metrics.contains(expected), "{expected} is not in\n{metrics}");
    }
    let (_, page) = get(&http, "/?format=json").await;
    let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!((&page["role"], &page["node_id"]), (&"leader".into(), &1.into()));
    assert!(get(&http, "/").await.1.contains("leader in term"));
    served.stop().await;
}

#[tokio::test]
async fn what_is_no_method_is_unimplemented_and_large_requests_are_refused() {
    let served = single().await;
    let mut grpc = tonic::client::Grpc::new(served.channel.clone());
    grpc.ready().await.expect("connects");
    let codec = tonic_prost::ProstCodec::<v1::GetStatusRequest, v1::GetStatusResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/plimsoll.v1.NodeService/Nothing");
    let request = tonic::Request::new(v1::GetStatusRequest {});
    let answer = grpc.unary(request, path, codec).await.expect_err("not a method");
    assert_eq!(
        (answer.code(), details(&answer).reason),
        (tonic::Code::Unimplemented, ErrorReason::Unimplemented)
    );
    assert_eq!(details(&answer).metadata["method"], "/plimsoll.v1.NodeService/Nothing");
    let counted = "plimsoll_rpc_calls_total{method=\"(unknown)\",code=\"UNIMPLEMENTED\"}";
    assert_eq!(served.metric(counted), Some(1.0));

    let large = v1::ReservationSpec { name: "x".repeat(2 << 20), ..cpu(1) };
    let refused = served.reservations().create_reservation(create(large)).await.expect_err("2 MiB");
    assert_eq!(refused.code(), tonic::Code::OutOfRange);
    served.stop().await;
}

#[tokio::test]
async fn certificates_say_who_calls_and_peers_must_be_coordinators() {
    let authority = TestAuthority::new();
    let own = authority.issue("c1", &["localhost", COORDINATOR_NAME]);
    let ada = authority.issue("ada", &["ada"]);
    let material = TlsMaterial::load(&own).expect("good");
    let port = Port { tls: Some(material.server()), ..Port::default() };
    let served = single_as(Setup { port, ..Setup::default() }).await;

    let mut client = ReservationServiceClient::new(tls_channel(&served.address, Some(&ada), &own));
    let wait = Some(v1::WaitPolicy { queue: true, deadline_ms: 0 });
    let _agent = Agent::connect(tls_channel(&served.address, Some(&ada), &own), "node-01").await;
    let spec = v1::ReservationSpec { wait, ..cpu(1) };
    let mut request = tonic::Request::new(create(spec));
    // A client cannot speak for somebody else.
    request.metadata_mut().insert("plimsoll-actor", "eve".parse().expect("a value"));
    let created = client.create_reservation(request).await.expect("granted").into_inner();
    assert_eq!(created.reservation.expect("shown").requester, "ada");

    let mut nobody = ReservationServiceClient::new(tls_channel(&served.address, None, &own));
    nobody.create_reservation(create(cpu(1))).await.expect_err("no certificate");
    let mut grpc = tonic::client::Grpc::new(tls_channel(&served.address, Some(&ada), &own));
    grpc.ready().await.expect("connects");
    let codec = tonic_prost::ProstCodec::<v1::GetStatusRequest, v1::GetStatusResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/plimsoll.internal.v1.RaftService/Vote");
    let refused = grpc.unary(tonic::Request::new(v1::GetStatusRequest {}), path, codec).await;
    assert_eq!(refused.expect_err("a client").code(), tonic::Code::PermissionDenied);
    served.stop().await;
}
