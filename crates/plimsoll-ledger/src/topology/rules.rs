//! The rules about other work, put to one node: the same for `admit` and the planner.

use crate::admit::Sight;
use std::collections::BTreeSet;

use plimsoll_types::NodeId;

use crate::topology::work::Members;
use crate::{Affinity, Chain, Domain, Request, WorkIndex};

/// Other work as one request sees it: what is counted in the ledger, and beside it what proposals in flight will add.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    counted: Vec<&'a WorkIndex>,
    seen: Sight,
}

/// A rule that keeps a request from a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The rule in words: `app=web@rack`.
    pub rule: String,
    /// The domain that it is about; `None` where the node is in no domain of the level.
    pub domain: Option<Domain>,
    /// Why it does not hold.
    pub kind: ConflictKind,
    /// Members there that the rule is about.
    pub members: u64,
}

/// Why a rule about other work does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConflictKind {
    /// None of those are there that the request wants to be with.
    Missing,
    /// Some are there that the request keeps apart from.
    Present,
    /// Somebody there keeps apart from what the request carries.
    Repelled,
}

impl<'a> Surroundings<'a> {
    /// As a new request finds it.
    pub fn new(counted: Vec<&'a WorkIndex>) -> Surroundings<'a> {
        Surroundings { counted, seen: Sight::Both }
    }

    pub(crate) fn seen(counted: &'a WorkIndex, seen: Sight) -> Surroundings<'a> {
        Surroundings { counted: vec![counted], seen }
    }

    /// True where no node is another one for this request because of other work.
    pub fn are_indifferent(&self, request: &Request, pool: &str) -> bool {
        request.affinity.is_empty() && !self.bind(request, pool)
    }

    /// True where other work may keep this request from some nodes.
    pub fn bind(&self, request: &Request, pool: &str) -> bool {
        request.affinity.iter().any(Affinity::is_required)
            || request.labels.iter().any(|(key, value)| {
                let of = (pool.to_owned(), key.clone(), value.clone());
                self.counted.iter().any(|index| index.repels(&of))
            })
    }

    /// Every rule that keeps the request from a node.
    pub fn conflicts(&self, request: &Request, chain: &Chain, node: NodeId) -> Vec<Conflict> {
        let mut found = Vec::new();
        for rule in request.affinity.iter().filter(|rule| rule.is_required()) {
            let domain = chain.at(node, &rule.level);
            let members = self.members(rule, chain, domain.as_ref());
            let worlds = self.worlds();
            let holds = |world: &World| {
                (world.of(members) > 0) != rule.anti
                    || (!rule.anti && self.is_first(rule, request, chain, *world))
            };
            if worlds.iter().all(holds) {
                continue;
            }
            let kind = if rule.anti { ConflictKind::Present } else { ConflictKind::Missing };
            found.push(Conflict { rule: rule.to_string(), domain, kind, members: self.those(members) });
        }
        for (key, value) in &request.labels {
            let of = (chain.pool.clone(), key.clone(), value.clone());
            for domain in chain.domains.iter().cloned().chain([Domain::Node(node)]) {
                let members = self.sum(|index| index.repelled(&of, &domain));
                if self.those(members) > 0 {
                    found.push(Conflict {
                        rule: format!("{key}={value}"),
                        domain: Some(domain),
                        kind: ConflictKind::Repelled,
                        members: self.those(members),
                    });
                }
            }
        }
        found
    }

    /// Weight of the wishes about other work that a node does not fulfil.
    pub fn missed(&self, request: &Request, chain: &Chain, node: NodeId) -> u64 {
        let wishes = request.affinity.iter().filter(|rule| !rule.is_required());
        let missed = wishes.filter(|rule| !self.is_met(rule, chain, node));
        missed.map(|rule| u64::from(rule.weight)).sum()
    }

    /// True where a rule holds for a node, be it one that must or one that should.
    pub fn is_met(&self, rule: &Affinity, chain: &Chain, node: NodeId) -> bool {
        let members = self.members(rule, chain, chain.at(node, &rule.level).as_ref());
        self.worlds().iter().all(|world| (world.of(members) > 0) != rule.anti)
    }

    /// Domains of any level with members of whom the rule speaks.
    pub fn domains_with(&self, rule: &Affinity, pool: &str) -> BTreeSet<&'a Domain> {
        let of = (pool.to_owned(), rule.key.clone(), rule.value.clone());
        self.counted.iter().flat_map(|index| index.domains(&of)).map(|(domain, _)| domain).collect()
    }

    /// Whoever carries the label that it wants to be with may be the first: where nobody in the pool does.
    fn is_first(&self, rule: &Affinity, request: &Request, chain: &Chain, world: World) -> bool {
        let of = (chain.pool.clone(), rule.key.clone(), rule.value.clone());
        let anybody = |index: &&WorkIndex| index.domains(&of).any(|(_, members)| world.of(members) > 0);
        request.labels.get(&rule.key) == Some(&rule.value) && !self.counted.iter().any(anybody)
    }

    fn members(&self, rule: &Affinity, chain: &Chain, domain: Option<&Domain>) -> Members {
        let of = (chain.pool.clone(), rule.key.clone(), rule.value.clone());
        domain.map(|domain| self.sum(|index| index.present(&of, domain))).unwrap_or_default()
    }

    fn sum(&self, of: impl Fn(&WorkIndex) -> Members) -> Members {
        self.counted.iter().map(|index| of(index)).fold(Members::default(), |sum, members| Members {
            now: sum.now + members.now,
            later: sum.later + members.later,
        })
    }

    fn worlds(&self) -> &'static [World] {
        match self.seen {
            Sight::Both => &[World::Now, World::Later],
            Sight::Now => &[World::Now],
            Sight::Later => &[World::Later],
        }
    }

    /// Most in any world that is looked at.
    fn those(&self, members: Members) -> u64 {
        self.worlds().iter().map(|world| world.of(members)).max().unwrap_or_default()
    }
}

/// One of the two worlds that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum World {
    Now,
    Later,
}

impl World {
    fn of(self, members: Members) -> u64 {
        match self {
            World::Now => members.now,
            World::Later => members.later,
        }
    }
}
