//! The loop of an agent: one conversation that carries one or many nodes, kept up for ever.
//!
//! Two things run side by side and share nothing but the nodes' books: the conversation with a coordinator, and the
//! expiry of leases. The second never waits for the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, seed_from};
use crate::clock::{BootTime, SharedClock};
use crate::dial::{Conversation, Dial, LinkError};
use crate::message::{FromCoordinator, RegisterAnswer, Registered, Report, ToCoordinator, Word};
use crate::sample::Readings;
use crate::session::{Heard, LedgerReading, NodeSession};

/// Nodes in one message: with a dozen devices each, still far below the largest message that a coordinator takes.
const NODES_PER_MESSAGE: usize = 64;

/// Nodes without a registration ask for one with every so many heartbeats.
const ASK_AGAIN_EVERY: u64 = 8;

/// Longest sleep of the expiry loop. Timers stop while a machine is suspended and the boot clock does not, so a long
/// sleep would oversleep a deadline.
const MAX_EXPIRY_SLEEP_MS: u64 = 500;

/// Pace of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTiming {
    /// Between heartbeats, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Longest wait for a conversation to open, in milliseconds.
    pub open_timeout_ms: u64,
    /// Silence of the coordinator after which the conversation counts as broken, in milliseconds.
    pub silence_ms: u64,
    /// Shortest wait before another conversation is opened, in milliseconds.
    pub backoff_floor_ms: u64,
    /// Longest wait before another conversation is opened, in milliseconds.
    pub backoff_cap_ms: u64,
}

impl LinkTiming {
    /// The pace that goes with a heartbeat interval.
    pub fn for_interval(heartbeat_interval_ms: u64) -> LinkTiming {
        let heartbeat_interval_ms = heartbeat_interval_ms.max(10);
        LinkTiming {
            heartbeat_interval_ms,
            open_timeout_ms: 5_000,
            silence_ms: heartbeat_interval_ms.saturating_mul(3).max(3_000),
            backoff_floor_ms: 100,
            // A coordinator suspects a node that is silent for some intervals: waits must stay well below that.
            backoff_cap_ms: heartbeat_interval_ms.max(500),
        }
    }
}

/// How a link is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// Nodes that the ledger has now, under this link.
    pub registered: usize,
    /// Nodes that the ledger does not take, with why.
    pub refused: BTreeMap<String, String>,
    /// Conversations opened so far.
    pub conversations: u64,
    /// Why the latest one ended or did not begin.
    pub last_error: Option<String>,
}

/// One link: nodes, and the way to a coordinator.
pub struct Link {
    nodes: Arc<Mutex<BTreeMap<String, NodeSession>>>,
    dial: Arc<dyn Dial>,
    clock: SharedClock,
    timing: LinkTiming,
    readings: Readings,
    status: watch::Sender<LinkStatus>,
    news: Arc<Notify>,
    /// Until when the expiry loop sleeps. Written and read with `nodes` locked.
    expiry_sleeps_until: Mutex<BootTime>,
}

impl Link {
    /// A link for these nodes.
    pub fn new(
        nodes: Vec<NodeSession>,
        dial: Arc<dyn Dial>,
        clock: SharedClock,
        timing: LinkTiming,
        readings: Readings,
    ) -> Link {
        let nodes = nodes.into_iter().map(|node| (node.name().to_owned(), node)).collect();
        Link {
            nodes: Arc::new(Mutex::new(nodes)),
            dial,
            clock,
            timing,
            readings,
            status: watch::Sender::default(),
            news: Arc::default(),
            expiry_sleeps_until: Mutex::default(),
        }
    }

