//! The search for victims: node by node the cheapest set that makes room for a member, then whoever else stands in the way of quotas and
//! countables. Greedy until it fits, then back: nobody leaves who need not.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_ledger::{
    Claimant, DeviceGrant, GPU, Ledger, MemberPlacement, Placement, QuotaTree, Request, Reservation,
    has_room_at,
};
use plimsoll_types::{Amount, LedgerTime, NodeId, ReservationId, Resources};

use super::victims::{Candidate, Cost};
use crate::Planner;
use crate::fit::NodeView;
use crate::fleet::kinds;

/// Most candidates that one search remembers for quotas and countables.
const MOST_CANDIDATES: usize = 16_384;

/// Where, and who has to leave.
type Found = (Placement, Vec<ReservationId>);

/// One search: what is taken while it goes on.
struct Search<'a> {
    ledger: &'a Ledger,
    waiting: &'a Reservation,
    /// What each kind of member asks, what of that counts against nodes, and how many there have to be.
    kinds: &'a [Kind],
    /// The kind that a place is looked for now.
    kind: usize,
    asked: Resources,
    /// Short whatever the place: of quotas and countables.
    short_everywhere: BTreeSet<String>,
    prices_milli: BTreeMap<String, u32>,
    /// Those who are asked to leave already.
    spared: &'a BTreeSet<ReservationId>,
    /// Nodes whose holders may have what is short whatever the place: those of other domains, too.
    around: &'a [NodeId],
    quota: QuotaTree,
    views: BTreeMap<NodeId, NodeView>,
    victims: BTreeMap<ReservationId, Candidate>,
    /// In the order in which they were chosen.
    order: Vec<ReservationId>,
    candidates: BTreeMap<ReservationId, Candidate>,
    wake_at: Option<LedgerTime>,
}

/// Members that are alike: of a role, or all of them.
struct Kind {
    asked: Request,
    amounts: Resources,
}

/// Room for one member on a node.
struct Room {
    cost: Cost,
    victims: Vec<Candidate>,
    devices: Vec<DeviceGrant>,
}

impl Kind {
    /// The fewest members that are of use.
    fn least(&self) -> u32 {
        self.asked.gang.min_members
    }
}

impl Planner {
    /// The cheapest place found on these nodes, and when a search may find more by the passing of time alone.
    pub(super) fn search_victims(
        &mut self,
        ledger: &Ledger,
        waiting: &Reservation,
        spared: &BTreeSet<ReservationId>,
        nodes: &[NodeId],
    ) -> (Option<Found>, Option<LedgerTime>) {
        let kept_off = match self.within_share(ledger, &waiting.request) {
            Cow::Borrowed(_) => None,
            Cow::Owned(request) => Some(request),
        };
        if kept_off.is_none() {
            let (found, wake_at) = self.search_places(ledger, waiting, spared, nodes);
            let keeps_to_share = found.as_ref().is_none_or(|(placement, victims)| {
                let gone = victims.iter().filter_map(|id| ledger.reservation(*id)).map(AsRef::as_ref);
                ledger.keeps_to_share_without(&waiting.request, &placement.members, gone)
            });
            if keeps_to_share {
                return (found, wake_at);
            }
        }
        // Where those who leave are of the same work, its share is less without them.
        let request = kept_off.unwrap_or_else(|| waiting.request.off_spot());
        let waiting = Reservation { request: Arc::new(request), ..waiting.clone() };
        self.search_places(ledger, &waiting, spared, nodes)
    }

    fn search_places(
        &mut self,
        ledger: &Ledger,
        waiting: &Reservation,
        spared: &BTreeSet<ReservationId>,
        nodes: &[NodeId],
    ) -> (Option<Found>, Option<LedgerTime>) {
        let request = &waiting.request;
        let kinds = kinds(ledger, request).into_iter().map(|(amounts, asked)| Kind { asked, amounts });
        let kinds: Vec<Kind> = kinds.collect();
        let mut asked = Resources::default();
        for kind in &kinds {
            let members = u64::from(kind.least());
            let mut add = |name: &str, each: u64| {
                let more = each.saturating_mul(members);
                asked.set(name, Amount(asked.get(name).0.saturating_add(more)));
            };
            for (name, amount) in kind.asked.requirements.amounts.iter() {
                add(name, amount.0);
            }
            add(GPU, crate::planner::gpu_milli_of(&kind.asked));
        }
        let mut best: Option<(Cost, Found)> = None;
        let mut wake_at: Option<LedgerTime> = None;
        let around = nodes;
        for nodes in domains(ledger, request, nodes.to_vec()) {
            let (found, at) = self.search_within(ledger, waiting, (spared, around), (&kinds, &asked), nodes);
            wake_at = [wake_at, at].into_iter().flatten().min();
            if let Some((cost, found)) = found
                && best.as_ref().is_none_or(|(known, _)| cost < *known)
            {
                best = Some((cost, found));
            }
        }
        (best.map(|(_, found)| found), wake_at)
    }

