//! Places that would do and are kept for others: until those who were given notice have left, nobody else gets them.

use std::collections::BTreeMap;

use plimsoll_ledger::{Ledger, Request};
use plimsoll_types::ReservationId;

use crate::Planner;
use crate::fit::{NodeView, Over};
use crate::fleet::kinds;

/// Nodes with room that is kept for a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPlaces {
    /// For whom.
    pub reservation: ReservationId,
    /// On how many nodes that would do otherwise.
    pub nodes: u32,
}

/// Nodes that have room for one member now, and have it only because nobody keeps it yet. O(nodes).
pub(super) fn places(ledger: &Ledger, planner: &Planner, request: &Request) -> Vec<KeptPlaces> {
    let kinds = kinds(ledger, request);
    let mut found: BTreeMap<ReservationId, u32> = BTreeMap::new();
    for view in planner.fleet().pool_views(&request.pool) {
        let Some(usage) = ledger.usage(view.node.id) else { continue };
        let Some(kept) = &usage.kept else { continue };
        let free = ledger.offered(&view.node).saturating_sub(&usage.used);
        let over = view.over.as_ref().map(|over| Over {
            solid: view.node.allocatable.saturating_sub(&usage.used.saturating_sub(&usage.loose)),
            offered: over.offered.clone(),
        });
        let now = NodeView { free, over, devices: usage.devices.clone(), ..view.clone() };
        let does = |(amounts, kind): &(plimsoll_types::Resources, Request)| {
            view.fit(kind, amounts).is_err() && now.fit(kind, amounts).is_ok()
        };
        if kinds.iter().any(does) {
            for id in &kept.by {
                *found.entry(*id).or_default() += 1;
            }
        }
    }
    found.into_iter().map(|(reservation, nodes)| KeptPlaces { reservation, nodes }).collect()
}
