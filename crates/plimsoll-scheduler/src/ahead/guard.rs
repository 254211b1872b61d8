//! Nobody starves: who has waited past the pool's bound goes first, and is overtaken no more. Nor is who waits in a queue that promises to process
//! everything, from the start.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use plimsoll_ledger::{Ledger, Pool, Request, State};
use plimsoll_types::{LedgerTime, NodeId, ReservationId};

use super::LOOKS_PER_PASS;
use crate::Planner;
use crate::fit::NodeView;
use crate::fleet::kinds;
use crate::planner::{priority_of, requester_of};
use crate::serve::Placed;

/// Most requests of one class that are looked at for one whose wait is about room.
const LOOKED_AT: usize = 256;

/// Who waits past the bound: for room, and for quota (with the queue that binds).
#[derive(Default)]
struct Overdue {
    for_room: Option<ReservationId>,
    for_quota: Vec<(ReservationId, String)>,
}

impl Planner {
    /// Begins a walk over a pool's queue: what lies ahead is brought up to the ledger, and who has waited past the bound is served first.
    /// Free of cost for pools whose policy says nothing about queueing.
    pub(crate) fn begin_turns(&mut self, ledger: &Ledger, pool: &Pool, placed: &mut Vec<Placed>) {
        let overdue = self.overdue(ledger, pool);
        let depth = pool.queueing.depth();
        if depth == 0 && overdue.for_room.is_none() && overdue.for_quota.is_empty() {
            self.ahead.pools.remove(&pool.name);
            return;
        }
        let agenda = self.ahead.agenda(pool);
        agenda.read(ledger, &pool.name);
        agenda.looks = LOOKS_PER_PASS;
        agenda.failed.clear();
        agenda.tried.clear();
        agenda.closed = overdue.for_quota;
        agenda.depth = depth.max(usize::from(overdue.for_room.is_some()));
        agenda.barrier = None;
        agenda.overdue = overdue.for_room;
        self.review_heads(ledger, pool);
        let Some(id) = overdue.for_room else { return };
        let Some(reservation) = ledger.reservation(id) else { return };
        let request = std::sync::Arc::clone(&reservation.request);
        // It has a planned start beside those of others, as many as there are.
        if let Some(agenda) = self.ahead.pools.get_mut(&pool.name)
            && !agenda.heads.contains_key(&id)
        {
            agenda.depth = agenda.depth.max(agenda.heads.len() + 1);
        }
        if self.serve(ledger, id, &request, &mut BTreeSet::new(), placed) {
            return;
        }
        let has_plan = |planner: &Planner| {
            let head = planner.ahead.pools.get(&pool.name).and_then(|agenda| agenda.heads.get(&id));
            head.is_some_and(|head| head.planned.is_some())
        };
        if !has_plan(self) {
            let nodes = self.could_hold(ledger, &request);
            if let Some(agenda) = self.ahead.pools.get_mut(&pool.name) {
                agenda.barrier = Some((id, nodes));
            }
            self.raise_barrier(&pool.name);
        }
    }

    /// Ends the walk.
    pub(crate) fn end_turns(&mut self, pool: &str) {
        let Some(agenda) = self.ahead.pools.get_mut(pool) else { return };
        agenda.freed.clear();
        let hidden = std::mem::take(&mut agenda.hidden);
        self.set_aside(hidden, false);
    }

    /// Takes the barrier's nodes out of searches until [`Planner::end_turns`]. O(nodes of the pool) while there is one.
    pub(crate) fn raise_barrier(&mut self, pool: &str) {
        let Some(agenda) = self.ahead.pools.get_mut(pool) else { return };
        let Some((_, nodes)) = &agenda.barrier else { return };
        let open = |id: &&NodeId| self.fleet.slot(**id).is_some_and(|slot| !slot.hidden);
        let hidden: Vec<NodeId> = nodes.iter().filter(open).copied().collect();
        agenda.hidden.extend(&hidden);
        self.set_aside(hidden, true);
    }

    /// Who must not be overtaken: the oldest that waits for room, whatever its class, and of each class the first that wait for quota. O(classes),
    /// and up to [`LOOKED_AT`] of each class while there are some.
    fn overdue(&mut self, ledger: &Ledger, pool: &Pool) -> Overdue {
        let mut overdue = Overdue::default();
        self.note_starving(ledger, pool, &mut overdue);
        if overdue.for_room.is_none() {
            self.note_promised(ledger, pool, &mut overdue);
        }
        overdue
    }

