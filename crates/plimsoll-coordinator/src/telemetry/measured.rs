//! What nodes measured last, as gauges of the leader. A reading that a node cannot take has no row; one that is old has only its age.

use plimsoll_proto::v1::{DeviceSample, NodeSample};
use plimsoll_types::NodeId;

use super::gather::to_f64;
use crate::core::{Core, Sampled};

/// Nodes with rows: those that registered first. A page of all nodes of a large cluster would be too long to be scraped.
const MOST_NODES: usize = 1_000;

/// Rows of a gauge.
type Rows = Vec<(Vec<(&'static str, String)>, f64)>;

/// A gauge with its help and rows.
type Gauge = (&'static str, &'static str, Rows);

/// All gauges about what nodes measure.
pub(super) fn rows(core: &Core, ids: &[NodeId]) -> Vec<Gauge> {
    let samples: Vec<(String, Sampled)> = ids
        .iter()
        .take(MOST_NODES)
        .filter_map(|id| {
            let sampled = core.agents().sample(*id)?;
            Some((core.local().node(*id)?.name().to_owned(), sampled))
        })
        .collect();
    gauges(&samples)
}

fn gauges(samples: &[(String, Sampled)]) -> Vec<Gauge> {
    let of = |value: fn(&NodeSample) -> Option<f64>| -> Rows {
        let fresh = samples.iter().filter(|(_, sampled)| !sampled.stale);
        fresh
            .filter_map(|(node, sampled)| Some((vec![("node", node.clone())], value(&sampled.sample)?)))
            .collect()
    };
    let of_devices = |value: fn(&DeviceSample) -> Option<f64>| -> Rows {
        let fresh = samples.iter().filter(|(_, sampled)| !sampled.stale);
        let devices = fresh.flat_map(|(node, sampled)| sampled.sample.devices.iter().map(move |d| (node, d)));
        let row = |(node, device): (&String, &DeviceSample)| {
            Some((vec![("node", node.clone()), ("device", device.uuid.clone())], value(device)?))
        };
        devices.filter_map(row).collect()
    };
    let mut pressure = Rows::new();
    for (resource, value) in [
        ("cpu", (|sample| sample.cpu_pressure_permille) as fn(&NodeSample) -> Option<u32>),
        ("memory", |sample| sample.memory_pressure_permille),
        ("io", |sample| sample.io_pressure_permille),
    ] {
        for (node, sampled) in samples.iter().filter(|(_, sampled)| !sampled.stale) {
            let labels = vec![("node", node.clone()), ("resource", resource.to_owned())];
            pressure.extend(value(&sampled.sample).map(|permille| (labels, ratio(permille))));
        }
    }
    let age = |(node, sampled): &(String, Sampled)| {
        (vec![("node", node.clone())], to_f64(sampled.sample.age_ms) / 1_000.0)
    };
    vec![
        (
            "node_sample_age_seconds",
            "Age of what a node measured last (leader only)",
            samples.iter().map(age).collect(),
        ),
        (
            "node_measured_cpu_ratio",
            "Share of a node's cores in use (leader only)",
            of(|sample| sample.cpu_permille.map(ratio)),
        ),
        (
            "node_measured_memory_used_bytes",
            "Memory of a node in use (leader only)",
            of(|sample| sample.memory_used_bytes.map(to_f64)),
        ),
        (
            "node_measured_memory_available_bytes",
            "Memory of a node that could be had without swapping (leader only)",
            of(|sample| sample.memory_available_bytes.map(to_f64)),
        ),
        (
            "node_measured_pressure_ratio",
            "Share of 10 seconds in which some task waited, by resource (leader only)",
            pressure,
        ),
        (
            "node_measured_temperature_celsius",
            "The hottest sensor of a node (leader only)",
            of(|sample| sample.temperature_millicelsius.map(|milli| f64::from(milli) / 1_000.0)),
        ),
        (
            "node_measured_gpu_ratio",
            "Share of time in which a GPU was busy (leader only)",
            of_devices(|device| device.utilization_permille.map(ratio)),
        ),
        (
            "node_measured_gpu_memory_used_bytes",
            "Memory of a GPU in use, by anybody (leader only)",
            of_devices(|device| device.memory_used_bytes.map(to_f64)),
        ),
        (
            "node_measured_gpu_watts",
            "Power that a GPU draws (leader only)",
            of_devices(|device| device.power_milliwatts.map(|milliwatts| to_f64(milliwatts) / 1_000.0)),
        ),
        (
            "node_measured_gpu_temperature_celsius",
            "Temperature of a GPU (leader only)",
            of_devices(|device| device.temperature_millicelsius.map(|milli| f64::from(milli) / 1_000.0)),
        ),
    ]
}

fn ratio(permille: u32) -> f64 {
    f64::from(permille) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_has_no_row_and_what_is_old_has_only_its_age() {
        let device = DeviceSample {
            uuid: "GPU-1".to_owned(),
            power_milliwatts: Some(350_500),
            ..DeviceSample::default()
        };
        let sample = NodeSample {
            age_ms: 1_500,
            cpu_permille: Some(0),
            memory_pressure_permille: Some(125),
            devices: vec![device],
            ..NodeSample::default()
        };
        let fresh = Sampled { sample: sample.clone(), stale: false };
        let rows = |sampled: Sampled| -> Vec<(&'static str, f64)> {
            let all = gauges(&[("n1".to_owned(), sampled)]);
            all.into_iter()
                .flat_map(|(name, _, rows)| rows.into_iter().map(move |row| (name, row.1)))
                .collect()
        };
        let expected = [
            ("node_sample_age_seconds", 1.5),
            ("node_measured_cpu_ratio", 0.0),
            ("node_measured_pressure_ratio", 0.125),
            ("node_measured_gpu_watts", 350.5),
        ];
        assert_eq!(rows(fresh), expected);
        assert_eq!(rows(Sampled { sample, stale: true }), expected[..1]);
    }
}
