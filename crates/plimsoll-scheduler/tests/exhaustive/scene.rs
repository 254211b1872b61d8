//! What a request meets: nodes, and those who hold something.

use std::collections::BTreeSet;

use plimsoll_ledger::{Device, GpuShare, Ledger, MemberPlacement, Node, Pool, Qos, Request, Reservation};
use plimsoll_types::{Labels, NodeId, ReservationId, Resources};

use super::rules::Rule;

/// The rows of a ledger, and how they are looked at.
#[derive(Clone, Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) ledger: &'a Ledger,
    /// Those who hold something.
    pub(crate) held: Vec<&'a Reservation>,
    /// Nothing is on any node, every node takes work, and other work may come: what could be one day.
    pub(crate) empty: bool,
    /// A rule that is not looked at: for tests of the tests.
    pub(crate) forgotten: Option<Rule>,
}

impl<'a> Scene<'a> {
    /// The ledger as it is.
    pub(crate) fn of(ledger: &'a Ledger) -> Scene<'a> {
        let held = ledger.reservations().map(AsRef::as_ref).filter(|one| one.state.is_occupying()).collect();
        Scene { ledger, held, empty: false, forgotten: None }
    }

    /// The same nodes with nothing on them.
    pub(crate) fn emptied(&self) -> Scene<'a> {
        Scene { held: Vec::new(), empty: true, ..self.clone() }
    }

    /// The same without some of those who hold something.
    pub(crate) fn without(&self, gone: &BTreeSet<ReservationId>) -> Scene<'a> {
        let held = self.held.iter().copied().filter(|one| !gone.contains(&one.id)).collect();
        Scene { held, ..self.clone() }
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &'a Node> {
        self.ledger.nodes().map(AsRef::as_ref)
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<&'a Node> {
        self.nodes().find(|node| node.id == id)
    }

    pub(crate) fn pool(&self, name: &str) -> Option<&'a Pool> {
        self.ledger.pools().map(AsRef::as_ref).find(|pool| pool.name == name)
    }

    /// Members of those who hold something, with whose they are.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&'a Reservation, &'a MemberPlacement)> {
        self.held.iter().flat_map(|one| one.members.iter().map(|member| (*one, member)))
    }

    /// What is taken of a resource on a node. What the pool counts as a whole is not taken of nodes.
    pub(crate) fn used_on(&self, node: NodeId, name: &str) -> u64 {
        self.members().filter(|(_, member)| member.node == node).map(|(one, _)| one.amounts.get(name).0).sum()
    }

    /// What best effort has of it.
    pub(crate) fn loose_on(&self, node: NodeId, name: &str) -> u64 {
        let loose = |one: &Reservation| one.request.qos == Some(Qos::BestEffort);
        let here = self.members().filter(|(one, member)| member.node == node && loose(one));
        here.map(|(one, _)| one.amounts.get(name).0).sum()
    }

    /// What is taken of a countable of a pool.
    pub(crate) fn used_in(&self, pool: &str, name: &str) -> u64 {
        let there = self.held.iter().filter(|one| one.request.pool == pool);
        there.map(|one| one.amounts.get(name).0 * one.members.len() as u64).sum()
    }
}

/// Labels of a node, with `node` and `gpu` where it does not set these itself (semantics, 5.5 of section 5).
pub(crate) fn labels_of(node: &Node) -> Labels {
    let mut labels = node.registration.labels.clone();
    labels.entry("node".into()).or_insert_with(|| node.registration.name.clone());
    if let Some(first) = node.registration.devices.first() {
        labels.entry("gpu".into()).or_insert_with(|| first.model.clone());
    }
    labels
}

/// The domain of a node at a level of its pool, as text; `None` where it is in none.
pub(crate) fn domain_of(node: &Node, pool: &Pool, level: &str) -> Option<String> {
    if level == "node" {
        return Some(node.registration.name.clone());
    }
    let labels = labels_of(node);
    let last = pool.topology.iter().position(|known| known == level)?;
    let values: Option<Vec<String>> =
        pool.topology[..=last].iter().map(|level| labels.get(level).cloned()).collect();
    Some(values?.join("/"))
}

/// What a share takes of a device: thousandths and bytes. `None` where the device has no such profile.
pub(crate) fn taken_of(device: &Device, share: GpuShare) -> Option<(u64, u64)> {
    let memory = device.memory_bytes;
    match share {
        GpuShare::Whole => Some((1_000, memory)),
        GpuShare::Milli(milli) => Some((u64::from(milli), memory * u64::from(milli) / 1_000)),
        GpuShare::Memory(bytes) => Some(((1_000 * bytes).div_ceil(memory).max(1), bytes)),
        GpuShare::Mig(name) => {
            let layout = device.mig.as_ref()?;
            let profile = layout.profiles.iter().find(|profile| profile.name == name)?;
            let (all_compute, all_memory) =
                (u64::from(layout.compute_slices), u64::from(layout.memory_slices));
            let (compute, memory) = (u64::from(profile.compute_slices), u64::from(profile.memory_slices));
            let milli =
                1_000 * (compute * all_memory + memory * all_compute) / (2 * all_compute * all_memory);
            Some((milli.max(1), profile.memory_bytes))
        }
    }
}

/// The charge of members: amounts of each, and `gpu` in thousandths (semantics, 5.1).
pub(crate) fn charge_of(amounts: &Resources, members: &[MemberPlacement]) -> Vec<(String, u64)> {
    let mut charge: Vec<(String, u64)> =
        amounts.iter().map(|(name, amount)| (name.to_owned(), amount.0 * members.len() as u64)).collect();
    let milli = members.iter().flat_map(|member| &member.devices).map(|grant| u64::from(grant.milli)).sum();
    charge.push(("gpu".to_owned(), milli));
    charge
}

/// True where members go in groups.
pub(crate) fn in_groups(request: &Request) -> bool {
    request.topology.slice_size > 1
}
