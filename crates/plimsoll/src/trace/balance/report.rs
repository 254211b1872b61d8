//! What a run of the balancer came to: a line for each request, and the figures that policies are compared by.

use serde_json::{Value, json};

use super::Arrival;
use super::drive::{Course, Setup};

/// Microseconds in a second, for display.
const US_PER_S: f64 = 1e6;

/// The figures of one run.
pub(crate) struct BalanceReport<'a> {
    setup: &'a Setup,
    arrivals: &'a [Arrival],
    course: Course,
    /// In order.
    latencies_us: Vec<u64>,
}

impl<'a> BalanceReport<'a> {
    /// Puts the figures together.
    pub(crate) fn new(setup: &'a Setup, arrivals: &'a [Arrival], course: Course) -> BalanceReport<'a> {
        let mut latencies_us: Vec<u64> = arrivals
            .iter()
            .zip(&course.served)
            .map(|(arrival, served)| served.end_us - arrival.t_us)
            .collect();
        latencies_us.sort_unstable();
        BalanceReport { setup, arrivals, course, latencies_us }
    }

    /// The document: every request, and the summary.
    pub(crate) fn document(&self) -> Value {
        let request = |(arrival, served): (&Arrival, &super::Served)| {
            json!({
                "t": seconds(arrival.t_us),
                "endpoint": served.endpoint,
                "start": seconds(served.start_us),
                "end": seconds(served.end_us),
                "blocks_found": served.found_blocks,
            })
        };
        let requests: Vec<Value> = self.arrivals.iter().zip(&self.course.served).map(request).collect();
        json!({ "requests": requests, "summary": self.summary() })
    }

    /// The figures alone.
    fn summary(&self) -> Value {
        let counts = self.requests_by_endpoint();
        let endpoints: Vec<Value> = (0..)
            .zip(counts.iter().zip(&self.course.busy_place_us))
            .map(|(endpoint, (requests, busy_us)): (usize, _)| {
                json!({ "endpoint": endpoint, "requests": requests, "busy_place_s": seconds(*busy_us) })
            })
            .collect();
        json!({
            "policy": self.setup.policy.name(),
            "requests": self.arrivals.len(),
            "mean_latency_s": self.mean_s(),
            "p50_latency_s": self.quantile_s(500),
            "p99_latency_s": self.quantile_s(990),
            "p999_latency_s": self.quantile_s(999),
            "largest_over_mean_requests": largest_over_mean(&counts),
            "largest_over_mean_busy": largest_over_mean(&self.course.busy_place_us),
            "blocks_found_share": self.found_share(),
            "endpoints": endpoints,
        })
    }

    /// The same for people.
    pub(crate) fn text(&self) -> String {
        let found =
            self.found_share().map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let mut text = format!(
            "{} requests, {} endpoints, {}\n\n{:>9} {:>9} {:>9} {:>9}   {:<22} {}\n",
            self.arrivals.len(),
            self.setup.endpoints,
            self.setup.policy,
            "MEAN",
            "P50",
            "P99",
            "P99.9",
            "LARGEST / MEAN LOAD",
            "BLOCKS FOUND",
        );
        let counts = self.requests_by_endpoint();
        text.push_str(&format!(
            "{:>8.2}s {:>8.2}s {:>8.2}s {:>8.2}s   {:<22} {found}\n",
            self.mean_s(),
            self.quantile_s(500),
            self.quantile_s(990),
            self.quantile_s(999),
            format!(
                "{:.2} requests {:.2} busy",
                largest_over_mean(&counts),
                largest_over_mean(&self.course.busy_place_us)
            ),
        ));
        text
    }

    fn requests_by_endpoint(&self) -> Vec<u64> {
        let mut counts = vec![0; self.setup.endpoints as usize];
        for served in &self.course.served {
            counts[served.endpoint] += 1;
        }
        counts
    }

    fn mean_s(&self) -> f64 {
        let sum: f64 = self.latencies_us.iter().map(|latency| *latency as f64).sum();
        sum / self.latencies_us.len().max(1) as f64 / US_PER_S
    }

    /// The smallest latency that so many thousandths of the requests do not exceed.
    fn quantile_s(&self, permille: usize) -> f64 {
        let rank = (self.latencies_us.len() * permille).div_ceil(1_000);
        self.latencies_us.get(rank.saturating_sub(1)).map_or(0.0, |latency| seconds(*latency))
    }

    /// Of all blocks of prompts, those that were kept where the request went. `None` where the recording has none.
    fn found_share(&self) -> Option<f64> {
        let all: usize = self.arrivals.iter().map(|arrival| arrival.blocks.len()).sum();
        let found: usize = self.course.served.iter().map(|served| served.found_blocks).sum();
        (all > 0).then(|| found as f64 / all as f64)
    }
}

fn largest_over_mean(loads: &[u64]) -> f64 {
    let sum: u64 = loads.iter().sum();
    let largest = loads.iter().copied().max().unwrap_or(0);
    if sum == 0 { 1.0 } else { largest as f64 * loads.len() as f64 / sum as f64 }
}

fn seconds(us: u64) -> f64 {
    us as f64 / US_PER_S
}
