//! What a leader does in its rounds, in simulated time: the real planner on the real ledger, one command an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_calendar::Recurrence;
use plimsoll_ledger::limits::{MAX_ASIDE, MAX_WINDOWS};
use plimsoll_ledger::{
    Command, Entry, Event, EventObject, EvictWhen, Evicted, Ledger, Node, Outcome, Overload, Placement,
    Refusal, Request, SYSTEM_ACTOR, SetAsideOne, Stamp, State, Verdict, Window,
};
use plimsoll_proto::codec;
use plimsoll_scheduler::elastic::{self, IdleWatch};
use plimsoll_scheduler::{Closed, Eviction, Planner, next_to_leave};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

/// How far ahead windows of schedules are worked out: further than any scenario lasts.
const HORIZON_MS: u64 = 8 * 86_400_000;
/// How often contention is looked for, in milliseconds.
const LOOK_EVERY_MS: u64 = 10_000;
/// Rounds at one moment; more would be a planner and a ledger that disagree.
const MOST_ROUNDS: usize = 1_000;

pub(crate) struct Leader {
    pub(crate) ledger: Ledger,
    pub(crate) planner: Planner,
    pub(crate) now: LedgerTime,
    /// What happened since it was last taken.
    pub(crate) events: Vec<Event>,
    /// Since when nodes of elastic pools have had nothing on them.
    idle: IdleWatch,
    /// The queue is walked though nothing came free: something ended, or a period is over.
    pass_owed: bool,
    /// What those asked who are set aside, as a store has it.
    bodies: BTreeMap<ReservationId, Request>,
    /// Why others were not made to leave, though they were found on the ledger as it was.
    pub(crate) found_in_vain: Vec<Refusal>,
    /// What nodes measure that are too full for some class.
    overloads: BTreeMap<NodeId, Overload>,
}

impl Leader {
    pub(crate) fn new(now: LedgerTime) -> Leader {
        Leader::of(Ledger::new(), now)
    }

    /// A leader that takes over.
    pub(crate) fn of(ledger: Ledger, now: LedgerTime) -> Leader {
        let (planner, idle) = (Planner::new(&ledger, 1), IdleWatch::default());
        Leader {
            planner,
            ledger,
            now,
            events: Vec::new(),
            idle,
            pass_owed: false,
            bodies: BTreeMap::new(),
            found_in_vain: Vec::new(),
            overloads: BTreeMap::new(),
        }
    }

    pub(crate) fn apply(&mut self, command: Command) -> Outcome {
        self.apply_as(SYSTEM_ACTOR, command)
    }

    pub(crate) fn apply_as(&mut self, actor: &str, command: Command) -> Outcome {
        let stamp = Stamp { revision: Revision(self.ledger.revision().0 + 1), proposed_at: self.now };
        let entry = Entry { actor: actor.to_owned(), ..Entry::system(command) };
        let applied = self.ledger.apply(stamp, &entry);
        assert_eq!(self.ledger.take_violations(), vec![], "by {entry:?}");
        self.ledger.clear_touched();
        self.events.extend(applied.events);
        applied.answer.outcome
    }

    /// Plans a request and submits it with what was found.
    pub(crate) fn submit(&mut self, request: &Request, by: &str) -> Outcome {
        self.planner.tick(&self.ledger, self.now);
        let planned = self.planner.plan_batch_for(&self.ledger, &[request], &[by]).pop();
        let (verdict, ticket) = planned.unwrap_or((Verdict::Blocked(Vec::new()), None));
        let outcome = self.apply_as(by, Command::Submit { request: request.clone(), verdict });
        if let Some(ticket) = ticket {
            self.planner.settle(&self.ledger, ticket);
        }
        if let Outcome::Reservation(made) = &outcome
            && made.is_waiting()
        {
            self.planner.note_arrival(&self.ledger, made);
            self.planner.note_waiting();
        }
        outcome
    }

    /// Any other command of a holder or an operator, and what the planner has to read after it.
    pub(crate) fn change(&mut self, command: Command) -> Outcome {
        self.pass_owed |= matches!(command, Command::Cancel { .. });
        let outcome = self.apply(command);
        self.read_nodes();
        outcome
    }

