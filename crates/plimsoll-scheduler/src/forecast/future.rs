//! One future of a fork: what the leader would do from here on, by the same planner and the same `apply`, while those who hold something keep
//! it as long as they may and nobody new comes.
//!
//! Deterministic: time moves only to the next moment at which something is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_ledger::{
    Answer, Command, Entry, Event, EventObject, Ledger, Outcome, PreemptionRule, Request, Reservation, Stamp,
    State, Verdict,
};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

use crate::{Eviction, Planner};

/// Most reservations that one sweep ends, as in the leader's rounds.
const EXPIRE_LIMIT: u32 = 1_000;
/// Most places of one walk over the queue.
const PLACES: usize = 4_096;
/// What all steps together may cost: each looks at what waits.
const MOST_WORK: u64 = 20_000_000;
/// Most rounds at one moment; more would be a planner and a ledger that disagree.
const MOST_ROUNDS: u32 = 10_000;

/// Notice that a holder gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// When.
    pub at: LedgerTime,
    /// For which reservation.
    pub by: ReservationId,
    /// By which rule.
    pub rule: PreemptionRule,
    /// When its grant was made.
    pub granted_at: LedgerTime,
}

/// A grant that began or ended.
#[derive(Clone, Debug)]
pub struct Move {
    /// When.
    pub at: LedgerTime,
    /// The reservation after it.
    pub reservation: Arc<Reservation>,
    /// It began; otherwise it ended.
    pub began: bool,
}

/// A fork that is run on.
#[derive(Debug)]
pub struct Future {
    ledger: Ledger,
    planner: Planner,
    now: LedgerTime,
    work: u64,
    whole: bool,
    /// When those who waited start, each the first time.
    starts: BTreeMap<ReservationId, LedgerTime>,
    /// Who gets notice, each the first time.
    notices: BTreeMap<ReservationId, Notice>,
    /// Those whom a full queue or a passing deadline ends while they wait.
    gave_up: BTreeSet<ReservationId>,
    /// Grants that began or ended since they were last taken.
    moves: Vec<Move>,
    /// Nodes or policy changed that the planner has not read yet.
    stale: bool,
}

impl Future {
    /// A future that begins at `now` on this fork. `seed` decides what the random strategy draws. O(n log n).
    pub fn new(fork: Ledger, seed: u64, now: LedgerTime) -> Future {
        let now = now.max(fork.clock());
        let planner = Planner::new(&fork, seed);
        let mut future = Future {
            ledger: fork,
            planner,
            now,
            work: 0,
            whole: true,
            starts: BTreeMap::new(),
            notices: BTreeMap::new(),
            gave_up: BTreeSet::new(),
            moves: Vec::new(),
            stale: false,
        };
        future.keep_all();
        future
    }

    /// The state as far as it was run.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The moment that it was run to.
    pub fn now(&self) -> LedgerTime {
        self.now
    }

    /// False where it was too much work to run it to its end: what was found until then still holds.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// When those who wait start, as far as it was run.
    pub fn starts(&self) -> &BTreeMap<ReservationId, LedgerTime> {
        &self.starts
    }

    /// Who gets notice, as far as it was run.
    pub fn notices(&self) -> &BTreeMap<ReservationId, Notice> {
        &self.notices
    }

    /// Whose longest wait ends before they start.
    pub fn gave_up(&self) -> &BTreeSet<ReservationId> {
        &self.gave_up
    }

    /// Submits a request as the leader would: with the planner's verdict, and against the walk over the queue that follows.
    pub fn submit(&mut self, request: &Request, requester: &str) -> Answer {
        self.refresh();
        let planned = self.planner.plan_batch_for(&self.ledger, &[request], &[requester]).pop();
        let (verdict, ticket) = planned.unwrap_or((Verdict::Blocked(Vec::new()), None));
        let command = Command::Submit { request: request.clone(), verdict };
        let answer = self.apply_as(requester, command);
        if let Some(ticket) = ticket {
            self.planner.settle(&self.ledger, ticket);
        }
        if matches!(&answer.outcome, Outcome::Reservation(waits) if waits.is_waiting()) {
            self.planner.note_waiting();
        }
        answer
    }

