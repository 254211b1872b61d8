//! The planner's nodes: what the ledger has, less what proposals in flight will take. Every change of a node goes
//! through here and reaches the views that search.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_ledger::{DeviceGrant, DeviceUsage, Ledger, Placement, Request, Shares};
use plimsoll_types::{Amount, DeviceIndex, Labels, NodeId, Operator, Resources, Term};

use crate::fit::{NodeView, Stock};
use crate::fragmentation::Gradients;
use crate::order::Key;
use crate::planner::Closed;
use crate::topology::Tallies;
use crate::views::{ViewId, Views};

/// A node and where it stands in the views.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) view: NodeView,
    /// Its key in every view that holds it; none while it takes no work.
    pub(crate) places: Vec<(ViewId, Key)>,
    /// Kind of each of its devices, as the gradients know them.
    pub(crate) kinds: Vec<u16>,
    /// Left out of searches for the moment: a member of the same spread gang is on it.
    pub(crate) hidden: bool,
}

/// What a re-read of a node showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// It can hold more than before.
    pub(crate) grew: bool,
    /// What it could hold at best is another than before.
    pub(crate) remade: bool,
}

/// What proposals in flight will take of a node: per ticket, and the sum, so that a re-read of a busy node costs no more
/// than one of an idle node.
#[derive(Clone, Debug, Default)]
struct Booked {
    by_ticket: BTreeMap<u64, Vec<BookedMember>>,
    sum: Resources,
    /// Of these, what best effort will take.
    loose: Resources,
    devices: BTreeMap<DeviceIndex, DeviceUsage>,
}

/// Amounts and devices of one member, and whether it is of best effort.
type BookedMember = (Resources, Vec<DeviceGrant>, bool);
type NodesByLabel = BTreeMap<(String, String), BTreeSet<NodeId>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) slots: Vec<Option<Slot>>,
    pub(crate) views: Views,
    pub(crate) gradients: Gradients,
    /// How many members each domain takes, per shape of request.
    pub(crate) tallies: Tallies,
    /// Per pool.
    nodes: BTreeMap<String, BTreeSet<NodeId>>,
    labelled: BTreeMap<String, NodesByLabel>,
    booked: BTreeMap<NodeId, Booked>,
    /// Changes of nodes so far: what was worked out over all nodes ages by these.
    changes: u64,
    /// Classes whose best effort a node takes none of for now.
    closed: Closed,
    /// Per pool and ticket: countables.
    booked_countables: BTreeMap<String, BTreeMap<u64, Resources>>,
}

impl Fleet {
    /// Reads everything anew; bookings stay. O(n log n).
    pub(crate) fn rebuild(&mut self, ledger: &Ledger) {
        self.slots.clear();
        self.nodes.clear();
        self.labelled.clear();
        self.views = Views::default();
        self.tallies.forget();
        self.gradients.forget_nodes();
        for node in ledger.nodes() {
            self.sync(ledger, node.id);
        }
        self.gradients.follow(ledger);
        for pool in ledger.pools() {
            self.open_pool(&pool.name, pool.strategy);
        }
    }

