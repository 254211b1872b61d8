//! Who may start without delaying a planned start, and planned starts for the first that may not.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_ledger::{
    Blocker, Ledger, Placement, Pool, Reason, Request, Reservation, State, UsageKey, Verdict,
};
use plimsoll_mutants::mutant;
use plimsoll_types::{Amount, LedgerTime, NodeId, ReservationId, Resources};

use super::future::FOREVER;
use super::gangs;
use super::search::Search;
use super::{Agenda, Head, LOOKS_PER_PASS, Planned};
use crate::Planner;
use crate::fit::Stock;
use crate::fleet::split;
use crate::headroom::Charge;
use crate::planner::requester_of;

/// The ticket under which planned countables are set aside for the moment of a search: no booking has it.
const PLANNED: u64 = u64::MAX;

/// What planned starts will take.
#[derive(Default)]
struct Charges {
    of_quotas: Vec<Charge>,
    of_usage: Vec<(UsageKey, u64)>,
}

impl Planner {
    /// True where those who wait for a pool are served around what lies ahead.
    pub(crate) fn looks_ahead(&self, pool: &str) -> bool {
        self.ahead.pools.contains_key(pool)
    }

    /// A place for one that waits that delays no planned start; else it gets a planned start itself where it is among the first.
    pub(crate) fn find_ahead(
        &mut self,
        ledger: &Ledger,
        id: ReservationId,
        request: &Request,
    ) -> Option<Placement> {
        let requester = requester_of(ledger, id);
        if self.is_closed_to(Some(id), request)
            || !self.spending.blockers(ledger, request, requester).is_empty()
            || self.headroom.binding(request).is_some()
        {
            return None;
        }
        let (shape, until_ms) = (self.shape(ledger, request), self.until_ms(ledger, request));
        let agenda = self.ahead.pools.get_mut(&request.pool)?;
        let is_head = agenda.heads.contains_key(&id);
        if is_head && !agenda.tried.insert(id) {
            return None;
        }
        let known = agenda.failed.get(&shape).is_some_and(|shortest| until_ms >= *shortest);
        // Whose time has come is tried whatever else was looked at.
        let planned = agenda.heads.get(&id).and_then(|head| head.planned.as_ref());
        let is_due = planned.is_some_and(|planned| planned.spot.start_ms <= self.ahead.now_ms);
        if is_due || ((is_head || !known) && agenda.looks > 0) {
            let found = self.find_around(ledger, Some(id), request, requester, until_ms);
            let agenda = self.ahead.pools.get_mut(&request.pool)?;
            if found.is_some() {
                agenda.drop_head(id);
                return found;
            }
            if !is_head {
                agenda.failed.insert(shape, until_ms);
            }
            self.hunt.due = true;
        }
        if self.ahead.pools.get(&request.pool).is_some_and(|agenda| agenda.looks == 0) {
            return None;
        }
        // Who would rather start in certain hours is promised no other.
        if !ledger.reservation(id).is_some_and(|waiting| ledger.prefers_hours(waiting)) {
            self.plan_start(ledger, id, request, until_ms);
        }
        // Greedy in another order, it may have found a place for a gang that is there now.
        let agenda = self.ahead.pools.get(&request.pool)?;
        let found = self.place_planned(ledger, agenda, id, request, until_ms)?;
        let found = self.spending.trim(ledger, request, requester, found)?;
        self.ahead.pools.get_mut(&request.pool)?.drop_head(id);
        Some(found)
    }

    /// A place for a new request that delays no planned start and passes no barrier, or all that stands in the way.
    pub(crate) fn place_behind(&mut self, ledger: &Ledger, request: &Request, requester: &str) -> Verdict {
        self.read_quota(ledger);
        let until_ms = self.until_ms(ledger, request);
        let may_look = self.ahead.pools.get(&request.pool).is_some_and(|agenda| agenda.looks > 0);
        let free_to = may_look
            && !self.is_closed_to(None, request)
            && self.unpayable(ledger, request, requester).is_empty();
        let found = if free_to { self.find_around(ledger, None, request, requester, until_ms) } else { None };
        if let Some(placement) = found {
            return Verdict::Place(placement);
        }
        match self.refusal(ledger, request, requester) {
            Verdict::Blocked(mut blockers) if blockers.is_empty() => {
                let ahead = self.ahead.pools.get(&request.pool).map_or(0, |agenda| agenda.heads.len() as u64);
                blockers.push(Blocker::new(Reason::BehindInQueue, request.pool.as_str(), 1, ahead));
                Verdict::Blocked(blockers)
            }
            other => other,
        }
    }

