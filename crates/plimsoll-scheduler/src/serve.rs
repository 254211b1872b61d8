//! Places for those that wait: whose turn it is, and how far a blocked request holds back those behind it.

use std::collections::BTreeSet;

use plimsoll_ledger::{Blocker, Fairness, Ledger, Placement, Pool, Request, Reservation, State};
use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, NodeId, ReservationId};

use crate::class_turns::{ClassLines, ClassTurns};
use crate::planner::requester_of;
use crate::turns::Turns;
use crate::{Planner, Ticket};

/// Who comes next.
enum TurnOrder<'l> {
    ByClass(Box<dyn Iterator<Item = ReservationId> + 'l>),
    ByWeight(ClassTurns, ClassLines),
}

impl TurnOrder<'_> {
    fn next(&mut self, ledger: &Ledger) -> Option<ReservationId> {
        match self {
            TurnOrder::ByClass(waiting) => waiting.next(),
            TurnOrder::ByWeight(turns, lines) => {
                let first = lines.first(ledger, Some(turns))?;
                lines.pop(first);
                Some(first)
            }
        }
    }

    fn note_placed(&mut self, request: &Request) {
        if let TurnOrder::ByWeight(turns, _) = self {
            turns.take(request);
        }
    }
}

/// A place found for a request that waited.
pub(crate) type Placed = (ReservationId, Placement, Ticket);

impl Planner {
    /// Walks the queues in the order of their turns and books places for what fits now, at most `limit`. A shape that found no place is not
    /// tried again in the same walk.
    pub fn plan_queue(&mut self, ledger: &Ledger, limit: usize) -> Vec<Placed> {
        let mut placed = Vec::new();
        self.set_time(ledger.clock());
        self.queue_pass_due = false;
        self.missed_work.clear();
        self.spots.is_missed = false;
        self.read_quota(ledger);
        let pools: Vec<&Pool> = ledger.pools().map(AsRef::as_ref).collect();
        for pool in pools {
            self.serve_plans(ledger, pool, limit, &mut placed);
            self.serve_kept(ledger, pool, limit, &mut placed);
            self.begin_repairs(ledger, pool, limit, &mut placed);
            let queues = ledger.queues_waiting(&pool.name).next().is_some();
            self.begin_turns(ledger, pool, &mut placed);
            match ledger.fairness_of(pool) {
                Fairness::Fair | Fairness::Weighted | Fairness::FairTree if queues => {
                    self.serve_by_share(ledger, pool, limit, &mut placed);
                }
                Fairness::Quota if queues => {
                    self.serve_in_order(ledger, pool, limit, &mut placed, true);
                    self.serve_in_order(ledger, pool, limit, &mut placed, false);
                }
                _ => self.serve_in_order(ledger, pool, limit, &mut placed, false),
            }
            self.end_turns(&pool.name);
            self.repair_down_to(ledger, i32::MIN, limit, &mut placed);
            if placed.len() >= limit {
                self.queue_pass_due = true;
                return placed;
            }
        }
        self.spending.note_fading(ledger);
        self.time_at = next_time(ledger);
        placed
    }

    /// When a budget that fades has enough for somebody who waits, a batch or hours begin for one, or others may be asked to leave for one: from then on a
    /// walk over the queue, or a search for victims, may find what it did not find so far, once ledger time has come there.
    pub fn next_walk_at(&self) -> Option<LedgerTime> {
        let found = [self.spending.fades_at(), self.time_at, self.next_eviction_at()];
        found.into_iter().flatten().min()
    }

    /// What keeps one that waits from a grant now whatever room there is: its hours, and the batches of its queue. Those on their way count.
    pub(crate) fn time_blocker(&self, ledger: &Ledger, waiting: &Reservation) -> Option<Blocker> {
        let queue = &waiting.request.queue;
        let booked = match ledger.batch_of(queue) {
            None => 0,
            Some(_) => {
                let placing = self.placing.iter().filter_map(|id| ledger.reservation(*id));
                placing.filter(|other| other.request.queue == *queue).count() as u64
            }
        };
        ledger.time_blocker(&waiting.request, waiting.submitted_at, booked)
    }

