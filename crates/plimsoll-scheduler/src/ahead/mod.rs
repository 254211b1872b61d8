//! What lies ahead of a pool's queue: planned starts for the first that wait, and whom nobody overtakes any more.
//!
//! A planned start names its nodes and devices and reckons with everything that the ledger admits by, so that what is promised fits. It is
//! promised around declared lengths only: whoever declares none is taken to stay for ever. A planned start never moves back but for what the
//! planner cannot know: nodes and policy that change, holders that resize or lengthen their leases, silent nodes, preemption, and requests of a
//! higher class. All of it is the leader's memory; another leader plans anew.

mod estimate;
mod future;
mod gangs;
mod guard;
mod overtake;
mod quota_ends;
mod rank;
mod search;

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Ledger, Placement, Pool, Request, Reservation};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

pub use estimate::{NoStart, StartEstimate, StartEstimates};
use future::{Future, InFlight, Spot};
pub(crate) use gangs::fits_when_empty;
use rank::Past;

use crate::serve::next_time;
use crate::{Planner, Ticket};

/// Most looks at nodes of one walk over a pool's queue, or of one batch of new requests, on behalf of what lies ahead. Those who wait beyond it wait for the
/// next walk.
pub(crate) const LOOKS_PER_PASS: u64 = 8_192;

/// Agendas of the pools that have one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ahead {
    pools: BTreeMap<String, Agenda>,
    /// The time of the present walk, in milliseconds of ledger time.
    now_ms: u64,
    /// What has ended, per pool that learns from it.
    pasts: BTreeMap<String, Past>,
}

/// What lies ahead of one pool's queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agenda {
    future: Future,
    /// False until all nodes were read; from then on each is when it changes.
    is_read: bool,
    /// The first that wait for room, planned where that can be.
    heads: BTreeMap<ReservationId, Head>,
    /// Most of them.
    depth: usize,
    /// The one who has waited past the bound, and goes before all classes.
    overdue: Option<ReservationId>,
    /// Who waited past the pool's bound without a planned start, with the nodes that nobody else gets.
    barrier: Option<(ReservationId, BTreeSet<NodeId>)>,
    /// Queues in which nobody else starts, each for somebody who waited past the bound for its quota.
    closed: Vec<(ReservationId, String)>,
    /// Looks left in this walk.
    looks: u64,
    /// Of each shape, the shortest stay (until when) that found no place in this walk.
    failed: BTreeMap<u64, u64>,
    /// Nodes that may have more room ahead than when starts were planned: only there can one become earlier.
    freed: BTreeSet<NodeId>,
    /// Heads that were looked at in this walk.
    tried: BTreeSet<ReservationId>,
    /// Nodes out of the searches of this walk.
    hidden: Vec<NodeId>,
    /// Proposals in flight that will end.
    in_flight: BTreeMap<Ticket, InFlight>,
}

/// One of the first that wait.
#[derive(Clone, Debug)]
struct Head {
    priority: i32,
    planned: Option<Planned>,
}

/// A planned start, and at which revision it was computed.
#[derive(Clone, Debug)]
struct Planned {
    spot: Spot,
    revision: Revision,
}

/// A start that the leader keeps free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedStart {
    /// Who starts.
    pub reservation: ReservationId,
    /// When, at the latest.
    pub start_at: LedgerTime,
    /// The revision of the ledger that it was computed at.
    pub revision: Revision,
}

impl Planner {
    /// The time of the next entry, which grants what is planned from now on; without it, that of the ledger. It never goes back.
    pub fn set_time(&mut self, now: LedgerTime) {
        self.ahead.now_ms = self.ahead.now_ms.max(now.0);
    }

    /// Starts that are kept free now, by reservation.
    pub fn planned_starts(&self) -> impl Iterator<Item = PlannedStart> {
        let heads = self.ahead.pools.values().flat_map(|agenda| &agenda.heads);
        heads.filter_map(|(id, head)| {
            let planned = head.planned.as_ref()?;
            let start_at = LedgerTime(planned.spot.start_ms);
            Some(PlannedStart { reservation: *id, start_at, revision: planned.revision })
        })
    }

