//! Devices that are cut into hardware slices (NVIDIA's MIG): profiles, the starts that they may have, and which start is best.
//!
//! A device has compute slices, which are only counted, and memory slices, which have places: an instance of a profile lies on as many
//! neighbouring memory slices as its profile says, from one of the starts that the hardware allows. Names, sizes and starts are those of
//! NVML (`nvmlDeviceGetGpuInstanceProfileInfo`, `nvmlDeviceGetGpuInstancePossiblePlacements_v2`): the agent reports them, nothing is built in.
//!
//! Invariant: what lies on a device overlaps nowhere and takes no more compute slices than there are.

use std::cmp::Ordering;
use std::fmt;

use plimsoll_mutants::mutant;

use crate::{Command, DeviceUsage, GpuShare, Registration, Request};

/// First ledger version that knows slices.
pub(crate) const SINCE_VERSION: u32 = 5;
/// Most compute slices, and most memory slices, of a device. No board has more than 8.
pub const MAX_SLICES: u8 = 16;
/// Most profiles of a device. No board has more than 19.
pub const MAX_PROFILES: usize = 32;

/// Name of a profile as the vendor writes it, such as `1g.10gb`: 1 to 23 bytes of lower-case letters, digits, `.`, `+` and `-`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileName {
    /// Zeros after its end, so that equal names are equal bytes.
    bytes: [u8; 23],
    length: u8,
}

/// How a device is cut: what there is of it, and the instances that may be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigLayout {
    /// Compute slices of the whole device.
    pub compute_slices: u8,
    /// Memory slices of the whole device.
    pub memory_slices: u8,
    /// What may be asked of it.
    pub profiles: Vec<MigProfile>,
}

/// A kind of instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigProfile {
    /// Its name, unique on the device.
    pub name: ProfileName,
    /// Compute slices that one takes.
    pub compute_slices: u8,
    /// Memory slices that one takes, side by side.
    pub memory_slices: u8,
    /// Memory of one, in bytes.
    pub memory_bytes: u64,
    /// First memory slices that one may have, ascending.
    pub starts: Vec<u8>,
}

/// What one instance takes of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigSlices {
    /// First memory slice.
    pub start: u8,
    /// Memory slices from there on.
    pub memory: u8,
    /// Compute slices.
    pub compute: u8,
}

/// What an instance at some start takes from those to come: less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceCost {
    /// By size in memory slices: starts of profiles of that size which were free and are no more.
    lost: [u16; MAX_SLICES as usize + 1],
}

/// True for requests that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn asks_for_slices(request: &Request) -> bool {
    request.requirements.gpu.as_ref().is_some_and(|gpu| matches!(gpu.share, GpuShare::Mig(_)))
}

/// True for nodes that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn has_slices(registration: &Registration) -> bool {
    registration.devices.iter().any(|device| device.mig.is_some())
}

impl Registration {
    /// What a ledger of this version can say of the node: a device that is cut counts as failed where slices are not known yet.
    pub fn for_version(mut self, version: u32) -> Registration {
        if version < SINCE_VERSION {
            for device in &mut self.devices {
                device.failed |= device.mig.take().is_some();
            }
        }
        self
    }
}

/// True for commands that say something of slices.
pub(crate) fn is_of_slices(command: &Command) -> bool {
    match command {
        Command::Submit { request, .. } => asks_for_slices(request),
        Command::RegisterNode(registration) => has_slices(registration),
        _ => false,
    }
}

impl MigLayout {
    /// The profile of that name.
    pub fn profile(&self, name: ProfileName) -> Option<&MigProfile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// Thousandths of the device that an instance counts as: the mean of its parts of the compute and of the memory slices, rounded down,
    /// at least 1. So whatever fits on a device together never counts for more than the device, and all of it for all of it.
    pub fn milli_of(&self, profile: &MigProfile) -> u16 {
        let (compute, memory) = (u32::from(self.compute_slices.max(1)), u32::from(self.memory_slices.max(1)));
        let parts = u32::from(profile.compute_slices) * memory + u32::from(profile.memory_slices) * compute;
        u16::try_from(1_000 * parts / (2 * compute * memory)).unwrap_or(u16::MAX).max(1)
    }

