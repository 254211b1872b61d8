//! Leases as agents are told of them.

use plimsoll_ledger::{Ledger, Reservation, State};
use plimsoll_proto::{convert, v1};
use plimsoll_types::{LedgerTime, NodeId, ReservationId};

/// The lease of a reservation on a node at ledger time `now_ms`; `None` where it has no member there.
pub(super) fn lease(
    ledger: &Ledger,
    reservation: &Reservation,
    node: NodeId,
    now_ms: u64,
) -> Option<v1::NodeLease> {
    let end = lease_end(ledger, reservation);
    let lease = convert::node_lease(reservation, node, LedgerTime(now_ms), ledger)?;
    Some(v1::NodeLease { deadline_ms: end.0, remaining_ms: end.ms_since(LedgerTime(now_ms)), ..lease })
}

/// What to tell an agent of a workload that should not run on its node; `None` for one that should.
pub(super) fn stopped(
    ledger: &Ledger,
    node: NodeId,
    name: &str,
    running: &v1::RunningLease,
) -> Option<v1::LeaseStopped> {
    let found = running.reservation.parse::<ReservationId>().ok().and_then(|id| ledger.reservation(id));
    let holds = |reservation: &Reservation| {
        reservation.token_on(node).0 == running.token
            && reservation.state.is_occupying()
            && reservation.members.iter().any(|member| member.node == node)
    };
    if found.is_some_and(|reservation| holds(reservation)) {
        return None;
    }
    Some(v1::LeaseStopped {
        node: name.to_owned(),
        reservation: running.reservation.clone(),
        token: running.token,
        reason: convert::end_reason_to_v1(found.and_then(|reservation| reservation.end_reason)).into(),
    })
}

/// End of a hold or lease as its holder may count on it: a change of leader gives every one a full length again.
fn lease_end(ledger: &Ledger, reservation: &Reservation) -> LedgerTime {
    let (length_ms, hard_end) = match reservation.resume_state {
        State::Held => (reservation.request.hold_ms, LedgerTime(0)),
        _ => (reservation.ttl_ms, reservation.hard_end),
    };
    let end = reservation.deadline.max(ledger.meta().rearmed_at.plus_ms(length_ms));
    if hard_end.0 > 0 { end.min(hard_end) } else { end }
}
