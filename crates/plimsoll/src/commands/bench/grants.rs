//! `plimsoll bench grants`: durable grants a second and their latency.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, ValueEnum};
use plimsoll_client::Client;
use plimsoll_client::v1::stream_reservations_request::Request as Change;
use plimsoll_client::v1::{
    BatchCreateReservationsRequest, BatchReleaseReservationsRequest, ReleaseReservationRequest, Reservation,
    Strategy, batch_create_reservations_result,
};
use plimsoll_load::{Done, LoopConfig, Measured, closed_loop, open_loop};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::local::{LocalCluster, client_of};
use super::{failed, fleet};
use crate::args::{Globals, duration};
use crate::error::CliError;
use crate::exit::Exit;

/// Reservations released together between two measurements.
const RELEASE_TOGETHER: usize = 1_024;
/// Calls on one connection before another is opened.
const CALLS_PER_CONNECTION: usize = 64;
/// Most connections.
const MOST_CONNECTIONS: usize = 4;

/// Measures durable grants through the public API.
#[derive(Args, Debug)]
pub(crate) struct Grants {
    /// Start so many coordinators for this run, with synced writes, in place of the context's cluster
    #[arg(long, value_name = "N")]
    local: Option<u64>,
    /// Folder for the data of --local [default: the system's temporary folder]
    #[arg(long, value_name = "DIR", requires = "local")]
    data: Option<std::path::PathBuf>,
    /// How grants are asked for (repeatable, or with commas)
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mode::Unary, Mode::Stream, Mode::Batch])]
    mode: Vec<Mode>,
    /// Requests in flight (repeatable, or with commas)
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 64, 1_024])]
    in_flight: Vec<usize>,
    /// Most requests of one batch call
    #[arg(long, value_name = "N", default_value_t = 256)]
    batch: usize,
    /// Time measured for each line
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "4s")]
    measure: Duration,
    /// Time before measuring begins
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1s")]
    warm_up: Duration,
    /// Simulated nodes to place on
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    nodes: usize,
    /// Strategy of the pool that is placed in; worst_fit spreads the grants over all nodes, first_fit puts them on one
    #[arg(long, value_name = "NAME", default_value = "worst_fit")]
    strategy: String,
    /// Begin so many calls a second whatever is answered, and count latency from when each was due
    #[arg(long, value_name = "CALLS_PER_S")]
    rate: Option<f64>,
}

/// How grants are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// One call each
    Unary,
    /// On long conversations
    Stream,
    /// Many in one call
    Batch,
}

/// One line of the result.
struct Row {
    mode: Mode,
    in_flight: usize,
    measured: Measured,
    cpu_us_per_grant: Option<f64>,
}

/// Grants to give back afterwards.
type Granted = Arc<Mutex<Vec<(String, u64)>>>;

