//! The recorded past beside the same under another policy: from the log of a cluster, or a trace on a fleet.

mod log;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_ledger::Command;
use plimsoll_scheduler::forecast::{Ask, Course, Fate, PolicyChange, Recorded, rerun};
use plimsoll_types::LedgerTime;

use super::simulation::millis;
use super::{NodeRow, WorkRow};
use crate::error::CliError;
use crate::exit::Exit;

pub(crate) use log::read_log;
pub(crate) use report::Comparison;

/// What is recorded: the course of things, and what really came of each request.
pub(crate) struct Past {
    pub(crate) course: Course,
    /// One for each request; empty where only the requests are recorded.
    pub(crate) actual: Vec<Fate>,
    /// Requests that were refused, so that nobody knows how long they would have run: they are left out.
    pub(crate) left_out: u64,
    /// Thousandths of GPUs and millicores that there are at the end.
    pub(crate) capacity: (u64, u64),
}

/// Runs the past again under the recorded policy and under another one.
pub(crate) fn compare(past: Past, policy: &PolicyChange, seed: u64) -> Result<Comparison, CliError> {
    let refused = |refusal: plimsoll_ledger::Refusal| {
        let failure = plimsoll_proto::reason::Details::from(&refusal).into_failure();
        CliError::new(Exit::Refused, "INVALID_POLICY", failure.message).asked("cannot simulate this policy")
    };
    let same = rerun(&past.course, &PolicyChange::default(), seed).map_err(refused)?;
    let other = rerun(&past.course, policy, seed).map_err(refused)?;
    Ok(Comparison::new(past, same, other))
}

/// A trace on a fleet as a past in which nothing came of anything yet.
pub(crate) fn of_trace(nodes: &[NodeRow], work: &[WorkRow]) -> Past {
    let begin = LedgerTime(1);
    let mut events: Vec<(LedgerTime, Recorded)> = Vec::new();
    let mut queues: BTreeMap<&str, ()> = BTreeMap::new();
    for node in nodes {
        events.push((begin, Recorded::Command(Box::new(Command::RegisterNode(node.registration())))));
    }
    let gpus_per_node = nodes.iter().map(|node| node.gpus).max().unwrap_or(0);
    let mut order: Vec<&WorkRow> = work.iter().collect();
    order.sort_by(|a, b| a.submit_s.total_cmp(&b.submit_s));
    let mut end = begin;
    for row in order {
        queues.insert(&row.queue, ());
        let at = LedgerTime(begin.0.saturating_add(millis(row.submit_s)));
        let wait = plimsoll_ledger::Wait::Queue { deadline_ms: 0 };
        let request = plimsoll_ledger::Request { wait, ..row.request(gpus_per_node) };
        let run_ms = row.run_s.map(millis);
        // As long again as everything takes one after the other would be too long: a year after the last one.
        end = end.max(at.plus_ms(plimsoll_ledger::limits::MAX_TTL_MS));
        let ask = Ask { request: Arc::new(request), requester: row.queue.clone(), run_ms, gives_up_at: None };
        events.push((at, Recorded::Ask(ask)));
    }
    let gpu_milli = nodes.iter().map(|node| u64::from(node.gpus) * 1_000).sum();
    let cpu_millis = nodes.iter().map(|node| node.cpu_millis).sum();
    let course = Course { events, end };
    Past { course, actual: Vec::new(), left_out: 0, capacity: (gpu_milli, cpu_millis) }
}
