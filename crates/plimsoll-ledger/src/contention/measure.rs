//! What those who wait for a pool lack: their asks against what the pool has open, by resource.
//!
//! Cost: one pass over the nodes, whoever waits, and O(resources) for each who waits, of whom the first of the queue are looked at.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_types::{Amount, LedgerTime, Resources};

use crate::limits::{MAX_CONTENTION_CLASSES, MAX_CONTENTION_WAITING};
use crate::quota::{GPU, least};
use crate::{GpuShare, Ledger, Node, ProfileName, Reason, Request, Reservation, State, WHOLE_DEVICE_MILLI};

/// A resource of a pool that somebody waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contended {
    /// What those who wait for it ask of it in all; GPUs in thousandths.
    pub demand: u64,
    /// What the pool's nodes that take work have of it.
    pub capacity: u64,
    /// What is open of that.
    pub open: u64,
    /// How many wait for it.
    pub waiting: u64,
    /// The longest that any of them has waited, in milliseconds.
    pub longest_wait_ms: u64,
    /// The worst wait in thousandths of the latency target of its class; 0 where no class has a target.
    pub wait_permille: u64,
    /// Classes of those who wait for it, ascending; bounded.
    pub classes: Vec<String>,
}

/// What those who wait for a pool wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolDemand {
    /// By resource.
    pub resources: BTreeMap<String, Contended>,
    /// How many lack no resource, but quota, budget, the calendar, something idle (best effort) or their turn.
    pub elsewhere: u64,
}

/// What a pool has, and what is open of it.
#[derive(Default)]
struct Totals {
    /// Capacity and what is open of it.
    amounts: BTreeMap<String, (u64, u64)>,
    /// Of the largest device, in bytes.
    device_memory_bytes: u64,
    /// What an instance counts as, in thousandths of a device: the most.
    profiles: BTreeMap<ProfileName, u64>,
}

/// One who waits, and what it asks at least.
struct Waiter<'a> {
    reservation: &'a Reservation,
    asked: Resources,
}

impl Ledger {
    /// What those who wait for a pool lack. O(nodes + those who wait x resources), bounded.
    pub fn contended(&self, pool: &str, now: LedgerTime) -> PoolDemand {
        if self.pending_len(pool) == 0 {
            return PoolDemand::default();
        }
        let totals = self.totals(|of| of == pool).remove(pool).unwrap_or_default();
        self.measure(pool, &totals, now)
    }

    /// The same of every pool for which somebody waits, by one pass over the nodes.
    pub(super) fn contended_pools(&self, now: LedgerTime) -> BTreeMap<&str, PoolDemand> {
        let waited_for = |pool: &str| self.pending_len(pool) > 0;
        let totals = self.totals(waited_for);
        let measured = totals.iter().map(|(pool, totals)| (*pool, self.measure(pool, totals, now)));
        measured.collect()
    }

