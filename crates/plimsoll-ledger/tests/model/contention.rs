//! Contention in the model: `docs/semantics.md` 5.12, every sum made anew.

use std::collections::BTreeSet;

use plimsoll_ledger::{
    Contention, ContentionPolicy, Preemption, Resolve, ScaleDecided, ScalingTarget, Severity,
};
use plimsoll_types::ReservationId;

use super::*;

/// What those who wait for a resource ask and have waited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lack {
    demand: u64,
    capacity: u64,
    open: u64,
    waiting: u64,
    longest_ms: u64,
    late_permille: u64,
    classes: BTreeSet<String>,
}

/// A contention as it can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Episode {
    pub(crate) of: (String, String),
    pub(crate) severity: (Severity, Severity),
    /// Opened, of this severity since, ended, measured.
    pub(crate) times: [u64; 4],
    pub(crate) lack: Lack,
    pub(crate) elsewhere: u64,
    pub(crate) resolving: BTreeSet<Resolve>,
    /// When, what, to whom, revision.
    pub(crate) done: Vec<(u64, Resolve, String, u64)>,
}

impl Episode {
    /// The real one in the model's words.
    pub(crate) fn of(real: &Contention) -> Episode {
        let lack = Lack {
            demand: real.demand,
            capacity: real.capacity,
            open: real.open,
            waiting: real.waiting,
            longest_ms: real.longest_wait_ms,
            late_permille: real.wait_permille,
            classes: real.classes.iter().cloned().collect(),
        };
        let done = real.resolutions.iter();
        Episode {
            of: (real.pool.clone(), real.resource.clone()),
            severity: (real.severity, real.peak),
            times: [real.opened_at.0, real.since.0, real.ended_at.0, real.observed_at.0],
            lack,
            elsewhere: real.elsewhere,
            resolving: real.resolving.clone(),
            done: done.map(|done| (done.at.0, done.kind, done.subject.clone(), done.revision.0)).collect(),
        }
    }

    fn is_open(&self) -> bool {
        self.times[2] == 0
    }
}

/// The severity at so many percent of the thresholds.
fn severity(lack: &Lack, percent: u128) -> Severity {
    let missing = u128::from(lack.demand.saturating_sub(lack.open));
    let at_least = |permille: u128| match lack.capacity {
        0 => missing > 0,
        // Permille are rounded down.
        capacity => missing * 1_000 / u128::from(capacity) >= permille * percent / 100,
    };
    let late = |permille: u128| u128::from(lack.late_permille) >= permille * percent / 100;
    if at_least(3_000) || late(4_000) {
        Severity::Critical
    } else if at_least(1_000) || late(2_000) {
        Severity::High
    } else if at_least(250) || late(1_000) {
        Severity::Medium
    } else {
        Severity::Low
    }
}

