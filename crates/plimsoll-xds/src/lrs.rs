//! The load reporting service: what clients say of the calls they made, as plain reports.
//!
//! gRPC clients report by level and zone, Envoy by endpoint too. Reports are counts of an interval; one that is lost is lost, and nobody waits for whoever reads them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::catalog::Catalog;
use crate::limits::{Bound, Limits};
use crate::pb::envoy::config::core::v3::{Address, Locality};
use crate::pb::envoy::config::endpoint::v3::{
    ClusterStats, EndpointLoadMetricStats, UnnamedEndpointLoadMetricStats, UpstreamLocalityStats,
};
use crate::pb::envoy::service::load_stats::v3::load_reporting_service_server::{
    LoadReportingService, LoadReportingServiceServer,
};
use crate::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use crate::streams::{Open, Peer, Streams};

/// A client that says so may be asked for all clusters at once; others are given their names.
const SENDS_ALL: &str = "envoy.lrs.supports_send_all_clusters";
/// Before the names of metrics that endpoints report (gRFC A85).
const NAMED: &str = "named_metrics.";
/// Most metrics of one report; what is beyond is left out.
const MOST_METRICS: usize = 64;

/// What one client said of one place in one interval. Counts are of that interval, but for those in progress.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadReport {
    /// The client, as it calls itself.
    pub node_id: String,
    /// Whose calls.
    pub service: String,
    /// The endpoint; none where the client reports by zone.
    pub endpoint: Option<SocketAddr>,
    /// The zone of the endpoints; empty where they have none.
    pub zone: String,
    /// The level, as sent to clients: 0, 1, 2 without gaps.
    pub level: u32,
    /// Calls that ended.
    pub requests: u64,
    /// Of these, the ones that failed.
    pub errors: u64,
    /// Calls begun; 0 from clients that do not count them.
    pub issued: u64,
    /// Calls that went on at the end of the interval.
    pub in_progress: u64,
    /// How long.
    pub interval: Duration,
    /// What the endpoints reported with the calls that ended (ORCA): named ones by their name, and `cpu_utilization`, `mem_utilization`,
    /// `application_utilization`.
    pub metrics: BTreeMap<String, MetricSum>,
}

/// A metric over the calls of an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricSum {
    /// Calls that ended with a value.
    pub calls: u64,
    /// Sum of the values.
    pub total: f64,
}

/// What came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LrsStatus {
    /// Streams that are open.
    pub streams: usize,
    /// Streams opened since the start.
    pub opened: u64,
    /// Streams refused for a bound.
    pub refused: u64,
    /// Reports handed on.
    pub reports: u64,
    /// Reports about what is no service, such as clusters of a proxy's own file; they are not handed on.
    pub foreign: u64,
    /// Reports lost because their reader had fallen behind.
    pub lost: u64,
}

/// Takes load reports. Clones are the same server.
#[derive(Clone)]
pub struct LrsServer {
    catalogs: watch::Receiver<Arc<Catalog>>,
    reports: mpsc::Sender<LoadReport>,
    interval: Duration,
    limits: Arc<Limits>,
    streams: Streams<()>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    reports: AtomicU64,
    foreign: AtomicU64,
    lost: AtomicU64,
}

/// Between two reports, unless another interval is asked for.
pub const USUAL_INTERVAL: Duration = Duration::from_secs(1);

impl LrsServer {
    /// A server that asks clients for a report every `interval`, and hands these on. `catalogs` names the services to those clients that need names.
    pub fn new(
        catalogs: watch::Receiver<Arc<Catalog>>,
        reports: mpsc::Sender<LoadReport>,
        interval: Duration,
        limits: Limits,
    ) -> LrsServer {
        let (streams, counts) = (Streams::new(), Arc::default());
        LrsServer { catalogs, reports, interval, limits: Arc::new(limits), streams, counts }
    }

    /// The gRPC service.
    pub fn into_service(self) -> LoadReportingServiceServer<LrsServer> {
        let request_bytes = self.limits.request_bytes;
        LoadReportingServiceServer::new(self).max_decoding_message_size(request_bytes)
    }

    /// What came in so far.
    pub fn status(&self) -> LrsStatus {
        let (opened, refused, open) = self.streams.look(|()| ());
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LrsStatus {
            streams: open.len(),
            opened,
            refused,
            reports: count(&self.counts.reports),
            foreign: count(&self.counts.foreign),
            lost: count(&self.counts.lost),
        }
    }