    /// Begins a batch of new requests: those of pools that hold back are placed by [`Planner::place_behind`].
    pub(crate) fn begin_batch(&mut self, ledger: &Ledger) {
        self.set_time(ledger.clock());
        let pools: Vec<String> = self.ahead.pools.keys().cloned().collect();
        for pool in pools {
            if let Some(agenda) = self.ahead.pools.get_mut(&pool) {
                agenda.looks = LOOKS_PER_PASS;
            }
            self.raise_barrier(&pool);
        }
    }

    /// Ends it.
    pub(crate) fn end_batch(&mut self) {
        let pools: Vec<String> = self.ahead.pools.keys().cloned().collect();
        for pool in pools {
            // What came free is still to be offered to those who wait.
            let freed = self.ahead.pools.get_mut(&pool).map(|agenda| std::mem::take(&mut agenda.freed));
            self.end_turns(&pool);
            if let (Some(agenda), Some(freed)) = (self.ahead.pools.get_mut(&pool), freed) {
                agenda.freed = freed;
            }
        }
    }

    /// Drops heads that wait no longer and planned starts that no longer stand.
    pub(super) fn review_heads(&mut self, ledger: &Ledger, pool: &Pool) {
        let now_ms = self.ahead.now_ms;
        let Some(mut agenda) = self.ahead.pools.remove(&pool.name) else { return };
        let ids: Vec<ReservationId> = agenda.heads.keys().copied().collect();
        for id in ids {
            let waiting = ledger.reservation(id).filter(|waiting| waiting.state == State::Pending);
            let waits_for_room =
                |waiting: &&Arc<Reservation>| !self.placing.contains(&id) && !ledger.prefers_hours(waiting);
            let Some(waiting) = waiting.filter(waits_for_room) else {
                agenda.drop_head(id);
                continue;
            };
            let Some(planned) = agenda.heads.get(&id).and_then(|head| head.planned.clone()) else {
                // Nothing was planned for it: it is looked at anew.
                agenda.drop_head(id);
                continue;
            };
            let start_ms = planned.spot.start_ms.max(now_ms);
            let counts = |other: ReservationId| other != id;
            let search = Search {
                ledger,
                fleet: &self.fleet,
                future: &agenda.future,
                request: &waiting.request,
                now_ms,
                length_ms: self.length_ms(ledger, &waiting.request),
                from_ms: 0,
                counts: &counts,
            };
            if !search.stands(&planned.spot, start_ms) {
                agenda.drop_head(id);
            }
        }
        // Those that the policy has no planned starts for any more.
        while agenda.heads.len() > agenda.depth {
            let Some(last) = agenda.last_head() else { break };
            agenda.drop_head(last);
        }
        self.ahead.pools.insert(pool.name.clone(), agenda);
    }

