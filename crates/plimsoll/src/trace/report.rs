//! What came of a workload: one object a row, and a summary.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Shorter runs count as this long in a slowdown (the traces' README, after Feitelson and Rudolph).
const SLOWDOWN_BOUND_S: f64 = 10.0;

/// What came of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    Granted,
    Refused,
    #[default]
    Pending,
}

/// One row's fate.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestReport {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    pub(crate) nodes: Vec<String>,
    pub(crate) devices: Vec<String>,
    pub(crate) submit_s: f64,
    pub(crate) start_s: Option<f64>,
    pub(crate) end_s: Option<f64>,
    /// What it asked to run; `None` for ever. Not shown.
    pub(crate) run_s: Option<f64>,
    pub(crate) reasons: Vec<String>,
}

/// All rows' fates, with what was measured on the way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) strategy: String,
    /// Discipline of the queue, where one was named: then the summary has what it is judged by.
    pub(crate) queueing: Option<String>,
    pub(crate) preemptions: u64,
    pub(crate) seed: u64,
    /// Names of nodes in the file, by their names in the ledger.
    pub(crate) node_names: BTreeMap<String, String>,
    pub(crate) requests: Vec<RequestReport>,
    /// Thousandths of GPUs that the fleet has, that are allocated at the end, and at the most at any time.
    pub(crate) gpu_milli: u64,
    pub(crate) allocated_milli: u64,
    pub(crate) peak_milli: u64,
    /// Real time that deciding took, in nanoseconds: of each request, and in all.
    pub(crate) latencies_ns: Vec<u64>,
    pub(crate) elapsed_ns: u64,
    pub(crate) extra: BTreeMap<String, Value>,
    /// Why this is not the whole run; `None` where it is.
    pub(crate) incomplete: Option<String>,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Granted => "granted",
            Outcome::Refused => "refused",
            Outcome::Pending => "pending",
        }
    }
}

impl Report {
    /// The one JSON document: `requests` and `summary`.
    pub(crate) fn document(&self) -> Value {
        let shown = |node: &String| self.node_names.get(node).unwrap_or(node).clone();
        let request = |r: &RequestReport| {
            let nodes: Vec<String> = r.nodes.iter().map(shown).collect();
            json!({
                "name": r.name,
                "outcome": r.outcome.name(),
                "node": if r.nodes.is_empty() { Value::Null } else { json!(nodes.join(",")) },
                "devices": r.devices,
                "submit_s": number(r.submit_s),
                "start_s": r.start_s.map(number),
                "end_s": r.end_s.map(number),
                "reasons": r.reasons,
            })
        };
        json!({ "requests": self.requests.iter().map(request).collect::<Vec<_>>(), "summary": self.summary() })
    }

    fn summary(&self) -> Value {
        let count = |outcome| self.requests.iter().filter(|r| r.outcome == outcome).count();
        let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
        for r in self.requests.iter().filter(|r| r.outcome == Outcome::Refused) {
            *refused.entry(r.reasons.first().map_or("UNKNOWN", String::as_str)).or_default() += 1;
        }
        let mut waits: Vec<f64> = self
            .requests
            .iter()
            .filter_map(|r| r.start_s.map(|start| (start - r.submit_s).max(0.0)))
            .collect();
        waits.sort_by(f64::total_cmp);
        let mut latencies: Vec<f64> = self.latencies_ns.iter().map(|ns| *ns as f64 / 1e6).collect();
        latencies.sort_by(f64::total_cmp);
        let granted = count(Outcome::Granted);
        let share = |milli: u64| if self.gpu_milli == 0 { 0.0 } else { milli as f64 / self.gpu_milli as f64 };
        let mut summary = json!({
            "strategy": self.strategy,
            "seed": self.seed,
            "requests": self.requests.len(),
            "granted": granted,
            "refused": count(Outcome::Refused),
            "refused_by_reason": refused,
            "pending": count(Outcome::Pending),
            "allocated_gpu_share": share(self.allocated_milli),
            "peak_allocated_gpu_share": share(self.peak_milli),
            "gpus": self.gpu_milli as f64 / 1_000.0,
            "waits": {
                "mean_s": mean(&waits),
                "p50_s": quantile(&waits, 0.5),
                "p95_s": quantile(&waits, 0.95),
                "p99_s": quantile(&waits, 0.99),
                "max_s": waits.last().copied().unwrap_or(0.0),
            },
            "grants_per_s": if self.elapsed_ns == 0 { 0.0 } else { granted as f64 / (self.elapsed_ns as f64 / 1e9) },
            "latency_ms": { "p50": quantile(&latencies, 0.5), "p99": quantile(&latencies, 0.99) },
        });
        if let Some(map) = summary.as_object_mut() {
            map.extend(self.queueing_figures());
            map.extend(self.extra.iter().map(|(key, value)| (key.clone(), value.clone())));
            map.extend(self.incomplete.iter().map(|why| ("incomplete".to_owned(), json!(why))));
        }
        summary
    }
}

impl Report {
    /// What a discipline is judged by, over the rows that ended. The wait is all the time that a row was not running, and the
    /// bounded slowdown the time from submission to end over the run, with runs below 10 s counted as 10 s.
    fn queueing_figures(&self) -> BTreeMap<String, Value> {
        let Some(discipline) = &self.queueing else { return BTreeMap::new() };
        let (mut waits, mut completions, mut slowdowns) = (Vec::new(), Vec::new(), Vec::new());
        for row in &self.requests {
            let (Some(end_s), Some(run_s)) = (row.end_s, row.run_s) else { continue };
            let completion_s = end_s - row.submit_s;
            waits.push((completion_s - run_s).max(0.0));
            completions.push(completion_s);
            slowdowns.push((completion_s / run_s.max(SLOWDOWN_BOUND_S)).max(1.0));
        }
        for figures in [&mut waits, &mut completions, &mut slowdowns] {
            figures.sort_by(f64::total_cmp);
        }
        let figures = [
            ("queueing", json!(discipline)),
            ("mean_wait_s", json!(mean(&waits))),
            ("p999_wait_s", json!(quantile(&waits, 0.999))),
            ("max_wait_s", json!(waits.last().copied().unwrap_or(0.0))),
            ("mean_completion_s", json!(mean(&completions))),
            ("mean_bounded_slowdown", json!(mean(&slowdowns))),
            ("p95_bounded_slowdown", json!(quantile(&slowdowns, 0.95))),
            ("preemptions", json!(self.preemptions)),
        ];
        figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect()
    }
}

fn mean(figures: &[f64]) -> f64 {
    if figures.is_empty() { 0.0 } else { figures.iter().sum::<f64>() / figures.len() as f64 }
}

/// Nearest rank.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Whole seconds without a fraction, as the traces have them.
fn number(seconds: f64) -> Value {
    if seconds.fract() == 0.0 && seconds.abs() < 9e15 { json!(seconds as i64) } else { json!(seconds) }
}