    /// The cheapest place on these nodes.
    fn search_within(
        &mut self,
        ledger: &Ledger,
        waiting: &Reservation,
        (spared, around): (&BTreeSet<ReservationId>, &[NodeId]),
        (kinds, asked): (&[Kind], &Resources),
        nodes: Vec<NodeId>,
    ) -> (Option<(Cost, Found)>, Option<LedgerTime>) {
        let mut search = Search {
            ledger,
            waiting,
            kinds,
            kind: 0,
            short_everywhere: BTreeSet::new(),
            asked: asked.clone(),
            prices_milli: ledger.prices_milli(),
            spared,
            around,
            quota: ledger.quota_kept().clone(),
            views: BTreeMap::new(),
            victims: BTreeMap::new(),
            order: Vec::new(),
            candidates: BTreeMap::new(),
            wake_at: None,
        };
        search.short_everywhere = search.still_short();
        for node in nodes {
            if let Some(view) = self.fleet().get(node) {
                search.views.insert(node, later(ledger, view));
            }
        }
        let found = search.run();
        let cost = Cost::of(search.victims.values());
        (found.map(|found| (cost, found)), search.wake_at)
    }
}

/// Most domains of a required level in which victims are looked for.
const MOST_DOMAINS: usize = 16;

/// The nodes in which all members must be: by domains of the required level, those with most nodes first; all of them where none is.
fn domains(ledger: &Ledger, request: &Request, nodes: Vec<NodeId>) -> Vec<Vec<NodeId>> {
    let level = &request.topology.required;
    if level.is_empty() {
        return vec![nodes];
    }
    let mut by_domain: BTreeMap<_, Vec<NodeId>> = BTreeMap::new();
    for node in nodes {
        if let Some(domain) = ledger.chain(node).and_then(|chain| chain.at(node, level)) {
            by_domain.entry(domain).or_default().push(node);
        }
    }
    let mut domains: Vec<Vec<NodeId>> = by_domain.into_values().collect();
    domains.sort_by_key(|nodes| std::cmp::Reverse(nodes.len()));
    domains.truncate(MOST_DOMAINS);
    domains
}