    /// A planned start for one of the first that wait: an earlier one than it has, where there is one.
    fn plan_start(&mut self, ledger: &Ledger, id: ReservationId, request: &Request, until_ms: u64) {
        let priority = self.priority_here(ledger, Some(id), request);
        let Some(mut agenda) = self.ahead.pools.remove(&request.pool) else { return };
        if !agenda.heads.contains_key(&id) && agenda.heads.len() >= agenda.depth {
            // The first are the first by class: one of a higher class takes the place of the last of a lower one.
            match agenda
                .last_head()
                .filter(|last| agenda.heads.get(last).is_some_and(|head| head.priority < priority))
            {
                Some(last) => agenda.drop_head(last),
                None => {
                    self.ahead.pools.insert(request.pool.clone(), agenda);
                    return;
                }
            }
        }
        let old = agenda.heads.get(&id).and_then(|head| head.planned.clone());
        agenda.drop_head(id);
        let counts = agenda.counts(Some(id), priority);
        // What those who are planned will take of quotas, limits and budgets must leave enough for this one, too.
        let charges = self.take_charges(ledger, &agenda, &counts);
        let is_short = self.headroom.binding(request).is_some()
            || !self.spending.blockers(ledger, request, requester_of(ledger, id)).is_empty();
        self.give_back_charges(charges);
        if is_short && old.is_none() {
            agenda.heads.insert(id, Head { priority, planned: None });
            self.ahead.pools.insert(request.pool.clone(), agenda);
            return;
        }
        let planned = {
            let search = Search {
                ledger,
                fleet: &self.fleet,
                future: &agenda.future,
                request,
                now_ms: self.ahead.now_ms,
                length_ms: if until_ms == FOREVER { FOREVER } else { until_ms - self.ahead.now_ms },
                from_ms: 0,
                counts: &counts,
            };
            let mut looks = agenda.looks;
            let found = match &old {
                // Only where something came free can there be an earlier place for a single member.
                Some(_)
                    if request.gang.min_members <= 1
                        && !gangs::is_for(request)
                        && split(ledger, request).1.is_zero() =>
                {
                    search.earliest_among(&agenda.freed, &mut looks)
                }
                _ => search.earliest(&mut looks),
            };
            (found, looks)
        };
        agenda.looks = planned.1;
        let new = planned.0.map(|spot| Planned { spot, revision: ledger.revision() });
        let planned = match (old, new) {
            // What was promised stands: looking again can only find better.
            (Some(old), Some(new)) if new.spot.start_ms >= old.spot.start_ms => Some(old),
            (Some(old), Some(new)) => {
                // Its old place is there for those behind it.
                agenda.freed.extend(old.spot.placement.members.iter().map(|member| member.node));
                Some(new)
            }
            (old, None) => old,
            (_, new) => new,
        };
        if let Some(planned) = &planned {
            agenda.future.plan(ledger, id, request, &planned.spot);
        }
        agenda.heads.insert(id, Head { priority, planned });
        self.ahead.pools.insert(request.pool.clone(), agenda);
    }

    /// A place now that leaves alone what is planned for others of at least its class. O(nodes with planned starts + log n).
    fn find_around(
        &mut self,
        ledger: &Ledger,
        id: Option<ReservationId>,
        request: &Request,
        requester: &str,
        until_ms: u64,
    ) -> Option<Placement> {
        let priority = self.priority_here(ledger, id, request);
        let mut agenda = self.ahead.pools.remove(&request.pool)?;
        let now_ms = self.ahead.now_ms;
        let until_ms = if mutant!("backfill-delays-the-head") { now_ms + 1 } else { until_ms };
        let mut before: Vec<(NodeId, Stock)> = Vec::new();
        let charges = {
            let counts = agenda.counts(id, priority);
            for node in agenda.future.planned_nodes() {
                let through = agenda.future.through(&self.fleet, node, now_ms, until_ms, &counts);
                let (Some(mut least), Some(view)) = (through, self.fleet.get(node)) else { continue };
                least.keep_least(view);
                let (least, now) = (least.stock(), view.stock());
                if least != now {
                    before.push((node, now));
                    self.fleet.restore(node, least);
                }
            }
            let mut set_aside = Resources::default();
            for kind in request.by_role() {
                for (name, _) in split(ledger, &kind).1.iter() {
                    let free = ledger
                        .pool(&request.pool)
                        .map_or(0, |pool| self.fleet.countable_free(ledger, pool, name));
                    let through = agenda.future.countable_through(name, free, now_ms, until_ms, &counts);
                    set_aside.set(name, Amount(free.saturating_sub(through)));
                }
            }
            if !set_aside.is_zero() {
                self.fleet.book_countables(PLANNED, &request.pool, set_aside);
            }
            self.take_charges(ledger, &agenda, &counts)
        };
        agenda.looks = agenda.looks.saturating_sub(1 + before.len() as u64);
        let found = self.find(ledger, request);
        let found = found.or_else(|| self.place_planned(ledger, &agenda, id?, request, until_ms));
        let found = found.and_then(|found| self.afford(ledger, request, requester, found));
        self.give_back_charges(charges);
        self.fleet.unbook(PLANNED, &request.pool, std::iter::empty());
        for (node, stock) in before {
            self.fleet.restore(node, stock);
        }
        self.ahead.pools.insert(request.pool.clone(), agenda);
        found
    }

