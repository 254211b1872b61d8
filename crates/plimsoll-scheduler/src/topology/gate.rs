//! Other work, as one request meets it on each node.

use std::sync::Arc;

use plimsoll_ledger::{Affinity, Domain, Ledger, Request, Surroundings, WorkIndex};
use plimsoll_types::NodeId;

/// The rules about other work of one request, with what is in the ledger and what proposals in flight will add.
#[derive(Clone, Debug)]
pub(crate) struct Gate<'a> {
    ledger: &'a Ledger,
    request: &'a Request,
    surroundings: Surroundings<'a>,
    binds: bool,
}

impl<'a> Gate<'a> {
    /// `None` where no node is another one because of other work.
    pub(crate) fn new(
        ledger: &'a Ledger,
        request: &'a Request,
        booked: &'a Arc<WorkIndex>,
    ) -> Option<Gate<'a>> {
        let counted =
            if booked.is_empty() { vec![ledger.work()] } else { vec![ledger.work(), booked.as_ref()] };
        let surroundings = Surroundings::new(counted);
        if surroundings.are_indifferent(request, &request.pool) {
            return None;
        }
        let binds = surroundings.bind(request, &request.pool);
        Some(Gate { ledger, request, surroundings, binds })
    }

    /// True where some rule must hold.
    pub(crate) fn binds(&self) -> bool {
        self.binds
    }

    pub(crate) fn allows(&self, node: NodeId) -> bool {
        !self.binds
            || self
                .ledger
                .chain(node)
                .is_some_and(|chain| self.surroundings.conflicts(self.request, chain, node).is_empty())
    }

    /// Weight of the wishes that a node does not fulfil.
    pub(crate) fn missed(&self, node: NodeId) -> u64 {
        self.ledger.chain(node).map_or(0, |chain| self.surroundings.missed(self.request, chain, node))
    }

    pub(crate) fn is_met(&self, rule: &Affinity, node: NodeId) -> bool {
        self.ledger.chain(node).is_some_and(|chain| self.surroundings.is_met(rule, chain, node))
    }

    /// Rules that must hold and say with whom to be, but for those that the first may start without.
    pub(crate) fn together(&self) -> impl Iterator<Item = &'a Affinity> {
        let request = self.request;
        let rules = request.affinity.iter().filter(|rule| rule.is_required() && !rule.anti);
        rules.filter(move |rule| {
            let first = request.labels.get(&rule.key) == Some(&rule.value);
            !first || !self.surroundings.domains_with(rule, &request.pool).is_empty()
        })
    }

    /// The wishes, heaviest first.
    pub(crate) fn wishes(&self) -> Vec<&'a Affinity> {
        let mut wishes: Vec<&Affinity> =
            self.request.affinity.iter().filter(|rule| !rule.is_required()).collect();
        wishes.sort_by_key(|rule| std::cmp::Reverse(rule.weight));
        wishes
    }

    /// Domains of the rule's own level with those that it speaks of.
    pub(crate) fn domains_of(&self, rule: &Affinity) -> Vec<&'a Domain> {
        let depth = self.ledger.pool(&self.request.pool).and_then(|pool| pool.depth_of(&rule.level));
        let of_level = |domain: &&Domain| match domain {
            Domain::Node(_) => rule.level == plimsoll_ledger::NODE_LEVEL,
            Domain::Path(values) => {
                rule.level != plimsoll_ledger::NODE_LEVEL && Some(values.len() - 1) == depth
            }
        };
        self.surroundings.domains_with(rule, &self.request.pool).into_iter().filter(of_level).collect()
    }
}
