//! Could one member be on one node, and on which of its devices? The same questions that `admit` asks, put to the
//! planner's view of a node.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_ledger::{
    DeviceGrant, DeviceUsage, Evicted, GpuAsk, GpuShare, Ledger, Node, Request, SliceCost,
    WHOLE_DEVICE_MILLI, best_grant, device_matches,
};
use plimsoll_types::{Amount, DeviceIndex, Labels, NodeId, Resources};

/// A node as the planner sees it: what is applied, less what its own proposals in flight will take.
#[derive(Clone, Debug)]
pub(crate) struct NodeView {
    pub(crate) node: Arc<Node>,
    pub(crate) labels: Labels,
    /// What is left of what its pool offers of it.
    pub(crate) free: Resources,
    /// In pools that oversubscribe: what of the node itself is left for those who are backed.
    pub(crate) over: Option<Over>,
    pub(crate) devices: Vec<DeviceUsage>,
    /// Classes whose best effort is not put here, since it would have to leave again for what the node measures.
    pub(crate) closed_to: BTreeMap<String, Evicted>,
}

/// A node of which more is promised than it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Over {
    /// What it has, less what is backed.
    pub(crate) solid: Resources,
    /// What is promised of it in all.
    pub(crate) offered: Resources,
}

/// What a node has to give at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stock {
    pub(crate) free: Resources,
    pub(crate) over: Option<Over>,
    pub(crate) devices: Vec<DeviceUsage>,
}

