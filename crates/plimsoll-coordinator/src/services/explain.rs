//! Explanations of the planner as the API shows them.

use plimsoll_ledger::{Ledger, Placement, Request};
use plimsoll_proto::{convert, v1};
use plimsoll_scheduler::Explanation;
use plimsoll_types::{ReservationId, Resources};

/// Why a reservation is where it is.
pub(super) fn of_reservation(ledger: &Ledger, id: ReservationId, explanation: &Explanation) -> v1::Explanation {
    let reservation = ledger.reservation(id);
    v1::Explanation {
        reservation: reservation.map(|reservation| convert::reservation_to_v1(reservation, ledger)),
        spec: reservation.map(|reservation| convert::request_to_v1(&reservation.request)),
        ..explained(ledger, reservation.map(|reservation| &reservation.amounts), explanation)
    }
}

/// What would stand in the way of a request.
pub(super) fn of_request(ledger: &Ledger, request: &Request, explanation: &Explanation) -> v1::Explanation {
    v1::Explanation {
        spec: Some(convert::request_to_v1(request)),
        ..explained(ledger, Some(&request.requirements.amounts), explanation)
    }
}

fn explained(ledger: &Ledger, amounts: Option<&Resources>, explanation: &Explanation) -> v1::Explanation {
    let place = |placement: &Placement| convert::allocations(&placement.members, amounts.unwrap_or(&Resources::default()), ledger);
    v1::Explanation {
        admissible: explanation.admissible,
        infeasible: explanation.infeasible,
        rank: explanation.rank,
        queue_length: explanation.queue_length,
        blockers: explanation.blockers.iter().map(convert::blocker_to_v1).collect(),
        not_in_the_way: explanation.not_in_the_way.clone(),
        placement: explanation.placement.as_ref().map(place).unwrap_or_default(),
        decision_revision: explanation.decision_revision.0,
        ..v1::Explanation::default()
    }
}
