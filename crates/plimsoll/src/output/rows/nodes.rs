//! Nodes and devices as rows.

use plimsoll_client::v1::{Device, DeviceSample, MeasuredNode, Node, NodeSample, Quantities};
use plimsoll_types::quantity::{display_bytes, format_cpu_millis};
use serde_json::Value;

use super::{document, word};
use crate::output::{Column, Shown, absolute, ago, left, share, short_duration};

/// A node with what it measured last, where that was asked for and is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeRow {
    /// The node.
    pub(crate) node: Node,
    /// What it measured.
    pub(crate) measured: Option<MeasuredNode>,
}

impl From<Node> for NodeRow {
    fn from(node: Node) -> NodeRow {
        NodeRow { node, measured: None }
    }
}

impl Shown for NodeRow {
    const COLUMNS: &'static [Column<NodeRow>] = &[
        Column::new("NODE", |n, _| n.node.id.clone()),
        Column::new("STATE", |n, _| word(n.node.state().as_str_name(), "NODE_STATE_")),
        Column::new("POOL", |n, _| match n.node.home_pool.as_str() {
            "" => n.node.pool.clone(),
            home => format!("{} (of {home})", n.node.pool),
        }),
        Column::new("CPU", |n, _| {
            share(used(&n.node).cpu_millis, offered(&n.node).cpu_millis, format_cpu_millis)
        }),
        Column::new("MEM", |n, _| {
            share(used(&n.node).memory_bytes, offered(&n.node).memory_bytes, display_bytes)
        }),
        Column::new("GPU", |n, view| gpus(&n.node, view)),
        Column::new("GPU MEM", |n, view| gpu_memory(&n.node, view)),
        Column::new("LEASES", |n, _| n.node.reservations.len().to_string()),
        Column::new("NOTE", |n, view| note(&n.node, view)),
        Column::wide("MEASURED CPU", |n, _| {
            sample(n).and_then(|s| s.cpu_permille).map_or_else(String::new, percent)
        }),
        Column::wide("MEASURED MEM", |n, _| sample(n).map_or_else(String::new, measured_memory)),
        Column::wide("PRESSURE", |n, _| sample(n).map_or_else(String::new, pressure)),
        Column::wide("MEASURED GPU", |n, _| sample(n).map_or_else(String::new, measured_gpus)),
        Column::wide("SAMPLED", |n, _| n.measured.as_ref().map_or_else(String::new, sampled)),
        Column::wide("SINCE", |n, view| ago(n.node.health_since_ms, view.now_ms)),
        Column::wide("NUMBER", |n, _| n.node.number.to_string()),
        Column::wide("EPOCH", |n, _| n.node.epoch.to_string()),
        Column::wide("SCHEDULABLE", |n, _| n.node.schedulable.to_string()),
        Column::wide("LABELS", |n, _| {
            n.node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        }),
    ];

    fn id(&self) -> String {
        self.node.id.clone()
    }

    fn json(&self) -> Value {
        let mut shown = document(&self.node);
        if let Some(measured) = &self.measured {
            shown["measured"] = document(&measured.sample);
            shown["measured"]["stale"] = Value::Bool(measured.stale);
        }
        shown
    }
}

fn sample(row: &NodeRow) -> Option<&NodeSample> {
    row.measured.as_ref()?.sample.as_ref()
}

/// Thousandths as people read them: `73%`, and below ten with a tenth.
fn percent(permille: u32) -> String {
    match permille {
        0 => "0%".to_owned(),
        permille if permille < 100 => format!("{}.{}%", permille / 10, permille % 10),
        permille => format!("{}%", permille / 10),
    }
}

/// In use, of what there is, where both can be read.
fn measured_memory(sample: &NodeSample) -> String {
    match (sample.memory_used_bytes, sample.memory_available_bytes) {
        (Some(used), Some(left)) => share(used, used.saturating_add(left), display_bytes),
        (Some(used), None) => display_bytes(used),
        (None, _) => String::new(),
    }
}

