//! When a grant has left its place at the latest, by what was declared; and who waits longest.

use std::cmp::Reverse;
use std::ops::Bound;

use plimsoll_types::{LedgerTime, ReservationId};

use crate::limits::expiry_slack_ms;
use crate::{Ledger, Reservation, State};

impl Ledger {
    /// The moment by which a grant's place is free whatever its holder does, short of renewing for longer leases: its longest duration and the slack of
    /// its lease, or the end of its notice. `None` where nobody declared an end, its node is silent, or it holds nothing.
    pub fn leaves_by(&self, reservation: &Reservation) -> Option<LedgerTime> {
        let noticed = || self.safe_end_of(reservation);
        match reservation.state {
            State::Preempting => noticed(),
            State::Held | State::Active | State::Partial if reservation.hard_end.0 > 0 => {
                let end = reservation.hard_end.plus_ms(expiry_slack_ms(reservation.ttl_ms));
                // A hold may run on past the end of the grant that would follow.
                let held = if reservation.state == State::Held { noticed() } else { None };
                Some(held.map_or(end, |held| held.max(end)))
            }
            _ => None,
        }
    }

    /// What a grant made at `at` for this request would leave by, defaults filled in; `None` where it declares no length.
    pub fn would_leave_by(&self, request: &crate::Request, at: LedgerTime) -> Option<LedgerTime> {
        let lengths = self.lengths(request);
        let lease = at.plus_ms(lengths.max_duration_ms).plus_ms(expiry_slack_ms(lengths.ttl_ms));
        let hold = if request.auto_confirm { at } else { at.plus_ms(lengths.hold_ms) };
        (lengths.max_duration_ms > 0).then(|| lease.max(hold))
    }

    /// Priorities of those that wait for a pool, highest first. O(priorities x log n).
    pub fn priorities_waiting(&self, pool: &str) -> impl Iterator<Item = i32> {
        let waiting = self.pending.get(pool);
        let mut after = None;
        std::iter::from_fn(move || {
            let from = match after {
                None => Bound::Unbounded,
                Some(priority) => Bound::Excluded((Reverse(priority), ReservationId(u64::MAX))),
            };
            let (Reverse(priority), _) = waiting?.range((from, Bound::Unbounded)).next()?;
            after = Some(*priority);
            after
        })
    }

    /// What ended after the reservation that ended then, in order, as long as it is remembered.
    pub fn ended_after(
        &self,
        (at, id): (LedgerTime, ReservationId),
    ) -> impl Iterator<Item = &std::sync::Arc<Reservation>> {
        let later = self.ended.range((Bound::Excluded((at, id)), Bound::Unbounded));
        later.filter_map(|(_, id)| self.reservation(*id))
    }

    /// Those of a priority that wait for a pool, oldest first.
    pub fn pending_at(&self, pool: &str, priority: i32) -> impl Iterator<Item = ReservationId> {
        let all = (Reverse(priority), ReservationId(0))..=(Reverse(priority), ReservationId(u64::MAX));
        self.pending
            .get(pool)
            .into_iter()
            .flat_map(move |waiting| waiting.range(all.clone()))
            .map(|(_, id)| *id)
    }
}
