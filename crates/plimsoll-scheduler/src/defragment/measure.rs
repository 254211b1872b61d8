//! How much of a pool's free GPU the requests that are expected there cannot use.
//!
//! The measure is that of Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC
//! 2023, section 3: of a node, for one request, the free GPU that the request cannot use (all of it where the node has too little cpu or memory for
//! it, else that of the devices without room for it); then the mean over the requests that are expected, each as often as it was asked. It is taken
//! for each class of device by itself, over those requests that the class may serve. Devices that are cut into slices are left out: what is left of
//! those depends on places ([`plimsoll_ledger::instances_left`]).

use std::collections::BTreeMap;

use plimsoll_ledger::{
    Device, GpuAsk, GpuShare, Ledger, Reservation, WHOLE_DEVICE_MILLI, device_matches, has_room_at,
};
use plimsoll_types::Resources;

use super::plan::Opening;
use crate::fit::NodeView;

/// Reservations that are looked at, from the newest on, to learn what is asked.
const MOST_LOOKED_AT: usize = 16_384;
/// Shapes that are expected, the most frequent ones.
const MOST_SHAPES: usize = 32;

/// Devices that are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceClass {
    /// Model, lower case.
    pub model: String,
    /// Memory of one, in bytes.
    pub memory_bytes: u64,
}

/// How fragmented the free GPU of a pool's devices of one class is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragmentation {
    /// The devices.
    pub class: DeviceClass,
    /// Number of them that work, on nodes that take work.
    pub devices: u64,
    /// Thousandths of them that nobody has.
    pub free_milli: u64,
    /// Of these, what the requests that are expected cannot use, in the mean.
    pub stranded_milli: u64,
}

/// What is expected of a pool: shapes of requests, with how often each was asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    shapes: Vec<Shape>,
    classes: Vec<DeviceClass>,
}

/// What is asked in pools, by what runs, waits, or ended lately.
pub(super) struct Asked {
    shapes: BTreeMap<String, Vec<Shape>>,
}

#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// What one member takes of its node.
    amounts: Resources,
    gpu: GpuAsk,
    weight: u64,
    /// Classes of devices that may serve it, by their place.
    classes: Vec<bool>,
}

/// What a node adds to the measure, by class: devices, free thousandths, and those that are lost to each request, times its weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    devices: u64,
    free_milli: u64,
    lost: u128,
}

impl Shape {
    /// One of its devices has room on this one.
    fn has_room(&self, view: &NodeView, index: usize) -> bool {
        let device = &view.node.registration.devices[index];
        let usage = view.devices.get(index).copied().unwrap_or_default();
        device.mig.is_none() && !device.failed && has_room_at(&usage, self.gpu.share, device, None)
    }

    /// A member fits on the node.
    fn fits(&self, view: &NodeView) -> bool {
        let devices = view.node.registration.devices.iter().enumerate();
        let with_room = devices
            .filter(|(index, device)| device_matches(&self.gpu, device) && self.has_room(view, *index));
        with_room.count() >= self.gpu.count as usize
            && self.amounts.iter().all(|(name, amount)| amount <= view.has(name, false))
    }
}

impl Fragmentation {
    /// What is stranded of what is free, in thousandths; 0 where nothing is free.
    pub fn permille(&self) -> u64 {
        (self.stranded_milli * 1_000).checked_div(self.free_milli).unwrap_or(0)
    }

    /// True where something is stranded, and at least so many thousandths of what is free; never for 0, which is no line.
    pub fn is_over(&self, threshold_permille: u32) -> bool {
        threshold_permille > 0 && self.permille() >= u64::from(threshold_permille)
    }
}

impl Asked {
    /// One walk over the newest reservations for all these pools. O(reservations looked at x shapes).
    pub(super) fn of(ledger: &Ledger, of_interest: impl Fn(&str) -> bool) -> Asked {
        let mut all: BTreeMap<String, Vec<Shape>> = BTreeMap::new();
        for reservation in ledger.reservations().rev().take(MOST_LOOKED_AT) {
            let pool = reservation.request.pool.as_str();
            let Some(gpu) = asked(reservation).filter(|_| of_interest(pool)) else { continue };
            let (amounts, _) = crate::fleet::split(ledger, &reservation.request);
            if !all.contains_key(pool) {
                all.insert(pool.to_owned(), Vec::new());
            }
            let shapes = all.get_mut(pool).expect("put there just now");
            match shapes.iter_mut().find(|shape| shape.gpu == *gpu && shape.amounts == amounts) {
                Some(shape) => shape.weight += 1,
                None => shapes.push(Shape { amounts, gpu: gpu.clone(), weight: 1, classes: Vec::new() }),
            }
        }
        Asked { shapes: all }
    }

    /// What is asked in one of them.
    pub(super) fn take(&mut self, pool: &str) -> Vec<Shape> {
        self.shapes.remove(pool).unwrap_or_default()
    }
}

