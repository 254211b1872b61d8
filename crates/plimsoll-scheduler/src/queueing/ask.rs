//! How much room a request needs, in the units that queueing reckons with.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use plimsoll_ledger::{GpuShare, Request};

/// What a request is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Thousandths of devices.
    Devices,
    /// Thousandths of cores, where no device is asked.
    Cpu,
}

/// Members, and the units that each needs on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask {
    /// What counts.
    pub measure: Measure,
    /// Fewest members that are of use.
    pub members: u32,
    /// Units of each member.
    pub units: u64,
    /// Members on distinct nodes.
    pub spread: bool,
}

impl Ask {
    /// What a request needs at the least. A share by memory or profile counts as a whole device: how much of which
    /// device it takes is known only on the node.
    pub fn of(request: &Request) -> Ask {
        let (measure, units) = match &request.requirements.gpu {
            None => (Measure::Cpu, request.requirements.amounts.cpu_millis.0),
            Some(gpu) => {
                let each = if let GpuShare::Milli(milli) = gpu.share { u64::from(milli) } else { 1_000 };
                (Measure::Devices, u64::from(gpu.count).saturating_mul(each))
            }
        };
        Ask { measure, members: request.gang.min_members.max(1), units, spread: request.gang.spread }
    }

    /// Units of all members; at least one, so that it can be a weight.
    pub fn total(&self) -> u64 {
        self.units.saturating_mul(u64::from(self.members)).max(1)
    }
}

/// Requests of equal shape find a place or fail alike.
pub(crate) fn shape(request: &Request) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&request.requirements, request.gang, &request.roles).hash(&mut hasher);
    hasher.finish()
}
