//! How many members of one request a node could take: what placing one after the other would come to, without doing so.

use plimsoll_ledger::{
    DeviceUsage, GpuAsk, GpuShare, Request, WHOLE_DEVICE_MILLI, device_has_room, device_matches,
    instances_left,
};
use plimsoll_types::Resources;

use crate::fit::NodeView;

/// Nodes that take more than so many are alike: sums over a million of them still fit.
const MOST_ON_A_NODE: u64 = 4_096;

/// Members that fit on a node. `amounts` are those that count against nodes; `empty` asks for the node with nothing on it, whether or not
/// it takes work now. O(amounts + devices).
pub(crate) fn members_on(view: &NodeView, request: &Request, amounts: &Resources, empty: bool) -> u32 {
    let labels_fit = request.requirements.required.matches(&view.labels);
    if !(labels_fit && (empty || view.node.is_eligible())) {
        return 0;
    }
    let loose = request.is_best_effort();
    let most_of = |name: &str| if empty { view.limit(name, loose) } else { view.has(name, loose) };
    let mut most = if request.gang.spread { 1 } else { MOST_ON_A_NODE };
    for (name, amount) in amounts.iter().filter(|(_, amount)| amount.0 > 0) {
        most = most.min(most_of(name).0 / amount.0);
    }
    if let Some(gpu) = &request.requirements.gpu {
        most = most.min(by_devices(view, gpu, empty));
    }
    most as u32
}

fn by_devices(view: &NodeView, gpu: &GpuAsk, empty: bool) -> u64 {
    let mut suitable = 0;
    let mut room = 0;
    for (index, device) in view.node.registration.devices.iter().enumerate() {
        if device.failed || !device_matches(gpu, device) {
            continue;
        }
        suitable += 1;
        let used =
            if empty { DeviceUsage::default() } else { view.devices.get(index).copied().unwrap_or_default() };
        if !device_has_room(&used, gpu.share, device) {
            continue;
        }
        let (milli, bytes) = gpu.share.of_device(device);
        room += match gpu.share {
            GpuShare::Whole => 1,
            GpuShare::Mig(profile) => instances_left(device, &used, profile).into(),
            GpuShare::Milli(_) | GpuShare::Memory(_) => {
                let by_milli = u64::from(WHOLE_DEVICE_MILLI).saturating_sub(used.milli.into()) / milli.max(1);
                let by_bytes = device.memory_bytes.saturating_sub(used.memory_bytes) / bytes.max(1);
                if bytes == 0 { by_milli } else { by_milli.min(by_bytes) }
            }
        };
    }
    match gpu.share {
        GpuShare::Whole => room / u64::from(gpu.count.max(1)),
        _ if suitable < gpu.count => 0,
        _ => room,
    }
}