    /// How it is doing, from now on.
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.subscribe()
    }

    /// Keeps the link up until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.expire_leases() => {}
            () = self.keep_talking() => {}
        }
    }

    async fn expire_leases(&self) {
        loop {
            let now = self.clock.now();
            let mut next = now.plus_ms(MAX_EXPIRY_SLEEP_MS);
            {
                let mut nodes = self.nodes.lock();
                for node in nodes.values_mut() {
                    node.expire(now);
                    next = next.min(node.next_deadline().unwrap_or(next));
                }
                *self.expiry_sleeps_until.lock() = next;
            }
            let wait_ms = next.ms_since(now).max(1);
            tokio::select! {
                biased;
                () = self.news.notified() => {}
                () = sleep(Duration::from_millis(wait_ms)) => {}
            }
        }
    }

    async fn keep_talking(&self) {
        let first_name = self.nodes.lock().keys().next().cloned().unwrap_or_default();
        let seed = seed_from(&first_name);
        let mut backoff = Backoff::new(self.timing.backoff_floor_ms, self.timing.backoff_cap_ms, seed);
        let mut attempt = backoff.spread(1 << 16);
        loop {
            let open = timeout(Duration::from_millis(self.timing.open_timeout_ms), self.dial.open(attempt));
            let ended = match open.await {
                Ok(Ok(conversation)) => {
                    self.status.send_modify(|status| status.conversations += 1);
                    let (ended, got_through) = self.converse(conversation, &mut backoff).await;
                    if got_through {
                        backoff.reset();
                    }
                    ended
                }
                Ok(Err(error)) => error,
                Err(_) => LinkError::new("no answer in time"),
            };
            for node in self.nodes.lock().values_mut() {
                node.unregistered();
            }
            let error = ended.to_string();
            let news = self.status.borrow().last_error.as_ref() != Some(&error);
            self.status.send_modify(|status| {
                status.registered = 0;
                status.last_error = Some(error);
            });
            let wait_ms = backoff.next_ms();
            if news {
                tracing::info!(error = %ended, wait_ms, "no coordinator; trying again");
            }
            sleep(Duration::from_millis(wait_ms)).await;
            attempt = attempt.wrapping_add(1);
        }
    }

    /// One conversation, until it breaks. Says why it broke, and whether some node was registered in it.
    async fn converse(&self, conversation: Conversation, backoff: &mut Backoff) -> (LinkError, bool) {
        let Conversation { outgoing, mut incoming } = conversation;
        let mut talk = Talk {
            link: self,
            outgoing,
            sequence: 0,
            unanswered: BTreeMap::new(),
            sent_after: self.clock.now(),
            ledger: None,
            interval_ms: self.timing.heartbeat_interval_ms,
            again: BTreeSet::new(),
            beats: 0,
            got_through: false,
        };
        let all: Vec<String> = self.nodes.lock().keys().cloned().collect();
        if let Err(error) = talk.register(&all) {
            return (error, false);
        }
        // Links that lost the same coordinator must not beat in step for ever after.
        let phase = Duration::from_millis(backoff.spread(talk.interval_ms));
        let mut next_beat = Instant::now() + phase;
        let mut heard = Instant::now();
        let silence = Duration::from_millis(self.timing.silence_ms);
        loop {
            let step = tokio::select! {
                biased;
                message = incoming.next() => match message {
                    Some(Ok(message)) => {
                        heard = Instant::now();
                        talk.hear(message)
                    }
                    Some(Err(error)) => Err(error),
                    None => Err(LinkError::new("the coordinator ended the stream")),
                },
                () = sleep_until(next_beat) => {
                    next_beat = Instant::now() + Duration::from_millis(talk.interval_ms);
                    if heard.elapsed() > silence {
                        Err(LinkError::new("the coordinator fell silent"))
                    } else {
                        talk.beat()
                    }
                }
            };
            if let Err(error) = step {
                return (error, talk.got_through);
            }
        }
    }
}

/// The state of one conversation.
struct Talk<'a> {
    link: &'a Link,
    outgoing: mpsc::Sender<ToCoordinator>,
    sequence: u64,
    /// When each message was about to be sent that is not answered yet, by number.
    unanswered: BTreeMap<u64, BootTime>,
    /// What arrives now was sent by the coordinator later than this: after it had read the newest message it answered,
    /// or at least after this conversation began.
    sent_after: BootTime,
    /// The coordinator's clock as last read. Another conversation may be with another coordinator: it reads again.
    ledger: Option<LedgerReading>,
    /// The configured pace, or the coordinator's where that is faster.
    interval_ms: u64,
    /// Nodes to register again with the next heartbeat.
    again: BTreeSet<String>,
    beats: u64,
    got_through: bool,
}

