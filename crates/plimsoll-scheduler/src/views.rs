//! Views: the nodes that count for one kind of request, in the order of their pool's strategy. Made when first asked
//! for, kept in step with every node, bounded in number and size.

use std::collections::BTreeMap;

use plimsoll_types::NodeId;

use crate::fit::NodeView;
use crate::fleet::{Slot, slot_mut};
use crate::lens::{Lens, OwnedLens};
use crate::order::{Key, Order};
use crate::score::rank;

/// Most views kept at a time; the one unused for longest goes first.
const MOST_VIEWS: usize = 256;
/// Most places in all views together, per node of the fleet.
const PLACES_PER_NODE: usize = 8;

pub(crate) type ViewId = u32;

#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) lens: OwnedLens,
    pub(crate) order: Order,
    /// Nodes that have a place in it.
    members: usize,
    /// Memory of the largest device that ever counted in it.
    pub(crate) largest_device_bytes: u64,
    fingerprint: u64,
    used_at: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Views {
    views: BTreeMap<ViewId, View>,
    by_fingerprint: BTreeMap<u64, ViewId>,
    next: ViewId,
    uses: u64,
    places: usize,
}

impl Views {
    /// The view of a lens, where it is kept.
    pub(crate) fn find(&mut self, lens: &Lens<'_>) -> Option<ViewId> {
        let fingerprint = lens.fingerprint();
        let id = *self.by_fingerprint.get(&fingerprint)?;
        self.uses += 1;
        let view = self.views.get_mut(&id).filter(|view| view.lens == *lens)?;
        view.used_at = self.uses;
        Some(id)
    }

    /// Makes a view of those of `ids` that count. Of two lenses with one fingerprint (2^-64) the newer stays.
    pub(crate) fn make(
        &mut self,
        slots: &mut [Option<Slot>],
        lens: &Lens<'_>,
        ids: impl Iterator<Item = NodeId>,
    ) -> ViewId {
        let fingerprint = lens.fingerprint();
        if let Some(other) = self.by_fingerprint.get(&fingerprint).copied() {
            self.discard(slots, other);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.uses += 1;
        let mut view = View {
            lens: lens.to_owned(),
            order: Order::new(),
            members: 0,
            largest_device_bytes: 0,
            fingerprint,
            used_at: self.uses,
        };
        for node in ids {
            if let Some(slot) = slot_mut(slots, node).filter(|slot| slot.view.node.is_eligible()) {
                view.enter(id, slot);
            }
        }
        self.places += view.members;
        self.by_fingerprint.insert(fingerprint, id);
        self.views.insert(id, view);
        self.keep_bounds(slots, id);
        id
    }

    pub(crate) fn get(&self, id: ViewId) -> Option<&View> {
        self.views.get(&id)
    }

    /// A node came, or changed in what it is: it takes its place in all views that it counts for.
    pub(crate) fn enter(&mut self, slot: &mut Slot) {
        if slot.view.node.is_eligible() {
            for (id, view) in &mut self.views {
                let before = view.members;
                view.enter(*id, slot);
                self.places += view.members - before;
            }
        }
    }

    /// A node goes.
    pub(crate) fn leave(&mut self, slot: &mut Slot) {
        for (id, key) in slot.places.drain(..) {
            if let Some(view) = self.views.get_mut(&id) {
                view.order.remove(key);
                view.members -= 1;
                self.places -= 1;
            }
        }
    }

    /// What is free of a node changed.
    pub(crate) fn moved(&mut self, slot: &mut Slot) {
        for (id, key) in &mut slot.places {
            let Some(view) = self.views.get_mut(id) else { continue };
            let old = std::mem::replace(key, view.key(&slot.view));
            if !slot.hidden {
                view.order.update(old, *key, view.lens.room(&slot.view));
            }
        }
    }

    /// Takes a node out of searches, or in again, by `slot.hidden`.
    pub(crate) fn hide(&mut self, slot: &Slot) {
        for (id, key) in &slot.places {
            let Some(view) = self.views.get_mut(id) else { continue };
            if slot.hidden {
                view.order.remove(*key);
            } else {
                view.order.insert(*key, view.lens.room(&slot.view));
            }
        }
    }

    /// What the views have wrong about these nodes; for tests. O(views x nodes).
    pub(crate) fn check(&self, slots: &[Option<Slot>]) -> Vec<String> {
        let mut wrong = Vec::new();
        for view in self.views.values() {
            let eligible = slots.iter().flatten().filter(|slot| slot.view.node.is_eligible());
            let counting = eligible.filter(|slot| view.lens.holds(&slot.view));
            let mut should: Vec<_> =
                counting.map(|slot| (view.key(&slot.view), view.lens.room(&slot.view))).collect();
            should.sort_by_key(|(key, _)| *key);
            if !view.order.iter().eq(should) {
                wrong.push(format!("the view of {:?} differs from its nodes", view.lens));
            }
        }
        wrong
    }

    fn keep_bounds(&mut self, slots: &mut [Option<Slot>], newest: ViewId) {
        let nodes = slots.len();
        while self.views.len() > MOST_VIEWS || self.places > PLACES_PER_NODE * nodes + MOST_VIEWS {
            let others = self.views.iter().filter(|(id, _)| **id != newest);
            let Some(oldest) = others.min_by_key(|(_, view)| view.used_at).map(|(id, _)| *id) else { return };
            self.discard(slots, oldest);
        }
    }

    fn discard(&mut self, slots: &mut [Option<Slot>], id: ViewId) {
        let Some(view) = self.views.remove(&id) else { return };
        self.by_fingerprint.remove(&view.fingerprint);
        self.places -= view.members;
        for slot in slots.iter_mut().flatten() {
            slot.places.retain(|(other, _)| *other != id);
        }
    }
}

impl View {
    /// Gives a node its place, where it counts.
    fn enter(&mut self, id: ViewId, slot: &mut Slot) {
        if !self.lens.holds(&slot.view) {
            return;
        }
        let key = self.key(&slot.view);
        slot.places.push((id, key));
        self.members += 1;
        if !slot.hidden {
            self.order.insert(key, self.lens.room(&slot.view));
        }
        let devices = slot.view.node.registration.devices.iter().filter(|device| self.lens.counts(device));
        let largest = devices.map(|device| device.memory_bytes).max().unwrap_or(0);
        self.largest_device_bytes = self.largest_device_bytes.max(largest);
    }

    fn key(&self, view: &NodeView) -> Key {
        let (first, second) = rank(self.lens.strategy, view);
        Key { first, second, node: view.node.id }
    }
}
