//! The fleet as domains, one per node: where and when a request finds room for as long as it runs.

use std::collections::BTreeMap;

use plimsoll_ledger::{Ledger, MemberPlacement};
use plimsoll_types::NodeId;

use super::ask::{Ask, Measure};
use super::profile::Profile;

/// Availability of every node of a pool, in the units of both measures.
#[derive(Clone, Debug, Default)]
pub struct Domains {
    nodes: BTreeMap<NodeId, Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    devices: Profile,
    cpu: Profile,
}

/// A rectangle in the future: when, and on which nodes (one entry for each member).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Milliseconds of ledger time.
    pub start_ms: u64,
    /// A node for each member.
    pub nodes: Vec<NodeId>,
}

impl Domains {
    /// All nodes of a pool that take work, empty. O(n log n) in nodes.
    pub fn of_pool(ledger: &Ledger, pool: &str) -> Domains {
        let nodes = ledger.nodes().filter(|node| node.pool == pool && node.is_eligible());
        let domain = |node: &plimsoll_ledger::Node| {
            let devices = node.registration.devices.iter().filter(|device| !device.failed).count() as u64;
            Node { devices: Profile::new(devices * 1_000), cpu: Profile::new(node.allocatable.cpu_millis.0) }
        };
        Domains { nodes: nodes.map(|node| (node.id, domain(node))).collect() }
    }

    /// Nodes of the pool.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied()
    }

    /// Puts a rectangle in for members on these nodes.
    pub fn take(&mut self, ask: Ask, nodes: &[NodeId], from: u64, until: u64) {
        for node in nodes {
            if let Some(domain) = self.nodes.get_mut(node) {
                domain.measure_mut(ask.measure).take(from, until, ask.units);
            }
        }
    }

    /// Takes it out again.
    pub fn give(&mut self, ask: Ask, nodes: &[NodeId], from: u64, until: u64) {
        for node in nodes {
            if let Some(domain) = self.nodes.get_mut(node) {
                domain.measure_mut(ask.measure).give(from, until, ask.units);
            }
        }
    }

    /// Forgets what was before `now`.
    pub fn trim(&mut self, now: u64) {
        for node in self.nodes.values_mut() {
            node.devices.trim(now);
            node.cpu.trim(now);
        }
    }

    /// True where a device is free anywhere at a moment, or a core.
    pub fn has_room_at(&self, at: u64) -> bool {
        self.nodes.values().any(|node| node.devices.free_at(at) > 0)
            || self.nodes.values().all(|node| node.devices.total() == 0)
    }

    /// Nodes with room for at least one member all the time from `from` to before `until`, with the number of members.
    pub fn with_room(&self, ask: Ask, from: u64, until: u64) -> impl Iterator<Item = (NodeId, u64)> {
        self.nodes.iter().filter_map(move |(id, node)| {
            let members = node.measure(ask.measure).room(from, until) / ask.units.max(1);
            (members > 0).then_some((*id, members))
        })
    }

    /// The first moment, not before `from`, at which all members have room for `duration` ms on nodes that `may` hold them.
    /// Among equally early nodes the fullest are taken. O(breakpoints) for one member; for a gang that, times the breakpoints
    /// before its start.
    pub fn earliest(&self, ask: Ask, from: u64, duration: u64, may: impl Fn(NodeId) -> bool) -> Option<Spot> {
        if ask.members == 1 {
            let each = self.nodes.iter().filter(|(id, _)| may(**id)).filter_map(|(id, node)| {
                let profile = node.measure(ask.measure);
                let start = profile.earliest(from, duration, ask.units)?;
                Some((start, profile.free_at(start), *id))
            });
            return each.min().map(|(start_ms, _, id)| Spot { start_ms, nodes: vec![id] });
        }
        let mut at = from;
        loop {
            if let Some(nodes) = self.gang_at(ask, at, duration, &may) {
                return Some(Spot { start_ms: at, nodes });
            }
            let rises = self.nodes.iter().filter(|(id, _)| may(**id));
            at = rises.filter_map(|(_, node)| node.measure(ask.measure).next_rise(at)).min()?;
        }
    }

    fn gang_at(
        &self,
        ask: Ask,
        at: u64,
        duration: u64,
        may: &impl Fn(NodeId) -> bool,
    ) -> Option<Vec<NodeId>> {
        let roomy = self.with_room(ask, at, at.saturating_add(duration)).filter(|(id, _)| may(*id));
        let mut roomy: Vec<(u64, NodeId)> = roomy.map(|(id, members)| (members, id)).collect();
        roomy.sort_unstable();
        let members = roomy.into_iter().flat_map(|(members, id)| {
            let here = if ask.spread { 1 } else { usize::try_from(members).unwrap_or(usize::MAX) };
            std::iter::repeat_n(id, here.min(ask.members as usize))
        });
        let nodes: Vec<NodeId> = members.take(ask.members as usize).collect();
        (nodes.len() == ask.members as usize).then_some(nodes)
    }
}

impl Node {
    fn measure(&self, measure: Measure) -> &Profile {
        match measure {
            Measure::Devices => &self.devices,
            Measure::Cpu => &self.cpu,
        }
    }

    fn measure_mut(&mut self, measure: Measure) -> &mut Profile {
        match measure {
            Measure::Devices => &mut self.devices,
            Measure::Cpu => &mut self.cpu,
        }
    }
}

/// The nodes of a grant, one entry for each member.
pub(crate) fn nodes_of(members: &[MemberPlacement]) -> Vec<NodeId> {
    members.iter().map(|member| member.node).collect()
}