    /// A sample of a node: it is closed to classes that stay for less, and one of theirs leaves it.
    pub(crate) fn measure(&mut self, node: &Node, above: Option<EvictWhen>) {
        self.overloads.remove(&node.id);
        if let Some(EvictWhen { gauge, above_permille, for_ms }) = above {
            let (measured_permille, over_ms) = (above_permille, for_ms);
            let overload = Overload { node: node.id, epoch: node.epoch, gauge, measured_permille, over_ms };
            self.overloads.insert(node.id, overload);
        }
        let mut closed = Closed::new();
        let mut due = Vec::new();
        for (node, overload) in &self.overloads {
            let crossed = self.ledger.classes().filter_map(|class| {
                let when = class.evict_when.filter(|when| when.gauge == overload.gauge)?;
                let above_permille =
                    Some(when.above_permille).filter(|it| *it < overload.measured_permille)?;
                Some((class.name.clone(), Evicted { overload: *overload, above_permille }))
            });
            let evicted: BTreeMap<String, Evicted> = crossed.collect();
            let overloads =
                evicted.iter().map(|(class, evicted)| (class.as_str(), evicted.overload)).collect();
            due.extend(next_to_leave(&self.ledger, *node, &overloads));
            closed.insert(*node, evicted);
        }
        self.planner.close(closed);
        for (reservation, overload) in due {
            self.change(Command::Evict { reservation, overload });
        }
    }

    /// A grant ended, and not by preemption.
    pub(crate) fn note_end(&mut self) {
        self.read_nodes();
        self.planner.note_end(&self.ledger);
    }

    /// All that is due at this moment: ends, windows, places for those who wait, notice to those who have to leave.
    pub(crate) fn settle(&mut self) {
        for _ in 0..MOST_ROUNDS {
            let before = self.ledger.revision();
            if self.is_due() {
                let known = self.events.len();
                let came = self.apply(Command::Expire { limit: 1_000 });
                self.pass_owed |=
                    self.ledger.counts_usage() || matches!(came, Outcome::Expired { ended: 1.., .. });
                // Whoever was given notice and is out by now changes nothing for those who were taken back.
                match self.events[known..].iter().any(is_end) {
                    true => self.note_end(),
                    false => self.note_expiry(),
                }
            }
            self.even_queues();
            for command in self.windows() {
                self.apply(command);
                self.planner.sync_policies(&self.ledger);
            }
            for (pool, resource) in self.contentions() {
                self.apply(Command::ObserveContention { pool, resource });
                self.planner.sync_policies(&self.ledger);
            }
            self.planner.tick(&self.ledger, self.now);
            if self.planner.wants_queue_pass() || std::mem::take(&mut self.pass_owed) {
                for (reservation, placement, ticket) in self.planner.plan_queue(&self.ledger, 1_000) {
                    self.place(reservation, placement);
                    self.planner.settle(&self.ledger, ticket);
                }
            } else if self.planner.wants_evictions(&self.ledger) {
                for (index, eviction) in
                    self.planner.plan_evictions(&self.ledger, 1_000).into_iter().enumerate()
                {
                    self.evict(eviction, index == 0);
                }
            }
            let moved = self.ledger.revision() != before;
            let rests = !moved && !self.planner.wants_queue_pass() && !self.is_due();
            if rests && !self.move_nodes() {
                return;
            }
        }
        let last: Vec<&str> = self.events.iter().rev().take(6).map(|event| event.rule).collect();
        panic!("it does not come to rest at {:?}, due {:?}, after {last:?}", self.now, self.next_due());
    }

    /// The first that was found was found on the ledger as it is.
    fn evict(&mut self, eviction: Eviction, is_first: bool) {
        let Eviction { reservation, placement, victims } = eviction;
        let came = self.apply(Command::Preempt { reservation, placement, victims });
        let is_refused = matches!(came, Outcome::Refused(_));
        self.planner.settle_eviction(&self.ledger, reservation, is_refused);
        match came {
            Outcome::Refused(refusal) if is_first => self.found_in_vain.push(refusal),
            Outcome::Refused(_) => {}
            _ => self.read_nodes(),
        }
    }

    /// Ledger time has to come to a moment that is past already.
    fn is_due(&self) -> bool {
        let dues = [self.ledger.next_due(), self.planner.next_walk_at()];
        dues.into_iter().flatten().any(|due| due <= self.now)
    }

    /// A place for one that waits, unless it is to be set aside: others of its queue that are aside go before it.
    fn place(&mut self, reservation: ReservationId, placement: Placement) {
        let waiting = self.ledger.reservation(reservation);
        if !waiting.is_some_and(|waiting| self.ledger.is_behind_overflow(waiting)) {
            self.apply(Command::Place { reservation, placement });
        }
    }

    /// What was due is done, and nothing ended by it that was not to end anyway.
    fn note_expiry(&mut self) {
        self.read_nodes();
        self.planner.note_waiting();
    }

