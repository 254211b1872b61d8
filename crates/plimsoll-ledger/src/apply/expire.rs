//! The sweep: ends what is due by ledger time and forgets what is past its retention. Bounded work per entry.
//!
//! Everything is re-checked here against the entry's own time, so a renewal that won the race wins. Reservations end
//! in the order of their due times, whatever the index remembers of earlier leaders' clocks.

use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::LedgerTime;

use crate::ledger::Context;
use crate::limits::{CONTENTION_RETENTION_MS, ENDED_RETENTION_MS, REMEMBER_MS};
use crate::{EndReason, EventObject, Ledger, NodeAdmin, Outcome, Remembered, Reservation, State};

impl Ledger {
    pub(crate) fn apply_expire(&mut self, context: &mut Context<'_>, limit: u32) -> Outcome {
        let limit = limit.max(1);
        let mut ended = 0;
        self.make_room(context, limit);
        while ended < limit {
            let Some(reservation) = self.first_due(context.now) else { break };
            let (rule, state, reason) = match self.unrepaired_at(&reservation) {
                Some(at) if at <= context.now => {
                    ("expire/not-repaired", State::Failed, EndReason::NotRepaired)
                }
                _ => verdict(&reservation, context.now),
            };
            match reason {
                EndReason::Preempted => self.take_back(context, &reservation),
                _ => self.end(context, rule, &reservation, state, reason),
            };
            ended += 1;
        }
        while ended < limit {
            let Some(reservation) = self.next_drained(context.now) else { break };
            if self.is_promised(&reservation) {
                self.requeue(context, &reservation, "expire/drained", Vec::new());
            } else {
                self.end(context, "expire/drained", &reservation, State::Preempted, EndReason::Drained);
            }
            ended += 1;
        }
        self.forget_due(context, limit);
        // Keys that stand too early must not show in the outcome: replicas may differ in them. `first_due` moves them on.
        self.first_due(context.now);
        let more = self.next_due().is_some_and(|due| due <= context.now);
        Outcome::Expired { ended, more }
    }

    /// The earliest moment at which a sweep would do something; never later than that, at times earlier.
    pub fn next_due(&self) -> Option<LedgerTime> {
        let drain = self
            .drains
            .iter()
            .find(|(_, node)| self.slot(*node).is_some_and(|slot| !slot.usage.holders.is_empty()));
        let candidates = [
            self.deadlines.first().map(|(due, _)| *due),
            drain.map(|(due, _)| *due),
            self.ended.first().map(|(ended_at, _)| ended_at.plus_ms(ENDED_RETENTION_MS)),
            self.answers.first().map(|remembered| remembered.keep_until),
            self.first_removed().map(|(keep_until, _)| keep_until),
            self.book.first_due().map(|(due, _)| *due),
            self.next_sweep(),
            self.contentions.first_ended().map(|(at, _)| at.plus_ms(CONTENTION_RETENTION_MS)),
        ];
        candidates.into_iter().flatten().min()
    }

    /// The reservation with the earliest due time, where that has come. Keys that stand too early are moved on.
    fn first_due(&mut self, now: LedgerTime) -> Option<Arc<Reservation>> {
        while let Some(&(key, id)) = self.deadlines.first() {
            if key > now {
                return None;
            }
            let Some(reservation) = self.reservations.get(&id) else {
                self.deadlines.pop_first();
                continue;
            };
            match self.due_at(reservation) {
                Some(due) if due == key || mutant!("expire-without-recheck") => {
                    return Some(Arc::clone(reservation));
                }
                Some(due) => drop(self.deadlines.insert((due, id))),
                None => {}
            }
            self.deadlines.pop_first();
        }
        None
    }

    /// The first holder on the first node whose drain is past its deadline.
    fn next_drained(&self, now: LedgerTime) -> Option<Arc<Reservation>> {
        let due = self.drains.iter().take_while(|(deadline, _)| *deadline <= now);
        let mut draining = due
            .filter_map(|(_, node)| self.slot(*node))
            .filter(|slot| matches!(slot.node.admin, NodeAdmin::Draining { .. }));
        let holder = draining.find_map(|slot| slot.usage.holders.first().copied())?;
        self.reservations.get(&holder).cloned()
    }

    fn forget_due(&mut self, context: &mut Context<'_>, limit: u32) {
        for _ in 0..limit {
            match self.ended.first() {
                Some((at, id)) if at.plus_ms(ENDED_RETENTION_MS) <= context.now => {
                    let id = *id;
                    self.forget(id);
                    context.event("expire/forgotten", EventObject::ReservationForgotten(id));
                }
                _ => break,
            }
        }
        for _ in 0..limit {
            match self.answers.first().cloned() {
                Some(due) if due.keep_until <= context.now && !mutant!("never-forget-answers") => {
                    self.forget_or_keep_answer(&due, context.now)
                }
                _ => break,
            }
        }
        self.forget_usage(context.now, limit);
        self.forget_contentions(context, limit);
        // Last, and only once no answer is left that may need the names.
        if self.answers.first().is_some_and(|due| due.keep_until <= context.now) {
            return;
        }
        for _ in 0..limit {
            match self.first_removed() {
                Some((keep_until, id)) if keep_until <= context.now => self.forget_removed(id),
                _ => break,
            }
        }
    }

    /// An answer is kept while the reservation it created lives, so that a late repeat cannot create a second one.
    fn forget_or_keep_answer(&mut self, remembered: &Remembered, now: LedgerTime) {
        let live = match &remembered.answer.outcome {
            Outcome::Reservation(reservation) => self
                .reservations
                .get(&reservation.id)
                .is_some_and(|reservation| !reservation.state.is_final()),
            _ => false,
        };
        if live {
            let keep_until = now.plus_ms(REMEMBER_MS);
            self.put_remembered(Arc::new(Remembered { keep_until, ..Remembered::clone(remembered) }));
        } else {
            self.forget_answer(remembered);
        }
    }
}

/// Rule, final state and reason for a reservation that is due.
fn verdict(reservation: &Reservation, now: LedgerTime) -> (&'static str, State, EndReason) {
    match reservation.state {
        State::Planned if reservation.is_advance() => {
            ("expire/never-started", State::Expired, EndReason::NeverStarted)
        }
        State::Pending | State::Planned => {
            ("expire/waited-too-long", State::Expired, EndReason::WaitedTooLong)
        }
        State::Held => ("expire/not-confirmed", State::Expired, EndReason::NotConfirmed),
        _ if reservation.hard_end.0 > 0
            && now >= reservation.hard_end
            && reservation.deadline >= reservation.hard_end =>
        {
            let asked = reservation.request.max_duration_ms;
            let cut = asked == 0 || reservation.hard_end < reservation.granted_at.plus_ms(asked);
            if cut && reservation.request.start_at_ms == 0 {
                return ("expire/window-opened", State::Expired, EndReason::WindowOpened);
            }
            ("expire/max-duration", State::Expired, EndReason::MaxDuration)
        }
        State::Preempting => ("preempt/end", State::Preempted, EndReason::Preempted),
        _ => ("expire/not-renewed", State::Expired, EndReason::NotRenewed),
    }
}
