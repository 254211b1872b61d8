//! Keeps the books in step with nodes, grants and advance reservations. Called by the `put_*` functions of `crate::index` alone.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_types::{Amount, LedgerTime, NodeId, ReservationId, Resources};

use super::book::{Used, add};
use super::{Ask, Book, Calendar, Plan, Room, Run, Runs, Schedule, Users, Window};
use crate::quota::GPU;
use crate::{Class, GpuShare, Ledger, Node, Request, Reservation, RowPlace, WHOLE_DEVICE_MILLI};

impl Ledger {
    /// Puts a schedule. Its pool's book is made anew by [`Ledger::remake_book`].
    pub(crate) fn put_schedule(&mut self, schedule: Arc<Schedule>) {
        self.touched.row(RowPlace::Schedule(schedule.name.clone()));
        if let Some(book) = self.calendar.books.get_mut(&schedule.pool)
            && let Some(known) = book.schedules.get_mut(&schedule.name)
        {
            *known = Arc::clone(&schedule);
        }
        self.schedules.insert(schedule.name.clone(), schedule);
    }

    pub(crate) fn remove_schedule(&mut self, name: &str) {
        self.touched.row(RowPlace::Schedule(name.to_owned()));
        self.schedules.remove(name);
    }

    /// Every book from nothing. O(reservations x windows) where there is anything to keep, else O(reservations).
    pub(crate) fn recount_calendar(&mut self) {
        self.calendar = Calendar::default();
        let keeping = self.schedules.values().filter(|schedule| !schedule.keeps_nothing());
        let schedules = keeping.map(|schedule| schedule.pool.clone());
        let plans = self.reservations.values().filter(|r| r.is_advance());
        let plans = plans.map(|plan| plan.request.pool.clone());
        let classes = self.guarantees().map(|(_, pool, _)| pool.to_owned());
        let mut pools: Vec<String> = schedules.chain(plans).chain(classes).collect();
        pools.sort_unstable();
        pools.dedup();
        for pool in pools {
            self.remake_book(&pool);
        }
    }

    /// The book of one pool from nothing; none where nothing of it is kept.
    pub(crate) fn remake_book(&mut self, pool: &str) {
        self.calendar.books.remove(pool);
        self.calendar.runs.remove(pool);
        let (book, runs) = self.make_book(pool);
        if !book.schedules.is_empty() || !book.plans.is_empty() {
            self.calendar.books.insert(pool.to_owned(), book);
            self.calendar.runs.insert(pool.to_owned(), runs);
        }
    }

    fn make_book(&self, pool: &str) -> (Book, Runs) {
        let (mut book, mut runs) = (Book::default(), Runs::new());
        let keeping = self.schedules.values().filter(|schedule| !schedule.keeps_nothing());
        for schedule in keeping.filter(|schedule| schedule.pool == pool) {
            book.schedules.insert(schedule.name.clone(), Arc::clone(schedule));
        }
        for (class, _, kept) in self.guarantees().filter(|(_, of, _)| *of == pool) {
            let schedule = guarantee(class, pool, kept);
            book.schedules.insert(schedule.name.clone(), Arc::new(schedule));
        }
        let planned = self.reservations.values().filter(|r| r.is_advance() && r.request.pool == pool);
        for reservation in planned {
            let plan = plan_of(reservation, &book);
            book.plans.insert(reservation.id, plan);
        }
        let starts =
            book.schedules.values().flat_map(|schedule| &schedule.windows).map(|window| window.start);
        let starts: Vec<LedgerTime> =
            starts.chain(book.plans.values().map(|plan| plan.window.start)).collect();
        book.instants = starts.into_iter().map(|start| (start, Used::default())).collect();
        book.capacity = self.countables_of(pool);
        for node in self.nodes().filter(|node| node.pool == pool) {
            add(&mut book.capacity, &self.offered_by(node));
        }
        for reservation in self.reservations.values().filter(|r| r.state.is_occupying()) {
            for (_, amounts) in self.taken_by(reservation, |of| of == pool) {
                count_in(&mut book, &mut runs, reservation, pool, amounts, true);
            }
        }
        (book, runs)
    }

