//! Nodes for members inside their domains, and beside other work.

use std::collections::BTreeSet;

use plimsoll_ledger::{Chain, Domain, Ledger, Pool, Preferred, Request, Strategy};
use plimsoll_types::{NodeId, Operator, Resources, Term};

use crate::fit::NodeView;
use crate::fleet::Fleet;
use crate::fragmentation::descends;
use crate::score::score;
use crate::search::{CANDIDATES, FEW, Spot, WISHES, wishes_missed};
use crate::topology::split::Depths;
use crate::topology::tallies::shape_of;
use crate::topology::tree::Tree;
use crate::topology::{Gate, members_on};

/// Members that go to one domain.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) members: u32,
    /// The labels of the domain; none for the pool.
    pub(crate) terms: Vec<Term>,
    /// The domain is this node.
    pub(crate) node: Option<NodeId>,
}

/// Where a member is looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope<'a> {
    /// Labels of the domain that it goes to.
    pub(crate) terms: &'a [Term],
    /// The one node that it goes to.
    pub(crate) node: Option<NodeId>,
    /// Other work that it must or should be with or apart from.
    pub(crate) gate: Option<&'a Gate<'a>>,
}

impl Part {
    /// All members, anywhere in the pool.
    pub(crate) fn anywhere(members: u32) -> Part {
        Part { members, terms: Vec::new(), node: None }
    }

    fn of(members: u32, domain: Option<&Domain>, pool: &Pool) -> Part {
        match domain {
            None => Part::anywhere(members),
            Some(Domain::Node(node)) => Part { node: Some(*node), ..Part::anywhere(members) },
            Some(Domain::Path(values)) => Part { terms: terms(pool, values), ..Part::anywhere(members) },
        }
    }
}

/// The domains of a node that is in the request's pool still: the planner may not have read yet that it moved.
fn chain_in<'a>(ledger: &'a Ledger, node: NodeId, request: &Request) -> Option<&'a Chain> {
    ledger.chain(node).filter(|chain| chain.pool == request.pool)
}

fn terms(pool: &Pool, values: &[String]) -> Vec<Term> {
    let term = |(key, value): (&String, &String)| Term {
        key: key.clone(),
        operator: Operator::In,
        values: vec![value.clone()],
    };
    pool.topology.iter().zip(values).map(term).collect()
}

impl Fleet {
    /// The domains that the members of a request go to; `None` where no choice of domains takes `least`.
    pub(crate) fn parts(
        &mut self,
        ledger: &Ledger,
        request: &Request,
        amounts: &Resources,
        (least, most): (u32, u32),
        gate: Option<&Gate<'_>>,
    ) -> Option<Vec<Part>> {
        if request.topology.is_unconstrained() {
            return Some(vec![Part::anywhere(most)]);
        }
        let pool = ledger.pool(&request.pool)?;
        let depths = Depths::of(request, pool)?;
        let most = most - most % request.topology.group();
        let binding = gate.filter(|gate| gate.binds());
        let part = |tree: &Tree| {
            let parts = tree.split(depths, least, most)?;
            Some(
                parts
                    .into_iter()
                    .map(|(id, members)| Part::of(members, tree.spot(id).domain.as_ref(), pool))
                    .collect(),
            )
        };
        if let Some(gate) = binding {
            let tree = self.tree(ledger, request, depths, &|view| {
                if gate.allows(view.node.id) { members_on(view, request, amounts, false) } else { 0 }
            });
            return part(&tree);
        }
        let (shape, nodes) = (shape_of(request, &pool.topology), self.slots.len());
        let mut tallies = std::mem::take(&mut self.tallies);
        let known = tallies.take(shape, nodes, |tree, changed| {
            for node in changed {
                match (self.slot(*node), chain_in(ledger, *node, request)) {
                    (Some(slot), Some(chain)) if !slot.hidden && slot.view.node.pool == request.pool => {
                        tree.set(*node, chain, members_on(&slot.view, request, amounts, false));
                    }
                    _ => tree.unset(*node),
                }
            }
        });
        let count = |view: &NodeView| members_on(view, request, amounts, false);
        let tree = known.unwrap_or_else(|| self.tree(ledger, request, depths, &count));
        let parts = part(&tree);
        tallies.keep(shape, tree, nodes);
        self.tallies = tallies;
        parts
    }

