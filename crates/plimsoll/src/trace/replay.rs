//! A workload on a running cluster, through its public API alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use plimsoll_client::v1::event::Object;
use plimsoll_client::v1::{
    CancelReservationRequest, CreateReservationRequest, ReleaseReservationRequest, Reservation, WatchRequest,
};
use plimsoll_client::{Client, Error, Watch, reason_name};
use plimsoll_ledger::{Request, Wait};
use plimsoll_proto::convert;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::{Outcome, Report, RequestReport, WorkRow};

/// Times that a request with an unknown outcome is asked for again, under its own id, each for the client's whole deadline.
const MOST_REPEATS: usize = 5;

/// When rows are submitted and given back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// In file order, as fast as answers come; what is granted stays.
    FileOrder,
    /// At their own times, so many simulated seconds to a real one; they wait in the queue and leave when they have run.
    Timed { speed: f64 },
}

/// Where and how a workload is replayed.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    /// Pool that the nodes are in already.
    pub(crate) pool: String,
    /// Most GPUs that one of them has.
    pub(crate) gpus_per_node: u32,
    pub(crate) pace: Pace,
    /// Most calls in flight.
    pub(crate) in_flight: usize,
}

/// A workload on its way through a cluster.
pub(crate) struct Replay {
    client: Client,
    course: Course,
    began: Instant,
    first_s: f64,
    report: Mutex<Report>,
    arrived: AtomicUsize,
    /// Rows that do not wait: refused, or started.
    settled: AtomicUsize,
    /// Cancelled once no row waits any more: the end of those that run changes nothing, so nobody sleeps for it.
    all_settled: CancellationToken,
    /// Of what is held now: name and token.
    held: Mutex<BTreeMap<String, u64>>,
    grants: Grants,
    stop: CancellationToken,
    /// Rows whose fate the cluster did not tell.
    unanswered: AtomicUsize,
    /// Why grants cannot be heard of any more.
    watch_failed: Mutex<Option<Error>>,
}

/// Grants as the watch tells of them, for those who wait.
#[derive(Default)]
struct Grants {
    waiting: Mutex<HashMap<String, oneshot::Sender<Reservation>>>,
    /// Granted before anybody waited for it.
    early: Mutex<HashMap<String, Reservation>>,
}

impl Replay {
    /// A replay of `work`, not begun.
    pub(crate) fn new(
        client: Client,
        course: Course,
        work: &[WorkRow],
        report: Report,
        stop: CancellationToken,
    ) -> Arc<Replay> {
        let row = |row: &WorkRow| RequestReport {
            name: row.name.clone(),
            submit_s: row.submit_s,
            ..RequestReport::default()
        };
        let report = Report { requests: work.iter().map(row).collect(), ..report };
        let first_s = work.iter().map(|row| row.submit_s).fold(f64::INFINITY, f64::min);
        Arc::new(Replay {
            client,
            course,
            began: Instant::now(),
            first_s: if first_s.is_finite() { first_s } else { 0.0 },
            report: Mutex::new(report),
            arrived: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            all_settled: CancellationToken::new(),
            held: Mutex::default(),
            grants: Grants::default(),
            stop,
            unanswered: AtomicUsize::new(0),
            watch_failed: Mutex::new(None),
        })
    }

    /// Why it was not heard of grants any more, where that ended it.
    pub(crate) fn watch_failed(&self) -> Option<Error> {
        self.watch_failed.lock().take()
    }

    /// Rows whose fate the cluster did not tell, in spite of all repeats.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Rows submitted so far.
    pub(crate) fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Runs to the end of the workload, or until it is stopped.
    pub(crate) async fn run(self: &Arc<Self>, work: &[WorkRow]) {
        match self.course.pace {
            Pace::FileOrder => self.in_file_order(work).await,
            Pace::Timed { speed } => self.in_time(work, speed.max(1e-6)).await,
        }
        let mut report = self.report.lock();
        report.elapsed_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    }

    /// Gives back what is held; how many could not be given back.
    pub(crate) async fn release_all(&self) -> usize {
        let held: Vec<(String, u64)> = std::mem::take(&mut *self.held.lock()).into_iter().collect();
        let release = |(name, token): (String, u64)| async move {
            let request = ReleaseReservationRequest { name, token, ..ReleaseReservationRequest::default() };
            let gone = |error: &Error| matches!(error, Error::Refused(_));
            self.client.release_reservation(request).await.is_err_and(|error| !gone(&error))
        };
        let failed = stream::iter(held).map(release).buffer_unordered(64);
        failed.filter(|failed| std::future::ready(*failed)).count().await
    }