impl Model {
    pub(super) fn observe(&mut self, pool: &str, resource: &str) -> Result<(), Reason> {
        if self.version < 8 {
            return Err(Reason::UnsupportedVersion);
        }
        let policy = self.pools.get(pool).ok_or(Reason::PoolNotFound)?.contention.clone();
        let (lacks, elsewhere) = self.lacks(pool);
        let lack = lacks.get(resource);
        let now = self.clock;
        let of = (pool.to_owned(), resource.to_owned());
        let known = self.contentions.iter().find(|(_, one)| one.is_open() && one.of == of);
        let (id, mut one, mut changed) = match (known, lack) {
            (Some((id, one)), _) => (*id, one.clone(), false),
            (None, Some(lack)) if lack.longest_ms >= 10_000 => {
                let reached = severity(lack, 100);
                let (resolving, done) = (BTreeSet::new(), Vec::new());
                let (times, severity) = ([now, now, 0, now], (reached, reached));
                let one = Episode { of, severity, times, lack: lack.clone(), elsewhere, resolving, done };
                (self.revision, one, true)
            }
            (None, _) => return Err(Reason::WrongState),
        };
        let stale = now >= one.times[3] + 60_000;
        let capacity = one.lack.capacity;
        one.lack = lack.cloned().unwrap_or_else(|| Lack { capacity, ..Lack::default() });
        one.elsewhere = elsewhere;
        one.times[3] = now;
        let lasted = now >= one.times[1] + 60_000;
        match lack {
            Some(lack) if severity(lack, 100) > one.severity.0 => {
                one.severity = (severity(lack, 100), one.severity.1.max(severity(lack, 100)));
                (one.times[1], changed) = (now, true);
            }
            Some(lack) if lasted && severity(lack, 80) < one.severity.0 => {
                one.severity.0 = severity(lack, 80);
                (one.times[1], changed) = (now, true);
            }
            None if lasted => {
                one.resolving.clear();
                (one.times[2], changed) = (now, true);
            }
            _ => {}
        }
        if let Some(policy) = policy.filter(|_| one.is_open())
            && one.severity.0 >= policy.from
            && now >= one.times[0] + policy.after_ms
        {
            for kind in policy.resolve {
                let target = ScalingTarget::Pool(pool.to_owned());
                let scaled = self.scaled.values().find(|scaled| scaled.target == target);
                let subject = match kind {
                    Resolve::Scale => scaled.map(|scaled| format!("scaling-policy/{}", scaled.name)),
                    _ => Some(format!("pool/{pool}")),
                };
                if let Some(subject) = subject.filter(|_| one.resolving.insert(kind)) {
                    one.done.push((now, kind, subject, self.revision));
                    changed = true;
                }
            }
        }
        if !changed && !stale {
            return Err(Reason::WrongState);
        }
        self.contentions.insert(id, one);
        Ok(())
    }

    /// What those who wait lack, and how many lack nothing.
    fn lacks(&self, pool: &str) -> (BTreeMap<String, Lack>, u64) {
        let waiting = self.queue(pool).into_iter().filter(|id| self.reservations[id].state == State::Pending);
        let all: Vec<u64> = waiting.collect();
        let part: Vec<u64> = all.iter().copied().filter(|id| !self.waits_elsewhere(*id)).collect();
        let names: BTreeSet<String> = part.iter().flat_map(|id| self.asks(*id).into_keys()).collect();
        let ask = |id: u64, name: &str| self.asks(id).get(name).copied().unwrap_or(0);
        let short: BTreeSet<String> = names
            .into_iter()
            .filter(|name| part.iter().map(|id| ask(*id, name)).sum::<u64>() > self.totals(pool, name).1)
            .collect();
        let mut lacks: BTreeMap<String, Lack> = BTreeMap::new();
        let mut elsewhere = (all.len() - part.len()) as u64;
        for id in part {
            let asks = self.asks(id);
            let mut lacked: Vec<&String> = asks.keys().filter(|name| short.contains(*name)).collect();
            if lacked.is_empty() {
                let said = |name: &str| {
                    self.blockers.get(&id).into_iter().flatten().any(|blocker| {
                        let of_room =
                            matches!(blocker.reason, Reason::NoCapacity | Reason::CountableExhausted);
                        let of_slices = name == "gpu" && blocker.subject.starts_with("mig ");
                        of_room && (blocker.subject == name || of_slices)
                    })
                };
                lacked = asks.keys().filter(|name| said(name)).collect();
            }
            elsewhere += u64::from(lacked.is_empty());
            let r = &self.reservations[&id];
            let since =
                r.preempted.map_or_else(|| id_time(self, id), |(_, _, at, _)| at.max(id_time(self, id)));
            let waited = self.clock.saturating_sub(since);
            let target = self.targets.get(&r.request.class).copied().flatten();
            for name in lacked {
                let lack = lacks.entry(name.clone()).or_default();
                (lack.capacity, lack.open) = self.totals(pool, name);
                lack.demand += asks[name];
                lack.waiting += 1;
                lack.longest_ms = lack.longest_ms.max(waited);
                let late = target.map_or(0, |target| waited * 1_000 / target.max(1_000));
                lack.late_permille = lack.late_permille.max(late);
                lack.classes.insert(r.request.class.clone());
            }
        }
        (lacks, elsewhere)
    }

