//! Amounts in words: what was asked, what was granted.

use plimsoll_client::v1::{Allocation, DeviceGrant, GpuAsk, Quantities, Reservation, ReservationSpec, Role};
use plimsoll_types::quantity::{display_bytes, format_cpu_millis, format_resource};

/// Amounts in words: `8 cpu, 32Gi, license/foo 1`.
pub(crate) fn quantities(amounts: &Quantities) -> Vec<String> {
    let mut parts = Vec::new();
    if amounts.cpu_millis > 0 {
        parts.push(format!("{} cpu", format_cpu_millis(amounts.cpu_millis)));
    }
    if amounts.memory_bytes > 0 {
        parts.push(display_bytes(amounts.memory_bytes));
    }
    parts.extend(
        amounts.other.iter().map(|(name, amount)| format!("{name} {}", format_resource(name, *amount))),
    );
    parts
}

/// What a specification asks, per member and with the number of members.
pub(crate) fn asked(spec: &ReservationSpec) -> String {
    if !spec.roles.is_empty() {
        return roles(spec);
    }
    let requirements = spec.requirements.clone().unwrap_or_default();
    let mut parts: Vec<String> = requirements.gpu.iter().map(gpu).collect();
    parts.extend(quantities(&requirements.amounts.unwrap_or_default()));
    members(spec, parts)
}

/// What a reservation has now, or asks where it has nothing yet.
pub(crate) fn granted(reservation: &Reservation) -> String {
    let spec = reservation.spec.clone().unwrap_or_default();
    if !spec.roles.is_empty() {
        return if reservation.allocations.is_empty() { roles(&spec) } else { played(&spec, reservation) };
    }
    let requirements = spec.requirements.clone().unwrap_or_default();
    let mut parts: Vec<String> = requirements.gpu.iter().map(gpu).collect();
    let amounts = reservation.amounts.clone().or(requirements.amounts).unwrap_or_default();
    parts.extend(quantities(&amounts));
    if reservation.allocations.is_empty() {
        return members(&spec, parts);
    }
    let text = or_nothing(parts);
    match reservation.allocations.len() {
        1 => text,
        count => format!("{count} x ({text})"),
    }
}

/// Part of a whole for tables: `12.5/16`.
pub(crate) fn share(used: u64, of: u64, show: fn(u64) -> String) -> String {
    format!("{}/{}", show(used), show(of))
}

/// Where members are: `node-02/gpu1`, and for an instance with its first memory slice `node-02/gpu1/1g.10gb@6`.
pub(crate) fn places(allocations: &[Allocation]) -> String {
    let place = |allocation: &Allocation| {
        let gpu = |device: &DeviceGrant| match &device.mig {
            None => device.index.to_string(),
            Some(slices) => format!("{}/{}@{}", device.index, slices.profile, slices.start),
        };
        let gpus: Vec<String> = allocation.devices.iter().map(gpu).collect();
        match gpus.is_empty() {
            true => allocation.node.clone(),
            false => format!("{}/gpu{}", allocation.node, gpus.join("+")),
        }
    };
    match allocations {
        [] => String::new(),
        [one] => place(one),
        [first, rest @ ..] if rest.len() > 2 => format!("{} +{} more", place(first), rest.len()),
        all => all.iter().map(place).collect::<Vec<_>>().join(","),
    }
}

fn members(spec: &ReservationSpec, parts: Vec<String>) -> String {
    let text = or_nothing(parts);
    match spec.gang.as_ref().map(|gang| (gang.min_members, gang.max_members)) {
        None | Some((0 | 1, 0 | 1)) => text,
        Some((min, max)) if min == max || max == 0 => format!("{min} x ({text})"),
        Some((min, max)) => format!("{min} to {max} x ({text})"),
    }
}

