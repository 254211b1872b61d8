//! The calendar of the model: `docs/semantics.md` 5.4, every sum made anew from the reservations.

use plimsoll_ledger::{PolicyName, PolicyObject, Reason, Request, Schedule, Window};
use plimsoll_types::{LedgerTime, Resources};

use super::{Model, Res, occupies};
use plimsoll_ledger::{DeviceGrant, EndReason, GpuShare, NodeHealth, State};

type Members = [(u32, Vec<DeviceGrant>)];

/// What is wanted of a pool, and from when until when.
pub(super) struct Want<'a> {
    pub(super) request: &'a Request,
    pub(super) asked: &'a dyn Fn(&str) -> u128,
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) plan: Option<u64>,
    pub(super) ahead: bool,
}

const NAMES: [&str; 4] = ["cpu", "memory", "gpu", "license/x"];

impl Model {
    /// The first moment at which the want leaves something short, and what.
    fn first_short(&self, want: &Want<'_>) -> Option<u64> {
        let pool = &want.request.pool;
        let mut at = vec![want.from];
        let windows = self.kept_for().filter(|s| s.pool == *pool).flat_map(|s| s.windows);
        at.extend(windows.map(|window| window.start.0));
        at.extend(self.planned(pool).map(|(_, r)| r.request.start_at_ms));
        at.retain(|at| *at == want.from || (*at > want.from && *at < want.until));
        at.sort_unstable();
        at.into_iter().find(|at| {
            let now = *at == want.from && !want.ahead;
            NAMES.iter().any(|name| {
                let kept = self.kept_then(*at, now, name, Some(want));
                let left =
                    self.offered(pool, name).saturating_sub(self.taken_then(*at, now, pool, name, None));
                let counts = kept > 0 || want.ahead;
                (want.asked)(name) > 0 && counts && (want.asked)(name) > left.saturating_sub(kept)
            })
        })
    }

    fn planned<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = (u64, &'a Res)> {
        let planned = self.reservations.iter().filter(move |(_, r)| r.is_advance() && r.request.pool == pool);
        planned.map(|(id, r)| (*id, r))
    }

    /// Schedules and what is kept for classes, by name.
    fn kept_for(&self) -> impl Iterator<Item = Schedule> {
        let keeping = self.schedules.values().filter(|schedule| !schedule.resources.is_zero());
        let all = keeping.cloned().chain(self.guarantees());
        let by_name: std::collections::BTreeMap<(String, String), Schedule> =
            all.map(|s| ((s.name.clone(), s.pool.clone()), s)).collect();
        by_name.into_values()
    }

    fn owner(&self, request: &Request) -> Option<String> {
        self.kept_for().find(|s| s.pool == request.pool && s.users.include(request)).map(|s| s.name)
    }

    fn offered(&self, pool: &str, name: &str) -> u128 {
        let total = self.pools.get(pool).and_then(|pool| pool.countables.get(name));
        if let Some(total) = total {
            return total.0.into();
        }
        let there = self.nodes.values().filter(|n| n.pool == pool && n.health == NodeHealth::Available);
        let each = there.filter(|n| n.open()).map(|n| {
            if name != "gpu" {
                let pending: u64 = n.pending.iter().map(|(_, amounts, _)| amounts.get(name).0).sum();
                return u128::from(n.allocatable.get(name).0.saturating_sub(pending));
            }
            let healthy = n.reg.devices.iter().filter(|device| !device.failed).count() as u64;
            let pending: u64 =
                n.pending.iter().flat_map(|(_, _, grants)| grants).map(|g| u64::from(g.milli)).sum();
            u128::from((healthy * 1_000).saturating_sub(pending))
        });
        each.sum()
    }

