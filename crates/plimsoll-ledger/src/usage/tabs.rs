//! The tab of a grant through its life: opened with the grant, extended by renewals, changed by resizes, closed at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, Resources};

use super::ledger::Move;
use super::tab::{at_price, flat, multiplied, per_hour};
use super::{Charge, Measure, Reset, Tab, Usage};
use crate::{Blocker, Ledger, Refusal, Reservation};

impl Ledger {
    /// What a grant commits, written down with it.
    pub(crate) fn open_tab(&mut self, reservation: &mut Reservation) {
        if !self.counts_usage() {
            return;
        }
        let Some(total) = reservation.charge() else { return };
        let now = self.meta.clock;
        let until = self.paid_until(&reservation.request, now);
        let priced = self.priced(&total, &reservation.members);
        let charges = self.wanted(&reservation.request, &reservation.requester, priced, now);
        let moves: Vec<Move> =
            charges.iter().map(|new| Move { old: None, spent: 0, new: new.clone() }).collect();
        self.carry_out(&moves, now, now, until);
        reservation.tab = (!charges.is_empty()).then(|| Arc::new(Tab { until, charges }));
    }

    /// Commits the next stretch of a lease that is renewed up to its new deadline. Nothing where that is paid for already.
    ///
    /// # Errors
    /// What is used up, with the arithmetic; nothing is changed then.
    pub(crate) fn extend_tab(&mut self, reservation: &mut Reservation) -> Result<(), Refusal> {
        let (now, until) = (self.meta.clock, reservation.deadline);
        if reservation.tab.is_none() && (!self.counts_usage() || reservation.hard_end.0 > 0) {
            return Ok(());
        }
        let old = match &reservation.tab {
            Some(tab) => Arc::clone(tab),
            None => Arc::new(Tab { until: now, charges: Vec::new() }),
        };
        if until <= old.until {
            return Ok(());
        }
        let mut moves: Vec<Move> = old.charges.iter().map(|charge| extended(charge, &old, now)).collect();
        // Quotas and prices that came after the grant count from the end of what is paid for.
        if let Some(total) = reservation.charge() {
            let request = &reservation.request;
            let priced = self.priced(&total, &reservation.members);
            let wanted = self.wanted(request, &reservation.requester, priced, old.until);
            let is_new =
                |new: &Charge| new.per_hour > 0 && old.charges.iter().all(|charge| charge.key != new.key);
            moves.extend(wanted.into_iter().filter(is_new).map(|new| Move { old: None, spent: 0, new }));
        }
        let most = reservation.request.max_cost_micros;
        self.judge(&moves, old.until, until, most)?;
        self.settle_on(reservation, moves, now, old.until, until);
        Ok(())
    }

    /// Moves what is committed to new amounts, already in the reservation, for the rest of what is paid for.
    ///
    /// # Errors
    /// What more is used up, with the arithmetic; nothing is changed then.
    pub(crate) fn resize_tab(&mut self, reservation: &mut Reservation) -> Result<(), Refusal> {
        let Some((until, moves)) = self.resized_moves(reservation) else { return Ok(()) };
        self.judge(&moves, until, until, reservation.request.max_cost_micros)?;
        self.settle_on(reservation, moves, self.meta.clock, until, until);
        Ok(())
    }

    /// What [`Ledger::resize_tab`] would say of new amounts or members.
    ///
    /// # Errors
    /// What more is used up, with the arithmetic.
    pub(crate) fn judge_resized_tab(&self, reservation: &Reservation) -> Result<(), Refusal> {
        let Some((until, moves)) = self.resized_moves(reservation) else { return Ok(()) };
        self.judge(&moves, until, until, reservation.request.max_cost_micros)
    }

    /// Until when a grant is paid for, and what its charges become.
    fn resized_moves(&self, reservation: &Reservation) -> Option<(LedgerTime, Vec<Move>)> {
        let old = reservation.tab.as_ref()?;
        let total = reservation.charge()?;
        let none = BTreeMap::new();
        let prices = self.pool(&reservation.request.pool).map_or(&none, |pool| &pool.prices);
        let factor = self.counts_milli(&reservation.request);
        let permille = self.priced(&total, &reservation.members).permille;
        let hour = |measure: Measure| {
            multiplied(at_price(measure, per_hour(measure, &total, prices), permille), factor)
        };
        let moves = old.charges.iter().map(|charge| resized(charge, old, &total, hour, self.meta.clock));
        Some((old.until, moves.collect()))
    }

