//! Where commands wait for the leader's loop: bounded in number and bytes, and short work before new requests.
//!
//! Renewals, releases, confirms and all that is not a new request have a queue and a bound of their own, so that a
//! flood of requests never holds them up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use plimsoll_ledger::{Answer, Command, Entry, Request};
use plimsoll_types::Term;
use tokio::sync::{Notify, oneshot};

use super::{Counters, IntakeLimits, SubmitError};

/// What a caller gets per command.
pub(super) type Result1 = Result<Answer, SubmitError>;

/// When to come back, told to those who are turned away.
const RETRY_AFTER_MS: u64 = 100;
/// Bytes of commands taken at once, unless a single one is larger: a log entry must fit into a message between coordinators.
const MOST_TAKEN_BYTES: usize = 4 << 20;

/// Commands that wait for the leader's loop.
pub(super) struct Intake {
    state: Mutex<Waiting>,
    wake: Arc<Notify>,
    limits: IntakeLimits,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Waiting {
    phase: Phase,
    urgent: Queue,
    requests: Queue,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// This replica does not lead.
    #[default]
    Closed,
    Open,
    Stopped,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
}

/// One command on its way, with the caller that waits for it.
pub(super) struct Item {
    /// The command as it came; gone while it is in flight.
    entry: Option<Entry>,
    is_request: bool,
    /// Times that apply refused the place which the planner had found.
    pub(super) attempts: u8,
    weight: usize,
    call: Arc<Call>,
    index: usize,
    answered: bool,
}

/// One `submit` or `submit_many`: answers fill in, and the last one wakes the caller.
struct Call {
    state: Mutex<CallState>,
}

struct CallState {
    answers: Vec<Option<Result1>>,
    missing: usize,
    done: Option<oneshot::Sender<Vec<Result1>>>,
}

impl Intake {
    pub(super) fn new(limits: IntakeLimits, wake: Arc<Notify>, counters: Arc<Counters>) -> Intake {
        Intake { state: Mutex::default(), wake, limits, counters }
    }

    /// Queues commands together and waits for all their answers. Where `hint` is the leader to name, if this is not it.
    pub(super) async fn submit(&self, entries: Vec<Entry>, hint: Option<(u64, String)>) -> Vec<Result1> {
        let count = entries.len();
        if count == 0 {
            return Vec::new();
        }
        let (done, answers) = oneshot::channel();
        let state = CallState { answers: vec![None; count], missing: count, done: Some(done) };
        let call = Arc::new(Call { state: Mutex::new(state) });
        let make = |(index, entry): (usize, Entry)| {
            let weight = weight_of(&entry);
            let is_request = matches!(entry.command, Command::Submit { .. });
            Item {
                entry: Some(entry),
                is_request,
                attempts: 0,
                weight,
                call: Arc::clone(&call),
                index,
                answered: false,
            }
        };
        let items: Vec<Item> = entries.into_iter().enumerate().map(make).collect();
        for (item, error) in self.push(items, hint) {
            item.answer(Err(error));
        }
        drop(call);
        answers.await.unwrap_or_else(|_| vec![Err(SubmitError::Unknown); count])
    }

    /// Lets commands in: this replica begins to lead.
    pub(super) fn open(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Closed {
            state.phase = Phase::Open;
        }
    }

    /// Turns away what waits and what comes: this replica no longer leads, or stops.
    pub(super) fn close(&self, error: &SubmitError) {
        let mut state = self.state.lock();
        if state.phase != Phase::Stopped {
            state.phase = if *error == SubmitError::Stopped { Phase::Stopped } else { Phase::Closed };
        }
        let urgent = std::mem::take(&mut state.urgent);
        let requests = std::mem::take(&mut state.requests);
        self.counters.waiting.store(0, Ordering::Relaxed);
        drop(state);
        for item in urgent.items.into_iter().chain(requests.items) {
            item.answer(Err(error.clone()));
        }
    }

    /// Up to `most` commands other than new requests, oldest first. Those whose caller has gone are dropped.
    pub(super) fn take_urgent(&self, most: usize) -> Vec<Item> {
        self.take(most, |state| &mut state.urgent)
    }

