//! Many leases with one deadline: they end in bounded batches, and others go on being served.

use std::time::{Duration, Instant};

use plimsoll_client::{Client, v1};

use super::probe::{granted, one_thousandth, probe};
use crate::chaos::report::percentile;
use crate::chaos::stage::{Plan, Stage};

/// Requests in one call.
const BATCH: usize = 500;
/// Length of the leases: all are made within it.
const TTL_MS: u64 = 60_000;
/// From the end of a lease to its safe end (`docs/semantics.md` 4).
const SWEEP_AFTER_MS: u64 = TTL_MS / 10 + 1_000;

/// Makes `leases` of them, lets them end, and says how long that took and what others noticed.
///
/// # Errors
/// Where something is not as it must be.
pub async fn expiry_storm(leases: usize) -> Result<String, String> {
    let plan = Plan { agents: 8, seed: 1, ..Plan::default() };
    let stage = Stage::build(plan).await?;
    let client = stage.client().with_timeout(Duration::from_secs(60));
    let before = probe(&client, 200).await?;
    let began = Instant::now();
    let mut made = 0;
    while made < leases {
        let count = BATCH.min(leases - made);
        let requests = (0..count).map(|_| one_thousandth("storm", TTL_MS)).collect();
        let answer = client.batch_create_reservations(v1::BatchCreateReservationsRequest { requests }).await;
        let answer = answer.map_err(|error| format!("making leases: {error}"))?;
        if let Some(other) = answer.results.iter().find(|one| !granted(one)) {
            return Err(format!("a lease was not granted: {other:?}"));
        }
        made += count;
    }
    let making = began.elapsed();
    if making > Duration::from_millis(TTL_MS) {
        return Err(format!("making {leases} leases took {making:?}, longer than they last"));
    }
    // Agents say that a lease is over at its end; the ledger's own sweep comes a tenth and a second later. Both make the storm.
    tokio::time::sleep_until((began + Duration::from_millis(TTL_MS)).into()).await;
    let storm = Instant::now();
    let watch = client.clone();
    let mut last_seen = live(&watch).await?;
    let mut during = Vec::new();
    while last_seen > 0 {
        during.extend(probe(&client, 20).await?);
        last_seen = live(&watch).await?;
        if storm.elapsed() > making + Duration::from_secs(60) {
            return Err(format!(
                "{last_seen} leases have not ended {:?} after the end of the first",
                storm.elapsed()
            ));
        }
    }
    let ended = storm.elapsed();
    let (before, during) = (sorted(before), sorted(during));
    Ok(format!(
        "{leases} leases made in {making:.1?}, ended {ended:.1?} after the end of the first lease (they were made over {making:.1?}, and the sweep comes {SWEEP_AFTER_MS} ms after a lease); \
         others' grants: before p50 {} p99 {} us, during p50 {} p99 {} us",
        percentile(&before, 50),
        percentile(&before, 99),
        percentile(&during, 50),
        percentile(&during, 99),
    ))
}

/// Leases of the storm that have not ended.
async fn live(client: &Client) -> Result<u64, String> {
    let status = client.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?;
    let counts = status.status.unwrap_or_default().reservations;
    let ended = ["RELEASED", "EXPIRED", "FAILED", "PREEMPTED", "REJECTED"];
    Ok(counts
        .iter()
        .filter(|one| !ended.iter().any(|state| one.state.to_uppercase().contains(state)))
        .map(|one| one.count)
        .sum())
}

fn sorted(mut times: Vec<u64>) -> Vec<u64> {
    times.sort_unstable();
    times
}
