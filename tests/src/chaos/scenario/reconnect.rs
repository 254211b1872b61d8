//! Many agents lose the leader at once: how long until all are back, and what leases and other clients notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_agent::{FleetConfig, FleetStatus, GrpcDial, SimulatedFleet, SimulatedNode};
use plimsoll_client::{Client, v1};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use super::probe::{granted, one_thousandth, probe};
use crate::chaos::report::percentile;
use crate::chaos::stage::{Plan, Stage};

/// Requests in one call.
const BATCH: usize = 500;
/// Leases that are held meanwhile, on as many nodes or fewer.
const LEASES: usize = 2_000;
/// They are not renewed, so they must last.
const TTL_MS: u64 = 600_000;
/// Clients that go on asking for grants.
const PROBES: usize = 4;
/// Longest wait for all agents, at first and again.
const PATIENCE: Duration = Duration::from_secs(180);
/// Agents that were silent for too long would be judged by then.
const AFTERWARDS: Duration = Duration::from_secs(15);

/// Registers so many agents, `per_stream` to a connection, kills the leader, and says what came of it.
///
/// # Errors
/// Where something is not as it must be.
pub async fn reconnecting(agents: usize, per_stream: usize) -> Result<String, String> {
    let mut stage = Stage::build(Plan { seed: 1, ..Plan::default() }).await?;
    let client = stage.client().with_timeout(Duration::from_secs(60));
    let stop = CancellationToken::new();
    let began = Instant::now();
    let status = start(&stage, agents, per_stream, &stop);
    wait_for_all(&status, agents).await?;
    let registering = began.elapsed();
    leases(&client).await?;
    let watched_from =
        client.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?.revision;
    let before = sorted(probe(&client, 300).await?);

    let during = Arc::new(AtomicBool::new(true));
    let probes: Vec<JoinHandle<Result<Vec<u64>, String>>> = (0..PROBES)
        .map(|_| {
            let (client, during) = (stage.client(), Arc::clone(&during));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while during.load(Ordering::Relaxed) {
                    times.extend(probe(&client, 5).await?);
                }
                Ok(times)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let leader = stage.leader().await?;
    stage.cluster.member_mut(leader).kill();
    let killed = Instant::now();
    while status.registered() >= agents && killed.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (least, half, all) = comes_back(&status, agents, killed).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    during.store(false, Ordering::Relaxed);
    let mut times = Vec::new();
    for one in probes {
        times.extend(one.await.map_err(|error| error.to_string())??);
    }
    let times = sorted(times);
    stage.restart(leader).await?;
    tokio::time::sleep(AFTERWARDS).await;
    let (suspected, ended) = noticed(&client, watched_from).await?;
    let kept = held(&client).await?;
    stop.cancel();
    let summary = format!(
        "{agents} agents, {per_stream} to a connection, registered in {registering:.1?}; leader killed: at least {least} were cut off, \
         half were back after {half:.2?}, all after {all:.2?}; {suspected} nodes became suspect, {kept} of {LEASES} leases are held, \
         {ended} ended; others' grants: before p50 {} p99 {} us, during p50 {} p99 {} max {} us ({} of them)",
        percentile(&before, 50),
        percentile(&before, 99),
        percentile(&times, 50),
        percentile(&times, 99),
        percentile(&times, 100),
        times.len(),
    );
    if suspected > 0 || ended > 0 || kept != LEASES { Err(summary) } else { Ok(summary) }
}

/// Agents as they are in the product, many of them in this process.
fn start(stage: &Stage, agents: usize, per_stream: usize, stop: &CancellationToken) -> FleetStatus {
    let endpoint = |address: String| {
        Endpoint::from_shared(format!("http://{address}"))
            .expect("an address")
            .connect_timeout(Duration::from_secs(2))
    };
    let endpoints: Vec<Endpoint> = stage.cluster.addresses().into_iter().map(endpoint).collect();
    let node = |index: usize| {
        let name = format!("node-{index:05}");
        let gpus = plimsoll_agent::gpu::FakeGpus::of("a100", 80 << 30, 1);
        let inventory = plimsoll_agent::inventory::Inventory::simulated(&name, 8_000, 64 << 30, &gpus);
        SimulatedNode { name, pool: String::new(), inventory, extra: plimsoll_types::Resources::default() }
    };
    let config = FleetConfig { nodes_per_stream: per_stream, ..FleetConfig::default() };
    let dial = Arc::new(GrpcDial::round_robin(endpoints));
    let clock = plimsoll_agent::clock::BootClock::shared();
    let fleet = SimulatedFleet::new((0..agents).map(node).collect(), config, dial, clock);
    let status = fleet.status();
    tokio::spawn(fleet.run(stop.clone()));
    status
}

async fn wait_for_all(status: &FleetStatus, agents: usize) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    while status.registered() < agents {
        if Instant::now() >= until {
            let refused = status.refused().into_iter().next();
            return Err(format!(
                "{} of {agents} agents after {PATIENCE:?} ({refused:?})",
                status.registered()
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Most that were away, and the times until half of all and all were back.
async fn comes_back(
    status: &FleetStatus,
    agents: usize,
    killed: Instant,
) -> Result<(usize, Duration, Duration), String> {
    let (mut fewest, mut half) = (agents, None);
    let mut since_all: Option<Instant> = None;
    loop {
        let registered = status.registered();
        fewest = fewest.min(registered);
        if registered >= agents / 2 && fewest < agents / 2 {
            half.get_or_insert_with(|| killed.elapsed());
        }
        match since_all {
            // Connections break over some time: all must be there for a while.
            Some(since) if registered >= agents && since.elapsed() > Duration::from_secs(1) => {
                let all = since - killed;
                return Ok((agents - fewest, half.unwrap_or(all), all));
            }
            Some(_) if registered >= agents => {}
            _ => since_all = (registered >= agents).then(Instant::now),
        }
        if killed.elapsed() > PATIENCE {
            return Err(format!("{registered} of {agents} agents are back after {PATIENCE:?}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn leases(client: &Client) -> Result<(), String> {
    for _ in 0..LEASES / BATCH {
        let requests = (0..BATCH).map(|_| one_thousandth("held", TTL_MS)).collect();
        let answer = client.batch_create_reservations(v1::BatchCreateReservationsRequest { requests }).await;
        let answer = answer.map_err(|error| format!("making leases: {error}"))?;
        if let Some(other) = answer.results.iter().find(|one| !granted(one)) {
            return Err(format!("a lease was not granted: {other:?}"));
        }
    }
    Ok(())
}

/// How many of those leases are held as if nothing had been.
async fn held(client: &Client) -> Result<usize, String> {
    let (mut held, mut page_token) = (0, String::new());
    loop {
        let request = v1::ListReservationsRequest {
            page_size: 1_000,
            page_token,
            spec_name: "held".to_owned(),
            states: vec![v1::ReservationState::Active.into()],
            ..Default::default()
        };
        let page = client.list_reservations(request).await.map_err(|error| error.to_string())?;
        held += page.reservations.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(held);
        }
    }
}

/// Nodes that became suspect since a revision, and reservations that ended otherwise than by release.
async fn noticed(client: &Client, from_revision: u64) -> Result<(usize, usize), String> {
    let status = client.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?;
    let last = status.revision;
    let request = v1::WatchRequest {
        from_revision: from_revision + 1,
        progress_interval_ms: 500,
        ..Default::default()
    };
    let mut watch = client.watch(request).await.map_err(|error| error.to_string())?;
    let (mut suspected, mut ended) = (0, 0);
    loop {
        let next = tokio::time::timeout(PATIENCE, watch.next()).await;
        let batch = next.map_err(|_| "the watch stands still".to_owned())?;
        let batch = batch.map_err(|error| error.to_string())?;
        for event in &batch.events {
            match &event.object {
                Some(v1::event::Object::Node(node)) if node.state() == v1::NodeState::Suspect => {
                    suspected += 1
                }
                Some(v1::event::Object::Reservation(one))
                    if matches!(
                        one.state(),
                        v1::ReservationState::Expired
                            | v1::ReservationState::Failed
                            | v1::ReservationState::Unknown
                    ) =>
                {
                    ended += 1;
                }
                _ => {}
            }
        }
        if batch.revision >= last {
            return Ok((suspected, ended));
        }
    }
}

fn sorted(mut times: Vec<u64>) -> Vec<u64> {
    times.sort_unstable();
    times
}