impl Grants {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        let cluster = match self.local {
            Some(count) => Some(LocalCluster::start(count, self.data.as_deref()).await?),
            None => None,
        };
        let client = match &cluster {
            Some(cluster) => client_of(cluster.addresses())?,
            None => globals.client_with(Duration::from_secs(60))?,
        };
        client.follow_leader().await.map_err(failed("the cluster"))?;
        out.say(&format!("registering {} nodes", self.nodes));
        let _nodes = fleet::register(&client, self.nodes, strategy(&self.strategy)?).await?;
        let mut floors =
            json!({ "grpc_health_per_s": health_rate(&client, self.measure / 2).await?.round() });
        if let Some(cluster) = &cluster {
            let rate = plimsoll_load::fdatasync_per_s(cluster.folder(), Duration::from_secs(1));
            let rate = rate.map_err(|error| CliError::local("cannot measure the disk", error))?;
            floors["fdatasync_per_s"] = json!(rate.round());
        }
        let mut rows = Vec::new();
        for mode in &self.mode {
            for in_flight in &self.in_flight {
                out.say(&format!("{} x {in_flight} for {:?}", mode.name(), self.measure));
                let row = self.row(&client, cluster.as_ref(), *mode, *in_flight).await?;
                out.say(&row.line());
                rows.push(row);
            }
        }
        if out.is_human() {
            let mut text = format!("{HEADER}\n");
            for row in &rows {
                text.push_str(&row.line());
                text.push('\n');
            }
            text.push_str(&format!("floors: {floors}\n"));
            out.emit(&text)?;
        } else {
            let rows: Vec<Value> = rows.iter().map(Row::document).collect();
            let nodes = self.nodes;
            out.document(&json!({ "nodes": nodes, "batch": self.batch, "strategy": self.strategy, "floors": floors, "rows": rows }))?;
        }
        Ok(Exit::Done)
    }

    async fn row(
        &self,
        client: &Client,
        cluster: Option<&LocalCluster>,
        mode: Mode,
        in_flight: usize,
    ) -> Result<Row, CliError> {
        let granted = Granted::default();
        let batch = match mode {
            Mode::Batch => self.batch.clamp(1, in_flight.max(1)),
            Mode::Unary | Mode::Stream => 1,
        };
        let config =
            LoopConfig { in_flight: in_flight.div_ceil(batch), warm_up: self.warm_up, measure: self.measure };
        // Connections of its own for each line; all of them know the leader.
        let connections = in_flight.div_ceil(CALLS_PER_CONNECTION).clamp(1, MOST_CONNECTIONS);
        let mut clients = Vec::new();
        for _ in 0..connections {
            let connection = Client::new(client.endpoints().to_vec(), client.options().clone());
            let connection = connection.map_err(failed("the cluster"))?;
            connection.follow_leader().await.map_err(failed("the cluster"))?;
            clients.push(connection);
        }
        let cpu_before = cluster.map(LocalCluster::cpu_us);
        let from = std::time::Instant::now();
        let measured = match mode {
            Mode::Unary => {
                let kept = Arc::clone(&granted);
                self.drive(config, move |worker| {
                    unary(clients[worker % clients.len()].clone(), Arc::clone(&kept))
                })
                .await
            }
            Mode::Stream => {
                let streams: Vec<_> =
                    clients.iter().map(|client| client.reservation_stream(in_flight)).collect();
                let kept = Arc::clone(&granted);
                self.drive(config, move |worker| {
                    streamed(streams[worker % streams.len()].clone(), Arc::clone(&kept))
                })
                .await
            }
            Mode::Batch => {
                let kept = Arc::clone(&granted);
                self.drive(config, move |worker| {
                    batched(clients[worker % clients.len()].clone(), batch, Arc::clone(&kept))
                })
                .await
            }
        };
        let wall = from.elapsed();
        let cpu = cpu_before.zip(cluster).map(|(before, cluster)| cluster.cpu_us() - before);
        // The warm-up is in the CPU time: its share of the calls is taken off by its share of the time.
        let cpu_us_per_grant = cpu
            .filter(|_| measured.done > 0)
            .map(|us| us as f64 * (self.measure.as_secs_f64() / wall.as_secs_f64()) / measured.done as f64);
        let held = std::mem::take(&mut *granted.lock().expect("no worker panics while it holds it"));
        release(client, held).await?;
        Ok(Row { mode, in_flight, measured, cpu_us_per_grant })
    }

    async fn drive<F, Fut>(&self, config: LoopConfig, call: F) -> Measured
    where
        F: Fn(usize) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Done> + Send,
    {
        match self.rate {
            Some(rate) => open_loop(config, rate, call).await,
            None => closed_loop(config, call).await,
        }
    }
}

async fn unary(client: Client, granted: Granted) -> Done {
    let answer = client.create_reservation(fleet::request()).await.map_err(|error| error.to_string())?;
    keep(&granted, answer.reservation);
    Ok(1)
}

async fn streamed(stream: plimsoll_client::ReservationStream, granted: Granted) -> Done {
    let answer = stream.send(Change::Create(fleet::request())).await.map_err(|error| error.to_string())?;
    keep(&granted, [answer.reservation]);
    Ok(1)
}

