//! Clients that reserve, renew, release and read over the SDK, and write down what they see.

mod asks;
mod lane;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plimsoll_client::{Client, ClientOptions, RetryPolicy};
use tokio::task::JoinHandle;

use super::history::Recorder;
use lane::Lane;

/// Longest time for a call with its retries.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// One client in so many gives up early: only so do outcomes stay unknown, which the others settle by asking again.
const HASTY_EVERY: u32 = 4;
const HASTY_TIMEOUT: Duration = Duration::from_millis(300);

/// Running clients.
pub struct Workload {
    stop: Arc<AtomicBool>,
    lanes: Vec<JoinHandle<()>>,
}

/// How busy they are.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many clients, each with one call at a time.
    pub clients: u32,
    /// Pause between calls, in milliseconds.
    pub pause_ms: u64,
    /// Seed of what they do.
    pub seed: u64,
}

impl Workload {
    /// Starts them.
    ///
    /// # Panics
    /// Where an address makes no sense.
    pub fn start(addresses: &[String], options: &ClientOptions, load: Load, recorder: &Recorder) -> Workload {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |number: u32| {
            let client = Client::new(addresses.to_vec(), options.clone()).expect("addresses that were bound");
            let is_hasty = number % HASTY_EVERY == HASTY_EVERY - 1;
            let client = if is_hasty { client.with_timeout(HASTY_TIMEOUT) } else { client };
            let lane = Lane::new(number, client, recorder.clone(), load);
            tokio::spawn(lane.run(Arc::clone(&stop)))
        };
        Workload { lanes: (0..load.clients).map(start).collect(), stop }
    }

    /// Lets each finish its call, and waits for that.
    ///
    /// # Errors
    /// Where a client panicked.
    pub async fn stop(self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        for lane in self.lanes {
            lane.await.map_err(|error| format!("a client: {error}"))?;
        }
        Ok(())
    }
}

/// How these clients behave: quick to ask again, so that an outage of the cluster shows as it is.
pub fn options() -> ClientOptions {
    let retry = RetryPolicy { floor_ms: 20, cap_ms: 200, per_second: 200, ..RetryPolicy::default() };
    ClientOptions {
        timeout: CALL_TIMEOUT,
        attempt_timeout: ATTEMPT_TIMEOUT,
        retry,
        ..ClientOptions::default()
    }
}
