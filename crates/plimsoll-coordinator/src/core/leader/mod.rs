//! The leader's one task: it drains the intake into raft entries, plans, proposes, answers, and looks after time and
//! silent nodes. No timer runs on an idle cluster: it wakes for commands, applied entries, changes of leadership, and
//! the next moment at which something is due.

mod contention;
mod overflow;
mod overloads;
mod round;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::RwLock;
use plimsoll_consensus::{Group, GroupStatus, ProposeError, Reply, Role};
use plimsoll_ledger::{Answer, Command, Entry, Ledger, Outcome, Reason, State};
use plimsoll_scheduler::{Planner, Ticket};
use plimsoll_types::{LedgerTime, NodeId, ReservationId};
use tokio::sync::{Notify, watch};

use super::agents::{AgentHub, SessionClosed};
use super::bodies::Bodies;
use super::encoding::Batch;
use super::estimates::Estimates;
use super::intake::{Intake, Item};
use super::loads::LoadBook;
use super::notice::AppliedNotice;
use super::{CoreConfig, Counters, SubmitError};
use crate::clock::Clock;

/// Times that a request goes back to planning after apply refused its place.
const MOST_ATTEMPTS: u8 = 3;

/// For each entry in flight, so many commands have to wait before another one is proposed. Entries cost syncs, messages
/// and wake-ups on every replica, whatever is in them.
const COMMANDS_PER_ENTRY_IN_FLIGHT: usize = 256;

/// All that the leader's task works with.
pub(super) struct LeaderLoop {
    pub(super) config: Arc<CoreConfig>,
    pub(super) group: Group,
    pub(super) ledger: Arc<RwLock<Ledger>>,
    pub(super) intake: Arc<Intake>,
    pub(super) notice: Arc<AppliedNotice>,
    pub(super) agents: AgentHub,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Arc<Counters>,
    /// Which starts are kept free, for those who ask.
    pub(super) estimates: Arc<Estimates>,
    /// What those asked who are set aside.
    pub(super) bodies: Arc<Bodies>,
    /// What endpoints said of their load.
    pub(super) loads: Arc<LoadBook>,
    pub(super) wake: Arc<Notify>,
    /// Turns true when the core stops.
    pub(super) stop: watch::Receiver<bool>,
    /// True while this replica leads and its first entry is applied.
    pub(super) serving: watch::Sender<bool>,
}

/// One term of leadership.
struct Lead {
    planner: Planner,
    in_flight: FuturesUnordered<BoxFuture<'static, Settled>>,
    /// An `Expire` is in flight.
    expiring: bool,
    /// Queue passes so far.
    passes: u64,
    /// Windows of schedules are on their way.
    opening: bool,
    /// A request joined the queue that the latest pass could not see.
    pass_owed: bool,
    /// Per strict pool, how many requests are on their way to its queue: nobody may overtake those either.
    queueing: BTreeMap<round::Line, u64>,
    /// Contentions that are on their way to be measured.
    observing: usize,
    /// When the leader looks for contention next.
    look_at: tokio::time::Instant,
    /// Entries that are on their way between queues and their overflow.
    evening: usize,
    /// Who is aside and cannot be read here.
    unreadable: BTreeSet<ReservationId>,
    /// Relocations that are on their way.
    relocating: usize,
    /// When the leader looks next for who may go elsewhere.
    relocate_at: tokio::time::Instant,
    /// Which nodes measure too full.
    overloads: overloads::Overloads,
    /// When silent nodes are looked for next, and those that measure too full.
    check_nodes_at: tokio::time::Instant,
}

/// A raft entry that is settled: what each command was for, and how it went.
struct Settled {
    batch: Arc<Batch>,
    origins: Vec<Origin>,
    /// Queue passes up to when it was planned.
    passes: u64,
    /// Strict pools of its requests that go to a queue, once for each.
    queueing: Vec<round::Line>,
    result: Result<Reply, ProposeError>,
}

/// Where a command of an entry came from, and the booking that it holds.
enum Origin {
    /// A caller.
    Caller(Box<Item>, Option<Ticket>),
    /// The queue pass.
    Queue(Ticket),
    /// The search for victims, for this reservation.
    Eviction(ReservationId),
    /// The search for who may go elsewhere: this grant.
    Relocation(ReservationId),
    /// The sweep.
    Expiry,
    /// The look for silent nodes.
    Health(NodeId),
    /// The look for nodes that measure too full.
    Overload(NodeId),
    /// Windows of a schedule.
    Windows,
    /// Loads of endpoints.
    Loads,
    /// What those who wait lack.
    Contention,
    /// Queues and their overflow.
    Overflow,
}

