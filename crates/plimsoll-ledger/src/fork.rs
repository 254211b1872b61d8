//! Forks: copies of the ledger in which "what if" is tried, taken in short steps so that nobody waits for them.
//!
//! Invariant: a finished fork equals the ledger at one revision, but for what no plan looks at: remembered answers, loads of endpoints, and reservations that ended
//! (those that were preempted stay, since a pool's bound on preemptions counts them, and those of queues with batches, which count their grants).

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_types::{LedgerTime, ReservationId, Revision};

use crate::rows::RowError;
use crate::{Ledger, Reservation, Row, State};

/// A copy under way. Between its steps the ledger goes on.
#[derive(Debug)]
pub struct Fork {
    began: Revision,
    reservations: BTreeMap<ReservationId, Arc<Reservation>>,
    /// Where the next step begins; `None` once all are copied.
    next: Option<ReservationId>,
}

/// All that a fork is made of; it needs the ledger no more.
#[derive(Debug)]
pub struct ForkedRows {
    revision: Revision,
    rows: Vec<Row>,
}

impl Fork {
    /// Begins a copy; nothing is copied yet.
    pub fn begin(ledger: &Ledger) -> Fork {
        Fork { began: ledger.revision(), reservations: BTreeMap::new(), next: Some(ReservationId(0)) }
    }

    /// The ledger's revision when the copy began: what changed after it has to be named in [`Fork::finish`].
    pub fn began(&self) -> Revision {
        self.began
    }

    /// Copies at most `most` reservations. True where there are more. O(most log n).
    pub fn step(&mut self, ledger: &Ledger, most: usize) -> bool {
        let Some(from) = self.next else { return false };
        let mut last = None;
        let mut seen = 0;
        for reservation in ledger.reservations_from(from).take(most.max(1)) {
            seen += 1;
            last = Some(reservation.id);
            if counts(ledger, reservation) {
                self.reservations.insert(reservation.id, Arc::clone(reservation));
            }
        }
        self.next = match last {
            Some(id) if seen >= most.max(1) => Some(ReservationId(id.0 + 1)),
            _ => None,
        };
        self.next.is_some()
    }

    /// The copy at the ledger's present revision. `changed` are the reservations of all events since the copy began. O(nodes + policy +
    /// meters + changed).
    pub fn finish(mut self, ledger: &Ledger, changed: impl IntoIterator<Item = ReservationId>) -> ForkedRows {
        while self.step(ledger, usize::MAX) {}
        for id in changed {
            match ledger.reservation(id).filter(|reservation| counts(ledger, reservation)) {
                Some(reservation) => drop(self.reservations.insert(id, Arc::clone(reservation))),
                None => drop(self.reservations.remove(&id)),
            }
        }
        let mut rows = vec![Row::Meta(ledger.meta)];
        rows.extend(ledger.pools.values().cloned().map(Row::Pool));
        rows.extend(ledger.classes.values().cloned().map(Row::Class));
        rows.extend(ledger.node_limits.values().cloned().map(Row::NodeLimits));
        rows.extend(ledger.queues.values().cloned().map(Row::Queue));
        rows.extend(ledger.schedules.values().cloned().map(Row::Schedule));
        rows.extend(ledger.services.values().cloned().map(Row::Service));
        rows.extend(ledger.scaling_policies.values().cloned().map(Row::ScalingPolicy));
        rows.extend(ledger.scalings.values().cloned().map(Row::Scaling));
        rows.extend(ledger.intents.values().cloned().map(Row::Intent));
        rows.extend(ledger.contentions.rows().cloned().map(Row::Contention));
        rows.extend(ledger.quota_policies.values().cloned().map(Row::Quota));
        rows.extend(ledger.validators.values().cloned().map(Row::Validator));
        rows.extend(ledger.nodes().cloned().map(Row::Node));
        rows.extend(self.reservations.into_values().map(Row::Reservation));
        rows.extend(ledger.book.rows().cloned().map(Row::Usage));
        rows.extend(ledger.overflows.bodies.values().cloned().map(Row::Body));
        rows.extend(ledger.queue_uses.values().cloned().map(Row::QueueUse));
        ForkedRows { revision: ledger.revision(), rows }
    }
}

impl ForkedRows {
    /// Revision that the fork shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The fork, with its indexes. O(n log n) in rows, without the ledger it was copied from.
    ///
    /// # Errors
    /// Rows that do not belong together: a fault of the copy.
    pub fn into_ledger(self) -> Result<Ledger, RowError> {
        Ledger::from_rows(self.rows)
    }
}

impl Ledger {
    /// A fork in one step, for those who hold the whole ledger anyway. O(n log n).
    ///
    /// # Errors
    /// As for [`ForkedRows::into_ledger`].
    pub fn fork(&self) -> Result<Ledger, RowError> {
        Fork::begin(self).finish(self, []).into_ledger()
    }

    /// For forks that are run on: the holder keeps this grant to the end of its longest duration, or for good. Who was given notice leaves in
    /// time all the same. True where there is such a grant.
    pub fn assume_kept(&mut self, id: ReservationId) -> bool {
        let Some(old) = self.reservations.get(&id).filter(|held| {
            matches!(held.resume_state, State::Held | State::Active | State::Partial)
                && held.state.is_occupying()
        }) else {
            return false;
        };
        let mut kept = Reservation::clone(old);
        kept.deadline = if old.hard_end.0 > 0 { old.hard_end } else { LedgerTime(u64::MAX) };
        self.put_reservation(Arc::new(kept));
        true
    }

    /// Reservations that a sweep at this time may end or move on, in the order of their times.
    pub fn due_until(&self, now: LedgerTime) -> impl Iterator<Item = ReservationId> {
        self.deadlines.iter().take_while(move |(due, _)| *due <= now).map(|(_, id)| *id)
    }
}

fn counts(ledger: &Ledger, reservation: &Reservation) -> bool {
    let of_batch = || ledger.batch_of(&reservation.request.queue).is_some();
    !reservation.state.is_final() || reservation.preempted.is_some() || of_batch()
}
