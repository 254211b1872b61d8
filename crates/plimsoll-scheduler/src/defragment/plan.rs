//! A costed plan against fragmentation: which grants would have to go where, what that frees, what it costs, and why the others stay.
//!
//! Only what would come back by itself is moved, and only what the ledger's law lets go ([`Ledger::may_relocate`]): a grant of one member that waits
//! again when it is taken back. Its cost is the work that would be lost: its thousandths of devices times the time since it was granted. A move is
//! worth it where (saving / devices of the pool) / (its work / work of the pool) is at least 1/2: the rule of balanced consolidation in Karpenter,
//! with k = 2.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_ledger::{DeviceGrant, GpuAsk, GpuShare, Ledger, MemberPlacement, Reservation};
use plimsoll_types::{NodeId, ReservationId, Resources, Revision};

use super::measure::{Asked, Expected, Fragmentation, Part, Shape, total_milli};
use crate::fit::NodeView;
use crate::fleet::split;

/// Grants that are tried, those that lose least first.
const MOST_TRIED: usize = 256;
/// Grants that stay and of which the plan says why.
const MOST_STAYS: usize = 256;
/// A move is worth it where its score is at least this many thousandths: 1/k, with k = 2.
pub const LEAST_SCORE_PERMILLE: u64 = 500;

/// What would be done against the fragmentation of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defragmentation {
    /// Revision of the state that it was worked out from.
    pub revision: Revision,
    /// As it is, by class of device.
    pub before: Vec<Fragmentation>,
    /// As it would be.
    pub after: Vec<Fragmentation>,
    /// What would move, in order: each is worth it once those before it are done.
    pub moves: Vec<Move>,
    /// Requests that would fit on more nodes than now.
    pub opens: Vec<Opening>,
    /// Grants that stay, with the reason; the first 256, by what moving them would lose.
    pub stays: Vec<Stay>,
    /// Grants that the law lets go.
    pub movable: u64,
    /// Grants of devices that it does not.
    pub unmovable: u64,
    /// Preemptions that the pool's bound still allows in this hour; `u64::MAX` without a bound.
    pub preemptions_left: u64,
}

/// A grant that would have to go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub reservation: ReservationId,
    /// Where it is.
    pub from: MemberPlacement,
    /// Where there is a place for it.
    pub to: MemberPlacement,
    /// What it comes to.
    pub cost: Cost,
}

/// Saving against disruption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Thousandths of devices that are stranded and would not be.
    pub saving_milli: u64,
    /// Thousandths of devices that the grant has.
    pub held_milli: u64,
    /// How long it has run, in milliseconds: what is lost unless it keeps checkpoints.
    pub lost_ms: u64,
    /// (Saving / devices of the pool) / (its work / work of the pool), in thousandths; [`LEAST_SCORE_PERMILLE`] and above is worth it.
    pub score_permille: u64,
}

/// A request that is expected, and on how many nodes one of its members fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its devices.
    pub gpu: GpuAsk,
    /// Its other amounts, on a node.
    pub amounts: Resources,
    /// Nodes that have room for it now.
    pub nodes_before: u64,
    /// Nodes that would.
    pub nodes_after: u64,
}

/// A grant that stays where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Which.
    pub reservation: ReservationId,
    /// Why.
    pub why: Why,
}

/// Why a grant is not moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The law does not let it go, or it has rules about where it is: one sentence.
    Bound(String),
    /// Nothing less would be stranded wherever it went.
    NothingSaved,
    /// The best place for it, and what the move comes to: too little.
    NotWorthIt(NodeId, Cost),
    /// The pool may preempt no more in this hour, or the plan has as many moves as were asked for.
    NoMoreMoves,
}

/// What of a pool decides: copied out of the ledger, so that nobody waits while the plan is made.
#[derive(Clone, Debug)]
pub struct Terrain {
    revision: Revision,
    views: BTreeMap<NodeId, NodeView>,
    expected: Expected,
    candidates: Vec<Candidate>,
    stays: Vec<Stay>,
    unmovable: u64,
    preemptions_left: u64,
    /// Thousandths times milliseconds of all grants of devices.
    work: u128,
}

#[derive(Clone, Debug)]
struct Candidate {
    reservation: Arc<Reservation>,
    /// What it takes of its node.
    amounts: Resources,
    held_milli: u64,
    lost_ms: u64,
    work: u128,
}