    /// Of the queues that promise to process everything, whoever waits is overdue from the start: by class, then age. O(queues that wait), and up
    /// to [`LOOKED_AT`] of each such queue.
    fn note_promised(&mut self, ledger: &Ledger, pool: &Pool, overdue: &mut Overdue) {
        let promised = ledger.queues_waiting(&pool.name).filter(|queue| ledger.is_processed_for_sure(queue));
        let firsts = promised.filter_map(|queue| {
            let mut waiting = ledger.pending_in(queue, &pool.name).take(LOOKED_AT);
            let first = waiting.find(|id| self.may_be_overdue(ledger, *id, &mut overdue.for_quota))?;
            ledger.reservation(first)
        });
        let first = firsts.min_by_key(|waiting| (Reverse(waiting.priority), waiting.id));
        overdue.for_room = first.map(|waiting| waiting.id);
    }

    /// Who has waited past the pool's bound.
    fn note_starving(&mut self, ledger: &Ledger, pool: &Pool, overdue: &mut Overdue) {
        let Some(bound_ms) = pool.starvation_bound() else { return };
        let now = LedgerTime(self.ahead.now_ms);
        let mut oldest: Option<(LedgerTime, ReservationId)> = None;
        for priority in ledger.priorities_waiting(&pool.name) {
            for id in ledger.pending_at(&pool.name, priority).take(LOOKED_AT) {
                let Some(waiting) = ledger.reservation(id) else { continue };
                if now.ms_since(waiting.submitted_at) <= bound_ms {
                    break;
                }
                if !self.may_be_overdue(ledger, id, &mut overdue.for_quota) {
                    continue;
                }
                let known = (waiting.submitted_at, id);
                oldest = Some(oldest.map_or(known, |oldest| oldest.min(known)));
                break;
            }
        }
        overdue.for_room = oldest.map(|(_, id)| id);
    }

    /// True where others who hold back help it to its room. Who waits for quota is noted with the queue that binds. O(nodes of the pool) for a new shape.
    fn may_be_overdue(
        &mut self,
        ledger: &Ledger,
        id: ReservationId,
        for_quota: &mut Vec<(ReservationId, String)>,
    ) -> bool {
        let Some(waiting) = ledger.reservation(id) else { return false };
        if waiting.state == State::Planned
            || self.placing.contains(&id)
            || self.time_blocker(ledger, waiting).is_some()
        {
            return false;
        }
        // Nobody makes room for what an empty fleet has no place for, or its queue none of: a node is gone, or its labels, or quota was lowered.
        if !self.never_starts(ledger, &waiting.request).is_empty() {
            return false;
        }
        // Each of its roles has a place there, and all of them together have none.
        if !self.fits_together(ledger, &waiting.request) {
            return false;
        }
        // Its share grows with more of its work elsewhere, not with room.
        if self.waits_for_its_share(ledger, &waiting.request) {
            return false;
        }
        if let Some(queue) = self.headroom.binding(&waiting.request) {
            for_quota.push((id, queue));
            return false;
        }
        // Its own limits are nothing that others could leave to it.
        self.spending.blockers(ledger, &waiting.request, requester_of(ledger, id)).is_empty()
    }

    /// Nodes that could hold a member if they were empty. O(nodes of the pool).
    fn could_hold(&self, ledger: &Ledger, request: &Request) -> BTreeSet<NodeId> {
        let kinds = kinds(ledger, request);
        let could = |view: &&NodeView| {
            view.node.is_eligible() && kinds.iter().any(|(amounts, asked)| view.could_hold(asked, amounts))
        };
        self.fleet.pool_views(&request.pool).filter(could).map(|view| view.node.id).collect()
    }

    /// True where somebody else waits past the bound for a quota that this request would take from.
    pub(super) fn is_closed_to(&self, id: Option<ReservationId>, request: &Request) -> bool {
        let Some(agenda) = self.ahead.pools.get(&request.pool) else { return false };
        !request.queue.is_empty()
            && agenda.closed.iter().any(|(owner, queue)| {
                Some(*owner) != id && self.headroom.tree().path(&request.queue).any(|above| above == queue)
            })
    }

    /// Priority of a request that may not be in the queue yet; the highest for who has waited past the bound.
    pub(super) fn priority_here(&self, ledger: &Ledger, id: Option<ReservationId>, request: &Request) -> i32 {
        if id.is_some() && self.ahead.pools.get(&request.pool).is_some_and(|agenda| agenda.overdue == id) {
            return i32::MAX;
        }
        let known = id.and_then(|id| ledger.reservation(id)).map(|reservation| reservation.priority);
        known.unwrap_or_else(|| i32::try_from(priority_of(ledger, request)).unwrap_or_default())
    }
}