impl Origin {
    /// The booking that it holds.
    fn ticket(&self) -> Option<Ticket> {
        match self {
            Origin::Caller(_, ticket) => *ticket,
            Origin::Queue(ticket) => Some(*ticket),
            Origin::Eviction(_)
            | Origin::Relocation(_)
            | Origin::Expiry
            | Origin::Health(_)
            | Origin::Overload(_)
            | Origin::Windows
            | Origin::Loads
            | Origin::Contention
            | Origin::Overflow => None,
        }
    }
}

impl LeaderLoop {
    /// Runs until the core stops.
    pub(super) async fn run(self) {
        let mut leadership = self.group.watch();
        loop {
            if *self.stop.borrow() {
                break;
            }
            if let Some(term) = led_term(&leadership) {
                tracing::info!(node = self.config.node_id, term, "leading");
                self.lead(term).await;
                tracing::info!(node = self.config.node_id, term, "no longer leading");
            }
            // Leadership without office is tried again soon; otherwise only a change of leadership is news.
            let retry = led_term(&leadership).map(|_| tokio::time::Instant::now() + self.heartbeat());
            tokio::select! {
                biased;
                () = stopped(self.stop.clone()) => break,
                changed = leadership.changed() => if changed.is_err() { break },
                () = sleep_until(retry) => {}
            }
        }
        self.intake.close(&SubmitError::Stopped);
        self.agents.end(SessionClosed::Stopped);
    }

    fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.config.timings.heartbeat_ms)
    }

    async fn lead(&self, term: u64) {
        self.counters.leaderships.fetch_add(1, Ordering::Relaxed);
        self.intake.open();
        if let Some(lead) = self.take_office(term).await {
            self.serving.send_replace(true);
            self.govern(lead, term).await;
        }
        self.serving.send_replace(false);
        self.estimates.promise(Vec::new());
        self.loads.clear();
        if *self.stop.borrow() {
            self.intake.close(&SubmitError::Stopped);
            self.agents.end(SessionClosed::Stopped);
        } else {
            let leader = self.group.leader().filter(|(id, _)| *id != self.config.node_id);
            self.intake.close(&SubmitError::NotLeader { leader });
            self.agents.end(SessionClosed::NotLeader);
        }
        self.counters.in_flight.store(0, Ordering::Relaxed);
    }

    /// Proposes a command before any client's, and waits until it is applied. `None` where this leadership is over.
    async fn settle_first(&self, term: u64, command: Command) -> Option<()> {
        let entry = Entry::system(command);
        let payload = round::payload(LedgerTime(self.clock.now_ms()), vec![entry]);
        let proposed = self.group.propose_pipelined(payload);
        tokio::pin!(proposed);
        let mut leadership = self.group.watch();
        loop {
            tokio::select! {
                biased;
                () = stopped(self.stop.clone()) => return None,
                result = &mut proposed => match result {
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "an entry before this term's commands was not accepted");
                        return None;
                    }
                },
                // An error: the group is gone with all that it said, and says no more. It would be ready for ever.
                changed = leadership.changed() => {
                    if changed.is_err() || led_term(&leadership) != Some(term) {
                        return None;
                    }
                }
            }
        }
        Some(())
    }

    /// A new cluster begins with the newest rules: there is nothing yet that was decided by older ones, and nobody else whom
    /// to ask.
    fn may_raise_at_once(&self) -> bool {
        let ledger = self.ledger.read();
        ledger.meta().version < self.config.newest_version
            && ledger.is_untouched()
            && self.group.metrics().members.keys().eq([&self.config.node_id])
    }

    /// Proposes what comes first, and once that is applied (and so everything before it) begins to plan.
    async fn take_office(&self, term: u64) -> Option<Lead> {
        self.settle_first(term, Command::BecomeLeader { leader: self.config.node_id }).await?;
        if self.may_raise_at_once() {
            self.settle_first(term, Command::Upgrade { to: self.config.newest_version }).await?;
        }
        drop(self.notice.take());
        let ledger = self.ledger.read();
        self.agents.begin(&ledger);
        Some(Lead {
            planner: Planner::new(&ledger, self.config.seed ^ term),
            in_flight: FuturesUnordered::new(),
            expiring: false,
            opening: false,
            observing: 0,
            look_at: tokio::time::Instant::now(),
            evening: 0,
            unreadable: BTreeSet::new(),
            relocating: 0,
            relocate_at: tokio::time::Instant::now(),
            passes: 0,
            pass_owed: false,
            queueing: BTreeMap::new(),
            overloads: overloads::Overloads::default(),
            check_nodes_at: tokio::time::Instant::now(),
        })
    }

    async fn govern(&self, mut lead: Lead, term: u64) {
        let mut leadership = self.group.watch();
        loop {
            self.sync(&mut lead);
            while self.may_propose(&lead) && self.propose_round(&mut lead) {}
            self.counters.in_flight.store(lead.in_flight.len() as u64, Ordering::Relaxed);
            let timer = self.next_timer(&lead);
            tokio::select! {
                biased;
                () = stopped(self.stop.clone()) => break,
                Some(settled) = lead.in_flight.next(), if !lead.in_flight.is_empty() => {
                    let mut over = self.settle(&mut lead, settled);
                    while let Some(Some(settled)) = lead.in_flight.next().now_or_never() {
                        over |= self.settle(&mut lead, settled);
                    }
                    if over {
                        break;
                    }
                }
                changed = leadership.changed() => {
                    if changed.is_err() || led_term(&leadership) != Some(term) {
                        break;
                    }
                }
                () = self.wake.notified() => {}
                () = sleep_until(timer) => {}
            }
        }
        self.abandon(lead.in_flight);
    }

    /// True where another entry is worth its costs: at once where none is in flight, and the more there are, the more
    /// commands have to wait for it. What waits goes with the next one, for which no timer is needed: entries in flight
    /// are settled, and then this is asked again.
    fn may_propose(&self, lead: &Lead) -> bool {
        let in_flight = lead.in_flight.len();
        in_flight == 0
            || (in_flight < self.config.intake.max_in_flight
                && self.intake.waiting() >= in_flight * COMMANDS_PER_ENTRY_IN_FLIGHT)
    }

    /// What is in flight may still be committed by the next leader. Its callers learn the outcome where it comes soon,
    /// and that it is unknown where it does not.
    fn abandon(&self, mut in_flight: FuturesUnordered<BoxFuture<'static, Settled>>) {
        if in_flight.is_empty() {
            return;
        }
        let patience = Duration::from_millis(self.config.timings.election_ms.1 * 2);
        tokio::spawn(async move {
            let drain = async {
                while let Some(settled) = in_flight.next().await {
                    answer_all(settled);
                }
            };
            // Past that, dropping the commands answers their callers: unknown.
            let _ = tokio::time::timeout(patience, drain).await;
        });
    }

    /// Brings the planner up to what was applied.
    fn sync(&self, lead: &mut Lead) {
        let changes = self.notice.take();
        if !changes.policies && !changes.all_nodes && changes.nodes.is_empty() {
            return;
        }
        let ledger = self.ledger.read();
        if changes.policies {
            lead.planner.sync_policies(&ledger);
        } else if changes.all_nodes {
            let nodes: Vec<NodeId> = ledger.nodes().map(|node| node.id).collect();
            lead.planner.sync(&ledger, nodes);
        } else {
            lead.planner.sync_changed(&ledger, changes.nodes);
        }
    }

    /// Answers the callers of an entry and drops its bookings. True where leadership is over.
    fn settle(&self, lead: &mut Lead, settled: Settled) -> bool {
        for line in &settled.queueing {
            if let Some(count) = lead.queueing.get_mut(line) {
                *count -= 1;
                if *count == 0 {
                    lead.queueing.remove(line);
                }
            }
        }
        let answers = match settled.result {
            Ok(answers) => answers,
            Err(_) => {
                let over = !matches!(settled.result, Err(ProposeError::Stopped)) || *self.stop.borrow();
                answer_all(settled);
                return over || !self.group.is_leader();
            }
        };
        let mut replan = Vec::new();
        {
            let ledger = self.ledger.read();
            lead.planner.settle_all(&ledger, settled.origins.iter().filter_map(Origin::ticket));
            for ((origin, entry), answer) in
                settled.origins.into_iter().zip(&settled.batch.entries).zip(answers)
            {
                match origin {
                    Origin::Caller(mut item, ticket) => {
                        if ticket.is_some() && item.attempts < MOST_ATTEMPTS && place_was_taken(&answer) {
                            item.attempts += 1;
                            replan.push((item, entry.clone()));
                        } else {
                            // What came free while it was on its way to the queue was offered to others only.
                            lead.pass_owed |= settled.passes != lead.passes && is_pending(&answer);
                            // The head of a strict queue may have gone, which frees nothing but lets the next one try.
                            lead.pass_owed |= matches!(entry.command, Command::Cancel { .. });
                            if is_pending(&answer) {
                                lead.planner.note_waiting();
                            }
                            if let Outcome::Reservation(waiting) = &answer.outcome
                                && waiting.state == State::Pending
                            {
                                lead.planner.note_arrival(&ledger, waiting);
                            }
                            if has_ended(&answer) {
                                lead.planner.note_end(&ledger);
                            }
                            item.answer(Ok(answer));
                        }
                    }
                    Origin::Queue(_) | Origin::Loads => {}
                    Origin::Eviction(reservation) => {
                        let refused = matches!(answer.outcome, Outcome::Refused(_));
                        lead.planner.settle_eviction(&ledger, reservation, refused);
                    }
                    Origin::Relocation(reservation) => {
                        lead.relocating = lead.relocating.saturating_sub(1);
                        let refused = matches!(answer.outcome, Outcome::Refused(_));
                        lead.planner.settle_relocation(&ledger, reservation, refused);
                    }
                    Origin::Overflow => Self::evened(lead, &ledger, entry, &answer.outcome),
                    Origin::Windows => {
                        lead.opening = false;
                        lead.pass_owed |= ledger.awaits_hours();
                    }
                    Origin::Contention => lead.observing = lead.observing.saturating_sub(1),
                    Origin::Expiry => {
                        lead.expiring = false;
                        lead.planner.note_waiting();
                        // A period may be over, so that a budget is whole again; or a batch or hours begun.
                        lead.pass_owed |= ledger.counts_usage()
                            || ledger.has_batches()
                            || ledger.awaits_hours()
                            || matches!(answer.outcome, Outcome::Expired { ended: 1.., .. });
                    }
                    Origin::Health(node) => self.agents.judged(node),
                    Origin::Overload(node) => {
                        lead.overloads.settled(node, matches!(answer.outcome, Outcome::Refused(_)));
                    }
                }
            }
        }
        Counters::add(&self.counters.replanned, replan.len() as u64);
        for (item, entry) in replan.into_iter().rev() {
            self.intake.again(*item, entry);
        }
        false
    }

    /// When the loop has to look again by itself; `None` where nothing will be due.
    fn next_timer(&self, lead: &Lead) -> Option<tokio::time::Instant> {
        // Nothing can be done about what is due before an entry is settled: a timer in the past would only spin.
        if !self.may_propose(lead) {
            return None;
        }
        let now = tokio::time::Instant::now();
        let ledger = self.ledger.read();
        let now_ms = self.clock.now_ms();
        let expiry = if lead.expiring { None } else { ledger.next_due() };
        // A window that opens or ends lets others start.
        let change = ledger.calendar().next_change(LedgerTime(now_ms));
        let walk = if lead.expiring { None } else { lead.planner.next_walk_at() };
        let due = [expiry, lead.planner.next_eviction_at(), change, walk].into_iter().flatten().min();
        let due = due.map(|at| now + Duration::from_millis(at.0.saturating_sub(now_ms).max(1)));
        let check = ledger.nodes().next().map(|_| lead.check_nodes_at);
        let look = contention::next_look(lead, &ledger);
        due.into_iter().chain(check).chain(self.loads.due_at()).chain(look).min()
    }
}

