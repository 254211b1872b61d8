//! Waits, use and fates, in all and by queue: as it was, as the recorded policy gives again, and as another policy would have given.

use std::collections::BTreeMap;

use plimsoll_scheduler::forecast::{Fate, Recorded};
use serde_json::{Value, json};

use super::Past;

/// Three pasts side by side.
pub(crate) struct Comparison {
    past: Past,
    same: Vec<Fate>,
    other: Vec<Fate>,
}

/// What is told of some requests in one of the pasts.
#[derive(Clone, Debug, Default)]
struct Numbers {
    requests: u64,
    started: u64,
    refused: u64,
    preempted: u64,
    waits_s: Vec<f64>,
    gpu_milli_ms: u128,
    cpu_milli_ms: u128,
}

impl Comparison {
    pub(super) fn new(past: Past, same: Vec<Fate>, other: Vec<Fate>) -> Comparison {
        Comparison { past, same, other }
    }

    /// The document.
    pub(crate) fn document(&self) -> Value {
        let mut queues = serde_json::Map::new();
        for queue in self.queues() {
            queues.insert(queue.to_owned(), self.row(Some(queue)));
        }
        json!({
            "requests": self.same.len(),
            "leftOut": self.past.left_out,
            "all": self.row(None),
            "queues": queues,
            "changed": self.changed(),
        })
    }

    /// For people: one line for each queue and past.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{} requests, {} left out (refused: nobody knows how long they would have run)\n\n{:<16} {:<10} {:>8} {:>8} {:>10} {:>10} {:>10} {:>9} {:>10}\n",
            self.same.len(),
            self.past.left_out,
            "QUEUE",
            "PAST",
            "STARTED",
            "PREEMPT",
            "WAIT MEAN",
            "WAIT P95",
            "WAIT MAX",
            "GPU-H",
            "CORE-H"
        );
        let mut lines = |name: &str, queue: Option<&str>| {
            for (past, fates) in self.pasts() {
                let numbers = self.numbers(fates, queue);
                let (mean, p95, max) = numbers.waits();
                text.push_str(&format!(
                    "{name:<16} {past:<10} {:>8} {:>8} {:>9.1}s {:>9.1}s {:>9.1}s {:>9.2} {:>10.2}\n",
                    format!("{}/{}", numbers.started, numbers.requests),
                    numbers.preempted,
                    mean,
                    p95,
                    max,
                    hours(numbers.gpu_milli_ms),
                    hours(numbers.cpu_milli_ms)
                ));
            }
        };
        for queue in self.queues() {
            lines(if queue.is_empty() { "(none)" } else { queue }, Some(queue));
        }
        lines("all", None);
        let (sooner, later) = self.changed_counts();
        text.push_str(&format!(
            "\nAgainst the recorded policy run the same way: {sooner} requests start sooner, {later} later or not at all\n"
        ));
        text
    }

    fn pasts(&self) -> Vec<(&'static str, &[Fate])> {
        let mut pasts: Vec<(&'static str, &[Fate])> = Vec::new();
        if !self.past.actual.is_empty() {
            pasts.push(("actual", self.past.actual.as_slice()));
        }
        pasts.extend([("recorded", self.same.as_slice()), ("policy", self.other.as_slice())]);
        pasts
    }

    fn row(&self, queue: Option<&str>) -> Value {
        let mut row = serde_json::Map::new();
        for (past, fates) in self.pasts() {
            row.insert(
                past.to_owned(),
                self.numbers(fates, queue).json(self.span_ms(fates), self.past.capacity),
            );
        }
        Value::Object(row)
    }

    fn asks(&self) -> impl Iterator<Item = &plimsoll_scheduler::forecast::Ask> {
        self.past.course.events.iter().filter_map(|(_, event)| match event {
            Recorded::Ask(ask) => Some(ask),
            Recorded::Command(_) => None,
        })
    }

    fn queues(&self) -> Vec<&str> {
        let queues: BTreeMap<&str, ()> = self.asks().map(|ask| (ask.request.queue.as_str(), ())).collect();
        queues.into_keys().collect()
    }

    fn numbers(&self, fates: &[Fate], queue: Option<&str>) -> Numbers {
        let mut numbers = Numbers::default();
        for (ask, fate) in self.asks().zip(fates) {
            if queue.is_some_and(|queue| ask.request.queue != queue) {
                continue;
            }
            numbers.requests += 1;
            numbers.refused += u64::from(fate.refused);
            numbers.preempted += u64::from(fate.preempted);
            numbers.gpu_milli_ms += fate.gpu_milli_ms;
            numbers.cpu_milli_ms += fate.cpu_milli_ms;
            if let Some(started) = fate.started {
                numbers.started += 1;
                numbers.waits_s.push(started.0.saturating_sub(fate.submitted.0) as f64 / 1_000.0);
            }
        }
        numbers.waits_s.sort_by(f64::total_cmp);
        numbers
    }

    /// From the first request to the last end, or the end of the record.
    fn span_ms(&self, fates: &[Fate]) -> u64 {
        let first = fates.iter().map(|fate| fate.submitted.0).min().unwrap_or_default();
        let last =
            fates.iter().filter_map(|fate| Some(fate.started?.0 + fate.held_ms)).max().unwrap_or(first);
        last.saturating_sub(first)
    }

    /// Requests that start at another time under the policy than under the recorded one, those that lose first.
    fn changed(&self) -> Vec<Value> {
        let mut changed: Vec<(i128, Value)> = Vec::new();
        for ((ask, same), other) in self.asks().zip(&self.same).zip(&self.other) {
            if same.started == other.started {
                continue;
            }
            let wait = |fate: &Fate| fate.started.map(|at| at.0.saturating_sub(fate.submitted.0));
            let worse = match (wait(same), wait(other)) {
                (Some(then), Some(now)) => i128::from(now) - i128::from(then),
                (Some(_), None) => i128::MAX,
                _ => i128::MIN,
            };
            let seconds = |fate: &Fate| wait(fate).map(|ms| ms as f64 / 1_000.0);
            changed.push((
                worse,
                json!({
                    "name": ask.request.name, "queue": ask.request.queue, "class": ask.request.class,
                    "requester": ask.requester, "submitMs": same.submitted.0.to_string(),
                    "recordedWaitS": seconds(same), "policyWaitS": seconds(other),
                }),
            ));
        }
        changed.sort_by_key(|(worse, _)| std::cmp::Reverse(*worse));
        changed.into_iter().map(|(_, row)| row).collect()
    }

    fn changed_counts(&self) -> (u64, u64) {
        let mut counts = (0, 0);
        for (same, other) in self.same.iter().zip(&self.other) {
            match (same.started, other.started) {
                (Some(then), Some(now)) if now < then => counts.0 += 1,
                (None, Some(_)) => counts.0 += 1,
                (Some(then), Some(now)) if now > then => counts.1 += 1,
                (Some(_), None) => counts.1 += 1,
                _ => {}
            }
        }
        counts
    }
}

