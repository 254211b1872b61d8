//! Load reports by hand.

use std::time::Duration;

use plimsoll_xds::Limits;
use plimsoll_xds::pb::envoy::config::core::v3::Node;
use plimsoll_xds::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
use plimsoll_xds::pb::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use plimsoll_xds::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::bench::{Bench, PATIENCE, until};

struct Client {
    requests: mpsc::Sender<LoadStatsRequest>,
    answers: Streaming<LoadStatsResponse>,
}

impl Client {
    async fn start(bench: &Bench, features: &[&str]) -> Client {
        let (requests, sent) = mpsc::channel(16);
        let mut client = LoadReportingServiceClient::new(bench.channel().await);
        let answers =
            client.stream_load_stats(ReceiverStream::new(sent)).await.expect("a stream").into_inner();
        let client_features = features.iter().map(|feature| (*feature).to_owned()).collect();
        let node = Node { id: "node-1".to_owned(), client_features, ..Node::default() };
        requests
            .send(LoadStatsRequest { node: Some(node), ..LoadStatsRequest::default() })
            .await
            .expect("open");
        Client { requests, answers }
    }

    async fn next(&mut self) -> Result<LoadStatsResponse, Status> {
        let answer = timeout(PATIENCE, self.answers.message()).await.expect("in time")?;
        Ok(answer.expect("an answer"))
    }

    async fn report(&self, clusters: usize) {
        let locality =
            UpstreamLocalityStats { total_successful_requests: 7, ..UpstreamLocalityStats::default() };
        let stats = ClusterStats {
            cluster_name: "a".to_owned(),
            upstream_locality_stats: vec![locality],
            load_report_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..ClusterStats::default()
        };
        let cluster_stats = vec![stats; clusters];
        self.requests.send(LoadStatsRequest { node: None, cluster_stats }).await.expect("open");
    }
}

#[tokio::test]
async fn a_client_is_asked_for_everything_each_second_and_its_reports_arrive() {
    let mut bench = Bench::start(Limits::default()).await;
    bench.publish(1, &[("a", &[1])]);
    let mut client = Client::start(&bench, &["envoy.lrs.supports_send_all_clusters"]).await;
    let asked = client.next().await.expect("asked");
    assert!(asked.send_all_clusters && asked.report_endpoint_granularity && asked.clusters.is_empty());
    assert_eq!(asked.load_reporting_interval, Some(prost_types::Duration { seconds: 1, nanos: 0 }));
    client.report(1).await;
    let report = timeout(PATIENCE, bench.reports.recv()).await.expect("in time").expect("a report");
    assert_eq!((report.node_id.as_str(), report.service.as_str(), report.requests), ("node-1", "a", 7));
    assert_eq!(report.interval, Duration::from_secs(1));
    assert_eq!(bench.lrs.status().reports, 1);
}

#[tokio::test]
async fn a_client_that_needs_names_is_given_them_as_they_change() {
    let bench = Bench::start(Limits::default()).await;
    bench.publish(1, &[("a", &[1]), ("b", &[2])]);
    let mut client = Client::start(&bench, &[]).await;
    let asked = client.next().await.expect("asked");
    assert_eq!((asked.send_all_clusters, asked.clusters), (false, vec!["a".to_owned(), "b".to_owned()]));
    bench.publish(2, &[("b", &[2])]);
    assert_eq!(client.next().await.expect("asked again").clusters, ["b"]);
}

#[tokio::test]
async fn reports_that_nobody_reads_are_counted_and_hold_up_nobody() {
    let bench = Bench::start(Limits::default()).await;
    bench.publish(1, &[("a", &[1])]);
    let mut client = Client::start(&bench, &[]).await;
    client.next().await.expect("asked");
    client.report(20).await;
    until("all are counted", || bench.lrs.status().reports + bench.lrs.status().lost == 20).await;
    assert_eq!(bench.lrs.status().lost, 4, "the channel has room for 16");
}

#[tokio::test]
async fn a_report_about_no_service_is_counted_and_not_handed_on() {
    let mut bench = Bench::start(Limits::default()).await;
    bench.publish(1, &[("b", &[1])]);
    let mut client = Client::start(&bench, &[]).await;
    client.next().await.expect("asked");
    client.report(2).await;
    until("both are counted", || bench.lrs.status().foreign == 2).await;
    assert!(bench.reports.try_recv().is_err());
}

#[tokio::test]
async fn a_report_of_too_many_clusters_is_refused_with_the_number() {
    let bench = Bench::start(Limits { names: 3, ..Limits::default() }).await;
    let mut client = Client::start(&bench, &[]).await;
    client.next().await.expect("asked");
    client.report(4).await;
    let refused = client.next().await.expect_err("too many");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("4 names in one request, and 3 is the bound"), "{refused}");
    until("the stream is counted out", || bench.lrs.status().streams == 0).await;
}