    /// What came of it so far.
    pub(crate) fn report(&self) -> Report {
        self.report.lock().clone()
    }

    async fn in_file_order(self: &Arc<Self>, work: &[WorkRow]) {
        let rows = stream::iter(0..work.len()).take_while(|_| std::future::ready(!self.stop.is_cancelled()));
        let submit = |index: usize| async move {
            let granted = self.submit(index, &work[index], Wait::Refuse).await;
            self.arrived.fetch_add(1, Ordering::Relaxed);
            if let Some(reservation) = granted.filter(|reservation| reservation.token > 0) {
                self.started(index, &reservation, work[index].submit_s);
            }
        };
        rows.map(submit).buffer_unordered(self.course.in_flight.max(1)).collect::<Vec<()>>().await;
    }

    async fn in_time(self: &Arc<Self>, work: &[WorkRow], speed: f64) {
        // Pinned to a revision before the first row, so that no grant is missed.
        let request = WatchRequest { pool: self.course.pool.clone(), ..WatchRequest::default() };
        let watch = match self.client.watch(request).await {
            Ok(watch) => watch,
            Err(error) => {
                *self.watch_failed.lock() = Some(error);
                return;
            }
        };
        let watching = tokio::spawn(Arc::clone(self).watch(watch));
        let calls = Arc::new(Semaphore::new(self.course.in_flight.max(1)));
        let mut order: Vec<usize> = (0..work.len()).collect();
        order.sort_by(|a, b| work[*a].submit_s.total_cmp(&work[*b].submit_s).then(a.cmp(b)));
        let mut rows = tokio::task::JoinSet::new();
        for index in order {
            let due = Duration::from_secs_f64((work[index].submit_s - self.first_s) / speed);
            let wait = due.saturating_sub(self.began.elapsed());
            let slept = async {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                // Rows come in their order: the next is not begun before this one may call.
                Arc::clone(&calls).acquire_owned().await
            };
            let Some(Ok(permit)) = self.stop.run_until_cancelled(slept).await else { break };
            let (replay, row) = (Arc::clone(self), work[index].clone());
            rows.spawn(async move {
                let submitted = replay.submit(index, &row, Wait::Queue { deadline_ms: 0 }).await;
                drop(permit);
                replay.arrived.fetch_add(1, Ordering::Relaxed);
                match submitted {
                    Some(reservation) => replay.live(index, &row, reservation, speed).await,
                    None => replay.settle(),
                }
            });
        }
        while let Some(ended) = rows.join_next().await {
            ended.expect("a row's task does not panic");
        }
        watching.abort();
    }