    /// Re-reads one node. O(log n) per view that holds it.
    pub(crate) fn sync(&mut self, ledger: &Ledger, id: NodeId) -> Change {
        self.changes += 1;
        self.tallies.note(id);
        let Some(node) = ledger.node(id) else {
            return Change { grew: false, remade: self.drop_node(id) };
        };
        let known = self.get(id).map(|view| Arc::clone(&view.node));
        let same = |old: &Arc<plimsoll_ledger::Node>| {
            Arc::ptr_eq(old, node)
                || (old.pool == node.pool
                    && old.is_eligible() == node.is_eligible()
                    && old.allocatable == node.allocatable
                    && old.registration.labels == node.registration.labels
                    && old.registration.devices == node.registration.devices)
        };
        if known.as_ref().is_some_and(same) {
            return Change { grew: self.reread(ledger, id), remade: false };
        }
        self.drop_node(id);
        let Some(mut view) = NodeView::applied(ledger, id, node.effective_labels()) else {
            return Change::default();
        };
        self.take_booked(&mut view);
        view.closed_to = self.closed.get(&id).cloned().unwrap_or_default();
        self.nodes.entry(node.pool.clone()).or_default().insert(id);
        let labelled = self.labelled.entry(node.pool.clone()).or_default();
        for (key, value) in &view.labels {
            labelled.entry((key.clone(), value.clone())).or_default().insert(id);
        }
        let index = id.0 as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, None);
        }
        let kinds = self.gradients.kinds_of(&node.registration.devices);
        self.gradients.enter(&node.pool, &kinds);
        let mut slot = Slot { view, places: Vec::new(), kinds, hidden: false };
        self.views.enter(&mut slot);
        self.slots[index] = Some(slot);
        Change { grew: node.is_eligible(), remade: true }
    }

    /// Puts no best effort of these classes on these nodes from now on, and on all others again. True where a node takes again what it did not.
    pub(crate) fn close(&mut self, closed: Closed) -> bool {
        let before = std::mem::replace(&mut self.closed, closed);
        let nodes: BTreeSet<NodeId> = before.keys().chain(self.closed.keys()).copied().collect();
        let mut opened = false;
        for id in nodes {
            let now = self.closed.get(&id).cloned().unwrap_or_default();
            let was = before.get(&id).cloned().unwrap_or_default();
            if !now.keys().eq(was.keys()) {
                opened |= was.keys().any(|class| !now.contains_key(class));
                self.changes += 1;
                self.tallies.note(id);
            }
            if let Some(slot) = slot_mut(&mut self.slots, id) {
                slot.view.closed_to = now;
            }
        }
        opened
    }

    /// Books a placement under a ticket, of best effort or backed.
    pub(crate) fn book(&mut self, ticket: u64, shares: &Shares, placement: &Placement, best_effort: bool) {
        for member in &placement.members {
            let amounts = shares.on_node(member);
            let booked = self.booked.entry(member.node).or_default();
            booked.add(ticket, amounts, &member.devices, best_effort);
            self.take(member.node, amounts, &member.devices, best_effort);
        }
    }

    /// Books countables of a pool.
    pub(crate) fn book_countables(&mut self, ticket: u64, pool: &str, total: Resources) {
        self.booked_countables.entry(pool.to_owned()).or_default().insert(ticket, total);
    }

    /// Drops a booking. The nodes named must be synced afterwards.
    pub(crate) fn unbook(&mut self, ticket: u64, pool: &str, nodes: impl Iterator<Item = NodeId>) {
        if let Some(held) = self.booked_countables.get_mut(pool) {
            held.remove(&ticket);
        }
        for node in nodes {
            if let Some(held) = self.booked.get_mut(&node) {
                held.remove(ticket);
                if held.by_ticket.is_empty() {
                    self.booked.remove(&node);
                }
            }
        }
    }

    /// True where proposals in flight will take something of it.
    pub(crate) fn is_booked(&self, id: NodeId) -> bool {
        self.booked.contains_key(&id)
    }

    /// A countable that proposals in flight will take.
    pub(crate) fn countable_booked(&self, pool: &str, name: &str) -> u64 {
        let held = self.booked_countables.get(pool).into_iter().flatten();
        held.map(|(_, amounts)| amounts.get(name).0).fold(0, u64::saturating_add)
    }

    /// What is left of a pool's countable, bookings taken off.
    pub(crate) fn countable_free(&self, ledger: &Ledger, pool: &plimsoll_ledger::Pool, name: &str) -> u64 {
        let total = pool.countables.get(name).copied().unwrap_or_default();
        let taken = ledger.countable_spoken_for(&pool.name, name);
        total.0.saturating_sub(taken.0).saturating_sub(self.countable_booked(&pool.name, name))
    }

    /// Takes a member off a node's free capacity.
    pub(crate) fn take(
        &mut self,
        id: NodeId,
        amounts: &Resources,
        devices: &[DeviceGrant],
        best_effort: bool,
    ) {
        self.changes += 1;
        self.tallies.note(id);
        if let Some(slot) = slot_mut(&mut self.slots, id) {
            slot.view.take(amounts, devices, best_effort);
            self.views.moved(slot);
        }
    }

    /// Sets a node's free capacity: gives back what a search took of it.
    pub(crate) fn restore(&mut self, id: NodeId, stock: Stock) {
        self.tallies.note(id);
        if let Some(slot) = slot_mut(&mut self.slots, id) {
            slot.view.free = stock.free;
            slot.view.over = stock.over;
            slot.view.devices = stock.devices;
            self.views.moved(slot);
        }
    }

    /// Leaves a node out of searches, or takes it in again.
    pub(crate) fn hide(&mut self, id: NodeId, hidden: bool) {
        self.tallies.note(id);
        if let Some(slot) = slot_mut(&mut self.slots, id).filter(|slot| slot.hidden != hidden) {
            slot.hidden = hidden;
            self.views.hide(slot);
        }
    }

    /// True where so few nodes changed since `changes` that a look at all of them is not worth it: fewer than one in 256.
    pub(crate) fn is_recent(&self, changes: u64) -> bool {
        self.changes - changes <= self.slots.len() as u64 / 256
    }

    /// Changes of nodes so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Nodes of a pool, by ascending id.
    pub(crate) fn pool_views(&self, pool: &str) -> impl Iterator<Item = &NodeView> {
        self.nodes.get(pool).into_iter().flatten().filter_map(|id| self.get(*id))
    }

    /// At most `most` nodes of a pool by ascending id, the first of them `from` or above, and on from the lowest after the highest. O(most).
    pub(crate) fn pool_nodes_from(&self, pool: &str, from: NodeId, most: usize) -> Vec<NodeId> {
        let Some(nodes) = self.nodes.get(pool) else { return Vec::new() };
        nodes.range(from..).chain(nodes.range(..from)).copied().take(most).collect()
    }

    pub(crate) fn pool_len(&self, pool: &str) -> usize {
        self.nodes.get(pool).map_or(0, BTreeSet::len)
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&NodeView> {
        self.slot(id).map(|slot| &slot.view)
    }

    pub(crate) fn slot(&self, id: NodeId) -> Option<&Slot> {
        self.slots.get(id.0 as usize).and_then(Option::as_ref)
    }

    /// Nodes of a pool that carry one of the labels of that `In` term which the fewest carry; all without such a term.
    /// The number first: nobody needs to walk a long list to learn that it is long.
    pub(crate) fn candidates<'a>(
        &'a self,
        pool: &str,
        terms: &[&Term],
    ) -> (usize, impl Iterator<Item = NodeId> + use<'a>) {
        let labelled = self.labelled.get(pool);
        let sets = |term: &Term| -> Vec<&'a BTreeSet<NodeId>> {
            let mut values: Vec<&String> = term.values.iter().collect();
            values.sort();
            values.dedup();
            let set = |value: &String| labelled?.get(&(term.key.clone(), value.clone()));
            values.into_iter().filter_map(set).collect()
        };
        let size = |sets: &Vec<&'a BTreeSet<NodeId>>| sets.iter().map(|set| set.len()).sum::<usize>();
        let listed = terms.iter().filter(|term| term.operator == Operator::In).map(|term| sets(term));
        let chosen = listed.min_by_key(size).unwrap_or_else(|| self.nodes.get(pool).into_iter().collect());
        (size(&chosen), chosen.into_iter().flatten().copied())
    }

    /// The node as the ledger has it, less what is booked on it; for checks.
    pub(crate) fn expected(&self, ledger: &Ledger, id: NodeId) -> Option<NodeView> {
        let mut view = NodeView::applied(ledger, id, Labels::new())?;
        self.take_booked(&mut view);
        Some(view)
    }

    fn take_booked(&self, view: &mut NodeView) {
        let Some(held) = self.booked.get(&view.node.id) else { return };
        // What is loose is taken of what is offered alone.
        view.take(&held.sum.saturating_sub(&held.loose), &[], false);
        view.take(&held.loose, &[], true);
        for (device, usage) in &held.devices {
            view.take_usage(*device, usage);
        }
    }

    /// Re-reads what is free of a node that is otherwise as known. True where it grew.
    fn reread(&mut self, ledger: &Ledger, id: NodeId) -> bool {
        let Some(mut new) = NodeView::applied(ledger, id, Labels::new()) else { return false };
        self.take_booked(&mut new);
        let Some(slot) = slot_mut(&mut self.slots, id) else { return false };
        let old = &mut slot.view;
        old.node = Arc::clone(&new.node);
        if old.free == new.free && old.over == new.over && old.devices == new.devices {
            return false;
        }
        let backed = |view: &NodeView, name: &str| view.has(name, false);
        let more_free = new
            .free
            .iter()
            .any(|(name, amount)| amount > old.free.get(name) || backed(&new, name) > backed(old, name));
        let before: Vec<u32> = (0..old.devices.len()).map(|index| old.device_free_milli(index)).collect();
        old.free = new.free;
        old.over = new.over;
        old.devices = new.devices;
        let more_devices =
            before.iter().enumerate().any(|(index, milli)| old.device_free_milli(index) > *milli);
        let grew = old.node.is_eligible() && (more_free || more_devices);
        self.views.moved(slot);
        grew
    }

    /// True where there was such a node.
    fn drop_node(&mut self, id: NodeId) -> bool {
        let Some(mut slot) = self.slots.get_mut(id.0 as usize).and_then(Option::take) else { return false };
        self.views.leave(&mut slot);
        let pool = &slot.view.node.pool;
        self.gradients.leave(pool, &slot.kinds);
        if let Some(nodes) = self.nodes.get_mut(pool) {
            nodes.remove(&id);
        }
        if let Some(labelled) = self.labelled.get_mut(pool) {
            for (key, value) in slot.view.labels {
                let label = (key, value);
                if let Some(nodes) = labelled.get_mut(&label) {
                    nodes.remove(&id);
                    if nodes.is_empty() {
                        labelled.remove(&label);
                    }
                }
            }
        }
        true
    }
}

