//! The loops.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::Measured;

/// What one call came to: how many operations it did, or why it failed.
pub type Done = Result<u32, String>;

/// Length and width of a loop.
#[derive(Clone, Copy, Debug)]
pub struct LoopConfig {
    /// Calls in flight (closed loop), or most senders (open loop).
    pub in_flight: usize,
    /// Time before measuring begins.
    pub warm_up: Duration,
    /// Time measured.
    pub measure: Duration,
}

/// A sender's samples: latency in microseconds with the operations done, and failures.
#[derive(Default)]
struct Samples {
    latencies: Vec<(u32, u32)>,
    failures: Vec<String>,
}

/// Keeps `in_flight` calls going: each worker begins its next call when the last one is answered. `call` gets the number of
/// the worker.
pub async fn closed_loop<F, Fut>(config: LoopConfig, call: F) -> Measured
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Done> + Send,
{
    let from = Instant::now() + config.warm_up;
    let until = from + config.measure;
    let mut workers = JoinSet::new();
    for worker in 0..config.in_flight.max(1) {
        let call = call.clone();
        workers.spawn(async move {
            let mut samples = Samples::default();
            loop {
                let begun = Instant::now();
                if begun >= until {
                    return samples;
                }
                let done = call(worker).await;
                // What ends in the measured time counts, so that rate and latency are of the same calls.
                samples.note(begun, done, from, until);
            }
        });
    }
    collect(workers, config.measure).await
}

/// Begins `rate_per_s` calls a second, spread evenly. A sender that is late catches up at once, and its calls' latency
/// counts from when they were due.
pub async fn open_loop<F, Fut>(config: LoopConfig, rate_per_s: f64, call: F) -> Measured
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Done> + Send,
{
    let senders = config.in_flight.max(1);
    let gap = Duration::from_secs_f64(senders as f64 / rate_per_s.max(1e-3));
    let begin = Instant::now();
    let from = begin + config.warm_up;
    let until = from + config.measure;
    let mut workers = JoinSet::new();
    for worker in 0..senders {
        let call = call.clone();
        workers.spawn(async move {
            let mut samples = Samples::default();
            let mut due = begin + gap.mul_f64(worker as f64 / senders as f64);
            while due < until {
                sleep_until(due).await;
                let done = call(worker).await;
                samples.note(due, done, from, until);
                due += gap;
            }
            samples
        });
    }
    collect(workers, config.measure).await
}

impl Samples {
    fn note(&mut self, begun: Instant, done: Done, from: Instant, until: Instant) {
        let ended = Instant::now();
        if ended < from || ended >= until {
            return;
        }
        match done {
            Ok(operations) => {
                let us = u32::try_from((ended - begun).as_micros()).unwrap_or(u32::MAX);
                self.latencies.push((us, operations));
            }
            Err(failure) => self.failures.push(failure),
        }
    }
}

async fn collect(mut workers: JoinSet<Samples>, elapsed: Duration) -> Measured {
    let mut all = Samples::default();
    while let Some(ended) = workers.join_next().await {
        let samples = ended.expect("a worker does not panic, and nobody aborts it");
        all.latencies.extend(samples.latencies);
        all.failures.extend(samples.failures);
    }
    Measured::of(all.latencies, all.failures, elapsed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const CONFIG: LoopConfig =
        LoopConfig { in_flight: 4, warm_up: Duration::from_millis(100), measure: Duration::from_secs(1) };

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_keeps_its_width_and_counts_only_the_measured_time() {
        let (running, widest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, most) = (Arc::clone(&running), Arc::clone(&widest));
        let measured = closed_loop(CONFIG, move |_| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(3)
            }
        })
        .await;
        assert_eq!(widest.load(Ordering::SeqCst), 4);
        // 100 calls of each of four workers, three operations each; one may fall on the edge.
        assert!((1_188..=1_212).contains(&measured.done), "{}", measured.done);
        assert!((9.9..=10.2).contains(&measured.quantile_ms(0.5)), "{}", measured.quantile_ms(0.5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_counts_latency_from_when_a_call_was_due() {
        let config = LoopConfig { in_flight: 1, ..CONFIG };
        // 100 a second are due, one sender can do 50: the last waits for about half the time.
        let measured = open_loop(config, 100.0, |_| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(1)
        })
        .await;
        assert!(measured.max_ms() > 400.0, "{}", measured.max_ms());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_apart() {
        let measured = closed_loop(CONFIG, |worker| async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if worker == 0 { Err("no".to_owned()) } else { Ok(1) }
        })
        .await;
        assert!((99..=101).contains(&measured.failed), "{}", measured.failed);
        assert_eq!(measured.failure.as_deref(), Some("no"));
        assert!((297..=303).contains(&measured.done));
    }
}
