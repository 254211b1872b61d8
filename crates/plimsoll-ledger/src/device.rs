//! One device: does it suit an ask, has it room, and what does a grant take of it?
//!
//! A device is in one mode at a time: taken whole, shared by parts, or cut into slices. Which of the first two shows in what is taken of it;
//! whether it is cut says its registration. It changes mode only when empty.

use plimsoll_types::DeviceIndex;

use crate::mig::SliceCost;
use crate::{Device, DeviceGrant, DeviceUsage, GpuAsk, GpuShare, MigSlices, ProfileName, WHOLE_DEVICE_MILLI};

/// True where a device may serve the ask at all (its health and use aside): model, memory and mode are as asked.
pub fn device_matches(gpu: &GpuAsk, device: &Device) -> bool {
    let model_allowed = gpu.models.is_empty() || gpu.models.contains(&device.model);
    let large_enough = device.memory_bytes >= gpu.min_device_memory_bytes;
    let share_fits = match (gpu.share, &device.mig) {
        (GpuShare::Whole | GpuShare::Milli(_), None) => true,
        (GpuShare::Memory(bytes), None) => bytes <= device.memory_bytes,
        (GpuShare::Mig(name), Some(layout)) => layout.profile(name).is_some(),
        (GpuShare::Mig(_), None) | (_, Some(_)) => false,
    };
    model_allowed && large_enough && share_fits
}

/// True where a device used as `usage` has room for a share. A whole grant needs an empty device, and a share one that is not taken whole.
pub fn device_has_room(usage: &DeviceUsage, share: GpuShare, device: &Device) -> bool {
    match share {
        GpuShare::Mig(_) => best_grant(DeviceIndex(0), device, usage, share).is_some(),
        _ => has_room_at(usage, share, device, None),
    }
}

/// The same for a grant that says which slices it takes.
pub fn has_room_at(usage: &DeviceUsage, share: GpuShare, device: &Device, slices: Option<MigSlices>) -> bool {
    match share {
        GpuShare::Whole => usage.grants == 0,
        GpuShare::Milli(_) | GpuShare::Memory(_) => {
            !usage.exclusive && usage.sliced == 0 && sums_fit(usage, share, device)
        }
        // Where the slices fit, the sums do, unless the device was cut otherwise when those who are there came.
        GpuShare::Mig(_) => match (&device.mig, slices) {
            (Some(layout), Some(slices)) => layout.is_free(usage, slices) && sums_fit(usage, share, device),
            _ => false,
        },
    }
}

fn sums_fit(usage: &DeviceUsage, share: GpuShare, device: &Device) -> bool {
    let (milli, memory_bytes) = share.of_device(device);
    u64::from(usage.milli) + milli <= u64::from(WHOLE_DEVICE_MILLI)
        && usage.memory_bytes.checked_add(memory_bytes).is_some_and(|sum| sum <= device.memory_bytes)
}

/// True where a grant is what the share makes of the device, whoever else is there.
pub(crate) fn is_of_share(grant: &DeviceGrant, share: GpuShare, device: &Device) -> bool {
    let (milli, memory_bytes) = share.of_device(device);
    let slices_fit = match (share, &device.mig, grant.slices) {
        (GpuShare::Mig(name), Some(layout), Some(slices)) => {
            layout.profile(name).is_some_and(|profile| layout.allows(profile, slices))
        }
        (GpuShare::Mig(_), ..) => false,
        (_, _, slices) => slices.is_none(),
    };
    u64::from(grant.milli) == milli && grant.memory_bytes == memory_bytes && slices_fit
}

/// The grant of a share on a device, and what it costs those who want slices after it; `None` where there is no room. Of the starts that an
/// instance may have it is the one that keeps most room for larger ones.
pub fn best_grant(
    index: DeviceIndex,
    device: &Device,
    usage: &DeviceUsage,
    share: GpuShare,
) -> Option<(SliceCost, DeviceGrant)> {
    let (cost, slices) = match share {
        GpuShare::Mig(name) => {
            let layout = device.mig.as_ref()?;
            let (cost, slices) = layout.best_start(layout.profile(name)?, usage)?;
            (cost, Some(slices))
        }
        _ => (SliceCost::NONE, None),
    };
    if !has_room_at(usage, share, device, slices) {
        return None;
    }
    let (milli, memory_bytes) = share.of_device(device);
    let milli = u16::try_from(milli).ok()?;
    Some((cost, DeviceGrant { device: index, milli, memory_bytes, slices }))
}

/// How many more instances of a profile would fit, placed one after the other where they cost least; 0 on a device that does not have it.
pub fn instances_left(device: &Device, usage: &DeviceUsage, profile: ProfileName) -> u32 {
    let (mut usage, mut count) = (*usage, 0);
    while let Some((_, grant)) = best_grant(DeviceIndex(0), device, &usage, GpuShare::Mig(profile)) {
        usage.add(&grant);
        count += 1;
    }
    count
}

