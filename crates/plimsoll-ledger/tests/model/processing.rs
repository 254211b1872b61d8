//! How queues are processed in the model: `docs/semantics.md` 5.17 to 5.19.

use plimsoll_ledger::{Schedule, Users, Window};
use plimsoll_types::LedgerTime;

use super::*;

impl Model {
    /// It waits for no hours and no batch.
    pub(super) fn time_has_come(&self, request: &Request, submitted: u64) -> Result<(), Reason> {
        self.hours_have_come(request, submitted).and_then(|()| self.batch_is_open(request, submitted))
    }

    /// Hours that are preferred are those of a schedule, as long as it is there and the request has not waited for long enough.
    fn hours_have_come(&self, request: &Request, submitted: u64) -> Result<(), Reason> {
        let Some(hours) = &request.hours else { return Ok(()) };
        let Some(schedule) = self.schedules.get(&hours.schedule) else { return Ok(()) };
        let now = LedgerTime(self.clock);
        let is_open = schedule.windows.iter().any(|window| window.start <= now && now < window.end);
        let waited_enough = self.clock >= submitted + hours.longest_wait_ms;
        if is_open || waited_enough { Ok(()) } else { Err(Reason::AwaitsHours) }
    }

    /// A grant of a queue with batches is one of the first of its interval, to somebody who came before that.
    fn batch_is_open(&self, request: &Request, submitted: u64) -> Result<(), Reason> {
        let batch = self.queues.get(&request.queue).and_then(|queue| queue.batch);
        let Some(batch) = batch.filter(|_| request.start_at_ms == 0) else { return Ok(()) };
        let number = |at: u64| at / batch.interval_ms;
        let now = number(self.clock);
        let own = self.reservations.values().filter(|r| r.request.queue == request.queue);
        let granted = own.filter(|r| r.granted_at > 0 && number(r.granted_at) == now).count();
        let is_open = number(submitted) < now && granted < batch.size as usize;
        if is_open { Ok(()) } else { Err(Reason::AwaitsBatch) }
    }

    pub(super) fn is_processed_for_sure(&self, queue: &str) -> bool {
        self.queues.get(queue).is_some_and(|queue| queue.guaranteed_processing)
    }

    /// What was promised to be processed waits again; false for anything else.
    pub(super) fn process_again(&mut self, id: u64) -> bool {
        let r = self.reservations[&id].clone();
        let Wait::Queue { deadline_ms } = r.request.wait else { return false };
        if !self.is_processed_for_sure(&r.request.queue) {
            return false;
        }
        self.keep_fence_pending(id, &r, &r.members);
        self.wait_again(id, deadline_ms);
        true
    }

    /// What a class makes of what an hour takes.
    pub(super) fn multiplied(&self, request: &Request, per_hour: u64) -> u64 {
        let factor = self.multipliers.get(&request.class).copied().flatten().unwrap_or(1_000);
        u64::try_from((u128::from(per_hour) * u128::from(factor)).div_ceil(1_000)).unwrap_or(u64::MAX)
    }

    /// What is kept for classes, as schedules that are always open.
    pub(super) fn guarantees(&self) -> impl Iterator<Item = Schedule> {
        let always = Window { start: LedgerTime(0), end: LedgerTime(u64::MAX) };
        self.guaranteed.iter().flat_map(move |(class, pools)| {
            pools.iter().map(move |(pool, kept)| Schedule {
                name: format!("class {class}"),
                pool: pool.clone(),
                resources: kept.clone(),
                users: Users { classes: vec![class.clone()], ..Users::default() },
                windows: vec![always],
                ..Schedule::default()
            })
        })
    }

    pub(super) fn processing_reasons(&self, put: &[PolicyObject], delete: &[PolicyName]) -> Vec<Reason> {
        let says = |object: &PolicyObject| match object {
            PolicyObject::Queue(q) => q.batch.is_some() || q.guaranteed_processing,
            PolicyObject::Class(c) => c.multiplier_milli.is_some() || !c.guaranteed.is_empty(),
            PolicyObject::Pool(p) => p.rebalance_interval_ms > 0,
            PolicyObject::Schedule(s) => !s.users.classes.is_empty(),
            _ => false,
        };
        if self.version < 9 && put.iter().any(says) {
            return vec![Reason::UnsupportedVersion];
        }
        let mut after = self.guaranteed.clone();
        let mut pools: std::collections::BTreeSet<&String> = self.pools.keys().collect();
        for object in put {
            match object {
                PolicyObject::Class(c) => drop(after.insert(c.name.clone(), c.guaranteed.clone())),
                PolicyObject::Pool(p) => drop(pools.insert(&p.name)),
                _ => {}
            }
        }
        for name in delete {
            match name {
                PolicyName::Class(n) => drop(after.remove(n)),
                PolicyName::Pool(n) => drop(pools.remove(n)),
                _ => {}
            }
        }
        let missing = after.values().flat_map(BTreeMap::keys).filter(|pool| !pools.contains(pool));
        missing
            .map(|pool| if self.pools.contains_key(pool) { Reason::InUse } else { Reason::PoolNotFound })
            .collect()
    }
}