    /// A request joined the queue: where it may have a planned start, or those behind it must not, the queue is walked.
    pub fn note_arrival(&mut self, ledger: &Ledger, reservation: &Reservation) {
        self.spending.note_waiting(ledger, reservation);
        let request = &reservation.request;
        if ledger.batch_of(&request.queue).is_some() || request.hours.is_some() {
            self.time_at = next_time(ledger);
        }
        self.queue_pass_due |= ledger.is_processed_for_sure(&request.queue);
        let depth = ledger.pool(&reservation.request.pool).map_or(0, |pool| pool.queueing.depth());
        if depth == 0 {
            return;
        }
        let agenda = self.ahead.pools.get(&reservation.request.pool);
        self.queue_pass_due |= agenda.is_none_or(|agenda| {
            agenda.heads.len() < depth
                || agenda.heads.values().any(|head| head.priority < reservation.priority)
        });
    }
}

impl Ahead {
    /// Policy or everything changed: all is planned anew.
    pub(crate) fn forget(&mut self) {
        self.pools.clear();
    }

    /// A node is another than before, and was just read by the planner: what leaves it is read from the same state. O(holders of the node) for
    /// each pool with an agenda.
    pub(crate) fn node_changed(&mut self, ledger: &Ledger, node: NodeId) {
        for (pool, agenda) in &mut self.pools {
            if agenda.is_read {
                agenda.read_node(ledger, pool, node);
            }
        }
    }

    /// A place is on its way to be taken: it will be free again where a length was declared.
    pub(crate) fn booked(
        &mut self,
        ledger: &Ledger,
        ticket: Ticket,
        request: &Request,
        placement: &Placement,
    ) {
        let now = LedgerTime(self.now_ms.max(ledger.clock().0));
        let Some(agenda) = self.pools.get_mut(&request.pool) else { return };
        let Some(until) = ledger.would_leave_by(request, now) else { return };
        // A name that no reservation has: it may have none yet.
        let id = ReservationId(u64::MAX - ticket.number());
        let in_flight = InFlight::new(ledger, id, request, placement, until);
        agenda.future.expect_end(&in_flight, None);
        agenda.in_flight.insert(ticket, in_flight);
    }

    /// It was settled; its nodes are read anew after this.
    pub(crate) fn settled(&mut self, pool: &str, ticket: Ticket) {
        if let Some(agenda) = self.pools.get_mut(pool) {
            agenda.in_flight.remove(&ticket);
        }
    }

    /// True where somebody new must not take just any place of a pool.
    pub(crate) fn holds_back(&self, pool: &str) -> bool {
        self.pools.get(pool).is_some_and(Agenda::holds_back)
    }

    fn agenda(&mut self, pool: &Pool) -> &mut Agenda {
        self.pools.entry(pool.name.clone()).or_default()
    }
}

impl Agenda {
    fn holds_back(&self) -> bool {
        self.barrier.is_some()
            || !self.closed.is_empty()
            || self.heads.values().any(|head| head.planned.is_some())
    }

    /// Reads all nodes of the pool, the first time. O(reservations of the pool).
    fn read(&mut self, ledger: &Ledger, pool: &str) {
        if !std::mem::replace(&mut self.is_read, true) {
            for node in ledger.nodes().filter(|node| node.pool == pool) {
                self.read_node(ledger, pool, node.id);
            }
        }
    }

    fn read_node(&mut self, ledger: &Ledger, pool: &str, node: NodeId) {
        self.future.read(ledger, pool, node);
        self.freed.insert(node);
        for in_flight in self.in_flight.values() {
            self.future.expect_end(in_flight, Some(node));
        }
    }

    /// A head and its planned start are gone.
    fn drop_head(&mut self, id: ReservationId) {
        if let Some(Head { planned: Some(planned), .. }) = self.heads.remove(&id) {
            self.future.unplan(id, &planned.spot);
        }
    }
}
