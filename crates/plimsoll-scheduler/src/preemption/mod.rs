//! Who has to leave, so that one who waits gets a place: looked for when nothing else is left to do, and judged by the ledger's own law.
//!
//! Invariant: what is proposed was found lawful and sufficient on the ledger as it is; nobody is asked to leave twice. A reservation that was
//! preempted itself asks nobody to leave before something else has changed, nor does one whose kept place was given up, so that preemption settles.

mod search;
pub(crate) mod victims;

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Ledger, Placement, Pool, Preemption, PreemptionRule, Reservation, State};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

use crate::Planner;
pub(crate) use search::later;

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
/// Most nodes that one search looks at.
const MOST_NODES: usize = 2_048;
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
    /// Something was found that those in flight may make unlawful: it is looked for again once they are settled.
    is_postponed: bool,
    /// By shape and priority of those for whom nothing was found.
    fruitless: BTreeMap<(u64, i32), Fruitless>,
    /// Per pool of more nodes than a search looks at, where the next one begins.
    next_node: BTreeMap<String, NodeId>,
    /// When something last changed that was not a preemption.
    changed_at: Revision,
    /// Whose kept place was given up since then: others took what came free, and would be asked to leave again and again.
    gave_up: BTreeSet<ReservationId>,
    /// For whom a place is kept, and perhaps some who have theirs by now.
    kept_for: BTreeSet<ReservationId>,
}

/// Searches that found nothing, one after the other.
#[derive(Clone, Copy, Debug, Default)]
struct Fruitless {
    /// Changes of nodes before the first of them.
    changes: u64,
    /// Nodes that they looked at.
    looked_at: usize,
    /// Somebody was protected for the time being.
    wakes: bool,
}

impl Hunt {
    /// O(nodes).
    pub(crate) fn new(ledger: &Ledger) -> Hunt {
        let mut hunt = Hunt { due: true, changed_at: ledger.revision(), ..Hunt::default() };
        ledger.nodes().for_each(|node| hunt.note_kept(ledger, node.id));
        hunt
    }

    /// Reads for whom something of a node is kept.
    pub(crate) fn note_kept(&mut self, ledger: &Ledger, node: NodeId) {
        let kept = ledger.usage(node).and_then(|usage| usage.kept.as_ref());
        let who = kept.into_iter().flat_map(|kept| &kept.by).copied();
        self.kept_for.extend(who.filter(|id| is_kept_for(ledger, *id)));
    }

    /// Those of a pool for whom a place is kept, the oldest first. O(those of all pools).
    pub(crate) fn kept_in(&mut self, ledger: &Ledger, pool: &str) -> Vec<ReservationId> {
        self.kept_for.retain(|id| is_kept_for(ledger, *id));
        let here = |id: &ReservationId| ledger.reservation(*id).is_some_and(|one| one.request.pool == pool);
        self.kept_for.iter().copied().filter(here).collect()
    }

    /// Something changed that was not a preemption: who was preempted may try again.
    pub(crate) fn note_change(&mut self, ledger: &Ledger) {
        self.changed_at = ledger.revision();
        self.note_window();
    }

    /// What the calendar keeps is other than before: what was fruitless then may not be now.
    pub(crate) fn note_window(&mut self) {
        self.fruitless.clear();
        self.gave_up.clear();
        self.due = true;
    }