    /// Trues up a grant that ends: what it did not use is given back.
    pub(crate) fn close_tab(&mut self, reservation: &mut Reservation) {
        let Some(tab) = reservation.tab.take() else { return };
        let now = self.meta.clock;
        for charge in tab.charges.iter().filter(|_| !mutant!("never-true-up")) {
            self.settle(charge, charge.amount(tab.until), charge.used(now, tab.until), now);
        }
        reservation.cost_micros = tab.cost_micros(now);
    }

    fn settle_on(
        &mut self,
        reservation: &mut Reservation,
        moves: Vec<Move>,
        now: LedgerTime,
        old_until: LedgerTime,
        until: LedgerTime,
    ) {
        self.carry_out(&moves, now, old_until, until);
        let mut charges: Vec<Charge> = moves.into_iter().map(|step| step.new).collect();
        charges.sort_by(|a, b| a.key.cmp(&b.key));
        reservation.tab = Some(Arc::new(Tab { until, charges }));
    }

    fn judge(
        &self,
        moves: &[Move],
        old_until: LedgerTime,
        until: LedgerTime,
        most_cost: u64,
    ) -> Result<(), Refusal> {
        let short = self.room_for(moves, old_until, until, most_cost, &BTreeMap::new());
        let mut blockers: Vec<Blocker> = short.into_iter().map(|short| short.blocker).collect();
        blockers.sort_by_key(|blocker| blocker.reason);
        match blockers.first() {
            None => Ok(()),
            Some(first) => Err(Refusal { reason: first.reason, blockers }),
        }
    }

    fn carry_out(&mut self, moves: &[Move], now: LedgerTime, old_until: LedgerTime, until: LedgerTime) {
        for step in moves {
            if let Some(old) = &step.old {
                self.settle(old, old.amount(old_until), step.spent, now);
            }
            self.commit(&step.new, step.new.amount(until), now);
        }
    }

    fn commit(&mut self, charge: &Charge, amount: u64, now: LedgerTime) {
        let Some(meter) = charge.meter().filter(|_| !charge.is_own_cost()) else { return };
        let mut row = match self.book.get(&charge.key) {
            Some(row) => row.at(now),
            None => Usage {
                key: charge.key.clone(),
                period: meter.reset.period(now),
                spent: 0,
                committed: 0,
                stamp: if matches!(meter.reset, Reset::Rolling(_)) { now } else { LedgerTime(0) },
            },
        };
        if row.period == charge.period {
            row.committed = row.committed.saturating_add(amount);
            self.put_usage(row);
        }
    }

    /// Takes a charge off what is committed; what was used of it is spent. Where its period is over there is nothing to do: it stays charged there.
    fn settle(&mut self, charge: &Charge, amount: u64, used: u64, now: LedgerTime) {
        let Some(mut row) = self.book.get(&charge.key).map(|row| row.at(now)) else { return };
        if row.period == charge.period {
            row.committed = row.committed.saturating_sub(amount);
            row.spent = row.spent.saturating_add(used);
            self.put_usage(row);
        }
    }
}

/// A charge that goes on: in the same period it grows; in a new one the new stretch is charged there; what fades is settled up to now.
fn extended(charge: &Charge, tab: &Tab, now: LedgerTime) -> Move {
    let mut new = charge.clone();
    let mut spent = 0;
    if let Some(meter) = charge.meter().filter(|_| charge.per_hour > 0) {
        let period = meter.reset.period(now);
        if matches!(meter.reset, Reset::Rolling(_)) {
            spent = charge.used(now, tab.until);
            new.flat = 0;
            new.from = now.min(tab.until).max(charge.from);
        } else if period != charge.period {
            new = Charge { period, from: tab.until, flat: 0, ..new };
        }
    }
    Move { old: Some(charge.clone()), spent, new }
}

/// A charge under other amounts: what was used stays, the rest is charged anew.
fn resized(
    charge: &Charge,
    tab: &Tab,
    total: &Resources,
    hour: impl Fn(Measure) -> u64,
    now: LedgerTime,
) -> Move {
    let mut new = charge.clone();
    if let Some(meter) = charge.meter() {
        if meter.measure == Measure::Storage {
            new.flat = flat(meter.measure, total);
        } else if meter.measure.is_timed() {
            let period = meter.reset.period(now);
            new.flat = if period == charge.period { charge.used(now, tab.until) } else { 0 };
            new.from = now.min(tab.until).max(charge.from);
            new.per_hour = hour(meter.measure);
            new.period = period;
        }
    }
    Move { old: Some(charge.clone()), spent: 0, new }
}
