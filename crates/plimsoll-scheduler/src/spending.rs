//! What grants on their way will take of limits and budgets: the ledger's own check, with bookings in flight beside what it has in its book.
//!
//! The book is read from the ledger each time, so that nothing is copied; only bookings are kept here.

use std::collections::BTreeMap;

use plimsoll_ledger::{Blocker, Ledger, Placement, Request, Reservation, UsageKey, least};
use plimsoll_types::{LedgerTime, Resources};

/// What bookings in flight will take, by meter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spending {
    booked: BTreeMap<UsageKey, u64>,
    /// When a budget that fades has enough for the first of those who wait for it.
    fades_at: Option<LedgerTime>,
}

/// Of each pool so many who wait are looked at, in the order of its queue, for when a budget has faded enough for them.
const MOST_WAITING: usize = 256;

impl Spending {
    /// What keeps the least of a request that is of use from being granted now. Free of cost where nothing is counted.
    pub(crate) fn blockers(&self, ledger: &Ledger, request: &Request, requester: &str) -> Vec<Blocker> {
        if !ledger.counts_usage() {
            return Vec::new();
        }
        let total = least(request);
        let least = ledger.cheapest(&total, &request.pool);
        ledger.usage_blockers(request, requester, least, &self.booked)
    }

    /// What keeps a request from being granted these amounts at a place.
    pub(crate) fn blockers_at(
        &self,
        ledger: &Ledger,
        request: &Request,
        requester: &str,
        place: &Placement,
        amounts: &Resources,
    ) -> Vec<Blocker> {
        if !ledger.counts_usage() {
            return Vec::new();
        }
        ledger.usage_blockers(request, requester, ledger.priced(amounts, &place.members), &self.booked)
    }

    /// Looks up when what fades has faded enough for somebody who waits: nothing else happens then. O(pools x `MOST_WAITING` x quotas).
    pub(crate) fn note_fading(&mut self, ledger: &Ledger) {
        self.fades_at = None;
        if !ledger.has_fading_budgets() {
            return;
        }
        for pool in ledger.pools() {
            let waiting = ledger.pending(&pool.name).take(MOST_WAITING);
            for waiting in waiting.filter_map(|id| ledger.reservation(id)) {
                self.note_waiting(ledger, waiting);
            }
        }
    }

    /// The same for one who joined the queue.
    pub(crate) fn note_waiting(&mut self, ledger: &Ledger, waiting: &Reservation) {
        let request = &waiting.request;
        let total = least(request);
        let least = ledger.cheapest(&total, &request.pool);
        if let Some(at) = ledger.usage_fades_at(request, &waiting.requester, least) {
            self.fades_at = Some(self.fades_at.map_or(at, |known| known.min(at)));
        }
    }

    pub(crate) fn fades_at(&self) -> Option<LedgerTime> {
        self.fades_at
    }

    /// Drops members from the end until limits and budgets are enough for the rest; `None` where too few are left.
    pub(crate) fn trim(
        &self,
        ledger: &Ledger,
        request: &Request,
        requester: &str,
        mut placement: Placement,
    ) -> Option<Placement> {
        let least = request.gang.min_members.max(1) as usize;
        while ledger.counts_usage() && placement.members.len() >= least {
            let total = request.charge(&placement.members)?;
            let priced = ledger.priced(&total, &placement.members);
            if ledger.usage_blockers(request, requester, priced, &self.booked).is_empty() {
                break;
            }
            placement.members.pop();
        }
        crate::planner::keep_groups(request, &mut placement);
        (placement.members.len() >= least).then_some(placement)
    }

    /// Books what a placement will take; what to give back when it is settled.
    pub(crate) fn take(
        &mut self,
        ledger: &Ledger,
        request: &Request,
        requester: &str,
        placement: &Placement,
    ) -> Vec<(UsageKey, u64)> {
        if !ledger.counts_usage() {
            return Vec::new();
        }
        let Some(total) = request.charge(&placement.members) else { return Vec::new() };
        let priced = ledger.priced(&total, &placement.members);
        let wanted = ledger.usage_wanted(request, requester, priced);
        for (key, amount) in &wanted {
            let booked = self.booked.entry(key.clone()).or_default();
            *booked = booked.saturating_add(*amount);
        }
        wanted
    }

    pub(crate) fn give_back(&mut self, taken: &[(UsageKey, u64)]) {
        for (key, amount) in taken {
            if let Some(booked) = self.booked.get_mut(key) {
                *booked = booked.saturating_sub(*amount);
                if *booked == 0 {
                    self.booked.remove(key);
                }
            }
        }
    }
}
