//! The planner's view of all nodes, with what its proposals in flight will take, and the indexes over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_ledger::{Ledger, Placement, Request, Strategy};
use plimsoll_types::{Amount, NodeId, Resources};

use crate::fit::NodeView;
use crate::index::{Index, Need};
use crate::score::{Score, score};

/// Nodes looked at closely for one member; more only where none of these fits.
const CANDIDATES: usize = 24;

/// Where a member could go.
pub(crate) type Spot = (NodeId, Vec<plimsoll_ledger::DeviceGrant>);

/// Device kind of a node: models and memory sizes, sorted. Nodes of one kind share an index.
type Kind = Vec<(String, u64)>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Fleet {
    views: BTreeMap<NodeId, NodeView>,
    /// Per pool and kind.
    indexes: BTreeMap<String, BTreeMap<Kind, Index>>,
    /// Per pool: nodes that carry a label.
    labelled: BTreeMap<String, BTreeMap<(String, String), BTreeSet<NodeId>>>,
    booked: BTreeMap<NodeId, BTreeMap<u64, Vec<(Resources, Vec<plimsoll_ledger::DeviceGrant>)>>>,
    /// Per pool: countables that proposals in flight will take.
    pub(crate) booked_countables: BTreeMap<String, BTreeMap<u64, Resources>>,
}

impl Fleet {
    /// Everything as the ledger has it, bookings kept.
    pub(crate) fn rebuild(&mut self, ledger: &Ledger) {
        self.views =
            ledger.nodes().map(|node| (node.id, self.view(ledger, node.id))).filter_map(present).collect();
        self.indexes.clear();
        self.labelled.clear();
        let mut groups: BTreeMap<(String, Kind), Vec<&NodeView>> = BTreeMap::new();
        for view in self.views.values() {
            groups.entry((view.node.pool.clone(), kind_of(view))).or_default().push(view);
            let labelled = self.labelled.entry(view.node.pool.clone()).or_default();
            for (key, value) in &view.labels {
                labelled.entry((key.clone(), value.clone())).or_default().insert(view.node.id);
            }
        }
        for ((pool, kind), views) in groups {
            self.indexes.entry(pool).or_default().insert(kind, Index::build(views.into_iter()));
        }
    }

    /// Re-reads one node. True where it can hold more than before. O(log n), unless it moved between indexes.
    pub(crate) fn sync(&mut self, ledger: &Ledger, id: NodeId) -> bool {
        let new = self.view(ledger, id);
        let same_place = match (&new, self.views.get(&id)) {
            (Some(new), Some(old)) => {
                new.node.pool == old.node.pool && kind_of(new) == kind_of(old) && new.labels == old.labels
            }
            (None, None) => return false,
            _ => false,
        };
        if !same_place {
            self.rebuild(ledger);
            return true;
        }
        let Some(new) = new else { return false };
        let grew = self.views.get(&id).is_none_or(|old| can_hold_more(old, &new));
        self.store(new);
        grew
    }

    pub(crate) fn book(&mut self, ticket: u64, amounts: &Resources, placement: &Placement) {
        for member in &placement.members {
            let held = self.booked.entry(member.node).or_default().entry(ticket).or_default();
            held.push((amounts.clone(), member.devices.clone()));
            self.take(member.node, amounts, &member.devices);
        }
    }

    /// Drops a booking. The nodes named must be synced afterwards.
    pub(crate) fn unbook(&mut self, ticket: u64, nodes: impl Iterator<Item = NodeId>) {
        for node in nodes {
            if let Some(held) = self.booked.get_mut(&node) {
                held.remove(&ticket);
                if held.is_empty() {
                    self.booked.remove(&node);
                }
            }
        }
    }

    /// The best spot for one member, by the pool's strategy. `random` picks the start for the random strategy.
    pub(crate) fn best(
        &self,
        request: &Request,
        amounts: &Resources,
        strategy: Strategy,
        excluded: &BTreeSet<NodeId>,
        random: u64,
    ) -> Option<Spot> {
        let mut best: Option<(Score, Spot)> = None;
        let consider = |id: NodeId, best: &mut Option<(Score, Spot)>| -> bool {
            if excluded.contains(&id) {
                return false;
            }
            let Some(view) = self.views.get(&id) else { return false };
            let Ok(devices) = view.fit(request, amounts) else { return false };
            let score = score(strategy, view, amounts, &devices, wishes_missed(request, view));
            if best.as_ref().is_none_or(|(known, _)| score < *known) {
                *best = Some((score, (id, devices)));
            }
            true
        };
        if let Some(named) = self.named(request) {
            for id in named {
                consider(id, &mut best);
            }
            return best.map(|(_, spot)| spot);
        }
        for wish in &request.requirements.preferred {
            for id in self.wished(request, &wish.term).take(CANDIDATES) {
                consider(id, &mut best);
            }
        }
        let kinds = self.indexes.get(&request.pool)?;
        for (kind, index) in kinds {
            let Some(need) = need(request, amounts, kind) else { continue };
            if !self.look(index, need, strategy, random, |id| consider(id, &mut best)) {
                // The walk was bounded and found nothing: ask the tree, which cannot miss.
                index.from_position(need, 0).find(|id| consider(*id, &mut best));
            }
        }
        best.map(|(_, spot)| spot)
    }

