//! Slices in the model: `docs/semantics.md` 5.8. Sets of slices in place of bits.

use super::*;
use plimsoll_ledger::{Device, MigProfile, ProfileName};

/// Section 8, of a device.
pub(super) fn make_sense(device: &Device) -> bool {
    let Some(layout) = &device.mig else { return true };
    let (c, m) = (u64::from(layout.compute_slices), u64::from(layout.memory_slices));
    let names: std::collections::BTreeSet<&str> = layout.profiles.iter().map(|p| p.name.as_str()).collect();
    let good = |p: &MigProfile| {
        (1..=c).contains(&p.compute_slices.into())
            && (1..=m).contains(&p.memory_slices.into())
            && p.memory_bytes > 0
            && p.memory_bytes <= device.memory_bytes * u64::from(p.memory_slices) / m
            && !p.starts.is_empty()
            && p.starts.windows(2).all(|two| two[0] < two[1])
            && p.starts.iter().all(|start| u64::from(*start) + u64::from(p.memory_slices) <= m)
    };
    (1..=16).contains(&c)
        && (1..=16).contains(&m)
        && (1..=32).contains(&layout.profiles.len())
        && names.len() == layout.profiles.len()
        && layout.profiles.iter().all(good)
}

/// What an instance takes: thousandths and bytes. `None` where the device has no such profile.
pub(super) fn of_device(device: &Device, name: ProfileName) -> Option<(u64, u64)> {
    let layout = device.mig.as_ref()?;
    let p = layout.profiles.iter().find(|p| p.name == name)?;
    let (c, m) = (u64::from(layout.compute_slices), u64::from(layout.memory_slices));
    let parts = u64::from(p.compute_slices) * m + u64::from(p.memory_slices) * c;
    Some(((1_000 * parts / (2 * c * m)).max(1), p.memory_bytes))
}

/// True where the slices of a grant are those of an instance from one of its starts.
pub(super) fn suit(device: &Device, name: ProfileName, grant: &DeviceGrant) -> bool {
    let p = device.mig.as_ref().and_then(|layout| layout.profiles.iter().find(|p| p.name == name));
    p.zip(grant.slices).is_some_and(|(p, s)| {
        (s.memory, s.compute) == (p.memory_slices, p.compute_slices) && p.starts.contains(&s.start)
    })
}

/// True where the slices of a grant are free beside those that are there.
pub(super) fn have_room(device: &Device, grant: &DeviceGrant, there: &[DeviceGrant]) -> bool {
    let memory = |g: &DeviceGrant| {
        let s = g.slices.expect("it is an instance");
        (s.start..s.start + s.memory).collect::<std::collections::BTreeSet<u8>>()
    };
    let compute = |g: &DeviceGrant| u64::from(g.slices.expect("it is an instance").compute);
    let total = device.mig.as_ref().map_or(0, |layout| u64::from(layout.compute_slices));
    there.iter().all(|g| g.slices.is_some())
        && there.iter().all(|g| memory(g).is_disjoint(&memory(grant)))
        && there.iter().map(compute).sum::<u64>() + compute(grant) <= total
}
