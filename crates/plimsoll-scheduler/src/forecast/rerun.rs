//! The past once more, under another policy: what was asked when, by the planner and the ledger as they would have decided then.
//!
//! Taken over as they were: when who asked for what, how long it ran once it had its place, who gave up waiting when, nodes and their health.
//! Who is preempted runs its whole length again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use plimsoll_ledger::{
    Command, Entry, LATEST_VERSION, Ledger, Outcome, PolicyName, PolicyObject, Refusal, Request, Stamp,
};
use plimsoll_types::{LedgerTime, ReservationId, Revision};

use super::{Future, PolicyChange};

/// A request as it was asked.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What was asked.
    pub request: Arc<Request>,
    /// By whom.
    pub requester: String,
    /// How long it runs once it has its place, in milliseconds; `None` to the end of what is recorded.
    pub run_ms: Option<u64>,
    /// When it gives up waiting; `None` where it never did.
    pub gives_up_at: Option<LedgerTime>,
}

/// One thing of the past.
#[derive(Clone, Debug)]
pub enum Recorded {
    /// A request.
    Ask(Ask),
    /// What changed nodes or policy.
    Command(Box<Command>),
}

/// What is recorded, in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// When what happened.
    pub events: Vec<(LedgerTime, Recorded)>,
    /// The end of the record.
    pub end: LedgerTime,
}

/// What came of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// When it was asked.
    pub submitted: LedgerTime,
    /// When it first had a place.
    pub started: Option<LedgerTime>,
    /// It was refused at once.
    pub refused: bool,
    /// How often its grant was taken back.
    pub preempted: u32,
    /// How long it had a place, in milliseconds, all grants together.
    pub held_ms: u64,
    /// The same times its thousandths of GPUs.
    pub gpu_milli_ms: u128,
    /// The same times its millicores.
    pub cpu_milli_ms: u128,
}

/// Runs the course again, from an empty ledger, with this policy in place of what it had of the same names. One fate for each request, in their
/// order.
///
/// # Errors
/// Why the policy is refused, where it is refused whenever the recorded policy changed.
pub fn rerun(course: &Course, policy: &PolicyChange, seed: u64) -> Result<Vec<Fate>, Refusal> {
    let begin = course.events.first().map_or(LedgerTime(0), |(at, _)| *at);
    let mut run = Run {
        future: Future::new(empty(begin), seed, begin),
        course,
        policy,
        refused: None,
        pending_policy: !policy.put.is_empty() || !policy.delete.is_empty(),
        fates: Vec::new(),
        asks: Vec::new(),
        ids: BTreeMap::new(),
        ends: BinaryHeap::new(),
        running: BTreeMap::new(),
    };
    run.go();
    match run.refused {
        Some(refusal) if run.pending_policy => Err(refusal),
        _ => Ok(run.fates),
    }
}

/// The ledger before the first entry, with the newest rules.
fn empty(at: LedgerTime) -> Ledger {
    let mut ledger = Ledger::new();
    let stamp = Stamp { revision: Revision(1), proposed_at: at };
    ledger.apply(stamp, &Entry::system(Command::Upgrade { to: LATEST_VERSION }));
    ledger
}

struct Run<'a> {
    future: Future,
    course: &'a Course,
    policy: &'a PolicyChange,
    /// Why the policy was refused the latest time.
    refused: Option<Refusal>,
    /// The policy is not in force yet.
    pending_policy: bool,
    fates: Vec<Fate>,
    asks: Vec<&'a Ask>,
    ids: BTreeMap<ReservationId, usize>,
    /// When whose grant or wait ends: with the token that it has then.
    ends: BinaryHeap<Reverse<(LedgerTime, ReservationId, u64)>>,
    /// Since when those who have a place have it.
    running: BTreeMap<ReservationId, (LedgerTime, u128, u128)>,
}

impl<'a> Run<'a> {
    fn go(&mut self) {
        self.try_policy();
        let course = self.course;
        for (at, event) in &course.events {
            self.run_to(*at);
            match event {
                Recorded::Ask(ask) => self.ask(*at, ask),
                Recorded::Command(command) => self.command(command),
            }
            self.note_moves();
        }
        self.run_to(course.end);
        let still: Vec<ReservationId> = self.running.keys().copied().collect();
        for id in still {
            self.account(id, course.end);
        }
    }

