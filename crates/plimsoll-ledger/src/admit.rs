//! The one admission rule: may this request be booked at this place, now?
//!
//! The planner calls it on its own view of the ledger and `apply` calls it on the truth, so that both can only differ
//! in what they know, never in what they hold to be allowed. Everything that stands in the way is listed.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_mutants::mutant;
use plimsoll_types::{Amount, LedgerTime, NodeId, ReservationId, Resources};

use crate::apply::hard_end;
use crate::calendar::{Ask, Room, window_of};
use crate::device::{has_room_at, is_of_share};
use crate::ledger::Slot;
use crate::qos::node_room;
use crate::quota::{QuotaTree, Shortage, charge};
use crate::role::role_blockers;
use crate::{
    Blocker, Device, DeviceGrant, DeviceUsage, GpuShare, Ledger, MemberPlacement, Placement, Pool, Reason,
    Refusal, Request, Reservation, WHOLE_DEVICE_MILLI, device_matches,
};

impl Ledger {
    /// Judges a new grant of `request` at `placement`. Cost: O(members), whatever the ledger holds.
    ///
    /// # Errors
    /// A refusal that lists all that stands in the way; its reason is the first in the order of `Reason`.
    pub fn admit(&self, request: &Request, placement: &Placement) -> Result<(), Refusal> {
        self.admit_for(request, "", placement)
    }

    /// The same for somebody: limits and budgets go by who asks where the request names no tenant. Its durations are looked up as a new
    /// request's are. Cost: O(members + quotas about it).
    ///
    /// # Errors
    /// As for [`Ledger::admit`].
    pub fn admit_for(
        &self,
        request: &Request,
        requester: &str,
        placement: &Placement,
    ) -> Result<(), Refusal> {
        self.admit_at(request, requester, placement, (self.meta.clock, None)).map(drop)
    }

    /// The same at a moment of ledger time, and perhaps for the advance reservation that `when` names. Cost: as for [`Ledger::admit_for`], and
    /// where something of the pool is kept by the calendar, O(its windows). `Some` is when the grant has to end, where a schedule cuts it short.
    ///
    /// # Errors
    /// As for [`Ledger::admit`].
    pub fn admit_at(
        &self,
        request: &Request,
        requester: &str,
        placement: &Placement,
        when: (LedgerTime, Option<ReservationId>),
    ) -> Result<Option<LedgerTime>, Refusal> {
        let sight = if mutant!("give-away-the-kept") { Sight::Now } else { Sight::Both };
        self.admit_seeing(request, requester, placement, when, sight)
    }

    /// [`Ledger::admit_for`] that does not look at what is kept for those who wait for others to leave: for one of them.
    pub(crate) fn admit_now(&self, waiting: &Reservation, placement: &Placement) -> Result<(), Refusal> {
        let (request, when) = (&waiting.request, (self.meta.clock, None));
        self.admit_seeing(request, &waiting.requester, placement, when, Sight::Now).map(drop)
    }

    /// [`Ledger::admit_for`] as it will be once those who were given notice have left, and those for whom they leave are there. The calendar
    /// counts the former until they have left and the latter once they are there: what it refuses so is asked again when they have.
    pub(crate) fn admit_later(&self, waiting: &Reservation, placement: &Placement) -> Result<(), Refusal> {
        let (request, when) = (&waiting.request, (self.meta.clock, None));
        self.admit_seeing(request, &waiting.requester, placement, when, Sight::Later).map(drop)
    }

    fn admit_seeing(
        &self,
        request: &Request,
        requester: &str,
        placement: &Placement,
        (now, plan): (LedgerTime, Option<ReservationId>),
        sight: Sight,
    ) -> Result<Option<LedgerTime>, Refusal> {
        let mut cut = None;
        let mut blockers = Vec::new();
        let Some(pool) = self.pool(&request.pool) else {
            return Err(Refusal::one(Reason::PoolNotFound, request.pool.as_str(), 1, 0));
        };
        if self.check_places(pool, request, (&placement.members, placement), sight, &mut blockers) {
            if self.counts_usage()
                && let Some(total) = request.charge(&placement.members)
            {
                let priced = self.priced(&total, &placement.members);
                blockers.extend(self.usage_blockers(request, requester, priced, &BTreeMap::new()));
            }
            cut = self.check_calendar(request, placement, now, plan, &mut blockers);
        }
        refuse_if_any(blockers).map(|()| cut)
    }

