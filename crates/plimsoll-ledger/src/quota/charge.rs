//! What a grant counts against its queue's quota.

use plimsoll_types::{Amount, Resources};

use crate::MemberPlacement;

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
