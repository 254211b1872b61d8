//! Room by redistribution: while a contention of a pool is resolved so, grants that would come back by themselves go to other nodes of the pool, so
//! that one who waits fits where they were (`docs/semantics.md` 5.21).
//!
//! Invariants: with those gone who are asked to go, who waits fits; each of them has a place elsewhere that no other of the same plan takes. Nobody
//! goes for one of a lower class, or twice for the same contention, so that it settles. In a pool nobody is asked before those asked last have left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_ledger::{
    DeviceGrant, Ledger, MemberPlacement, Placement, Pool, Request, Reservation, Resolve, State,
};
use plimsoll_mutants::mutant;
use plimsoll_types::{NodeId, ReservationId, Resources, Revision};

use crate::Planner;
use crate::defragment::bound;
use crate::fit::NodeView;
use crate::fleet::split;
use crate::preemption::later;
use crate::preemption::victims::work_lost;

/// Most requests that one plan tries to help.
const MOST_HELPED: usize = 16;
/// Most nodes of a pool that one plan knows.
const MOST_NODES: usize = 2_048;
/// Most grants that go elsewhere for one request.
const MOST_MOVED: usize = 4;
/// Most places that one plan looks at; the next one goes on where it ended.
const MOST_LOOKS: usize = 100_000;
/// Relocations that the ledger refused, of which the planner knows.
const MOST_REFUSED: usize = 4_096;

/// A grant that has to go elsewhere for one who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Which grant.
    pub reservation: ReservationId,
    /// Where there is a place for it.
    pub placement: Placement,
    /// Who waits, and fits where it was once all have gone who go for it.
    pub helps: ReservationId,
}

/// What the planner remembers of relocations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moving {
    /// Who was asked and may not have left yet; `None` before anybody looked.
    leaving: Option<BTreeSet<ReservationId>>,
    /// Whom the ledger did not let go, and when that was.
    refused: BTreeMap<ReservationId, Revision>,
    /// Per pool, the node that the next plan begins with.
    next_node: BTreeMap<String, NodeId>,
}

impl Planner {
    /// Who goes where in pools whose contention is resolved by redistribution, at most `limit`, for those who wait in the order of the queue. To be
    /// asked now and then, after a walk over the queue. O(pools) where there is no such pool; else bounded, by 100,000 places that are looked at.
    pub fn plan_relocations(&mut self, ledger: &Ledger, limit: usize) -> Vec<Relocation> {
        let contended = |pool: &&Arc<Pool>| ledger.resolves_by(pool, Resolve::Redistribute);
        let pools: Vec<&Pool> = ledger.pools().filter(contended).map(AsRef::as_ref).collect();
        let mut found = Vec::new();
        if pools.is_empty() {
            return found;
        }
        self.read_quota(ledger);
        for pool in pools {
            if self.are_leaving(ledger, pool) {
                continue;
            }
            let resolved = ledger.contentions_of(&pool.name);
            let resolved = resolved.filter(|one| one.resolving.contains(&Resolve::Redistribute));
            let Some(since) = resolved.map(|one| one.id).min() else { continue };
            let mut floor = self.floor(ledger, pool, since);
            floor.most = limit.saturating_sub(found.len()).min(floor.most);
            let mut helped = 0;
            let mut closed: BTreeSet<&str> = BTreeSet::new();
            for id in ledger.pending(&pool.name) {
                if helped >= MOST_HELPED || floor.looks == 0 || floor.moved.len() >= floor.most {
                    break;
                }
                let waiting = ledger.reservation(id).filter(|waiting| !ledger.is_out_of_hours(waiting));
                let Some(waiting) = waiting else { continue };
                if pool.is_strict() && !closed.insert(waiting.request.queue.as_str()) {
                    continue;
                }
                if !self.may_be_helped(ledger, waiting) {
                    continue;
                }
                if self.find(ledger, &waiting.request).is_some() {
                    // There is room: a walk over the queue finds it.
                    self.queue_pass_due = true;
                    continue;
                }
                helped += 1;
                found.extend(floor.help(waiting));
            }
            if let Some(next) = floor.next {
                self.moving.next_node.insert(pool.name.clone(), next);
            }
        }
        found
    }

    /// What came of a relocation is known. One that the ledger refused is not proposed again for the same contention.
    pub fn settle_relocation(&mut self, ledger: &Ledger, reservation: ReservationId, refused: bool) {
        if !refused {
            self.moving.leaving.get_or_insert_default().insert(reservation);
            return;
        }
        if self.moving.refused.len() >= MOST_REFUSED {
            self.moving.refused.clear();
        }
        self.moving.refused.insert(reservation, ledger.revision());
    }

    /// True while somebody of the pool is on his way elsewhere. O(those), the first time O(reservations).
    fn are_leaving(&mut self, ledger: &Ledger, pool: &Pool) -> bool {
        let is_leaving = |one: &Reservation| {
            one.state == State::Preempting && one.preempted().is_some_and(|notice| notice.to.is_some())
        };
        let all = || ledger.reservations().filter(|one| is_leaving(one)).map(|one| one.id).collect();
        let leaving = self.moving.leaving.get_or_insert_with(all);
        leaving.retain(|id| ledger.reservation(*id).is_some_and(|one| is_leaving(one)));
        let here =
            |id: &ReservationId| ledger.reservation(*id).is_some_and(|one| one.request.pool == pool.name);
        leaving.iter().any(here)
    }