    /// The tree of domains with what each node takes by `count`. O(nodes of the pool).
    fn tree(
        &self,
        ledger: &Ledger,
        request: &Request,
        depths: Depths,
        count: &dyn Fn(&NodeView) -> u32,
    ) -> Tree {
        let levels = ledger.pool(&request.pool).map_or(0, |pool| pool.topology.len());
        let mut tree = Tree::new(levels, depths.required, depths.group);
        for view in self.pool_views(&request.pool) {
            let hidden = self.slot(view.node.id).is_some_and(|slot| slot.hidden);
            if let Some(chain) = chain_in(ledger, view.node.id, request).filter(|_| !hidden) {
                tree.set(view.node.id, chain, count(view));
            }
        }
        tree
    }

    /// Most members that one domain of the required level takes, now or (`empty`) with nothing on any node, and the name of that domain.
    /// `None` where nothing is asked of domains. O(nodes of the pool).
    pub(crate) fn best_domain(
        &self,
        ledger: &Ledger,
        request: &Request,
        amounts: &Resources,
        gate: Option<&Gate<'_>>,
        empty: bool,
    ) -> Option<(String, u32)> {
        let pool = ledger.pool(&request.pool)?;
        let depths = Some(request).filter(|request| !request.topology.is_unconstrained());
        let depths = Depths::of(depths?, pool)?;
        let tree = self.tree(ledger, request, depths, &|view| {
            let barred = !empty && gate.is_some_and(|gate| !gate.allows(view.node.id));
            if barred { 0 } else { members_on(view, request, amounts, empty) }
        });
        let (best, members) = tree.best(depths);
        let level = &request.topology.required;
        let name = match best.and_then(|id| tree.spot(id).domain.as_ref()) {
            Some(domain) => ledger.domain_name(level, domain),
            None if level.is_empty() => {
                format!("groups of {} in one {}", request.topology.slice_size, request.topology.slice_level)
            }
            None => level.clone(),
        };
        Some((name, members))
    }

    /// The best spot where other work counts: the first candidates of the pool's own order, and of the order of those nodes where each wish
    /// holds, by the weight of what they miss.
    pub(crate) fn best_beside(
        &mut self,
        request: &Request,
        amounts: &Resources,
        strategy: Strategy,
        scope: Scope<'_>,
        gate: &Gate<'_>,
    ) -> Option<Spot> {
        let strategy = if descends(strategy) { Strategy::BestFit } else { strategy };
        let allowed = |view: &NodeView| gate.allows(view.node.id);
        let together: Option<BTreeSet<NodeId>> =
            gate.together().map(|rule| self.nodes_with(request, gate, rule)).min_by_key(BTreeSet::len);
        let mut found: BTreeSet<NodeId> = BTreeSet::new();
        if let Some(nodes) = together {
            found.extend(
                nodes.into_iter().filter(|id| self.is_candidate(*id, request, amounts, scope, &allowed)),
            );
        } else {
            found.extend(self.gather(request, amounts, strategy, scope, &[], &allowed));
            let mut wishes: Vec<&Preferred> = request.requirements.preferred.iter().collect();
            wishes.sort_by_key(|wish| std::cmp::Reverse(wish.weight));
            for wish in wishes.into_iter().take(WISHES) {
                found.extend(self.gather(request, amounts, strategy, scope, &[&wish.term], &allowed));
            }
            for rule in gate.wishes().into_iter().take(WISHES) {
                if rule.anti {
                    let apart = |view: &NodeView| gate.is_met(rule, view.node.id) && allowed(view);
                    found.extend(self.gather(request, amounts, strategy, scope, &[], &apart));
                } else {
                    let nodes = self.nodes_with(request, gate, rule);
                    found.extend(
                        nodes
                            .into_iter()
                            .filter(|id| self.is_candidate(*id, request, amounts, scope, &allowed)),
                    );
                }
            }
        }
        let scored = found.into_iter().filter_map(|id| {
            let view = self.get(id)?;
            let devices = view.fit(request, amounts).ok()?;
            let missed = wishes_missed(request, view) + gate.missed(id);
            Some((score(strategy, view, amounts, &devices, missed), (id, devices)))
        });
        scored.min_by_key(|(score, _)| *score).map(|(_, spot)| spot)
    }

