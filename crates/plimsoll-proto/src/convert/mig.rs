//! Devices that are cut into slices.

use plimsoll_ledger::{
    Device, DeviceGrant, DeviceUsage, GpuAsk, GpuShare, MAX_PROFILES, MAX_SLICES, MigLayout, MigProfile,
    ProfileName, WHOLE_DEVICE_MILLI, instances_left,
};

use super::check::Check;
use crate::limits::MAX_AMOUNT;
use crate::v1;

/// A profile by its name in a message.
pub(super) fn profile_name(check: &mut Check, field: &str, from: &str) -> Option<ProfileName> {
    let name = ProfileName::new(from);
    if name.is_none() {
        check.fail(
            field,
            format!("is {from:?}, a MIG profile is 1 to 23 lower-case letters, digits, '.', '+' and '-', as in 1g.10gb"),
        );
    }
    name
}

/// How a device is cut, from its message. Whether profiles fit the device, and each other, says the ledger.
pub(super) fn layout(check: &mut Check, from: &v1::MigLayout) -> MigLayout {
    let (compute_slices, memory_slices) = (
        slices(check, "compute_slices", from.compute_slices),
        slices(check, "memory_slices", from.memory_slices),
    );
    let profiles = check.each("profiles", &from.profiles, MAX_PROFILES, |check, profile| {
        check.range("memory_bytes", profile.memory_bytes, 1, MAX_AMOUNT);
        check.count("starts", profile.starts.len(), MAX_SLICES.into());
        Some(MigProfile {
            name: profile_name(check, "name", &profile.name)?,
            compute_slices: slices(check, "compute_slices", profile.compute_slices),
            memory_slices: slices(check, "memory_slices", profile.memory_slices),
            memory_bytes: profile.memory_bytes,
            starts: profile.starts.iter().map(|start| u8::try_from(*start).unwrap_or(u8::MAX)).collect(),
        })
    });
    MigLayout { compute_slices, memory_slices, profiles: profiles.into_iter().flatten().collect() }
}

fn slices(check: &mut Check, field: &str, count: u32) -> u8 {
    check.range(field, count.into(), 1, MAX_SLICES.into());
    u8::try_from(count).unwrap_or(u8::MAX)
}

/// How a device is cut, as a message.
pub(super) fn layout_to_v1(from: &MigLayout) -> v1::MigLayout {
    let profile = |profile: &MigProfile| v1::MigProfile {
        name: profile.name.to_string(),
        compute_slices: profile.compute_slices.into(),
        memory_slices: profile.memory_slices.into(),
        memory_bytes: profile.memory_bytes,
        starts: profile.starts.iter().map(|start| u32::from(*start)).collect(),
    };
    v1::MigLayout {
        compute_slices: from.compute_slices.into(),
        memory_slices: from.memory_slices.into(),
        profiles: from.profiles.iter().map(profile).collect(),
    }
}

/// The instance that a grant is. Its name is that of the request: a device may be gone, or cut otherwise by now, and the same answer is to
/// show the same.
pub(super) fn slices_to_v1(grant: &DeviceGrant, asked: Option<&GpuAsk>) -> Option<v1::MigSlices> {
    let slices = grant.slices?;
    let profile = match asked.map(|asked| asked.share) {
        Some(GpuShare::Mig(name)) => name.to_string(),
        _ => String::new(),
    };
    Some(v1::MigSlices {
        profile,
        start: slices.start.into(),
        memory_slices: slices.memory.into(),
        compute_slices: slices.compute.into(),
    })
}

/// How strong the wall around a grant is.
pub(super) fn isolation(grant: &DeviceGrant) -> v1::DeviceIsolation {
    match grant.slices {
        Some(_) => v1::DeviceIsolation::Hard,
        None if grant.milli >= WHOLE_DEVICE_MILLI => v1::DeviceIsolation::Whole,
        // Shares are counted by the ledger; nothing on the device enforces them yet.
        None => v1::DeviceIsolation::Advisory,
    }
}

/// Memory slices that are taken, ascending.
pub(super) fn used_slices(used: &DeviceUsage) -> Vec<u32> {
    (0..u32::from(MAX_SLICES)).filter(|slice| used.memory_mask & (1 << slice) != 0).collect()
}

/// What would still fit on a device.
pub(super) fn free(device: &Device, used: &DeviceUsage) -> Vec<v1::MigFree> {
    let profiles = device.mig.iter().filter(|_| !device.failed).flat_map(|layout| &layout.profiles);
    let one = |profile: &MigProfile| v1::MigFree {
        profile: profile.name.to_string(),
        count: instances_left(device, used, profile.name),
    };
    profiles.map(one).collect()
}

