//! The descent: of the nodes that fit, the one on which the mix loses least of what it could use.
//!
//! A bounded number of nodes is looked at, so that a decision costs the same in a large fleet as in a small one: the
//! fullest that fit, and as many spread evenly over the rest of the order. Nodes with equal free GPU and cpu count once. What
//! a shape costs on a node is remembered by what is free there, so that of many equal nodes one is measured.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use plimsoll_ledger::{DeviceGrant, GpuAsk, GpuShare, Request, Strategy};
use plimsoll_types::{NodeId, Resources};

use super::mix::Mix;
use super::usable::Free;
use crate::fleet::{Fleet, Slot};
use crate::order::{Key, Order, Room, splitmix64};
use crate::score::rank;
use crate::search::{Spot, wishes_missed};

/// Nodes looked at from the fullest on, and as many beyond.
const HALF: usize = 128;
/// Nodes that seemed to have room but had none, in a row, before the look goes on elsewhere. Where none has been found yet it
/// goes on to the end.
const MOST_MISSES: usize = 16;
/// Losses remembered, a power of two.
const REMEMBERED: usize = 1 << 16;

/// Losses by what is free and what is asked: a table in which the later entry takes the place of the earlier one.
#[derive(Clone, Debug, Default)]
pub(super) struct Memo {
    entries: Vec<Remembered>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Remembered {
    fingerprint: u64,
    loss: Loss,
}

/// What a member costs the mix on a node, and for a share the device that costs least: its kind and what is free of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Loss {
    /// As [`Free::usable`] counts; where nothing is asked, all that is usable.
    usable: i64,
    device: Option<(u16, u32)>,
}

/// Wishes missed, loss, place in the order: the least is the best.
type Score = (u64, i64, u64, u64, NodeId);

/// Nodes with room in a view: the fullest, then others spread over the rest of the order. `fits` has the last word.
fn candidates(order: &Order, need: &Room, half: usize, fits: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
    let mut found = Vec::new();
    let past_equals = |key: Key| Some(Key { node: NodeId(u32::MAX), ..key });
    let (mut after, mut misses) = (None, 0);
    while found.len() < half && (found.is_empty() || misses < MOST_MISSES) {
        let Some(key) = order.next(after, need) else { return found };
        if fits(key.node) {
            found.push(key.node);
            (after, misses) = (past_equals(key), 0);
        } else {
            (after, misses) = (Some(key), misses + 1);
        }
    }
    let begin = after.map_or(0, |key| order.rank(key));
    let rest = order.len() - begin;
    for part in 0..half {
        // A key of the order is looked for from the one before it on.
        let start = (begin + part * rest / half).checked_sub(1).and_then(|rank| order.at_rank(rank));
        after = after.max(start);
        for _ in 0..MOST_MISSES {
            let Some(key) = order.next(after, need) else { return found };
            if fits(key.node) {
                found.push(key.node);
                after = past_equals(key);
                break;
            }
            after = Some(key);
        }
    }
    found
}

impl Fleet {
    /// Nodes of an order that are worth a look.
    pub(crate) fn candidates_of(
        &self,
        order: &Order,
        need: &Room,
        request: &Request,
        amounts: &Resources,
    ) -> Vec<NodeId> {
        let fits = |id| self.get(id).is_some_and(|view| view.fit(request, amounts).is_ok());
        candidates(order, need, HALF, fits)
    }

    /// The best spot among these nodes: by wishes first, then by what is lost, then the fullest.
    pub(crate) fn descend_among(
        &mut self,
        nodes: impl Iterator<Item = NodeId>,
        request: &Request,
        amounts: &Resources,
    ) -> Option<Spot> {
        // Out of the way while the nodes are looked at.
        let mut memo = std::mem::take(&mut self.gradients.memo);
        let nothing = Mix::default();
        let known = self.gradients.pools.get(&request.pool);
        let mix = known.map_or(&nothing, |known| &known.mix);
        let epoch = splitmix64(known.map_or(0, |known| known.epoch));
        let asked = (epoch, asked(request, amounts) ^ epoch);
        let mut best: Option<(Score, Spot)> = None;
        for slot in nodes.filter_map(|id| self.slot(id)) {
            let Ok(devices) = slot.view.fit(request, amounts) else { continue };
            let loss = memo.loss(slot, mix, request, amounts, &devices, asked);
            let (first, second) = rank(Strategy::Fragmentation, &slot.view);
            let id = slot.view.node.id;
            let score = (wishes_missed(request, &slot.view), loss.usable, first, second, id);
            if best.as_ref().is_none_or(|(known, _)| score < *known) {
                let devices =
                    slot.device_like(loss.device, request.requirements.gpu.as_ref()).unwrap_or(devices);
                best = Some((score, (id, devices)));
            }
        }
        self.gradients.memo = memo;
        best.map(|(_, spot)| spot)
    }
}

impl Slot {
    /// A grant of the first device of this kind, so free, that has room.
    fn device_like(&self, device: Option<(u16, u32)>, gpu: Option<&GpuAsk>) -> Option<Vec<DeviceGrant>> {
        let (kind, milli) = device?;
        let same = |grant: &DeviceGrant| {
            let index = usize::from(grant.device.0);
            self.kinds.get(index) == Some(&kind) && self.view.device_free_milli(index) == milli
        };
        self.view.shares(gpu?).find(same).map(|grant| vec![grant])
    }
}