impl Search<'_> {
    fn run(&mut self) -> Option<Found> {
        let request = &self.waiting.request;
        let mut members = Vec::new();
        for kind in 0..self.kinds.len() {
            self.kind = kind;
            self.choose_members(&mut members)?;
        }
        let level = &request.topology.slice_level;
        let group = |node: NodeId| self.ledger.chain(node).and_then(|chain| chain.at(node, level));
        members.sort_by_key(|member: &MemberPlacement| (group(member.node), member.node));
        self.clear_quotas()?;
        self.spare_who_need_not_leave();
        let placement = Placement { members };
        if !self.ledger.beside_blockers(request, &placement).is_empty() {
            return None;
        }
        (!self.order.is_empty()).then(|| (placement, self.order.clone()))
    }

    /// Rooms for the fewest members of the present kind, the cheapest first; `None` where there are not so many.
    fn choose_members(&mut self, members: &mut Vec<MemberPlacement>) -> Option<()> {
        let Kind { asked, .. } = &self.kinds[self.kind];
        let wanted = members.len() + self.kinds[self.kind].least() as usize;
        let role = self.kind as u16;
        let spread = asked.gang.spread;
        let mut rooms: BTreeMap<(Cost, NodeId), Room> = BTreeMap::new();
        let taken: BTreeSet<NodeId> = members.iter().filter(|_| spread).map(|member| member.node).collect();
        let nodes: Vec<NodeId> = self.views.keys().filter(|node| !taken.contains(node)).copied().collect();
        for node in nodes {
            if let Some(room) = self.room_on(node) {
                rooms.insert((room.cost, node), room);
            }
        }
        while members.len() < wanted {
            let ((cost, node), _) = rooms.pop_first()?;
            // Others were chosen meanwhile: what was found may cost more now, or less.
            let Some(room) = self.room_on(node) else { continue };
            if room.cost > cost && rooms.first_key_value().is_some_and(|((next, _), _)| *next < room.cost) {
                rooms.insert((room.cost, node), room);
                continue;
            }
            self.choose(node, &room);
            members.push(MemberPlacement { node, devices: room.devices, role });
            if !spread && let Some(next) = self.room_on(node) {
                rooms.insert((next.cost, node), next);
            }
        }
        Some(())
    }

    /// Who has to leave a node for one more member, the fewest that the order of candidates allows.
    fn room_on(&mut self, node: NodeId) -> Option<Room> {
        let view = self.views.get(&node)?.clone();
        let Kind { asked: request, amounts: wanted } = &self.kinds[self.kind];
        if !view.node.is_eligible() || !request.requirements.required.matches(&view.labels) {
            return None;
        }
        if let Ok(devices) = view.fit_amounts(request, wanted) {
            return Some(Room { cost: Cost::default(), victims: Vec::new(), devices });
        }
        view.emptied().fit_amounts(request, wanted).ok()?;
        let contested = self.contested_on(&view);
        let claimant =
            Claimant { reservation: self.waiting, asked: self.asked.clone(), contested: contested.clone() };
        let mut candidates: Vec<Candidate> = Vec::new();
        for holder in self.ledger.holders(node) {
            if self.victims.contains_key(&holder.id) || self.spared.contains(&holder.id) {
                continue;
            }
            candidates.push(Candidate::new(self.ledger, &self.prices_milli, holder));
        }
        candidates.sort_by_key(|candidate| (candidate.preference, candidate.reservation.id));
        let mut room = view.clone();
        let mut quota = self.quota.clone();
        let mut chosen: Vec<Candidate> = Vec::new();
        let mut devices = None;
        for candidate in candidates {
            if self.candidates.len() < MOST_CANDIDATES {
                self.candidates.insert(candidate.reservation.id, candidate.clone());
            }
            if !self.helps(&candidate, node, &contested) {
                continue;
            }
            if self.ledger.preemption_rule(&mut quota, &claimant, &candidate.reservation).is_err() {
                self.note_protected(&candidate.reservation);
                continue;
            }
            quota.give_back(
                &candidate.reservation.request.queue,
                &candidate.reservation.request.pool,
                &candidate.taken,
            );
            for (amounts, grants) in candidate.on_node(self.ledger, node) {
                room.give_back(&amounts, &grants, candidate.reservation.is_best_effort());
            }
            chosen.push(candidate);
            if let Ok(found) = room.fit_amounts(request, wanted) {
                devices = Some(found);
                break;
            }
        }
        devices.as_ref()?;
        // Back again: who was chosen last stays first.
        let mut kept = chosen.clone();
        for candidate in chosen.iter().rev() {
            let id = candidate.reservation.id;
            let mut trial = view.clone();
            for other in kept.iter().filter(|other| other.reservation.id != id) {
                for (amounts, grants) in other.on_node(self.ledger, node) {
                    trial.give_back(&amounts, &grants, other.reservation.is_best_effort());
                }
            }
            if let Ok(found) = trial.fit_amounts(request, wanted) {
                kept.retain(|other| other.reservation.id != id);
                devices = Some(found);
            }
        }
        let cost = Cost::of(kept.iter());
        Some(Room { cost, victims: kept, devices: devices? })
    }

    /// Takes the room: the victims are gone everywhere, the member is there.
    fn choose(&mut self, node: NodeId, room: &Room) {
        for victim in &room.victims {
            self.remove(victim);
        }
        if let Some(view) = self.views.get_mut(&node) {
            view.take(&self.kinds[self.kind].amounts, &room.devices, self.waiting.is_best_effort());
        }
    }

    fn remove(&mut self, victim: &Candidate) {
        let reservation = &victim.reservation;
        let nodes: BTreeSet<NodeId> = reservation.members.iter().map(|member| member.node).collect();
        for node in nodes {
            for (amounts, devices) in victim.on_node(self.ledger, node) {
                if let Some(view) = self.views.get_mut(&node) {
                    view.give_back(&amounts, &devices, reservation.is_best_effort());
                }
            }
        }
        self.quota.give_back(&reservation.request.queue, &reservation.request.pool, &victim.taken);
        self.order.push(reservation.id);
        self.victims.insert(reservation.id, victim.clone());
    }

    /// Whoever else has to leave for quotas and countables to be enough; `None` where that is not enough.
    fn clear_quotas(&mut self) -> Option<()> {
        if self.still_short().is_empty() {
            return Some(());
        }
        for node in self.around {
            for holder in self.ledger.holders(*node) {
                if self.candidates.len() >= MOST_CANDIDATES {
                    break;
                }
                if !self.spared.contains(&holder.id) {
                    let candidate = || Candidate::new(self.ledger, &self.prices_milli, holder);
                    self.candidates.entry(holder.id).or_insert_with(candidate);
                }
            }
        }
        let mut candidates: Vec<Candidate> = self.candidates.values().cloned().collect();
        candidates.sort_by_key(|candidate| (candidate.preference, candidate.reservation.id));
        let claimant = Claimant {
            reservation: self.waiting,
            asked: self.asked.clone(),
            contested: self.short_everywhere.clone(),
        };
        let before = self.order.len();
        for candidate in candidates {
            let short = self.still_short();
            if short.is_empty() {
                break;
            }
            let known = self.victims.contains_key(&candidate.reservation.id);
            if known || !short.iter().any(|name| !candidate.taken.get(name).is_zero()) {
                continue;
            }
            if self.ledger.preemption_rule(&mut self.quota, &claimant, &candidate.reservation).is_err() {
                self.note_protected(&candidate.reservation);
                continue;
            }
            self.remove(&candidate);
        }
        if !self.still_short().is_empty() {
            return None;
        }
        for id in self.order.split_off(before).into_iter().rev() {
            let Some(victim) = self.victims.remove(&id) else { continue };
            let request = &victim.reservation.request;
            self.quota.take(&request.queue, &request.pool, &victim.taken);
            // Who stays stays on its nodes, too: nobody else is spared for the room that it would leave.
            match self.with_back(&victim).filter(|_| self.still_short().is_empty()) {
                Some(views) => self.views.extend(views),
                None => {
                    self.quota.give_back(&request.queue, &request.pool, &victim.taken);
                    self.victims.insert(id, victim);
                    self.order.push(id);
                }
            }
        }
        Some(())
    }

    /// Who was chosen for one member may not be needed any more once others were chosen for the next, or for a quota: the last chosen stays first.
    fn spare_who_need_not_leave(&mut self) {
        for id in self.order.clone().into_iter().rev() {
            let Some(victim) = self.victims.get(&id).cloned() else { continue };
            let Some(views) = self.with_back(&victim) else { continue };
            let request = &victim.reservation.request;
            self.quota.take(&request.queue, &request.pool, &victim.taken);
            self.victims.remove(&id);
            if self.still_short().is_empty() {
                self.order.retain(|other| *other != id);
                self.views.extend(views);
            } else {
                self.quota.give_back(&request.queue, &request.pool, &victim.taken);
                self.victims.insert(id, victim);
            }
        }
    }

    /// The nodes of a victim with it on them still, beside the members that come; `None` where it does not fit there.
    fn with_back(&self, victim: &Candidate) -> Option<Vec<(NodeId, NodeView)>> {
        let nodes: BTreeSet<NodeId> = victim.reservation.members.iter().map(|member| member.node).collect();
        let request = &victim.reservation.request;
        let mut views = Vec::new();
        for node in nodes {
            // What is not looked at is left alone.
            let Some(mut view) = self.views.get(&node).cloned() else { continue };
            let here = victim.reservation.members.iter().filter(|member| member.node == node);
            for ((amounts, grants), member) in victim.on_node(self.ledger, node).into_iter().zip(here) {
                let share = request.needs(member.role).gpu.as_ref().map(|gpu| gpu.share);
                let loose = victim.reservation.is_best_effort();
                let fits = amounts.iter().all(|(name, amount)| amount <= view.has(name, loose));
                let has_room = |grant: &DeviceGrant| {
                    let index = usize::from(grant.device.0);
                    let of = (view.node.registration.devices.get(index), view.devices.get(index), share);
                    matches!(of, (Some(device), Some(usage), Some(share)) if has_room_at(usage, share, device, grant.slices))
                };
                if !fits || !grants.iter().all(has_room) {
                    return None;
                }
                view.take(&amounts, &grants, loose);
            }
            views.push((node, view));
        }
        Some(views)
    }

    /// Names of what is short however many nodes there are, with the victims so far gone.
    fn still_short(&self) -> BTreeSet<String> {
        let request = &self.waiting.request;
        let quotas = self.quota.shortages(&request.queue, &request.pool, &self.asked);
        let mut short: BTreeSet<String> = quotas.into_iter().map(|short| short.resource).collect();
        if let Some(pool) = self.ledger.pool(&request.pool) {
            for (name, total) in &pool.countables {
                let freed: u64 = self.victims.values().map(|victim| victim.taken.get(name).0).sum();
                let used = self.ledger.countable_kept(&pool.name, name).0.saturating_sub(freed);
                if self.asked.get(name).0 > total.0.saturating_sub(used) {
                    short.insert(name.clone());
                }
            }
        }
        short
    }

    /// What is short on this node, and whatever the node.
    fn contested_on(&self, view: &NodeView) -> BTreeSet<String> {
        let mut contested = self.short_everywhere.clone();
        let loose = self.waiting.is_best_effort();
        let Kind { asked, amounts } = &self.kinds[self.kind];
        let short = amounts.iter().filter(|(name, amount)| *amount > view.has(name, loose));
        contested.extend(short.map(|(name, _)| name.to_owned()));
        if let Some(gpu) = &asked.requirements.gpu {
            let only_gpu = Request {
                requirements: plimsoll_ledger::Requirements {
                    gpu: Some(gpu.clone()),
                    ..plimsoll_ledger::Requirements::default()
                },
                ..Request::default()
            };
            if view.fit_amounts(&only_gpu, &Resources::default()).is_err() {
                contested.insert(GPU.to_owned());
            }
        }
        contested
    }

    /// True where the candidate has something here of what is short here.
    fn helps(&self, candidate: &Candidate, node: NodeId, contested: &BTreeSet<String>) -> bool {
        candidate.on_node(self.ledger, node).iter().any(|(amounts, devices)| {
            let amount = |name: &String| !amounts.get(name).is_zero();
            contested.iter().any(amount) || contested.contains(GPU) && !devices.is_empty()
        })
    }

    /// Who is protected for now may be asked later.
    fn note_protected(&mut self, holder: &Reservation) {
        let until = self.ledger.protected_until(holder);
        if until > self.ledger.clock() {
            self.wake_at = Some(self.wake_at.map_or(until, |at| at.min(until)));
        }
    }
}

