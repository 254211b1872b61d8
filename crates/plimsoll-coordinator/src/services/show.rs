//! What answers show beside the objects themselves: places in queues, names of what events are about.

use plimsoll_ledger::{Event, EventObject, Ledger, Reservation};
use plimsoll_proto::{convert, v1};
use plimsoll_types::{LedgerTime, Revision};

/// Requests in the queue of the reservation's pool; 0 where it is not queued.
pub(super) fn queue_length(ledger: &Ledger, reservation: &Reservation) -> u64 {
    if reservation.is_waiting() { ledger.pending_len(&reservation.request.pool) as u64 } else { 0 }
}

/// The last part of the resource name of what an event is about.
pub(super) fn object_id(object: &EventObject) -> String {
    match object {
        EventObject::Reservation(reservation, _) => reservation.id.to_string(),
        EventObject::ReservationForgotten(id) => id.to_string(),
        EventObject::Node(node) => node.name().to_owned(),
        EventObject::Pool(pool) => pool.name.clone(),
        EventObject::Class(class) => class.name.clone(),
        EventObject::NodeLimits(limits) => limits.name.clone(),
        EventObject::Queue(queue) => queue.name.clone(),
        EventObject::Quota(quota) => quota.name.clone(),
        EventObject::Validator(object) => object.name.clone(),
        EventObject::Schedule(schedule) => schedule.name.clone(),
        EventObject::Service(service) => service.name.clone(),
        EventObject::ScalingPolicy(policy) => policy.name.clone(),
        EventObject::Scaling(scaling) => scaling.policy.clone(),
        EventObject::Intent(intent) => intent.policy.clone(),
        EventObject::Contention(one) => format!("{}/{}", one.pool, one.resource),
        EventObject::NodeRemoved(_, name)
        | EventObject::PoolDeleted(name)
        | EventObject::ClassDeleted(name)
        | EventObject::NodeLimitsDeleted(name)
        | EventObject::QueueDeleted(name)
        | EventObject::QuotaDeleted(name)
        | EventObject::ScheduleDeleted(name)
        | EventObject::ServiceDeleted(name)
        | EventObject::ScalingPolicyDeleted(name)
        | EventObject::ValidatorDeleted(name) => name.clone(),
        EventObject::Leader(_) | EventObject::Version(_) => "cluster".to_owned(),
    }
}

/// An object that is there, as the first part of a watch shows it.
pub(super) fn present(
    ledger: &Ledger,
    revision: Revision,
    log_time: LedgerTime,
    object: &EventObject,
) -> v1::Event {
    let event = Event { revision, log_time, actor: String::new(), rule: "present", object: object.clone() };
    v1::Event { kind: v1::EventKind::Created.into(), ..convert::event_to_v1(&event, "", ledger) }
}