    /// Of the pools that are wanted. What nodes offer that take no new work does not count.
    fn totals(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<&str, Totals> {
        let mut totals: BTreeMap<&str, Totals> = BTreeMap::new();
        for pool in self.pools().filter(|pool| wanted(&pool.name)) {
            let of = totals.entry(&pool.name).or_default();
            for (name, total) in &pool.countables {
                let open = total.saturating_sub(self.countable_spoken_for(&pool.name, name));
                of.amounts.insert(name.clone(), (total.0, open.0));
            }
        }
        for node in self.nodes().filter(|node| node.is_eligible()) {
            if let Some(of) = totals.get_mut(node.pool.as_str()) {
                self.add_node(of, node);
            }
        }
        totals
    }

    fn add_node(&self, totals: &mut Totals, node: &Node) {
        let countables = self.pool(&node.pool).map(|pool| &pool.countables);
        let mut open = self.open(node.id);
        if let Some(backed) = self.open_backed(node.id) {
            open = open.smaller_of(&backed);
        }
        for (name, has) in node.allocatable.iter() {
            if !countables.is_some_and(|countables| countables.contains_key(name)) {
                totals.add(name, has.0, open.get(name).0);
            }
        }
        let devices = node.registration.devices.iter().zip(self.devices_spoken_for(node.id));
        for (device, taken) in devices.filter(|(device, _)| !device.failed) {
            let whole = u64::from(WHOLE_DEVICE_MILLI);
            totals.add(GPU, whole, whole.saturating_sub(taken.milli.into()));
            totals.device_memory_bytes = totals.device_memory_bytes.max(device.memory_bytes);
            let Some(layout) = &device.mig else { continue };
            for profile in &layout.profiles {
                let most = totals.profiles.entry(profile.name).or_default();
                *most = (*most).max(layout.milli_of(profile).into());
            }
        }
    }

    fn measure(&self, pool: &str, totals: &Totals, now: LedgerTime) -> PoolDemand {
        let mut found = PoolDemand::default();
        let mut waiters = Vec::new();
        let waiting = self.pending(pool).filter_map(|id| self.reservation(id));
        for reservation in waiting.filter(|one| one.state == State::Pending).take(MAX_CONTENTION_WAITING) {
            let asked = totals.asked_by(&reservation.request);
            if self.waits_elsewhere(reservation, &asked) {
                found.elsewhere += 1;
            } else {
                waiters.push(Waiter { reservation, asked });
            }
        }
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for waiter in &waiters {
            for (name, amount) in waiter.asked.iter() {
                let sum = sums.entry(name).or_default();
                *sum = sum.saturating_add(amount.0);
            }
        }
        let is_short = |name: &str, sum: u64| sum > totals.of(name).1;
        let short: BTreeSet<&str> =
            sums.iter().filter(|(name, sum)| is_short(name, **sum)).map(|(name, _)| *name).collect();
        let mut classes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for waiter in &waiters {
            let lacked = waiter.lacks(&short);
            found.elsewhere += u64::from(lacked.is_empty());
            for name in lacked {
                let (capacity, open) = totals.of(name);
                let entry = found.resources.entry(name.to_owned()).or_default();
                (entry.capacity, entry.open) = (capacity, open);
                entry.demand = entry.demand.saturating_add(waiter.asked.get(name).0);
                entry.waiting += 1;
                let waited_ms = now.ms_since(waiter.reservation.waiting_since());
                entry.longest_wait_ms = entry.longest_wait_ms.max(waited_ms);
                entry.wait_permille = entry.wait_permille.max(self.lateness(waiter.reservation, waited_ms));
                classes.entry(name).or_default().insert(&waiter.reservation.request.class);
            }
        }
        for (name, entry) in &mut found.resources {
            let named = classes.get(name.as_str()).into_iter().flatten().take(MAX_CONTENTION_CLASSES);
            entry.classes = named.map(|class| (*class).to_owned()).collect();
        }
        found
    }

    /// True where something else than a resource of the pool keeps a request waiting: quota and budgets as they are now, the calendar as it was
    /// when it was asked, or that it takes only what is idle.
    fn waits_elsewhere(&self, reservation: &Reservation, asked: &Resources) -> bool {
        let request = &reservation.request;
        if reservation.is_best_effort() || request.start_at_ms > 0 {
            return true;
        }
        let of_calendar = |reason: Reason| reason == Reason::ReservedByCalendar;
        if reservation.blockers.iter().any(|blocker| of_calendar(blocker.reason)) {
            return true;
        }
        if !request.queue.is_empty() {
            let short =
                |tree: &crate::QuotaTree| !tree.shortages(&request.queue, &request.pool, asked).is_empty();
            if short(&self.quota) || short(&self.quota_kept) {
                return true;
            }
        }
        let requester = &reservation.requester;
        self.counts_usage()
            && !self
                .usage_blockers(request, requester, self.cheapest(asked, &request.pool), &BTreeMap::new())
                .is_empty()
    }

    /// A wait in thousandths of the latency target of its class; 0 where that has none. A target of less than a second counts as one second.
    fn lateness(&self, reservation: &Reservation, waited_ms: u64) -> u64 {
        let target_ms = self.class(&reservation.request.class).and_then(|class| class.latency_target_ms);
        target_ms.map_or(0, |target_ms| {
            let permille = u128::from(waited_ms) * 1_000 / u128::from(target_ms.max(1_000));
            u64::try_from(permille).unwrap_or(u64::MAX)
        })
    }
}

impl Totals {
    fn add(&mut self, name: &str, capacity: u64, open: u64) {
        if let Some((all, left)) = self.amounts.get_mut(name) {
            (*all, *left) = (all.saturating_add(capacity), left.saturating_add(open));
        } else {
            self.amounts.insert(name.to_owned(), (capacity, open));
        }
    }

    fn of(&self, name: &str) -> (u64, u64) {
        self.amounts.get(name).copied().unwrap_or_default()
    }

    /// The least of a request that is of use, a share by memory in parts of the largest device, an instance as the most that it counts as.
    fn asked_by(&self, request: &Request) -> Resources {
        let mut asked = least(request);
        let members = u64::from(request.gang.min_members.max(1));
        let milli = match request.requirements.gpu.as_ref().map(|gpu| gpu.share) {
            Some(GpuShare::Memory(bytes)) if self.device_memory_bytes > 0 => {
                let parts = u128::from(bytes) * u128::from(WHOLE_DEVICE_MILLI);
                u64::try_from(parts.div_ceil(self.device_memory_bytes.into())).unwrap_or(u64::MAX)
            }
            Some(GpuShare::Mig(profile)) => self.profiles.get(&profile).copied().unwrap_or(1),
            Some(GpuShare::Memory(_)) => WHOLE_DEVICE_MILLI.into(),
            Some(GpuShare::Whole | GpuShare::Milli(_)) | None => return asked,
        };
        asked.set(GPU, Amount(milli.max(1).saturating_mul(members)));
        asked
    }
}

impl Waiter<'_> {
    /// What it lacks: what it asks of that is short in all. Where nothing is, there is enough, but not in one place: then what stood in its way when
    /// it was asked.
    fn lacks<'a>(&'a self, short: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
        let asked = || self.asked.iter().map(|(name, _)| name);
        let missing: BTreeSet<&str> = asked().filter(|name| short.contains(name)).collect();
        if !missing.is_empty() {
            return missing;
        }
        let room = |reason: Reason| matches!(reason, Reason::NoCapacity | Reason::CountableExhausted);
        let blockers = self.reservation.blockers.iter().filter(|blocker| room(blocker.reason));
        let subjects: Vec<&str> = blockers.map(|blocker| blocker.subject.as_str()).collect();
        let names = |name: &str| {
            let instances = name == GPU && subjects.iter().any(|subject| subject.starts_with("mig "));
            instances || subjects.contains(&name)
        };
        asked().filter(|name| names(name)).collect()
    }
}

impl Reservation {
    /// Since when one that waits does: since it was asked, or given notice for another.
    pub fn waiting_since(&self) -> LedgerTime {
        self.preempted.as_ref().map_or(self.submitted_at, |taken| taken.at.max(self.submitted_at))
    }
}