    /// Class, pool and what of it is kept for the class.
    pub(crate) fn guarantees(&self) -> impl Iterator<Item = (&Class, &str, &Resources)> {
        self.classes.values().flat_map(|class| {
            class.guaranteed.iter().map(move |(pool, kept)| (class.as_ref(), pool.as_str(), kept))
        })
    }

    /// A reservation changed: its run and its plan follow.
    pub(crate) fn calendar_follows(&mut self, old: Option<&Reservation>, new: &Reservation) {
        if self.calendar.paused {
            return;
        }
        let planned = Reservation::is_advance;
        if let Some(old) = old.filter(|old| planned(old) && !planned(new)) {
            self.remove_plan(old);
        }
        if planned(new) && !old.is_some_and(planned) {
            self.add_plan(new);
        }
        if self.calendar.is_empty() {
            return;
        }
        let same = |old: &Reservation| {
            old.state.is_occupying() == new.state.is_occupying()
                && old.amounts == new.amounts
                && old.members == new.members
                && old.hard_end == new.hard_end
        };
        if old.is_some_and(same) {
            return;
        }
        if let Some(old) = old {
            self.count_run(old, false);
        }
        self.count_run(new, true);
    }

    /// A node changes: what it offers and what is taken of it leaves the books before, and enters them after. Returns what
    /// has to enter again; `None` where the books see no change.
    pub(crate) fn calendar_lets_go(&mut self, old: &Node, new: &Node) -> Option<Vec<Arc<Reservation>>> {
        if self.calendar.is_empty() || !(self.calendar.has(&old.pool) || self.calendar.has(&new.pool)) {
            return None;
        }
        let same = old.pool == new.pool
            && old.is_eligible() == new.is_eligible()
            && old.allocatable == new.allocatable
            && old.registration.devices == new.registration.devices
            && old.fence_pending == new.fence_pending;
        if same {
            return None;
        }
        let holders: Vec<Arc<Reservation>> = self.holders(old.id).cloned().collect();
        for reservation in &holders {
            self.count_run(reservation, false);
        }
        let offered = self.offered_by(old);
        if let Some(book) = self.calendar.books.get_mut(&old.pool) {
            book.capacity.saturating_sub_assign(&offered);
        }
        Some(holders)
    }

    /// The other half of [`Ledger::calendar_lets_go`], and for new nodes all of it.
    pub(crate) fn calendar_takes_in(&mut self, node: &Node, holders: &[Arc<Reservation>]) {
        let offered = self.offered_by(node);
        if let Some(book) = self.calendar.books.get_mut(&node.pool) {
            add(&mut book.capacity, &offered);
        }
        for reservation in holders {
            self.count_run(reservation, true);
        }
    }

    /// What an advance reservation may have: judged at its start and at each window that starts while it runs. O(grants of the pool).
    pub(crate) fn judge_plan(&self, request: &Request, window: Window) -> Room {
        let amounts = most_of(request);
        let ask = Ask {
            request,
            amounts: &amounts,
            from: window.start,
            until: window.end,
            plan: None,
            may_cut: false,
        };
        match (self.calendar.books.get(&request.pool), self.calendar.runs.get(&request.pool)) {
            (Some(book), Some(runs)) => book.judge(&ask, Some(&used_at(book, runs, window.start))),
            // Nothing is kept of it yet.
            _ => {
                let (book, runs) = self.make_book(&request.pool);
                book.judge(&ask, Some(&used_at(&book, &runs, window.start)))
            }
        }
    }

    fn add_plan(&mut self, reservation: &Reservation) {
        let pool = &reservation.request.pool;
        if !self.calendar.has(pool) {
            // The reservation is among the rows already.
            return self.remake_book(pool);
        }
        let start = LedgerTime(reservation.request.start_at_ms);
        if let (Some(book), Some(runs)) = (self.calendar.books.get_mut(pool), self.calendar.runs.get(pool)) {
            let used = used_at(book, runs, start);
            let plan = plan_of(reservation, book);
            book.plans.insert(reservation.id, plan);
            book.instants.entry(start).or_insert(used);
        }
    }

    fn remove_plan(&mut self, reservation: &Reservation) {
        let pool = &reservation.request.pool;
        let Some(book) = self.calendar.books.get_mut(pool) else { return };
        if let Some(plan) = book.plans.remove(&reservation.id)
            && !book.starts_at(plan.window.start)
        {
            book.instants.remove(&plan.window.start);
        }
        if book.plans.is_empty() && book.schedules.is_empty() {
            self.calendar.books.remove(pool);
            self.calendar.runs.remove(pool);
        }
    }

