//! `plimsoll replay`: a recorded workload on a running cluster, through its public API alone.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::{StreamExt as _, stream};
use nix::sys::signal::Signal;
use plimsoll_agent::clock::BootClock;
use plimsoll_agent::{FleetConfig, SimulatedFleet, fresh_incarnation};
use plimsoll_client::Client;
use plimsoll_client::v1::{ApplyPolicyRequest, DeletePolicyRequest, RemoveNodeRequest};
use plimsoll_ledger::{PolicyObject, Pool};
use plimsoll_proto::convert;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::agent::dial;
use super::process::Signals;
use super::recorded::{Input, Recorded};
use crate::args::{Globals, duration};
use crate::error::CliError;
use crate::exit::Exit;
use crate::trace::{Course, NodeRow, Pace, Progress, Replay as Running, Report, node_names};

const REGISTER_WAIT: Duration = Duration::from_secs(120);
/// Longest time for one call with all its repeats: longer than an election on a loaded machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs a workload on a running cluster: nodes through the agents' protocol, reservations through the public API.
#[derive(Args, Debug)]
#[command(mut_arg("seed", |seed| {
    seed.help("Names the pool of the run; the cluster's own seed decides what the random strategy does")
}))]
pub(crate) struct Replay {
    #[command(flatten)]
    recorded: Recorded,
    /// Simulated seconds to a real one [default: so that the last row arrives after --duration]
    #[arg(long, value_name = "FACTOR", conflicts_with = "no_departures")]
    speed: Option<f64>,
    /// Real time over which the rows arrive
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    duration: Duration,
    /// Most calls in flight; with 1, --no-departures places exactly as `plimsoll simulate` does
    #[arg(long, value_name = "N", default_value_t = 64)]
    in_flight: usize,
    /// Pool of the run, made for it [default: replay-SEED]
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Leave reservations and nodes as they are at the end
    #[arg(long)]
    keep: bool,
}

impl Replay {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        let Input { strategy, strategy_name, nodes, work } = self.recorded.read()?;
        let pool_name = self.pool.clone().unwrap_or_else(|| format!("replay-{}", self.recorded.seed));
        let mut signals = Signals::listen()?;
        let client = globals.client_with(CALL_TIMEOUT)?;
        let pool = Pool { name: pool_name.clone(), strategy, ..Pool::default() };
        let objects = vec![convert::policy_object_to_v1(&PolicyObject::Pool(pool))];
        let request = ApplyPolicyRequest { objects, ..ApplyPolicyRequest::default() };
        client.apply_policy(request).await?;
        out.say(&format!("pool {pool_name}: registering {} nodes", nodes.len()));
        let fleet_stop = CancellationToken::new();
        let fleet = tokio::select! {
            registered = self.register(&client, &nodes, &pool_name, &fleet_stop) => registered?,
            number = signals.next_end() => {
                out.say("stopping: nodes that are registered already stay; plimsoll node remove");
                fleet_stop.cancel();
                return Ok(Exit::Command(128 + u8::try_from(number as i32).unwrap_or(0)));
            }
        };

