//! The mix: the shapes that are expected, with weights, in the form in which nodes are measured against it.

use std::collections::BTreeMap;

use plimsoll_ledger::{Device, GpuAsk, GpuShare, WHOLE_DEVICE_MILLI, device_matches};

use super::history::{History, Shape, Share};

/// Shapes in a mix, the most frequent ones.
const MOST_TYPICAL: usize = 96;
/// Sum of the weights of a mix, about.
const WEIGHTS: u128 = 1 << 16;

/// Devices of a pool: how many nodes have so many devices of a kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Inventory {
    nodes: BTreeMap<(u16, u32), u64>,
}

/// A shape that is expected.
#[derive(Clone, Debug)]
pub(super) struct Typical {
    pub(super) weight: i64,
    pub(super) cpu_millis: u64,
    pub(super) memory_mib: u64,
    /// Whole devices; 0 for a share.
    pub(super) whole: u32,
    /// Thousandths of a device by its kind; 0 where it will not do. 1000 for whole devices.
    pub(super) milli: Vec<u16>,
}

/// All that is expected of a pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Mix {
    pub(super) typical: Vec<Typical>,
}

impl Inventory {
    pub(super) fn enter(&mut self, kinds: &[u16]) {
        for of_node in by_kind(kinds) {
            *self.nodes.entry(of_node).or_default() += 1;
        }
    }

    pub(super) fn leave(&mut self, kinds: &[u16]) {
        for of_node in by_kind(kinds) {
            if let Some(count) = self.nodes.get_mut(&of_node) {
                *count -= 1;
                if *count == 0 {
                    self.nodes.remove(&of_node);
                }
            }
        }
    }

    /// Devices of kinds that will do, on nodes that have enough of them.
    fn devices(&self, at_least: u32, will_do: impl Fn(u16) -> bool) -> u64 {
        let willing = self.nodes.iter().filter(|((kind, devices), _)| *devices >= at_least && will_do(*kind));
        willing.map(|((_, devices), nodes)| u64::from(*devices) * nodes).sum()
    }
}

impl Mix {
    /// The most frequent shapes. Each weighs as many requests as there were of it per device that may serve it: what is asked
    /// of few devices counts the more on these. O(shapes x kinds).
    pub(super) fn new(history: &History, kinds: &[Device], inventory: &Inventory) -> Mix {
        let all = inventory.devices(0, |_| true);
        let mut weighed: Vec<(u128, Typical)> = Vec::new();
        for (shape, count) in history.heaviest(MOST_TYPICAL) {
            let milli = kinds.iter().map(|kind| milli_of(shape, kind)).collect::<Vec<_>>();
            let will_do = |kind: u16| milli.get(usize::from(kind)).is_some_and(|milli| *milli > 0);
            let serving = inventory.devices(shape.devices, will_do);
            if serving > 0 {
                let weight = u128::from(count) * u128::from(all) * WEIGHTS / u128::from(serving);
                weighed.push((weight, Typical::new(shape, milli)));
            }
        }
        let sum: u128 = weighed.iter().map(|(weight, _)| weight).sum::<u128>().max(1);
        let scaled = |(weight, typical): (u128, Typical)| {
            let weight = i64::try_from(weight * WEIGHTS / sum).unwrap_or(i64::MAX).max(1);
            Typical { weight, ..typical }
        };
        Mix { typical: weighed.into_iter().map(scaled).collect() }
    }
}

impl Typical {
    fn new(shape: &Shape, milli: Vec<u16>) -> Typical {
        Typical {
            weight: 1,
            cpu_millis: shape.cpu_millis,
            memory_mib: shape.memory_mib,
            whole: if shape.share == Share::Whole { shape.devices } else { 0 },
            milli,
        }
    }
}

/// Each kind on a node with the number of its devices.
fn by_kind(kinds: &[u16]) -> impl Iterator<Item = (u16, u32)> {
    let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
    for kind in kinds {
        *counts.entry(*kind).or_default() += 1;
    }
    counts.into_iter()
}

/// Thousandths of a device that a shape takes of it, 0 where it cannot use it.
fn milli_of(shape: &Shape, kind: &Device) -> u16 {
    let share = match shape.share {
        Share::Whole => GpuShare::Whole,
        Share::Milli(milli) => GpuShare::Milli(milli),
        Share::Bytes(bytes) => GpuShare::Memory(bytes),
        Share::Mig(profile) => GpuShare::Mig(profile),
    };
    let (count, min_device_memory_bytes) = (shape.devices, shape.min_device_memory_bytes);
    let ask = GpuAsk { count, share, min_device_memory_bytes, models: shape.models.clone() };
    if !device_matches(&ask, kind) {
        return 0;
    }
    let (milli, _) = share.of_device(kind);
    u16::try_from(milli).unwrap_or(WHOLE_DEVICE_MILLI)
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Request, Requirements};

    use super::*;

    fn kind(model: &str, gib: u64) -> Device {
        Device { model: model.to_owned(), memory_bytes: gib << 30, ..Device::default() }
    }

    fn asked(gpu: GpuAsk) -> Request {
        Request {
            requirements: Requirements { gpu: Some(gpu), ..Requirements::default() },
            ..Request::default()
        }
    }

    #[test]
    fn what_few_devices_can_serve_weighs_more() {
        let kinds = [kind("t4", 16), kind("a100", 80)];
        let mut inventory = Inventory::default();
        for _ in 0..3 {
            inventory.enter(&[0, 0]);
        }
        inventory.enter(&[1, 1]);
        let mut history = History::default();
        for _ in 0..5 {
            history.learn(&asked(GpuAsk::milli(500)));
            history.learn(&asked(GpuAsk { models: vec!["a100".into()], ..GpuAsk::whole(1) }));
            history.learn(&asked(GpuAsk { models: vec!["h100".into()], ..GpuAsk::whole(1) }));
            history.learn(&asked(GpuAsk::whole(4)));
        }
        let mix = Mix::new(&history, &kinds, &inventory);
        // Nothing serves an H100 or four devices on one node.
        let mut weights: Vec<(Vec<u16>, i64)> =
            mix.typical.iter().map(|typical| (typical.milli.clone(), typical.weight)).collect();
        weights.sort();
        assert_eq!(weights, [(vec![0, 1_000], 52_428), (vec![500, 500], 13_107)]);
        inventory.leave(&[1, 1]);
        assert_eq!(Mix::new(&history, &kinds, &inventory).typical.len(), 1);
    }

    #[test]
    fn a_share_by_memory_takes_what_it_is_of_each_kind() {
        let kinds = [kind("t4", 16), kind("a100", 80), kind("old", 8)];
        let mut inventory = Inventory::default();
        inventory.enter(&[0, 1, 2]);
        let mut history = History::default();
        history.learn(&asked(GpuAsk { share: GpuShare::Memory(10 << 30), ..GpuAsk::whole(1) }));
        let mix = Mix::new(&history, &kinds, &inventory);
        assert_eq!(mix.typical[0].milli, [625, 125, 0]);
    }
}