    /// Counts what a grant takes in the books of the pools that its nodes are in.
    fn count_run(&mut self, reservation: &Reservation, is_more: bool) {
        if !reservation.state.is_occupying() {
            return;
        }
        for (pool, amounts) in self.taken_by(reservation, |pool| self.calendar.has(pool)) {
            if let (Some(book), Some(runs)) =
                (self.calendar.books.get_mut(&pool), self.calendar.runs.get_mut(&pool))
            {
                count_in(book, runs, reservation, &pool, amounts, is_more);
            }
        }
    }

    /// Counts a grant as if it were not there, or again, for a look at what would be left. O(its members + windows).
    pub(crate) fn calendar_looks_past(&mut self, reservation: &Reservation, is_there: bool) {
        if self.calendar.is_empty() || !reservation.state.is_occupying() {
            return;
        }
        for (pool, amounts) in self.taken_by(reservation, |pool| self.calendar.has(pool)) {
            if let Some(book) = self.calendar.books.get_mut(&pool) {
                let owner = owner_in(book, reservation, &pool);
                book.count(&amounts, owner.as_deref(), end_of(reservation), is_there);
            }
        }
    }

    /// Takes a grant out of a copy of the books, for a planner's look at what would be left without it. O(its members + windows).
    pub fn leave_out(&self, calendar: &mut Calendar, reservation: &Reservation) {
        if !reservation.state.is_occupying() {
            return;
        }
        for (pool, amounts) in self.taken_by(reservation, |pool| calendar.has(pool)) {
            if let Some(book) = calendar.books.get_mut(&pool) {
                let owner = owner_in(book, reservation, &pool);
                book.count(&amounts, owner.as_deref(), end_of(reservation), false);
            }
        }
    }