    /// Advance reservations whose start has come, before anybody who waits.
    fn serve_plans(&mut self, ledger: &Ledger, pool: &Pool, limit: usize, placed: &mut Vec<Placed>) {
        for id in ledger.due_plans(&pool.name, self.agenda.now()) {
            let Some(reservation) = ledger.reservation(id) else { continue };
            if placed.len() >= limit || self.placing.contains(&id) {
                continue;
            }
            self.agenda.plan = Some(id);
            self.serve(ledger, id, &reservation.request, &mut BTreeSet::new(), placed);
            self.agenda.plan = None;
        }
    }

    /// In a strict pool those first for whom a place is kept: one of a higher class that came later may go before them by now, and what is kept is
    /// nobody else's. In others everybody has a turn.
    fn serve_kept(&mut self, ledger: &Ledger, pool: &Pool, limit: usize, placed: &mut Vec<Placed>) {
        if !pool.is_strict() {
            return;
        }
        for id in self.hunt.kept_in(ledger, &pool.name) {
            let Some(reservation) = ledger.reservation(id) else { continue };
            if placed.len() < limit && !self.placing.contains(&id) {
                self.serve(ledger, id, &reservation.request, &mut BTreeSet::new(), placed);
            }
        }
    }

    /// By class, then age, whichever queue it is; `own_only` leaves out what its queue would have to borrow for.
    fn serve_in_order(
        &mut self,
        ledger: &Ledger,
        pool: &Pool,
        limit: usize,
        placed: &mut Vec<Placed>,
        own_only: bool,
    ) {
        let strict = pool.is_strict() && !mutant!("overtake-the-head");
        let mut failed: BTreeSet<u64> = BTreeSet::new();
        let mut closed: BTreeSet<&str> = BTreeSet::new();
        let mut order = self.order_of(ledger, pool);
        while placed.len() < limit
            && let Some(id) = order.next(ledger)
        {
            let Some(reservation) = ledger.reservation(id) else { continue };
            let request = &reservation.request;
            if closed.contains(request.queue.as_str())
                || self.placing.contains(&id)
                || ledger.is_out_of_hours(reservation)
                || (own_only && self.headroom.would_borrow(request))
            {
                continue;
            }
            if self.serve(ledger, id, request, &mut failed, placed) {
                order.note_placed(request);
            } else if strict {
                if request.queue.is_empty() && ledger.quota().is_empty() {
                    return;
                }
                closed.insert(&request.queue);
            }
        }
    }

    /// Those who wait for a pool, in the order of their turns.
    fn order_of<'l>(&mut self, ledger: &'l Ledger, pool: &'l Pool) -> TurnOrder<'l> {
        let Some(turns) = self.class_turns(ledger, pool) else {
            return TurnOrder::ByClass(self.walk_order(ledger, pool));
        };
        let mut lines = ClassLines::default();
        for waiting in ledger.pending(&pool.name).filter_map(|id| ledger.reservation(id)) {
            lines.push(Some(&turns), &waiting.request.class, waiting.id);
        }
        TurnOrder::ByWeight(turns, lines)
    }

    /// What classes hold, where the pool goes by their weights.
    fn class_turns(&self, ledger: &Ledger, pool: &Pool) -> Option<ClassTurns> {
        let placing = self.placing.iter().filter_map(|id| ledger.reservation(*id));
        ClassTurns::new(ledger, pool, placing.map(|waiting| &*waiting.request))
    }

