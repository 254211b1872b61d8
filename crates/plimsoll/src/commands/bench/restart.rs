//! `plimsoll bench restart`: memory with many live reservations, and the way back after all coordinators are killed.

use std::time::{Duration, Instant};

use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use plimsoll_client::Client;
use plimsoll_client::v1::{BatchCreateReservationsRequest, Strategy};
use serde_json::json;

use super::failover::{channels, first_grant};
use super::local::LocalCluster;
use super::{failed, fleet};
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;

/// Reservations made in one call.
const TOGETHER: usize = 1_000;
/// Calls in flight while the ledger is filled.
const FILLERS: usize = 4;

/// Fills the ledger of coordinators of its own, kills them all, and waits for the first new grant.
#[derive(Args, Debug)]
pub(crate) struct Restart {
    /// Coordinators to start
    #[arg(long, value_name = "N", default_value_t = 3)]
    local: u64,
    /// Live reservations
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    reservations: usize,
    /// Nodes that they are on
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    nodes: usize,
    /// Times that all are killed
    #[arg(long, value_name = "N", default_value_t = 3)]
    kills: usize,
}

impl Restart {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        let mut cluster = LocalCluster::start(self.local, None).await?;
        let client = cluster.client()?;
        client.follow_leader().await.map_err(failed("the cluster"))?;
        out.say(&format!("registering {} nodes", self.nodes));
        let nodes = fleet::register(&client, self.nodes, Strategy::WorstFit).await?;
        let empty = memory(&cluster);
        out.say(&format!("making {} reservations", self.reservations));
        let begun = Instant::now();
        let calls = self.reservations.div_ceil(TOGETHER);
        stream::iter((0..calls).map(|_| fill(&client)))
            .buffer_unordered(FILLERS)
            .try_collect::<Vec<()>>()
            .await?;
        let fill_s = begun.elapsed().as_secs_f64();
        let full = memory(&cluster);
        // Nodes fall silent with the coordinators in a real outage too, but their streams are no part of the measurement.
        drop(nodes);
        let mut restarts_ms = Vec::new();
        for kill in 1..=self.kills {
            for id in cluster.ids() {
                cluster.kill(id)?;
            }
            let begun = Instant::now();
            for id in cluster.ids() {
                cluster.restart(id)?;
            }
            first_grant(&channels(&cluster.addresses())?).await?;
            let spent_ms = begun.elapsed().as_secs_f64() * 1_000.0;
            out.say(&format!("restart {kill} of {}: first grant after {spent_ms:.0} ms", self.kills));
            restarts_ms.push(spent_ms);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let after = memory(&cluster);
        restarts_ms.sort_by(f64::total_cmp);
        let median_ms = restarts_ms[restarts_ms.len() / 2];
        let each = (full.iter().max().copied().unwrap_or(0))
            .saturating_sub(empty.iter().max().copied().unwrap_or(0))
            / self.reservations.max(1) as u64;
        if out.is_human() {
            out.emit(&format!(
                "{} reservations on {} nodes, made in {fill_s:.1} s: resident {} MiB a coordinator ({each} B a reservation), {} MiB after restart; all killed to first grant: median {median_ms:.0} ms of {restarts_ms:.0?}\n",
                self.reservations, self.nodes, mib(&full), mib(&after),
            ))?;
        } else {
            out.document(&json!({
                "reservations": self.reservations, "nodes": self.nodes, "fill_s": fill_s,
                "resident_bytes_empty": empty, "resident_bytes": full, "resident_bytes_after_restart": after,
                "bytes_per_reservation": each, "restart_ms_median": median_ms, "restarts_ms": restarts_ms,
            }))?;
        }
        Ok(Exit::Done)
    }
}

async fn fill(client: &Client) -> Result<(), CliError> {
    let requests = (0..TOGETHER).map(|_| fleet::request()).collect();
    let answer = client.batch_create_reservations(BatchCreateReservationsRequest { requests }).await;
    answer.map(drop).map_err(failed("cannot fill the ledger"))
}

/// Resident bytes of each member.
fn memory(cluster: &LocalCluster) -> Vec<u64> {
    cluster.pids().into_iter().filter_map(plimsoll_load::resident_bytes).collect()
}

fn mib(bytes: &[u64]) -> u64 {
    bytes.iter().max().copied().unwrap_or(0) >> 20
}
