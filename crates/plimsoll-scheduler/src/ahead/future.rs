//! What comes free when, and what is planned: the availability profile of a pool's nodes, in everything that a node offers.
//!
//! A node's present comes from the planner's view of it; here is only what changes it: grants that declared an end leave, and
//! planned starts arrive. Grants without an end are not here, and so never leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_ledger::{DeviceGrant, Ledger, Placement, Request, Reservation, Shares};
use plimsoll_types::{Labels, LedgerTime, NodeId, ReservationId, Resources};

use crate::fit::NodeView;
use crate::fleet::Fleet;

/// The far end of time, in milliseconds: of what has no end.
pub(crate) const FOREVER: u64 = u64::MAX;

/// What a member, or what all of one reservation on a node, takes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    amounts: Resources,
    devices: Vec<DeviceGrant>,
    best_effort: bool,
}

/// From when and until when, and what each member takes.
type Arrival = (u64, u64, Vec<Part>);

/// A place in the future: when, where, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Milliseconds of ledger time.
    pub(crate) start_ms: u64,
    /// [`FOREVER`] where its request declares no length.
    pub(crate) until_ms: u64,
    /// The fewest members that are of use.
    pub(crate) placement: Placement,
}

/// A proposal that is on its way and will end.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    id: ReservationId,
    until_ms: u64,
    shares: Shares,
    placement: Placement,
    best_effort: bool,
}

impl InFlight {
    pub(crate) fn new(
        ledger: &Ledger,
        id: ReservationId,
        request: &Request,
        placement: &Placement,
        until: LedgerTime,
    ) -> InFlight {
        let shares = ledger.shares_asked(request);
        let (placement, best_effort) = (placement.clone(), request.is_best_effort());
        InFlight { id, until_ms: until.0, shares, placement, best_effort }
    }
}

/// What is on its way to, and off, the nodes of one pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Future {
    /// What leaves each node, and by when; nodes that nothing leaves are left out.
    leaving: BTreeMap<NodeId, Vec<(u64, ReservationId, Part)>>,
    /// The same by time.
    ends: BTreeSet<(u64, NodeId, ReservationId)>,
    /// Countables of the pool that come back, each with the node of the first member.
    countables: BTreeMap<(u64, NodeId, ReservationId), Resources>,
    /// What arrives on each node.
    arriving: BTreeMap<NodeId, BTreeMap<ReservationId, Arrival>>,
    /// Countables that planned starts take.
    wanted: BTreeMap<ReservationId, (u64, u64, Resources)>,
}

impl Future {
    /// Reads anew what leaves a node. O(holders of the node).
    pub(crate) fn read(&mut self, ledger: &Ledger, pool: &str, node: NodeId) {
        for (at, id, _) in self.leaving.remove(&node).into_iter().flatten() {
            self.ends.remove(&(at, node, id));
            self.countables.remove(&(at, node, id));
        }
        // Of a node that takes no more work the pool's countables come back all the same.
        let Some(row) = ledger.node(node).filter(|row| row.pool == pool) else { return };
        let is_backed_in_full = |usage: &plimsoll_ledger::NodeUsage| {
            row.allocatable.iter().all(|(name, real)| usage.backed(name) <= real)
        };
        let is_plain = |usage: &plimsoll_ledger::NodeUsage| {
            // Where places are kept for others, or more is taken than there is, an end gives back less than was held.
            usage.kept.is_none() && usage.used.fits_in(&ledger.offered(row)) && is_backed_in_full(usage)
        };
        if !ledger.usage(node).is_some_and(is_plain) {
            return;
        }
        let mut leaving: Vec<(u64, ReservationId, Part)> = Vec::new();
        for holder in ledger.holders(node) {
            let Some(at) = ledger.leaves_by(holder) else { continue };
            leaving.push((at.0, holder.id, part_of(ledger, holder, node)));
            self.ends.insert((at.0, node, holder.id));
            if holder.members.first().is_some_and(|first| first.node == node) {
                let total = ledger.shares(holder).in_pool(&holder.members);
                if !total.is_zero() {
                    self.countables.insert((at.0, node, holder.id), total);
                }
            }
        }
        leaving.sort_unstable_by_key(|(at, id, _)| (*at, *id));
        if !leaving.is_empty() {
            self.leaving.insert(node, leaving);
        }
    }

