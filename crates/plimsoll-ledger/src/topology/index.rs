//! The domains of nodes and who is in them, kept in step with rows by `index.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_types::{NodeId, ReservationId};

use crate::{Chain, Ledger, Node, Reservation, WorkIndex};

/// Derived: the domains of each node, and who is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) chains: BTreeMap<NodeId, Chain>,
    pub(crate) index: WorkIndex,
}

impl Ledger {
    /// The domains that a node is in.
    pub fn chain(&self, id: NodeId) -> Option<&Chain> {
        self.work.chains.get(&id)
    }

    /// How many members with which label are in which domain.
    pub fn work(&self) -> &WorkIndex {
        &self.work.index
    }

    /// A node came or changed: whoever is on it is counted where it is now.
    pub(crate) fn chain_node(&mut self, node: &Node) {
        let chain = self.chain_of(node);
        if self.work.chains.get(&node.id) == Some(&chain) {
            return;
        }
        let on_it = self.counted_on(node.id);
        self.count_on(node.id, &on_it, false);
        self.work.chains.insert(node.id, chain);
        self.count_on(node.id, &on_it, true);
    }

    /// A node goes, with nobody on it.
    pub(crate) fn unchain_node(&mut self, id: NodeId) {
        self.work.chains.remove(&id);
    }

    /// Counts all members of a reservation, or takes them off.
    pub(crate) fn count_work(&mut self, reservation: &Reservation, add: bool) {
        for member in &reservation.members {
            self.count_member(reservation, member.node, add);
        }
    }

    /// Levels of pools changed: everything anew. O(nodes + reservations).
    pub(crate) fn recount_work(&mut self) {
        let nodes: Vec<Arc<Node>> = self.nodes().cloned().collect();
        let chains = nodes.iter().map(|node| (node.id, self.chain_of(node))).collect();
        self.work = Work { chains, index: WorkIndex::default() };
        let placed: Vec<Arc<Reservation>> =
            self.reservations.values().filter(|r| !r.members.is_empty()).cloned().collect();
        for reservation in &placed {
            self.count_work(reservation, true);
        }
    }

    fn chain_of(&self, node: &Node) -> Chain {
        let levels: Arc<[String]> =
            self.pool(&node.pool).map(|pool| pool.topology.as_slice()).unwrap_or_default().into();
        if levels.is_empty() {
            return Chain { pool: node.pool.clone(), levels, domains: Vec::new() };
        }
        Chain::new(&node.pool, &levels, &node.effective_labels())
    }

    fn counted_on(&self, id: NodeId) -> Vec<Arc<Reservation>> {
        let Some(slot) = self.slot(id) else { return Vec::new() };
        let kept_for = slot.usage.kept.iter().flat_map(|kept| &kept.by);
        let ids: std::collections::BTreeSet<ReservationId> =
            slot.usage.holders.iter().chain(kept_for).copied().collect();
        ids.iter().filter_map(|id| self.reservations.get(id)).cloned().collect()
    }

    fn count_on(&mut self, id: NodeId, reservations: &[Arc<Reservation>], add: bool) {
        for reservation in reservations {
            for member in reservation.members.iter().filter(|member| member.node == id) {
                self.count_member(reservation, member.node, add);
            }
        }
    }

    fn count_member(&mut self, reservation: &Reservation, node: NodeId, add: bool) {
        let request = &reservation.request;
        let counts = (reservation.state.is_occupying(), reservation.is_staying());
        if request.labels.is_empty() && request.affinity.is_empty() || counts == (false, false) {
            return;
        }
        if let Some(chain) = self.work.chains.get(&node) {
            self.work.index.change(request, chain, node, counts, add);
        }
    }
}