    /// The place that was planned for a gang whose time has come: another search, greedy in another order, may not find one.
    fn place_planned(
        &self,
        ledger: &Ledger,
        agenda: &Agenda,
        id: ReservationId,
        request: &Request,
        until_ms: u64,
    ) -> Option<Placement> {
        let now_ms = self.ahead.now_ms;
        let planned = agenda.heads.get(&id).and_then(|head| head.planned.as_ref());
        let spot = &planned.filter(|planned| planned.spot.start_ms <= now_ms)?.spot;
        let counts = |other: ReservationId| other != id;
        let search = Search {
            ledger,
            fleet: &self.fleet,
            future: &agenda.future,
            request,
            now_ms,
            length_ms: if until_ms == FOREVER { FOREVER } else { until_ms.saturating_sub(now_ms) },
            from_ms: 0,
            counts: &counts,
        };
        let is_there = gangs::is_for(request) && search.stands(spot, now_ms);
        (is_there && ledger.admit(request, &spot.placement).is_ok()).then(|| spot.placement.clone())
    }

    /// Takes what those with planned starts will take of quotas, limits and budgets, for the moment.
    fn take_charges(
        &mut self,
        ledger: &Ledger,
        agenda: &Agenda,
        counts: &dyn Fn(ReservationId) -> bool,
    ) -> Charges {
        let mut taken = Charges::default();
        for (other, head) in agenda.heads.iter().filter(|(other, _)| counts(**other)) {
            let (Some(planned), Some(waiting)) = (&head.planned, ledger.reservation(*other)) else {
                continue;
            };
            let placement = &planned.spot.placement;
            taken.of_quotas.extend(Charge::of(&waiting.request, placement));
            let requester = &waiting.requester;
            taken.of_usage.extend(self.spending.take(ledger, &waiting.request, requester, placement));
        }
        for charge in &taken.of_quotas {
            self.headroom.take(charge);
        }
        taken
    }

    fn give_back_charges(&mut self, taken: Charges) {
        for charge in &taken.of_quotas {
            self.headroom.give_back(charge);
        }
        self.spending.give_back(&taken.of_usage);
    }

    /// Until when a grant made now keeps its place, in milliseconds of ledger time; [`FOREVER`] where it declares no length.
    fn until_ms(&self, ledger: &Ledger, request: &Request) -> u64 {
        ledger.would_leave_by(request, LedgerTime(self.ahead.now_ms)).map_or(FOREVER, |until| until.0)
    }

    fn length_ms(&self, ledger: &Ledger, request: &Request) -> u64 {
        let until_ms = self.until_ms(ledger, request);
        if until_ms == FOREVER { FOREVER } else { until_ms.saturating_sub(self.ahead.now_ms) }
    }
}

impl Agenda {
    /// Whose planned starts somebody leaves alone: those of others of at least its class.
    fn counts(&self, id: Option<ReservationId>, priority: i32) -> impl Fn(ReservationId) -> bool + use<> {
        let lower: BTreeSet<ReservationId> =
            self.heads.iter().filter(|(_, head)| head.priority < priority).map(|(id, _)| *id).collect();
        move |other| Some(other) != id && !lower.contains(&other)
    }

    /// The last of the heads: the youngest of the lowest class.
    fn last_head(&self) -> Option<ReservationId> {
        let last = self.heads.iter().min_by_key(|(id, head)| (head.priority, std::cmp::Reverse(**id)));
        last.map(|(id, _)| *id)
    }
}