    /// A proposal in flight will leave its nodes, or `only` this one, until they are read anew.
    pub(crate) fn expect_end(&mut self, in_flight: &InFlight, only: Option<NodeId>) {
        let InFlight { id, until_ms, shares, placement, best_effort } = in_flight;
        for member in placement.members.iter().filter(|member| only.is_none_or(|only| only == member.node)) {
            let (amounts, devices) = (shares.on_node(member).clone(), member.devices.clone());
            let part = Part { amounts, devices, best_effort: *best_effort };
            let leaving = self.leaving.entry(member.node).or_default();
            let place = leaving.partition_point(|(known, other, _)| (*known, *other) <= (*until_ms, *id));
            leaving.insert(place, (*until_ms, *id, part));
            self.ends.insert((*until_ms, member.node, *id));
        }
        let in_pool = shares.in_pool(&placement.members);
        let first = placement.members.first().map(|first| first.node);
        if let Some(first) = first.filter(|first| only.is_none_or(|only| only == *first))
            && !in_pool.is_zero()
        {
            self.countables.insert((*until_ms, first, *id), in_pool);
        }
    }

    /// Puts a planned start in.
    pub(crate) fn plan(&mut self, ledger: &Ledger, id: ReservationId, request: &Request, spot: &Spot) {
        let shares = ledger.shares_asked(request);
        for member in &spot.placement.members {
            let (amounts, devices) = (shares.on_node(member).clone(), member.devices.clone());
            let part = Part { amounts, devices, best_effort: request.is_best_effort() };
            let here = self.arriving.entry(member.node).or_default();
            here.entry(id).or_insert_with(|| (spot.start_ms, spot.until_ms, Vec::new())).2.push(part);
        }
        let total = shares.in_pool(&spot.placement.members);
        if !total.is_zero() {
            self.wanted.insert(id, (spot.start_ms, spot.until_ms, total));
        }
    }

    /// Takes it out again.
    pub(crate) fn unplan(&mut self, id: ReservationId, spot: &Spot) {
        for member in &spot.placement.members {
            if let Some(here) = self.arriving.get_mut(&member.node) {
                here.remove(&id);
                if here.is_empty() {
                    self.arriving.remove(&member.node);
                }
            }
        }
        self.wanted.remove(&id);
    }

