//! Reservations and events as rows.

use plimsoll_client::v1::event::Object;
use plimsoll_client::v1::{
    EndReason, Event, EventKind, Evicted, ObjectKind, Preempted, Reservation, ReservationState, StartEstimate,
};
use plimsoll_ledger::percent;
use plimsoll_types::quantity::format_duration_ms;
use serde_json::Value;

use super::{document, word};
use crate::blockers::summary;
use crate::output::amounts::{granted, places};
use crate::output::{Column, Shown, absolute, ago, left, short_duration};

impl Shown for Reservation {
    const COLUMNS: &'static [Column<Reservation>] = &[
        Column::new("ID", |r, _| r.id.clone()),
        Column::new("NAME", |r, _| r.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default()),
        Column::new("STATE", |r, _| reservation_state(r.state())),
        Column::new("POOL", |r, _| r.spec.as_ref().map(|spec| spec.pool.clone()).unwrap_or_default()),
        Column::new("RESOURCES", |r, _| granted(r)),
        Column::new("WHERE", |r, _| places(&r.allocations)),
        Column::new("START", |r, view| match ago(r.grant_time_ms, view.now_ms) {
            _ if r.state() == ReservationState::Planned && start_at_ms(r) > 0 => {
                absolute(start_at_ms(r), view.utc)
            }
            text if text.is_empty() => text,
            text => format!("{text} ago"),
        }),
        Column::new("LEFT", |r, view| left(next_end_ms(r), view.now_ms)),
        Column::new("WHY", why),
        Column::wide("CLASS", |r, _| r.spec.as_ref().map(|spec| spec.class.clone()).unwrap_or_default()),
        Column::wide("PRIORITY", |r, _| r.priority.to_string()),
        Column::wide("TENANT", |r, _| r.spec.as_ref().map(|spec| spec.tenant.clone()).unwrap_or_default()),
        Column::wide("REQUESTER", |r, _| r.requester.clone()),
        Column::wide("TOKEN", |r, _| if r.token == 0 { String::new() } else { r.token.to_string() }),
        Column::wide("REVISION", |r, _| r.revision.to_string()),
        Column::wide("EXPECTED", |r, view| expected_start(r.start.as_ref(), view)),
        Column::wide("CREATED", |r, view| absolute(r.create_time_ms, view.utc)),
        Column::wide("ENDED", |r, view| absolute(r.end_time_ms, view.utc)),
    ];

    fn id(&self) -> String {
        self.id.clone()
    }

    fn json(&self) -> Value {
        document(self)
    }
}

impl Shown for Event {
    const COLUMNS: &'static [Column<Event>] = &[
        Column::new("REVISION", |e, _| e.revision.to_string()),
        Column::new("TIME", |e, view| absolute(e.log_time_ms, view.utc)),
        Column::new("OBJECT", |e, _| subject(e)),
        Column::new("WHAT", what),
        Column::new("RULE", |e, _| e.rule.clone()),
        Column::new("ACTOR", |e, _| e.actor.clone()),
        Column::wide("REQUEST", |e, _| e.request_id.clone()),
        Column::wide("MESSAGE", |e, _| e.message.clone()),
    ];

    fn id(&self) -> String {
        subject(self)
    }

    fn json(&self) -> Value {
        document(self)
    }
}

/// When it is expected to start: `in 5m` where that is promised, `in about 5m` where it is not.
pub(crate) fn expected_start(start: Option<&StartEstimate>, view: &crate::output::View) -> String {
    let Some(start) = start.filter(|start| start.start_time_ms > 0) else { return String::new() };
    let about = if start.promised { "in" } else { "in about" };
    format!("{about} {}", short_duration(start.start_time_ms.saturating_sub(view.now_ms)))
}

/// A state in one lower-case word.
pub(crate) fn reservation_state(state: ReservationState) -> String {
    word(state.as_str_name(), "RESERVATION_STATE_")
}

/// What ends next: the wait, the hold or the lease.
/// When an advance reservation starts; 0 for others.
fn start_at_ms(reservation: &Reservation) -> u64 {
    reservation.spec.as_ref().map_or(0, |spec| spec.start_at_ms)
}

fn next_end_ms(reservation: &Reservation) -> u64 {
    let of_wait = match reservation.state() {
        ReservationState::Pending | ReservationState::Planned => reservation.wait_deadline_ms,
        _ => 0,
    };
    [of_wait, reservation.hold_deadline_ms, reservation.lease_deadline_ms].into_iter().max().unwrap_or(0)
}

fn why(reservation: &Reservation, view: &crate::output::View) -> String {
    if reservation.end_reason() != EndReason::Unspecified {
        return word(reservation.end_reason().as_str_name(), "END_REASON_");
    }
    match &reservation.preempted {
        Some(preempted) if reservation.state() == ReservationState::Preempting => match &preempted.evicted {
            Some(evicted) => format!("has to leave {}", too_full(evicted)),
            None => format!("taken back for {}", preempted.by),
        },
        _ => match &reservation.repair {
            Some(repair) => {
                let left = left(repair.until_time_ms, view.now_ms);
                format!("{} lost, to be repaired within {left}", members(repair.missing_members))
            }
            None => summary(&reservation.blockers),
        },
    }
}

/// What a node measured that a grant has to leave it for: `n1: memory at 95%, above 90% for 31s`.
pub(crate) fn too_full(evicted: &Evicted) -> String {
    let [measured, above] = [evicted.measured_permille, evicted.above_permille].map(percent);
    let over = format_duration_ms(evicted.over_ms);
    format!("{}: {} at {measured}, above {above} for {over}", evicted.node, evicted.gauge)
}

/// `1 member`, `2 members`.
pub(crate) fn members(count: u32) -> String {
    if count == 1 { "1 member".to_owned() } else { format!("{count} members") }
}

fn subject(event: &Event) -> String {
    let kind = word(event.object_kind().as_str_name(), "OBJECT_KIND_");
    match event.object_kind() {
        ObjectKind::Cluster => kind,
        _ => format!("{kind}/{}", event.name.rsplit('/').next().unwrap_or_default()),
    }
}

fn what(event: &Event, _: &crate::output::View) -> String {
    let Some(change) = &event.transition else {
        return match (event.kind(), event.message.is_empty()) {
            (EventKind::Unspecified, _) | (_, false) => event.message.clone(),
            (kind, true) => word(kind.as_str_name(), "EVENT_KIND_"),
        };
    };
    let (from, to) = (change.from(), change.to());
    let moved = match from {
        ReservationState::Unspecified => reservation_state(to),
        from if from == to => format!("{} (changed)", reservation_state(to)),
        from => format!("{} to {}", reservation_state(from), reservation_state(to)),
    };
    match noticed(event).and_then(|preempted| preempted.evicted.as_ref()) {
        Some(evicted) => format!("{moved}, {}", too_full(evicted)),
        None => moved,
    }
}

/// The notice that a reservation was given by this very event.
fn noticed(event: &Event) -> Option<&Preempted> {
    let Some(Object::Reservation(reservation)) = &event.object else { return None };
    reservation.preempted.as_ref().filter(|preempted| preempted.revision == event.revision)
}
