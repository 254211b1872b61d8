//! The tallies of pools of which something is kept, and the one rule that is decided by them.
//!
//! Invariant: `used` and every instant of a book hold what the grants of its pool that occupy something then take, on nodes that are
//! available; grants only end as time goes on, so that what fits at the start of each window fits in all of it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use plimsoll_types::{Amount, LedgerTime, ReservationId, Resources};

use super::{Schedule, Window, interval, moment};
use crate::limits::MIN_TTL_MS;
use crate::{Blocker, Reason, Request};

/// All pools of which something is kept. Empty, and free of cost, where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    pub(crate) books: BTreeMap<String, Book>,
    /// Per pool with a book, every grant in it.
    pub(crate) runs: BTreeMap<String, Runs>,
    /// Rows are being read: books are made once all are there.
    pub(crate) paused: bool,
}

/// Grants of a pool: the latest end first, then the lowest class, then the youngest.
pub(crate) type Runs = BTreeMap<(Reverse<LedgerTime>, i32, Reverse<ReservationId>), Run>;

/// What a grant takes of a pool, as books see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) amounts: Resources,
    /// The schedule that it counts for.
    pub(crate) owner: Option<String>,
    /// Its end was promised: it is never cut.
    pub(crate) fixed: bool,
}

/// One pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    /// What its available nodes offer, and its countables.
    pub(crate) capacity: Resources,
    pub(crate) schedules: BTreeMap<String, Arc<Schedule>>,
    pub(crate) plans: BTreeMap<ReservationId, Plan>,
    pub(crate) used: Used,
    /// What will still be taken at the start of each window and plan.
    pub(crate) instants: BTreeMap<LedgerTime, Used>,
}

/// What is taken at some moment, and how much of it counts for which schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) total: Resources,
    pub(crate) held: BTreeMap<String, Resources>,
}

/// What an advance reservation keeps for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) amounts: Resources,
    pub(crate) window: Window,
    pub(crate) owner: Option<String>,
}

/// What somebody wants of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The request.
    pub request: &'a Request,
    /// What it takes in all, `gpu` in thousandths.
    pub amounts: &'a Resources,
    /// From when.
    pub from: LedgerTime,
    /// Until when at the latest; the far end of time where there is no such end.
    pub until: LedgerTime,
    /// It is the advance reservation of this id: what that keeps is its own.
    pub plan: Option<ReservationId>,
    /// It may be cut where a schedule says so.
    pub may_cut: bool,
}

/// Whether it may be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// Yes.
    Free,
    /// Until here: the schedule whose window starts then says that others are cut.
    Until(LedgerTime),
    /// No.
    Short(Vec<Blocker>),
}

impl Calendar {
    /// True where nothing of any pool is kept.
    pub fn is_empty(&self) -> bool {
        self.books.is_empty()
    }

    /// True where something of the pool is kept at some time.
    pub fn has(&self, pool: &str) -> bool {
        self.books.contains_key(pool)
    }

    /// The rule: whether `ask` leaves every window what it is kept. O(windows of the pool).
    pub fn judge(&self, ask: &Ask<'_>) -> Room {
        self.books.get(&ask.request.pool).map_or(Room::Free, |book| book.judge(ask, None))
    }

    /// A copy that decides alike, without the list of grants: for a planner.
    pub fn tallies(&self) -> Calendar {
        Calendar { books: self.books.clone(), ..Calendar::default() }
    }

    /// Where a grant that is counted already has left less than is kept for others: the moment and the resource.
    pub(crate) fn left_short(&self, granted: &Ask<'_>) -> Vec<(LedgerTime, String)> {
        self.books.get(&granted.request.pool).map(|book| book.left_short(granted)).unwrap_or_default()
    }

    /// Counts what a grant in flight will take of a pool until `until`, for the schedule `owner`.
    pub fn count(&mut self, pool: &str, owner: Option<&str>, amounts: &Resources, until: LedgerTime) {
        if let Some(book) = self.books.get_mut(pool) {
            book.count(amounts, owner, until, true);
        }
    }

    /// The schedule that a grant of the request counts for: the first by name of those that it may use.
    pub fn owner_of(&self, request: &Request) -> Option<String> {
        self.books.get(&request.pool)?.owner_of(request)
    }

    /// What grants that count for a schedule have of its pool now; nothing where it has no book.
    pub fn held_by(&self, pool: &str, schedule: &str) -> Resources {
        let held = self.books.get(pool).and_then(|book| book.used.held.get(schedule));
        held.cloned().unwrap_or_default()
    }