    /// Nodes on which somebody is planned.
    pub(crate) fn planned_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.arriving.keys().copied()
    }

    /// Moments from `from` on at which room comes about, with the node; in order. Planned ends come last of their moment.
    pub(crate) fn rises(&self, from: u64) -> impl Iterator<Item = (u64, NodeId)> {
        let ends = self.ends.range((from, NodeId(0), ReservationId(0))..).map(|(at, node, _)| (*at, *node));
        let planned = self.arriving.iter().flat_map(|(node, here)| {
            here.values().map(|(_, until, _)| (*until, *node)).filter(|(until, _)| *until < FOREVER)
        });
        let mut planned: Vec<(u64, NodeId)> = planned.filter(|(at, _)| *at >= from).collect();
        planned.sort_unstable();
        Merged { one: ends.peekable(), other: planned.into_iter().peekable() }
    }

    /// The same of one node.
    pub(crate) fn rises_of(&self, node: NodeId) -> impl Iterator<Item = u64> {
        let leaving = self.leaving.get(&node).into_iter().flatten().map(|(at, ..)| *at);
        let arriving = self.arriving.get(&node).into_iter().flatten().map(|(_, (_, until, _))| *until);
        let mut all: Vec<u64> = leaving.chain(arriving.filter(|until| *until < FOREVER)).collect();
        all.sort_unstable();
        all.into_iter()
    }

    /// The node as somebody may count on it all the time from `from` to before `until`: the least of everything, those planned for whom
    /// `counts` is true taken off. `None` where the node takes no work. O(what leaves + what arrives²).
    pub(crate) fn through(
        &self,
        fleet: &Fleet,
        node: NodeId,
        from: u64,
        until: u64,
        counts: &dyn Fn(ReservationId) -> bool,
    ) -> Option<NodeView> {
        let view = fleet.get(node).filter(|view| view.node.is_eligible())?;
        let here = self.arriving.get(&node);
        let arriving = || here.into_iter().flatten().filter(|(id, _)| counts(**id)).map(|(_, one)| one);
        let mut least = self.at(view, node, from, arriving());
        for (start, ..) in arriving().filter(|(start, ..)| *start > from && *start < until) {
            let then = self.at(view, node, *start, arriving());
            least.keep_least(&then);
        }
        Some(least)
    }

    /// Countables free all the time from `from` to before `until`, of which `free` are free now.
    pub(crate) fn countable_through(
        &self,
        name: &str,
        free: u64,
        from: u64,
        until: u64,
        counts: &dyn Fn(ReservationId) -> bool,
    ) -> u64 {
        let planned = || self.wanted.iter().filter(|(id, _)| counts(**id)).map(|(_, wanted)| wanted);
        let at = |moment: u64| {
            let back = self.countables.range(..=(moment, NodeId(u32::MAX), ReservationId(u64::MAX)));
            let back = back.map(|(_, total)| total.get(name).0).fold(0, u64::saturating_add);
            let there = planned().filter(|(start, end, _)| *start <= moment && *end > moment);
            let there = there.map(|(_, _, total)| total.get(name).0).fold(0, u64::saturating_add);
            free.saturating_add(back).saturating_sub(there)
        };
        let starts = planned().map(|(start, ..)| *start).filter(|start| *start > from && *start < until);
        starts.map(at).fold(at(from), u64::min)
    }

    fn at<'a>(
        &self,
        view: &NodeView,
        node: NodeId,
        moment: u64,
        arriving: impl Iterator<Item = &'a Arrival>,
    ) -> NodeView {
        let mut then = NodeView {
            node: Arc::clone(&view.node),
            labels: Labels::new(),
            free: view.free.clone(),
            over: view.over.clone(),
            devices: view.devices.clone(),
            closed_to: view.closed_to.clone(),
        };
        let leaving = self.leaving.get(&node).into_iter().flatten();
        for (_, _, part) in leaving.take_while(|(at, ..)| *at <= moment) {
            then.give_back(&part.amounts, &part.devices, part.best_effort);
        }
        for (start, until, parts) in arriving {
            for part in parts.iter().filter(|_| *start <= moment && *until > moment) {
                then.take(&part.amounts, &part.devices, part.best_effort);
            }
        }
        then
    }

    /// Somebody on one of these nodes who declares no end, to be named to those who wait for it.
    pub(crate) fn first_without_end(
        ledger: &Ledger,
        nodes: impl Iterator<Item = NodeId>,
    ) -> Option<ReservationId> {
        nodes
            .flat_map(|node| ledger.holders(node))
            .find(|holder| ledger.leaves_by(holder).is_none())
            .map(|holder| holder.id)
    }
}

/// What a reservation has on a node, all its members there together.
fn part_of(ledger: &Ledger, holder: &Reservation, node: NodeId) -> Part {
    let shares = ledger.shares(holder);
    let here = || holder.members.iter().filter(|member| member.node == node);
    let mut amounts = Resources::default();
    for member in here() {
        // What was granted fits in a number.
        let _fits = amounts.add_assign(shares.on_node(member));
    }
    let best_effort = holder.is_best_effort();
    Part { amounts, best_effort, devices: here().flat_map(|member| member.devices.iter().copied()).collect() }
}

/// Two ordered rows as one.
struct Merged<A: Iterator, B: Iterator> {
    one: std::iter::Peekable<A>,
    other: std::iter::Peekable<B>,
}

impl<A, B> Iterator for Merged<A, B>
where
    A: Iterator<Item = (u64, NodeId)>,
    B: Iterator<Item = (u64, NodeId)>,
{
    type Item = (u64, NodeId);

    fn next(&mut self) -> Option<(u64, NodeId)> {
        match (self.one.peek(), self.other.peek()) {
            (Some(one), Some(other)) if other < one => self.other.next(),
            (None, _) => self.other.next(),
            _ => self.one.next(),
        }
    }
}
