//! What a view of the fleet is for: requests that name the same pool, labels, device models and further resource share
//! one, whatever their amounts.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use plimsoll_ledger::{Device, GpuAsk, GpuShare, ProfileName, Request, Strategy, device_has_room};
use plimsoll_types::{Resources, Term};

use crate::fit::NodeView;
use crate::order::Room;

/// The part of a request that decides which nodes and devices count for it.
#[derive(Clone, Debug)]
pub(crate) struct Lens<'a> {
    pub(crate) pool: &'a str,
    /// Whose order the nodes are in.
    pub(crate) strategy: Strategy,
    /// Required terms, and the wishes that are tried together with them.
    pub(crate) terms: Vec<&'a Term>,
    models: &'a [String],
    min_device_memory_bytes: u64,
    /// Instances of this profile are asked, on devices that have it; without one those count that are not cut.
    profile: Option<ProfileName>,
    /// A resource beyond cpu and memory that counts against nodes; the first where there are several.
    other: Option<&'a str>,
    /// What is idle or oversubscribed counts, too.
    best_effort: bool,
}

/// A lens that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnedLens {
    pool: String,
    pub(crate) strategy: Strategy,
    terms: Vec<Term>,
    models: Vec<String>,
    min_device_memory_bytes: u64,
    profile: Option<ProfileName>,
    other: Option<String>,
    best_effort: bool,
}

impl<'a> Lens<'a> {
    /// The lens of a request with some of its wishes. `amounts` are those that count against nodes.
    pub(crate) fn new(
        request: &'a Request,
        amounts: &'a Resources,
        strategy: Strategy,
        wishes: &[&'a Term],
    ) -> Lens<'a> {
        let gpu = request.requirements.gpu.as_ref();
        Lens {
            pool: &request.pool,
            strategy,
            terms: request.requirements.required.terms.iter().chain(wishes.iter().copied()).collect(),
            models: gpu.map_or(&[], |gpu| &gpu.models),
            min_device_memory_bytes: gpu.map_or(0, |gpu| gpu.min_device_memory_bytes),
            profile: gpu.and_then(|gpu| match gpu.share {
                GpuShare::Mig(name) => Some(name),
                GpuShare::Whole | GpuShare::Milli(_) | GpuShare::Memory(_) => None,
            }),
            other: amounts.other.keys().next().map(String::as_str),
            best_effort: request.is_best_effort(),
        }
    }

    /// The lens of a pool: all nodes, all devices.
    pub(crate) fn pool(pool: &'a str, strategy: Strategy) -> Lens<'a> {
        let (terms, models) = (Vec::new(), &[][..]);
        Lens {
            pool,
            strategy,
            terms,
            models,
            min_device_memory_bytes: 0,
            profile: None,
            other: None,
            best_effort: false,
        }
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.pool, self.strategy, &self.terms, self.models).hash(&mut hasher);
        (self.min_device_memory_bytes, self.profile, self.other, self.best_effort).hash(&mut hasher);
        hasher.finish()
    }

    pub(crate) fn to_owned(&self) -> OwnedLens {
        OwnedLens {
            pool: self.pool.to_owned(),
            strategy: self.strategy,
            terms: self.terms.iter().map(|term| (*term).clone()).collect(),
            models: self.models.to_vec(),
            min_device_memory_bytes: self.min_device_memory_bytes,
            profile: self.profile,
            other: self.other.map(str::to_owned),
            best_effort: self.best_effort,
        }
    }
}

impl PartialEq<Lens<'_>> for OwnedLens {
    fn eq(&self, lens: &Lens<'_>) -> bool {
        self.pool == lens.pool
            && self.strategy == lens.strategy
            && self.terms.iter().eq(lens.terms.iter().copied())
            && self.models == lens.models
            && self.min_device_memory_bytes == lens.min_device_memory_bytes
            && self.profile == lens.profile
            && self.other.as_deref() == lens.other
            && self.best_effort == lens.best_effort
    }
}

impl OwnedLens {
    /// True where the node counts: whether it has room is another question.
    pub(crate) fn holds(&self, view: &NodeView) -> bool {
        let any_device =
            self.models.is_empty() && self.min_device_memory_bytes == 0 && self.profile.is_none();
        view.node.pool == self.pool
            && self.terms.iter().all(|term| term.matches(&view.labels))
            && (any_device || view.node.registration.devices.iter().any(|device| self.counts(device)))
            && self.other.as_ref().is_none_or(|name| !view.node.allocatable.get(name).is_zero())
    }

    /// True where the device counts: model, memory and mode are as asked.
    pub(crate) fn counts(&self, device: &Device) -> bool {
        device.memory_bytes >= self.min_device_memory_bytes
            && (self.models.is_empty() || self.models.contains(&device.model))
            && match (self.profile, &device.mig) {
                (Some(name), Some(layout)) => layout.profile(name).is_some(),
                (None, None) => true,
                _ => false,
            }
    }

    /// What the node has now, of the devices that count.
    pub(crate) fn room(&self, view: &NodeView) -> Room {
        let mut room = Room {
            cpu_millis: view.has("cpu", self.best_effort).0,
            memory_bytes: view.has("memory", self.best_effort).0,
            other: self.other.as_ref().map_or(0, |name| view.has(name, self.best_effort).0),
            ..Room::default()
        };
        for (index, (device, usage)) in view.node.registration.devices.iter().zip(&view.devices).enumerate() {
            if !self.counts(device) {
                continue;
            }
            if let Some(name) = self.profile {
                let has_room = !device.failed && device_has_room(usage, GpuShare::Mig(name), device);
                room.share_milli = room.share_milli.max(has_room.into());
                continue;
            }
            let milli = view.device_free_milli(index);
            if milli > 0 {
                room.whole += u32::from(usage.grants == 0);
                room.share_milli = room.share_milli.max(milli);
                room.share_bytes =
                    room.share_bytes.max(device.memory_bytes.saturating_sub(usage.memory_bytes));
            }
        }
        room
    }

    /// What a member needs at least, where the largest device that counts has `largest_device_bytes`.
    pub(crate) fn need(&self, gpu: Option<&GpuAsk>, amounts: &Resources, largest_device_bytes: u64) -> Room {
        let mut need = Room {
            cpu_millis: amounts.cpu_millis.0,
            memory_bytes: amounts.memory_bytes.0,
            other: self.other.as_ref().map_or(0, |name| amounts.get(name).0),
            ..Room::default()
        };
        match gpu.map(|gpu| (gpu.share, gpu.count)) {
            None => {}
            Some((GpuShare::Whole, count)) => need.whole = count,
            // Whether a start is free says the device; here is only that there is one.
            Some((GpuShare::Mig(_), _)) => need.share_milli = 1,
            Some((share, _)) => {
                let largest = Device { memory_bytes: largest_device_bytes, ..Device::default() };
                let (milli, bytes) = share.of_device(&largest);
                need.share_milli = u32::try_from(milli).unwrap_or(u32::MAX);
                if let GpuShare::Memory(_) = share {
                    need.share_bytes = bytes;
                }
            }
        }
        need
    }
}
