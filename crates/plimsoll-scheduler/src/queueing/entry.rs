//! What queueing remembers of a reservation while it waits and while it runs.

use std::sync::Arc;

use plimsoll_ledger::{Request, Reservation};
use plimsoll_types::{LedgerTime, NodeId, ReservationId};

use super::ask::{Ask, shape};
use super::history::SequenceKey;

/// Label of a request that goes on after it was preempted: what it ran before, in milliseconds.
pub const ATTAINED_LABEL: &str = "plimsoll/attained-ms";
/// Label of such a request: when it was first submitted, in milliseconds of ledger time.
pub const QUEUED_SINCE_LABEL: &str = "plimsoll/queued-since-ms";

/// One that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: ReservationId,
    pub(crate) request: Arc<Request>,
    pub(crate) ask: Ask,
    pub(crate) shape: u64,
    /// Priority of its class.
    pub(crate) priority: i32,
    /// When it was first submitted, in milliseconds of ledger time.
    pub(crate) since_ms: u64,
    /// What it ran before it was preempted.
    pub(crate) attained_ms: u64,
    pub(crate) sequence: SequenceKey,
    pub(crate) block: u64,
}

/// One that holds a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) entry: Entry,
    /// A node for each member.
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) started_ms: u64,
    /// When it ends at the latest by its own word.
    pub(crate) declared_end_ms: Option<u64>,
    /// It had waited past its patience: it is not preempted any more.
    pub(crate) was_due: bool,
}

impl Entry {
    /// As the ledger has it; the block is the history's to fill in.
    pub(crate) fn of(reservation: &Reservation) -> Entry {
        let request = Arc::clone(&reservation.request);
        let number = |label: &str| request.labels.get(label).and_then(|text| text.parse::<u64>().ok());
        let ask = Ask::of(&request);
        Entry {
            id: reservation.id,
            ask,
            shape: shape(&request),
            priority: reservation.priority,
            since_ms: number(QUEUED_SINCE_LABEL).unwrap_or(reservation.submitted_at.0),
            attained_ms: number(ATTAINED_LABEL).unwrap_or(0),
            sequence: (request.tenant.clone(), ask.total()),
            block: 0,
            request,
        }
    }

    /// What it has waited in all, in milliseconds.
    pub(crate) fn waited_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.since_ms).saturating_sub(self.attained_ms)
    }

    /// The length that it declares, in milliseconds.
    pub(crate) fn declared_ms(&self) -> Option<u64> {
        Some(self.request.max_duration_ms).filter(|length| *length > 0)
    }

    /// Order of arrival.
    pub(crate) fn arrival(&self) -> (u64, ReservationId) {
        (self.since_ms, self.id)
    }
}

impl Running {
    /// What it has run in all, in milliseconds.
    pub(crate) fn attained_ms(&self, now_ms: u64) -> u64 {
        self.entry.attained_ms.saturating_add(now_ms.saturating_sub(self.started_ms))
    }
}

/// The request with which a preempted reservation goes on: the same, at its old place in the queue, with what it has run.
pub fn resubmission(reservation: &Reservation, now: LedgerTime) -> Request {
    let entry = Entry::of(reservation);
    let ran = now.ms_since(reservation.granted_at);
    let mut request = Request::clone(&reservation.request);
    let attained = entry.attained_ms.saturating_add(ran);
    request.labels.insert(ATTAINED_LABEL.to_owned(), attained.to_string());
    request.labels.insert(QUEUED_SINCE_LABEL.to_owned(), entry.since_ms.to_string());
    request
}