impl Numbers {
    /// Mean, 95th percentile and the longest.
    fn waits(&self) -> (f64, f64, f64) {
        let Some(longest) = self.waits_s.last() else { return (0.0, 0.0, 0.0) };
        let mean = self.waits_s.iter().sum::<f64>() / self.waits_s.len() as f64;
        let p95 = self.waits_s[(self.waits_s.len() * 95).div_ceil(100).saturating_sub(1)];
        (mean, p95, *longest)
    }

    fn json(&self, span_ms: u64, (gpu_milli, cpu_millis): (u64, u64)) -> Value {
        let (mean, p95, max) = self.waits();
        let share = |used: u128, capacity: u64| {
            let whole = u128::from(capacity) * u128::from(span_ms);
            if whole == 0 { 0.0 } else { used as f64 / whole as f64 }
        };
        json!({
            "requests": self.requests, "started": self.started, "refused": self.refused,
            "preemptions": self.preempted,
            "meanWaitS": mean, "p95WaitS": p95, "maxWaitS": max,
            "gpuHours": hours(self.gpu_milli_ms), "coreHours": hours(self.cpu_milli_ms),
            "gpuShare": share(self.gpu_milli_ms, gpu_milli), "cpuShare": share(self.cpu_milli_ms, cpu_millis),
        })
    }
}

/// Thousandths times milliseconds to whole ones times hours.
fn hours(milli_ms: u128) -> f64 {
    milli_ms as f64 / 3_600_000.0 / 1_000.0
}