    /// True where these slices are an instance of the profile.
    pub fn allows(&self, profile: &MigProfile, slices: MigSlices) -> bool {
        slices.memory == profile.memory_slices
            && slices.compute == profile.compute_slices
            && profile.starts.contains(&slices.start)
    }

    /// True where nothing of these slices is taken and there is compute for them.
    pub fn is_free(&self, usage: &DeviceUsage, slices: MigSlices) -> bool {
        let overlaps = usage.memory_mask & slices.mask() != 0 && !mutant!("overlapping-slices");
        // A device changes its mode only when empty.
        usage.grants == usage.sliced
            && !overlaps
            && u32::from(usage.compute_slices) + u32::from(slices.compute) <= u32::from(self.compute_slices)
    }

    /// The start that costs those to come least, the lowest of equal ones; `None` where the device has no room. O(starts²).
    pub fn best_start(&self, profile: &MigProfile, usage: &DeviceUsage) -> Option<(SliceCost, MigSlices)> {
        let at = |start: &u8| MigSlices {
            start: *start,
            memory: profile.memory_slices,
            compute: profile.compute_slices,
        };
        let free = profile.starts.iter().map(at).filter(|slices| self.is_free(usage, *slices));
        free.map(|slices| (self.cost(usage, slices), slices))
            .min_by_key(|(cost, slices)| (*cost, slices.start))
    }

    /// Free starts that these slices lie on, by the size of their profiles.
    fn cost(&self, usage: &DeviceUsage, slices: MigSlices) -> SliceCost {
        let mut cost = SliceCost::NONE;
        for profile in &self.profiles {
            let lost = |start: &&u8| {
                let mask = MigSlices { start: **start, memory: profile.memory_slices, compute: 0 }.mask();
                usage.memory_mask & mask == 0 && slices.mask() & mask != 0
            };
            let size = usize::from(profile.memory_slices.min(MAX_SLICES));
            cost.lost[size] += profile.starts.iter().filter(lost).count() as u16;
        }
        cost
    }
}

impl MigSlices {
    /// Its memory slices, a bit for each.
    pub fn mask(self) -> u32 {
        let end = u32::from(self.start) + u32::from(self.memory);
        (u32::from(self.start)..end)
            .map(|slice| 1_u32.checked_shl(slice).unwrap_or(0))
            .fold(0, |all, bit| all | bit)
    }
}

impl SliceCost {
    /// Nothing is lost, and nothing was there to lose.
    pub const NONE: SliceCost = SliceCost { lost: [0; MAX_SLICES as usize + 1] };
}

impl Ord for SliceCost {
    /// By the largest profiles first: a start that breaks the place of a larger one costs more than any number of smaller ones.
    fn cmp(&self, other: &SliceCost) -> Ordering {
        self.lost.iter().rev().cmp(other.lost.iter().rev())
    }
}

impl PartialOrd for SliceCost {
    fn partial_cmp(&self, other: &SliceCost) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl ProfileName {
    /// The name in this text; `None` where it is none.
    pub fn new(text: &str) -> Option<ProfileName> {
        let mut bytes = [0; 23];
        let good = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".+-".contains(byte);
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        let is_name = !text.is_empty() && text.as_bytes().iter().all(good);
        is_name.then_some(ProfileName { bytes, length: text.len() as u8 })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        // Only ASCII gets in.
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Compute slices by the vendor's way to name profiles, 3 for `3g.40gb`: to sort requests by, where no device is at hand.
    pub fn named_slices(&self) -> Option<u16> {
        self.as_str().split_once('g').and_then(|(number, _)| number.parse().ok())
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
