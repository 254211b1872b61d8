//! Nodes that register in histories, and how their devices are cut.

use plimsoll_ledger::{Device, MigLayout, MigProfile, ProfileName, Registration};
use plimsoll_types::Resources;

use super::GIB;

pub(crate) fn registration(index: u32, incarnation: u64, cpu_millis: u64, devices: usize) -> Registration {
    let device = |n: usize| Device {
        uuid: format!("GPU-{index}-{n}"),
        model: if n == 0 { "a100".into() } else { "t4".into() },
        memory_bytes: if n == 0 { 80 * GIB } else { 16 * GIB - 7 },
        failed: false,
        mig: None,
    };
    let mut labels = plimsoll_types::Labels::new();
    if index.is_multiple_of(2) {
        labels.insert("zone".into(), "a".into());
    } else if index == 1 {
        labels.insert("zone".into(), if cpu_millis > 5_000 { "b" } else { "a" }.into());
    }
    // Every fourth or so is a spot node, in two markets, and some cost too much.
    match (u64::from(index) + incarnation + cpu_millis / 1_000) % 4 {
        0 => {
            labels.insert("capacity_type".into(), "spot".into());
            labels.insert("price_permille".into(), if incarnation == 1 { "350" } else { "1200" }.into());
        }
        1 if devices == 2 => {
            labels.insert("capacity_type".into(), "spot".into());
            labels.insert("spot_pool".into(), "b".into());
        }
        2 if devices == 0 && cpu_millis < 5_000 => {
            labels.insert("capacity_type".into(), "cheap".into());
        }
        _ => {}
    }
    Registration {
        name: format!("node-{index}"),
        incarnation,
        pool: if index == 3 { "gpu".into() } else { String::new() },
        labels,
        capacity: Resources::new(cpu_millis, 16 * GIB).with("license/x", 3),
        devices: (0..devices).map(device).collect(),
        self_fencing: true,
        running: Vec::new(),
    }
}

/// How the first device of a node is cut, mostly not at all: as an A100 is, in four, or in a way that makes no sense.
pub(crate) fn layout(cut: u8) -> Option<MigLayout> {
    let profile = |name: &str, compute_slices, memory_slices, starts: &[u8]| MigProfile {
        name: ProfileName::new(name).expect("a name"),
        compute_slices,
        memory_slices,
        memory_bytes: u64::from(memory_slices) * (10 * GIB - 5),
        starts: starts.to_vec(),
    };
    let ones = profile("1g.10gb", 1, 1, &[0, 1, 2, 3, 4, 5, 6]);
    let eight = vec![
        ones.clone(),
        profile("1g.20gb", 1, 2, &[0, 2, 4, 6]),
        profile("3g.40gb", 3, 4, &[0, 4]),
        profile("4g.40gb", 4, 4, &[0]),
        profile("7g.80gb", 7, 8, &[0]),
    ];
    let (compute_slices, memory_slices, profiles) = match cut {
        0..=2 => (7, 8, eight),
        3 => (4, 4, vec![profile("1g.10gb", 1, 1, &[0, 1, 2, 3]), profile("3g.40gb", 3, 2, &[0, 2])]),
        // The first does not fit into the device, the second has more memory than its part of it.
        4 => (7, 8, vec![profile("3g.40gb", 3, 4, &[0, 5])]),
        5 => (7, 8, vec![MigProfile { memory_bytes: 11 * GIB, ..ones }]),
        _ => return None,
    };
    Some(MigLayout { compute_slices, memory_slices, profiles })
}