async fn batched(client: Client, size: usize, granted: Granted) -> Done {
    let requests = (0..size).map(|_| fleet::request()).collect();
    let request = BatchCreateReservationsRequest { requests };
    let answer = client.batch_create_reservations(request).await.map_err(|error| error.to_string())?;
    let mut done = 0;
    let mut failure = None;
    let mut reservations = Vec::with_capacity(size);
    for result in answer.results.into_iter().filter_map(|result| result.result) {
        match result {
            batch_create_reservations_result::Result::Response(response) => {
                done += 1;
                reservations.extend(response.reservation);
            }
            batch_create_reservations_result::Result::Failure(one) => failure = Some(format!("{one:?}")),
        }
    }
    keep(&granted, reservations);
    failure.filter(|_| done == 0).map_or(Ok(done), Err)
}

fn keep(granted: &Granted, reservations: impl IntoIterator<Item = Reservation>) {
    let mut granted = granted.lock().expect("no worker panics while it holds it");
    granted.extend(reservations.into_iter().map(|reservation| (reservation.name, reservation.token)));
}

async fn release(client: &Client, held: Vec<(String, u64)>) -> Result<(), CliError> {
    for part in held.chunks(RELEASE_TOGETHER) {
        let one = |(name, token): &(String, u64)| ReleaseReservationRequest {
            name: name.clone(),
            token: *token,
            ..ReleaseReservationRequest::default()
        };
        let request = BatchReleaseReservationsRequest { requests: part.iter().map(one).collect() };
        client.batch_release_reservations(request).await.map_err(failed("cannot release"))?;
    }
    Ok(())
}

/// The bare rate of gRPC here: health checks, which reach no ledger, 64 in flight on as many connections as a run has.
async fn health_rate(client: &Client, measure: Duration) -> Result<f64, CliError> {
    let mut channels = Vec::new();
    for _ in 0..MOST_CONNECTIONS {
        let connection = Client::new([client.address()], client.options().clone());
        let connection = connection.map_err(failed("the cluster"))?;
        channels.push(connection.channel().map_err(failed("the cluster"))?.1);
    }
    let config = LoopConfig { in_flight: 64, warm_up: measure / 4, measure };
    let measured = closed_loop(config, move |worker| check(channels[worker % channels.len()].clone())).await;
    Ok(measured.per_s())
}

async fn check(channel: Channel) -> Done {
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let answer = health.check(tonic_health::pb::HealthCheckRequest::default()).await;
    answer.map(|_| 1).map_err(|status| status.to_string())
}

fn strategy(name: &str) -> Result<Strategy, CliError> {
    let word = format!("STRATEGY_{}", name.to_ascii_uppercase().replace('-', "_"));
    Strategy::from_str_name(&word)
        .ok_or_else(|| CliError::usage(format!("--strategy {name}: there is no such strategy")))
}

const HEADER: &str =
    "mode     in flight    grants/s    p50 ms    p99 ms  p99.9 ms    max ms  failed  cpu us/grant";

impl Row {
    fn line(&self) -> String {
        let measured = &self.measured;
        let cpu = self.cpu_us_per_grant.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"));
        let failure = measured.failure.as_deref().map(|why| format!("  ({why})")).unwrap_or_default();
        format!(
            "{:<8} {:>9} {:>11.0} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>7}  {cpu:>12}{failure}",
            self.mode.name(),
            self.in_flight,
            measured.per_s(),
            measured.quantile_ms(0.5),
            measured.quantile_ms(0.99),
            measured.quantile_ms(0.999),
            measured.max_ms(),
            measured.failed,
        )
    }

    fn document(&self) -> Value {
        let measured = &self.measured;
        json!({
            "mode": self.mode.name(),
            "in_flight": self.in_flight,
            "grants_per_s": measured.per_s().round(),
            "p50_ms": measured.quantile_ms(0.5),
            "p99_ms": measured.quantile_ms(0.99),
            "p999_ms": measured.quantile_ms(0.999),
            "max_ms": measured.max_ms(),
            "failed": measured.failed,
            "cpu_us_per_grant": self.cpu_us_per_grant,
        })
    }
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Unary => "unary",
            Mode::Stream => "stream",
            Mode::Batch => "batch",
        }
    }
}
