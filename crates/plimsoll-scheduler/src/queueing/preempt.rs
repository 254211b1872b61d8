//! Whose place is taken: for a request that does not fit, what runs and has had more service.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::Ledger;
use plimsoll_types::{NodeId, ReservationId};

use super::ask::Measure;
use super::discipline::Settings;
use super::entry::{Entry, Running};
use super::rank::{is_due, level};

/// What runs on each node.
pub(crate) type ByNode = BTreeMap<NodeId, BTreeSet<ReservationId>>;

/// Reservations whose end makes room for `entry`, the fewest on each node; none where that needs one that may not be
/// preempted. May be: what has run for `protected_ms` since it was started, was not started for having waited too
/// long, is of no higher class, and is on a higher level of service (on any, where `entry` is due).
///
/// A victim is on a higher level than its preemptor and so cannot take the place back: the walk settles. O(what runs).
pub(crate) fn victims(
    ledger: &Ledger,
    running: &BTreeMap<ReservationId, Running>,
    by_node: &ByNode,
    settings: &Settings,
    entry: &Entry,
    now_ms: u64,
    may: impl Fn(NodeId) -> bool,
) -> Option<BTreeSet<ReservationId>> {
    if entry.ask.measure != Measure::Devices {
        return None;
    }
    let due = is_due(settings, entry, now_ms);
    let own_level = level(entry.attained_ms);
    let may_go = |other: &Running| {
        let higher = level(other.attained_ms(now_ms)) > own_level;
        let ran_ms = now_ms.saturating_sub(other.started_ms);
        !other.was_due
            && other.entry.priority <= entry.priority
            && (due || higher)
            && ran_ms >= settings.protected_ms
    };
    let mut offers: Vec<(Reverse<u64>, u64, NodeId, Vec<ReservationId>)> = Vec::new();
    for node in ledger.nodes().map(|node| node.id).filter(|node| may(*node)) {
        let mut free = free_units(ledger, node);
        let residents = by_node.get(&node).into_iter().flatten().filter_map(|id| running.get(id));
        let mut order: Vec<(Reverse<u64>, Reverse<u64>, ReservationId)> = residents
            .filter(|other| may_go(other))
            .map(|other| {
                (Reverse(level(other.attained_ms(now_ms))), Reverse(other.started_ms), other.entry.id)
            })
            .collect();
        order.sort_unstable();
        let (mut chosen, mut lost, mut least) = (Vec::new(), 0u64, u64::MAX);
        for (Reverse(level), _, id) in order {
            if free >= entry.ask.units {
                break;
            }
            let Some(other) = running.get(&id) else { continue };
            let here = other.nodes.iter().filter(|on| **on == node).count() as u64;
            free = free.saturating_add(other.entry.ask.units.saturating_mul(here));
            lost = lost.saturating_add(other.entry.ask.total());
            least = least.min(level);
            chosen.push(id);
        }
        if free >= entry.ask.units {
            offers.push((Reverse(least), lost, node, chosen));
        }
    }
    // Those with the most service first, then the least that stops for it.
    offers.sort_unstable_by_key(|offer| (offer.0, offer.1, offer.2));
    let members = entry.ask.members as usize;
    (offers.len() >= members)
        .then(|| offers.into_iter().take(members).flat_map(|(_, _, _, chosen)| chosen).collect())
}

/// Thousandths of devices of a node that nobody has a part of.
fn free_units(ledger: &Ledger, node: NodeId) -> u64 {
    let (Some(node), Some(usage)) = (ledger.node(node), ledger.usage(node)) else { return 0 };
    let devices = node.registration.devices.iter().zip(&usage.devices);
    devices.filter(|(device, used)| !device.failed && used.grants == 0).count() as u64 * 1_000
}