    fn part(&self, r: &Res, pool: &str, name: &str) -> u128 {
        let countable = |pool: &str| self.pools[pool].countables.contains_key(name);
        if countable(&r.request.pool) {
            let all = u128::from(r.amounts.get(name).0) * r.members.len() as u128;
            return if r.request.pool == pool { all } else { 0 };
        }
        let mut sum = 0;
        for (node, grants) in &r.members {
            let n = &self.nodes[node];
            if n.pool == pool && n.health == NodeHealth::Available && n.open() {
                sum += u128::from(r.amounts.get(name).0);
                if name == "gpu" {
                    sum += grants.iter().map(|g| u128::from(g.milli)).sum::<u128>();
                }
            }
        }
        sum
    }

    /// What is still taken then of a pool, by all or by those that count for a schedule.
    fn taken_then(&self, at: u64, now: bool, pool: &str, name: &str, of: Option<&str>) -> u128 {
        let runs = |r: &&Res| occupies(r.state) && (now || r.hard_end == 0 || r.hard_end > at);
        let counts =
            |r: &&Res| of.is_none() || (r.request.pool == pool && self.owner(&r.request).as_deref() == of);
        let gone = self.gone.borrow();
        let there = self.reservations.iter().filter(|(id, _)| !gone.contains(id)).map(|(_, r)| r);
        there.filter(runs).filter(counts).map(|r| self.part(r, pool, name)).sum()
    }

    fn kept_then(&self, at: u64, now: bool, name: &str, want: Option<&Want<'_>>) -> u128 {
        let pool = |s: &&Schedule| want.is_none_or(|want| want.request.pool == s.pool);
        let mut kept = 0;
        let open = |start: u64, end: u64| start <= at && at < end;
        let plans: Vec<&Res> = self
            .reservations
            .iter()
            .filter(|(id, r)| {
                r.is_advance()
                    && want.is_none_or(|want| want.request.pool == r.request.pool && want.plan != Some(**id))
                    && open(r.request.start_at_ms, r.deadline)
            })
            .map(|(_, r)| r)
            .collect();
        kept += plans.iter().map(|r| whole(&r.request, name)).sum::<u128>();
        for s in self.kept_for().filter(|s| pool(&s)) {
            let is_open = s.windows.iter().any(|window| open(window.start.0, window.end.0));
            if !is_open || want.is_some_and(|want| s.users.include(want.request)) {
                continue;
            }
            let held = self.taken_then(at, now, &s.pool, name, Some(&s.name))
                + plans
                    .iter()
                    .filter(|r| self.owner(&r.request).as_ref() == Some(&s.name))
                    .map(|r| whole(&r.request, name))
                    .sum::<u128>();
            kept += u128::from(s.resources.get(name).0).saturating_sub(held);
        }
        kept
    }

    /// The moment at which a grant is cut, 0 where it is not.
    pub(super) fn calendar(
        &self,
        request: &Request,
        members: &Members,
        plan: Option<u64>,
    ) -> Result<u64, Reason> {
        let asked = |name: &str| taken(&request.requirements.amounts, members, name);
        let until = match (plan, request.max_duration_ms) {
            (Some(_), length) => request.start_at_ms + length,
            (None, 0) => u64::MAX,
            (None, length) => self.clock + length,
        };
        let want = Want { request, asked: &asked, from: self.clock, until, plan, ahead: false };
        let Some(at) = self.first_short(&want) else { return Ok(0) };
        let starting = |s: &&Schedule| {
            s.pool == request.pool
                && !s.resources.is_zero()
                && s.windows.iter().any(|window| window.start.0 == at)
        };
        let mut starting = self.schedules.values().filter(starting).peekable();
        let cuts = plan.is_none()
            && at >= self.clock + 1_000
            && starting.peek().is_some()
            && starting.all(|s| s.shorten)
            && self.planned(&request.pool).all(|(_, r)| r.request.start_at_ms != at);
        if cuts { Ok(at) } else { Err(Reason::ReservedByCalendar) }
    }

