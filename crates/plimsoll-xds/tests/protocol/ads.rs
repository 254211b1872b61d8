//! Discovery by hand.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_xds::pb::envoy::config::cluster::v3::Cluster;
use plimsoll_xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use plimsoll_xds::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use plimsoll_xds::{Catalog, Kind, Limits};
use prost::Message;
use tonic::Code;

use crate::bench::{Bench, Client, QUIET, catalog, until};

fn ports(answer: &DiscoveryResponse) -> Vec<Vec<u32>> {
    let assignment = |value: &[u8]| ClusterLoadAssignment::decode(value).expect("an assignment");
    let ports = |assignment: ClusterLoadAssignment| {
        let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
        endpoints.filter_map(|endpoint| endpoint.endpoint?.address?.socket_address?.port_value).collect()
    };
    answer.resources.iter().map(|resource| ports(assignment(&resource.value))).collect()
}

fn names(answer: &DiscoveryResponse) -> Vec<String> {
    let name = |value: &[u8]| Cluster::decode(value).expect("a cluster").name;
    answer.resources.iter().map(|resource| name(&resource.value)).collect()
}

#[tokio::test]
async fn a_client_follows_its_service_from_listener_to_endpoints() {
    let bench = Bench::start(Limits::default()).await;
    bench.publish(3, &[("a", &[1, 2]), ("b", &[3])]);
    let mut client = bench.client().await;
    for kind in [Kind::Listener, Kind::Route, Kind::Cluster, Kind::Endpoints] {
        client.ask(kind, &["a"]).await;
        let answer = client.next().await;
        assert_eq!((answer.type_url.as_str(), answer.version_info.as_str()), (kind.type_url(), "3"));
        assert_eq!(answer.resources.len(), 1);
        client.ack(kind, &["a"], &answer).await;
    }
    client.quiet().await;
    let status = bench.ads.status();
    assert_eq!((status.opened, status.streams.len()), (1, 1));
    let stream = &status.streams[0];
    assert_eq!((stream.node_id.as_str(), stream.user_agent.as_str()), ("node-1", "test 1.2"));
    assert!(stream.subscriptions.iter().all(|(_, one)| one.acked_revision == 3 && one.names == 1));
    drop(client);
    until("the stream is counted out", || bench.ads.status().streams.is_empty()).await;
}

#[tokio::test]
async fn an_endpoint_that_leaves_is_in_no_later_answer_and_other_services_send_nothing() {
    let bench = Bench::start(Limits::default()).await;
    bench.publish(1, &[("a", &[1, 2]), ("b", &[3])]);
    let mut client = bench.client().await;
    client.ask(Kind::Endpoints, &["a"]).await;
    let answer = client.next().await;
    assert_eq!(ports(&answer), [[1, 2]]);
    bench.publish(2, &[("a", &[1, 2]), ("b", &[4])]);
    client.quiet().await;
    bench.publish(3, &[("a", &[2]), ("b", &[4])]);
    let answer = client.next().await;
    assert_eq!((ports(&answer), answer.version_info.as_str()), (vec![vec![2]], "3"));
    // Still not acknowledged, and changed again: the newest is sent all the same.
    bench.publish(4, &[("a", &[]), ("b", &[4])]);
    assert_eq!(ports(&client.next().await), [[0; 0]]);
}

#[tokio::test]
async fn a_rejected_answer_is_counted_with_its_reason_and_not_sent_in_a_loop() {
    let bench = Bench::start(Limits::default()).await;
    bench.publish(1, &[("a", &[1])]);
    let mut client = bench.client().await;
    client.ask(Kind::Cluster, &["a"]).await;
    let answer = client.next().await;
    client.nack(Kind::Cluster, &["a"], &answer, "cluster a: no").await;
    client.quiet().await;
    let status = bench.ads.status();
    assert_eq!(status.nacks(), (1, Some("cluster a: no")));
    bench.publish(2, &[("a", &[2])]);
    client.quiet().await;
    bench.publish(3, &[]);
    let answer = client.next().await;
    assert_eq!((answer.resources.len(), answer.version_info.as_str()), (0, "3"), "what is gone is missing");
}

#[tokio::test]
async fn names_may_be_changed_and_stale_requests_are_ignored() {
    let bench = Bench::start(Limits::default()).await;
    bench.publish(1, &[("a", &[1]), ("b", &[2])]);
    let mut client = bench.client().await;
    client.ask(Kind::Endpoints, &["a"]).await;
    let first = client.next().await;
    bench.publish(2, &[("a", &[3]), ("b", &[2])]);
    let second = client.next().await;
    client.ack(Kind::Endpoints, &["a", "b"], &first).await;
    client.quiet().await;
    client.ack(Kind::Endpoints, &["a", "b"], &second).await;
    assert_eq!(ports(&client.next().await), [[2]], "only the new one is sent");
}