    /// True where it is room on a node that one who waits lacks, for one member without rules about where others are.
    fn may_be_helped(&mut self, ledger: &Ledger, waiting: &Reservation) -> bool {
        let request = &waiting.request;
        let is_simple = request.gang.min_members == 1
            && request.roles.is_empty()
            && request.topology.is_unconstrained()
            && request.affinity.is_empty();
        if waiting.state != State::Pending
            || waiting.is_advance()
            // Who takes what is idle waits until something is.
            || waiting.is_best_effort()
            || !is_simple
            || self.placing.contains(&waiting.id)
            || self.time_blocker(ledger, waiting).is_some()
            || !self.unpayable(ledger, request, &waiting.requester).is_empty()
            || self.headroom.binding(request).is_some()
            || self.agenda.most_members(request, 1) == 0
            || !self.never_starts(ledger, request).is_empty()
        {
            return false;
        }
        let Some(pool) = ledger.pool(&request.pool) else { return false };
        let (_, in_pool) = split(ledger, request);
        in_pool.iter().all(|(name, amount)| amount.0 <= self.fleet.countable_free(ledger, pool, name))
    }

    /// The pool's nodes as they are once those who were given notice have left, the fullest first.
    fn floor<'a>(&self, ledger: &'a Ledger, pool: &Pool, since: Revision) -> Floor<'a> {
        let from = self.moving.next_node.get(&pool.name).copied().unwrap_or(NodeId(0));
        let nodes = self.fleet.pool_nodes_from(&pool.name, from, MOST_NODES);
        let views = nodes.iter().filter_map(|id| self.fleet.get(*id)).map(|view| later(ledger, view));
        let views: BTreeMap<NodeId, NodeView> = views.map(|view| (view.node.id, view)).collect();
        let mut fullest: Vec<NodeId> = views.keys().copied().collect();
        let free = |id: &NodeId| views.get(id).map(|view| (view.free_milli(), view.free.cpu_millis));
        fullest.sort_by_key(free);
        let refused = self.moving.refused.iter().filter(|(_, at)| **at >= since).map(|(id, _)| *id).collect();
        let left = usize::try_from(ledger.preemptions_left(&pool.name)).unwrap_or(usize::MAX);
        Floor {
            ledger,
            nodes,
            views,
            fullest,
            refused,
            since,
            movers: BTreeMap::new(),
            moved: BTreeSet::new(),
            most: left,
            looks: MOST_LOOKS,
            next: None,
        }
    }
}

/// A pool's nodes, with those moved on paper who are asked to go.
struct Floor<'a> {
    ledger: &'a Ledger,
    /// In the order in which room is looked for on them.
    nodes: Vec<NodeId>,
    views: BTreeMap<NodeId, NodeView>,
    /// In the order in which they are tried for who has to go.
    fullest: Vec<NodeId>,
    refused: BTreeSet<ReservationId>,
    /// When the contention opened: who was given notice since stays.
    since: Revision,
    /// By node, whatever the class of who waits; of the nodes that were looked at.
    movers: BTreeMap<NodeId, Arc<[Arc<Mover>]>>,
    moved: BTreeSet<ReservationId>,
    most: usize,
    looks: usize,
    next: Option<NodeId>,
}

/// A grant that may go.
struct Mover {
    lost: u128,
    reservation: Arc<Reservation>,
    /// What it asks, with the amounts that it has now.
    request: Request,
    /// What of that counts against nodes.
    amounts: Resources,
}

impl Mover {
    fn devices(&self) -> &[DeviceGrant] {
        self.reservation.members.first().map_or(&[], |member| &member.devices)
    }

    fn leave(&self, view: &mut NodeView) {
        view.give_back(&self.amounts, self.devices(), self.reservation.is_best_effort());
    }

    fn enter(&self, view: &mut NodeView, devices: &[DeviceGrant]) {
        view.take(&self.amounts, devices, self.reservation.is_best_effort());
    }
}

/// Who goes where so that there is room on a node.
struct Clearing {
    node: NodeId,
    lost: u128,
    moves: Vec<(Arc<Mover>, MemberPlacement)>,
}