    /// Where new members are, and what nodes, devices and quotas have for them: all rules but those about time and money. `all` are the members
    /// that are together then. False where nodes do not suit, so that amounts were not looked at.
    pub(crate) fn check_places(
        &self,
        pool: &Pool,
        request: &Request,
        (all, new): (&[MemberPlacement], &Placement),
        sight: Sight,
        blockers: &mut Vec<Blocker>,
    ) -> bool {
        self.check_members(request, new, blockers);
        if !blockers.is_empty() {
            return false;
        }
        self.check_amounts(pool, request, new, sight, blockers);
        self.check_device_grants(request, new, sight, blockers);
        self.check_quota(request, new, sight, blockers);
        self.check_topology(request, all, blockers);
        self.check_affinity(request, new, sight, blockers);
        blockers.extend(self.spot_blockers(request, &new.members));
        true
    }

    /// What the whole placement takes against what is kept for others until it ends.
    fn check_calendar(
        &self,
        request: &Request,
        placement: &Placement,
        now: LedgerTime,
        plan: Option<ReservationId>,
        blockers: &mut Vec<Blocker>,
    ) -> Option<LedgerTime> {
        if !self.calendar.has(&request.pool) {
            return None;
        }
        // A sum that does not fit in 64 bits does not fit the nodes either, which has been said.
        let amounts = request.charge(&placement.members)?;
        let until = match plan {
            Some(_) => window_of(request).end,
            None => Some(hard_end(request, now)).filter(|end| end.0 > 0).unwrap_or(LedgerTime(u64::MAX)),
        };
        let may_cut = plan.is_none();
        match self.calendar.judge(&Ask { request, amounts: &amounts, from: now, until, plan, may_cut }) {
            Room::Free => None,
            Room::Until(end) => Some(end),
            Room::Short(found) => {
                blockers.extend(found);
                None
            }
        }
    }

    /// Judges a change of the amounts per member from `old` to `new` for members that are already placed, from `now` until they end.
    pub(crate) fn admit_resize(
        &self,
        request: &Request,
        members: &[MemberPlacement],
        (old, new): (&Resources, &Resources),
        (now, until): (LedgerTime, LedgerTime),
    ) -> Result<(), Refusal> {
        let mut blockers = Vec::new();
        let pool_name = &request.pool;
        let pool = self.pool(pool_name);
        let countables = pool.map(|pool| &pool.countables);
        let in_pool = |name: &str| countables.is_some_and(|countables| countables.contains_key(name));
        let mut per_node: BTreeMap<NodeId, u64> = BTreeMap::new();
        for member in members {
            *per_node.entry(member.node).or_default() += 1;
        }
        for (name, amount) in new.iter() {
            let count = members.len() as u64;
            let growth = |count: u64| times(amount, count).saturating_sub(times(old.get(name), count));
            if in_pool(name) {
                let total = countables.and_then(|c| c.get(name)).copied().unwrap_or_default();
                let free = total.saturating_sub(self.countable_spoken_for(pool_name, name));
                shortage(&mut blockers, Reason::CountableExhausted, name, growth(count), free, total);
                continue;
            }
            for (&node, &count) in &per_node {
                let (Some(slot), Some(pool)) = (self.slot(node), pool) else { continue };
                let (open, limit) = node_room(pool, slot, request, name, Sight::Both);
                shortage(&mut blockers, Reason::NoCapacity, name, growth(count), open, limit);
            }
        }
        let (of_quota, of_calendar) = (counts_against_quota(request), self.calendar.has(&request.pool));
        if (of_quota || of_calendar)
            && let (Some(before), Some(after)) = (charge(old, members), charge(new, members))
        {
            let grown = after.saturating_sub(&before);
            if of_quota {
                self.quota_blockers(request, &grown, Sight::Both, &mut blockers);
            }
            let ask = Ask { request, amounts: &grown, from: now, until, plan: None, may_cut: false };
            if let Room::Short(found) = self.calendar.judge(&ask) {
                blockers.extend(found);
            }
        }
        refuse_if_any(blockers)
    }

    /// What the whole placement takes against what the queue and those above it have left.
    fn check_quota(
        &self,
        request: &Request,
        placement: &Placement,
        sight: Sight,
        blockers: &mut Vec<Blocker>,
    ) {
        if !counts_against_quota(request) {
            return;
        }
        let Some(asked) = request.charge(&placement.members) else {
            return blockers.push(Blocker::new(
                Reason::InvalidArgument,
                "amounts of all members",
                u64::MAX,
                0,
            ));
        };
        self.quota_blockers(request, &asked, sight, blockers);
    }

    fn quota_blockers(
        &self,
        request: &Request,
        asked: &Resources,
        sight: Sight,
        blockers: &mut Vec<Blocker>,
    ) {
        let shortages = |tree: &QuotaTree| tree.shortages(&request.queue, &request.pool, asked);
        let mut short = if sight == Sight::Later { Vec::new() } else { shortages(&self.quota) };
        if short.is_empty() && sight != Sight::Now {
            // What is enough now is not, where it is kept for somebody.
            short = shortages(&self.quota_kept);
        }
        blockers.extend(short.iter().map(Blocker::of_quota));
    }

