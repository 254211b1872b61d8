//! Who is where: for each label of requests, how many members that carry it each domain holds, and how many there keep such away. Derived
//! from rows, never stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_types::NodeId;

use crate::{Chain, Domain, Request};

/// Pool, key and value of a label.
type LabelOf = (String, String, String);
/// Shared between copies of a ledger until one of them changes it.
type ByDomain = Arc<BTreeMap<Domain, Members>>;

/// Members in a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// That hold something now.
    pub(crate) now: u64,
    /// That will once those who were given notice have left, and those for whom they leave are there.
    pub(crate) later: u64,
}

/// How many members that carry a label are in which domain, and how many keep such away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkIndex {
    present: BTreeMap<LabelOf, ByDomain>,
    repelled: BTreeMap<LabelOf, ByDomain>,
}

impl WorkIndex {
    /// Counts one member of `request` on a node with this chain, or takes it off. O(labels x levels x log n).
    pub fn change(
        &mut self,
        request: &Request,
        chain: &Chain,
        node: NodeId,
        (now, later): (bool, bool),
        add: bool,
    ) {
        for (key, value) in &request.labels {
            let of = (chain.pool.clone(), key.clone(), value.clone());
            let domains = chain.domains.iter().cloned().chain([Domain::Node(node)]);
            change(&mut self.present, of, domains, (now, later), add);
        }
        for rule in request.affinity.iter().filter(|rule| rule.anti && rule.is_required()) {
            let of = (chain.pool.clone(), rule.key.clone(), rule.value.clone());
            change(&mut self.repelled, of, chain.at(node, &rule.level).into_iter(), (now, later), add);
        }
    }

    /// True where somebody keeps some label away from somewhere.
    pub fn has_rules(&self) -> bool {
        !self.repelled.is_empty()
    }

    /// True where nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty() && self.repelled.is_empty()
    }

    /// Members with the label in a domain.
    pub(crate) fn present(&self, of: &LabelOf, domain: &Domain) -> Members {
        self.present.get(of).and_then(|by| by.get(domain)).copied().unwrap_or_default()
    }

    /// Members in a domain that keep the label away from it.
    pub(crate) fn repelled(&self, of: &LabelOf, domain: &Domain) -> Members {
        self.repelled.get(of).and_then(|by| by.get(domain)).copied().unwrap_or_default()
    }

    /// Domains with members that carry the label.
    pub(crate) fn domains(&self, of: &LabelOf) -> impl Iterator<Item = (&Domain, Members)> {
        self.present.get(of).into_iter().flat_map(|by| by.iter()).map(|(domain, members)| (domain, *members))
    }

    /// True where somebody keeps the label away from somewhere.
    pub(crate) fn repels(&self, of: &LabelOf) -> bool {
        self.repelled.contains_key(of)
    }
}

fn change(
    table: &mut BTreeMap<LabelOf, ByDomain>,
    of: LabelOf,
    domains: impl Iterator<Item = Domain>,
    (now, later): (bool, bool),
    add: bool,
) {
    let by_domain = Arc::make_mut(table.entry(of.clone()).or_default());
    for domain in domains {
        let members = by_domain.entry(domain.clone()).or_default();
        for (count, counts) in [(&mut members.now, now), (&mut members.later, later)] {
            match (counts, add) {
                (false, _) => {}
                (true, true) => *count += 1,
                (true, false) => *count -= 1,
            }
        }
        if *members == Members::default() {
            by_domain.remove(&domain);
        }
    }
    if by_domain.is_empty() {
        table.remove(&of);
    }
}
