//! Who has to leave, so that one who waits gets a place: looked for when nothing else is left to do, and judged by the ledger's own law.
//!
//! Invariant: what is proposed was found lawful and sufficient on the ledger as it is; nobody is asked to leave twice. A reservation that was
//! preempted itself asks nobody to leave before something else has changed, so that preemption settles.

mod search;
mod victims;

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Ledger, Placement, Pool, Preemption, QueueOrder, Reservation, State};
use plimsoll_types::{LedgerTime, ReservationId, Revision};

use crate::Planner;
use crate::planner::shape;

/// A place that is free once others have left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// For which reservation.
    pub reservation: ReservationId,
    /// Where; without members where what was kept for it is to be kept no more.
    pub placement: Placement,
    /// Who has to leave, in the order in which they were found.
    pub victims: Vec<ReservationId>,
}

/// First ledger version in which anybody can be made to leave.
const SINCE_VERSION: u32 = 4;
/// Most searches for victims at a time: each may look at many nodes.
const MOST_SEARCHES: usize = 16;
/// Fruitless searches that are remembered.
const MOST_FRUITLESS: usize = 4_096;

/// What the planner remembers of its searches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hunt {
    /// Somebody waits whom a search may help.
    pub(crate) due: bool,
    /// When the next of those who are protected can be asked to leave.
    wake_at: Option<LedgerTime>,
    /// For whom victims are on their way to the ledger, and those victims.
    in_flight: BTreeMap<ReservationId, Vec<ReservationId>>,
    /// Shape and priority of those for whom nothing was found, and after how many changes of nodes that was.
    fruitless: BTreeMap<(u64, i32), u64>,
    /// When something last changed that was not a preemption.
    changed_at: Revision,
}

impl Hunt {
    pub(crate) fn new(ledger: &Ledger) -> Hunt {
        Hunt { due: true, changed_at: ledger.revision(), ..Hunt::default() }
    }

    /// Something changed that was not a preemption: who was preempted may try again.
    pub(crate) fn note_change(&mut self, ledger: &Ledger) {
        self.changed_at = ledger.revision();
        self.fruitless.clear();
        self.due = true;
    }

    /// Those who are asked to leave already, as far as the ledger does not know it yet.
    fn asked(&self) -> BTreeSet<ReservationId> {
        self.in_flight.values().flatten().copied().collect()
    }
}

impl Planner {
    /// True where somebody waits for whom others might have to leave.
    pub fn wants_evictions(&self, ledger: &Ledger) -> bool {
        self.hunt.due || self.hunt.wake_at.is_some_and(|at| at <= ledger.clock())
    }

    /// When a search may find what it did not find so far, by the passing of time alone.
    pub fn next_eviction_at(&self) -> Option<LedgerTime> {
        self.hunt.wake_at
    }

    /// A request joined the queue: others might have to leave for it.
    pub fn note_waiting(&mut self) {
        self.hunt.due = true;
    }

    /// A grant ended, and not by preemption: who was preempted may try again.
    pub fn note_end(&mut self, ledger: &Ledger) {
        self.hunt.note_change(ledger);
    }

    /// What came of an eviction is known. Where the ledger refused it, the same is not tried again before something has changed.
    pub fn settle_eviction(&mut self, ledger: &Ledger, reservation: ReservationId, refused: bool) {
        self.hunt.in_flight.remove(&reservation);
        if let Some(waiting) = ledger.reservation(reservation).filter(|_| refused) {
            let changes = self.fleet().changes();
            self.hunt.fruitless.insert((shape(&waiting.request), waiting.priority), changes);
            return;
        }
        self.queue_pass_due = true;
    }