    /// The next moment after `after` at which a window or an advance reservation of any pool starts or ends. O(schedules log windows + plans).
    pub fn next_change(&self, after: LedgerTime) -> Option<LedgerTime> {
        let edge = |window: Window| if window.start > after { window.start } else { window.end };
        let of_book = |book: &Book| {
            let windows = book.schedules.values().filter_map(|schedule| schedule.next_at(after));
            let plans = book.plans.values().map(|plan| plan.window).filter(|window| window.end > after);
            windows.chain(plans).map(edge).min()
        };
        self.books.values().filter_map(of_book).filter(|at| at.0 < u64::MAX).min()
    }

    /// Which schedules of its pool the request may use, as a number that equals for requests that are judged alike. 0 where nothing is kept.
    pub fn kind_of(&self, request: &Request) -> u64 {
        let Some(book) = self.books.get(&request.pool) else { return 0 };
        let bits = book.schedules.values().take(64).enumerate();
        bits.filter(|(_, schedule)| schedule.users.include(request)).fold(0, |all, (bit, _)| all | 1 << bit)
    }
}

impl Book {
    /// The schedule that a grant of the request counts for: the first by name of those that it may use.
    pub(crate) fn owner_of(&self, request: &Request) -> Option<String> {
        let own = self.schedules.values().find(|schedule| schedule.users.include(request));
        own.map(|schedule| schedule.name.clone())
    }

    /// Counts what runs until `until`, or takes it off again.
    pub(crate) fn count(&mut self, amounts: &Resources, owner: Option<&str>, until: LedgerTime, add: bool) {
        self.used.count(amounts, owner, add);
        for used in self.instants.range_mut(..until).map(|(_, used)| used) {
            used.count(amounts, owner, add);
        }
    }

    /// True where a window or plan starts just then.
    pub(crate) fn starts_at(&self, at: LedgerTime) -> bool {
        let of = |schedule: &Arc<Schedule>| {
            schedule.windows.binary_search_by_key(&at, |window| window.start).is_ok()
        };
        self.schedules.values().any(of) || self.plans.values().any(|plan| plan.window.start == at)
    }

    /// The rule. `first` is what is taken at `ask.from` where that lies ahead; what is taken now otherwise.
    pub(crate) fn judge(&self, ask: &Ask<'_>, first: Option<&Used>) -> Room {
        let usable = self.usable_by(ask.request);
        if self.is_roomy(ask, &usable) {
            return Room::Free;
        }
        let all = std::iter::once((&ask.from, first.unwrap_or(&self.used))).chain(self.ahead(ask));
        for (&at, used) in all {
            let kept = self.kept_at(at, used, &usable, ask.plan);
            let blockers = self.shortages(at, used, &kept, ask, first.is_some());
            if blockers.is_empty() {
                continue;
            }
            if ask.may_cut && at.ms_since(ask.from) >= MIN_TTL_MS && self.cuts_at(at) {
                return Room::Until(at);
            }
            return Room::Short(blockers);
        }
        Room::Free
    }

    /// Names of the schedules that the request may use.
    fn usable_by(&self, request: &Request) -> BTreeSet<&str> {
        let usable = self.schedules.values().filter(|schedule| schedule.users.include(request));
        usable.map(|schedule| schedule.name.as_str()).collect()
    }

    /// The moments within what is asked, without its first, at which more may be kept than before.
    fn ahead(&self, ask: &Ask<'_>) -> impl Iterator<Item = (&LedgerTime, &Used)> {
        let until = ask.until.max(ask.from.plus_ms(1));
        self.instants.range((Bound::Excluded(ask.from), Bound::Excluded(until)))
    }

    fn left_short(&self, granted: &Ask<'_>) -> Vec<(LedgerTime, String)> {
        let usable = self.usable_by(granted.request);
        let mut short = Vec::new();
        for (&at, used) in std::iter::once((&granted.from, &self.used)).chain(self.ahead(granted)) {
            let kept = self.kept_at(at, used, &usable, granted.plan);
            let names = granted.amounts.iter().map(|(name, _)| name).filter(|name| !kept.get(name).is_zero());
            for name in names {
                let needed = u128::from(kept.get(name).0) + u128::from(used.total.get(name).0);
                if needed > u128::from(self.capacity.get(name).0) {
                    short.push((at, name.to_owned()));
                }
            }
        }
        short
    }

    /// Resources of which less is left at `at` than is kept, though nobody asks for more. O(schedules + plans).
    pub(crate) fn short_at(&self, at: LedgerTime) -> Vec<String> {
        let Some(used) = self.instants.get(&at) else { return Vec::new() };
        let mut needed = self.kept_at(at, used, &BTreeSet::new(), None);
        let names: Vec<String> = needed.iter().map(|(name, _)| name.to_owned()).collect();
        add(&mut needed, &used.total);
        names.into_iter().filter(|name| needed.get(name) > self.capacity.get(name)).collect()
    }

