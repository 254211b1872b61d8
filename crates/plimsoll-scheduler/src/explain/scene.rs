//! What an explanation needs of the ledger, copied out of it: whoever holds the ledger's lock holds it only for that.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_ledger::{Ledger, Request, State};
use plimsoll_types::ReservationId;

use super::suggest;
use crate::{Closed, Planner};

/// A request, who asks, and the part of the state that decides about it.
#[derive(Clone, Debug)]
pub struct Scene {
    pub(super) ledger: Ledger,
    pub(super) id: Option<ReservationId>,
    pub(super) request: Arc<Request>,
    /// The request as it was asked, where nobody has submitted it: what policy fills in is filled in anew where that changes.
    pub(super) asked: Arc<Request>,
    pub(super) requester: String,
    /// Grants of which one might end for it, in the order in which they are asked.
    pub(super) in_the_way: Vec<ReservationId>,
    /// Nodes that the leader puts no best effort of some classes on, by what they measure.
    pub(super) closed: Closed,
}

impl Scene {
    /// The scene of a reservation; `None` where there is none. O(nodes + what waits in its pool + some thousand holders), and O(holders of its pool)
    /// where the pool plans ahead or the calendar keeps something of it: when they leave decides then.
    pub fn of_reservation(ledger: &Ledger, id: ReservationId) -> Option<Scene> {
        let reservation = ledger.reservation(id)?;
        let waits = reservation.state == State::Pending;
        let request = Arc::clone(&reservation.request);
        Some(Scene::new(ledger, Some(id), request, &reservation.requester, waits))
    }

    /// The scene of a request that nobody has submitted. Cost as above.
    pub fn of_request(ledger: &Ledger, request: &Request, requester: &str) -> Scene {
        let filled = Arc::new(ledger.filled(request).into_owned());
        let scene = Scene::new(ledger, None, filled, requester, true);
        Scene { asked: Arc::new(request.clone()), ..scene }
    }

    fn new(
        ledger: &Ledger,
        id: Option<ReservationId>,
        request: Arc<Request>,
        requester: &str,
        waits: bool,
    ) -> Scene {
        let priority = ledger.class(&request.class).map_or(0, |class| class.priority);
        let in_the_way = if waits { suggest::in_the_way(ledger, &request, priority) } else { Vec::new() };
        let mut needed: BTreeSet<ReservationId> = in_the_way.iter().copied().chain(id).collect();
        if waits && (ledger.calendar().has(&request.pool) || plans_ahead(ledger, &request.pool)) {
            let nodes = ledger.nodes().filter(|node| node.pool == request.pool);
            needed.extend(nodes.flat_map(|node| ledger.holders(node.id)).map(|holder| holder.id));
        }
        Scene {
            ledger: ledger.excerpt_for_pool(&request.pool, &needed),
            id,
            asked: Arc::clone(&request),
            request,
            requester: requester.to_owned(),
            in_the_way,
            closed: Closed::new(),
        }
    }

    /// The scene as the leader sees it: it puts no best effort of these classes on these nodes.
    #[must_use]
    pub fn closing(self, closed: Closed) -> Scene {
        Scene { closed, ..self }
    }

    /// The planner that decides over a state, which is this scene's or a fork of it.
    pub(super) fn planner(&self, ledger: &Ledger) -> Planner {
        let mut planner = Planner::new(ledger, 0);
        planner.close(self.closed.clone());
        planner
    }

    /// Revision of the state that it shows.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What is asked.
    pub fn request(&self) -> &Request {
        &self.request
    }
}

/// True where places of a pool may be kept for those who wait, until others have left.
pub(super) fn plans_ahead(ledger: &Ledger, pool: &str) -> bool {
    let Some(policy) = ledger.pool(pool) else { return false };
    let is_overdue = |bound_ms: u64| {
        let waiting = ledger.pending(pool).filter_map(|id| ledger.reservation(id));
        waiting.into_iter().any(|one| ledger.clock().ms_since(one.submitted_at) > bound_ms)
    };
    policy.queueing.depth() > 0
        || policy.starvation_bound().is_some_and(is_overdue)
        || ledger.queues_waiting(pool).any(|queue| ledger.is_processed_for_sure(queue))
}