    /// Up to `most` new requests, oldest first. Those whose caller has gone are dropped.
    pub(super) fn take_requests(&self, most: usize) -> Vec<Item> {
        self.take(most, |state| &mut state.requests)
    }

    /// Puts a request back in front, to be planned again.
    pub(super) fn again(&self, mut item: Item, entry: Entry) {
        item.entry = Some(entry);
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            drop(state);
            item.answer(Err(SubmitError::NotLeader { leader: None }));
            return;
        }
        state.requests.bytes += item.weight;
        state.requests.items.push_front(item);
    }

    /// Number of commands that wait.
    pub(super) fn waiting(&self) -> usize {
        let state = self.state.lock();
        state.urgent.items.len() + state.requests.items.len()
    }

    /// Queues what there is room for, and gives back the rest, each with the reason. Behind the first of its kind for which
    /// there is no room nothing is queued, so that what stays is the beginning.
    fn push(&self, items: Vec<Item>, hint: Option<(u64, String)>) -> Vec<(Item, SubmitError)> {
        let mut state = self.state.lock();
        let closed = match state.phase {
            Phase::Open => None,
            Phase::Closed => Some(SubmitError::NotLeader { leader: hint }),
            Phase::Stopped => Some(SubmitError::Stopped),
        };
        if let Some(error) = closed {
            drop(state);
            return items.into_iter().map(|item| (item, error.clone())).collect();
        }
        let mut turned_away = Vec::new();
        let (mut full_for_requests, mut full_for_urgent) = (None, None);
        for item in items {
            let (queue, full) = if item.is_request {
                (&mut state.requests, &mut full_for_requests)
            } else {
                (&mut state.urgent, &mut full_for_urgent)
            };
            if item.weight > self.limits.max_waiting_bytes {
                let (given, limit) = (item.weight as u64, self.limits.max_waiting_bytes as u64);
                turned_away.push((item, SubmitError::TooLarge { what: "bytes", given, limit }));
                continue;
            }
            if full.is_none() {
                *full = queue.refuses(item.weight, &self.limits);
            }
            match full {
                Some(error) => turned_away.push((item, error.clone())),
                None => {
                    queue.bytes += item.weight;
                    queue.items.push_back(item);
                }
            }
        }
        let waiting = state.urgent.items.len() + state.requests.items.len();
        self.counters.waiting.store(waiting as u64, Ordering::Relaxed);
        drop(state);
        Counters::add(&self.counters.overloaded, turned_away.len() as u64);
        if waiting > 0 {
            self.wake.notify_one();
        }
        turned_away
    }

    fn take(&self, most: usize, queue: impl Fn(&mut Waiting) -> &mut Queue) -> Vec<Item> {
        let mut taken = Vec::new();
        let mut abandoned = Vec::new();
        let mut state = self.state.lock();
        let queue = queue(&mut state);
        let mut bytes = 0;
        while taken.len() < most {
            let fits = |item: &Item| bytes == 0 || bytes + item.weight <= MOST_TAKEN_BYTES;
            if !queue.items.front().is_some_and(fits) {
                break;
            }
            let Some(item) = queue.items.pop_front() else { break };
            bytes += item.weight;
            queue.bytes -= item.weight;
            if item.is_abandoned() { abandoned.push(item) } else { taken.push(item) }
        }
        let waiting = state.urgent.items.len() + state.requests.items.len();
        self.counters.waiting.store(waiting as u64, Ordering::Relaxed);
        drop(state);
        drop(abandoned);
        taken
    }
}

impl Queue {
    /// Why it takes no more, where it does not.
    fn refuses(&self, weight: usize, limits: &IntakeLimits) -> Option<SubmitError> {
        let error = |waiting: usize, limit: usize| {
            let (waiting, limit) = (waiting as u64, limit as u64);
            Some(SubmitError::Overloaded { waiting, limit, retry_after_ms: RETRY_AFTER_MS })
        };
        if self.items.len() >= limits.max_waiting {
            return error(self.items.len(), limits.max_waiting);
        }
        if self.bytes + weight > limits.max_waiting_bytes {
            return error(self.bytes, limits.max_waiting_bytes);
        }
        None
    }
}