    fn waits_elsewhere(&self, id: u64) -> bool {
        let r = &self.reservations[&id];
        let request = &r.request;
        let calendar = |blocker: &plimsoll_ledger::Blocker| blocker.reason == Reason::ReservedByCalendar;
        let asks = self.asks(id);
        let short = || {
            asks.iter().any(|(name, asked)| {
                let left = self.left(&request.queue, &request.pool, name);
                left.is_some_and(|left| i128::from(*asked) > left.max(0))
            })
        };
        let members = self.cheapest(request);
        request.qos == Some(plimsoll_ledger::Qos::BestEffort)
            || request.start_at_ms > 0
            || self.blockers.get(&id).into_iter().flatten().any(calendar)
            || !request.queue.is_empty() && (self.seen(false, |_| short()) || self.seen(true, |_| short()))
            || !self.grant_reasons(request, &r.requester, members).is_empty()
    }

    /// The least of a request that is of use, by resource.
    fn asks(&self, id: u64) -> BTreeMap<String, u64> {
        let request = &self.reservations[&id].request;
        let members = u64::from(request.gang.min_members.max(1));
        let amounts = request.requirements.amounts.iter();
        let mut asks: BTreeMap<String, u64> =
            amounts.map(|(name, one)| (name.to_owned(), one.0 * members)).collect();
        let devices =
            || self.working(&request.pool).flat_map(|(_, n)| &n.reg.devices).filter(|device| !device.failed);
        let milli = request.requirements.gpu.as_ref().map(|gpu| match gpu.share {
            GpuShare::Whole => u64::from(gpu.count) * 1_000,
            GpuShare::Milli(milli) => milli.into(),
            GpuShare::Memory(bytes) => match devices().map(|device| device.memory_bytes).max().unwrap_or(0) {
                0 => 1_000,
                most => (u128::from(bytes) * 1_000).div_ceil(u128::from(most)) as u64,
            },
            GpuShare::Mig(name) => devices()
                .filter_map(|device| slices::of_device(device, name))
                .map(|(milli, _)| milli)
                .max()
                .unwrap_or(1),
        });
        if let Some(milli) = milli {
            asks.insert("gpu".to_owned(), milli.max(1) * members);
        }
        asks
    }

    /// Nodes of a pool that take work.
    fn working<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = (u32, &'a Nod)> {
        let works = move |n: &Nod| n.pool == pool && n.health == NodeHealth::Available && n.open();
        self.nodes.iter().filter(move |(_, n)| works(n)).map(|(id, n)| (*id, n))
    }

    /// What a pool has of a resource, and what is open of it.
    fn totals(&self, pool: &str, name: &str) -> (u64, u64) {
        if let Some(total) = self.pools[pool].countables.get(name) {
            let used = |later| self.seen(later, |model| model.pool_used(pool, name));
            return (total.0, total.0.saturating_sub(used(false).max(used(true))));
        }
        let any = Request { pool: pool.to_owned(), ..Request::default() };
        let mut totals = (0, 0);
        for (id, n) in self.working(pool) {
            if name == "gpu" {
                for (index, _) in n.reg.devices.iter().enumerate().filter(|(_, device)| !device.failed) {
                    let taken = |later| {
                        let grants = self.seen(later, |model| model.grants_on(id, index as u16));
                        grants.iter().map(|grant| u64::from(grant.milli)).sum::<u64>()
                    };
                    totals.0 += 1_000;
                    totals.1 += 1_000u64.saturating_sub(taken(false).max(taken(true)));
                }
                continue;
            }
            totals.0 += n.allocatable.get(name).0;
            let room = |later| self.seen(later, |model| model.room(&any, id, name));
            totals.1 += room(false).min(room(true));
        }
        totals
    }