impl Expected {
    /// What is asked in a pool with such nodes. Where nobody asks for devices of a class, one whole device of it is expected. O(devices + shapes).
    pub(super) fn of<'a>(mut shapes: Vec<Shape>, nodes: impl Iterator<Item = &'a NodeView>) -> Expected {
        let mut classes: BTreeMap<DeviceClass, Device> = BTreeMap::new();
        for view in nodes {
            for device in view.node.registration.devices.iter().filter(|device| device.mig.is_none()) {
                classes.entry(class_of(device)).or_insert_with(|| device.clone());
            }
        }
        shapes.sort_by_key(|shape| std::cmp::Reverse(shape.weight));
        shapes.truncate(MOST_SHAPES);
        for shape in &mut shapes {
            shape.classes = classes.values().map(|device| device_matches(&shape.gpu, device)).collect();
        }
        for (index, class) in classes.keys().enumerate() {
            if !shapes.iter().any(|shape| shape.classes[index]) {
                let mut only = vec![false; classes.len()];
                only[index] = true;
                let gpu = GpuAsk { models: vec![class.model.clone()], ..GpuAsk::whole(1) };
                shapes.push(Shape { amounts: Resources::default(), gpu, weight: 1, classes: only });
            }
        }
        Expected { shapes, classes: classes.into_keys().collect() }
    }

    /// What one node adds, by class. O(shapes x devices).
    pub(super) fn part(&self, view: &NodeView) -> Vec<Part> {
        let mut parts = vec![Part::default(); self.classes.len()];
        let devices: Vec<(usize, usize, u64)> = view
            .node
            .registration
            .devices
            .iter()
            .enumerate()
            .filter(|(_, device)| device.mig.is_none() && !device.failed)
            .filter_map(|(index, device)| {
                let class = self.classes.binary_search(&class_of(device)).ok()?;
                Some((index, class, u64::from(view.device_free_milli(index))))
            })
            .collect();
        for (_, class, free_milli) in &devices {
            parts[*class].devices += 1;
            parts[*class].free_milli += free_milli;
        }
        for shape in &self.shapes {
            let serving = devices.iter().filter(|(_, class, _)| shape.classes[*class]);
            let fits = shape.fits(view);
            for (index, class, free_milli) in serving {
                if !(fits && shape.has_room(view, *index)) {
                    parts[*class].lost += u128::from(*free_milli) * u128::from(shape.weight);
                }
            }
        }
        parts
    }

    /// Thousandths that are stranded in these parts, by class, times 1,000.
    pub(super) fn stranded_micros(&self, parts: &[Part]) -> Vec<u128> {
        let stranded = |(class, part): (usize, &Part)| {
            let of_class = self.shapes.iter().filter(|shape| shape.classes[class]);
            let weight: u64 = of_class.map(|shape| shape.weight).sum();
            part.lost * 1_000 / u128::from(weight.max(1))
        };
        parts.iter().enumerate().map(stranded).collect()
    }

    /// On how many of these nodes a member of each shape fits. O(nodes x shapes x devices).
    pub(super) fn rooms<'a>(&self, views: impl Iterator<Item = &'a NodeView> + Clone) -> Vec<u64> {
        let room = |shape: &Shape| views.clone().filter(|view| shape.fits(view)).count() as u64;
        self.shapes.iter().map(room).collect()
    }

    /// The shapes that fit on more nodes than before.
    pub(super) fn openings(&self, before: &[u64], after: &[u64]) -> Vec<Opening> {
        let pairs = self.shapes.iter().zip(before.iter().zip(after));
        let more = pairs.filter(|(_, (before, after))| after > before);
        let opening = |(shape, (before, after)): (&Shape, (&u64, &u64))| Opening {
            gpu: shape.gpu.clone(),
            amounts: shape.amounts.clone(),
            nodes_before: *before,
            nodes_after: *after,
        };
        more.map(opening).collect()
    }

    /// The measure of all these parts, by class.
    pub(super) fn sum<'a>(&self, parts: impl Iterator<Item = &'a Vec<Part>>) -> Vec<Fragmentation> {
        let mut all = vec![Part::default(); self.classes.len()];
        for node in parts {
            for (sum, part) in all.iter_mut().zip(node) {
                sum.devices += part.devices;
                sum.free_milli += part.free_milli;
                sum.lost += part.lost;
            }
        }
        let stranded = self.stranded_micros(&all);
        let of_class = |((class, part), micros): ((&DeviceClass, &Part), u128)| Fragmentation {
            class: class.clone(),
            devices: part.devices,
            free_milli: part.free_milli,
            stranded_milli: u64::try_from(micros / 1_000).unwrap_or(u64::MAX),
        };
        self.classes.iter().zip(&all).zip(stranded).map(of_class).collect()
    }
}

/// The part of a device that a reservation's members ask for; `None` for those that ask for none, or for an instance.
fn asked(reservation: &Reservation) -> Option<&GpuAsk> {
    let gpu = reservation.request.requirements.gpu.as_ref();
    gpu.filter(|gpu| !matches!(gpu.share, GpuShare::Mig(_)))
}

fn class_of(device: &Device) -> DeviceClass {
    DeviceClass { model: device.model.clone(), memory_bytes: device.memory_bytes }
}

/// Thousandths of all devices that the measure is about.
pub(super) fn total_milli(fragmentation: &[Fragmentation]) -> u64 {
    fragmentation.iter().map(|one| one.devices * u64::from(WHOLE_DEVICE_MILLI)).sum()
}