/// The node as it will be once those who were given notice have left: less what is booked on it, as ever.
pub(crate) fn later(ledger: &Ledger, view: &NodeView) -> NodeView {
    let mut later = view.clone();
    let Some(usage) = ledger.usage(view.node.id).filter(|usage| usage.kept.is_some()) else { return later };
    let (offered, open) = (ledger.offered(&view.node), ledger.open(view.node.id));
    for (name, open) in open.iter() {
        let booked = open.saturating_sub(view.free.get(name));
        later.free.set(name, offered.get(name).saturating_sub(usage.later(name)).saturating_sub(booked));
    }
    for (name, offered) in offered.iter() {
        // What is not open at all now is not among those above.
        if view.free.get(name).is_zero() && open.get(name).is_zero() {
            later.free.set(name, offered.saturating_sub(usage.later(name)));
        }
    }
    if let (Some(over), Some(open)) = (&mut later.over, ledger.open_backed(view.node.id)) {
        for (name, real) in view.node.allocatable.iter() {
            let booked = open.get(name).saturating_sub(over.solid.get(name));
            over.solid.set(name, real.saturating_sub(usage.backed_later(name)).saturating_sub(booked));
        }
    }
    for (index, device) in later.devices.iter_mut().enumerate() {
        let (both, then) = (usage.device_spoken_for(index), usage.device_later(index));
        let booked_alone = device.exclusive && !both.exclusive;
        device.milli = device.milli.saturating_sub(both.milli) + then.milli;
        device.memory_bytes = device.memory_bytes.saturating_sub(both.memory_bytes) + then.memory_bytes;
        device.grants = device.grants.saturating_sub(both.grants) + then.grants;
        device.exclusive = then.exclusive || booked_alone;
        device.sliced = device.sliced.saturating_sub(both.sliced) + then.sliced;
        device.memory_mask = device.memory_mask & !both.memory_mask | then.memory_mask;
        device.memory_slices = device.memory_mask.count_ones();
        let booked_compute = device.compute_slices.saturating_sub(both.compute_slices);
        device.compute_slices = booked_compute.saturating_add(then.compute_slices);
    }
    later
}