    /// Until then: grants and waits end when they do, and others take their places.
    fn run_to(&mut self, at: LedgerTime) {
        while let Some(Reverse((end, id, token))) = self.ends.peek().copied().filter(|next| next.0.0 <= at) {
            self.ends.pop();
            self.future.advance_to(end);
            self.note_moves();
            let present = self.future.ledger().reservation(id);
            if present.is_some_and(|present| !present.state.is_final() && present.token.0 == token) {
                self.future.end(id);
                self.future.settle();
                self.note_moves();
            }
        }
        self.future.advance_to(at);
        self.note_moves();
    }

    fn ask(&mut self, at: LedgerTime, ask: &'a Ask) {
        let index = self.fates.len();
        self.asks.push(ask);
        self.fates.push(Fate { submitted: at, ..Fate::default() });
        match self.future.submit(&ask.request, &ask.requester).outcome {
            Outcome::Reservation(made) => {
                self.ids.insert(made.id, index);
                if let Some(gives_up_at) = ask.gives_up_at {
                    self.ends.push(Reverse((gives_up_at, made.id, 0)));
                }
            }
            _ => self.fates[index].refused = true,
        }
    }

    fn command(&mut self, command: &Command) {
        let command = match command {
            // A node's incarnation has another number here.
            Command::SetNodeHealth { node, health, .. } => {
                let Some(present) = self.future.ledger().node(*node) else { return };
                Command::SetNodeHealth { node: *node, epoch: present.epoch, health: *health }
            }
            Command::ApplyPolicy { put, delete, .. } => {
                let ours = |name: &PolicyName| {
                    self.policy.put.iter().any(|object| object.name() == *name)
                        || self.policy.delete.contains(name)
                };
                let put: Vec<PolicyObject> =
                    put.iter().filter(|object| !ours(&object.name())).cloned().collect();
                let delete: Vec<PolicyName> = delete.iter().filter(|name| !ours(name)).cloned().collect();
                if put.is_empty() && delete.is_empty() {
                    return;
                }
                Command::ApplyPolicy { put, delete, if_revision: Revision(0) }
            }
            other => other.clone(),
        };
        let is_policy = matches!(command, Command::ApplyPolicy { .. });
        self.future.change(plimsoll_ledger::SYSTEM_ACTOR, command);
        if is_policy {
            self.try_policy();
        }
    }

    /// It may name what is only recorded later.
    fn try_policy(&mut self) {
        if !self.pending_policy {
            return;
        }
        let PolicyChange { put, delete, .. } = self.policy;
        let command =
            Command::ApplyPolicy { put: put.clone(), delete: delete.clone(), if_revision: Revision(0) };
        match self.future.change(plimsoll_ledger::SYSTEM_ACTOR, command).outcome {
            Outcome::Refused(refusal) => self.refused = Some(refusal),
            _ => self.pending_policy = false,
        }
    }

    fn note_moves(&mut self) {
        for moved in self.future.take_moves() {
            let id = moved.reservation.id;
            let Some(&index) = self.ids.get(&id) else {
                // Granted by its very submission: the answer comes after the move.
                if moved.began && !self.fates.is_empty() {
                    self.begin(self.fates.len() - 1, &moved);
                }
                continue;
            };
            if moved.began {
                self.begin(index, &moved);
            } else {
                self.account(id, moved.at);
                let taken_back =
                    moved.reservation.preempted().is_some_and(|preempted| {
                        preempted.at <= moved.at && moved.reservation.cost_micros == 0
                    }) && moved.reservation.state != plimsoll_ledger::State::Released;
                self.fates[index].preempted += u32::from(taken_back);
            }
        }
    }

    fn begin(&mut self, index: usize, moved: &super::Move) {
        let held = &moved.reservation;
        let fate = &mut self.fates[index];
        fate.started.get_or_insert(moved.at);
        let gpus: u128 =
            held.members.iter().flat_map(|member| &member.devices).map(|grant| u128::from(grant.milli)).sum();
        let cpu = held.members.iter().map(|member| u128::from(held.amounts_of(member).cpu_millis.0)).sum();
        self.running.insert(held.id, (moved.at, gpus, cpu));
        if let Some(run_ms) = self.asks.get(index).and_then(|ask| ask.run_ms) {
            self.ends.push(Reverse((moved.at.plus_ms(run_ms), held.id, held.token.0)));
        }
    }

    fn account(&mut self, id: ReservationId, until: LedgerTime) {
        let (Some((since, gpus, cpu)), Some(&index)) = (self.running.remove(&id), self.ids.get(&id)) else {
            return;
        };
        let held_ms = until.0.saturating_sub(since.0);
        let fate = &mut self.fates[index];
        fate.held_ms += held_ms;
        fate.gpu_milli_ms += gpus * u128::from(held_ms);
        fate.cpu_milli_ms += cpu * u128::from(held_ms);
    }
}
