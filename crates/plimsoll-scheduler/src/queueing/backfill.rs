//! Hybrid(k) backfill: the first k that wait have a rectangle in the future, and who starts now delays none of them.
//!
//! A rectangle names its nodes, so that what is promised also fits. It stays until something ends earlier or later than
//! reckoned, or somebody of a higher class comes; then all are made anew, in order. k = 1 is EASY, k = all conservative.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::Ledger;
use plimsoll_types::{NodeId, ReservationId};

use super::ask::Ask;
use super::domains::{Domains, Spot};
use super::entry::{Entry, Running};
use super::pending::Pending;
use super::profile::FOREVER;

/// Where entries that wait are in the queue.
type Place = (Reverse<i32>, u64, ReservationId);

/// Rectangles of what runs and of what is planned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backfill {
    /// Empty until the first walk.
    domains: Option<Domains>,
    leases: BTreeMap<ReservationId, Rectangle>,
    lease_ends: BTreeSet<(u64, ReservationId)>,
    planned: BTreeMap<ReservationId, Rectangle>,
    planned_starts: BTreeSet<(u64, ReservationId)>,
    unplanned: BTreeSet<Place>,
    /// Rectangles have to be made anew.
    is_stale: bool,
}

#[derive(Clone, Debug)]
struct Rectangle {
    ask: Ask,
    place: Place,
    nodes: Vec<NodeId>,
    from_ms: u64,
    until_ms: u64,
}

/// How a walk asks for a place: the entry, and the nodes that it may be on, with the most members on each.
pub(crate) type TryStart<'a> = dyn FnMut(&Entry, &BTreeMap<NodeId, u64>) -> Option<Vec<NodeId>> + 'a;

/// What a walk needs to know of the world.
pub(crate) struct Scene<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) pool: &'a str,
    pub(crate) pending: &'a Pending,
    /// Proposed already.
    pub(crate) in_flight: &'a BTreeSet<ReservationId>,
    pub(crate) depth: usize,
    pub(crate) default_run_ms: u64,
    pub(crate) now_ms: u64,
    /// Most starts.
    pub(crate) limit: usize,
}

impl Backfill {
    /// Somebody waits.
    pub(crate) fn arrived(&mut self, entry: &Entry) {
        let place = place(entry);
        self.is_stale |= self.planned.values().any(|planned| planned.place.0 > place.0);
        self.unplanned.insert(place);
    }

    /// Somebody waits no longer.
    pub(crate) fn left(&mut self, entry: &Entry, now_ms: u64) {
        self.unplanned.remove(&place(entry));
        if self.unplan(entry.id).is_some_and(|rectangle| rectangle.from_ms > now_ms) {
            self.is_stale = true;
        }
    }

    /// A lease begins.
    pub(crate) fn started(&mut self, running: &Running, default_run_ms: u64) {
        let soft_end = running.started_ms.saturating_add(default_run_ms);
        let until_ms = running.declared_end_ms.unwrap_or(soft_end);
        let entry = &running.entry;
        let rectangle = Rectangle {
            ask: entry.ask,
            place: place(entry),
            nodes: running.nodes.clone(),
            from_ms: running.started_ms,
            until_ms,
        };
        if let Some(domains) = &mut self.domains {
            domains.take(rectangle.ask, &rectangle.nodes, rectangle.from_ms, until_ms);
        }
        self.lease_ends.insert((until_ms, entry.id));
        self.leases.insert(entry.id, rectangle);
    }

    /// A lease ends.
    pub(crate) fn ended(&mut self, id: ReservationId, now_ms: u64) {
        let Some(lease) = self.leases.remove(&id) else { return };
        self.lease_ends.remove(&(lease.until_ms, id));
        if lease.until_ms > now_ms {
            if let Some(domains) = &mut self.domains {
                domains.give(lease.ask, &lease.nodes, now_ms, lease.until_ms);
            }
            self.is_stale = true;
        }
    }

    /// Nodes came, went or changed: everything is made anew.
    pub(crate) fn nodes_changed(&mut self) {
        self.domains = None;
    }

