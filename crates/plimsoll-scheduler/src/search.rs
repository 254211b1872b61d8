//! The best node for one member: by wishes first, then by the pool's strategy.

use plimsoll_ledger::{DeviceGrant, Preferred, Request, Strategy};
use plimsoll_mutants::mutant;
use plimsoll_types::{NodeId, Resources, Term};

use crate::fit::NodeView;
use crate::fleet::Fleet;
use crate::fragmentation::descends;
use crate::lens::Lens;
use crate::order::Key;
use crate::score::{Score, score};
use crate::topology::Scope;
use crate::views::ViewId;

/// Where labels leave so few nodes, each is looked at; a view would cost more.
pub(crate) const FEW: usize = 32;
/// Nodes looked at where the order of the view is not yet the strategy's whole measure.
pub(crate) const CANDIDATES: usize = 8;
/// Wishes that are tried in all combinations, heaviest first. Those beyond weigh among the candidates only.
pub(crate) const WISHES: usize = 4;

/// Where a member could go.
pub(crate) type Spot = (NodeId, Vec<DeviceGrant>);

impl Fleet {
    /// Makes the view of all nodes of a pool, so that the first request need not wait for it.
    pub(crate) fn open_pool(&mut self, pool: &str, strategy: Strategy) {
        self.view_of(&Lens::pool(pool, strategy));
    }

    /// The best spot for one member. `random` says where the random strategy starts.
    pub(crate) fn best(
        &mut self,
        request: &Request,
        amounts: &Resources,
        strategy: Strategy,
        random: u64,
        scope: Scope<'_>,
    ) -> Option<Spot> {
        if let Some(gate) = scope.gate {
            return self.best_beside(request, amounts, strategy, scope, gate);
        }
        if let Some(node) = scope.node {
            return self.spot_on(node, request, amounts);
        }
        let inside: Vec<&Term> = scope.terms.iter().collect();
        let mut wishes: Vec<&Preferred> = request.requirements.preferred.iter().collect();
        if wishes.is_empty() {
            return self.best_with(request, amounts, strategy, random, &inside);
        }
        wishes.sort_by_key(|wish| std::cmp::Reverse(wish.weight));
        wishes.truncate(WISHES);
        let chosen = |set: u32| wishes.iter().enumerate().filter(move |(index, _)| set & (1 << index) != 0);
        let weight = |set: u32| chosen(set).map(|(_, wish)| u64::from(wish.weight)).sum::<u64>();
        let mut sets: Vec<u32> = (0..1 << wishes.len()).collect();
        sets.sort_by_key(|set| (std::cmp::Reverse(weight(*set)), *set));
        // A node that fulfils more was met in an earlier set: the first set with a node is the best one, beside those of
        // equal weight.
        let mut best: Option<(u64, Score, Spot)> = None;
        for set in sets {
            if best.as_ref().is_some_and(|(known, ..)| weight(set) < *known) {
                break;
            }
            let terms: Vec<&Term> =
                inside.iter().copied().chain(chosen(set).map(|(_, wish)| &wish.term)).collect();
            let spot = self.best_with(request, amounts, strategy, random, &terms);
            let Some((view, (node, devices))) = spot.and_then(|spot| Some((self.get(spot.0)?, spot))) else {
                continue;
            };
            let score = score(strategy, view, amounts, &devices, wishes_missed(request, view));
            if best.as_ref().is_none_or(|(_, known, _)| score < *known) {
                best = Some((weight(set), score, (node, devices)));
            }
        }
        best.map(|(_, _, spot)| spot)
    }

    /// The best spot on nodes where these wishes hold too.
    fn best_with(
        &mut self,
        request: &Request,
        amounts: &Resources,
        strategy: Strategy,
        random: u64,
        wishes: &[&Term],
    ) -> Option<Spot> {
        let lens = Lens::new(request, amounts, strategy, wishes);
        if !lens.terms.is_empty() {
            let (count, ids) = self.candidates(lens.pool, &lens.terms);
            if count <= FEW {
                let slots = ids.filter_map(|id| self.slot(id)).filter(|slot| !slot.hidden);
                let views = slots.map(|slot| &slot.view);
                let meeting = views.filter(|view| wishes.iter().all(|term| term.matches(&view.labels)));
                if descends(strategy) {
                    let nodes: Vec<NodeId> = meeting.map(|view| view.node.id).collect();
                    return self.descend_among(nodes.into_iter(), request, amounts);
                }
                return best_of(meeting, request, amounts, strategy, usize::MAX);
            }
        }
        let view = self.view_of(&lens);
        let view = self.views.get(view)?;
        let need = view.lens.need(request.requirements.gpu.as_ref(), amounts, view.largest_device_bytes);
        if descends(strategy) {
            let nodes = self.candidates_of(&view.order, &need, request, amounts);
            return self.descend_among(nodes.into_iter(), request, amounts);
        }
        let walk = |start: Option<Key>| {
            let mut after = start;
            let keys = std::iter::from_fn(move || {
                after = view.order.next(after, &need);
                after
            });
            keys.filter_map(|key| self.get(key.node))
        };
        let most = match strategy {
            Strategy::Balanced => CANDIDATES,
            _ if request.requirements.preferred.len() > WISHES => CANDIDATES,
            _ => 1,
        };
        if strategy == Strategy::Random {
            let start = (random % (self.slots.len() as u64 + 1)) as u32;
            let start = start.checked_sub(1).map(|node| Key { first: 0, second: 0, node: NodeId(node) });
            let found = best_of(walk(start), request, amounts, strategy, most);
            if found.is_some() || start.is_none() {
                return found;
            }
        }
        best_of(walk(None), request, amounts, strategy, most)
    }

    pub(crate) fn view_of(&mut self, lens: &Lens<'_>) -> ViewId {
        if let Some(view) = self.views.find(lens) {
            return view;
        }
        let ids: Vec<NodeId> = self.candidates(lens.pool, &lens.terms).1.collect();
        self.views.make(&mut self.slots, lens, ids.into_iter())
    }
}

/// The best of the first `most` nodes that fit.
fn best_of<'a>(
    views: impl Iterator<Item = &'a NodeView>,
    request: &Request,
    amounts: &Resources,
    strategy: Strategy,
    most: usize,
) -> Option<Spot> {
    let mut fitting = views.filter_map(|view| Some((view, view.fit(request, amounts).ok()?)));
    if mutant!("hash-order") {
        let any: std::collections::HashMap<_, _> =
            fitting.map(|(view, devices)| (view.node.id, devices)).collect();
        return any.into_iter().next();
    }
    if most == 1 {
        return fitting.next().map(|(view, devices)| (view.node.id, devices));
    }
    let scored = fitting.take(most).map(|(view, devices)| {
        let score: Score = score(strategy, view, amounts, &devices, wishes_missed(request, view));
        (score, (view.node.id, devices))
    });
    scored.min_by_key(|(score, _)| *score).map(|(_, spot)| spot)
}

/// Weight of the wishes that a node does not fulfil.
pub(crate) fn wishes_missed(request: &Request, view: &NodeView) -> u64 {
    let missed = request.requirements.preferred.iter().filter(|wish| !wish.term.matches(&view.labels));
    missed.map(|wish| u64::from(wish.weight)).sum()
}