impl Talk<'_> {
    fn register(&mut self, names: &[String]) -> Result<(), LinkError> {
        for names in names.chunks(NODES_PER_MESSAGE) {
            let nodes = self.link.nodes.lock();
            let list =
                names.iter().filter_map(|name| nodes.get(name)).map(NodeSession::registration).collect();
            drop(nodes);
            self.send(Report::Register(list))?;
        }
        Ok(())
    }

    fn beat(&mut self) -> Result<(), LinkError> {
        let (sample, gpus) = match &self.link.readings {
            Readings::Machine(sampler) => (sampler.latest(), sampler.gpus()),
            Readings::None | Readings::Played(_) => (None, None),
        };
        let now = self.link.clock.now();
        self.beats += 1;
        // Refused nodes ask again, but rarely: an operator may have made room, or the answer was lost.
        let ask_again = self.beats.is_multiple_of(ASK_AGAIN_EVERY);
        let mut beats = Vec::new();
        let mut owed = Vec::new();
        for (name, node) in self.link.nodes.lock().iter_mut() {
            if gpus.as_ref().is_some_and(|gpus| node.update_gpus(gpus)) {
                self.again.insert(name.clone());
            }
            let sample = match &self.link.readings {
                Readings::Played(played) => Some(played(name, now)),
                Readings::None | Readings::Machine(_) => sample.clone(),
            };
            match node.heartbeat(sample, now) {
                Some(beat) => beats.push(beat),
                None if ask_again => drop(self.again.insert(name.clone())),
                None => {}
            }
            owed.extend(node.take_owed());
        }
        for report in owed {
            self.send(report)?;
        }
        let again: Vec<String> = std::mem::take(&mut self.again).into_iter().collect();
        self.register(&again)?;
        while !beats.is_empty() {
            let rest =
                if beats.len() > NODES_PER_MESSAGE { beats.split_off(NODES_PER_MESSAGE) } else { Vec::new() };
            self.send(Report::Heartbeat(beats))?;
            beats = rest;
        }
        Ok(())
    }

    /// Reads the coordinator's clock with a heartbeat of one node out of turn, where that was not done yet: a short
    /// lease may be renewed before the next heartbeat is due.
    fn read_clock(&mut self) -> Result<(), LinkError> {
        if self.ledger.is_some() {
            return Ok(());
        }
        let now = self.link.clock.now();
        let beat = self.link.nodes.lock().values_mut().find_map(|node| node.heartbeat(None, now));
        beat.map_or(Ok(()), |beat| self.send(Report::Heartbeat(vec![beat])))
    }

    fn hear(&mut self, message: FromCoordinator) -> Result<(), LinkError> {
        let FromCoordinator { revision, sequence, what } = message;
        let asked = self.unanswered.get(&sequence).copied();
        if let Some(sent) = asked {
            self.sent_after = self.sent_after.max(sent);
            // Reports of ended workloads get no answer of their own; a later answer is theirs too.
            self.unanswered.retain(|other, _| *other > sequence);
        }
        if let (Word::HeartbeatSeen { clock_ms, .. }, Some(at)) = (&what, asked)
            && *clock_ms > 0
        {
            self.ledger = Some(LedgerReading { at, clock_ms: *clock_ms });
        }
        let heard = Heard { at: self.link.clock.now(), sent_after: self.sent_after, ledger: self.ledger };
        match what {
            Word::Registered { nodes, heartbeat_interval_ms } => {
                if heartbeat_interval_ms > 0 {
                    self.interval_ms = self.link.timing.heartbeat_interval_ms.min(heartbeat_interval_ms);
                }
                for answer in nodes {
                    self.register_answer(answer, revision, heard);
                }
                self.count();
                self.read_clock()?;
            }
            Word::HeartbeatSeen { refused, .. } => {
                for name in refused {
                    tracing::warn!(node = %name, "the ledger gave this node up; registering again");
                    self.with(&name, NodeSession::unregistered);
                    self.again.insert(name);
                }
                self.count();
            }
            Word::Lease { node, news } => {
                self.with(&node, |node| node.lease(revision, news, heard));
            }
            Word::LeaseEnded { node, reservation, token, reason } => {
                tracing::debug!(%node, %reservation, token, %reason, "lease ended");
                self.with(&node, |node| node.lease_ended(&reservation, token));
            }
            Word::NodeState { node, state } => tracing::info!(%node, %state, "node state"),
        }
        Ok(())
    }

    fn register_answer(&mut self, answer: RegisterAnswer, revision: u64, heard: Heard) {
        let RegisterAnswer { node: name, result } = answer;
        match result {
            Ok(Registered { epoch, leases }) => {
                self.got_through = true;
                let stray = self.with(&name, |node| {
                    node.registered(epoch);
                    node.all_leases(revision, leases, heard)
                });
                if stray == Some(true) {
                    self.again.insert(name.clone());
                }
                self.link.status.send_if_modified(|status| status.refused.remove(&name).is_some());
            }
            Err(failure) if failure.definite => {
                tracing::error!(node = %name, message = %failure.message, "the ledger does not take this node");
                self.with(&name, NodeSession::unregistered);
                self.link.status.send_modify(|status| drop(status.refused.insert(name, failure.message)));
            }
            Err(failure) => {
                tracing::info!(node = %name, message = %failure.message, "not registered yet");
                self.with(&name, NodeSession::unregistered);
                self.again.insert(name);
            }
        }
    }

    /// Does something with a node, and wakes the expiry loop where it would sleep past a deadline.
    fn with<T>(&self, name: &str, act: impl FnOnce(&mut NodeSession) -> T) -> Option<T> {
        let mut nodes = self.link.nodes.lock();
        let node = nodes.get_mut(name)?;
        let done = act(node);
        if node.next_deadline().is_some_and(|deadline| deadline < *self.link.expiry_sleeps_until.lock()) {
            self.link.news.notify_one();
        }
        Some(done)
    }

    fn count(&self) {
        let registered = self.link.nodes.lock().values().filter(|node| node.epoch().is_some()).count();
        self.link.status.send_if_modified(|status| {
            let changed = status.registered != registered;
            status.registered = registered;
            changed
        });
    }

    fn send(&mut self, what: Report) -> Result<(), LinkError> {
        self.sequence += 1;
        // The moment before the message leaves: whatever the coordinator answers, it does so later.
        self.unanswered.insert(self.sequence, self.link.clock.now());
        let message = ToCoordinator { sequence: self.sequence, what };
        self.outgoing.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => LinkError::new("the coordinator reads nothing"),
            TrySendError::Closed(_) => LinkError::new("the coordinator hung up"),
        })
    }
}

#[cfg(test)]
#[path = "link_test.rs"]
mod tests;
