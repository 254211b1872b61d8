//! What a grant counts against its queue's quota.

use plimsoll_types::{Amount, Resources};

use crate::{GpuShare, MemberPlacement, Request, Requirements, WHOLE_DEVICE_MILLI};

/// Name under which quotas count devices, in thousandths.
pub const GPU: &str = "gpu";

/// Amounts of all members, and what they take of devices in thousandths as `gpu`; `None` where a sum does not fit in 64 bits.
pub fn charge(amounts: &Resources, members: &[MemberPlacement]) -> Option<Resources> {
    let mut all = amounts.checked_mul(members.len() as u64).ok()?;
    let milli = members.iter().flat_map(|member| &member.devices).map(|grant| u64::from(grant.milli)).sum();
    if milli > 0 {
        let named = all.get(GPU).checked_add(Amount(milli)).ok()?;
        all.set(GPU, named);
    }
    Some(all)
}

/// What a member with such needs takes at least, its devices in thousandths as `gpu`: a share by memory or profile is at least one.
pub(crate) fn least_of_needs(needs: &Requirements) -> Resources {
    let mut one = needs.amounts.clone();
    let milli = needs.gpu.as_ref().map_or(0, |gpu| match gpu.share {
        GpuShare::Whole => u64::from(gpu.count) * u64::from(WHOLE_DEVICE_MILLI),
        GpuShare::Milli(milli) => milli.into(),
        GpuShare::Memory(_) | GpuShare::Mig(_) => 1,
    });
    if milli > 0 {
        one.set(GPU, Amount(one.get(GPU).0.saturating_add(milli)));
    }
    one
}

/// The least of a request that is of use: its fewest members. At the top where a sum does not fit.
pub fn least(request: &Request) -> Resources {
    request.least_of(request.gang.min_members.max(1))
}
