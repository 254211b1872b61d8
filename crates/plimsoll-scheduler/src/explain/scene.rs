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
    pub(super) requester: String,
    /// Grants of which one might end for it, in the order in which they are asked.
    pub(super) in_the_way: Vec<ReservationId>,
    /// Nodes that the leader puts no best effort of some classes on, by what they measure.
    pub(super) closed: Closed,
}

impl Scene {
    /// The scene of a reservation; `None` where there is none. O(nodes + what waits in its pool + some thousand holders).
    pub fn of_reservation(ledger: &Ledger, id: ReservationId) -> Option<Scene> {
        let reservation = ledger.reservation(id)?;
        let waits = reservation.state == State::Pending;
        let request = Arc::clone(&reservation.request);
        Some(Scene::new(ledger, Some(id), request, &reservation.requester, waits))
    }

    /// The scene of a request that nobody has submitted. Cost as above.
    pub fn of_request(ledger: &Ledger, request: &Request, requester: &str) -> Scene {
        Scene::new(ledger, None, Arc::new(ledger.filled(request).into_owned()), requester, true)
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
        let needed: BTreeSet<ReservationId> = in_the_way.iter().copied().chain(id).collect();
        Scene {
            ledger: ledger.excerpt_for_pool(&request.pool, &needed),
            id,
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