#[tokio::test]
async fn a_wildcard_gets_all_clusters_and_their_changes() {
    let bench = Bench::start(Limits::default()).await;
    bench.publish(1, &[("a", &[1]), ("b", &[2])]);
    let mut client = Client::over(bench.channel().await, "envoy").await.expect("a stream");
    client.ask(Kind::Cluster, &[]).await;
    let answer = client.next().await;
    assert_eq!(names(&answer), ["a", "b"]);
    client.ack(Kind::Cluster, &[], &answer).await;
    bench.publish(2, &[("b", &[2]), ("c", &[2])]);
    assert_eq!(names(&client.next().await), ["b", "c"]);
}

#[tokio::test]
async fn envoy_gets_the_endpoints_again_after_a_cluster_that_changed() {
    let bench = Bench::start(Limits::default()).await;
    bench.publish(1, &[("a", &[1]), ("b", &[2])]);
    let mut client = Client::over(bench.channel().await, "envoy").await.expect("a stream");
    client.ask(Kind::Cluster, &[]).await;
    client.next().await;
    client.ask(Kind::Endpoints, &["a", "b"]).await;
    assert_eq!(client.next().await.resources.len(), 2);
    let mut services = catalog(2, &[("a", &[1]), ("b", &[2])]).services().clone();
    let changed = services.get_mut("b").expect("there");
    Arc::make_mut(changed).policy = plimsoll_xds::Policy::RoundRobin;
    bench.catalogs.send_replace(Arc::new(Catalog::new(2, services).expect("a catalog")));
    let (clusters, endpoints) = (client.next().await, client.next().await);
    assert_eq!(names(&clusters), ["a", "b"]);
    assert_eq!(ports(&endpoints), [[2]]);
    client.quiet().await;
}

#[tokio::test]
async fn a_slow_client_gets_the_newest_and_no_queue_of_old_ones() {
    let bench = Bench::start(Limits::default()).await;
    // About 100 KB of endpoints: more than a client's window takes.
    let many: Vec<u16> = (1..3_000).collect();
    bench.publish(1, &[("a", &many)]);
    let mut client = bench.client().await;
    client.ask(Kind::Endpoints, &["a"]).await;
    let last = 200;
    for revision in 2..=last {
        let fewer = &many[usize::try_from(revision).expect("small")..];
        bench.publish(revision, &[("a", fewer)]);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut answers = 1;
    while client.next().await.version_info != last.to_string() {
        answers += 1;
    }
    assert!(answers <= 10, "{answers} answers for {last} catalogs");
    client.quiet().await;
}

#[tokio::test]
async fn bounds_are_kept_and_named() {
    let limits = Limits {
        streams_per_peer: 2,
        names: 3,
        first_request_within: QUIET,
        request_bytes: 1_000,
        ..Limits::default()
    };
    let bench = Bench::start(limits).await;
    bench.publish(1, &[("a", &[1])]);

    let channel = bench.channel().await;
    let (mut silent, mut greedy) =
        (bench.client().await, Client::over(channel.clone(), "test").await.expect("a stream"));
    let refused = Client::over(channel.clone(), "test").await.err().expect("a third is too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused.message().contains("2 streams of your address are open, and 2 is the bound"),
        "{refused}"
    );
    assert_eq!(bench.ads.status().refused, 1);

    greedy.ask(Kind::Endpoints, &["a", "b", "c", "d"]).await;
    let refused = greedy.ended_or_next().await.expect_err("four names are too many");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("4 names in one request, and 3 is the bound"), "{refused}");

    let refused = silent.ended_or_next().await.expect_err("silence");
    assert_eq!(refused.code(), Code::DeadlineExceeded);

    let mut large = Client::over(channel, "test").await.expect("there is room again");
    large.ask(Kind::Endpoints, &["x".repeat(2_000).as_str()]).await;
    let refused = large.ended_or_next().await.expect_err("too long");
    assert_eq!(refused.code(), Code::OutOfRange);
    assert!(refused.message().contains("1000"), "{refused}");
}

#[tokio::test]
async fn unknown_types_are_left_unanswered_and_the_stream_goes_on() {
    let bench = Bench::start(Limits::default()).await;
    bench.publish(1, &[("a", &[1])]);
    let mut client = bench.client().await;
    let type_url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret".to_owned();
    client.send(DiscoveryRequest { type_url, ..DiscoveryRequest::default() }).await;
    client.quiet().await;
    client.ask(Kind::Endpoints, &["a"]).await;
    assert_eq!(ports(&client.next().await), [[1]]);
}

#[tokio::test]
async fn a_coordinator_that_stops_sends_its_clients_elsewhere() {
    let bench = Bench::start(Limits::default()).await;
    bench.publish(1, &[("a", &[1])]);
    let mut client = bench.client().await;
    client.ask(Kind::Endpoints, &["a"]).await;
    client.next().await;
    drop(bench.catalogs);
    let ended = client.ended_or_next().await.expect_err("ended");
    assert_eq!(ended.code(), Code::Unavailable);
}