impl Terrain {
    /// The nodes of each pool that has some with devices, these alone: enough to say how fragmented it is. O(nodes + reservations looked at).
    pub fn of_all_devices(ledger: &Ledger) -> BTreeMap<String, Terrain> {
        let mut views: BTreeMap<String, BTreeMap<NodeId, NodeView>> = BTreeMap::new();
        for node in ledger.nodes().filter(|node| node.is_eligible() && !node.registration.devices.is_empty())
        {
            if let Some(view) = NodeView::applied(ledger, node.id, node.effective_labels()) {
                views.entry(node.pool.clone()).or_default().insert(node.id, view);
            }
        }
        let mut asked = Asked::of(ledger, |pool| views.contains_key(pool));
        let terrain = |(pool, views): (String, _)| {
            let asked = asked.take(&pool);
            let terrain = Terrain::new(ledger, views, asked);
            (pool, terrain)
        };
        views.into_iter().map(terrain).collect()
    }

    /// A pool's nodes that have devices. O(nodes + reservations looked at).
    fn of_devices(ledger: &Ledger, pool: &str) -> Terrain {
        let has_devices =
            |node: &&Arc<plimsoll_ledger::Node>| node.pool == pool && !node.registration.devices.is_empty();
        let nodes = ledger.nodes().filter(has_devices).filter(|node| node.is_eligible());
        let views = nodes.filter_map(|node| NodeView::applied(ledger, node.id, node.effective_labels()));
        let views: BTreeMap<NodeId, NodeView> = views.map(|view| (view.node.id, view)).collect();
        let asked = Asked::of(ledger, |one| one == pool).take(pool);
        Terrain::new(ledger, views, asked)
    }

    fn new(ledger: &Ledger, views: BTreeMap<NodeId, NodeView>, asked: Vec<Shape>) -> Terrain {
        let expected = Expected::of(asked, views.values());
        Terrain {
            revision: ledger.revision(),
            views,
            expected,
            candidates: Vec::new(),
            stays: Vec::new(),
            unmovable: 0,
            preemptions_left: 0,
            work: 0,
        }
    }

    /// A pool as it is. O(nodes + reservations).
    pub fn of_pool(ledger: &Ledger, pool: &str) -> Terrain {
        let mut terrain = Terrain::of_devices(ledger, pool);
        terrain.preemptions_left = ledger.preemptions_left(pool);
        let granted = ledger.reservations().filter(|one| one.request.pool == pool);
        for reservation in granted.filter(|one| one.state.is_occupying()) {
            let held_milli: u64 = reservation.members.iter().map(milli_of).sum();
            if held_milli == 0 {
                continue;
            }
            let lost_ms = ledger.clock().ms_since(reservation.granted_at);
            let work = u128::from(held_milli) * u128::from(lost_ms);
            terrain.work += work;
            if let Some(why) = bound(ledger, reservation) {
                terrain.unmovable += 1;
                if terrain.stays.len() < MOST_STAYS {
                    terrain.stays.push(Stay { reservation: reservation.id, why: Why::Bound(why) });
                }
                continue;
            }
            let (amounts, _) = split(ledger, &reservation.request_as_held());
            let reservation = Arc::clone(reservation);
            terrain.candidates.push(Candidate { reservation, amounts, held_milli, lost_ms, work });
        }
        terrain.candidates.sort_by_key(|one| (one.work, Reverse(one.reservation.id)));
        terrain
    }

    /// How fragmented it is, by class of device. O(nodes x shapes x devices).
    pub fn fragmentation(&self) -> Vec<Fragmentation> {
        let parts: Vec<Vec<Part>> = self.views.values().map(|view| self.expected.part(view)).collect();
        self.expected.sum(parts.iter())
    }

    /// The plan, with at most so many moves. O(candidates x nodes x shapes x devices).
    pub fn plan(mut self, most: usize) -> Defragmentation {
        let (before, room_before) = (self.fragmentation(), self.expected.rooms(self.views.values()));
        let all_milli = total_milli(&before);
        let movable = self.candidates.len() as u64;
        let most = usize::try_from(self.preemptions_left).unwrap_or(usize::MAX).min(most);
        let (mut moves, mut stays) = (Vec::new(), Vec::new());
        for (tried, candidate) in std::mem::take(&mut self.candidates).into_iter().enumerate() {
            let why = if moves.len() >= most || tried >= MOST_TRIED {
                Why::NoMoreMoves
            } else if let Some((to, saving_micros)) = self.best_move(&candidate) {
                let cost = self.cost(&candidate, saving_micros, all_milli);
                if cost.score_permille >= LEAST_SCORE_PERMILLE {
                    let from = candidate.reservation.members[0].clone();
                    self.shift(&candidate, &from, &to);
                    moves.push(Move { reservation: candidate.reservation.id, from, to, cost });
                    continue;
                }
                Why::NotWorthIt(to.node, cost)
            } else {
                Why::NothingSaved
            };
            stays.push(Stay { reservation: candidate.reservation.id, why });
        }
        stays.append(&mut self.stays);
        stays.truncate(MOST_STAYS);
        let after = self.fragmentation();
        let opens = self.expected.openings(&room_before, &self.expected.rooms(self.views.values()));
        let (revision, unmovable, preemptions_left) = (self.revision, self.unmovable, self.preemptions_left);
        Defragmentation { revision, before, after, moves, opens, stays, movable, unmovable, preemptions_left }
    }