impl Floor<'_> {
    /// Those who go for one who waits: of all nodes that were looked at, where the least work is lost. Nobody where there is no such node.
    fn help(&mut self, waiting: &Reservation) -> Vec<Relocation> {
        let request = waiting.request_as_held();
        let (amounts, _) = split(self.ledger, &request);
        let mut best: Option<Clearing> = None;
        for node in self.nodes.clone() {
            if self.looks == 0 {
                self.next = Some(node);
                break;
            }
            let Some(clearing) = self.clear(node, waiting, (&request, &amounts)) else { continue };
            let cost = |one: &Clearing| (one.lost, one.moves.len(), one.node);
            if best.as_ref().is_none_or(|known| cost(&clearing) < cost(known)) {
                best = Some(clearing);
            }
        }
        let Some(Clearing { node, moves, .. }) = best else { return Vec::new() };
        let mut found = Vec::new();
        for (mover, to) in moves {
            self.views.entry(node).and_modify(|view| mover.leave(view));
            self.views.entry(to.node).and_modify(|view| mover.enter(view, &to.devices));
            let reservation = mover.reservation.id;
            self.moved.insert(reservation);
            let placement = Placement { members: vec![to] };
            found.push(Relocation { reservation, placement, helps: waiting.id });
        }
        if let Some(view) = self.views.get_mut(&node)
            && let Ok(devices) = view.fit(&request, &amounts)
        {
            view.take(&amounts, &devices, request.is_best_effort());
        }
        found
    }

    /// The fewest who lose least and have to leave a node; `None` where that makes no room, or they have no place elsewhere.
    fn clear(
        &mut self,
        node: NodeId,
        waiting: &Reservation,
        (request, amounts): (&Request, &Resources),
    ) -> Option<Clearing> {
        let view = self.views.get(&node)?;
        self.looks = self.looks.saturating_sub(1);
        if !view.node.is_eligible() || !view.could_hold(request, amounts) {
            return None;
        }
        let mut here = view.clone();
        let mut around: BTreeMap<NodeId, NodeView> = BTreeMap::new();
        let mut moves: Vec<(Arc<Mover>, MemberPlacement)> = Vec::new();
        for mover in self.movers(node, waiting) {
            if here.fit(request, amounts).is_ok() {
                break;
            }
            if moves.len() >= MOST_MOVED || self.moved.len() + moves.len() >= self.most {
                return None;
            }
            let Some(to) = self.elsewhere(&mover, node, &around) else { continue };
            mover.leave(&mut here);
            let target = around.entry(to.node).or_insert_with(|| self.views[&to.node].clone());
            mover.enter(target, &to.devices);
            moves.push((mover, to));
        }
        if here.fit(request, amounts).is_err() {
            return None;
        }
        // Nobody goes who need not: those who lose most stay first.
        for index in (0..moves.len()).rev() {
            let mover = &moves[index].0;
            let mut with = here.clone();
            mover.enter(&mut with, mover.devices());
            if with.fit(request, amounts).is_ok() {
                here = with;
                moves.remove(index);
            }
        }
        let lost = moves.iter().map(|(mover, _)| mover.lost).sum();
        (!moves.is_empty()).then_some(Clearing { node, lost, moves })
    }

    /// Who may leave a node for one who waits, those who lose least first.
    fn movers(&mut self, node: NodeId, waiting: &Reservation) -> Vec<Arc<Mover>> {
        let all = match self.movers.get(&node) {
            Some(known) => Arc::clone(known),
            None => {
                let found: Arc<[Arc<Mover>]> = self.movers_on(node).into();
                self.movers.insert(node, Arc::clone(&found));
                found
            }
        };
        let may_go = |mover: &&Arc<Mover>| {
            mover.reservation.priority <= waiting.priority && !self.moved.contains(&mover.reservation.id)
        };
        all.iter().filter(may_go).cloned().collect()
    }

    fn movers_on(&self, node: NodeId) -> Vec<Arc<Mover>> {
        let ledger = self.ledger;
        let may_go = |one: &&Arc<Reservation>| {
            !self.refused.contains(&one.id)
                && one.preempted().is_none_or(|notice| notice.revision < self.since)
                && bound(ledger, one).is_none()
        };
        let mover = |one: &Arc<Reservation>| {
            let request = one.request_as_held();
            let (amounts, _) = split(ledger, &request);
            let lost = work_lost(ledger, one, &one.charge().unwrap_or_default());
            Arc::new(Mover { lost, reservation: Arc::clone(one), request, amounts })
        };
        let mut movers: Vec<Arc<Mover>> = ledger.holders(node).filter(may_go).map(mover).collect();
        movers.sort_by_key(|mover| (mover.lost, mover.reservation.id));
        movers
    }

    /// The fullest other node that has room, beside those who go there already.
    fn elsewhere(
        &mut self,
        mover: &Mover,
        from: NodeId,
        around: &BTreeMap<NodeId, NodeView>,
    ) -> Option<MemberPlacement> {
        if mutant!("redistribute-nowhere") {
            let to = self.fullest.iter().find(|node| **node != from)?;
            return Some(MemberPlacement { node: *to, devices: mover.devices().to_vec(), role: 0 });
        }
        for node in self.fullest.iter().filter(|node| **node != from) {
            self.looks = self.looks.saturating_sub(1);
            if self.looks == 0 {
                return None;
            }
            let view = around.get(node).or_else(|| self.views.get(node))?;
            if let Ok(devices) = view.fit(&mover.request, &mover.amounts) {
                return Some(MemberPlacement { node: *node, devices, role: 0 });
            }
        }
        None
    }
}
