//! A ledger that is being built from its rows. The two kinds that there are a million of are put into their indexes all at
//! once: a tree that is filled from sorted entries is twice as dense, and made in a fraction of the time.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, ReservationId};

use crate::answers::Answers;
use crate::{
    AsideHow, LATEST_VERSION, Ledger, MemberPlacement, Outcome, Remembered, Reservation, Row, RowError,
    StoredRow, Usage,
};

/// Rows so far. What a row needs comes before it, in canonical order and in that of places.
pub(crate) struct Loading {
    ledger: Ledger,
    has_meta: bool,
    /// Not yet in the ledger but for what they hold.
    reservations: Vec<(ReservationId, Arc<Reservation>)>,
    deadlines: Vec<(LedgerTime, ReservationId)>,
    answers: Vec<Arc<Remembered>>,
    /// Whose bodies were there.
    bodies: BTreeSet<ReservationId>,
}

impl Default for Loading {
    fn default() -> Loading {
        let mut ledger = Ledger::default();
        ledger.calendar.paused = true;
        Loading {
            ledger,
            has_meta: false,
            reservations: Vec::new(),
            deadlines: Vec::new(),
            answers: Vec::new(),
            bodies: BTreeSet::new(),
        }
    }
}

impl Loading {
    /// Takes the next row.
    ///
    /// # Errors
    /// One that does not belong to those before it.
    pub(crate) fn take(&mut self, row: StoredRow) -> Result<(), RowError> {
        match row {
            StoredRow::Whole(Row::Meta(meta)) => {
                if meta.version > LATEST_VERSION {
                    return Err(RowError::Version { found: meta.version, latest: LATEST_VERSION });
                }
                self.ledger.meta = meta;
                self.has_meta = true;
            }
            StoredRow::Whole(Row::Reservation(reservation)) => self.take_reservation(reservation)?,
            StoredRow::Whole(row) => self.take_other(row),
            StoredRow::Answer(mut answer, shown) => {
                self.flush_reservations();
                let shown = self.ledger.reservations.get(&shown).ok_or(RowError::Dangling(shown))?;
                answer.answer.outcome = Outcome::Reservation(Arc::clone(shown));
                self.take_answer(Arc::new(answer));
            }
        }
        if self.has_meta { Ok(()) } else { Err(RowError::NoMeta) }
    }

    /// The ledger of all rows.
    ///
    /// # Errors
    /// Where there were none.
    pub(crate) fn finish(self) -> Result<Ledger, RowError> {
        self.build(true)
    }

    /// The same of rows that may come without bodies.
    ///
    /// # Errors
    /// As for [`Loading::finish`].
    pub(crate) fn finish_without_bodies(self) -> Result<Ledger, RowError> {
        self.build(false)
    }

    fn build(mut self, with_bodies: bool) -> Result<Ledger, RowError> {
        if !self.has_meta {
            return Err(RowError::NoMeta);
        }
        self.flush_reservations();
        let mut ledger = self.ledger;
        ledger.answers = Answers::of(self.answers);
        if with_bodies {
            let lacks = |r: &&Arc<Reservation>| r.aside.is_some() && !self.bodies.contains(&r.id);
            if let Some(lost) = ledger.reservations.values().find(lacks) {
                return Err(RowError::NoBody(lost.id));
            }
            if let Some(lone) = self.bodies.iter().find(|id| !ledger.needs_body(**id)) {
                return Err(RowError::NoBody(*lone));
            }
        }
        ledger.recount_quota();
        ledger.recount_batches();
        ledger.recount_by_class();
        ledger.recount_spots();
        ledger.recount_calendar();
        ledger.touched.clear();
        ledger.note_endpoints();
        Ok(ledger)
    }

    fn take_reservation(&mut self, reservation: Arc<Reservation>) -> Result<(), RowError> {
        let ledger = &mut self.ledger;
        ledger.check_placed(&reservation)?;
        ledger.occupy(&reservation, true);
        self.deadlines.extend(ledger.link_undated(&reservation).map(|due| (due, reservation.id)));
        self.reservations.push((reservation.id, reservation));
        Ok(())
    }

    fn take_answer(&mut self, answer: Arc<Remembered>) {
        if !mutant!("forget-answers") {
            self.answers.push(answer);
        }
    }

    fn take_other(&mut self, row: Row) {
        self.flush_reservations();
        let ledger = &mut self.ledger;
        match row {
            Row::Meta(_) | Row::Reservation(_) => unreachable!("taken by themselves"),
            Row::Pool(pool) => ledger.put_pool(pool),
            Row::Class(class) => ledger.put_class(class),
            Row::NodeLimits(limits) => ledger.put_node_limits(limits),
            Row::Queue(queue) => ledger.put_queue(queue),
            Row::Quota(quota) => ledger.put_quota_policy(quota),
            Row::Usage(usage) => ledger.put_usage(Usage::clone(&usage)),
            Row::Validator(object) => ledger.put_validator(object),
            Row::Schedule(schedule) => ledger.put_schedule(schedule),
            Row::Service(service) => ledger.put_service(service),
            Row::Load(load) => ledger.put_load(load),
            Row::ScalingPolicy(policy) => ledger.put_scaling_policy(policy),
            Row::Scaling(scaling) => ledger.put_scaling(scaling),
            Row::Intent(intent) => ledger.put_intent(intent),
            Row::Contention(contention) => ledger.put_contention(contention),
            Row::QueueUse(row) => ledger.put_queue_use(row),
            Row::Body(body) => {
                if body.how == AsideHow::Compressed {
                    ledger.overflows.bodies.insert(body.reservation, Arc::clone(&body));
                }
                self.bodies.insert(body.reservation);
            }
            Row::Node(node) => ledger.put_node(node),
            Row::RemovedNode(removed) => ledger.put_removed(removed),
            Row::Idempotency(answer) => {
                let answer = ledger.shared_answer(answer);
                self.take_answer(answer);
            }
        }
    }

    /// Puts the reservations so far where the rows after them look for them.
    fn flush_reservations(&mut self) {
        if self.reservations.is_empty() {
            return;
        }
        self.ledger.reservations.append(&mut self.reservations.drain(..).collect());
        self.ledger.deadlines.append(&mut self.deadlines.drain(..).collect());
        (self.reservations, self.deadlines) = (Vec::new(), Vec::new());
    }
}

impl Ledger {
    fn check_placed(&self, reservation: &Reservation) -> Result<(), RowError> {
        let placed = |member: &MemberPlacement| {
            self.usage(member.node).is_some_and(|usage| {
                member.devices.iter().all(|grant| usize::from(grant.device.0) < usage.devices.len())
            })
        };
        if reservation.members.iter().all(placed) { Ok(()) } else { Err(RowError::Dangling(reservation.id)) }
    }

    /// The answer, on the reservation of the ledger where it shows just that: a row has a copy of its own.
    fn shared_answer(&self, mut remembered: Arc<Remembered>) -> Arc<Remembered> {
        if let Some(own) = Arc::get_mut(&mut remembered)
            && let Outcome::Reservation(shown) = &mut own.answer.outcome
            && let Some(known) = self.reservations.get(&shown.id)
            && known == shown
        {
            *shown = Arc::clone(known);
        }
        remembered
    }
}