/// The share of an ask, where it names a profile.
pub(super) fn share(check: &mut Check, from: &v1::GpuAsk) -> Option<GpuShare> {
    if from.mig_profile.is_empty() {
        return None;
    }
    if from.milli > 0 || from.memory_bytes > 0 {
        check.fail("mig_profile", "excludes milli and memory_bytes: a profile says how much it is");
    }
    profile_name(check, "mig_profile", &from.mig_profile).map(GpuShare::Mig)
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{MigSlices, Registration};
    use plimsoll_types::DeviceIndex;

    use super::*;
    use crate::convert::{
        registration_from_v1, registration_to_v1, requirements_from_v1, requirements_to_v1,
    };

    fn board() -> Device {
        let profile = |name: &str, compute_slices, memory_slices, starts: &[u8]| MigProfile {
            name: ProfileName::new(name).unwrap(),
            compute_slices,
            memory_slices,
            memory_bytes: 10 * u64::from(memory_slices),
            starts: starts.to_vec(),
        };
        let profiles =
            vec![profile("1g.10gb", 1, 1, &[0, 1, 2, 3, 4, 5, 6]), profile("3g.40gb", 3, 4, &[0, 4])];
        let mig = Some(MigLayout { compute_slices: 7, memory_slices: 8, profiles });
        Device { uuid: "GPU-a".into(), model: "h100".into(), memory_bytes: 80, failed: false, mig }
    }

    #[test]
    fn a_board_that_is_cut_is_registered_as_it_is_told() {
        let registration =
            Registration { name: "n".into(), devices: vec![board()], ..Registration::default() };
        let mut told = registration_to_v1(&registration);
        assert_eq!(registration_from_v1(&told), Ok(registration));
        let layout = told.devices[0].mig.as_mut().unwrap();
        layout.compute_slices = 0;
        layout.profiles[0].name = "1G".into();
        layout.profiles[1].memory_bytes = 0;
        let fields: Vec<String> =
            registration_from_v1(&told).unwrap_err().into_iter().map(|one| one.field).collect();
        let of = |field: &str| format!("devices[0].mig.{field}");
        assert_eq!(fields, [of("compute_slices"), of("profiles[0].name"), of("profiles[1].memory_bytes")]);
    }

    #[test]
    fn an_ask_by_profile_is_of_one_device_and_says_nothing_else() {
        let ask = v1::GpuAsk { mig_profile: "1g.10gb".into(), ..v1::GpuAsk::default() };
        let with = |gpu: v1::GpuAsk| v1::Requirements { gpu: Some(gpu), ..v1::Requirements::default() };
        let asked = requirements_from_v1(&with(ask.clone())).unwrap();
        let name = ProfileName::new("1g.10gb").unwrap();
        assert_eq!(asked.gpu.as_ref().map(|gpu| (gpu.count, gpu.share)), Some((1, GpuShare::Mig(name))));
        assert_eq!(requirements_from_v1(&requirements_to_v1(&asked)), Ok(asked));
        let bad = [
            (v1::GpuAsk { milli: 500, ..ask.clone() }, "gpu.mig_profile"),
            (v1::GpuAsk { memory_bytes: 5, ..ask.clone() }, "gpu.mig_profile"),
            (v1::GpuAsk { count: 2, ..ask.clone() }, "gpu.count"),
            (v1::GpuAsk { mig_profile: "1g 10gb".into(), ..ask }, "gpu.mig_profile"),
        ];
        for (gpu, field) in bad {
            let found = requirements_from_v1(&with(gpu)).unwrap_err();
            assert!(found.iter().any(|violation| violation.field == field), "{field}: {found:?}");
        }
    }

    #[test]
    fn grants_say_how_strong_the_wall_is_and_devices_what_is_left() {
        let slices = Some(MigSlices { start: 4, memory: 4, compute: 3 });
        let grant = DeviceGrant { device: DeviceIndex(0), milli: 464, memory_bytes: 40, slices };
        assert_eq!(isolation(&grant), v1::DeviceIsolation::Hard);
        assert_eq!(isolation(&DeviceGrant { slices: None, ..grant }), v1::DeviceIsolation::Advisory);
        let whole = DeviceGrant { milli: 1_000, slices: None, ..grant };
        assert_eq!(isolation(&whole), v1::DeviceIsolation::Whole);
        let mut used = DeviceUsage::default();
        used.add(&grant);
        assert_eq!(used_slices(&used), [4, 5, 6, 7]);
        let left: Vec<(String, u32)> =
            free(&board(), &used).into_iter().map(|free| (free.profile, free.count)).collect();
        assert_eq!(left, [("1g.10gb".to_owned(), 4), ("3g.40gb".to_owned(), 1)]);
    }
}