    /// Who waits past a queue's bound is set aside, and the first come back as there is room.
    fn even_queues(&mut self) {
        let queues: Vec<String> = self.ledger.queues_to_even().into_iter().map(str::to_owned).collect();
        for queue in queues {
            let mut aside = Vec::new();
            for reservation in self.ledger.to_set_aside(&queue, MAX_ASIDE) {
                let Some(one) = self.ledger.reservation(reservation) else { continue };
                let body = Arc::from(codec::encode_request(&one.request).as_ref());
                self.bodies.insert(reservation, Request::clone(&one.request));
                aside.push(SetAsideOne { reservation, body, body_hash: [0; 32] });
            }
            if !aside.is_empty() {
                assert_eq!(self.apply(Command::SetAside { aside }), Outcome::Done);
            }
            let back = self.ledger.to_return(&queue, MAX_ASIDE);
            if back.is_empty() {
                continue;
            }
            let requests = back.iter().filter_map(|id| Some((*id, self.bodies.remove(id)?))).collect();
            assert_eq!(self.apply(Command::Return { requests }), Outcome::Done);
            self.pass_owed = true;
            self.planner.note_waiting();
            for waiting in back.iter().filter_map(|id| self.ledger.reservation(*id)) {
                self.planner.note_arrival(&self.ledger, waiting);
            }
        }
    }

    /// Nodes that go from one elastic pool to another; false where none does.
    fn move_nodes(&mut self) -> bool {
        self.idle.look(&self.ledger, self.now);
        if !elastic::may_want_moves(&self.ledger) {
            return false;
        }
        let found = elastic::look(self.ledger.clone(), &self.idle, self.now);
        let moves = !found.moves.is_empty();
        for one in found.moves {
            let came = self.apply(Command::MoveNode { node: one.node, from: one.from, to: one.to });
            assert!(matches!(came, Outcome::Node(_)), "{came:?}");
        }
        if moves {
            self.planner.sync_policies(&self.ledger);
        }
        moves
    }

    /// The next moment at which something is due, if nobody does anything.
    pub(crate) fn next_due(&self) -> Option<LedgerTime> {
        let calendar = self.ledger.calendar().next_change(self.now);
        // A planned start is due as it comes.
        let planned =
            self.planner.planned_starts().map(|planned| planned.start_at).filter(|at| *at > self.now);
        let budget = self.planner.next_walk_at();
        let look = self.resolves_contention() && self.ledger.watches_contention();
        let look = look.then(|| self.now.plus_ms(LOOK_EVERY_MS));
        // Nodes become idle as time goes by: it is looked once a minute while somebody may want one.
        let minute = (self.now.0 / 60_000 + 1) * 60_000;
        let elastic = elastic::may_want_moves(&self.ledger).then_some(LedgerTime(minute));
        let others =
            [self.ledger.next_due(), self.planner.next_eviction_at(), calendar, budget, look, elastic];
        others.into_iter().flatten().chain(planned).min()
    }

    pub(crate) fn token_of(&self, id: ReservationId) -> Revision {
        self.ledger.reservation(id).map_or(Revision(0), |held| held.token)
    }

    fn read_nodes(&mut self) {
        let nodes: BTreeSet<NodeId> = self.ledger.nodes().map(|node| node.id).collect();
        self.planner.sync(&self.ledger, nodes);
    }

    /// Others have contention too; what nobody does anything about would only fill their reports.
    fn resolves_contention(&self) -> bool {
        self.ledger.pools().any(|pool| pool.contention.is_some())
    }

    /// Contentions that open, move or end now.
    fn contentions(&self) -> Vec<(String, String)> {
        if self.resolves_contention() { self.ledger.contentions_due(self.now) } else { Vec::new() }
    }

    /// Windows of schedules that were not worked out yet.
    fn windows(&self) -> Vec<Command> {
        let fresh = self.ledger.schedules().filter(|schedule| schedule.opened_until.0 == 0);
        let open = |schedule: &std::sync::Arc<plimsoll_ledger::Schedule>| {
            let rule: Recurrence = schedule.rule.parse().expect("the policy file was read");
            let until = self.now.plus_ms(HORIZON_MS);
            let found = rule.occurrences(self.now.0, until.0, MAX_WINDOWS);
            let window = |found: &plimsoll_calendar::Window| Window {
                start: LedgerTime(found.start_ms),
                end: LedgerTime(found.end_ms),
            };
            let windows = found.iter().map(window).collect();
            Command::OpenWindows {
                schedule: schedule.name.clone(),
                changed: schedule.changed,
                windows,
                until,
            }
        };
        fresh.map(open).collect()
    }
}

/// A grant ended, and not since it was given notice.
pub(crate) fn is_end(event: &Event) -> bool {
    let EventObject::Reservation(one, Some(before)) = &event.object else { return false };
    one.state.is_final() && before.is_occupying() && *before != State::Preempting
}