    fn hand_on(&self, catalog: &Catalog, report: LoadReport) {
        let count = if !catalog.services().contains_key(&report.service) {
            &self.counts.foreign
        } else if self.reports.try_send(report).is_ok() {
            &self.counts.reports
        } else {
            &self.counts.lost
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// What a client is asked for.
    fn wanted(&self, catalog: &Catalog, sends_all: bool) -> LoadStatsResponse {
        let clusters = if sends_all { Vec::new() } else { catalog.services().keys().cloned().collect() };
        LoadStatsResponse {
            clusters,
            send_all_clusters: sends_all,
            load_reporting_interval: prost_types::Duration::try_from(self.interval).ok(),
            report_endpoint_granularity: true,
        }
    }
}

#[tonic::async_trait]
impl LoadReportingService for LrsServer {
    type StreamLoadStatsStream = Pin<Box<dyn Stream<Item = Result<LoadStatsResponse, Status>> + Send>>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        let open = self.streams.open(Peer::of(&request), &self.limits)?;
        let (answers, taken) = mpsc::channel(1);
        tokio::spawn(serve(self.clone(), open, request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(taken))))
    }
}

type Answers = mpsc::Sender<Result<LoadStatsResponse, Status>>;

async fn serve(
    server: LrsServer,
    open: Open<()>,
    mut requests: Streaming<LoadStatsRequest>,
    answers: Answers,
) {
    if let Err(status) = take_reports(server, &mut requests, &answers).await {
        // Where nobody reads it is not worth waiting.
        let _ = answers.try_send(Err(status));
    }
    drop(open);
}

async fn take_reports(
    mut server: LrsServer,
    requests: &mut Streaming<LoadStatsRequest>,
    answers: &Answers,
) -> Result<(), Status> {
    let within = server.limits.first_request_within;
    let silence = |_| Status::from(Bound::Silence { seconds: within.as_secs() });
    let Some(first) = timeout(within, requests.message()).await.map_err(silence)?? else { return Ok(()) };
    let node = first.node.unwrap_or_default();
    let sends_all = node.client_features.iter().any(|feature| feature == SENDS_ALL);
    let mut asked_for = None;
    loop {
        let catalog = Arc::clone(&server.catalogs.borrow_and_update());
        let wanted = server.wanted(&catalog, sends_all);
        let ask = asked_for.as_ref() != Some(&wanted);
        tokio::select! {
            biased;
            request = requests.message() => {
                let Some(request) = request? else { return Ok(()) };
                server.limits.names(request.cluster_stats.len())?;
                for stats in request.cluster_stats {
                    of_cluster(&node.id, stats, &mut |report| server.hand_on(&catalog, report));
                }
            }
            room = answers.reserve(), if ask => {
                let Ok(room) = room else { return Ok(()) };
                room.send(Ok(wanted.clone()));
                asked_for = Some(wanted);
            }
            changed = server.catalogs.changed() => {
                changed.map_err(|_| Status::unavailable("this coordinator stops; ask another one"))?;
            }
        }
    }
}

/// The reports of one cluster.
fn of_cluster(node_id: &str, stats: ClusterStats, hand_on: &mut impl FnMut(LoadReport)) {
    // Both names are the service's, but for a cluster of a proxy's own file that takes our endpoints.
    let service =
        if stats.cluster_service_name.is_empty() { stats.cluster_name } else { stats.cluster_service_name };
    let interval = stats.load_report_interval.and_then(|interval| Duration::try_from(interval).ok());
    let interval = interval.unwrap_or_default();
    for of_locality in stats.upstream_locality_stats {
        let zone = of_locality.locality.as_ref().map(|locality: &Locality| locality.zone.clone());
        let place = LoadReport {
            node_id: node_id.to_owned(),
            service: service.clone(),
            endpoint: None,
            zone: zone.unwrap_or_default(),
            level: of_locality.priority,
            requests: of_locality.total_successful_requests.saturating_add(of_locality.total_error_requests),
            errors: of_locality.total_error_requests,
            issued: of_locality.total_issued_requests,
            in_progress: of_locality.total_requests_in_progress,
            interval,
            metrics: metrics(&of_locality),
        };
        if of_locality.upstream_endpoint_stats.is_empty() {
            hand_on(place);
            continue;
        }
        // Where endpoints are told apart, the locality is their sum and is not counted again.
        for stats in of_locality.upstream_endpoint_stats {
            hand_on(LoadReport {
                endpoint: stats.address.as_ref().and_then(socket_address),
                requests: stats.total_successful_requests.saturating_add(stats.total_error_requests),
                errors: stats.total_error_requests,
                issued: stats.total_issued_requests,
                in_progress: stats.total_requests_in_progress,
                metrics: named(&stats.load_metric_stats),
                ..place.clone()
            });
        }
    }
}

