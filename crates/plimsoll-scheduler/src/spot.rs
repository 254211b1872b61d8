//! Places within what a policy lets be on spot nodes. Labels say which nodes may be used at all; here is how many members, counted with those on
//! their way (`docs/semantics.md` 5.22).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{
    Blocker, CapacityType, Ledger, Placement, Reason, Request, SPOT_POOL, SpotCount, SpotGroup, SpotRoom,
    Strategy, Wait, not_spot,
};
use plimsoll_types::{Operator, Term};

use crate::Planner;

/// What proposals in flight add to work that policies count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spots {
    booked: BTreeMap<SpotGroup, SpotCount>,
    /// Somebody found no place since the last walk for want of a share: more of its work elsewhere makes room for it.
    pub(crate) is_missed: bool,
}

/// What a proposal in flight adds.
pub(crate) type BookedSpots = (SpotGroup, SpotCount);

impl Planner {
    /// A place by this strategy, within the share of its work: on spot nodes as far as that goes, else on others.
    pub(crate) fn find_by(
        &mut self,
        ledger: &Ledger,
        request: &Request,
        strategy: Strategy,
    ) -> Option<Placement> {
        let most = request.gang.max_members.into();
        let Some(room) = self.spot_room(ledger, request, most).filter(|room| !room.is_free_for(most)) else {
            return self.find_within(ledger, request, strategy, None);
        };
        let partly = if room.on_spot > 0 {
            let found = self.find_within(ledger, request, strategy, Some(&room));
            found.and_then(|found| self.keep_to_share(ledger, request, found))
        } else {
            None
        };
        let found = partly.or_else(|| self.find_within(ledger, &request.off_spot(), strategy, None));
        self.spots.is_missed |= found.is_none();
        found
    }

    /// The request as a search that knows no shares may take it: kept off spot nodes where not all of its members may be there.
    pub(crate) fn within_share<'a>(&self, ledger: &Ledger, request: &'a Request) -> Cow<'a, Request> {
        let most = request.gang.max_members.into();
        match self.spot_room(ledger, request, most) {
            Some(room) if !room.is_free_for(most) => Cow::Owned(request.off_spot()),
            _ => Cow::Borrowed(request),
        }
    }

    /// What keeps the fewest members of a request that are of use from being on spot nodes, whether they could be elsewhere or not.
    pub(crate) fn share_blocker(&self, ledger: &Ledger, request: &Request) -> Option<Blocker> {
        let least = u64::from(request.gang.min_members.max(1));
        let room = self.spot_room(ledger, request, least).filter(|room| !room.is_free_for(least))?;
        let left = room.in_new_pool.map_or(room.on_spot, |left| left.min(room.on_spot));
        Some(Blocker::new(Reason::SpotShare, SpotGroup::of(request).named(), least, left))
    }

    /// True for one that no room on nodes helps: it could be on spot nodes alone, and more of its work than there is would have to be elsewhere. O(nodes
    /// of the pool) for a new shape.
    pub(crate) fn waits_for_its_share(&mut self, ledger: &Ledger, request: &Request) -> bool {
        let elsewhere = request.may_use(CapacityType::OnDemand) || request.may_use(CapacityType::Reserved);
        self.share_blocker(ledger, request).is_some()
            && (!elsewhere || self.never_fits(ledger, &request.off_spot()).is_some())
    }

    /// What of `more` new members may be on spot nodes, those on their way counted; `None` where no policy bounds it.
    fn spot_room(&self, ledger: &Ledger, request: &Request, more: u64) -> Option<SpotRoom> {
        ledger.spot_policy(request)?;
        let booked = self.spots.booked.get(&SpotGroup::of(request));
        // Who is on its way elsewhere may arrive after this one, which is refused then: who would not wait does not count on it.
        let surely = booked
            .filter(|_| request.wait == Wait::Refuse)
            .map(|booked| SpotCount { members: booked.on_spot, ..booked.clone() });
        ledger.spot_room(request, surely.as_ref().or(booked), more)
    }

    /// Drops members from spot nodes until what is left keeps to its share; nothing where too few are left, or one of a role would be missed.
    fn keep_to_share(&self, ledger: &Ledger, request: &Request, mut found: Placement) -> Option<Placement> {
        let least = request.gang.min_members.max(1) as usize;
        while found.members.len() >= least {
            let count = ledger.spots_of(&found.members);
            let room = self.spot_room(ledger, request, found.members.len() as u64)?;
            let is_over = |name: &str, have: u64| room.in_pool(name).is_some_and(|left| have > left);
            let full: BTreeSet<&str> = count
                .in_pools
                .iter()
                .filter(|(name, have)| is_over(name, **have) || count.on_spot > room.on_spot)
                .map(|(name, _)| name.as_str())
                .collect();
            if full.is_empty() {
                return Some(found);
            }
            if !request.roles.is_empty() {
                return None;
            }
            let is_one = |node| {
                let name = ledger.node(node).and_then(|node| node.spot_pool());
                name.is_some_and(|name| full.contains(name))
            };
            let last = found.members.iter().rposition(|member| is_one(member.node))?;
            found.members.remove(last);
            crate::planner::keep_groups(request, &mut found);
        }
        None
    }

    /// What of a place limits and budgets are enough for. With fewer members fewer may be on spot nodes.
    pub(crate) fn afford(
        &self,
        ledger: &Ledger,
        request: &Request,
        requester: &str,
        found: Placement,
    ) -> Option<Placement> {
        let members = found.members.len();
        let paid = self.spending.trim(ledger, request, requester, found)?;
        let is_whole = paid.members.len() == members;
        match is_whole || self.spot_room(ledger, request, members as u64).is_none() {
            true => Some(paid),
            false => self.keep_to_share(ledger, request, paid),
        }
    }

    /// Counts a placement that is proposed.
    pub(crate) fn book_spots(
        &mut self,
        ledger: &Ledger,
        request: &Request,
        placement: &Placement,
    ) -> Option<BookedSpots> {
        ledger.spot_policy(request)?;
        let (group, count) = (SpotGroup::of(request), ledger.spots_of(&placement.members));
        self.spots.booked.entry(group.clone()).or_default().add(&count);
        Some((group, count))
    }

    /// Counts it no more: it was applied, refused or lost.
    pub(crate) fn unbook_spots(&mut self, (group, count): &BookedSpots) {
        if let Some(booked) = self.spots.booked.get_mut(group) {
            booked.subtract(count);
            if booked.members == 0 {
                self.spots.booked.remove(group);
            }
        }
        // Who waits for a share waits for more of its work to be elsewhere.
        self.queue_pass_due |= self.spots.is_missed;
    }
}

/// Labels that the next member's node must not have, where the members before it take so many places of what is left.
pub(crate) fn closed(room: &SpotRoom, taken: &SpotCount) -> Option<Term> {
    let has_room = |name: &str| {
        let have = taken.in_pools.get(name).copied().unwrap_or_default();
        room.in_pool(name).is_none_or(|left| left > have)
    };
    let known: BTreeSet<&String> = room.in_pools.keys().chain(taken.in_pools.keys()).collect();
    let full: Vec<String> = known.into_iter().filter(|name| !has_room(name)).cloned().collect();
    // A spot pool without a name cannot be told from nodes that are in none.
    let all =
        taken.on_spot >= room.on_spot || room.in_new_pool == Some(0) || full.iter().any(String::is_empty);
    if all {
        return Some(not_spot());
    }
    (!full.is_empty()).then(|| Term { key: SPOT_POOL.to_owned(), operator: Operator::NotIn, values: full })
}
