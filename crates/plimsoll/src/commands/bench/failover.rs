//! `plimsoll bench failover`: the leader is killed again and again; how long is there no grant?

use std::time::{Duration, Instant};

use clap::Args;
use plimsoll_client::v1::Strategy;
use plimsoll_client::v1::reservation_service_client::ReservationServiceClient;
use serde_json::json;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};

use super::fleet;
use super::local::LocalCluster;
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;

/// Between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// Longest life of one probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest outage that is waited for.
const LONGEST: Duration = Duration::from_secs(30);
/// Time for the killed one to come back before the next round.
const SETTLE: Duration = Duration::from_millis(1_500);

/// Kills the leader of coordinators of its own, again and again.
#[derive(Args, Debug)]
pub(crate) struct Failover {
    /// Coordinators to start
    #[arg(long, value_name = "N", default_value_t = 3)]
    local: u64,
    /// Leaders to kill
    #[arg(long, value_name = "N", default_value_t = 20)]
    kills: usize,
}

impl Failover {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        if self.local < 3 {
            return Err(CliError::usage("--local: fewer than 3 coordinators do not survive the loss of one"));
        }
        let mut cluster = LocalCluster::start(self.local, None).await?;
        let _nodes = fleet::register(&cluster.client()?, 16, Strategy::WorstFit).await?;
        let mut outages_ms = Vec::new();
        for round in 1..=self.kills {
            let leader = cluster.leader().await?;
            let survivors = channels(&cluster.others(leader))?;
            cluster.kill(leader)?;
            let outage = first_grant(&survivors).await?;
            out.say(&format!("kill {round} of {}: leader {leader}, {:.0} ms", self.kills, ms(outage)));
            outages_ms.push(ms(outage));
            cluster.restart(leader)?;
            tokio::time::sleep(SETTLE).await;
        }
        outages_ms.sort_by(f64::total_cmp);
        let at = |share: f64| outages_ms[((outages_ms.len() - 1) as f64 * share).round() as usize];
        let (p50, p99, worst) = (at(0.5), at(0.99), at(1.0));
        if out.is_human() {
            let best = at(0.0);
            out.emit(&format!(
                "write outage after a leader kill, {} kills: min {best:.0} ms, p50 {p50:.0} ms, p99 {p99:.0} ms, max {worst:.0} ms\n",
                self.kills
            ))?;
        } else {
            out.document(&json!({ "kills": self.kills, "p50_ms": p50, "p99_ms": p99, "max_ms": worst, "outages_ms": outages_ms }))?;
        }
        Ok(Exit::Done)
    }
}

/// Time until one of many probes, a new one each 5 ms at each survivor in turn, is granted.
pub(super) async fn first_grant(survivors: &[Channel]) -> Result<Duration, CliError> {
    let begun = Instant::now();
    let (granted, mut first) = mpsc::channel::<()>(1);
    let mut turn = 0;
    while begun.elapsed() < LONGEST {
        let channel = survivors[turn % survivors.len()].clone();
        turn += 1;
        let granted = granted.clone();
        tokio::spawn(async move {
            let mut service = ReservationServiceClient::new(channel);
            let mut request = tonic::Request::new(fleet::request());
            request.set_timeout(PROBE_TIMEOUT);
            if service.create_reservation(request).await.is_ok() {
                // Only the first one counts.
                let _ = granted.try_send(());
            }
        });
        if tokio::time::timeout(PROBE_EVERY, first.recv()).await.is_ok() {
            return Ok(begun.elapsed());
        }
    }
    Err(CliError::local("the benchmark's coordinators", format!("no grant for {LONGEST:?}")))
}

/// Connections to addresses, made at first use.
pub(super) fn channels(addresses: &[String]) -> Result<Vec<Channel>, CliError> {
    let channel = |address: &String| {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| CliError::local("an address of ours", error))?;
        Ok(endpoint.connect_timeout(Duration::from_millis(200)).connect_lazy())
    };
    addresses.iter().map(channel).collect()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