    /// Places that are free once others have left, for those who wait and find none: at most `limit`, in the order of the queue.
    /// To be asked after a walk over the queue. O(searches x nodes x holders), each search bounded.
    pub fn plan_evictions(&mut self, ledger: &Ledger, limit: usize) -> Vec<Eviction> {
        self.hunt.due = false;
        self.hunt.wake_at = None;
        let mut found = Vec::new();
        if ledger.meta().version < SINCE_VERSION {
            return found;
        }
        self.read_quota(ledger);
        let pools: Vec<&Pool> = ledger.pools().map(AsRef::as_ref).collect();
        let mut searches = 0;
        for pool in pools {
            if pool.preemption == Preemption::Never {
                continue;
            }
            let asked = self.hunt.in_flight.values().flatten().filter_map(|id| ledger.reservation(*id));
            let asked = asked.filter(|victim| victim.request.pool == pool.name).count() as u64;
            let mut left = ledger.preemptions_left(&pool.name).saturating_sub(asked);
            let mut closed: BTreeSet<&str> = BTreeSet::new();
            for id in ledger.pending(&pool.name) {
                if found.len() >= limit || searches >= MOST_SEARCHES {
                    self.hunt.due = true;
                    return found;
                }
                let Some(waiting) = ledger.reservation(id) else { continue };
                let queue = waiting.request.queue.as_str();
                if closed.contains(queue) {
                    continue;
                }
                if pool.queue_order == QueueOrder::StrictFifo {
                    closed.insert(queue);
                }
                if self.placing.contains(&id) || self.hunt.in_flight.contains_key(&id) {
                    continue;
                }
                if waiting.state == State::Planned {
                    found.extend(self.give_up(ledger, waiting));
                    continue;
                }
                if !self.may_search(waiting) {
                    continue;
                }
                searches += 1;
                if let Some(eviction) = self.search_for(ledger, waiting, left) {
                    left = left.saturating_sub(eviction.victims.len() as u64);
                    found.push(eviction);
                }
            }
        }
        found
    }

    /// A place is kept in vain where all who had to leave have left, and it is not free all the same: a node was cut.
    fn give_up(&mut self, ledger: &Ledger, planned: &Reservation) -> Option<Eviction> {
        if ledger.is_awaited(planned) || ledger.kept_place(planned.id).is_some() {
            return None;
        }
        self.hunt.in_flight.insert(planned.id, Vec::new());
        Some(Eviction {
            reservation: planned.id,
            placement: Placement { members: Vec::new() },
            victims: Vec::new(),
        })
    }

    fn may_search(&self, waiting: &Reservation) -> bool {
        if waiting.preempted.is_some_and(|preempted| preempted.revision >= self.hunt.changed_at) {
            return false;
        }
        let key = (shape(&waiting.request), waiting.priority);
        self.hunt.fruitless.get(&key).is_none_or(|changes| !self.fleet().is_recent(*changes))
    }

    fn search_for(&mut self, ledger: &Ledger, waiting: &Reservation, left: u64) -> Option<Eviction> {
        let request = &waiting.request;
        if !self.spending.blockers(ledger, request, &waiting.requester).is_empty() {
            // Nobody who leaves gives back what a limit or budget is short of.
            return None;
        }
        if self.find(ledger, request).is_some() {
            // There is room: a walk over the queue finds it.
            self.queue_pass_due = true;
            return None;
        }
        let asked = self.hunt.asked();
        let (found, wake_at) = self.search_victims(ledger, waiting, &asked);
        let lawful = found.filter(|(placement, victims)| {
            victims.len() as u64 <= left && is_lawful(ledger, waiting, placement, victims)
        });
        let Some((placement, victims)) = lawful else {
            let soonest = [self.hunt.wake_at, wake_at].into_iter().flatten().min();
            self.hunt.wake_at = soonest;
            if self.hunt.fruitless.len() >= MOST_FRUITLESS {
                self.hunt.fruitless.clear();
            }
            let changes = self.fleet().changes();
            if wake_at.is_none() {
                self.hunt.fruitless.insert((shape(request), waiting.priority), changes);
            }
            return None;
        };
        self.hunt.in_flight.insert(waiting.id, victims.clone());
        Some(Eviction { reservation: waiting.id, placement, victims })
    }
}

/// The ledger's own judgement, victim by victim: the planner's shortcuts decide nothing.
fn is_lawful(
    ledger: &Ledger,
    waiting: &Reservation,
    placement: &Placement,
    victims: &[ReservationId],
) -> bool {
    let Ok(claimant) = ledger.claimant(waiting, placement) else { return false };
    let mut quota = ledger.quota_kept().clone();
    victims.iter().filter_map(|id| ledger.reservation(*id)).all(|victim| {
        let lawful = ledger.preemption_rule(&mut quota, &claimant, victim).is_ok();
        if let Some(taken) = plimsoll_ledger::charge(&victim.amounts, &victim.members) {
            quota.give_back(&victim.request.queue, &victim.request.pool, &taken);
        }
        lawful
    })
}