    /// Enough even if everything were kept at once: what most asks come to, at a cost that windows do not add to.
    fn is_roomy(&self, ask: &Ask<'_>, usable: &BTreeSet<&str>) -> bool {
        let mut needed = self.used.total.clone();
        for plan in self.plans.values() {
            add(&mut needed, &plan.amounts);
        }
        for schedule in self.schedules.values().filter(|schedule| !usable.contains(schedule.name.as_str())) {
            add(&mut needed, &schedule.resources);
        }
        add(&mut needed, ask.amounts);
        ask.amounts.iter().all(|(name, _)| needed.get(name) <= self.capacity.get(name))
    }

    /// What must stay free at `at` beside what is taken, for one who may use `usable` and is `plan`.
    fn kept_at(
        &self,
        at: LedgerTime,
        used: &Used,
        usable: &BTreeSet<&str>,
        plan: Option<ReservationId>,
    ) -> Resources {
        let mut kept = Resources::default();
        let mut planned: BTreeMap<&str, Resources> = BTreeMap::new();
        for (_, other) in self.plans.iter().filter(|(id, other)| Some(**id) != plan && other.window.holds(at))
        {
            add(&mut kept, &other.amounts);
            if let Some(owner) = &other.owner {
                add(planned.entry(owner).or_default(), &other.amounts);
            }
        }
        for schedule in self.schedules.values() {
            if usable.contains(schedule.name.as_str()) || schedule.open_at(at).is_none() {
                continue;
            }
            let mut held = used.held.get(&schedule.name).cloned().unwrap_or_default();
            if let Some(planned) = planned.get(schedule.name.as_str()) {
                add(&mut held, planned);
            }
            add(&mut kept, &schedule.resources.saturating_sub(&held));
        }
        kept
    }

    /// What is short of the resources that are kept, or of `all`: what is free just now, nodes say better.
    fn shortages(
        &self,
        at: LedgerTime,
        used: &Used,
        kept: &Resources,
        ask: &Ask<'_>,
        all: bool,
    ) -> Vec<Blocker> {
        let counts = |name: &str| all || !kept.get(name).is_zero();
        let short = ask.amounts.iter().filter(|(name, _)| counts(name)).filter_map(|(name, asked)| {
            let limit = self.capacity.get(name);
            let available = limit.saturating_sub(used.total.get(name)).saturating_sub(kept.get(name));
            let subject = || match self.keeper_at(at, name, ask) {
                Some(keeper) => format!("{name} kept for {keeper}"),
                None => format!("{name} from {}", moment(at)),
            };
            let blocker = || Blocker::new(Reason::ReservedByCalendar, subject(), asked.0, available.0);
            (asked > available).then(|| Blocker { limit: limit.0, ..blocker() })
        });
        short.collect()
    }

    /// Who keeps the resource then, for people: the first of them.
    fn keeper_at(&self, at: LedgerTime, resource: &str, ask: &Ask<'_>) -> Option<String> {
        for schedule in self.schedules.values() {
            if !schedule.resources.get(resource).is_zero()
                && !schedule.users.include(ask.request)
                && let Some(window) = schedule.open_at(at)
            {
                return Some(format!("schedule {}, {}", schedule.name, interval(window)));
            }
        }
        let plan = self.plans.iter().find(|(id, plan)| {
            Some(**id) != ask.plan && plan.window.holds(at) && !plan.amounts.get(resource).is_zero()
        });
        plan.map(|(id, plan)| format!("{id}, {}", interval(plan.window)))
    }

    /// True where all that starts just then cuts others.
    fn cuts_at(&self, at: LedgerTime) -> bool {
        let mut starts = self
            .schedules
            .values()
            .filter(|schedule| schedule.windows.binary_search_by_key(&at, |window| window.start).is_ok())
            .peekable();
        starts.peek().is_some()
            && starts.all(|schedule| schedule.shorten)
            && self.plans.values().all(|plan| plan.window.start != at)
    }
}

impl Used {
    pub(crate) fn count(&mut self, amounts: &Resources, owner: Option<&str>, is_more: bool) {
        if is_more {
            add(&mut self.total, amounts);
        } else {
            self.total.saturating_sub_assign(amounts);
        }
        let Some(owner) = owner.filter(|_| !amounts.is_zero()) else { return };
        let held = self.held.entry(owner.to_owned()).or_default();
        if is_more {
            add(held, amounts);
        } else {
            held.saturating_sub_assign(amounts);
            if held.is_zero() {
                self.held.remove(owner);
            }
        }
    }
}

impl Window {
    /// True where the moment is in it.
    pub fn holds(self, at: LedgerTime) -> bool {
        self.start <= at && at < self.end
    }
}

/// Adds in place, to the far end at most, which stands for what does not fit: such an amount is refused wherever it is compared.
pub(super) fn add(sum: &mut Resources, more: &Resources) {
    for (name, amount) in more.iter() {
        let amount = Amount(sum.get(name).0.saturating_add(amount.0));
        sum.set(name, amount);
    }
}
