//! Amounts that a request asks: compute, memory, devices, storage.

use plimsoll_types::quantity::{format_bytes, parse_bytes, parse_cpu_millis};
use serde_json::{Map, Value};

use super::tree::{At, number};

/// The disk that agents offer.
pub(super) const LOCAL: &str = "storage/local";

/// Compute, memory and devices. What may be had beyond them while it is idle makes it burstable, where that can be said.
pub(super) fn asks(at: &At<'_, '_>, may_burst: bool, request: &mut Map<String, Value>) {
    let mut burst = Map::new();
    for resource in ["cpu", "memory"] {
        let Some(amount) = at.get(resource) else { continue };
        let (asked, limit) = match amount.peek() {
            Some(_) => (Some(amount), None),
            None => (amount.get("request"), amount.get("limit")),
        };
        // A limit alone is what is asked, as everywhere.
        let (asked, limit) = if asked.is_some() { (asked, limit) } else { (limit, None) };
        let Some(asked) = asked else { continue };
        let Some(value) = asked.amount(resource) else { continue };
        request.insert(resource.to_owned(), value.clone());
        let Some(limit) = limit else { continue };
        let Some(most) = limit.amount(resource) else { continue };
        if size(resource, &limit) < size(resource, &asked) {
            limit.tell("is less than what is asked");
        } else if most != value && !may_burst {
            limit.tell("a gang of several kinds of tasks has no limits above what it asks");
        } else if most != value {
            burst.insert(resource.to_owned(), most);
        }
    }
    if !burst.is_empty() {
        request.insert("qos".to_owned(), "burstable".into());
        request.insert("burst".to_owned(), Value::Object(burst));
    }
    if let Some(gpu) = at.get("gpu") {
        self::gpu(&gpu, request);
    }
}

fn size(resource: &str, at: &At<'_, '_>) -> u64 {
    let text = at.peek().unwrap_or_default();
    let read = if resource == "cpu" { parse_cpu_millis(text) } else { parse_bytes(text) };
    read.unwrap_or_default()
}

/// A number of devices, or their model, number and least memory.
fn gpu(at: &At<'_, '_>, request: &mut Map<String, Value>) {
    if let Some(text) = at.text() {
        if text != "0" {
            request.insert("gpu".to_owned(), number(&text));
        }
        return;
    }
    let part = |key: &str| at.get(key).and_then(|at| at.text());
    let devices = match (part("type"), part("count")) {
        (Some(model), count) => Some(format!("{model}:{}", count.as_deref().unwrap_or("1")).into()),
        (None, count) => count.map(|count| number(&count)),
    };
    request.extend(devices.map(|devices| ("gpu".to_owned(), devices)));
    let memory = at.get("memory").and_then(|at| at.amount("memory"));
    request.extend(memory.map(|memory| ("gpuMemory".to_owned(), memory)));
}

/// `storage: { volumes, temp_storage }`.
pub(super) fn storage(at: &At<'_, '_>, request: &mut Map<String, Value>) {
    for volume in at.get("volumes").map(|at| at.items()).unwrap_or_default() {
        let class = volume.get("type").and_then(|at| at.text());
        let resource = class.map_or_else(|| LOCAL.to_owned(), |class| format!("storage/{class}"));
        add_bytes(request, &resource, &volume.get("size").into_iter().collect::<Vec<_>>());
        volume.tell_of("name", "no volume is made: its size is counted while the grant lasts");
        volume.tell_of("mount_path", "nothing is mounted: where the disk of a node is, its operator says");
    }
    if let Some(temporary) = at.get("temp_storage") {
        add_bytes(request, LOCAL, &temporary.get("size").into_iter().collect::<Vec<_>>());
        temporary.tell_of(
            "cleanup_policy",
            "files are for the run to delete: what is counted is free when its grant ends",
        );
    }
    at.note("nodes have to offer it: agents offer storage/local by themselves, other classes (storage/ssd) where they are told to");
}

/// Adds sizes to what a request has of a storage. True where there were some.
pub(super) fn add_bytes(request: &mut Map<String, Value>, resource: &str, sizes: &[At<'_, '_>]) -> bool {
    let before = request.get("resources").and_then(|all| all.get(resource));
    let mut sum = before.and_then(|text| parse_bytes(text.as_str()?).ok()).unwrap_or_default();
    let mut some = false;
    for size in sizes {
        let Some(bytes) = size.peek().and_then(|text| parse_bytes(text).ok()) else { continue };
        let Some(more) = sum.checked_add(bytes) else { continue };
        sum = more;
        some = true;
        size.take();
    }
    if some {
        put_resource(request, resource, number(&format_bytes(sum)));
    }
    some
}

pub(super) fn put_resource(request: &mut Map<String, Value>, resource: &str, amount: Value) {
    let resources = request.entry("resources").or_insert_with(|| Value::Object(Map::new()));
    resources[resource] = amount;
}
