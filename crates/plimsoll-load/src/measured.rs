//! `Measured`: what a loop saw.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 120_000_000;

/// What a loop saw in the measured time.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Operations that succeeded (a batch counts all its parts).
    pub done: u64,
    /// Calls that failed.
    pub failed: u64,
    /// One of the failures, in words.
    pub failure: Option<String>,
    /// Length of the measured time.
    pub elapsed: Duration,
    latency_us: Histogram<u64>,
}

impl Measured {
    pub(crate) fn of(
        samples_us: impl IntoIterator<Item = (u32, u32)>,
        failures: Vec<String>,
        elapsed: Duration,
    ) -> Measured {
        let mut latency_us = Histogram::new_with_bounds(1, LONGEST_US, 3)
            .expect("the bounds are constants that the histogram takes");
        let mut done = 0;
        for (us, operations) in samples_us {
            done += u64::from(operations);
            latency_us.saturating_record(u64::from(us).max(1));
        }
        Measured {
            done,
            failed: failures.len() as u64,
            failure: failures.into_iter().next(),
            elapsed,
            latency_us,
        }
    }

    /// Operations a second.
    pub fn per_s(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Latency in milliseconds below which a share of the calls stayed (0.5 is the median).
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.latency_us.value_at_quantile(share) as f64 / 1_000.0
    }

    /// Longest latency seen, in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.latency_us.max() as f64 / 1_000.0
    }
}