    /// Number of members, and per member: node there, in the pool, eligible, labels, number of devices.
    fn check_members(&self, request: &Request, placement: &Placement, blockers: &mut Vec<Blocker>) {
        let gang = request.gang;
        let count = placement.members.len() as u64;
        if count < gang.min_members.into() || count > gang.max_members.into() {
            let most = u64::from(gang.max_members);
            let blocker =
                Blocker::new(Reason::InvalidArgument, "placement.members", count, gang.min_members.into());
            blockers.push(Blocker { limit: most, ..blocker });
        }
        blockers.extend(role_blockers(request, &placement.members));
        let mut nodes = BTreeSet::new();
        // Roles of which a node has members.
        let mut plays = BTreeSet::new();
        for member in &placement.members {
            let Some(slot) = self.slot(member.node) else {
                blockers.push(Blocker::new(Reason::NotFound, format!("node #{}", member.node.0), 1, 0));
                continue;
            };
            let is_new = nodes.insert(member.node);
            if !is_new && gang.spread {
                blockers.push(about(slot, Reason::InvalidArgument));
            }
            let of_role = &request.needs(member.role).required;
            if !request.roles.is_empty()
                && plays.insert((member.node, member.role))
                && !of_role.terms.is_empty()
                && !of_role.matches(&slot.node.effective_labels())
            {
                blockers.push(about(slot, Reason::LabelMismatch));
            }
            if !is_new {
                continue;
            }
            if slot.node.pool != request.pool {
                blockers.push(about(slot, Reason::PoolMismatch));
            }
            if !slot.node.is_eligible() {
                blockers.push(about(slot, Reason::NodeNotAvailable));
            }
            if !request.requirements.required.terms.is_empty()
                && !request.requirements.required.matches(&slot.node.effective_labels())
            {
                blockers.push(about(slot, Reason::LabelMismatch));
            }
        }
    }

    /// Amounts against what nodes and pool have free.
    fn check_amounts(
        &self,
        pool: &Pool,
        request: &Request,
        placement: &Placement,
        sight: Sight,
        blockers: &mut Vec<Blocker>,
    ) {
        let roles = request.roles.len().max(1);
        let mut per_node: BTreeMap<NodeId, Counts> = BTreeMap::new();
        let mut in_all = Counts::none(roles);
        for member in &placement.members {
            per_node.entry(member.node).or_insert_with(|| Counts::none(roles)).add(member.role);
            in_all.add(member.role);
        }
        let asked_by = |counts: &Counts, name: &str| {
            let of_roles =
                counts.of_roles().map(|(role, count)| times(request.needs(role).amounts.get(name), count));
            of_roles.fold(Amount::ZERO, |sum, more| Amount(sum.0.saturating_add(more.0)))
        };
        for name in names_of(request) {
            if let Some(&total) = pool.countables.get(name) {
                let asked = asked_by(&in_all, name);
                let used = match sight {
                    Sight::Both => self.countable_spoken_for(&pool.name, name),
                    Sight::Now => self.countables_used(&pool.name).get(name),
                    Sight::Later => self.countable_kept(&pool.name, name),
                };
                let free = total.saturating_sub(used);
                shortage(blockers, Reason::CountableExhausted, name, asked, free, total);
                continue;
            }
            for (&node, counts) in &per_node {
                let Some(slot) = self.slot(node) else { continue };
                let (free, limit) = node_room(pool, slot, request, name, sight);
                shortage(blockers, Reason::NoCapacity, name, asked_by(counts, name), free, limit);
            }
        }
    }

