//! The environment that a workload starts with: who granted what, and which devices it may see.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::lease::{GrantedSlices, Lease};

/// Environment for a workload that runs under `lease` and may talk to the cluster at `address`.
///
/// The GPU variables are always there: a workload that was granted none must not find one by accident.
pub fn workload_environment(lease: &Lease, address: &str) -> BTreeMap<String, String> {
    // An instance has a name of its own once it is made, by whoever starts the workload; the device's would let it see any instance.
    let visible = lease.devices.iter().filter(|device| device.mig.is_none());
    let uuids = visible.map(|device| device.uuid.as_str()).collect::<Vec<_>>().join(",");
    let described: Vec<_> = lease
        .devices
        .iter()
        .map(|device| GpuVariable {
            uuid: &device.uuid,
            index: device.index,
            model: &device.model,
            milli: device.milli,
            memory_bytes: device.memory_bytes,
            mig: device.mig.as_ref(),
        })
        .collect();
    let gpus = serde_json::to_string(&described).expect("a list of plain fields is always JSON");
    // NVIDIA's container runtime reads "void" as no GPU; an empty value means the image's default to it.
    let container_gpus = if uuids.is_empty() { "void".to_owned() } else { uuids.clone() };
    let mut environment = BTreeMap::from([
        ("PLIMSOLL_RESERVATION".to_owned(), lease.reservation.clone()),
        ("PLIMSOLL_TOKEN".to_owned(), lease.token.to_string()),
        ("PLIMSOLL_ADDR".to_owned(), address.to_owned()),
        ("PLIMSOLL_GPUS".to_owned(), gpus),
        ("CUDA_VISIBLE_DEVICES".to_owned(), uuids),
        ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned()),
        ("NVIDIA_VISIBLE_DEVICES".to_owned(), container_gpus),
    ]);
    if lease.cpu_millis > 0 {
        // Whole cores only: one thread more than there is time for makes every barrier wait.
        environment.insert("OMP_NUM_THREADS".to_owned(), (lease.cpu_millis / 1000).max(1).to_string());
    }
    environment
}

/// One entry of `PLIMSOLL_GPUS`.
#[derive(Serialize)]
struct GpuVariable<'a> {
    uuid: &'a str,
    index: u32,
    model: &'a str,
    milli: u32,
    memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mig: Option<&'a GrantedSlices>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::GrantedDevice;

    fn lease(cpu_millis: u64, gpus: u32) -> Lease {
        let device = |index| GrantedDevice {
            uuid: format!("GPU-{index}"),
            index,
            milli: 500,
            memory_bytes: 1024,
            model: "a100".to_owned(),
            mig: None,
        };
        let devices = (0..gpus).map(device).collect();
        Lease { reservation: "r-7k2m".into(), token: 42, cpu_millis, memory_bytes: 0, devices }
    }

    #[test]
    fn devices_are_named_by_uuid_and_described_as_json() {
        let environment = workload_environment(&lease(3500, 2), "127.0.0.1:7400");
        let expected = [
            ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
            ("CUDA_VISIBLE_DEVICES", "GPU-0,GPU-1"),
            ("NVIDIA_VISIBLE_DEVICES", "GPU-0,GPU-1"),
            ("OMP_NUM_THREADS", "3"),
            ("PLIMSOLL_ADDR", "127.0.0.1:7400"),
            (
                "PLIMSOLL_GPUS",
                r#"[{"uuid":"GPU-0","index":0,"model":"a100","milli":500,"memory_bytes":1024},{"uuid":"GPU-1","index":1,"model":"a100","milli":500,"memory_bytes":1024}]"#,
            ),
            ("PLIMSOLL_RESERVATION", "r-7k2m"),
            ("PLIMSOLL_TOKEN", "42"),
        ];
        let found: Vec<_> = environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_instance_is_described_and_its_device_not_shown() {
        let mut lease = lease(1_000, 2);
        lease.devices[0].mig = Some(GrantedSlices { profile: "1g.10gb".to_owned(), start: 6 });
        let environment = workload_environment(&lease, "x");
        assert_eq!(environment["CUDA_VISIBLE_DEVICES"], "GPU-1");
        let mig = r#""memory_bytes":1024,"mig":{"profile":"1g.10gb","start":6}}"#;
        assert!(environment["PLIMSOLL_GPUS"].contains(mig), "{}", environment["PLIMSOLL_GPUS"]);
    }

    #[test]
    fn a_workload_without_gpus_sees_none() {
        let environment = workload_environment(&lease(0, 0), "x");
        assert_eq!(environment["CUDA_VISIBLE_DEVICES"], "");
        assert_eq!(environment["NVIDIA_VISIBLE_DEVICES"], "void");
        assert_eq!(environment["PLIMSOLL_GPUS"], "[]");
        assert!(!environment.contains_key("OMP_NUM_THREADS"));
        assert_eq!(workload_environment(&lease(500, 0), "x")["OMP_NUM_THREADS"], "1");
    }
}
