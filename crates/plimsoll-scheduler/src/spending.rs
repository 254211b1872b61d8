//! What grants on their way will take of limits and budgets: the ledger's own check, with bookings in flight beside what it has in its book.
//!
//! The book is read from the ledger each time, so that nothing is copied; only bookings are kept here.

use std::collections::BTreeMap;

use plimsoll_ledger::{Blocker, Ledger, Placement, Request, UsageKey, charge, least};

/// What bookings in flight will take, by meter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spending {
    booked: BTreeMap<UsageKey, u64>,
}

impl Spending {
    /// What keeps the least of a request that is of use from being granted now. Free of cost where nothing is counted.
    pub(crate) fn blockers(&self, ledger: &Ledger, request: &Request, requester: &str) -> Vec<Blocker> {
        if !ledger.counts_usage() {
            return Vec::new();
        }
        ledger.usage_blockers(request, requester, &least(request), &self.booked)
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
            let total = charge(&request.requirements.amounts, &placement.members)?;
            if ledger.usage_blockers(request, requester, &total, &self.booked).is_empty() {
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
        let Some(total) = charge(&request.requirements.amounts, &placement.members) else {
            return Vec::new();
        };
        let wanted = ledger.usage_wanted(request, requester, &total);
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