    /// What is being done about the contentions of a pool, as its policy still says it.
    fn resolves(&self, pool: &str, kind: Resolve) -> bool {
        let says = self.pools[pool].contention.as_ref().is_some_and(|policy| policy.resolve.contains(&kind));
        let of = |one: &Episode| one.is_open() && one.of.0 == pool && one.resolving.contains(&kind);
        says && self.contentions.values().any(of)
    }

    /// What may be taken back in a pool now.
    pub(super) fn preemption_now(&self, pool: &str) -> Preemption {
        let policy = self.pools[pool].contention.as_ref();
        let only_then = policy.is_some_and(|policy| policy.resolve.contains(&Resolve::Preempt));
        match only_then && !self.resolves(pool, Resolve::Preempt) {
            true => Preemption::Never,
            false => self.pools[pool].preemption,
        }
    }

    pub(super) fn note_victim(&mut self, pool: &str, victim: u64) {
        self.note_done(pool, Resolve::Preempt, &ReservationId(victim).to_string());
    }

    pub(super) fn note_moved(&mut self, pool: &str, moved: u64, from: u32, to: u32) {
        let name = |node: u32| self.nodes[&node].reg.name.clone();
        let subject = format!("{} from {} to {}", ReservationId(moved), name(from), name(to));
        self.note_done(pool, Resolve::Redistribute, &subject);
    }

    pub(super) fn note_scaled(&mut self, decided: &ScaleDecided) {
        let target = self.scaled.get(&decided.policy).map(|policy| policy.target.clone());
        if let Some(ScalingTarget::Pool(pool)) = target
            && decided.rule.starts_with("contention")
        {
            self.note_done(&pool, Resolve::Scale, &format!("pool/{pool} to {}", decided.desired));
        }
    }

    fn note_done(&mut self, pool: &str, kind: Resolve, subject: &str) {
        if !self.resolves(pool, kind) {
            return;
        }
        let (now, revision) = (self.clock, self.revision);
        let of = |one: &&mut Episode| one.is_open() && one.of.0 == pool && one.resolving.contains(&kind);
        for one in self.contentions.values_mut().filter(of) {
            one.done.push((now, kind, subject.to_owned(), revision));
            if one.done.len() > 64 {
                one.done.remove(0);
            }
        }
    }

    pub(super) fn end_contentions(&mut self, pool: &str) {
        for one in self.contentions.values_mut().filter(|one| one.is_open() && one.of.0 == pool) {
            one.times[2] = self.clock;
            one.resolving.clear();
        }
    }

    /// Contentions that ended a week ago, as they are to be forgotten.
    pub(super) fn contentions_due(&self) -> Vec<u64> {
        let over = self.contentions.iter().filter(|(_, one)| !one.is_open());
        let due = over.filter(|(_, one)| one.times[2] + 7 * 24 * HOUR_MS <= self.clock);
        let mut due: Vec<(u64, u64)> = due.map(|(id, one)| (one.times[2], *id)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn contention_reasons(&self, put: &[PolicyObject]) -> Vec<Reason> {
        let says = |object: &PolicyObject| match object {
            PolicyObject::Pool(pool) => pool.contention.clone(),
            _ => None,
        };
        let policies: Vec<_> = put.iter().filter_map(says).collect();
        let mut reasons = Vec::new();
        if self.version < 8 && !policies.is_empty() {
            reasons.push(Reason::UnsupportedVersion);
        }
        let redistributes = |policy: &ContentionPolicy| policy.resolve.contains(&Resolve::Redistribute);
        if (8..10).contains(&self.version) && policies.iter().any(redistributes) {
            reasons.push(Reason::UnsupportedVersion);
        }
        let wrong =
            |policy: &ContentionPolicy| policy.resolve.is_empty() || policy.after_ms > 366 * 24 * HOUR_MS;
        if policies.iter().any(wrong) {
            reasons.push(Reason::InvalidArgument);
        }
        reasons
    }
}

/// When a request was submitted.
fn id_time(model: &Model, id: u64) -> u64 {
    model.submitted.get(&id).copied().unwrap_or_default()
}
