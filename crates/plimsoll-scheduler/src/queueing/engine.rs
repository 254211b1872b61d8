//! The queue of one pool: what it is told, and what it decides.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{EndReason, Ledger, Placement, Reservation, device_matches};
use plimsoll_types::{LedgerTime, NodeId, ReservationId};

use super::backfill::Backfill;
use super::discipline::{Discipline, Settings};
use super::domains::{Domains, nodes_of};
use super::entry::{Entry, Running};
use super::estimate::{self, Lengths, StartEstimate};
use super::history::History;
use super::pending::Pending;
use super::preempt::ByNode;
use super::rank::{Ranking, Shares, is_due};
use super::sketch::rest_ms;
use crate::Ticket;

/// The queue of one pool under one discipline. Equal observations in equal order make equal decisions.
#[derive(Clone, Debug)]
pub struct Queueing {
    pub(super) pool: String,
    pub(super) settings: Settings,
    pub(super) pending: Pending,
    pub(super) running: BTreeMap<ReservationId, Running>,
    pub(super) by_node: ByNode,
    pub(super) history: History,
    pub(super) shares: Shares,
    pub(super) fleet_units: u64,
    /// Places proposed and not heard of since.
    pub(super) in_flight: BTreeSet<ReservationId>,
    /// Ends proposed: such an end says nothing about the length of the run.
    pub(super) preempting: BTreeSet<ReservationId>,
    pub(super) backfill: Option<Backfill>,
    /// Nodes that the latest walk drained.
    pub(super) draining: BTreeSet<NodeId>,
}

/// What a walk decided. The caller proposes it, and tells the outcome through [`Queueing::observe`] or
/// [`Queueing::abandoned`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    /// Places, booked with the planner under their tickets.
    pub places: Vec<(ReservationId, Placement, Ticket)>,
    /// Running reservations to be ended and queued again ([`super::resubmission`]), so that another walk can place
    /// what they were in the way of.
    pub preempt: Vec<ReservationId>,
    /// Walk again at this moment though nothing may have happened until then.
    pub look_again_at: Option<LedgerTime>,
}

impl Queueing {
    /// The queue of a pool, as the ledger has it; what the ledger still knows of ended reservations is learned from.
    /// O(n log n) in reservations.
    pub fn new(ledger: &Ledger, pool: &str, settings: Settings) -> Queueing {
        let is_backfill = matches!(settings.discipline, Discipline::Backfill { .. });
        let mut queueing = Queueing {
            pool: pool.to_owned(),
            settings,
            pending: Pending::default(),
            running: BTreeMap::new(),
            by_node: BTreeMap::new(),
            history: History::default(),
            shares: Shares::new(),
            fleet_units: 1,
            in_flight: BTreeSet::new(),
            preempting: BTreeSet::new(),
            backfill: is_backfill.then(Backfill::default),
            draining: BTreeSet::new(),
        };
        queueing.nodes_changed(ledger);
        for reservation in ledger.reservations() {
            if reservation.state.is_final() && reservation.request.pool == pool {
                queueing.learn(reservation);
            }
            queueing.observe(reservation, ledger.clock());
        }
        queueing
    }

    /// Nodes of the pool came, went or changed in what they offer. O(nodes).
    pub fn nodes_changed(&mut self, ledger: &Ledger) {
        let nodes = ledger.nodes().filter(|node| node.pool == self.pool && node.is_eligible());
        let devices: u64 = nodes.map(|node| node.registration.devices.len() as u64).sum();
        self.fleet_units = (devices * 1_000).max(1);
        if let Some(backfill) = &mut self.backfill {
            backfill.nodes_changed();
        }
    }

    /// A reservation is as it is now. Told of every change; twice does no harm. O(log n), and O(sketch) at an end.
    pub fn observe(&mut self, reservation: &Reservation, now: LedgerTime) {
        let id = reservation.id;
        if reservation.request.pool != self.pool {
            return;
        }
        if reservation.state.is_final() {
            self.in_flight.remove(&id);
            self.forget(reservation, now);
        } else if reservation.state.is_occupying() {
            self.in_flight.remove(&id);
            self.begin(reservation, now);
        } else if self.pending.get(id).is_none() {
            let entry = self.enlist(reservation);
            if let Some(backfill) = &mut self.backfill {
                backfill.arrived(&entry);
            }
            self.pending.insert(entry);
        }
    }

