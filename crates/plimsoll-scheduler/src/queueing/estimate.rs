//! When what waits will start, as things are now.

use plimsoll_types::{LedgerTime, ReservationId, Revision};

use super::domains::Domains;
use super::entry::{Entry, Running};

/// An estimated start, and what it was worked out from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartEstimate {
    /// Who waits.
    pub reservation: ReservationId,
    /// When it is expected to start; `None` where nothing that runs or is planned would ever make room.
    pub start_at: Option<LedgerTime>,
    /// The revision of the ledger that it was computed at.
    pub revision: Revision,
    /// Every length that it rests on was declared; else some were expected only.
    pub is_hard: bool,
}

/// Lengths that estimates reckon with.
pub(crate) struct Lengths<'a> {
    /// Expected length of one that waits, and the rest of one that runs, in milliseconds.
    pub(crate) of_waiting: &'a mut dyn FnMut(&Entry) -> u64,
    pub(crate) of_running: &'a mut dyn FnMut(&Running) -> u64,
}

/// Estimates for all of `waiting`, which come in the order in which they are served: each gets the earliest rectangle that
/// delays none before it. O(waiting x nodes x breakpoints).
pub(crate) fn estimates<'a>(
    mut domains: Domains,
    running: impl Iterator<Item = &'a Running>,
    waiting: &[&Entry],
    now_ms: u64,
    revision: Revision,
    lengths: Lengths<'_>,
    may: &dyn Fn(&Entry, plimsoll_types::NodeId) -> bool,
) -> Vec<StartEstimate> {
    let mut is_hard = true;
    for lease in running {
        is_hard &= lease.declared_end_ms.is_some();
        let rest_ms = (lengths.of_running)(lease).max(1);
        domains.take(lease.entry.ask, &lease.nodes, now_ms, now_ms.saturating_add(rest_ms));
    }
    let estimate = |entry: &&Entry| {
        let length = (lengths.of_waiting)(entry).max(1);
        is_hard &= entry.declared_ms().is_some();
        let spot = domains.earliest(entry.ask, now_ms, length, |node| may(entry, node));
        if let Some(spot) = &spot {
            let until_ms = spot.start_ms.saturating_add(length);
            domains.take(entry.ask, &spot.nodes, spot.start_ms, until_ms);
        }
        let start_at = spot.map(|spot| LedgerTime(spot.start_ms));
        StartEstimate { reservation: entry.id, start_at, revision, is_hard }
    };
    waiting.iter().map(estimate).collect()
}
