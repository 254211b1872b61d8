//! Who of best effort leaves a node that measures fuller than its class stays for (`docs/semantics.md` 5.20).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use plimsoll_ledger::{Ledger, Overload};
use plimsoll_types::{NodeId, ReservationId};

/// Of the lowest class the youngest of those on a node who may be made to leave for what was measured there, which `overloads` has by class. O(those on the node).
pub fn next_to_leave(
    ledger: &Ledger,
    node: NodeId,
    overloads: &BTreeMap<&str, Overload>,
) -> Option<(ReservationId, Overload)> {
    let candidates = ledger.holders(node).filter_map(|holder| {
        let overload = overloads.get(holder.request.class.as_str())?;
        ledger.eviction(holder, overload).is_ok().then_some((holder, *overload))
    });
    let (holder, overload) = candidates
        .min_by_key(|(holder, _)| (holder.priority, Reverse(holder.granted_at), Reverse(holder.id)))?;
    Some((holder.id, overload))
}