impl Memo {
    fn loss(
        &mut self,
        slot: &Slot,
        mix: &Mix,
        request: &Request,
        amounts: &Resources,
        devices: &[DeviceGrant],
        (epoch, asked): (u64, u64),
    ) -> Loss {
        if mix.typical.is_empty() {
            return Loss::default();
        }
        let free = Free::of(slot);
        let state = free.fingerprint();
        let (before, loss) = (splitmix64(state ^ epoch), splitmix64(state ^ asked));
        if let Some(known) = self.known(loss) {
            return known;
        }
        // What is usable now is the same for all that is asked.
        let usable = match self.known(before) {
            Some(known) => known.usable,
            None => self.note(before, Loss { usable: free.usable(mix), device: None }).usable,
        };
        let measured = measure(free, usable, slot, mix, request, amounts, devices);
        self.note(loss, measured)
    }

    fn known(&self, fingerprint: u64) -> Option<Loss> {
        let entry = self.entries.get(fingerprint as usize % REMEMBERED)?;
        (entry.fingerprint == fingerprint).then_some(entry.loss)
    }

    fn note(&mut self, fingerprint: u64, loss: Loss) -> Loss {
        self.entries.resize(REMEMBERED, Remembered::default());
        self.entries[fingerprint as usize % REMEMBERED] = Remembered { fingerprint, loss };
        loss
    }
}

/// What the mix loses by a member with these devices, or for a share by the device that costs least; of equal ones, the
/// fullest. `before` is what it could use as yet.
fn measure(
    free: Free,
    before: i64,
    slot: &Slot,
    mix: &Mix,
    request: &Request,
    amounts: &Resources,
    devices: &[DeviceGrant],
) -> Loss {
    let mut after = free;
    after.cpu_millis = after.cpu_millis.saturating_sub(amounts.cpu_millis.0);
    after.memory_mib = after.memory_mib.saturating_sub(amounts.memory_bytes.0.div_ceil(1 << 20));
    let gpu = request.requirements.gpu.as_ref();
    // Which device an instance goes to depends on its slices, of which nothing is known here: that was chosen before.
    let any_device = |gpu: &&GpuAsk| matches!(gpu.share, GpuShare::Milli(_) | GpuShare::Memory(_));
    let Some(gpu) = gpu.filter(any_device) else {
        for grant in devices {
            if let Some(device) = after.devices.get_mut(usize::from(grant.device.0)) {
                device.1 = device.1.saturating_sub(grant.milli.into());
            }
        }
        return Loss { usable: before.saturating_sub(after.usable(mix)), device: None };
    };
    let mut tried: Vec<(u16, u32)> = Vec::new();
    let mut best: Option<(i64, u32, (u16, u32))> = None;
    for grant in slot.view.shares(gpu) {
        let index = usize::from(grant.device.0);
        let Some(device) = after.devices.get(index).copied().filter(|device| !tried.contains(device)) else {
            continue;
        };
        tried.push(device);
        after.devices[index].1 = device.1.saturating_sub(grant.milli.into());
        let found = (before.saturating_sub(after.usable(mix)), device.1, device);
        after.devices[index] = device;
        if best.is_none_or(|known| found < known) {
            best = Some(found);
        }
    }
    best.map_or_else(Loss::default, |(usable, _, device)| Loss { usable, device: Some(device) })
}

/// What is asked.
fn asked(request: &Request, amounts: &Resources) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&request.pool, amounts.cpu_millis, amounts.memory_bytes, &request.requirements.gpu).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(nodes: u32) -> Order {
        let mut order = Order::new();
        for node in 0..nodes {
            let key = Key { first: u64::from(node / 3), second: 0, node: NodeId(node) };
            order.insert(key, Room { cpu_millis: u64::from(node % 2), ..Room::default() });
        }
        order
    }

    #[test]
    fn a_small_fleet_is_looked_at_whole_and_equals_once() {
        let all = candidates(&order(30), &Room::default(), 8, |_| true);
        assert_eq!(all, [0, 3, 6, 9, 12, 15, 18, 21, 24, 27].map(NodeId));
    }

    #[test]
    fn a_large_fleet_is_looked_at_here_and_there_in_order() {
        let some = candidates(&order(3_000), &Room::default(), 4, |_| true);
        assert_eq!(some[..4], [0, 3, 6, 9].map(NodeId));
        assert_eq!(some.len(), 8);
        assert!(some.is_sorted() && some[7].0 > 2_000, "{some:?}");
    }

    #[test]
    fn the_only_node_that_fits_is_found() {
        for only in [0, 17, 999] {
            assert_eq!(candidates(&order(1_000), &Room::default(), 4, |id| id.0 == only), [NodeId(only)]);
        }
        let need = Room { cpu_millis: 1, ..Room::default() };
        assert!(candidates(&order(100), &need, 4, |_| true).iter().all(|id| id.0 % 2 == 1));
        assert!(candidates(&order(100), &need, 4, |_| false).is_empty());
    }
}