/// What each role asks: `launcher 1 x (1 cpu), worker 2 to 4 x (1 GPU, 4 cpu)`.
fn roles(spec: &ReservationSpec) -> String {
    let one = |role: &Role| match (role.min_members, role.max_members.max(role.min_members)) {
        (min, max) if min == max => format!("{} {max} x ({})", role.name, each(role)),
        (min, max) => format!("{} {min} to {max} x ({})", role.name, each(role)),
    };
    spec.roles.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// How many of each role there are.
fn played(spec: &ReservationSpec, reservation: &Reservation) -> String {
    let one = |role: &Role| {
        let count = reservation.allocations.iter().filter(|member| member.role == role.name).count();
        (count > 0).then(|| format!("{} {count} x ({})", role.name, each(role)))
    };
    spec.roles.iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

fn each(role: &Role) -> String {
    let needs = role.requirements.clone().unwrap_or_default();
    let mut parts: Vec<String> = needs.gpu.iter().map(gpu).collect();
    parts.extend(quantities(&needs.amounts.unwrap_or_default()));
    or_nothing(parts)
}

fn or_nothing(parts: Vec<String>) -> String {
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

fn gpu(ask: &GpuAsk) -> String {
    let plain = if ask.count > 1 { "GPUs" } else { "GPU" };
    let model = if ask.models.is_empty() { plain.to_owned() } else { ask.models.join("|") };
    let least = match ask.min_device_memory_bytes {
        0 => String::new(),
        bytes => format!(" of {} or more", display_bytes(bytes)),
    };
    if !ask.mig_profile.is_empty() {
        return format!("{} of a {model}{least}", ask.mig_profile);
    }
    if ask.memory_bytes > 0 {
        return format!("{} of a {model}{least}", display_bytes(ask.memory_bytes));
    }
    match ask.milli {
        0 | 1000 => format!("{} {model}{least}", ask.count.max(1)),
        milli => format!("0.{} {model}{least}", format!("{milli:03}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_client::v1::{Gang, MigSlices, Requirements};

    use super::*;

    #[test]
    fn what_is_asked_reads_as_it_was_written() {
        let ask = GpuAsk { count: 1, milli: 500, models: vec!["h100".into()], ..GpuAsk::default() };
        let amounts = Quantities { cpu_millis: 8000, memory_bytes: 32 << 30, ..Quantities::default() };
        let requirements = Requirements { amounts: Some(amounts), gpu: Some(ask), ..Requirements::default() };
        let mut spec = ReservationSpec { requirements: Some(requirements), ..ReservationSpec::default() };
        assert_eq!(asked(&spec), "0.5 h100, 8 cpu, 32Gi");
        let mig = GpuAsk { count: 1, mig_profile: "1g.10gb".into(), ..GpuAsk::default() };
        let of_slices = Requirements { gpu: Some(mig), ..Requirements::default() };
        let instance = ReservationSpec { requirements: Some(of_slices), ..ReservationSpec::default() };
        assert_eq!(asked(&instance), "1g.10gb of a GPU");
        spec.gang = Some(Gang { min_members: 2, max_members: 4, spread: false });
        assert_eq!(asked(&spec), "2 to 4 x (0.5 h100, 8 cpu, 32Gi)");
    }

    #[test]
    fn places_name_node_and_devices() {
        let device = |index| DeviceGrant { index, ..DeviceGrant::default() };
        let allocation =
            Allocation { node: "n1".into(), devices: vec![device(0), device(3)], ..Allocation::default() };
        assert_eq!(places(&[allocation]), "n1/gpu0+3");
        let slices = MigSlices { profile: "1g.10gb".into(), start: 6, ..MigSlices::default() };
        let instance = DeviceGrant { mig: Some(slices), ..device(1) };
        let allocation = Allocation { node: "n1".into(), devices: vec![instance], ..Allocation::default() };
        assert_eq!(places(&[allocation]), "n1/gpu1/1g.10gb@6");
        assert_eq!(places(&[]), "");
    }
}