impl Booked {
    fn add(&mut self, ticket: u64, amounts: &Resources, devices: &[DeviceGrant], best_effort: bool) {
        // Each was seen to fit, so that a sum past 64 bits cannot be.
        let _fits = self.sum.add_assign(amounts);
        if best_effort {
            let _fits = self.loose.add_assign(amounts);
        }
        for grant in devices {
            self.devices.entry(grant.device).or_default().add(grant);
        }
        self.by_ticket.entry(ticket).or_default().push((amounts.clone(), devices.to_vec(), best_effort));
    }

    fn remove(&mut self, ticket: u64) {
        for (amounts, devices, best_effort) in self.by_ticket.remove(&ticket).into_iter().flatten() {
            let _was_added = self.sum.sub_assign(&amounts);
            let _was_added = !best_effort || self.loose.sub_assign(&amounts);
            for grant in devices {
                let Some(usage) = self.devices.get_mut(&grant.device) else { continue };
                usage.remove(&grant);
                if usage.grants == 0 {
                    self.devices.remove(&grant.device);
                }
            }
        }
    }
}

pub(crate) fn slot_mut(slots: &mut [Option<Slot>], id: NodeId) -> Option<&mut Slot> {
    slots.get_mut(id.0 as usize).and_then(Option::as_mut)
}

/// Each kind of member that a request asks for, as a request of its own, with what of it counts against nodes.
pub(crate) fn kinds(ledger: &Ledger, request: &Request) -> Vec<(Resources, Request)> {
    request.by_role().into_iter().map(|kind| (split(ledger, &kind).0, kind)).collect()
}

/// What counts against nodes and what against the pool.
pub(crate) fn split(ledger: &Ledger, request: &Request) -> (Resources, Resources) {
    let mut on_node = request.requirements.amounts.clone();
    let mut in_pool = Resources::default();
    if let Some(pool) = ledger.pool(&request.pool) {
        for name in pool.countables.keys() {
            in_pool.set(name, on_node.get(name));
            on_node.set(name, Amount::ZERO);
        }
    }
    (on_node, in_pool)
}