    /// Applies any other command, and has the planner look at everything anew.
    pub fn change(&mut self, actor: &str, command: Command) -> Answer {
        let answer = self.apply_as(actor, command);
        self.stale = true;
        answer
    }

    /// The holder gives its grant back, or who waits gives up.
    pub fn end(&mut self, id: ReservationId) {
        let nodes = self.nodes_of(id);
        let Some(token) = self.ledger.reservation(id).map(|held| held.token) else { return };
        let command = if token.0 > 0 {
            Command::Release { reservation: id, token }
        } else {
            Command::Cancel { reservation: id }
        };
        self.apply(command);
        self.refresh();
        self.planner.sync(&self.ledger, nodes);
        self.planner.note_end(&self.ledger);
        self.planner.queue_pass_due = true;
    }

    /// Grants that began or ended since the last call, in their order.
    pub fn take_moves(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.moves)
    }

    /// Runs on to that moment, with all that is due until then.
    pub fn advance_to(&mut self, at: LedgerTime) {
        self.settle();
        for _ in 0..MOST_ROUNDS {
            let due = self.next_due();
            let Some(due) = due.filter(|due| *due <= at) else { break };
            self.now = self.now.max(due);
            self.sweep();
            self.settle();
        }
        self.now = self.now.max(at);
    }

    /// Has the planner read what changed of nodes and policy.
    fn refresh(&mut self) {
        if std::mem::take(&mut self.stale) {
            self.planner.sync_policies(&self.ledger);
        }
    }

    /// All that the leader does at this moment: places for those who wait, then notice to those who have to leave.
    pub fn settle(&mut self) {
        self.refresh();
        for _ in 0..MOST_ROUNDS {
            self.work += 1 + self.waiting();
            let placed = if self.planner.wants_queue_pass() {
                self.planner.plan_queue(&self.ledger, PLACES)
            } else {
                Vec::new()
            };
            let mut any = false;
            for (reservation, placement, ticket) in placed {
                let answer = self.apply(Command::Place { reservation, placement });
                any |= !matches!(answer.outcome, Outcome::Refused(_));
                self.planner.settle(&self.ledger, ticket);
            }
            if any {
                continue;
            }
            if !self.planner.wants_evictions(&self.ledger) {
                return;
            }
            let evictions = self.planner.plan_evictions(&self.ledger, PLACES);
            if evictions.is_empty() && !self.planner.wants_evictions(&self.ledger) {
                return;
            }
            for Eviction { reservation, placement, victims } in evictions {
                let mut nodes: BTreeSet<NodeId> =
                    placement.members.iter().map(|member| member.node).collect();
                nodes.extend(victims.iter().flat_map(|victim| self.nodes_of(*victim)));
                let answer = self.apply(Command::Preempt { reservation, placement, victims });
                let refused = matches!(answer.outcome, Outcome::Refused(_));
                self.planner.settle_eviction(&self.ledger, reservation, refused);
                self.planner.sync(&self.ledger, nodes);
            }
        }
        self.whole = false;
    }

    /// Runs on until then, or until nobody waits any more, or nothing is due.
    pub fn run_until(&mut self, until: LedgerTime) {
        self.settle();
        while self.waiting() > 0 {
            let due = self.next_due();
            let Some(due) = due.filter(|due| *due <= until && *due < LedgerTime(u64::MAX)) else {
                // Nothing happens before then.
                self.now = self.now.max(until);
                return;
            };
            if self.work > MOST_WORK {
                self.whole = false;
                return;
            }
            self.now = self.now.max(due);
            self.sweep();
            self.settle();
        }
    }

    /// When something is due, by itself.
    fn next_due(&self) -> Option<LedgerTime> {
        let budget = self.planner.next_walk_at();
        [self.ledger.next_due(), self.planner.next_eviction_at(), budget].into_iter().flatten().min()
    }

    fn sweep(&mut self) {
        let due: Vec<ReservationId> = self.ledger.due_until(self.now).collect();
        self.work += 1 + due.len() as u64;
        let drained = self.ledger.nodes().any(|node| !node.is_eligible());
        let mut nodes: BTreeSet<NodeId> = due.iter().flat_map(|id| self.nodes_of(*id)).collect();
        if drained {
            // Whoever a drain ends is not among those who are due.
            nodes.extend(self.ledger.nodes().map(|node| node.id));
        }
        loop {
            let answer = self.apply(Command::Expire { limit: EXPIRE_LIMIT });
            let Outcome::Expired { ended, more } = answer.outcome else { break };
            if ended > 0 {
                self.planner.note_end(&self.ledger);
            }
            if !more || ended == 0 {
                break;
            }
        }
        self.planner.sync(&self.ledger, nodes);
        self.planner.queue_pass_due = true;
        self.planner.note_waiting();
    }

    /// Those who hold something hold it on: held grants are confirmed, leases run as long as they may.
    fn keep_all(&mut self) {
        let held: Vec<_> = self
            .ledger
            .reservations()
            .filter(|reservation| reservation.state.is_occupying())
            .map(|reservation| (reservation.id, reservation.token, reservation.state))
            .collect();
        for (reservation, token, state) in held {
            if state == State::Held {
                self.apply(Command::Confirm { reservation, token });
            }
            self.ledger.assume_kept(reservation);
        }
        self.ledger.clear_touched();
    }

    fn nodes_of(&self, id: ReservationId) -> Vec<NodeId> {
        let members = self.ledger.reservation(id).map(|reservation| &reservation.members);
        members.into_iter().flatten().map(|member| member.node).collect()
    }

    fn waiting(&self) -> u64 {
        let counts = self.ledger.counts();
        let of = |state| counts.get(&state).copied().unwrap_or_default();
        of(State::Pending) + of(State::Planned)
    }

    fn apply(&mut self, command: Command) -> Answer {
        self.apply_as(plimsoll_ledger::SYSTEM_ACTOR, command)
    }

    fn apply_as(&mut self, actor: &str, command: Command) -> Answer {
        let revision = Revision(self.ledger.revision().0 + 1);
        let stamp = Stamp { revision, proposed_at: self.now };
        let entry = Entry { actor: actor.to_owned(), ..Entry::system(command) };
        let applied = self.ledger.apply(stamp, &entry);
        for event in &applied.events {
            self.note(event);
        }
        // Nobody takes the rows, nor what the guard found.
        self.ledger.clear_touched();
        applied.answer
    }

    fn note(&mut self, event: &Event) {
        let EventObject::Reservation(reservation, before) = &event.object else { return };
        let id = reservation.id;
        let began = reservation.state.is_occupying() && !before.is_some_and(State::is_occupying);
        let ended = before.is_some_and(State::is_occupying) && !reservation.state.is_occupying();
        if began || ended {
            let at = event.log_time;
            self.moves.push(Move { at, reservation: Arc::clone(reservation), began });
        }
        if began {
            self.starts.entry(id).or_insert(event.log_time);
            if reservation.state == State::Held {
                let confirm = Command::Confirm { reservation: id, token: reservation.token };
                self.apply(confirm);
            }
            self.ledger.assume_kept(id);
        }
        if let (Some(preempted), Some(true)) =
            (reservation.preempted(), before.map(|before| before.is_occupying()))
            && preempted.revision == event.revision
        {
            let granted_at = reservation.granted_at;
            let notice = Notice { at: preempted.at, by: preempted.by, rule: preempted.rule, granted_at };
            self.notices.entry(id).or_insert(notice);
        }
        if reservation.state.is_final() && before.is_some_and(State::is_ungranted) {
            self.gave_up.insert(id);
        }
    }
}