    /// True where something is kept of a pool that it would be short of without this node.
    pub(super) fn calendar_needs(&self, pool: &str, n: &super::Nod) -> bool {
        let request = Request { pool: pool.to_owned(), ..Request::default() };
        let countable = |name: &str| self.pools[pool].countables.contains_key(name);
        let asked = |name: &str| match name {
            _ if countable(name) => 0,
            "gpu" => n.reg.devices.iter().filter(|device| !device.failed).count() as u128 * 1_000,
            _ => n.allocatable.get(name).0.into(),
        };
        let (from, until) = (self.clock, u64::MAX);
        let want = Want { request: &request, asked: &asked, from, until, plan: None, ahead: false };
        self.first_short(&want).is_some()
    }

    /// True where a holder may not grow.
    pub(super) fn calendar_stops(&self, r: &Res, new: &Resources) -> bool {
        let asked = |name: &str| {
            let before = taken(&r.amounts, &r.members, name);
            taken(new, &r.members, name).saturating_sub(before)
        };
        let until = if r.hard_end > 0 { r.hard_end } else { u64::MAX };
        let want =
            Want { request: &r.request, asked: &asked, from: self.clock, until, plan: None, ahead: false };
        self.first_short(&want).is_some()
    }

    /// True where others may not join a holder.
    pub(super) fn calendar_stops_joining(&self, r: &Res, members: &Members) -> bool {
        let asked = |name: &str| taken(&r.amounts, members, name);
        let until = if r.hard_end > 0 { r.hard_end } else { u64::MAX };
        let want =
            Want { request: &r.request, asked: &asked, from: self.clock, until, plan: None, ahead: false };
        self.first_short(&want).is_some()
    }

    pub(super) fn plan(&self, r: &mut Res) -> Result<(), Reason> {
        let request = &r.request;
        if request.start_at_ms > self.clock + 366 * 24 * super::HOUR_MS {
            return Err(Reason::InvalidArgument);
        }
        if self.planned(&request.pool).count() >= 64 {
            return Err(Reason::TableFull);
        }
        let (from, until) = (request.start_at_ms, request.start_at_ms + request.max_duration_ms);
        let asked = |name: &str| whole(request, name);
        if self.first_short(&Want { request, asked: &asked, from, until, plan: None, ahead: true }).is_some()
        {
            return Err(Reason::ReservedByCalendar);
        }
        (r.state, r.resume, r.deadline, r.hard_end) = (State::Planned, State::Planned, until, until);
        Ok(())
    }

    pub(super) fn schedule_reasons(&self, put: &[PolicyObject], delete: &[PolicyName]) -> Vec<Reason> {
        let new = put.iter().any(|object| matches!(object, PolicyObject::Schedule(_)))
            || delete.iter().any(|name| matches!(name, PolicyName::Schedule(_)));
        if self.version < 4 && new {
            return vec![Reason::UnsupportedVersion];
        }
        // Before that, every schedule keeps something.
        let keeps_nothing =
            |object: &PolicyObject| matches!(object, PolicyObject::Schedule(s) if s.resources.is_zero());
        if self.version < 14 && put.iter().any(keeps_nothing) {
            return vec![Reason::InvalidArgument];
        }
        let mut after = self.schedules.clone();
        for object in put {
            if let PolicyObject::Schedule(schedule) = object {
                after.insert(schedule.name.clone(), schedule.clone());
            }
        }
        after.retain(|name, _| !delete.contains(&PolicyName::Schedule(name.clone())));
        let is_put =
            |name: &str| put.iter().any(|o| matches!(o, PolicyObject::Pool(pool) if pool.name == name));
        let judged = after.values().filter_map(|schedule| {
            if delete.contains(&PolicyName::Pool(schedule.pool.clone())) {
                return Some(Reason::InUse);
            }
            let there = self.pools.contains_key(&schedule.pool) || is_put(&schedule.pool);
            (!there).then_some(Reason::PoolNotFound)
        });
        judged.collect()
    }

    pub(super) fn put_schedule(&mut self, schedule: Schedule) {
        let known = self.schedules.get(&schedule.name).filter(|known| known.rule == schedule.rule).cloned();
        let (windows, swept_until) =
            known.map_or((Vec::new(), LedgerTime(0)), |known| (known.windows, known.swept_until));
        let changed = plimsoll_types::Revision(self.revision);
        let schedule = Schedule { windows, swept_until, changed, ..schedule };
        self.schedules.insert(schedule.name.clone(), schedule);
    }