    /// Starts what is due and what disturbs nobody, and plans the rest up to the depth. O(waiting x nodes x breakpoints) where
    /// all is made anew, else for what is new.
    pub(crate) fn walk(
        &mut self,
        scene: &Scene<'_>,
        may: &dyn Fn(&Entry, NodeId) -> bool,
        start: &mut TryStart<'_>,
    ) {
        self.refresh(scene);
        if self.is_stale {
            self.is_stale = false;
            for id in self.planned.keys().copied().collect::<Vec<_>>() {
                if let Some(rectangle) = self.unplan(id) {
                    self.unplanned.insert(rectangle.place);
                }
            }
        }
        let mut left = scene.limit;
        self.start_due(scene, start, &mut left);
        // Of each shape, the shortest that found no place now.
        let mut failed: BTreeMap<u64, u64> = BTreeMap::new();
        for place in self.unplanned.iter().copied().collect::<Vec<_>>() {
            if left == 0 {
                return;
            }
            let may_plan = self.planned.len() < scene.depth;
            let Some(domains) = &mut self.domains else { return };
            if !may_plan && !domains.has_room_at(scene.now_ms) {
                break;
            }
            let Some(entry) = scene.pending.get(place.2).filter(|_| !scene.in_flight.contains(&place.2))
            else {
                continue;
            };
            // Nothing is promised around a length that nobody declared: it counts as without end.
            let hard_ms = entry.declared_ms().unwrap_or(FOREVER);
            let until_ms = scene.now_ms.saturating_add(hard_ms);
            if failed.get(&entry.shape).is_none_or(|shortest| hard_ms < *shortest) {
                let roomy = domains.with_room(entry.ask, scene.now_ms, until_ms);
                let nodes: BTreeMap<NodeId, u64> = roomy.filter(|(id, _)| may(entry, *id)).collect();
                let started = if nodes.is_empty() { None } else { start(entry, &nodes) };
                if let Some(nodes) = started {
                    // The lease takes this place over once it is applied.
                    left -= 1;
                    self.plan(place, entry, Spot { start_ms: scene.now_ms, nodes }, until_ms);
                    continue;
                }
                failed.insert(entry.shape, hard_ms);
            }
            if may_plan {
                let length = entry.declared_ms().unwrap_or(scene.default_run_ms);
                // It fits nowhere now, whatever the profile says.
                let from = scene.now_ms.saturating_add(1);
                if let Some(spot) = domains.earliest(entry.ask, from, length, |id| may(entry, id)) {
                    let until_ms = spot.start_ms.saturating_add(length);
                    self.plan(place, entry, spot, until_ms);
                }
            }
        }
    }

    /// The planned start of one that waits.
    pub(crate) fn planned_start_ms(&self, id: ReservationId) -> Option<u64> {
        self.planned.get(&id).map(|rectangle| rectangle.from_ms)
    }

    /// The next moment at which a planned start is due.
    pub(crate) fn next_start_ms(&self, now_ms: u64) -> Option<u64> {
        self.planned_starts.range((now_ms.saturating_add(1), ReservationId(0))..).next().map(|(at, _)| *at)
    }

    fn start_due(&mut self, scene: &Scene<'_>, start: &mut TryStart<'_>, left: &mut usize) {
        let due = self.planned_starts.range(..=(scene.now_ms, ReservationId(u64::MAX)));
        let mut due: Vec<Place> =
            due.filter_map(|(_, id)| self.planned.get(id)).map(|planned| planned.place).collect();
        due.sort_unstable();
        for place in due {
            let Some(entry) = scene.pending.get(place.2).filter(|_| !scene.in_flight.contains(&place.2))
            else {
                continue;
            };
            if *left == 0 {
                return;
            }
            let nodes = self.planned.get(&place.2).map(|planned| counted(&planned.nodes));
            if nodes.is_some_and(|nodes| start(entry, &nodes).is_some()) {
                *left -= 1;
            } else {
                // Something else is in its place: it gets another.
                self.unplan(place.2);
                self.unplanned.insert(place);
            }
        }
    }

    fn plan(&mut self, place: Place, entry: &Entry, spot: Spot, until_ms: u64) {
        if let Some(domains) = &mut self.domains {
            domains.take(entry.ask, &spot.nodes, spot.start_ms, until_ms);
        }
        self.unplanned.remove(&place);
        self.planned_starts.insert((spot.start_ms, entry.id));
        let rectangle =
            Rectangle { ask: entry.ask, place, nodes: spot.nodes, from_ms: spot.start_ms, until_ms };
        self.planned.insert(entry.id, rectangle);
    }

    fn unplan(&mut self, id: ReservationId) -> Option<Rectangle> {
        let rectangle = self.planned.remove(&id)?;
        self.planned_starts.remove(&(rectangle.from_ms, id));
        if let Some(domains) = &mut self.domains {
            domains.give(rectangle.ask, &rectangle.nodes, rectangle.from_ms, rectangle.until_ms);
        }
        Some(rectangle)
    }

    /// Makes the domains where there are none, forgets the past, and prolongs what is overdue.
    fn refresh(&mut self, scene: &Scene<'_>) {
        let now_ms = scene.now_ms;
        if self.domains.is_none() {
            let mut domains = Domains::of_pool(scene.ledger, scene.pool);
            for lease in self.leases.values().chain(self.planned.values()) {
                domains.take(lease.ask, &lease.nodes, lease.from_ms, lease.until_ms);
            }
            self.domains = Some(domains);
            self.is_stale = true;
        }
        let Some(domains) = &mut self.domains else { return };
        domains.trim(now_ms);
        while let Some((until_ms, id)) =
            self.lease_ends.first().copied().filter(|(until, _)| *until <= now_ms)
        {
            self.lease_ends.pop_first();
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            lease.until_ms = now_ms.saturating_add(scene.default_run_ms.max(1));
            domains.take(lease.ask, &lease.nodes, until_ms.max(now_ms), lease.until_ms);
            self.lease_ends.insert((lease.until_ms, id));
            self.is_stale = true;
        }
    }
}

/// Nodes with the number of members on each.
pub(crate) fn counted(nodes: &[NodeId]) -> BTreeMap<NodeId, u64> {
    let mut members = BTreeMap::new();
    for node in nodes {
        *members.entry(*node).or_default() += 1;
    }
    members
}

fn place(entry: &Entry) -> Place {
    (Reverse(entry.priority), entry.since_ms, entry.id)
}
