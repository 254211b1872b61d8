//! What a replica says of its own load: requests are counted through a guard each, and about once a second what changed is reported.
//!
//! Nobody waits for a report, and one that fails is made up for by the next. One whose lease is over ends the reports: the endpoint is another's by then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_proto::v1::{EndpointLoad, ErrorReason, LoadReport, ReportLoadRequest};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{Client, Lease};

/// Between two reports at least.
const PERIOD: Duration = Duration::from_secs(1);
/// What has not changed is said again after so many periods: a leader that is new, or was away, has not heard it.
const AGAIN_PERIODS: u32 = 10;
/// A latency counts for 1 / 2^3 of the mean.
const LATENCY_SHIFT: u32 = 3;

/// Counts the requests of one replica, and reports its load for as long as it is kept.
pub struct LoadReporter {
    tally: Arc<Mutex<Tally>>,
    reporting: JoinHandle<()>,
}

/// A request that the replica works on. Dropped without a word its caller gave it up: it counts as neither answered nor failed.
pub struct Served {
    tally: Arc<Mutex<Tally>>,
    began: Instant,
    ended: Option<bool>,
}

/// What is counted between two reports, and what stays.
#[derive(Clone, Debug, Default)]
struct Tally {
    in_flight: u32,
    queue_depth: u32,
    utilization_permille: u32,
    answered: u64,
    failed: u64,
    /// Mean of the latest; `None` before the first.
    latency_us: Option<u64>,
    metrics: BTreeMap<String, u64>,
}

impl Lease {
    /// Counts and reports the load of the endpoint that this lease is, once it is announced. Drop what is given back when the replica ends.
    pub fn report_load(&self, client: &Client) -> LoadReporter {
        LoadReporter::start(client, self.reservation().name, self.token())
    }
}

impl LoadReporter {
    /// Reports for the endpoint of a reservation, by its name or id and its fencing token.
    pub fn start(client: &Client, name: String, token: u64) -> LoadReporter {
        let tally = Arc::<Mutex<Tally>>::default();
        let (client, counted) = (client.clone(), Arc::clone(&tally));
        let reporting = tokio::spawn(report(counted, move |load| {
            let reports = vec![LoadReport { name: name.clone(), token, load: Some(load) }];
            send(client.clone(), ReportLoadRequest { reports, turned_away: Vec::new() })
        }));
        LoadReporter { tally, reporting }
    }

    /// A request begins.
    pub fn begin(&self) -> Served {
        let mut tally = lock(&self.tally);
        tally.in_flight = tally.in_flight.saturating_add(1);
        Served { tally: Arc::clone(&self.tally), began: Instant::now(), ended: None }
    }

    /// How much of what it can do it does, in thousandths; above 1,000 where it is overloaded.
    pub fn set_utilization_permille(&self, permille: u32) {
        lock(&self.tally).utilization_permille = permille;
    }

    /// Requests that wait here, and are not begun.
    pub fn set_queue_depth(&self, depth: u32) {
        lock(&self.tally).queue_depth = depth;
    }

    /// What else it measures, in thousandths, by a name of its own choice: 1 to 64 bytes, and at most 13 names. A scaling policy may hold it at a target.
    pub fn set_metric_milli(&self, name: &str, milli: u64) {
        lock(&self.tally).metrics.insert(name.to_owned(), milli);
    }
}

impl Drop for LoadReporter {
    fn drop(&mut self) {
        self.reporting.abort();
    }
}

impl Served {
    /// It was answered.
    pub fn answered(mut self) {
        self.ended = Some(true);
    }

    /// It failed.
    pub fn failed(mut self) {
        self.ended = Some(false);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        lock(&self.tally).end(self.ended, took);
    }
}

/// Why a report was not taken.
enum Unsaid {
    /// The next one may be.
    Later,
    /// None will be.
    Never,
}

impl Tally {
    fn end(&mut self, ended: Option<bool>, took: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match ended {
            None => {}
            Some(false) => self.failed += 1,
            Some(true) => {
                self.answered += 1;
                let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> LATENCY_SHIFT);
                // The mean keeps 7 parts of 8; written so that it comes to rest at an even latency.
                self.latency_us = Some(self.latency_us.map_or(took_us, |mean| {
                    let (up, down) = (took_us.saturating_sub(mean), mean.saturating_sub(took_us));
                    mean + (up >> LATENCY_SHIFT) - down.div_ceil(1 << LATENCY_SHIFT)
                }));
            }
        }
    }

    /// The load now; counts begin anew. Of requests that ended, failed ones are a part, as in every report.
    fn take(&mut self, over: Duration) -> EndpointLoad {
        let over_us = u64::try_from(over.as_micros()).unwrap_or(u64::MAX).max(1);
        let (answered, failed) = (std::mem::take(&mut self.answered), std::mem::take(&mut self.failed));
        let per_s_milli = |count: u64| count.saturating_mul(1_000_000_000) / over_us;
        EndpointLoad {
            utilization_permille: self.utilization_permille,
            rate_milli: per_s_milli(answered + failed),
            errors_milli: per_s_milli(failed),
            in_flight: self.in_flight,
            queue_depth: self.queue_depth,
            latency_us: self.latency_us.unwrap_or(0),
            metrics: self.metrics.clone(),
            ..EndpointLoad::default()
        }
    }
}