    /// (saving / devices) / (work / all work): the saving is in thousandths of thousandths, so that this is in thousandths.
    fn cost(&self, candidate: &Candidate, saving_micros: u128, all_milli: u64) -> Cost {
        let over = saving_micros.saturating_mul(self.work.max(1));
        let under = u128::from(all_milli.max(1)).saturating_mul(candidate.work.max(1));
        Cost {
            saving_milli: u64::try_from(saving_micros / 1_000).unwrap_or(u64::MAX),
            held_milli: candidate.held_milli,
            lost_ms: candidate.lost_ms,
            score_permille: u64::try_from(over / under).unwrap_or(u64::MAX),
        }
    }

    /// The place on another node where the least is stranded once it is there, if that is less than now, and how much less.
    fn best_move(&self, candidate: &Candidate) -> Option<(MemberPlacement, u128)> {
        let from = &candidate.reservation.members[0];
        let (request, loose) = (&candidate.reservation.request, candidate.reservation.is_best_effort());
        let here = self.views.get(&from.node)?;
        let mut left = here.clone();
        left.give_back(&candidate.amounts, &from.devices, loose);
        let freed = self.stranded(here) - self.stranded(&left);
        let mut best: Option<(i128, MemberPlacement)> = None;
        for (node, view) in self.views.iter().filter(|(node, _)| **node != from.node) {
            let Ok(devices) = view.fit(request, &candidate.amounts) else { continue };
            let mut taken = view.clone();
            taken.take(&candidate.amounts, &devices, loose);
            let saving = freed + self.stranded(view) - self.stranded(&taken);
            if saving > 0 && best.as_ref().is_none_or(|(known, _)| saving > *known) {
                best = Some((saving, MemberPlacement { node: *node, devices, role: 0 }));
            }
        }
        let (saving, to) = best?;
        Some((to, u128::try_from(saving).ok()?))
    }

    fn shift(&mut self, candidate: &Candidate, from: &MemberPlacement, to: &MemberPlacement) {
        let loose = candidate.reservation.is_best_effort();
        if let Some(view) = self.views.get_mut(&from.node) {
            view.give_back(&candidate.amounts, &from.devices, loose);
        }
        if let Some(view) = self.views.get_mut(&to.node) {
            view.take(&candidate.amounts, &to.devices, loose);
        }
    }

    /// Stranded on a node, in thousandths of thousandths of a device.
    fn stranded(&self, view: &NodeView) -> i128 {
        let by_class = self.expected.stranded_micros(&self.expected.part(view));
        i128::try_from(by_class.into_iter().sum::<u128>()).unwrap_or(i128::MAX)
    }
}

fn milli_of(member: &MemberPlacement) -> u64 {
    let uncut = |grant: &&DeviceGrant| grant.slices.is_none();
    member.devices.iter().filter(uncut).map(|grant| u64::from(grant.milli)).sum()
}

/// Why a grant is not to be moved, whatever that would save: it is not let go, or where it may be is not its node's affair alone.
pub(crate) fn bound(ledger: &Ledger, one: &Reservation) -> Option<String> {
    let request = &one.request;
    if let Err(refusal) = ledger.may_relocate(one) {
        let text = |blocker: &plimsoll_ledger::Blocker| match blocker.subject.split_once(": ") {
            Some((_, what)) => what.to_owned(),
            None => blocker.subject.clone(),
        };
        return Some(refusal.blockers.first().map(text).unwrap_or_default());
    }
    if !request.topology.is_unconstrained() || !request.affinity.is_empty() {
        return Some("it has rules of topology or affinity".to_owned());
    }
    let by_profile =
        request.requirements.gpu.as_ref().is_some_and(|gpu| matches!(gpu.share, GpuShare::Mig(_)));
    by_profile.then(|| "it is an instance of a profile".to_owned())
}
