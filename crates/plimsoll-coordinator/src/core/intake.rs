//! Where commands wait for the leader's loop: bounded in number and bytes, and short work before new requests.
//!
//! Renewals, releases, confirms and all that is not a new request have a queue and a bound of their own, so that a
//! flood of requests never holds them up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use plimsoll_ledger::{Answer, Command, Entry};
use tokio::sync::{Notify, oneshot};

use super::{Counters, IntakeLimits, SubmitError};

/// What a caller gets per command.
pub(super) type Result1 = Result<Answer, SubmitError>;

/// When to come back, told to those who are turned away.
const RETRY_AFTER_MS: u64 = 100;

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
        if let Err((error, items)) = self.push(items, hint) {
            for item in items {
                item.answer(Err(error.clone()));
            }
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

    fn push(&self, items: Vec<Item>, hint: Option<(u64, String)>) -> Result<(), (SubmitError, Vec<Item>)> {
        let bytes: usize = items.iter().map(|item| item.weight).sum();
        let limits = &self.limits;
        let too_large = |what, given: usize, limit: usize| SubmitError::TooLarge {
            what,
            given: given as u64,
            limit: limit as u64,
        };
        if items.len() > limits.max_waiting {
            return Err((too_large("commands", items.len(), limits.max_waiting), items));
        }
        if bytes > limits.max_waiting_bytes {
            return Err((too_large("bytes", bytes, limits.max_waiting_bytes), items));
        }
        let mut state = self.state.lock();
        match state.phase {
            Phase::Open => {}
            Phase::Closed => return Err((SubmitError::NotLeader { leader: hint }, items)),
            Phase::Stopped => return Err((SubmitError::Stopped, items)),
        }
        let requests = items.iter().filter(|item| item.is_request).count();
        let full = |queue: &Queue, more: usize| {
            more > 0
                && (queue.items.len() + more > limits.max_waiting
                    || queue.bytes + bytes > limits.max_waiting_bytes)
        };
        for (queue, more) in [(&state.requests, requests), (&state.urgent, items.len() - requests)] {
            if full(queue, more) {
                Counters::add(&self.counters.overloaded, items.len() as u64);
                let (waiting, limit) = (queue.items.len() as u64, limits.max_waiting as u64);
                return Err((
                    SubmitError::Overloaded { waiting, limit, retry_after_ms: RETRY_AFTER_MS },
                    items,
                ));
            }
        }
        for item in items {
            let queue = if item.is_request { &mut state.requests } else { &mut state.urgent };
            queue.bytes += item.weight;
            queue.items.push_back(item);
        }
        let waiting = state.urgent.items.len() + state.requests.items.len();
        self.counters.waiting.store(waiting as u64, Ordering::Relaxed);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    fn take(&self, most: usize, queue: impl Fn(&mut Waiting) -> &mut Queue) -> Vec<Item> {
        let mut taken = Vec::new();
        let mut abandoned = Vec::new();
        let mut state = self.state.lock();
        let queue = queue(&mut state);
        while taken.len() < most {
            let Some(item) = queue.items.pop_front() else { break };
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
        Command::Submit { request, .. } => {
            256 + 64 * (request.labels.len() + request.requirements.required.terms.len())
                + 64 * (request.requirements.amounts.other.len() + request.requirements.preferred.len())
        }
        Command::RegisterNode(registration) => {
            256 + 128 * (registration.devices.len() + registration.labels.len())
                + 8 * registration.running.len()
        }
        Command::ApplyPolicy { put, delete, .. } => 1_024 * put.len() + 64 * delete.len(),
        Command::Place { .. }
        | Command::Confirm { .. }
        | Command::Renew { .. }
        | Command::Resize { .. }
        | Command::Release { .. }
        | Command::Cancel { .. }
        | Command::Expire { .. }
        | Command::SetNodeHealth { .. }
        | Command::SetNodeAdmin { .. }
        | Command::SetDeviceHealth { .. }
        | Command::RemoveNode { .. }
        | Command::BecomeLeader { .. }
        | Command::Upgrade { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Outcome, Request, Verdict};
    use plimsoll_types::{LedgerTime, ReservationId, Revision};

    use super::*;

    fn request() -> Entry {
        Entry::system(Command::Submit { request: Request::default(), verdict: Verdict::Blocked(Vec::new()) })
    }

    fn cancel(id: u64) -> Entry {
        Entry::system(Command::Cancel { reservation: ReservationId(id) })
    }

    fn done(revision: u64) -> Result1 {
        Ok(Answer { revision: Revision(revision), log_time: LedgerTime(0), outcome: Outcome::Done })
    }

    fn intake(max_waiting: usize) -> Arc<Intake> {
        let limits = IntakeLimits { max_waiting, ..IntakeLimits::default() };
        let intake = Arc::new(Intake::new(limits, Arc::default(), Arc::default()));
        intake.open();
        intake
    }

    #[tokio::test]
    async fn answers_come_back_in_the_order_of_the_call() {
        let intake = intake(100);
        let caller = Arc::clone(&intake);
        let call =
            tokio::spawn(async move { caller.submit(vec![request(), cancel(1), request()], None).await });
        tokio::task::yield_now().await;
        for (revision, item) in (1..).zip(intake.take_urgent(10).into_iter().chain(intake.take_requests(10)))
        {
            item.answer(done(revision));
        }
        let answers = call.await.expect("ran");
        assert_eq!(answers, [done(2), done(1), done(3)]);
    }

    #[tokio::test]
    async fn requests_cannot_crowd_out_releases() {
        let intake = intake(2);
        for _ in 0..2 {
            let caller = Arc::clone(&intake);
            tokio::spawn(async move { caller.submit(vec![request()], None).await });
        }
        tokio::task::yield_now().await;
        let refused = intake.submit(vec![request()], None).await;
        assert!(matches!(refused[..], [Err(SubmitError::Overloaded { .. })]));
        let caller = Arc::clone(&intake);
        let release = tokio::spawn(async move { caller.submit(vec![cancel(1)], None).await });
        tokio::task::yield_now().await;
        intake.take_urgent(1).pop().expect("waits").answer(done(1));
        assert_eq!(release.await.expect("ran"), [done(1)]);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_proposed() {
        let intake = intake(10);
        let caller = Arc::clone(&intake);
        let call = tokio::spawn(async move { caller.submit(vec![request()], None).await });
        tokio::task::yield_now().await;
        call.abort();
        let _ = call.await;
        assert!(intake.take_requests(10).is_empty());
    }

    #[tokio::test]
    async fn closing_answers_all_that_wait() {
        let intake = intake(10);
        let caller = Arc::clone(&intake);
        let call = tokio::spawn(async move { caller.submit(vec![request(), cancel(4)], None).await });
        tokio::task::yield_now().await;
        let error = SubmitError::NotLeader { leader: Some((2, "there".to_owned())) };
        intake.close(&error);
        assert_eq!(call.await.expect("ran"), [Err(error.clone()), Err(error)]);
        let hint = Some((3, "elsewhere".to_owned()));
        let later = intake.submit(vec![request()], hint.clone()).await;
        assert_eq!(later, [Err(SubmitError::NotLeader { leader: hint })]);
    }

    #[tokio::test]
    async fn a_dropped_command_is_answered_as_unknown() {
        let intake = intake(10);
        let caller = Arc::clone(&intake);
        let call = tokio::spawn(async move { caller.submit(vec![request()], None).await });
        tokio::task::yield_now().await;
        drop(intake.take_requests(1));
        assert_eq!(call.await.expect("ran"), [Err(SubmitError::Unknown)]);
    }
}
