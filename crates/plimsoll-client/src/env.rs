//! The environment that a workload starts with under a grant.

use std::collections::BTreeMap;

use plimsoll_proto::v1::Reservation;

/// Environment for a workload under `reservation`: who granted what, and which devices it may see. The GPU variables are
/// always there, since a workload that was granted none must not find one by accident.
pub fn workload_env(reservation: &Reservation, address: &str) -> BTreeMap<String, String> {
    let devices: Vec<_> = reservation.allocations.iter().flat_map(|allocation| &allocation.devices).collect();
    // An instance has a name of its own once it is made, by whoever starts the workload; the device's would let it see any instance.
    let visible = devices.iter().filter(|device| device.mig.is_none());
    let uuids = visible.map(|device| device.uuid.as_str()).collect::<Vec<_>>().join(",");
    let described: Vec<String> = devices
        .iter()
        .map(|device| {
            let mig = device.mig.as_ref().map(|slices| {
                format!(r#","mig":{{"profile":{},"start":{}}}"#, quoted(&slices.profile), slices.start)
            });
            format!(
                r#"{{"uuid":{},"index":{},"model":{},"milli":{},"memory_bytes":{}{}}}"#,
                quoted(&device.uuid),
                device.index,
                quoted(&device.model),
                device.milli,
                device.memory_bytes,
                mig.unwrap_or_default()
            )
        })
        .collect();
    // NVIDIA's container runtime reads "void" as no GPU; an empty value means the image's default to it.
    let container = if uuids.is_empty() { "void".to_owned() } else { uuids.clone() };
    let mut env = BTreeMap::from([
        ("PLIMSOLL_RESERVATION".to_owned(), reservation.id.clone()),
        ("PLIMSOLL_TOKEN".to_owned(), reservation.token.to_string()),
        ("PLIMSOLL_ADDR".to_owned(), address.to_owned()),
        ("PLIMSOLL_GPUS".to_owned(), format!("[{}]", described.join(","))),
        ("CUDA_VISIBLE_DEVICES".to_owned(), uuids),
        ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()),
        ("NVIDIA_VISIBLE_DEVICES".to_owned(), container),
    ]);
    let cpu_millis = reservation.amounts.as_ref().map_or(0, |amounts| amounts.cpu_millis);
    if cpu_millis > 0 {
        // Whole cores only: one thread more than there is time for makes every barrier wait.
        env.insert("OMP_NUM_THREADS".to_owned(), (cpu_millis / 1000).max(1).to_string());
    }
    env
}

/// A JSON string. Device names come from drivers, so anything may be in them.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::v1::{Allocation, DeviceGrant, MigSlices, Quantities};

    use super::*;

    #[test]
    fn devices_are_named_by_uuid_and_absent_ones_are_hidden() {
        let device = DeviceGrant {
            uuid: "GPU-1".into(),
            index: 1,
            milli: 500,
            memory_bytes: 8,
            model: "a\"100".into(),
            isolation: 0,
            mig: None,
        };
        let mut reservation = Reservation {
            id: "r-7k2m".into(),
            token: 42,
            amounts: Some(Quantities { cpu_millis: 2500, ..Quantities::default() }),
            allocations: vec![Allocation { devices: vec![device], ..Allocation::default() }],
            ..Reservation::default()
        };
        let env = workload_env(&reservation, "h:1");
        assert_eq!(env["CUDA_VISIBLE_DEVICES"], "GPU-1");
        assert_eq!(
            env["PLIMSOLL_GPUS"],
            r#"[{"uuid":"GPU-1","index":1,"model":"a\"100","milli":500,"memory_bytes":8}]"#
        );
        assert_eq!((env["OMP_NUM_THREADS"].as_str(), env["PLIMSOLL_TOKEN"].as_str()), ("2", "42"));
        reservation.allocations[0].devices[0].mig =
            Some(MigSlices { profile: "1g.10gb".into(), start: 6, ..MigSlices::default() });
        let env = workload_env(&reservation, "h:1");
        assert_eq!(env["CUDA_VISIBLE_DEVICES"], "", "its device would be any instance");
        assert!(
            env["PLIMSOLL_GPUS"].ends_with(r#""memory_bytes":8,"mig":{"profile":"1g.10gb","start":6}}]"#)
        );
        reservation.allocations.clear();
        let env = workload_env(&reservation, "h:1");
        assert_eq!(
            (env["CUDA_VISIBLE_DEVICES"].as_str(), env["NVIDIA_VISIBLE_DEVICES"].as_str()),
            ("", "void")
        );
    }
}