async fn send(client: Client, request: ReportLoadRequest) -> Result<(), Unsaid> {
    let answer = client.report_load(request).await.map_err(|_| Unsaid::Later)?;
    let refused = answer.results.into_iter().next().and_then(|result| result.failure);
    match refused.map(|failure| failure.reason()) {
        None => Ok(()),
        Some(ErrorReason::Fenced | ErrorReason::NotFound) => Err(Unsaid::Never),
        // It is not announced yet.
        Some(_) => Err(Unsaid::Later),
    }
}

/// Says what changed each period, until it is told that nothing counts any more.
async fn report<S>(tally: Arc<Mutex<Tally>>, mut say: impl FnMut(EndpointLoad) -> S)
where
    S: Future<Output = Result<(), Unsaid>>,
{
    let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
    // A period that was late is no reason for two reports at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since = Instant::now();
    let mut said: Option<EndpointLoad> = None;
    let mut periods = 0;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let load = lock(&tally).take(now - since);
        since = now;
        periods += 1;
        if said.as_ref() == Some(&load) && periods < AGAIN_PERIODS {
            continue;
        }
        match say(load.clone()).await {
            Ok(()) => (said, periods) = (Some(load), 0),
            Err(Unsaid::Later) => said = None,
            Err(Unsaid::Never) => return,
        }
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    // Counts are whole at any moment.
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(tally: &Arc<Mutex<Tally>>) -> Served {
        lock(tally).in_flight += 1;
        Served { tally: Arc::clone(tally), began: Instant::now(), ended: None }
    }

    /// What was said, and the task that says it. The first `refused` reports are not taken.
    fn reporting(
        tally: &Arc<Mutex<Tally>>,
        refused: usize,
        why: fn() -> Unsaid,
    ) -> (Arc<Mutex<Vec<EndpointLoad>>>, JoinHandle<()>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let (tally, keep) = (Arc::clone(tally), Arc::clone(&said));
        let task = tokio::spawn(report(tally, move |load| {
            let mut said = keep.lock().unwrap();
            said.push(load);
            std::future::ready(if said.len() <= refused { Err(why()) } else { Ok(()) })
        }));
        (said, task)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_counted_through_their_guards() {
        let tally = Arc::<Mutex<Tally>>::default();
        let (first, second, third, fourth) = (served(&tally), served(&tally), served(&tally), served(&tally));
        tokio::time::advance(Duration::from_millis(80)).await;
        first.answered();
        second.failed();
        drop(third);
        let load = lock(&tally).take(Duration::from_millis(500));
        assert_eq!((load.in_flight, load.rate_milli, load.errors_milli), (1, 4_000, 2_000));
        assert_eq!(
            load.latency_us, 80_000,
            "what fails or is given up says nothing of the time of an answer"
        );
        tokio::time::advance(Duration::from_millis(80)).await;
        fourth.answered();
        let load = lock(&tally).take(Duration::from_secs(1));
        assert_eq!((load.in_flight, load.rate_milli, load.errors_milli), (0, 1_000, 0));
        assert_eq!(load.latency_us, 90_000, "an eighth of the way from 80 to 160 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn what_changed_is_said_about_once_a_second_and_all_of_it_again_after_ten() {
        let tally = Arc::<Mutex<Tally>>::default();
        let (said, task) = reporting(&tally, 0, || Unsaid::Later);
        let one = served(&tally);
        tokio::time::sleep(Duration::from_millis(9_500)).await;
        assert_eq!(said.lock().unwrap().len(), 1, "it does not change");
        one.answered();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let last = said.lock().unwrap().last().cloned().unwrap();
        assert_eq!((last.in_flight, last.rate_milli), (0, 1_000));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(said.lock().unwrap().len(), 3, "nothing ended since: the rate is 0 again");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(said.lock().unwrap().len(), 4, "said again");
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_that_failed_is_made_up_for_and_a_lost_lease_ends_them() {
        let tally = Arc::<Mutex<Tally>>::default();
        let (said, task) = reporting(&tally, 3, || Unsaid::Later);
        tokio::time::sleep(Duration::from_millis(8_500)).await;
        assert_eq!(said.lock().unwrap().len(), 4, "the same, until it is taken");
        task.abort();
        let (said, task) = reporting(&tally, 1, || Unsaid::Never);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(said.lock().unwrap().len(), 1);
        assert!(task.is_finished());
    }
}
