//! Many requests wait for one GPU: each release has one winner, and is as quick with many waiting as with few.

use std::time::{Duration, Instant};

use plimsoll_client::{Client, v1};

use crate::chaos::report::percentile;
use crate::chaos::stage::{Plan, Stage};

/// Requests in one call.
const BATCH: usize = 500;
/// Releases that are timed.
const ROUNDS: usize = 200;
/// Longest wait for the next holder.
const PATIENCE: Duration = Duration::from_secs(10);

/// Queues so many, and says how long the device takes from one holder to the next.
///
/// # Errors
/// Where something is not as it must be.
pub async fn waiters_on_one_gpu(waiters: usize) -> Result<String, String> {
    let plan = Plan { agents: 1, seed: 1, ..Plan::default() };
    let stage = Stage::build(plan).await?;
    let client = stage.client().with_timeout(Duration::from_secs(60));
    // The agent has four GPUs: three are taken for good, one is fought for.
    let taken = create(&client, 3, false).await?;
    if taken.state() != v1::ReservationState::Active {
        return Err(format!("three GPUs are not granted: {:?}", taken.state()));
    }
    let mut holder = create(&client, 1, false).await?;
    let began = Instant::now();
    let mut queued = 0;
    while queued < waiters {
        let count = BATCH.min(waiters - queued);
        let requests = (0..count).map(|_| gpus(1, true)).collect();
        let answer = client.batch_create_reservations(v1::BatchCreateReservationsRequest { requests }).await;
        for one in answer.map_err(|error| format!("queueing: {error}"))?.results {
            match one.result {
                Some(v1::batch_create_reservations_result::Result::Response(_)) => queued += 1,
                other => return Err(format!("not queued: {other:?}")),
            }
        }
    }
    let queueing = began.elapsed();
    let mut times = Vec::new();
    for round in 0..ROUNDS.min(waiters) {
        let began = Instant::now();
        let request = v1::ReleaseReservationRequest {
            name: holder.id.clone(),
            token: holder.token,
            ..Default::default()
        };
        client.release_reservation(request).await.map_err(|error| format!("release: {error}"))?;
        holder = winner(&client, &taken.id).await.map_err(|error| format!("round {round}: {error}"))?;
        times.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    times.sort_unstable();
    Ok(format!(
        "{waiters} waiters queued in {queueing:.1?}; from a release to the next holder, {} times: p50 {} p99 {} max {} us; \
         one winner each time",
        times.len(),
        percentile(&times, 50),
        percentile(&times, 99),
        percentile(&times, 100),
    ))
}

/// The one that has the GPU now.
async fn winner(client: &Client, other: &str) -> Result<v1::Reservation, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let states = vec![v1::ReservationState::Active.into()];
        let request = v1::ListReservationsRequest { states, page_size: 10, ..Default::default() };
        let page = client.list_reservations(request).await.map_err(|error| error.to_string())?;
        let mut holders: Vec<v1::Reservation> =
            page.reservations.into_iter().filter(|one| one.id != other).collect();
        if holders.len() > 1 {
            return Err(format!("{} have the one GPU", holders.len()));
        }
        if let Some(holder) = holders.pop() {
            return Ok(holder);
        }
        if Instant::now() >= until {
            return Err("nobody gets the GPU".to_owned());
        }
    }
}

fn gpus(count: u32, waits: bool) -> v1::CreateReservationRequest {
    let gpu = v1::GpuAsk { count, ..Default::default() };
    let spec = v1::ReservationSpec {
        requirements: Some(v1::Requirements { gpu: Some(gpu), ..Default::default() }),
        ttl_ms: 3_600_000,
        auto_confirm: true,
        wait: waits.then_some(v1::WaitPolicy { queue: true, deadline_ms: 0 }),
        ..Default::default()
    };
    v1::CreateReservationRequest { spec: Some(spec), ..Default::default() }
}

async fn create(client: &Client, count: u32, waits: bool) -> Result<v1::Reservation, String> {
    let answer = client.create_reservation(gpus(count, waits)).await.map_err(|error| error.to_string())?;
    answer.reservation.ok_or_else(|| "no reservation".to_owned())
}