    /// Devices against the ask, and against what other grants and earlier members of this one take.
    fn check_device_grants(
        &self,
        request: &Request,
        placement: &Placement,
        sight: Sight,
        blockers: &mut Vec<Blocker>,
    ) {
        let mut taken: BTreeMap<(NodeId, u16), DeviceUsage> = BTreeMap::new();
        for member in &placement.members {
            let gpu = &request.needs(member.role).gpu;
            let asked = gpu.as_ref().map_or(0, |gpu| gpu.count as usize);
            let ascending = member.devices.windows(2).all(|pair| pair[0].device < pair[1].device);
            if member.devices.len() != asked || !ascending {
                let given = member.devices.len() as u64;
                blockers.push(Blocker::new(
                    Reason::InvalidArgument,
                    "placement.devices",
                    given,
                    asked as u64,
                ));
                continue;
            }
            let (Some(gpu), Some(slot)) = (gpu, self.slot(member.node)) else {
                continue;
            };
            for grant in &member.devices {
                let index = usize::from(grant.device.0);
                let Some(device) = slot.node.registration.devices.get(index) else {
                    blockers.push(about(slot, Reason::DeviceMismatch));
                    continue;
                };
                let (milli, _) = gpu.share.of_device(device);
                let fits_ask = !device.failed && device_matches(gpu, device);
                if !fits_ask || !is_of_share(grant, gpu.share, device) {
                    let blocker =
                        Blocker::new(Reason::DeviceMismatch, device.uuid.as_str(), milli, grant.milli.into());
                    blockers.push(blocker);
                    continue;
                }
                let before = match sight {
                    Sight::Both => slot.usage.device_spoken_for(index),
                    Sight::Now => slot.usage.devices.get(index).copied().unwrap_or_default(),
                    Sight::Later => slot.usage.device_later(index),
                };
                let now = taken.entry((member.node, grant.device.0)).or_insert(before);
                if has_room_at(now, gpu.share, device, grant.slices) {
                    now.add(grant);
                } else {
                    blockers.push(no_room(device, gpu.share, grant, now));
                }
            }
        }
    }
}

/// Which world a place is judged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// As it is, and as it will be: for whoever has no place kept.
    Both,
    /// As it is.
    Now,
    /// As it will be once those who were given notice have left, and those for whom they leave are there.
    Later,
}

impl Blocker {
    /// What stands in the way where a quota is short.
    pub fn of_quota(short: &Shortage) -> Blocker {
        let subject = format!("{} in queue {}", short.resource, short.queue);
        Blocker {
            limit: short.limit.0,
            ..Blocker::new(Reason::QuotaExceeded, subject, short.asked.0, short.free.0)
        }
    }
}

/// Members by role. One number where there are no roles.
struct Counts {
    first: u64,
    others: Vec<u64>,
}

impl Counts {
    fn none(roles: usize) -> Counts {
        Counts { first: 0, others: vec![0; roles - 1] }
    }

    fn add(&mut self, role: u16) {
        let other = usize::from(role).checked_sub(1).and_then(|index| self.others.get_mut(index));
        *other.unwrap_or(&mut self.first) += 1;
    }

    fn of_roles(&self) -> impl Iterator<Item = (u16, u64)> {
        (0..).zip(std::iter::once(self.first).chain(self.others.iter().copied()))
    }
}

/// Amounts that any member asks for, in the order of their names where there are roles.
fn names_of(request: &Request) -> Vec<&str> {
    let mut names: Vec<&str> =
        request.kinds().flat_map(|needs| needs.amounts.iter()).map(|(name, _)| name).collect();
    if !request.roles.is_empty() {
        names.sort_unstable();
        names.dedup();
    }
    names
}

/// Most requests name no queue, and cost nothing here.
fn counts_against_quota(request: &Request) -> bool {
    !request.queue.is_empty() && !mutant!("forget-quota")
}

/// What of a device is taken: thousandths, or the place of an instance.
fn no_room(device: &Device, share: GpuShare, grant: &DeviceGrant, taken: &DeviceUsage) -> Blocker {
    if let (GpuShare::Mig(profile), Some(slices)) = (share, grant.slices) {
        let subject = format!("{} from slice {} of {}", profile, slices.start, device.uuid);
        return Blocker::new(Reason::NoCapacity, subject, 1, 0);
    }
    let free = u64::from(WHOLE_DEVICE_MILLI).saturating_sub(taken.milli.into());
    Blocker::new(Reason::NoCapacity, device.uuid.as_str(), grant.milli.into(), free)
}

fn about(slot: &Slot, reason: Reason) -> Blocker {
    Blocker { nodes: 1, ..Blocker::new(reason, slot.node.name(), 1, 0) }
}

fn shortage(
    blockers: &mut Vec<Blocker>,
    reason: Reason,
    name: &str,
    asked: Amount,
    free: Amount,
    limit: Amount,
) {
    if asked > free {
        blockers.push(Blocker { limit: limit.0, ..Blocker::new(reason, name, asked.0, free.0) });
    }
}

/// Requests are validated so that amounts times members fit; the far end stands for what does not.
fn times(amount: Amount, count: u64) -> Amount {
    let wrong = if mutant!("wrap-on-overflow") { amount.0.wrapping_mul(count) } else { u64::MAX };
    amount.checked_mul(count).unwrap_or(Amount(wrong))
}

pub(crate) fn refuse_if_any(mut blockers: Vec<Blocker>) -> Result<(), Refusal> {
    blockers.sort_by_key(|blocker| blocker.reason);
    match blockers.first() {
        None => Ok(()),
        Some(first) => Err(Refusal { reason: first.reason, blockers }),
    }
}
