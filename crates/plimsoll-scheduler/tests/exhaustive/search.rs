//! All places that there are for a request, one after the other.

use std::collections::BTreeSet;

use plimsoll_ledger::{DeviceGrant, MemberPlacement, Node, Request};
use plimsoll_types::DeviceIndex;

use super::scene::{Scene, domain_of, in_groups, taken_of};
use super::slices;

impl Scene<'_> {
    /// A place for so many members, where there is one.
    pub(crate) fn place(&self, request: &Request, members: u32) -> Option<Vec<MemberPlacement>> {
        self.best(request, members, &mut |_| 0).map(|(_, place)| place)
    }

    /// A place with the fewest members that are of use.
    pub(crate) fn any_place(&self, request: &Request) -> Option<Vec<MemberPlacement>> {
        self.place(request, request.gang.min_members.max(1))
    }

    /// Most members that any place has; 0 where there is none.
    pub(crate) fn most(&self, request: &Request) -> u32 {
        let counts = (request.gang.min_members.max(1)..=request.gang.max_members).rev();
        counts.into_iter().find(|count| self.place(request, *count).is_some()).unwrap_or(0)
    }

    /// The place for so many members that costs least, by a measure of which nothing costs less than 0.
    pub(crate) fn best(
        &self,
        request: &Request,
        members: u32,
        cost: &mut dyn FnMut(&[MemberPlacement]) -> u64,
    ) -> Option<(u64, Vec<MemberPlacement>)> {
        let spots: Vec<MemberPlacement> = self.nodes().flat_map(|node| self.spots(node, request)).collect();
        let mut search = Search { scene: self, request, spots, wanted: members as usize, cost, best: None };
        search.go(&mut Vec::new(), 0);
        search.best
    }

    /// Domains of a level that members are in.
    pub(crate) fn domains(&self, request: &Request, level: &str, members: &[MemberPlacement]) -> u64 {
        let Some(pool) = self.pool(&request.pool) else { return 0 };
        let domain = |member: &MemberPlacement| {
            let node = self.node(member.node)?;
            // A node outside of all domains counts as one of its own.
            Some(domain_of(node, pool, level).unwrap_or_else(|| node.registration.name.clone()))
        };
        members.iter().filter_map(domain).collect::<BTreeSet<_>>().len() as u64
    }

    /// Everything that a member could take of a node: each set of devices, each start of an instance.
    pub(crate) fn spots(&self, node: &Node, request: &Request) -> Vec<MemberPlacement> {
        let on = |devices| MemberPlacement { node: node.id, devices, role: 0 };
        let Some(gpu) = &request.requirements.gpu else { return vec![on(Vec::new())] };
        let mut sets: Vec<Vec<DeviceGrant>> = vec![Vec::new()];
        for (index, device) in node.registration.devices.iter().enumerate() {
            let Some((milli, memory_bytes)) = taken_of(device, gpu.share).filter(|taken| taken.0 <= 1_000)
            else {
                continue;
            };
            let grant = |slices| DeviceGrant {
                device: DeviceIndex(index as u16),
                milli: milli as u16,
                memory_bytes,
                slices,
            };
            for set in sets.clone() {
                let more = slices::instances(device, gpu.share).into_iter().map(grant);
                sets.extend(more.map(|grant| set.iter().copied().chain([grant]).collect::<Vec<_>>()));
            }
        }
        let spots = sets.into_iter().filter(|set| set.len() == gpu.count as usize).map(on);
        spots.filter(|spot| self.broken_so_far(request, std::slice::from_ref(spot)).is_none()).collect()
    }
}

struct Search<'a> {
    scene: &'a Scene<'a>,
    request: &'a Request,
    spots: Vec<MemberPlacement>,
    wanted: usize,
    cost: &'a mut dyn FnMut(&[MemberPlacement]) -> u64,
    best: Option<(u64, Vec<MemberPlacement>)>,
}

impl Search<'_> {
    /// Members from the spot `from` on: in what order they are matters to groups alone.
    fn go(&mut self, members: &mut Vec<MemberPlacement>, from: usize) {
        if self.best.as_ref().is_some_and(|(cost, _)| *cost == 0) {
            return;
        }
        if members.len() == self.wanted {
            if self.scene.broken(self.request, members).is_none() {
                let cost = (self.cost)(members);
                if self.best.as_ref().is_none_or(|(known, _)| cost < *known) {
                    self.best = Some((cost, members.clone()));
                }
            }
            return;
        }
        let from = if in_groups(self.request) { 0 } else { from };
        for spot in from..self.spots.len() {
            members.push(self.spots[spot].clone());
            if self.scene.broken_so_far(self.request, members).is_none() {
                self.go(members, spot);
            }
            members.pop();
        }
    }
}
