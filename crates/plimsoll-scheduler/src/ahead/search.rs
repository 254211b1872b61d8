//! The earliest place in the future for all members of a request.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Ledger, MemberPlacement, Placement, Request};
use plimsoll_types::{NodeId, ReservationId, Resources};

use super::future::{FOREVER, Future, Spot};
use super::gangs;
use crate::fleet::{Fleet, split};

/// Most looks at nodes of one search.
pub(crate) const LOOKS_PER_SEARCH: u64 = 4_096;

/// What a search is for.
pub(crate) struct Search<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) fleet: &'a Fleet,
    pub(crate) future: &'a Future,
    pub(crate) request: &'a Request,
    /// Milliseconds of ledger time.
    pub(crate) now_ms: u64,
    /// From its start to when its place is free again at the latest; [`FOREVER`] where it declares none.
    pub(crate) length_ms: u64,
    /// No place is known to come about before this moment; 0 where nothing is known.
    pub(crate) from_ms: u64,
    /// Whose planned starts are left alone.
    pub(crate) counts: &'a dyn Fn(ReservationId) -> bool,
}

impl Search<'_> {
    /// The earliest place, or nothing where none comes about before `looks` are used up. O(looks x what leaves a node).
    pub(crate) fn earliest(&self, looks: &mut u64) -> Option<Spot> {
        self.earliest_or_on(None, looks)
    }

    /// The same for a request that may fit now: `open` is a node with room for a member.
    pub(crate) fn earliest_or_on(&self, open: Option<NodeId>, looks: &mut u64) -> Option<Spot> {
        let mut left = LOOKS_PER_SEARCH.min(*looks);
        let whole = left;
        let found = if gangs::is_for(self.request) {
            gangs::earliest(self, &mut left)
        } else {
            let (amounts, in_pool) = split(self.ledger, self.request);
            let wanted = self.request.gang.min_members.max(1);
            self.sweep(&amounts, &in_pool, (wanted, open), &mut BTreeMap::new(), &mut left)
        };
        *looks -= whole - left;
        let (start_ms, members) = found?;
        let until_ms = start_ms.saturating_add(self.length_ms);
        Some(Spot { start_ms, until_ms, placement: Placement { members } })
    }

    /// The earliest place for a single member on one of these nodes.
    pub(crate) fn earliest_among(&self, nodes: &BTreeSet<NodeId>, looks: &mut u64) -> Option<Spot> {
        let (amounts, _) = split(self.ledger, self.request);
        let mut best: Option<(u64, MemberPlacement)> = None;
        for node in nodes {
            let rises = self.future.rises_of(*node).map(|at| at.max(self.now_ms.saturating_add(1)));
            for at in std::iter::once(self.now_ms).chain(rises) {
                if *looks == 0 || best.as_ref().is_some_and(|(start_ms, _)| at >= *start_ms) {
                    break;
                }
                let mut room = BTreeMap::new();
                self.look(*node, at, &amounts, 1, &mut room, looks);
                if let Some(member) = room.remove(node).and_then(|mut members| members.pop()) {
                    best = Some((at, member));
                }
            }
        }
        let (start_ms, member) = best?;
        let until_ms = start_ms.saturating_add(self.length_ms);
        Some(Spot { start_ms, until_ms, placement: Placement { members: vec![member] } })
    }

    /// True where a place still stands, from `start_ms` on: nobody was put in its way.
    pub(crate) fn stands(&self, spot: &Spot, start_ms: u64) -> bool {
        let until = if spot.until_ms == FOREVER { FOREVER } else { start_ms.saturating_add(self.length_ms) };
        let mut views = BTreeMap::new();
        let kinds: Vec<Request> = self.request.by_role();
        let mut countables: BTreeMap<String, u64> = BTreeMap::new();
        for member in &spot.placement.members {
            let Some(kind) = kinds.get(usize::from(member.role)) else { return false };
            let (amounts, in_pool) = split(self.ledger, kind);
            for (name, each) in in_pool.iter() {
                let sum = countables.entry(name.to_owned()).or_default();
                *sum = sum.saturating_add(each.0);
            }
            let through = || self.future.through(self.fleet, member.node, start_ms, until, self.counts);
            let Some(view) = views.entry(member.node).or_insert_with(through) else { return false };
            let loose = self.request.is_best_effort();
            let fits = amounts.iter().all(|(name, amount)| amount <= view.has(name, loose));
            let free = member.devices.iter().all(|grant| has_room(view, kind, *grant));
            if !fits || !free {
                return false;
            }
            view.take(&amounts, &member.devices, loose);
        }
        countables.iter().all(|(name, sum)| self.countable_at(name, start_ms) >= *sum)
    }

    fn sweep(
        &self,
        amounts: &Resources,
        in_pool: &Resources,
        (wanted, open): (u32, Option<NodeId>),
        room: &mut BTreeMap<NodeId, Vec<MemberPlacement>>,
        left: &mut u64,
    ) -> Option<(u64, Vec<MemberPlacement>)> {
        // A single one that fitted anywhere now would not be here, but where somebody is planned, or for another length.
        let present: Vec<NodeId> = if wanted > 1 || !in_pool.is_zero() {
            self.fleet.pool_views(&self.request.pool).map(|view| view.node.id).collect()
        } else {
            self.future.planned_nodes().chain(open).collect()
        };
        for node in present {
            if *left == 0 {
                return None;
            }
            // In a large pool most have no room now, and are not worth more than that.
            let has_room = |view: &crate::fit::NodeView| view.fit_amounts(self.request, amounts).is_ok();
            if !self.fleet.get(node).is_some_and(has_room) {
                continue;
            }
            self.look(node, self.now_ms, amounts, wanted, room, left);
        }
        if let Some(members) = self.all(self.now_ms, amounts, in_pool, wanted, room, left) {
            return Some((self.now_ms, members));
        }
        // What is overdue may leave at any moment: it is reckoned with from now on.
        let mut rises = self.future.rises(self.from_ms).peekable();
        while let Some((at, node)) = rises.next() {
            if *left == 0 {
                return None;
            }
            let at = at.max(self.now_ms.saturating_add(1));
            self.look(node, at, amounts, wanted, room, left);
            // All that leaves at one moment leaves together.
            if rises.peek().is_some_and(|(next, _)| *next <= at) {
                continue;
            }
            if let Some(members) = self.all(at, amounts, in_pool, wanted, room, left) {
                return Some((at, members));
            }
        }
        None
    }

    /// Members that a node has room for from a moment on.
    fn look(
        &self,
        node: NodeId,
        at: u64,
        amounts: &Resources,
        wanted: u32,
        room: &mut BTreeMap<NodeId, Vec<MemberPlacement>>,
        left: &mut u64,
    ) {
        *left = left.saturating_sub(1);
        room.remove(&node);
        let Some(known) = self.fleet.get(node) else { return };
        let required = &self.request.requirements.required;
        if !required.terms.is_empty() && !required.matches(&known.labels) {
            return;
        }
        let until = at.saturating_add(self.length_ms);
        let Some(mut view) = self.future.through(self.fleet, node, at, until, self.counts) else { return };
        let most = if self.request.gang.spread { 1 } else { wanted };
        let mut members = Vec::new();
        while (members.len() as u32) < most {
            let Ok(devices) = view.fit_amounts(self.request, amounts) else { break };
            view.take(amounts, &devices, self.request.is_best_effort());
            members.push(MemberPlacement { node, devices, role: 0 });
        }
        if !members.is_empty() {
            room.insert(node, members);
        }
    }

    /// All members at a moment; what was seen of nodes on which somebody is planned is looked at again, as its window moves on.
    fn all(
        &self,
        at: u64,
        amounts: &Resources,
        in_pool: &Resources,
        wanted: u32,
        room: &mut BTreeMap<NodeId, Vec<MemberPlacement>>,
        left: &mut u64,
    ) -> Option<Vec<MemberPlacement>> {
        let enough = |room: &BTreeMap<NodeId, Vec<MemberPlacement>>| {
            room.values().map(Vec::len).sum::<usize>() >= wanted as usize
        };
        if !enough(room) || !self.enough_countables(in_pool, at, wanted) {
            return None;
        }
        let planned: Vec<NodeId> =
            self.future.planned_nodes().filter(|node| room.contains_key(node)).collect();
        for node in planned {
            self.look(node, at, amounts, wanted, room, left);
        }
        enough(room).then(|| room.values().flatten().take(wanted as usize).cloned().collect())
    }

    fn enough_countables(&self, in_pool: &Resources, at: u64, members: u32) -> bool {
        let mut asked = in_pool.iter();
        asked.all(|(name, each)| self.countable_at(name, at) >= each.0.saturating_mul(u64::from(members)))
    }

    /// What is free of a countable of the pool from a moment on, all the time.
    pub(super) fn countable_at(&self, name: &str, at: u64) -> u64 {
        let Some(pool) = self.ledger.pool(&self.request.pool) else { return 0 };
        let free = self.fleet.countable_free(self.ledger, pool, name);
        let until = at.saturating_add(self.length_ms);
        self.future.countable_through(name, free, at, until, self.counts)
    }
}

/// True where just this grant fits on its device.
fn has_room(view: &crate::fit::NodeView, request: &Request, grant: plimsoll_ledger::DeviceGrant) -> bool {
    let index = usize::from(grant.device.0);
    let Some(gpu) = &request.requirements.gpu else { return false };
    let (Some(device), Some(usage)) = (view.node.registration.devices.get(index), view.devices.get(index))
    else {
        return false;
    };
    !device.failed && plimsoll_ledger::has_room_at(usage, gpu.share, device, grant.slices)
}