    /// A proposed place was refused or lost: the request still waits.
    pub fn abandoned(&mut self, id: ReservationId) {
        self.in_flight.remove(&id);
        self.preempting.remove(&id);
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// When each that waits will start, in the order in which they are served, as things are at the ledger's revision.
    /// O(waiting x nodes x breakpoints).
    pub fn estimates(&mut self, ledger: &Ledger) -> Vec<StartEstimate> {
        let now_ms = ledger.clock().0;
        let mut ranked: Vec<_> = {
            let mut ranking = Ranking {
                settings: &self.settings,
                now_ms,
                history: &mut self.history,
                shares: &self.shares,
                fleet_units: self.fleet_units,
            };
            self.pending.in_order().map(|entry| (ranking.of(entry), entry.arrival(), entry)).collect()
        };
        ranked.sort_unstable_by_key(|(rank, arrival, _)| (*rank, *arrival));
        let waiting: Vec<&Entry> = ranked.into_iter().map(|(_, _, entry)| entry).collect();
        let (history, default_ms) =
            (std::cell::RefCell::new(&mut self.history), self.settings.default_run_ms);
        let learns = self.settings.discipline == Discipline::Learned;
        let expected = |entry: &Entry| {
            let learned = || history.borrow_mut().outlook(&entry.sequence, entry.block, now_ms).mean_ms;
            entry.declared_ms().unwrap_or_else(|| if learns { learned() } else { default_ms })
        };
        let lengths = Lengths {
            of_waiting: &mut |entry| expected(entry),
            of_running: &mut |running| match running.declared_end_ms {
                Some(end_ms) => end_ms.saturating_sub(now_ms),
                None => rest_ms(expected(&running.entry), now_ms.saturating_sub(running.started_ms)),
            },
        };
        let (domains, revision) = (Domains::of_pool(ledger, &self.pool), ledger.revision());
        let may = |entry: &Entry, node| may_hold(ledger, entry, node);
        let mut found =
            estimate::estimates(domains, self.running.values(), &waiting, now_ms, revision, lengths, &may);
        for estimate in &mut found {
            let planned =
                self.backfill.as_ref().and_then(|backfill| backfill.planned_start_ms(estimate.reservation));
            estimate.start_at = planned.map(LedgerTime).or(estimate.start_at);
        }
        found
    }

    fn enlist(&mut self, reservation: &Reservation) -> Entry {
        let mut entry = Entry::of(reservation);
        entry.block = self.history.submitted(&entry.sequence, entry.id);
        entry
    }

    fn begin(&mut self, reservation: &Reservation, now: LedgerTime) {
        let id = reservation.id;
        if self.running.contains_key(&id) {
            return;
        }
        let entry = match self.pending.remove(id) {
            Some(entry) => {
                if let Some(backfill) = &mut self.backfill {
                    backfill.left(&entry, now.0);
                }
                entry
            }
            None => self.enlist(reservation),
        };
        let started_ms = reservation.granted_at.0;
        self.history.started(&entry.sequence, entry.block, id, started_ms.saturating_sub(entry.attained_ms));
        let nodes = nodes_of(&reservation.members);
        for node in &nodes {
            self.by_node.entry(*node).or_default().insert(id);
        }
        *self.shares.entry(entry.sequence.0.clone()).or_default() += entry.ask.total();
        let was_due = is_due(&self.settings, &entry, started_ms);
        let declared_end_ms = Some(reservation.hard_end.0).filter(|end| *end > 0);
        let running = Running { entry, nodes, started_ms, declared_end_ms, was_due };
        if let Some(backfill) = &mut self.backfill {
            backfill.started(&running, self.settings.default_run_ms);
        }
        self.running.insert(id, running);
    }

    fn forget(&mut self, reservation: &Reservation, now: LedgerTime) {
        let id = reservation.id;
        let was_preempted = self.preempting.remove(&id);
        if let Some(entry) = self.pending.remove(id) {
            self.history.ended(&entry.sequence, entry.block, id, None);
            if let Some(backfill) = &mut self.backfill {
                backfill.left(&entry, now.0);
            }
        }
        let Some(running) = self.running.remove(&id) else { return };
        let ran_ms = running.attained_ms(reservation.ended_at.0);
        let counts = !was_preempted && says_its_length(reservation);
        self.history.ended(&running.entry.sequence, running.entry.block, id, counts.then_some(ran_ms));
        for node in &running.nodes {
            if let Some(residents) = self.by_node.get_mut(node) {
                residents.remove(&id);
            }
        }
        if let Some(share) = self.shares.get_mut(&running.entry.sequence.0) {
            *share = share.saturating_sub(running.entry.ask.total());
        }
        if let Some(backfill) = &mut self.backfill {
            backfill.ended(id, now.0);
        }
    }

    /// Takes in an ended reservation that was never seen alive.
    fn learn(&mut self, reservation: &Reservation) {
        if reservation.granted_at.0 > 0 && says_its_length(reservation) {
            let entry = self.enlist(reservation);
            let ran_ms = entry.attained_ms + reservation.ended_at.ms_since(reservation.granted_at);
            self.history.ended(&entry.sequence, entry.block, entry.id, Some(ran_ms));
        }
    }
}

/// True where it ran as long as it wanted.
fn says_its_length(reservation: &Reservation) -> bool {
    matches!(reservation.end_reason, Some(EndReason::Released | EndReason::MaxDuration))
}

/// True where a member of an entry could be on a node that were empty.
pub(super) fn may_hold(ledger: &Ledger, entry: &Entry, node: NodeId) -> bool {
    let Some(node) = ledger.node(node).filter(|node| node.is_eligible()) else { return false };
    let (request, registration) = (&entry.request, &node.registration);
    let required = &request.requirements.required;
    let fits = |gpu: &plimsoll_ledger::GpuAsk| {
        let good = registration.devices.iter().filter(|device| !device.failed && device_matches(gpu, device));
        good.take(gpu.count as usize).count() == gpu.count as usize
    };
    node.pool == request.pool
        && request.requirements.gpu.as_ref().is_none_or(fits)
        && (required.terms.is_empty() || required.matches(&node.effective_labels()))
}