impl Item {
    /// Tells the caller.
    pub(super) fn answer(mut self, answer: Result1) {
        self.answered = true;
        self.call.put(self.index, answer);
    }

    /// The command, as long as it was not taken.
    pub(super) fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()
    }

    /// Takes the command out, to be proposed.
    pub(super) fn take_entry(&mut self) -> Option<Entry> {
        self.entry.take()
    }

    fn is_abandoned(&self) -> bool {
        self.call.state.lock().done.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if !self.answered {
            self.call.put(self.index, Err(SubmitError::Unknown));
        }
    }
}

impl Call {
    fn put(&self, index: usize, answer: Result1) {
        let mut state = self.state.lock();
        if state.answers[index].is_none() {
            state.answers[index] = Some(answer);
            state.missing -= 1;
        }
        if state.missing == 0
            && let Some(done) = state.done.take()
        {
            let answers = std::mem::take(&mut state.answers);
            drop(state);
            // The caller may have gone; then nobody wants to know.
            let _ = done.send(answers.into_iter().flatten().collect());
        }
    }
}

/// About how many bytes a command takes while it waits.
fn weight_of(entry: &Entry) -> usize {
    let base = 256 + entry.actor.len() + entry.request_id.len();
    base + match &entry.command {
        Command::Submit { request, .. } => weight_of_request(request),
        Command::RegisterNode(registration) => {
            256 + 128 * (registration.devices.len() + registration.labels.len())
                + 8 * registration.running.len()
        }
        Command::ReportLoad { reports } => 64 * reports.len(),
        Command::SetDesired(decided) => decided.inputs.iter().map(|line| 48 + line.len()).sum(),
        Command::ApplyPolicy { put, delete, .. } => 1_024 * put.len() + 64 * delete.len(),
        Command::Place { .. }
        | Command::Preempt { .. }
        | Command::Relocate { .. }
        | Command::MoveNode { .. }
        | Command::Confirm { .. }
        | Command::Renew { .. }
        | Command::Resize { .. }
        | Command::Release { .. }
        | Command::Requeue { .. }
        | Command::Evict { .. }
        | Command::Cancel { .. }
        | Command::Expire { .. }
        | Command::SetNodeHealth { .. }
        | Command::InterruptNode { .. }
        | Command::SetNodeAdmin { .. }
        | Command::SetDeviceHealth { .. }
        | Command::RemoveNode { .. }
        | Command::SetEndpoint { .. }
        | Command::PinScale { .. }
        | Command::ObserveContention { .. }
        | Command::OpenIntent { .. }
        | Command::StepIntent { .. }
        | Command::BecomeLeader { .. }
        | Command::OpenWindows { .. }
        | Command::SetAside { .. }
        | Command::Return { .. }
        | Command::Upgrade { .. }
        | Command::TakeTokens { .. } => 0,
    }
}

fn weight_of_request(request: &Request) -> usize {
    const STRING: usize = 48;
    let text = |text: &String| STRING + text.len();
    let terms = |terms: &Term| text(&terms.key) + terms.values.iter().map(text).sum::<usize>();
    let of_needs = |needs: &plimsoll_ledger::Requirements| {
        needs.amounts.other.keys().map(|name| STRING + name.len()).sum::<usize>()
            + needs.required.terms.iter().map(terms).sum::<usize>()
            + needs.preferred.iter().map(|preferred| terms(&preferred.term)).sum::<usize>()
            + needs.gpu.iter().flat_map(|gpu| &gpu.models).map(text).sum::<usize>()
    };
    let names = [&request.name, &request.pool, &request.class, &request.queue, &request.tenant];
    256 + names.into_iter().map(text).sum::<usize>()
        + request.labels.iter().map(|(key, value)| text(key) + text(value)).sum::<usize>()
        + of_needs(&request.requirements)
        + request
            .roles
            .iter()
            .map(|role| 256 + text(&role.name) + of_needs(&role.requirements))
            .sum::<usize>()
}

#[cfg(test)]
mod tests;