    /// Who was protected can be asked to leave from now on, where ledger time has come there.
    pub(crate) fn wake(&mut self, now: LedgerTime) {
        self.due |= self.wake_at.take_if(|at| *at <= now).is_some();
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
        self.hunt.due |= std::mem::take(&mut self.hunt.is_postponed);
        if let Some(waiting) = ledger.reservation(reservation).filter(|_| refused) {
            self.note_fruitless(ledger, waiting, usize::MAX, false);
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
            if ledger.preemption_of(pool) == Preemption::Never {
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
                let is_busy = self.placing.contains(&id) || self.hunt.in_flight.contains_key(&id);
                let is_planned = waiting.state == State::Planned;
                if is_planned && !is_busy {
                    // Whoever goes before it by now: what is kept in vain is given up.
                    found.extend(self.give_up(ledger, waiting));
                }
                let queue = waiting.request.queue.as_str();
                if closed.contains(queue) || ledger.is_out_of_hours(waiting) {
                    continue;
                }
                if pool.is_strict() {
                    closed.insert(queue);
                }
                if is_busy || is_planned || !self.may_search(ledger, waiting) {
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

    /// A place is kept in vain where all who had to leave have left, and it is not free all the same: a node was cut. Or it is not to be taken, since the
    /// hours that its owner prefers are over meanwhile.
    fn give_up(&mut self, ledger: &Ledger, planned: &Reservation) -> Option<Eviction> {
        let is_wanted = || !ledger.is_out_of_hours(planned);
        if ledger.is_awaited(planned) || is_wanted() && ledger.kept_place(planned.id).is_some() {
            return None;
        }
        self.hunt.in_flight.insert(planned.id, Vec::new());
        self.hunt.gave_up.insert(planned.id);
        Some(Eviction {
            reservation: planned.id,
            placement: Placement { members: Vec::new() },
            victims: Vec::new(),
        })
    }

    fn may_search(&self, ledger: &Ledger, waiting: &Reservation) -> bool {
        if waiting.preempted().is_some_and(|preempted| preempted.revision >= self.hunt.changed_at)
            || self.hunt.gave_up.contains(&waiting.id)
        {
            return false;
        }
        let key = (self.shape(ledger, &waiting.request), waiting.priority);
        let nodes = self.fleet().pool_len(&waiting.request.pool);
        let is_over = |known: &Fruitless| self.fleet().is_recent(known.changes) && known.looked_at >= nodes;
        !self.hunt.fruitless.get(&key).is_some_and(is_over)
    }

    fn search_for(&mut self, ledger: &Ledger, waiting: &Reservation, left: u64) -> Option<Eviction> {
        let request = &waiting.request;
        let waits_for_time = self.time_blocker(ledger, waiting).is_some();
        if waits_for_time || !self.spending.blockers(ledger, request, &waiting.requester).is_empty() {
            // Nobody who leaves gives back what a limit or budget is short of, or begins a batch or hours.
            return None;
        }
        if self.find(ledger, request).is_some() {
            // There is room: a walk over the queue finds it.
            self.queue_pass_due = true;
            return None;
        }
        let asked = self.hunt.asked();
        let nodes = self.next_nodes(&request.pool);
        let (found, wake_at) = self.search_victims(ledger, waiting, &asked, &nodes);
        let reclaims_from = ledger.pool(&request.pool).map(|pool| pool.reclaims_from(waiting.submitted_at));
        let wake_at = wake_at.into_iter().chain(reclaims_from.filter(|from| *from > ledger.clock())).min();
        let few = found.filter(|(_, victims)| victims.len() as u64 <= left);
        let judged = few.and_then(|(placement, victims)| {
            let rules = rules_of(ledger, waiting, &placement, &victims)?;
            // What the calendar keeps may bind with all of them gone, and what an hour costs is known of a place alone.
            let amounts = request.charge(&placement.members)?;
            let requester = &waiting.requester;
            let short = self.spending.blockers_at(ledger, request, requester, &placement, &amounts);
            let has_room = self.agenda.has_room_without(ledger, request, &amounts, &victims);
            (has_room && short.is_empty()).then_some((placement, victims, rules))
        });
        let reclaims = |rules: &[PreemptionRule]| rules.contains(&PreemptionRule::Reclaim);
        if judged.as_ref().is_some_and(|(.., rules)| reclaims(rules)) && !self.hunt.in_flight.is_empty() {
            // Whoever leaves gives back what was borrowed, and who comes takes some: who borrows then is not known yet.
            self.hunt.is_postponed = true;
            return None;
        }
        let Some((placement, victims, _)) = judged else {
            let soonest = [self.hunt.wake_at, wake_at].into_iter().flatten().min();
            self.hunt.wake_at = soonest;
            self.note_fruitless(ledger, waiting, nodes.len(), wake_at.is_some());
            return None;
        };
        self.hunt.in_flight.insert(waiting.id, victims.clone());
        Some(Eviction { reservation: waiting.id, placement, victims })
    }

    /// The nodes that the next search in a pool looks at: all of them, or in a larger pool as many as one search may, each time others.
    fn next_nodes(&mut self, pool: &str) -> Vec<NodeId> {
        let from = self.hunt.next_node.get(pool).copied().unwrap_or(NodeId(0));
        let nodes = self.fleet().pool_nodes_from(pool, from, MOST_NODES);
        if nodes.len() < self.fleet().pool_len(pool)
            && let Some(last) = nodes.last()
        {
            self.hunt.next_node.insert(pool.to_owned(), NodeId(last.0.saturating_add(1)));
        }
        nodes
    }

    /// Nothing is searched again for requests like this one before a node has changed, or, where somebody was protected, before that is over;
    /// but first all nodes of the pool are looked at.
    fn note_fruitless(&mut self, ledger: &Ledger, waiting: &Reservation, looked_at: usize, wakes: bool) {
        if self.hunt.fruitless.len() >= MOST_FRUITLESS {
            self.hunt.fruitless.clear();
        }
        let key = (self.shape(ledger, &waiting.request), waiting.priority);
        let changes = self.fleet().changes();
        let known = self.hunt.fruitless.get(&key).copied();
        let known = known.filter(|known| self.fleet().is_recent(known.changes));
        let mut now = known.unwrap_or_else(|| Fruitless { changes, ..Fruitless::default() });
        now.looked_at = now.looked_at.saturating_add(looked_at);
        now.wakes |= wakes;
        let is_over = now.looked_at >= self.fleet().pool_len(&waiting.request.pool);
        self.hunt.due |= !is_over;
        if is_over && now.wakes {
            self.hunt.fruitless.remove(&key);
        } else {
            self.hunt.fruitless.insert(key, now);
        }
    }
}

/// The ledger's own judgement, victim by victim: the planner's shortcuts decide nothing. `None` where one of them may stay.
fn rules_of(
    ledger: &Ledger,
    waiting: &Reservation,
    placement: &Placement,
    victims: &[ReservationId],
) -> Option<Vec<PreemptionRule>> {
    let victims: Vec<_> = victims.iter().filter_map(|id| ledger.reservation(*id)).cloned().collect();
    ledger.preemption_rules(waiting, placement, &victims).ok()
}

fn is_kept_for(ledger: &Ledger, id: ReservationId) -> bool {
    ledger.reservation(id).is_some_and(|one| one.state == State::Planned && one.is_waiting())
}