/// Answers the callers of an entry outside of leadership: with their answers, or with why there are none.
fn answer_all(settled: Settled) {
    let error = match settled.result {
        Ok(answers) => {
            for (origin, answer) in settled.origins.into_iter().zip(answers) {
                if let Origin::Caller(item, _) = origin {
                    item.answer(Ok(answer));
                }
            }
            return;
        }
        Err(ProposeError::NotLeader { leader }) => SubmitError::NotLeader { leader },
        Err(ProposeError::Unknown) => SubmitError::Unknown,
        // Whether the entry reached other replicas before the group stopped is not known.
        Err(ProposeError::Stopped) => SubmitError::Unknown,
    };
    for origin in settled.origins {
        if let Origin::Caller(item, _) = origin {
            item.answer(Err(error.clone()));
        }
    }
}

/// True where apply refused a place that the planner had found: another place may fit. The ledger does not remember
/// such an answer, so that the request can come again under its own id.
fn place_was_taken(answer: &Answer) -> bool {
    match &answer.outcome {
        Outcome::Refused(refusal) => {
            refusal.reason >= Reason::NodeNotAvailable || refusal.reason == Reason::NotFound
        }
        Outcome::Done
        | Outcome::Reservation(_)
        | Outcome::Node(_)
        | Outcome::Expired { .. }
        | Outcome::Tokens(_) => false,
    }
}

/// The term in which this replica leads; `None` where it does not.
fn led_term(leadership: &watch::Receiver<GroupStatus>) -> Option<u64> {
    let status = leadership.borrow();
    (status.role == Role::Leader).then_some(status.term)
}

fn is_pending(answer: &Answer) -> bool {
    matches!(&answer.outcome, Outcome::Reservation(reservation) if reservation.state == State::Pending)
}

fn has_ended(answer: &Answer) -> bool {
    matches!(&answer.outcome, Outcome::Reservation(reservation) if reservation.state.is_final())
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the core is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn sleep_until(timer: Option<tokio::time::Instant>) {
    match timer {
        Some(timer) => tokio::time::sleep_until(timer).await,
        None => std::future::pending().await,
    }
}