    /// Nodes of the domains with those that a rule speaks of.
    fn nodes_with(
        &self,
        request: &Request,
        gate: &Gate<'_>,
        rule: &plimsoll_ledger::Affinity,
    ) -> BTreeSet<NodeId> {
        let mut nodes = BTreeSet::new();
        for domain in gate.domains_of(rule) {
            match domain {
                Domain::Node(node) => drop(nodes.insert(*node)),
                // By the innermost label alone: the rule itself is put to each node.
                Domain::Path(values) => {
                    let innermost = values.last().cloned().unwrap_or_default();
                    let term =
                        Term { key: rule.level.clone(), operator: Operator::In, values: vec![innermost] };
                    nodes.extend(self.candidates(&request.pool, &[&term]).1);
                }
            }
        }
        nodes
    }

    fn is_candidate(
        &self,
        id: NodeId,
        request: &Request,
        amounts: &Resources,
        scope: Scope<'_>,
        keep: &dyn Fn(&NodeView) -> bool,
    ) -> bool {
        self.slot(id).filter(|slot| !slot.hidden).is_some_and(|slot| {
            let view = &slot.view;
            view.node.pool == request.pool
                && scope.node.is_none_or(|only| only == id)
                && scope.terms.iter().all(|term| term.matches(&view.labels))
                && view.fit(request, amounts).is_ok()
                && keep(view)
        })
    }

    /// The first nodes in the order of the strategy that fit and are to be kept: all where few carry the labels.
    fn gather(
        &mut self,
        request: &Request,
        amounts: &Resources,
        strategy: Strategy,
        scope: Scope<'_>,
        wishes: &[&Term],
        keep: &dyn Fn(&NodeView) -> bool,
    ) -> Vec<NodeId> {
        if let Some(node) = scope.node {
            return Some(node)
                .filter(|id| self.is_candidate(*id, request, amounts, scope, keep))
                .into_iter()
                .collect();
        }
        let terms: Vec<&Term> = scope.terms.iter().chain(wishes.iter().copied()).collect();
        let lens = crate::lens::Lens::new(request, amounts, strategy, &terms);
        if !lens.terms.is_empty() {
            let (count, ids) = self.candidates(lens.pool, &lens.terms);
            if count <= FEW {
                let meets = |id: &NodeId| {
                    self.get(*id).is_some_and(|view| wishes.iter().all(|term| term.matches(&view.labels)))
                        && self.is_candidate(*id, request, amounts, scope, keep)
                };
                return ids.filter(meets).collect();
            }
        }
        let view = self.view_of(&lens);
        let Some(view) = self.views.get(view) else { return Vec::new() };
        let need = view.lens.need(request.requirements.gpu.as_ref(), amounts, view.largest_device_bytes);
        let mut after = None;
        let keys = std::iter::from_fn(|| {
            after = view.order.next(after, &need);
            after
        });
        keys.map(|key| key.node)
            .filter(|id| self.is_candidate(*id, request, amounts, scope, keep))
            .take(CANDIDATES)
            .collect()
    }

    /// The one node of a scope, where it takes a member.
    pub(crate) fn spot_on(&self, node: NodeId, request: &Request, amounts: &Resources) -> Option<Spot> {
        let slot = self.slot(node).filter(|slot| !slot.hidden)?;
        Some((node, slot.view.fit(request, amounts).ok()?))
    }
}