/// Why a member cannot be on a node: the first thing that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unfit {
    NotAvailable,
    /// It measures fuller than the class stays for.
    TooFull,
    Labels,
    Device,
    /// The amount at this position of those asked.
    Amount(usize),
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

    /// Devices that nobody is on, those that are cut left out: nobody gets one of these whole.
    pub(crate) fn free_whole(&self) -> u32 {
        let uncut = |index: usize| {
            self.node.registration.devices.get(index).is_some_and(|device| device.mig.is_none())
        };
        let whole =
            |index: &usize| uncut(*index) && self.device_free_milli(*index) == u32::from(WHOLE_DEVICE_MILLI);
        (0..self.devices.len()).filter(whole).count() as u32
    }

    /// The node as the ledger has it; `None` where it is not there.
    pub(crate) fn applied(ledger: &Ledger, id: NodeId, labels: Labels) -> Option<NodeView> {
        let node = Arc::clone(ledger.node(id)?);
        let offered = || ledger.offered(&node).into_owned();
        let over = ledger.open_backed(id).map(|solid| Over { solid, offered: offered() });
        let (free, devices) = (ledger.open(id), ledger.devices_spoken_for(id));
        Some(NodeView { labels, free, over, devices, node, closed_to: BTreeMap::new() })
    }

    /// What is left of a resource for a request of this kind.
    pub(crate) fn has(&self, name: &str, best_effort: bool) -> Amount {
        let free = self.free.get(name);
        match &self.over {
            Some(over) if !best_effort => free.min(over.solid.get(name)),
            _ => free,
        }
    }

    /// What of a resource a request of this kind may have at most, were nothing taken.
    pub(crate) fn limit(&self, name: &str, best_effort: bool) -> Amount {
        let over = self.over.as_ref().filter(|_| best_effort);
        over.map_or(&self.node.allocatable, |over| &over.offered).get(name)
    }

    /// What it has to give now.
    pub(crate) fn stock(&self) -> Stock {
        Stock { free: self.free.clone(), over: self.over.clone(), devices: self.devices.clone() }
    }

    /// Only what it has both now and at another moment.
    pub(crate) fn keep_least(&mut self, other: &NodeView) {
        self.free = self.free.smaller_of(&other.free);
        if let (Some(over), Some(other)) = (&mut self.over, &other.over) {
            over.solid = over.solid.smaller_of(&other.solid);
        }
        for (device, other) in self.devices.iter_mut().zip(&other.devices) {
            *device = device.larger_of(other);
        }
    }

    /// Devices for one member, or the first thing that fails. `amounts` are those that count against nodes.
    pub(crate) fn fit(&self, request: &Request, amounts: &Resources) -> Result<Vec<DeviceGrant>, Unfit> {
        if !self.node.is_eligible() {
            return Err(Unfit::NotAvailable);
        }
        if request.is_best_effort() && self.closed_to.contains_key(&request.class) {
            return Err(Unfit::TooFull);
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
        let loose = request.is_best_effort();
        if let Some(short) = amounts.iter().position(|(name, amount)| amount > self.has(name, loose)) {
            return Err(Unfit::Amount(short));
        }
        match &request.requirements.gpu {
            None => Ok(Vec::new()),
            Some(gpu) => self.fit_gpu(gpu),
        }
    }

    fn fit_gpu(&self, gpu: &GpuAsk) -> Result<Vec<DeviceGrant>, Unfit> {
        let count = gpu.count as usize;
        let mut suitable = 0;
        let mut grants: Vec<DeviceGrant> = Vec::new();
        // A share goes to the fullest device that still has room, so that whole ones stay whole; an instance first of all to where those
        // to come lose least.
        let mut best: Option<((SliceCost, Reverse<u32>), DeviceGrant)> = None;
        for (index, (device, usage)) in self.node.registration.devices.iter().zip(&self.devices).enumerate() {
            if device.failed || !device_matches(gpu, device) {
                continue;
            }
            suitable += 1;
            let Ok(index) = u16::try_from(index) else { continue };
            let Some((cost, grant)) = best_grant(DeviceIndex(index), device, usage, gpu.share) else {
                continue;
            };
            let rank = (cost, Reverse(usage.milli));
            if gpu.share == GpuShare::Whole {
                if grants.len() < count {
                    grants.push(grant);
                }
            } else if best.is_none_or(|(known, _)| rank < known) {
                best = Some((rank, grant));
            }
        }
        grants.extend(best.map(|(_, grant)| grant));
        match suitable < count {
            true => Err(Unfit::Device),
            false if grants.len() < count => Err(Unfit::Gpu),
            false => Ok(grants),
        }
    }

    /// Every device that has room for a share, by ascending index; none where whole devices are asked.
    pub(crate) fn shares(&self, gpu: &GpuAsk) -> impl Iterator<Item = DeviceGrant> {
        let devices = self.node.registration.devices.iter().zip(&self.devices).enumerate();
        devices.filter_map(move |(index, (device, usage))| {
            let suits = gpu.share != GpuShare::Whole && !device.failed && device_matches(gpu, device);
            let index = DeviceIndex(u16::try_from(index).ok()?);
            best_grant(index, device, usage, gpu.share).filter(|_| suits).map(|(_, grant)| grant)
        })
    }

    /// Books one member, of best effort or backed.
    pub(crate) fn take(&mut self, amounts: &Resources, devices: &[DeviceGrant], best_effort: bool) {
        self.free.saturating_sub_assign(amounts);
        if let Some(over) = self.over.as_mut().filter(|_| !best_effort) {
            over.solid.saturating_sub_assign(amounts);
        }
        for grant in devices {
            if let Some(usage) = self.devices.get_mut(usize::from(grant.device.0)) {
                usage.add(grant);
            }
        }
    }

    /// Takes off what a member has, as if it had left.
    pub(crate) fn give_back(&mut self, amounts: &Resources, devices: &[DeviceGrant], best_effort: bool) {
        // What was taken of the node fits in it.
        let _fits = self.free.add_assign(amounts);
        if let Some(over) = self.over.as_mut().filter(|_| !best_effort) {
            let _fits = over.solid.add_assign(amounts);
        }
        for grant in devices {
            if let Some(usage) = self.devices.get_mut(usize::from(grant.device.0)) {
                usage.remove(grant);
            }
        }
    }

    /// Books all that is summed up of one device.
    pub(crate) fn take_usage(&mut self, device: DeviceIndex, booked: &DeviceUsage) {
        if let Some(usage) = self.devices.get_mut(usize::from(device.0)) {
            *usage = usage.plus(booked);
        }
    }

    /// True where a member of this kind, which takes so much of its node, would fit if nothing were there.
    pub(crate) fn could_hold(&self, kind: &Request, amounts: &Resources) -> bool {
        let required = &kind.requirements.required;
        let is_wanted = required.terms.is_empty() || required.matches(&self.labels);
        is_wanted && self.emptied().fit_amounts(kind, amounts).is_ok()
    }

    /// The same node with nothing on it: what it could hold at best. Its labels are left out.
    pub(crate) fn emptied(&self) -> NodeView {
        NodeView {
            node: Arc::clone(&self.node),
            labels: Labels::new(),
            free: self.over.as_ref().map_or(&self.node.allocatable, |over| &over.offered).clone(),
            over: self
                .over
                .as_ref()
                .map(|over| Over { solid: self.node.allocatable.clone(), offered: over.offered.clone() }),
            devices: vec![DeviceUsage::default(); self.devices.len()],
            closed_to: BTreeMap::new(),
        }
    }
}
