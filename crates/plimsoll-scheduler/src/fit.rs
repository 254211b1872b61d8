//! Could one member be on one node, and on which of its devices? The same questions that `admit` asks, put to the
//! planner's view of a node.

use plimsoll_ledger::{
    DeviceGrant, DeviceUsage, GpuAsk, GpuShare, Node, Request, WHOLE_DEVICE_MILLI, device_has_room,
    device_matches,
};
use plimsoll_types::{DeviceIndex, Labels, Resources};

/// A node as the planner sees it: what is applied, less what its own proposals in flight will take.
#[derive(Clone, Debug)]
pub(crate) struct NodeView {
    pub(crate) node: std::sync::Arc<Node>,
    pub(crate) labels: Labels,
    pub(crate) free: Resources,
    pub(crate) devices: Vec<DeviceUsage>,
}

/// Why a member cannot be on a node: the first thing that fails.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unfit {
    NotAvailable,
    Labels,
    Device,
    Amount(String),
    Gpu,
}

impl NodeView {
    pub(crate) fn device_free_milli(&self, index: usize) -> u32 {
        let failed = self.node.registration.devices.get(index).is_none_or(|device| device.failed);
        let usage = self.devices.get(index).copied().unwrap_or_default();
        if failed || usage.exclusive { 0 } else { u32::from(WHOLE_DEVICE_MILLI).saturating_sub(usage.milli) }
    }

    pub(crate) fn free_milli(&self) -> u64 {
        (0..self.devices.len()).map(|index| u64::from(self.device_free_milli(index))).sum()
    }

    pub(crate) fn free_whole(&self) -> u32 {
        let whole = |index: &usize| self.device_free_milli(*index) == u32::from(WHOLE_DEVICE_MILLI);
        (0..self.devices.len()).filter(whole).count() as u32
    }

    /// Devices for one member, or the first thing that fails. `amounts` are those that count against nodes.
    pub(crate) fn fit(&self, request: &Request, amounts: &Resources) -> Result<Vec<DeviceGrant>, Unfit> {
        if !self.node.is_eligible() {
            return Err(Unfit::NotAvailable);
        }
        let required = &request.requirements.required;
        if !required.terms.is_empty() && !required.matches(&self.labels) {
            return Err(Unfit::Labels);
        }
        self.fit_amounts(request, amounts)
    }

    pub(crate) fn fit_amounts(
        &self,
        request: &Request,
        amounts: &Resources,
    ) -> Result<Vec<DeviceGrant>, Unfit> {
        if let Some((name, _)) = amounts.iter().find(|(name, amount)| *amount > self.free.get(name)) {
            return Err(Unfit::Amount(name.to_owned()));
        }
        match &request.requirements.gpu {
            None => Ok(Vec::new()),
            Some(gpu) => self.fit_gpu(gpu),
        }
    }

    fn fit_gpu(&self, gpu: &GpuAsk) -> Result<Vec<DeviceGrant>, Unfit> {
        let devices = self.node.registration.devices.iter().zip(&self.devices).enumerate();
        let mut suitable = 0;
        let mut with_room: Vec<(u32, DeviceGrant)> = Vec::new();
        for (index, (device, usage)) in devices {
            if device.failed || !device_matches(gpu, &device.model, device.memory_bytes) {
                continue;
            }
            suitable += 1;
            let (milli, memory_bytes) = gpu.share.of_device(device.memory_bytes);
            if device_has_room(usage, gpu.share, milli, memory_bytes, device.memory_bytes) {
                let (Ok(milli), Ok(index)) = (u16::try_from(milli), u16::try_from(index)) else { continue };
                let grant = DeviceGrant { device: DeviceIndex(index), milli, memory_bytes };
                with_room.push((usage.milli, grant));
            }
        }
        let count = gpu.count as usize;
        if suitable < count {
            return Err(Unfit::Device);
        }
        if with_room.len() < count {
            return Err(Unfit::Gpu);
        }
        if gpu.share == GpuShare::Whole {
            return Ok(with_room.into_iter().take(count).map(|(_, grant)| grant).collect());
        }
        // A share goes to the fullest device that still has room, so that whole ones stay whole.
        let fullest = with_room.into_iter().min_by_key(|(used, grant)| (u32::MAX - used, grant.device));
        fullest.map(|(_, grant)| vec![grant]).ok_or(Unfit::Gpu)
    }

    pub(crate) fn take(&mut self, amounts: &Resources, devices: &[DeviceGrant]) {
        self.free = self.free.saturating_sub(amounts);
        for grant in devices {
            if let Some(usage) = self.devices.get_mut(usize::from(grant.device.0)) {
                usage.add(grant.milli, grant.memory_bytes);
            }
        }
    }

    /// The same node with nothing on it and always willing: what it could hold at best.
    pub(crate) fn emptied(&self) -> NodeView {
        let mut view = self.clone();
        view.free = view.node.allocatable.clone();
        view.devices.iter_mut().for_each(|usage| *usage = DeviceUsage::default());
        view
    }
}
