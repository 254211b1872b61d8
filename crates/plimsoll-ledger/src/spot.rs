//! How much of the same work may be on spot nodes: a share of its members, and of a service's members a share in each spot pool
//! (`docs/semantics.md` 5.22).
//!
//! Counted are members that stay: who was given notice is on its way out, and who has a place kept will be there. Invariant: the counts are those of
//! the reservations and of their nodes' labels; they are kept while some policy asks for them, and empty otherwise.

use std::collections::BTreeMap;

use plimsoll_mutants::mutant;

use crate::{Blocker, CapacityType, Ledger, MemberPlacement, Node, Reason, Request, Reservation, SpotPolicy};

/// Work that a share is of: pool, and the service, or else the queue, of its requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpotGroup {
    pool: String,
    is_service: bool,
    /// Empty for requests of the pool that name neither.
    name: String,
}

/// Members of such work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpotCount {
    /// Wherever they are.
    pub members: u64,
    /// On spot nodes.
    pub on_spot: u64,
    /// Of these, in each spot pool.
    pub in_pools: BTreeMap<String, u64>,
}

/// Members of all work, while it is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpotIndex {
    /// Some policy asks for it.
    is_asked: bool,
    counts: BTreeMap<SpotGroup, SpotCount>,
}

/// What of so many new members may be where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpotRoom {
    /// So many on spot nodes.
    pub on_spot: u64,
    /// So many in a spot pool that has none of the work yet; `None` where nothing bounds that.
    pub in_new_pool: Option<u64>,
    /// And in those that have, where that is bounded.
    pub in_pools: BTreeMap<String, u64>,
}

impl SpotGroup {
    /// The work that a request is of.
    pub fn of(request: &Request) -> SpotGroup {
        let is_service = !request.service.is_empty();
        let name = if is_service { &request.service } else { &request.queue };
        SpotGroup { pool: request.pool.clone(), is_service, name: name.clone() }
    }

    /// As screens show it: `service web`, `queue research`, `pool default`.
    pub fn named(&self) -> String {
        match (self.is_service, self.name.is_empty()) {
            (true, _) => format!("service {}", self.name),
            (false, false) => format!("queue {}", self.name),
            (false, true) => format!("pool {}", self.pool),
        }
    }
}

impl SpotCount {
    /// Counts a member on a node.
    pub fn add_member(&mut self, node: &Node) {
        self.members += 1;
        if let Some(spot_pool) = node.spot_pool() {
            self.on_spot += 1;
            *self.in_pools.entry(spot_pool.to_owned()).or_default() += 1;
        }
    }

    /// Counts others, too.
    pub fn add(&mut self, others: &SpotCount) {
        self.members += others.members;
        self.on_spot += others.on_spot;
        for (name, more) in &others.in_pools {
            *self.in_pools.entry(name.clone()).or_default() += more;
        }
    }

    /// Counts those no more that were added.
    pub fn subtract(&mut self, others: &SpotCount) {
        self.members -= others.members;
        self.on_spot -= others.on_spot;
        for (name, fewer) in &others.in_pools {
            let within = self.in_pools.entry(name.clone()).or_default();
            *within -= fewer;
            if *within == 0 {
                self.in_pools.remove(name);
            }
        }
    }

    /// What of `more` members the policy lets be where.
    fn room(&self, policy: &SpotPolicy, group: &SpotGroup, more: u64) -> SpotRoom {
        let after = self.members + more;
        let part = |of: u64, permille: u32| {
            u64::try_from(u128::from(of) * u128::from(permille) / 1_000).unwrap_or(u64::MAX)
        };
        let most = part(after.saturating_sub(policy.base.into()), policy.share_permille);
        let bound = group.is_service && policy.max_in_one_permille > 0;
        let in_one = bound.then(|| part(after, policy.max_in_one_permille));
        let left = |(name, have): (&String, &u64)| Some((name.clone(), in_one?.saturating_sub(*have)));
        SpotRoom {
            on_spot: most.saturating_sub(self.on_spot).min(more),
            in_new_pool: in_one,
            in_pools: self.in_pools.iter().filter_map(left).collect(),
        }
    }
}

impl SpotRoom {
    /// What is left in a spot pool; `None` where nothing bounds that.
    pub fn in_pool(&self, name: &str) -> Option<u64> {
        self.in_pools.get(name).copied().or(self.in_new_pool)
    }

    /// True where `more` members may be anywhere.
    pub fn is_free_for(&self, more: u64) -> bool {
        self.on_spot >= more
            && self.in_new_pool.is_none_or(|left| left >= more)
            && self.in_pools.values().all(|left| *left >= more)
    }
}

