//! Schedules and advance reservations: `OpenWindows`, requests with a start, and room made for a window before it opens.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_types::{LedgerTime, Revision};

use super::submit::cap_deadline;
use crate::calendar::{Book, Room, SINCE_VERSION, Schedule, Window, most_of, window_of};
use crate::ledger::Context;
use crate::limits::{CUT_NOTICE_MS, MAX_PLANNED, MAX_SCHEDULES, MAX_TTL_MS, MAX_WINDOWS};
use crate::{
    Blocker, EventObject, Ledger, PolicyName, PolicyObject, Reason, Refusal, Request, Reservation, State,
};
use crate::{Outcome, Verdict};

/// True where a change puts or deletes schedules.
fn touches_schedules(put: &[PolicyObject], delete: &[PolicyName]) -> bool {
    put.iter().any(|object| matches!(object, PolicyObject::Schedule(_)))
        || delete.iter().any(|name| matches!(name, PolicyName::Schedule(_)))
}

impl Ledger {
    /// Everything that keeps the schedules from being put: an old ledger, pools that are not there, too many of one pool.
    pub(crate) fn check_schedules(
        &self,
        put: &[PolicyObject],
        delete: &[PolicyName],
        blockers: &mut Vec<Blocker>,
    ) {
        if self.meta.version < SINCE_VERSION && touches_schedules(put, delete) {
            let have = u64::from(self.meta.version);
            blockers.push(Blocker::new(Reason::UnsupportedVersion, "schedules", SINCE_VERSION.into(), have));
            return;
        }
        let mut after: BTreeMap<&str, &Schedule> =
            self.schedules.iter().map(|(name, schedule)| (name.as_str(), schedule.as_ref())).collect();
        for object in put {
            if let PolicyObject::Schedule(schedule) = object {
                after.insert(&schedule.name, schedule);
            }
        }
        for name in delete {
            if let PolicyName::Schedule(name) = name {
                after.remove(name.as_str());
            }
        }
        let put_pool = |name: &str| {
            put.iter().any(|object| matches!(object, PolicyObject::Pool(pool) if pool.name == name))
        };
        let mut per_pool: BTreeMap<&str, u64> = BTreeMap::new();
        for schedule in after.values() {
            let pool = schedule.pool.as_str();
            *per_pool.entry(pool).or_default() += 1;
            let deleted = delete.iter().any(|name| matches!(name, PolicyName::Pool(gone) if gone == pool));
            if deleted {
                let subject = format!("pool {pool}: schedule {} keeps some of it", schedule.name);
                blockers.push(Blocker::new(Reason::InUse, subject, 0, 1));
            } else if !self.pools.contains_key(pool) && !put_pool(pool) {
                let subject = format!("{pool}, the pool of schedule {}", schedule.name);
                blockers.push(Blocker::new(Reason::PoolNotFound, subject, 1, 0));
            }
        }
        let most = MAX_SCHEDULES as u64;
        for (pool, count) in per_pool.into_iter().filter(|(_, count)| *count > most) {
            let subject = format!("schedules of pool {pool}");
            blockers
                .push(Blocker { limit: most, ..Blocker::new(Reason::InvalidArgument, subject, count, most) });
        }
    }

    /// The schedule as it is to be stored: its windows stay as long as its rule does.
    pub(crate) fn renewed_schedule(&self, schedule: &Schedule, changed: Revision) -> Schedule {
        let known = self.schedules.get(&schedule.name).filter(|known| known.rule == schedule.rule);
        let (windows, opened_until, swept_until) = match known {
            Some(known) => (known.windows.clone(), known.opened_until, known.swept_until),
            None => (Vec::new(), LedgerTime(0), LedgerTime(0)),
        };
        Schedule { windows, opened_until, swept_until, changed, ..schedule.clone() }
    }

