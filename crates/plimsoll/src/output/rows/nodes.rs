//! Nodes and devices as rows.

use plimsoll_client::v1::{Device, Node, Quantities};
use plimsoll_types::quantity::{display_bytes, format_cpu_millis};
use serde_json::Value;

use super::{document, word};
use crate::output::{Column, Shown, absolute, ago, left, share};

impl Shown for Node {
    const COLUMNS: &'static [Column<Node>] = &[
        Column::new("NODE", |n, _| n.id.clone()),
        Column::new("STATE", |n, _| word(n.state().as_str_name(), "NODE_STATE_")),
        Column::new("POOL", |n, _| match n.home_pool.as_str() {
            "" => n.pool.clone(),
            home => format!("{} (of {home})", n.pool),
        }),
        Column::new("CPU", |n, _| share(used(n).cpu_millis, offered(n).cpu_millis, format_cpu_millis)),
        Column::new("MEM", |n, _| share(used(n).memory_bytes, offered(n).memory_bytes, display_bytes)),
        Column::new("GPU", gpus),
        Column::new("GPU MEM", gpu_memory),
        Column::new("LEASES", |n, _| n.reservations.len().to_string()),
        Column::new("NOTE", note),
        Column::wide("SINCE", |n, view| ago(n.health_since_ms, view.now_ms)),
        Column::wide("NUMBER", |n, _| n.number.to_string()),
        Column::wide("EPOCH", |n, _| n.epoch.to_string()),
        Column::wide("SCHEDULABLE", |n, _| n.schedulable.to_string()),
        Column::wide("LABELS", |n, _| {
            n.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        }),
    ];

    fn id(&self) -> String {
        self.id.clone()
    }

    fn json(&self) -> Value {
        document(self)
    }
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
    if node.safe_end_ms > 0 {
        notes.push(format!("leases safe until {}", absolute(node.safe_end_ms, view.utc)));
    }
    if !node.fence_pending.is_empty() {
        notes.push(format!("{} to fence", node.fence_pending.len()));
    }
    notes.join(", ")
}