impl Ledger {
    /// What of `more` new members of a request may be on spot nodes, beside what is there and `booked`; `None` where no policy bounds it. O(queues
    /// above + spot pools with such work).
    pub fn spot_room(&self, request: &Request, booked: Option<&SpotCount>, more: u64) -> Option<SpotRoom> {
        let policy = self.spot_policy(request)?;
        if !request.may_use(CapacityType::Spot) {
            return None;
        }
        let group = SpotGroup::of(request);
        let mut there = self.spots.counts.get(&group).cloned().unwrap_or_default();
        if let Some(booked) = booked {
            there.add(booked);
        }
        Some(there.room(policy, &group, more))
    }

    /// What stands in the way of new members at their places: too many of the same work would be on spot nodes, or in one spot pool.
    pub fn spot_blockers(&self, request: &Request, members: &[MemberPlacement]) -> Vec<Blocker> {
        let Some(room) = self.spot_room(request, None, members.len() as u64) else { return Vec::new() };
        if mutant!("forget-the-spot-share") {
            return Vec::new();
        }
        let new = self.spots_of(members);
        let group = SpotGroup::of(request).named();
        let mut found = Vec::new();
        if new.on_spot > room.on_spot {
            found.push(Blocker::new(Reason::SpotShare, group.as_str(), new.on_spot, room.on_spot));
        }
        for (name, asked) in &new.in_pools {
            if let Some(left) = room.in_pool(name).filter(|left| asked > left) {
                found.push(Blocker::new(
                    Reason::SpotShare,
                    format!("{group} in spot pool {name:?}"),
                    *asked,
                    left,
                ));
            }
        }
        found
    }

    /// Where these members are.
    pub fn spots_of(&self, members: &[MemberPlacement]) -> SpotCount {
        let mut count = SpotCount::default();
        for node in members.iter().filter_map(|member| self.node(member.node)) {
            count.add_member(node);
        }
        count
    }

    /// True where new members keep to the share of their work once these have left, who count in it now. O(queues above + members).
    pub fn keeps_to_share_without<'a>(
        &self,
        request: &Request,
        members: &[MemberPlacement],
        gone: impl Iterator<Item = &'a Reservation>,
    ) -> bool {
        let Some(policy) = self.spot_policy(request).filter(|_| request.may_use(CapacityType::Spot)) else {
            return true;
        };
        let group = SpotGroup::of(request);
        let mut there = self.spots.counts.get(&group).cloned().unwrap_or_default();
        for one in gone.filter(|one| SpotGroup::of(&one.request) == group) {
            there.subtract(&self.spots_of(&one.members));
        }
        let (new, room) = (self.spots_of(members), there.room(policy, &group, members.len() as u64));
        let fits = |(name, have): (&String, &u64)| room.in_pool(name).is_none_or(|left| *have <= left);
        new.on_spot <= room.on_spot && new.in_pools.iter().all(fits)
    }

    /// Members of work, as counted for spot policies; nothing where none asks.
    pub fn spot_count(&self, group: &SpotGroup) -> Option<&SpotCount> {
        self.spots.counts.get(group)
    }

    /// Counts a reservation's members that stay, or takes them off.
    pub(crate) fn count_on_spot(&mut self, reservation: &Reservation, add: bool) {
        if !self.asks_for_spots() || !reservation.is_staying() || reservation.members.is_empty() {
            return;
        }
        let group = SpotGroup::of(&reservation.request);
        let mut count = self.spots.counts.remove(&group).unwrap_or_default();
        let of_it = self.spots_of(&reservation.members);
        match add {
            true => count.add(&of_it),
            false => count.subtract(&of_it),
        }
        if count != SpotCount::default() {
            self.spots.counts.insert(group, count);
        }
    }

    /// Forgets the counts, for whoever counts every reservation again.
    pub(crate) fn forget_spots(&mut self) {
        self.spots.counts.clear();
    }

    /// Counts all anew where a policy asks for the first time, and nothing more once none asks.
    pub(crate) fn follow_spot_policies(&mut self) {
        if self.has_spot_policies() != self.spots.is_asked {
            self.recount_spots();
        }
    }

    /// True where some policy asks for counts. From version 11 on: there are none before.
    pub(crate) fn asks_for_spots(&self) -> bool {
        self.spots.is_asked
    }

    fn has_spot_policies(&self) -> bool {
        self.pools.values().any(|pool| pool.spot.is_some())
            || self.queues.values().any(|queue| queue.spot.is_some())
    }

    /// Counts all anew: policy changed, or a node is paid for in another way. O(reservations), and nothing where no policy asks.
    pub(crate) fn recount_spots(&mut self) {
        self.spots = SpotIndex { is_asked: self.has_spot_policies(), counts: BTreeMap::new() };
        if !self.asks_for_spots() {
            return;
        }
        let placed: Vec<_> = self.reservations.values().filter(|r| !r.members.is_empty()).cloned().collect();
        for reservation in &placed {
            self.count_on_spot(reservation, true);
        }
    }
}