/// Time in which some task waited, of processor, memory and storage, over 10 seconds.
fn pressure(sample: &NodeSample) -> String {
    let of = |name: &str, value: Option<u32>| Some(format!("{name} {}", percent(value?)));
    let parts = [
        of("cpu", sample.cpu_pressure_permille),
        of("mem", sample.memory_pressure_permille),
        of("io", sample.io_pressure_permille),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn measured_gpus(sample: &NodeSample) -> String {
    let busy = |device: &DeviceSample| device.utilization_permille.map_or_else(|| "?".to_owned(), percent);
    sample.devices.iter().map(busy).collect::<Vec<_>>().join(" ")
}

fn sampled(measured: &MeasuredNode) -> String {
    let age = short_duration(measured.sample.as_ref().map_or(0, |sample| sample.age_ms));
    if measured.stale { format!("{age} (old)") } else { age }
}

/// A device with the node that it is in.
#[derive(Clone, Debug)]
pub(crate) struct DeviceRow {
    /// Bare name of the node.
    pub(crate) node: String,
    /// The device.
    pub(crate) device: Device,
}

impl Shown for DeviceRow {
    const COLUMNS: &'static [Column<DeviceRow>] = &[
        Column::new("NODE", |d, _| d.node.clone()),
        Column::new("GPU", |d, _| d.device.index.to_string()),
        Column::new("MODEL", |d, _| d.device.model.clone()),
        Column::new("STATE", |d, _| {
            let state = match (d.device.failed, d.device.used_milli) {
                (true, _) => "failed",
                (false, _) if d.device.mig.is_some() => "cut",
                (false, 0) => "free",
                (false, _) if d.device.exclusive => "taken",
                (false, _) => "shared",
            };
            state.to_owned()
        }),
        Column::new("USED", |d, _| format!("{}%", d.device.used_milli / 10)),
        Column::new("MEM", |d, _| share(d.device.used_memory_bytes, d.device.memory_bytes, display_bytes)),
        Column::new("RESERVATIONS", |d, _| d.device.reservations.join(",")),
        Column::wide("STILL FITS", |d, _| still_fits(&d.device)),
        Column::wide("UUID", |d, _| d.device.uuid.clone()),
    ];

    fn id(&self) -> String {
        self.device.uuid.clone()
    }

    fn json(&self) -> Value {
        document(&self.device)
    }
}

fn used(node: &Node) -> Quantities {
    node.used.clone().unwrap_or_default()
}

fn offered(node: &Node) -> Quantities {
    node.allocatable.clone().unwrap_or_default()
}

fn gpus(node: &Node, _: &crate::output::View) -> String {
    if node.devices.is_empty() {
        return String::new();
    }
    let milli: u64 = node.devices.iter().map(|device| u64::from(device.used_milli)).sum();
    let whole = node.devices.iter().filter(|device| !device.failed).count();
    let part = if milli.is_multiple_of(1000) { String::new() } else { format!(".{}", milli % 1000 / 100) };
    format!("{}{part}/{whole}", milli / 1000)
}

/// Of a device that is cut, instances that would still fit, each as if only such came: `5 1g.10gb, 2 2g.20gb`.
fn still_fits(device: &Device) -> String {
    let free = device.mig_free.iter().filter(|free| free.count > 0);
    free.map(|free| format!("{} {}", free.count, free.profile)).collect::<Vec<_>>().join(", ")
}

fn gpu_memory(node: &Node, _: &crate::output::View) -> String {
    if node.devices.is_empty() {
        return String::new();
    }
    let used = node.devices.iter().map(|device| device.used_memory_bytes).sum();
    let all = node.devices.iter().filter(|device| !device.failed).map(|device| device.memory_bytes).sum();
    share(used, all, display_bytes)
}

fn note(node: &Node, view: &crate::output::View) -> String {
    let mut notes: Vec<String> = Vec::new();
    notes.extend(node.labels.get("gpu").cloned());
    notes.extend(Some(node.reason.clone()).filter(|reason| !reason.is_empty()));
    if node.drain_deadline_ms > 0 {
        notes.push(format!("empty in {}", left(node.drain_deadline_ms, view.now_ms)));
    }
    if let Some(kind) = node.labels.get("capacity_type").filter(|kind| *kind != "on_demand") {
        notes.push(kind.clone());
    }
    if node.interruption_deadline_ms > 0 {
        notes.push(format!("taken back in {}", left(node.interruption_deadline_ms, view.now_ms)));
    }
    if node.safe_end_ms > 0 {
        notes.push(format!("leases safe until {}", absolute(node.safe_end_ms, view.utc)));
    }
    if !node.fence_pending.is_empty() {
        notes.push(format!("{} to fence", node.fence_pending.len()));
    }
    notes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_shown_and_what_was_not_is_not() {
        let nothing = NodeSample::default();
        assert_eq!(
            (measured_memory(&nothing), pressure(&nothing), measured_gpus(&nothing)),
            Default::default()
        );
        let device = DeviceSample { utilization_permille: Some(873), ..DeviceSample::default() };
        let sample = NodeSample {
            age_ms: 61_000,
            memory_used_bytes: Some(3 << 30),
            memory_available_bytes: Some(1 << 30),
            memory_pressure_permille: Some(5),
            io_pressure_permille: Some(0),
            devices: vec![device, DeviceSample::default()],
            ..nothing
        };
        assert_eq!(measured_memory(&sample), "3Gi/4Gi");
        assert_eq!(pressure(&sample), "mem 0.5%, io 0%");
        assert_eq!(measured_gpus(&sample), "87% ?");
        let measured = MeasuredNode { sample: Some(sample), stale: true, ..MeasuredNode::default() };
        assert!(sampled(&measured).ends_with(" (old)"), "{}", sampled(&measured));
        let row = NodeRow { node: Node::default(), measured: Some(measured) };
        assert_eq!(row.json()["measured"]["stale"], true);
        assert!(row.json()["measured"].get("cpuPermille").is_none(), "absent, not zero");
    }
}