impl GpuShare {
    /// What the share takes of a device: thousandths and bytes. What can never fit (a share by memory larger than the device, slices of a
    /// device that does not have them) takes more than 1000 thousandths.
    pub fn of_device(self, device: &Device) -> (u64, u64) {
        let whole = u64::from(WHOLE_DEVICE_MILLI);
        match self {
            GpuShare::Whole => (whole, device.memory_bytes),
            GpuShare::Milli(milli) => {
                let memory = u128::from(device.memory_bytes) * u128::from(milli) / u128::from(whole);
                (u64::from(milli), u64::try_from(memory).unwrap_or(u64::MAX))
            }
            GpuShare::Memory(bytes) => {
                let milli =
                    (u128::from(bytes) * u128::from(whole)).div_ceil(u128::from(device.memory_bytes.max(1)));
                (u64::try_from(milli).unwrap_or(u64::MAX).max(1), bytes)
            }
            GpuShare::Mig(name) => {
                let known = device.mig.as_ref().and_then(|layout| Some((layout, layout.profile(name)?)));
                known.map_or((whole + 1, device.memory_bytes), |(layout, profile)| {
                    (layout.milli_of(profile).into(), profile.memory_bytes)
                })
            }
        }
    }
}

impl DeviceUsage {
    /// Adds one grant.
    pub fn add(&mut self, grant: &DeviceGrant) {
        self.milli += u32::from(grant.milli);
        self.memory_bytes = self.memory_bytes.saturating_add(grant.memory_bytes);
        self.grants += 1;
        self.exclusive = grant.milli == WHOLE_DEVICE_MILLI && grant.slices.is_none();
        if let Some(slices) = grant.slices {
            self.take_slices(slices);
        }
    }

    /// Takes one grant away.
    pub fn remove(&mut self, grant: &DeviceGrant) {
        self.milli = self.milli.saturating_sub(grant.milli.into());
        self.memory_bytes = self.memory_bytes.saturating_sub(grant.memory_bytes);
        self.grants = self.grants.saturating_sub(1);
        self.exclusive = self.exclusive && self.grants > 0;
        if let Some(slices) = grant.slices {
            self.sliced = self.sliced.saturating_sub(1);
            self.memory_mask &= !slices.mask();
            self.memory_slices = self.memory_slices.saturating_sub(slices.memory.into());
            self.compute_slices = self.compute_slices.saturating_sub(slices.compute);
        }
    }

    fn take_slices(&mut self, slices: MigSlices) {
        self.sliced += 1;
        self.memory_mask |= slices.mask();
        self.memory_slices += u32::from(slices.memory);
        self.compute_slices = self.compute_slices.saturating_add(slices.compute);
    }

    /// True where it can be on this device: it is taken whole by one, in parts that together fit, or in slices that overlap
    /// nowhere, and never in two ways at a time.
    pub(crate) fn is_sound(&self, device: &Device) -> bool {
        let one_mode = self.sliced == 0 || (self.sliced == self.grants && !self.exclusive);
        self.milli <= u32::from(WHOLE_DEVICE_MILLI)
            && self.memory_bytes <= device.memory_bytes
            && (!self.exclusive || self.grants == 1)
            && one_mode
            && self.memory_mask.count_ones() == self.memory_slices
    }

    /// As much taken as in either of two worlds: what has room beside this has room in both.
    pub fn larger_of(&self, other: &DeviceUsage) -> DeviceUsage {
        // Apart, since a device that is cut has room only where nobody is on it in another way, in either world.
        let unsliced = |usage: &DeviceUsage| usage.grants.saturating_sub(usage.sliced);
        let sliced = self.sliced.max(other.sliced);
        DeviceUsage {
            milli: self.milli.max(other.milli),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            grants: unsliced(self).max(unsliced(other)) + sliced,
            exclusive: self.exclusive || other.exclusive,
            sliced,
            memory_mask: self.memory_mask | other.memory_mask,
            memory_slices: (self.memory_mask | other.memory_mask).count_ones(),
            compute_slices: self.compute_slices.max(other.compute_slices),
        }
    }

    /// As much taken as in both together, where they are of different grants.
    pub fn plus(&self, other: &DeviceUsage) -> DeviceUsage {
        DeviceUsage {
            milli: self.milli + other.milli,
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            grants: self.grants + other.grants,
            exclusive: self.exclusive || other.exclusive,
            sliced: self.sliced + other.sliced,
            memory_mask: self.memory_mask | other.memory_mask,
            memory_slices: self.memory_slices + other.memory_slices,
            compute_slices: self.compute_slices.saturating_add(other.compute_slices),
        }
    }
}
