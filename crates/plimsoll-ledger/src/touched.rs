//! Which rows changed since they were last taken. Noting one costs no more than pushing a number.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_types::{ReservationId, Revision};

use crate::{AsideHow, Ledger, Outcome, Remembered, Row, RowPlace};

/// A row that changed, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchedRow {
    /// Where a store keeps it.
    pub place: RowPlace,
    /// What it is; `None` where it is gone.
    pub row: Option<Row>,
    /// An answer that shows just the reservation that the ledger has under this id, whose row says it all. When that
    /// reservation changes, the answer counts as changed too.
    pub shows: Option<ReservationId>,
}

/// Rows changed, some perhaps more than once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    /// All kinds but the two that are many.
    few: BTreeSet<RowPlace>,
    meta: bool,
    reservations: Vec<ReservationId>,
    /// The latest form of each, or that it is gone, in the order of change.
    answers: Vec<(Revision, Option<Arc<Remembered>>)>,
}

impl Touched {
    pub(crate) fn meta(&mut self) {
        self.meta = true;
    }

    pub(crate) fn reservation(&mut self, id: ReservationId) {
        // A gang's steps and a sweep touch the same one in a row.
        if self.reservations.last() != Some(&id) {
            self.reservations.push(id);
        }
    }

    pub(crate) fn answer(&mut self, remembered: &Arc<Remembered>) {
        self.answers.push((remembered.answer.revision, Some(Arc::clone(remembered))));
    }

    pub(crate) fn answer_gone(&mut self, remembered: &Remembered) {
        self.answers.push((remembered.answer.revision, None));
    }

    /// Any other kind of row.
    pub(crate) fn row(&mut self, place: RowPlace) {
        self.few.insert(place);
    }

    pub(crate) fn clear(&mut self) {
        *self = Touched::default();
    }
}

impl Ledger {
    /// Rows that changed since the last call, in order of their places. What is spilled is handed out once, and is not in memory from then on. O(c log c) in changes.
    pub fn take_rows(&mut self) -> Vec<TouchedRow> {
        let Touched { few, meta, mut reservations, mut answers } = std::mem::take(&mut self.touched);
        reservations.sort_unstable();
        reservations.dedup();
        // Stable, so that the latest of each stands first after the turn.
        answers.reverse();
        answers.sort_by_key(|(revision, _)| *revision);
        answers.dedup_by_key(|(revision, _)| *revision);
        let mut rows = Vec::with_capacity(1 + few.len() + reservations.len() + answers.len());
        let bodies: Vec<ReservationId> = few.iter().filter_map(body_of).collect();
        let meta = meta.then_some(RowPlace::Meta);
        let places = meta.into_iter().chain(few).chain(reservations.into_iter().map(RowPlace::Reservation));
        rows.extend(places.map(|place| TouchedRow { row: self.placed(&place), place, shows: None }));
        rows.extend(answers.into_iter().map(|(revision, answer)| TouchedRow {
            place: RowPlace::Answer(revision),
            shows: answer.as_ref().and_then(|answer| self.shown_by(answer)),
            row: answer.map(Row::Idempotency),
        }));
        // The store has them from here on.
        for id in bodies {
            if self.overflows.bodies.get(&id).is_some_and(|body| body.how == AsideHow::Spilled) {
                self.overflows.bodies.remove(&id);
            }
        }
        rows
    }

    /// The reservation of the ledger that an answer shows, where it has not changed since.
    fn shown_by(&self, remembered: &Remembered) -> Option<ReservationId> {
        let Outcome::Reservation(shown) = &remembered.answer.outcome else { return None };
        let known = self.reservations.get(&shown.id)?;
        // The touch at its next change goes by this revision.
        (Arc::ptr_eq(known, shown) && known.changed == remembered.answer.revision).then_some(shown.id)
    }

    /// Forgets which rows changed, for those who keep none.
    pub fn clear_touched(&mut self) {
        self.touched.clear();
    }

    fn placed(&self, place: &RowPlace) -> Option<Row> {
        match place {
            RowPlace::Meta => Some(Row::Meta(self.meta)),
            RowPlace::Pool(name) => self.pools.get(name).cloned().map(Row::Pool),
            RowPlace::Class(name) => self.classes.get(name).cloned().map(Row::Class),
            RowPlace::NodeLimits(name) => self.node_limits.get(name).cloned().map(Row::NodeLimits),
            RowPlace::Node(id) => self.node(*id).cloned().map(Row::Node),
            RowPlace::Reservation(id) => self.reservations.get(id).cloned().map(Row::Reservation),
            RowPlace::Queue(name) => self.queues.get(name).cloned().map(Row::Queue),
            RowPlace::Quota(name) => self.quota_policies.get(name).cloned().map(Row::Quota),
            RowPlace::Usage(key) => self.book.get(key).cloned().map(Row::Usage),
            RowPlace::Validator(name) => self.validators.get(name).cloned().map(Row::Validator),
            RowPlace::Schedule(name) => self.schedules.get(name).cloned().map(Row::Schedule),
            RowPlace::Service(name) => self.services.get(name).cloned().map(Row::Service),
            RowPlace::Load(id) => self.loads.get(id).cloned().map(Row::Load),
            RowPlace::ScalingPolicy(name) => self.scaling_policies.get(name).cloned().map(Row::ScalingPolicy),
            RowPlace::Scaling(name) => self.scalings.get(name).cloned().map(Row::Scaling),
            RowPlace::Intent(id) => self.intents.get(id).cloned().map(Row::Intent),
            RowPlace::Body(id) => self.overflows.bodies.get(id).cloned().map(Row::Body),
            RowPlace::QueueUse(queue, pool) => {
                self.queue_uses.get(&(queue.clone(), pool.clone())).cloned().map(Row::QueueUse)
            }
            RowPlace::Contention(id) => self.contentions.get(*id).cloned().map(Row::Contention),
            RowPlace::RemovedNode(id) => self.removed_node(*id).cloned().map(Row::RemovedNode),
            // Those are noted with their form.
            RowPlace::Answer(_) => None,
        }
    }
}

fn body_of(place: &RowPlace) -> Option<ReservationId> {
    match place {
        RowPlace::Body(id) => Some(*id),
        _ => None,
    }
}
