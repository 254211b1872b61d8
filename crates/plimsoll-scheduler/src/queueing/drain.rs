//! Nodes that are drained for a request: where a place of several devices, or of several nodes, does not come about by
//! itself, the nodes that are expected to be free first are left alone until it fits.
//!
//! The choice is made anew in each walk, since expectations change; what is drained already has an advantage, and gets
//! nothing new but short work.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::Ledger;
use plimsoll_types::NodeId;

use super::ask::{Ask, Measure};

/// Expected rests of what runs on each node, and what is free of it now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rests {
    /// Drained already: they are let go only for others that are expected to be free in half the time.
    draining: BTreeSet<NodeId>,
    nodes: BTreeMap<NodeId, NodeRest>,
}

#[derive(Clone, Debug, Default)]
struct NodeRest {
    free_devices: u64,
    free_cpu: u64,
    /// Expected rest and what it gives back, soonest first.
    ends: Vec<(u64, Ask)>,
}

/// Nodes drained, and for how long that is expected to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drained {
    /// Expected time until the request that it is for has its place, in milliseconds.
    pub(crate) nodes: BTreeMap<NodeId, u64>,
}

impl Rests {
    /// What is free of a pool's nodes, with nothing known of what runs; `draining` are those that the latest walk
    /// drained. O(nodes).
    pub(crate) fn of_pool(ledger: &Ledger, pool: &str, draining: BTreeSet<NodeId>) -> Rests {
        let nodes = ledger.nodes().filter(|node| node.pool == pool && node.is_eligible());
        let rest = |node: &std::sync::Arc<plimsoll_ledger::Node>| {
            let used = ledger.usage(node.id).map_or(&[][..], |usage| &usage.devices);
            let free = node.registration.devices.iter().zip(used);
            let free_devices =
                free.filter(|(device, used)| !device.failed && used.grants == 0).count() as u64;
            let free_cpu = ledger.free(node.id).cpu_millis.0;
            (node.id, NodeRest { free_devices: free_devices * 1_000, free_cpu, ends: Vec::new() })
        };
        Rests { draining, nodes: nodes.map(rest).collect() }
    }

    /// A member on a node is expected to end after `rest_ms`.
    pub(crate) fn add(&mut self, node: NodeId, ask: Ask, rest_ms: u64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            let place = node.ends.partition_point(|(rest, _)| *rest <= rest_ms);
            node.ends.insert(place, (rest_ms, ask));
        }
    }

    /// True where something is free on a drained node.
    pub(crate) fn has_free(&self, drained: &Drained) -> bool {
        let nodes = drained.nodes.keys().filter_map(|id| self.nodes.get(id));
        nodes.into_iter().any(|node| node.free_devices > 0 || node.free_cpu > 0)
    }

    /// Nodes of the pool.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Drains the nodes that are expected to have room for a request first, none of which is drained already. False where
    /// that would be more than `most` in all, or never.
    pub(crate) fn drain(
        &self,
        drained: &mut Drained,
        ask: Ask,
        most: usize,
        may: impl Fn(NodeId) -> bool,
    ) -> bool {
        // A member on a node of its own: no gang needs more nodes than that.
        let members = ask.members as usize;
        if drained.nodes.len() + members > most {
            return false;
        }
        let open = self.nodes.iter().filter(|(id, _)| !drained.nodes.contains_key(id) && may(**id));
        let mut soonest: Vec<(u64, u64, NodeId)> = open
            .filter_map(|(id, node)| {
                let time = node.time_to(ask)?;
                Some((if self.draining.contains(id) { time / 2 } else { time }, time, *id))
            })
            .collect();
        soonest.sort_unstable();
        if soonest.len() < members {
            return false;
        }
        soonest.truncate(members);
        let latest = soonest.iter().map(|(_, time, _)| *time).max().unwrap_or(0);
        drained.nodes.extend(soonest.into_iter().map(|(_, _, id)| (id, latest)));
        true
    }
}

impl NodeRest {
    /// Expected time until a member fits; `None` where it never does.
    fn time_to(&self, ask: Ask) -> Option<u64> {
        let mut free = if ask.measure == Measure::Devices { self.free_devices } else { self.free_cpu };
        let mut time = 0;
        let mut ends = self.ends.iter();
        while free < ask.units {
            let (rest_ms, gives) = ends.next()?;
            if gives.measure == ask.measure {
                free = free.saturating_add(gives.units);
                time = *rest_ms;
            }
        }
        Some(time)
    }
}

impl Drained {
    /// Drained nodes whose request is expected to wait so much longer.
    pub(crate) fn for_at_least(&self, rest_ms: u64) -> BTreeSet<NodeId> {
        self.nodes.iter().filter(|(_, rest)| **rest >= rest_ms).map(|(id, _)| *id).collect()
    }
}