    pub(crate) fn apply_open_windows(
        &mut self,
        context: &mut Context<'_>,
        name: &str,
        changed: Revision,
        windows: &[Window],
        until: LedgerTime,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "schedules")?;
        let Some(old) = self.schedules.get(name).cloned() else {
            return Err(Refusal::one(Reason::NotFound, format!("schedule {name}"), 1, 0));
        };
        if old.changed != changed {
            let subject = format!("schedule {name}");
            return Err(Refusal::one(Reason::RevisionMoved, subject, changed.0, old.changed.0));
        }
        let in_order = windows.iter().all(|window| window.start < window.end)
            && windows.windows(2).all(|pair| pair[0].end <= pair[1].start);
        if !in_order || windows.len() > MAX_WINDOWS {
            let subject = format!("windows of schedule {name}");
            let (count, most) = (windows.len() as u64, MAX_WINDOWS as u64);
            return Err(Refusal::one(Reason::InvalidArgument, subject, count, most));
        }
        let new = Schedule { windows: windows.to_vec(), opened_until: until, ..Schedule::clone(&old) };
        let new = Arc::new(new);
        self.put_schedule(Arc::clone(&new));
        self.remake_book(&new.pool);
        context.event("calendar/windows", EventObject::Schedule(new));
        Ok(Outcome::Done)
    }

    /// True where a request is for later and not for now.
    pub(crate) fn is_for_later(request: &Request, now: LedgerTime) -> bool {
        request.start_at_ms > now.0
    }

    /// Keeps what a request will want from its start on, where that leaves everything else what it was promised.
    pub(crate) fn plan(
        &self,
        context: &Context<'_>,
        verdict: &Verdict,
        reservation: &mut Reservation,
    ) -> Result<(), Refusal> {
        let request = &reservation.request;
        if let Verdict::Infeasible(blockers) = verdict {
            return Err(Refusal { reason: Reason::Infeasible, blockers: blockers.clone() });
        }
        let window = window_of(request);
        let latest = context.now.plus_ms(MAX_TTL_MS);
        if window.start > latest {
            return Err(Refusal::one(Reason::InvalidArgument, "start_at_ms", window.start.0, latest.0));
        }
        let planned = self.calendar.books.get(&request.pool).map_or(0, Book::plan_count) as u64;
        if planned >= MAX_PLANNED as u64 {
            let subject = format!("advance reservations of pool {}", request.pool);
            return Err(Refusal::one(Reason::TableFull, subject, planned + 1, MAX_PLANNED as u64));
        }
        if let Room::Short(blockers) = self.judge_plan(request, window) {
            return Err(Refusal { reason: Reason::ReservedByCalendar, blockers });
        }
        reservation.state = State::Planned;
        reservation.deadline = window.end;
        reservation.hard_end = window.end;
        Ok(())
    }

    /// Windows that start soon and cut others are made room for: grants of others that run into them get the start as their end, as many as
    /// that takes, the latest end first, then the lowest class, then the youngest. At most `limit` grants; true where some are left to do.
    pub(crate) fn make_room(&mut self, context: &mut Context<'_>, limit: u32) -> bool {
        let mut left = limit;
        while let Some((schedule, window)) = self.next_to_sweep(context.now) {
            let ahead = window.start > context.now;
            let short = if ahead { self.short_at(&schedule.pool, window.start) } else { Vec::new() };
            let found = if short.is_empty() {
                None
            } else {
                self.calendar.first_to_cut(&schedule.pool, window.start, &short)
            };
            let Some(old) = found.and_then(|id| self.reservations.get(&id).cloned()) else {
                let swept = Arc::new(Schedule { swept_until: window.start, ..Schedule::clone(&schedule) });
                self.put_schedule(Arc::clone(&swept));
                context.event("calendar/swept", EventObject::Schedule(swept));
                continue;
            };
            if left == 0 {
                return true;
            }
            left -= 1;
            let mut new = Reservation { hard_end: window.start, ..Reservation::clone(&old) };
            if new.resume_state != State::Held {
                cap_deadline(&mut new);
            }
            self.store(context, "calendar/cut", new, Some(old.state));
        }
        false
    }

    /// When the next window comes near for which others are cut.
    pub(crate) fn next_sweep(&self) -> Option<LedgerTime> {
        let next = |schedule: &Arc<Schedule>| {
            let window = schedule.next_unswept()?;
            Some(LedgerTime(window.start.0.saturating_sub(CUT_NOTICE_MS)))
        };
        self.schedules.values().filter_map(next).min()
    }

    fn next_to_sweep(&self, now: LedgerTime) -> Option<(Arc<Schedule>, Window)> {
        let near = |schedule: &Arc<Schedule>| {
            let window = schedule.next_unswept()?;
            (window.start.0.saturating_sub(CUT_NOTICE_MS) <= now.0).then(|| (Arc::clone(schedule), window))
        };
        self.schedules.values().find_map(near)
    }

    fn short_at(&self, pool: &str, at: LedgerTime) -> Vec<String> {
        self.calendar.books.get(pool).map(|book| book.short_at(at)).unwrap_or_default()
    }

    /// Advance reservations of a pool whose start has come, the earliest first: nobody who waits goes before them.
    pub fn due_plans(&self, pool: &str, now: LedgerTime) -> Vec<plimsoll_types::ReservationId> {
        let Some(book) = self.calendar.books.get(pool) else { return Vec::new() };
        let due = book.plans.iter().filter(|(_, plan)| plan.window.start <= now);
        let mut due: Vec<_> = due.map(|(id, plan)| (plan.window.start, *id)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// What an advance reservation of this request keeps: the amounts of all its members, `gpu` in thousandths.
    pub fn kept_for(request: &Request) -> plimsoll_types::Resources {
        most_of(request)
    }
}

impl Schedule {
    /// The first window that has not been made room for, where the schedule cuts others at all.
    fn next_unswept(&self) -> Option<Window> {
        let ahead = self.windows.iter().find(|window| window.start > self.swept_until);
        ahead.filter(|_| self.shorten).copied()
    }
}

impl Book {
    fn plan_count(&self) -> usize {
        self.plans.len()
    }
}