    fn look(
        &self,
        index: &Index,
        need: Need,
        strategy: Strategy,
        random: u64,
        mut consider: impl FnMut(NodeId) -> bool,
    ) -> bool {
        let mut several = |ids: &mut dyn Iterator<Item = NodeId>| {
            let mut found = false;
            for id in ids.take(CANDIDATES) {
                found |= consider(id);
            }
            found
        };
        match strategy {
            Strategy::BestFit | Strategy::Priority => several(&mut index.tightest(need)),
            Strategy::WorstFit | Strategy::Greedy | Strategy::Balanced => several(&mut index.roomiest(need)),
            Strategy::FirstFit | Strategy::FirstFitDecreasing => index.from_position(need, 0).any(consider),
            Strategy::Random => {
                let start = (random % index.len().max(1) as u64) as usize;
                index.from_position(need, start).any(&mut consider)
            }
        }
    }

    /// Nodes that the required terms name, where one of them lists values.
    fn named(&self, request: &Request) -> Option<BTreeSet<NodeId>> {
        let labelled = self.labelled.get(&request.pool)?;
        let lists = request
            .requirements
            .required
            .terms
            .iter()
            .filter(|term| term.operator == plimsoll_types::Operator::In);
        let sets = lists.map(|term| {
            let ids = term.values.iter().filter_map(|value| labelled.get(&(term.key.clone(), value.clone())));
            ids.flatten().copied().collect::<BTreeSet<NodeId>>()
        });
        sets.min_by_key(BTreeSet::len)
    }

    fn wished<'a>(
        &'a self,
        request: &Request,
        term: &'a plimsoll_types::Term,
    ) -> impl Iterator<Item = NodeId> + 'a {
        let labelled = self.labelled.get(&request.pool);
        let values = term.values.iter().filter(|_| term.operator == plimsoll_types::Operator::In);
        values.filter_map(move |value| labelled?.get(&(term.key.clone(), value.clone()))).flatten().copied()
    }

    pub(crate) fn take(&mut self, id: NodeId, amounts: &Resources, devices: &[plimsoll_ledger::DeviceGrant]) {
        if let Some(mut view) = self.views.get(&id).cloned() {
            view.take(amounts, devices);
            self.store(view);
        }
    }

    pub(crate) fn views(&self, pool: &str) -> impl Iterator<Item = &NodeView> {
        self.views.values().filter(move |view| view.node.pool == pool)
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&NodeView> {
        self.views.get(&id)
    }

    pub(crate) fn store(&mut self, view: NodeView) {
        let index = self.indexes.get_mut(&view.node.pool).and_then(|kinds| kinds.get_mut(&kind_of(&view)));
        if let Some(index) = index {
            index.update(&view);
        }
        self.views.insert(view.node.id, view);
    }

    /// A node as the ledger has it, less what is booked on it.
    pub(crate) fn view(&self, ledger: &Ledger, id: NodeId) -> Option<NodeView> {
        let node = Arc::clone(ledger.node(id)?);
        let usage = ledger.usage(id)?;
        let labels = match self.views.get(&id) {
            Some(old)
                if old.node.registration.labels == node.registration.labels && !old.labels.is_empty() =>
            {
                old.labels.clone()
            }
            _ => node.effective_labels(),
        };
        let mut view = NodeView { labels, free: ledger.free(id), devices: usage.devices.clone(), node };
        for (amounts, devices) in self.booked.get(&id).into_iter().flatten().flat_map(|(_, held)| held) {
            view.take(amounts, devices);
        }
        Some(view)
    }
}

fn present((id, view): (NodeId, Option<NodeView>)) -> Option<(NodeId, NodeView)> {
    view.map(|view| (id, view))
}

fn kind_of(view: &NodeView) -> Kind {
    let mut kind: Kind = view
        .node
        .registration
        .devices
        .iter()
        .map(|device| (device.model.clone(), device.memory_bytes))
        .collect();
    kind.sort();
    kind.dedup();
    kind
}

fn can_hold_more(old: &NodeView, new: &NodeView) -> bool {
    let eligible = new.node.is_eligible() && !old.node.is_eligible();
    let amounts = new.free.iter().any(|(name, amount)| amount > old.free.get(name));
    let devices =
        (0..new.devices.len()).any(|index| new.device_free_milli(index) > old.device_free_milli(index));
    new.node.is_eligible() && (eligible || amounts || devices)
}

/// What the index can check of a request on nodes of a kind; `None` where the kind cannot serve it.
fn need(request: &Request, amounts: &Resources, kind: &Kind) -> Option<Need> {
    let mut need =
        Need { cpu_millis: amounts.cpu_millis.0, memory_bytes: amounts.memory_bytes.0, ..Need::default() };
    let Some(gpu) = &request.requirements.gpu else { return Some(need) };
    let suitable = kind.iter().filter(|(model, memory)| plimsoll_ledger::device_matches(gpu, model, *memory));
    match gpu.share {
        plimsoll_ledger::GpuShare::Whole => {
            suitable.count().gt(&0).then_some(())?;
            need.whole = gpu.count;
        }
        share => {
            let least = suitable.map(|(_, memory)| share.of_device(*memory).0).min()?;
            need.share_milli = u32::try_from(least).ok()?;
        }
    }
    Some(need)
}

fn wishes_missed(request: &Request, view: &NodeView) -> u64 {
    let missed = request.requirements.preferred.iter().filter(|wish| !wish.term.matches(&view.labels));
    missed.map(|wish| u64::from(wish.weight)).sum()
}

/// What counts against nodes and what against the pool.
pub(crate) fn split(ledger: &Ledger, request: &Request) -> (Resources, Resources) {
    let mut on_node = request.requirements.amounts.clone();
    let mut in_pool = Resources::default();
    if let Some(pool) = ledger.pool(&request.pool) {
        for name in pool.countables.keys() {
            in_pool.set(name, on_node.get(name));
            on_node.set(name, Amount::ZERO);
        }
    }
    (on_node, in_pool)
}