    pub(super) fn open(&mut self, name: &str, changed: u64, windows: &[Window]) -> Result<(), Reason> {
        if self.version < 4 {
            return Err(Reason::UnsupportedVersion);
        }
        let schedule = self.schedules.get_mut(name).ok_or(Reason::NotFound)?;
        if schedule.changed.0 != changed {
            return Err(Reason::RevisionMoved);
        }
        schedule.windows = windows.to_vec();
        Ok(())
    }

    fn to_sweep(&self) -> Option<(String, Window)> {
        let near = |s: &Schedule| {
            let window = *s.windows.iter().find(|window| window.start > s.swept_until)?;
            let due = s.shorten && window.start.0.saturating_sub(600_000) <= self.clock;
            due.then(|| (s.name.clone(), window))
        };
        self.schedules.values().find_map(near)
    }

    pub(super) fn sweeps_due(&self) -> bool {
        self.to_sweep().is_some()
    }

    pub(super) fn make_room(&mut self, limit: u32) {
        let mut left = limit;
        while let Some((name, window)) = self.to_sweep() {
            let pool = self.schedules[&name].pool.clone();
            let at = window.start.0;
            let nobody = Request { pool: pool.clone(), ..Request::default() };
            let zero = |_: &str| 0;
            let want = Want { request: &nobody, asked: &zero, from: at, until: at, plan: None, ahead: false };
            let short: Vec<&str> = NAMES
                .into_iter()
                .filter(|name| {
                    let kept = self.kept_then(at, false, name, Some(&want));
                    kept > 0
                        && kept + self.taken_then(at, false, &pool, name, None) > self.offered(&pool, name)
                })
                .collect();
            let mut others: Vec<(u64, i32, u64)> = Vec::new();
            for (id, r) in self.reservations.iter().filter(|(_, r)| occupies(r.state)) {
                let end = if r.hard_end > 0 { r.hard_end } else { u64::MAX };
                let own = r.request.pool == pool && self.owner(&r.request).is_some();
                let takes = short.iter().any(|name| self.part(r, &pool, name) > 0);
                if end > at && !own && r.request.start_at_ms == 0 && takes {
                    others.push((u64::MAX - end, r.priority, u64::MAX - id));
                }
            }
            others.sort_unstable();
            let found = others.first().filter(|_| at > self.clock);
            let Some(&(.., id)) = found else {
                self.schedules.get_mut(&name).expect("it was found").swept_until = window.start;
                continue;
            };
            if left == 0 {
                return;
            }
            left -= 1;
            let r = self.reservations.get_mut(&(u64::MAX - id)).expect("it was found");
            r.hard_end = at;
            if r.resume != State::Held {
                r.deadline = r.deadline.min(at);
            }
        }
    }

    pub(super) fn end_reason(&self, r: &Res) -> EndReason {
        let asked = r.request.max_duration_ms;
        let cut = asked == 0 || r.hard_end < r.granted_at + asked;
        if cut && r.request.start_at_ms == 0 { EndReason::WindowOpened } else { EndReason::MaxDuration }
    }
}

fn taken(amounts: &Resources, members: &Members, name: &str) -> u128 {
    let milli = members.iter().flat_map(|(_, grants)| grants).map(|g| u128::from(g.milli)).sum::<u128>();
    u128::from(amounts.get(name).0) * members.len() as u128 + if name == "gpu" { milli } else { 0 }
}

/// What all members of a request may take.
fn whole(request: &Request, name: &str) -> u128 {
    let gpu = request.requirements.gpu.as_ref().filter(|_| name == "gpu").map_or(0, |gpu| match gpu.share {
        GpuShare::Milli(milli) => u128::from(milli),
        _ => u128::from(gpu.count) * 1_000,
    });
    (u128::from(request.requirements.amounts.get(name).0) + gpu) * u128::from(request.gang.max_members)
}