    /// One reservation from its submission to its release.
    async fn live(&self, index: usize, row: &WorkRow, reservation: Reservation, speed: f64) {
        let granted = if reservation.token > 0 {
            reservation
        } else {
            let name = reservation.name.clone();
            match self.stop.run_until_cancelled(self.grants.wait(&name)).await {
                Some(Some(granted)) => granted,
                Some(None) | None => {
                    let request = CancelReservationRequest { name, ..CancelReservationRequest::default() };
                    // Where it cannot be cancelled now, the pool goes with all that waits in it, or says what is left.
                    drop(self.client.cancel_reservation(request).await);
                    return;
                }
            }
        };
        let start_s = self.simulated_now_s();
        self.started(index, &granted, start_s);
        self.settle();
        let Some(run_s) = row.run_s else { return };
        let run = tokio::time::sleep(Duration::from_secs_f64((run_s / speed).min(1e9)));
        let end_s = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            () = run => self.simulated_now_s(),
            // The clock of the trace jumps to the end of this row.
            () = self.all_settled.cancelled() => start_s.max(row.submit_s) + run_s,
        };
        let request = ReleaseReservationRequest {
            name: granted.name.clone(),
            token: granted.token,
            ..ReleaseReservationRequest::default()
        };
        // Counted as gone before it is: whoever is granted its place may be heard of before the answer is.
        let milli = milli_of(&granted);
        self.report.lock().allocated_milli -= milli;
        let released = self.client.release_reservation(request).await.is_ok();
        let mut report = self.report.lock();
        if released {
            self.held.lock().remove(&granted.name);
            report.requests[index].end_s = Some(end_s);
        } else {
            report.allocated_milli += milli;
        }
    }

    /// One row more does not wait.
    fn settle(&self) {
        let rows = self.report.lock().requests.len();
        if self.settled.fetch_add(1, Ordering::Relaxed) + 1 == rows {
            self.all_settled.cancel();
        }
    }

    /// Asks for one row. `None` where it was refused, which is noted.
    async fn submit(&self, index: usize, row: &WorkRow, wait: Wait) -> Option<Reservation> {
        let request =
            Request { wait, pool: self.course.pool.clone(), ..row.request(self.course.gpus_per_node) };
        let mut request = CreateReservationRequest {
            spec: Some(convert::request_to_v1(&request)),
            ..CreateReservationRequest::default()
        };
        let begun = Instant::now();
        let mut answer = self.client.create_reservation(request.clone()).await;
        for _ in 0..MOST_REPEATS {
            let Err(Error::Unknown { request_id, .. }) = &answer else { break };
            request.request_id.clone_from(request_id);
            answer = self.client.create_reservation(request.clone()).await;
        }
        let latency_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut report = self.report.lock();
        report.latencies_ns.push(latency_ns);
        let fate = &mut report.requests[index];
        match answer.map(|answer| answer.reservation) {
            Ok(Some(reservation)) => {
                if reservation.token > 0 {
                    self.held.lock().insert(reservation.name.clone(), reservation.token);
                }
                return Some(reservation);
            }
            Ok(None) => fate.reasons = vec!["INTERNAL".to_owned()],
            Err(error) => {
                fate.reasons = reasons(&error);
                if matches!(error, Error::Refused(_) | Error::Invalid(_)) {
                    fate.outcome = Outcome::Refused;
                } else {
                    // It may be granted or not: whoever says refused here would be guessing.
                    self.unanswered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        None
    }

    fn started(&self, index: usize, granted: &Reservation, start_s: f64) {
        self.held.lock().insert(granted.name.clone(), granted.token);
        let mut report = self.report.lock();
        report.allocated_milli += milli_of(granted);
        report.peak_milli = report.peak_milli.max(report.allocated_milli);
        let fate = &mut report.requests[index];
        fate.outcome = Outcome::Granted;
        fate.start_s = Some(start_s.max(fate.submit_s));
        fate.nodes = granted.allocations.iter().map(|allocation| allocation.node.clone()).collect();
        let devices = granted.allocations.iter().flat_map(|allocation| &allocation.devices);
        fate.devices = devices.map(|device| device.uuid.clone()).collect();
    }

    /// The time of the trace.
    fn simulated_now_s(&self) -> f64 {
        let speed = match self.course.pace {
            Pace::FileOrder => 0.0,
            Pace::Timed { speed } => speed,
        };
        // To the millisecond, as the trace's own times.
        ((self.first_s + self.began.elapsed().as_secs_f64() * speed) * 1_000.0).round() / 1_000.0
    }

    /// Hears of grants to those who wait. Where it can hear no more, the replay stops: rows would wait for ever.
    async fn watch(self: Arc<Self>, mut watch: Watch) {
        loop {
            let message = match watch.next().await {
                Ok(message) => message,
                Err(error) => {
                    *self.watch_failed.lock() = Some(error);
                    self.stop.cancel();
                    return;
                }
            };
            for event in message.events {
                if let Some(Object::Reservation(reservation)) = event.object
                    && reservation.token == event.revision
                {
                    self.grants.granted(reservation);
                }
            }
        }
    }
}

impl Grants {
    fn granted(&self, reservation: Reservation) {
        let waiter = self.waiting.lock().remove(&reservation.name);
        match waiter {
            // Whoever waited may have been stopped.
            Some(waiter) => drop(waiter.send(reservation)),
            None => drop(self.early.lock().insert(reservation.name.clone(), reservation)),
        }
    }

    async fn wait(&self, name: &str) -> Option<Reservation> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(name.to_owned(), sender);
        // After it was put down as waiting, so that no grant falls in between.
        if let Some(early) = self.early.lock().remove(name) {
            self.waiting.lock().remove(name);
            return Some(early);
        }
        receiver.await.ok()
    }
}

fn milli_of(reservation: &Reservation) -> u64 {
    let devices = reservation.allocations.iter().flat_map(|allocation| &allocation.devices);
    devices.map(|device| u64::from(device.milli)).sum()
}

/// The first reason and all others, each once, as the simulation names them.
fn reasons(error: &Error) -> Vec<String> {
    let mut names: Vec<String> =
        error.reason().map(|reason| reason_name(reason).to_owned()).into_iter().collect();
    if let Error::Refused(refused) = error {
        for blocker in &refused.blockers {
            let name = reason_name(blocker.reason()).to_owned();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    if names.is_empty() {
        names.push("UNKNOWN".to_owned());
    }
    names
}
