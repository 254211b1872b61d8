//! Admission in the model, and what is taken: `docs/semantics.md` 5.

use super::*;

impl Model {
    /// In the world as it is, and as it will be once those who were given notice have left. The moment at which the grant is cut, 0 where it
    /// is not.
    pub(super) fn admits(
        &self,
        request: &Request,
        requester: &str,
        placement: &Placement,
        plan: Option<u64>,
    ) -> Result<u64, Reason> {
        let fits = |later| self.seen(later, |model| model.fits(request, requester, placement));
        let mut reasons: Vec<Reason> = [false, true].map(fits).into_iter().filter_map(Result::err).collect();
        let cut = self.calendar(request, &members_of(placement), plan);
        reasons.extend(cut.err());
        least(reasons)?;
        Ok(cut.unwrap_or(0))
    }

    pub(super) fn fits(
        &self,
        request: &Request,
        requester: &str,
        placement: &Placement,
    ) -> Result<(), Reason> {
        let members = members_of(placement);
        let mut reasons = self.fits_there(request, &members, &members)?;
        reasons.extend(self.grant_reasons(request, requester, self.priced(&members)));
        least(reasons)
    }

    /// All but money: what stands in the way of `members`, who are together with `all` then. An error where nodes do not suit.
    pub(super) fn fits_there(
        &self,
        request: &Request,
        members: &[(u32, Vec<DeviceGrant>)],
        all: &[(u32, Vec<DeviceGrant>)],
    ) -> Result<Vec<Reason>, Reason> {
        let mut reasons = Vec::new();
        let count = members.len() as u32;
        if count < request.gang.min_members || count > request.gang.max_members {
            reasons.push(Reason::InvalidArgument);
        }
        let nodes = count_nodes(members);
        if request.gang.spread && nodes.iter().any(|(id, n)| *n > 1 && self.nodes.contains_key(id)) {
            reasons.push(Reason::InvalidArgument);
        }
        for node in nodes.keys() {
            let Some(n) = self.nodes.get(node) else {
                reasons.push(Reason::NotFound);
                continue;
            };
            if n.pool != request.pool {
                reasons.push(Reason::PoolMismatch);
            }
            if n.health != NodeHealth::Available || !n.open() {
                reasons.push(Reason::NodeNotAvailable);
            }
            if !request.requirements.required.matches(&labels(&n.reg)) {
                reasons.push(Reason::LabelMismatch);
            }
        }
        least(reasons)?;
        let mut reasons = Vec::new();
        let pool = &self.pools[&request.pool];
        for (name, amount) in request.requirements.amounts.iter() {
            if let Some(total) = pool.countables.get(name) {
                if amount.0 * u64::from(count) > total.0.saturating_sub(self.pool_used(&pool.name, name)) {
                    reasons.push(Reason::CountableExhausted);
                }
            } else if nodes.iter().any(|(node, n)| amount.0 * n > self.room(request, *node, name)) {
                reasons.push(Reason::NoCapacity);
            }
        }
        reasons.extend(self.device_reasons(request, members));
        reasons.extend(self.place_reasons(request, members, all));
        let place = (request.queue.as_str(), request.pool.as_str());
        if self.quota_short(place, (&Resources::default(), &[]), (&request.requirements.amounts, members)) {
            reasons.push(Reason::QuotaExceeded);
        }
        reasons.extend(self.spot_reasons(request, members));
        Ok(reasons)
    }

    pub(super) fn device_reasons(
        &self,
        request: &Request,
        members: &[(u32, Vec<DeviceGrant>)],
    ) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut earlier: Vec<(u32, DeviceGrant)> = Vec::new();
        for (node, grants) in members {
            let asked = request.requirements.gpu.as_ref().map_or(0, |gpu| gpu.count as usize);
            if grants.len() != asked || grants.windows(2).any(|w| w[0].device >= w[1].device) {
                reasons.push(Reason::InvalidArgument);
                continue;
            }
            for grant in grants {
                let gpu = request.requirements.gpu.as_ref().expect("devices were asked");
                let Some(device) = self.nodes[node].reg.devices.get(usize::from(grant.device.0)) else {
                    reasons.push(Reason::DeviceMismatch);
                    continue;
                };
                let m = device.memory_bytes;
                let (milli, memory) = match gpu.share {
                    GpuShare::Whole => (1000, m),
                    GpuShare::Milli(x) => (u64::from(x), (u128::from(m) * u128::from(x) / 1000) as u64),
                    GpuShare::Memory(b) => (((u128::from(b) * 1000).div_ceil(u128::from(m))) as u64, b),
                    GpuShare::Mig(name) => slices::of_device(device, name).unwrap_or((1001, m)),
                };
                let suits = !device.failed
                    && (gpu.models.is_empty() || gpu.models.contains(&device.model))
                    && m >= gpu.min_device_memory_bytes
                    && milli <= 1000
                    && match gpu.share {
                        GpuShare::Mig(name) => slices::suit(device, name, grant),
                        _ => device.mig.is_none() && grant.slices.is_none(),
                    };
                if !suits || u64::from(grant.milli) != milli || grant.memory_bytes != memory {
                    reasons.push(Reason::DeviceMismatch);
                    continue;
                }
                let mut there = self.grants_on(*node, grant.device.0);
                there.extend(
                    earlier.iter().filter(|(n, g)| n == node && g.device == grant.device).map(|(_, g)| *g),
                );
                let room = match gpu.share {
                    GpuShare::Whole => there.is_empty(),
                    _ if matches!(gpu.share, GpuShare::Mig(_))
                        && !slices::have_room(device, grant, &there) =>
                    {
                        false
                    }
                    GpuShare::Milli(_) | GpuShare::Memory(_) if there.iter().any(|g| g.slices.is_some()) => {
                        false
                    }
                    _ => {
                        there.iter().map(|g| u64::from(g.milli)).sum::<u64>() + milli <= 1000
                            && there.iter().map(|g| g.memory_bytes).sum::<u64>() + memory <= m
                    }
                };
                if room {
                    earlier.push((*node, *grant));
                } else {
                    reasons.push(Reason::NoCapacity);
                }
            }
        }
        reasons
    }

    pub(super) fn pool_used(&self, pool: &str, name: &str) -> u64 {
        let holding = self.counted().filter(|r| r.request.pool == pool);
        holding.map(|r| r.amounts.get(name).0 * r.members.len() as u64).sum()
    }

    pub(crate) fn used(&self, node: u32, name: &str) -> u64 {
        let mut sum: u64 = self.nodes[&node].pending.iter().map(|(_, amounts, _)| amounts.get(name).0).sum();
        for r in self.counted() {
            if !self.pools[&r.request.pool].countables.contains_key(name) {
                sum += r.amounts.get(name).0 * r.members.iter().filter(|(n, _)| *n == node).count() as u64;
            }
        }
        sum
    }

    pub(super) fn grants_on(&self, node: u32, device: u16) -> Vec<DeviceGrant> {
        let pending = self.nodes[&node].pending.iter().flat_map(|(_, _, grants)| grants.iter());
        let holding = self.counted();
        let held = holding
            .flat_map(|r| r.members.iter())
            .filter(|(n, _)| *n == node)
            .flat_map(|(_, grants)| grants.iter());
        pending.chain(held).filter(|g| g.device.0 == device).copied().collect()
    }
}

pub(super) fn members_of(placement: &Placement) -> Vec<(u32, Vec<DeviceGrant>)> {
    placement.members.iter().map(|m| (m.node.0, m.devices.clone())).collect()
}