fn metrics(stats: &UpstreamLocalityStats) -> BTreeMap<String, MetricSum> {
    let mut metrics = named(&stats.load_metric_stats);
    let of_host: [(&str, &Option<UnnamedEndpointLoadMetricStats>); 3] = [
        ("cpu_utilization", &stats.cpu_utilization),
        ("mem_utilization", &stats.mem_utilization),
        ("application_utilization", &stats.application_utilization),
    ];
    for (name, stats) in of_host {
        if let Some(stats) = stats
            && stats.total_metric_value.is_finite()
        {
            let (calls, total) = (stats.num_requests_finished_with_metric, stats.total_metric_value);
            metrics.insert(name.to_owned(), MetricSum { calls, total });
        }
    }
    metrics
}

fn named(stats: &[EndpointLoadMetricStats]) -> BTreeMap<String, MetricSum> {
    let finite = stats.iter().filter(|stats| stats.total_metric_value.is_finite());
    finite
        .take(MOST_METRICS)
        .map(|stats| {
            let name = stats.metric_name.strip_prefix(NAMED).unwrap_or(&stats.metric_name);
            let (calls, total) = (stats.num_requests_finished_with_metric, stats.total_metric_value);
            (name.to_owned(), MetricSum { calls, total })
        })
        .collect()
}

fn socket_address(address: &Address) -> Option<SocketAddr> {
    let address = address.socket_address.as_ref()?;
    let ip: IpAddr = address.address.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(address.port_value?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::envoy::config::core::v3::SocketAddress;
    use crate::pb::envoy::config::endpoint::v3::UpstreamEndpointStats;

    fn reports(stats: ClusterStats) -> Vec<LoadReport> {
        let mut reports = Vec::new();
        of_cluster("node", stats, &mut |report| reports.push(report));
        reports
    }

    fn cluster(locality: UpstreamLocalityStats) -> ClusterStats {
        ClusterStats {
            cluster_name: "model-a".to_owned(),
            upstream_locality_stats: vec![locality],
            load_report_interval: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            ..ClusterStats::default()
        }
    }

    #[test]
    fn a_report_by_zone_has_its_counts_and_metrics() {
        let metric = |name: &str, total_metric_value| EndpointLoadMetricStats {
            metric_name: name.to_owned(),
            num_requests_finished_with_metric: 3,
            total_metric_value,
        };
        let reports = reports(cluster(UpstreamLocalityStats {
            locality: Some(Locality { zone: "a".to_owned(), ..Locality::default() }),
            total_successful_requests: 7,
            total_error_requests: 2,
            total_requests_in_progress: 4,
            total_issued_requests: 11,
            load_metric_stats: vec![metric("named_metrics.queue", 6.0), metric("broken", f64::NAN)],
            cpu_utilization: Some(UnnamedEndpointLoadMetricStats {
                num_requests_finished_with_metric: 9,
                total_metric_value: 4.5,
            }),
            ..UpstreamLocalityStats::default()
        }));
        let expected = LoadReport {
            node_id: "node".to_owned(),
            service: "model-a".to_owned(),
            endpoint: None,
            zone: "a".to_owned(),
            level: 0,
            requests: 9,
            errors: 2,
            issued: 11,
            in_progress: 4,
            interval: Duration::from_millis(1_500),
            metrics: BTreeMap::from([
                ("queue".to_owned(), MetricSum { calls: 3, total: 6.0 }),
                ("cpu_utilization".to_owned(), MetricSum { calls: 9, total: 4.5 }),
            ]),
        };
        assert_eq!(reports, [expected]);
    }

    #[test]
    fn endpoints_are_reported_in_place_of_their_zone() {
        let endpoint = |port, total_successful_requests| UpstreamEndpointStats {
            address: Some(Address {
                socket_address: Some(SocketAddress {
                    address: "127.0.0.1".to_owned(),
                    port_value: Some(port),
                    ..SocketAddress::default()
                }),
            }),
            total_successful_requests,
            ..UpstreamEndpointStats::default()
        };
        let reports = reports(cluster(UpstreamLocalityStats {
            total_successful_requests: 5,
            upstream_endpoint_stats: vec![endpoint(1, 2), endpoint(2, 3), endpoint(70_000, 0)],
            ..UpstreamLocalityStats::default()
        }));
        let seen: Vec<_> = reports.iter().map(|report| (report.endpoint, report.requests)).collect();
        let at = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(seen, [(at(1), 2), (at(2), 3), (None, 0)]);
    }

    #[test]
    fn a_negative_interval_is_none() {
        let mut stats = cluster(UpstreamLocalityStats::default());
        stats.load_report_interval = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        assert_eq!(reports(stats)[0].interval, Duration::ZERO);
    }
}
