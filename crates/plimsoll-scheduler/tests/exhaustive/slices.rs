//! Instances of profiles on devices that are cut: `docs/semantics.md`, section 5.8.

use plimsoll_ledger::{Device, DeviceGrant, GpuShare, MigSlices};

/// The instances that a share may be on a device, one for each start; one `None` for what is no instance.
pub(crate) fn instances(device: &Device, share: GpuShare) -> Vec<Option<MigSlices>> {
    let GpuShare::Mig(name) = share else { return vec![None] };
    let profiles = device.mig.iter().flat_map(|cut| &cut.profiles).filter(|profile| profile.name == name);
    let at = |start: u8, memory: u8, compute: u8| Some(MigSlices { start, memory, compute });
    profiles
        .flat_map(|profile| {
            profile.starts.iter().map(|start| at(*start, profile.memory_slices, profile.compute_slices))
        })
        .collect()
}

/// True where what a grant says of slices is what the share may be there.
pub(crate) fn are_allowed(device: &Device, share: GpuShare, grant: &DeviceGrant) -> bool {
    instances(device, share).contains(&grant.slices)
}

/// True where some memory slice of a grant is taken.
pub(crate) fn overlap(grant: &DeviceGrant, there: &[DeviceGrant]) -> bool {
    let of = |slices: MigSlices| u32::from(slices.start)..u32::from(slices.start) + u32::from(slices.memory);
    let Some(mine) = grant.slices.map(of) else { return false };
    let taken: Vec<u32> = there.iter().filter_map(|other| other.slices).flat_map(of).collect();
    mine.into_iter().any(|slice| taken.contains(&slice))
}

/// Compute slices of all together.
pub(crate) fn compute(grant: &DeviceGrant, there: &[DeviceGrant]) -> u8 {
    let all = there.iter().chain([grant]).filter_map(|one| one.slices);
    all.map(|slices| slices.compute).sum()
}