    /// What a grant takes of each pool: of nodes that are available, and of its own pool's countables.
    fn taken_by(
        &self,
        reservation: &Reservation,
        is_wanted: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, Resources> {
        let own = &reservation.request.pool;
        let shares = self.shares(reservation);
        let mut taken: BTreeMap<String, Resources> = BTreeMap::new();
        for member in &reservation.members {
            let Some(node) = self.node(member.node).filter(|node| node.is_eligible()) else { continue };
            if !is_wanted(&node.pool) {
                continue;
            }
            let sum = taken.entry(node.pool.clone()).or_default();
            add(sum, shares.on_node(member));
            let milli = member.devices.iter().map(|grant| u64::from(grant.milli)).sum();
            add(sum, &Resources::default().with(GPU, milli));
        }
        let in_pool = shares.in_pool(&reservation.members);
        if !in_pool.is_zero() && is_wanted(own) {
            add(taken.entry(own.clone()).or_default(), &in_pool);
        }
        taken
    }

    /// What a node has for its pool: what it offers, less what a lost workload may still run there; nothing while it takes no work.
    pub(crate) fn offered_by(&self, node: &Node) -> Resources {
        if !node.is_eligible() {
            return Resources::default();
        }
        let healthy = node.registration.devices.iter().filter(|device| !device.failed).count() as u64;
        let mut offered = node.allocatable.clone();
        for name in self.countables_of(&node.pool).iter().map(|(name, _)| name) {
            offered.set(name, Amount::ZERO);
        }
        add(&mut offered, &Resources::default().with(GPU, healthy * u64::from(WHOLE_DEVICE_MILLI)));
        for pending in &node.fence_pending {
            offered.saturating_sub_assign(&pending.amounts);
            let milli = pending.devices.iter().map(|grant| u64::from(grant.milli)).sum();
            offered.saturating_sub_assign(&Resources::default().with(GPU, milli));
        }
        offered
    }

    fn countables_of(&self, pool: &str) -> Resources {
        let mut all = Resources::default();
        for (name, total) in self.pools.get(pool).into_iter().flat_map(|pool| &pool.countables) {
            all.set(name, *total);
        }
        all
    }

    /// Removes a node's offer from its pool's book.
    pub(crate) fn calendar_forgets(&mut self, id: NodeId) {
        let Some(node) = self.node(id).cloned() else { return };
        let offered = self.offered_by(&node);
        if let Some(book) = self.calendar.books.get_mut(&node.pool) {
            book.capacity.saturating_sub_assign(&offered);
        }
    }
}

impl Calendar {
    /// The first grant that takes some of these, runs past `at` and may be cut. O(grants that end later).
    pub(crate) fn first_to_cut(&self, pool: &str, at: LedgerTime, short: &[String]) -> Option<ReservationId> {
        let later = self.runs.get(pool)?.iter().take_while(|((Reverse(end), ..), _)| *end > at);
        let mut others = later.filter(|(_, run)| run.owner.is_none() && !run.fixed);
        let takes = |run: &Run| short.iter().any(|name| !run.amounts.get(name).is_zero());
        others.find(|(_, run)| takes(run)).map(|((_, _, Reverse(id)), _)| *id)
    }
}

/// What is kept for a class, as a schedule whose window is always open. No schedule has such a name.
fn guarantee(class: &Class, pool: &str, kept: &Resources) -> Schedule {
    Schedule {
        name: format!("class {}", class.name),
        pool: pool.to_owned(),
        resources: kept.clone(),
        users: Users { classes: vec![class.name.clone()], ..Users::default() },
        windows: vec![Window { start: LedgerTime(0), end: LedgerTime(u64::MAX) }],
        ..Schedule::default()
    }
}

/// What will still be taken at some moment ahead. O(grants that end later) where no window starts then.
fn used_at(book: &Book, runs: &Runs, at: LedgerTime) -> Used {
    if let Some(used) = book.instants.get(&at) {
        return used.clone();
    }
    let mut used = Used::default();
    for (_, run) in runs.iter().take_while(|((Reverse(end), ..), _)| *end > at) {
        used.count(&run.amounts, run.owner.as_deref(), true);
    }
    used
}

/// Counts a grant in a book and its list.
fn count_in(
    book: &mut Book,
    runs: &mut Runs,
    reservation: &Reservation,
    pool: &str,
    amounts: Resources,
    is_more: bool,
) {
    let (request, end) = (&reservation.request, end_of(reservation));
    let owner = owner_in(book, reservation, pool);
    book.count(&amounts, owner.as_deref(), end, is_more);
    let key = (Reverse(end), reservation.priority, Reverse(reservation.id));
    if is_more {
        runs.insert(key, Run { amounts, owner, fixed: request.start_at_ms > 0 });
    } else {
        runs.remove(&key);
    }
}

/// The schedule that a grant counts for. One of another pool, on a node that came to this one, counts for nobody here.
fn owner_in(book: &Book, reservation: &Reservation, pool: &str) -> Option<String> {
    let request = &reservation.request;
    if pool == request.pool { book.owner_of(request) } else { None }
}

/// The latest moment at which a grant ends.
pub(crate) fn end_of(reservation: &Reservation) -> LedgerTime {
    if reservation.hard_end.0 > 0 { reservation.hard_end } else { LedgerTime(u64::MAX) }
}

/// What all members of a request take at most. A share by memory or profile counts as a whole device: which part it is depends on
/// the device.
pub(crate) fn most_of(request: &Request) -> Resources {
    let mut all = Resources::default();
    for (needs, members) in request.kinds_with_most() {
        let mut each = needs.amounts.clone();
        let milli = needs.gpu.as_ref().map_or(0, |gpu| match gpu.share {
            GpuShare::Milli(milli) => milli.into(),
            GpuShare::Whole | GpuShare::Memory(_) | GpuShare::Mig(_) => {
                u64::from(gpu.count) * u64::from(WHOLE_DEVICE_MILLI)
            }
        });
        add(&mut each, &Resources::default().with(GPU, milli));
        for (name, amount) in each.iter() {
            let of_role = amount.0.saturating_mul(members.into());
            all.set(name, Amount(all.get(name).0.saturating_add(of_role)));
        }
    }
    all
}

/// From the start of an advance reservation to its end.
pub(crate) fn window_of(request: &Request) -> Window {
    let start = LedgerTime(request.start_at_ms);
    Window { start, end: start.plus_ms(request.max_duration_ms) }
}

fn plan_of(reservation: &Reservation, book: &Book) -> Plan {
    let request = &reservation.request;
    Plan { amounts: most_of(request), window: window_of(request), owner: book.owner_of(request) }
}