    /// Queue by queue, the lowest share first; shares change with every place that is booked.
    fn serve_by_share(&mut self, ledger: &Ledger, pool: &Pool, limit: usize, placed: &mut Vec<Placed>) {
        let strict = pool.is_strict();
        let mut failed: BTreeSet<u64> = BTreeSet::new();
        let classes = self.class_turns(ledger, pool);
        let fairness = ledger.fairness_of(pool);
        let order = self.walk_order(ledger, pool);
        let mut turns = Turns::new(ledger, &mut self.headroom, &pool.name, fairness, classes, order);
        while placed.len() < limit
            && let Some((queue, id)) = turns.next()
        {
            let queue = queue.to_owned();
            let request = ledger.reservation(id).map(|reservation| &reservation.request);
            let done = request.is_none_or(|request| {
                let is_placed = self.placing.contains(&id);
                is_placed || {
                    let is_served = self.serve(ledger, id, request, &mut failed, placed);
                    if is_served {
                        turns.note_placed(request);
                    }
                    is_served
                }
            });
            if done || !strict {
                turns.step(&mut self.headroom, &queue, id);
            } else {
                turns.close(&mut self.headroom, &queue);
            }
        }
    }

    /// Books a place for one that waits; false where it has to wait on.
    pub(crate) fn serve(
        &mut self,
        ledger: &Ledger,
        id: ReservationId,
        request: &Request,
        failed: &mut BTreeSet<u64>,
        placed: &mut Vec<Placed>,
    ) -> bool {
        let waiting = ledger.reservation(id);
        if waiting.is_some_and(|waiting| self.time_blocker(ledger, waiting).is_some()) {
            return false;
        }
        self.repair_down_to(ledger, waiting.map_or(i32::MAX, |waiting| waiting.priority), usize::MAX, placed);
        let waits_for_others =
            waiting.is_some_and(|waiting| waiting.state == State::Planned && !waiting.is_advance());
        let asked_to = waiting.and_then(|waiting| waiting.relocates_to());
        let there = asked_to.and_then(|node| self.find_where_asked(ledger, request, node, id));
        let found = if there.is_some() {
            there
        } else if waits_for_others {
            self.find_kept(ledger, id)
        } else if self.looks_ahead(&request.pool) {
            self.find_ahead(ledger, id, request)
        } else {
            self.find_free(ledger, request, requester_of(ledger, id), failed)
        };
        let Some(placement) = found else { return false };
        let ticket = self.book_pending(ledger, id, request, &placement);
        placed.push((id, placement, ticket));
        true
    }

    /// A place that is free and can be paid for.
    fn find_free(
        &mut self,
        ledger: &Ledger,
        request: &Request,
        requester: &str,
        failed: &mut BTreeSet<u64>,
    ) -> Option<Placement> {
        let shape = self.shape(ledger, request);
        if failed.contains(&shape) || !self.spending.blockers(ledger, request, requester).is_empty() {
            return None;
        }
        let Some(placement) = self.find(ledger, request) else {
            failed.insert(shape);
            self.hunt.due = true;
            return None;
        };
        self.afford(ledger, request, requester, placement)
    }

    /// A place on the node that it was asked to go to, against fragmentation: where that has room no more, it goes where anybody would. In pools
    /// that look ahead it goes where these place it.
    fn find_where_asked(
        &mut self,
        ledger: &Ledger,
        request: &Request,
        node: NodeId,
        id: ReservationId,
    ) -> Option<Placement> {
        if self.looks_ahead(&request.pool) {
            return None;
        }
        let others = self.fleet.pool_views(&request.pool).map(|view| view.node.id).filter(|one| *one != node);
        let open = |id: &NodeId| self.fleet.slot(*id).is_some_and(|slot| !slot.hidden);
        let others: Vec<NodeId> = others.filter(open).collect();
        let requester = requester_of(ledger, id);
        self.set_aside(others.iter().copied(), true);
        let due = self.hunt.due;
        let found = self.find_free(ledger, request, requester, &mut BTreeSet::new());
        self.hunt.due = due;
        self.set_aside(others, false);
        found
    }

    /// The place that is kept for a planned reservation, once those who leave have left.
    fn find_kept(&mut self, ledger: &Ledger, id: ReservationId) -> Option<Placement> {
        let kept = ledger.kept_place(id);
        self.hunt.due |= kept.is_none();
        kept
    }
}

/// When a batch or hours begin for somebody who waits.
pub(crate) fn next_time(ledger: &Ledger) -> Option<LedgerTime> {
    ledger.next_batch_at().into_iter().chain(ledger.next_hours_at()).min()
}