        let report = Report {
            strategy: strategy_name,
            seed: self.recorded.seed,
            gpu_milli: nodes.iter().map(|node| u64::from(node.gpus) * 1_000).sum(),
            node_names: node_names(&nodes),
            extra: [("pool".to_owned(), json!(pool_name))].into(),
            ..Report::default()
        };
        let gpus_per_node = nodes.iter().map(|node| node.gpus).max().unwrap_or(0);
        let stop = CancellationToken::new();
        let (pool, pace, in_flight) = (pool_name.clone(), self.pace(&work), self.in_flight);
        let course = Course { pool, gpus_per_node, pace, in_flight };
        let replay = Running::new(client.clone(), course, &work, report, stop.clone());
        let mut ended_by = None;
        let progress = Progress::new(work.len(), globals.quiet);
        {
            let running = replay.run(&work);
            tokio::pin!(running);
            let mut look = tokio::time::interval(LOOK_EVERY);
            loop {
                tokio::select! {
                    biased;
                    () = &mut running => break,
                    number = signals.next_end() => {
                        // Who asks again does not want to wait for answers.
                        if ended_by.is_some() {
                            break;
                        }
                        ended_by = Some(number);
                        out.say("stopping: what is in flight is still answered; Ctrl-C again leaves it");
                        stop.cancel();
                    }
                    _ = look.tick() => progress.at(replay.arrived()),
                }
            }
        }
        progress.end();
        let mut report = replay.report();
        let outcome = outcome(&replay, ended_by, &mut report);
        if self.keep {
            out.say(&format!("reservations and nodes stay in pool {pool_name}; the nodes fall silent now"));
        } else {
            let left = replay.release_all().await;
            fleet_stop.cancel();
            let nodes_left = remove(&client, &nodes).await;
            let delete = DeletePolicyRequest {
                names: vec![convert::policy_name_to_v1(&plimsoll_ledger::PolicyName::Pool(
                    pool_name.clone(),
                ))],
                ..DeletePolicyRequest::default()
            };
            let pool_left = client.delete_policy(delete).await.is_err();
            if left + nodes_left > 0 || pool_left {
                out.say(&format!(
                    "left in pool {pool_name}: {left} reservations, {nodes_left} nodes; see `plimsoll get nodes` and remove them with `plimsoll node remove`"
                ));
            }
        }
        fleet_stop.cancel();
        drop(fleet.await);
        out.emit(&format!("{:#}\n", report.document()))?;
        outcome
    }

    fn pace(&self, work: &[crate::trace::WorkRow]) -> Pace {
        if self.recorded.no_departures {
            return Pace::FileOrder;
        }
        let first = work.iter().map(|row| row.submit_s).fold(f64::INFINITY, f64::min);
        let last = work.iter().map(|row| row.submit_s).fold(0.0, f64::max);
        let fitting = (last - first).max(1.0) / self.duration.as_secs_f64().max(0.001);
        Pace::Timed { speed: self.speed.unwrap_or(fitting).max(1e-3) }
    }

    async fn register(
        &self,
        client: &Client,
        nodes: &[NodeRow],
        pool: &str,
        stop: &CancellationToken,
    ) -> Result<tokio::task::JoinHandle<()>, CliError> {
        let played = nodes.iter().map(|node| node.simulated(pool)).collect();
        // One stream, which registers by name: nodes get their ids in that order, as in `plimsoll simulate`, and ids break ties
        // between equally good places.
        let config = FleetConfig {
            nodes_per_stream: nodes.len(),
            incarnation: fresh_incarnation(),
            ..FleetConfig::default()
        };
        let fleet = SimulatedFleet::new(played, config, Arc::new(dial(client)), BootClock::shared());
        let mut status = fleet.status();
        let running = tokio::spawn(fleet.run(stop.clone()));
        let settled = tokio::time::timeout(REGISTER_WAIT, status.settled()).await;
        if settled.is_err() || status.registered() != nodes.len() {
            stop.cancel();
            let (registered, all) = (status.registered(), nodes.len());
            let refused: Vec<String> =
                status.refused().into_iter().take(5).map(|(name, why)| format!("{name}: {why}")).collect();
            let why = format!("{registered} of {all} were registered; refused: {refused:?}");
            return Err(CliError::local("the fleet cannot be played", why).help(
                "nodes of the same names in another pool, or with leases, are in the way: plimsoll get nodes",
            ));
        }
        Ok(running)
    }
}

/// How the replay ends; a run that is not whole says so in its document, and never ends with 0.
fn outcome(replay: &Running, ended_by: Option<Signal>, report: &mut Report) -> Result<Exit, CliError> {
    if let Some(error) = replay.watch_failed() {
        report.incomplete = Some(format!("grants could not be watched to the end: {error}"));
        return Err(CliError::from(error).asked("grants could not be watched to the end"));
    }
    let arrived = replay.arrived();
    if let Some(number) = ended_by {
        let rows = report.requests.len();
        report.incomplete = Some(format!("stopped by {number} after {arrived} of {rows} rows"));
        return Ok(Exit::Command(128 + u8::try_from(number as i32).unwrap_or(0)));
    }
    let unanswered = replay.unanswered();
    if unanswered > 0 {
        let what = format!("{unanswered} rows had no definite answer");
        report.incomplete = Some(what.clone());
        return Err(CliError::new(Exit::Unreachable, "UNAVAILABLE", what).asked("the replay is not whole"));
    }
    Ok(Exit::Done)
}

/// Removes nodes; how many are left.
async fn remove(client: &Client, nodes: &[NodeRow]) -> usize {
    let remove = |node: &NodeRow| {
        let request = RemoveNodeRequest { name: node.name.clone(), ..RemoveNodeRequest::default() };
        async move { client.remove_node(request).await.is_err() }
    };
    let failed = stream::iter(nodes).map(remove).buffer_unordered(64);
    failed.filter(|failed| std::future::ready(*failed)).count().await
}
