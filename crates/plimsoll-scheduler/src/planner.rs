//! The planner: places for new requests and for the queue, on the leader's scratch view.
//!
//! Invariant: planner free = ledger free - bookings in flight. A booking lives from the moment a place is proposed until
//! its proposal was applied, refused or lost (`settle`).

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use plimsoll_ledger::{
    Affinity, Blocker, Evicted, GpuAsk, Ledger, MemberPlacement, Placement, Pool, Reason, Request,
    Requirements, SpotCount, SpotRoom, Strategy, UsageKey, Verdict, WorkIndex,
};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Resources, Term};

use crate::agenda::{Agenda, Taken};
use crate::ahead::Ahead;
use crate::fleet::{Fleet, split};
use crate::headroom::{Charge, Headroom};
use crate::order::splitmix64;
use crate::preemption::Hunt;
use crate::redistribute::Moving;
use crate::refusals::Refusals;
use crate::repairs::Repairs;
use crate::spending::Spending;
use crate::spot::{self, BookedSpots, Spots};
use crate::topology::{BookedWork, Gate, Scope};

/// A booking in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// Classes whose best effort nodes take none of for now, with what they measured: it would have to leave again.
pub type Closed = BTreeMap<NodeId, BTreeMap<String, Evicted>>;

/// The leader's scratch view: applied state less what its own proposals in flight will take.
#[derive(Clone, Debug)]
pub struct Planner {
    pub(crate) fleet: Fleet,
    pub(crate) ahead: Ahead,
    pub(crate) headroom: Headroom,
    pub(crate) spending: Spending,
    pub(crate) agenda: Agenda,
    bookings: BTreeMap<Ticket, Booking>,
    /// Pending reservations whose place is proposed but not applied yet.
    pub(crate) placing: BTreeSet<ReservationId>,
    placing_by_ticket: BTreeMap<Ticket, ReservationId>,
    /// What bookings add to the work that is around.
    pub(crate) booked_work: Arc<WorkIndex>,
    /// Somebody asked to be with or apart from other work: bookings are counted in `booked_work` from then on.
    pub(crate) heeds_work: bool,
    /// Labels, with their pool, that somebody who found no place since the last walk has to be near.
    pub(crate) missed_work: BTreeSet<Label>,
    pub(crate) spots: Spots,
    next_ticket: u64,
    random: u64,
    pub(crate) queue_pass_due: bool,
    /// When the next batch begins for somebody who waits.
    pub(crate) time_at: Option<LedgerTime>,
    /// Who of the pool that is served is to be repaired and was not looked at yet.
    pub(crate) repairs: Repairs,
    pub(crate) hunt: Hunt,
    pub(crate) moving: Moving,
    pub(crate) refusals: Refusals,
}

/// What a proposal in flight will take.
#[derive(Clone, Debug)]
struct Booking {
    pool: String,
    nodes: BTreeSet<NodeId>,
    charge: Option<Charge>,
    /// Of limits and budgets.
    spending: Vec<(UsageKey, u64)>,
    taken: Option<Taken>,
    work: Option<BookedWork>,
    spots: Option<BookedSpots>,
}

/// Pool, key and value of a label that work carries.
pub(crate) type Label = (String, String, String);

impl Planner {
    /// A planner on applied state. `seed` decides what the random strategy draws. O(n log n) in nodes.
    pub fn new(ledger: &Ledger, seed: u64) -> Planner {
        let mut fleet = Fleet::default();
        fleet.rebuild(ledger);
        Planner {
            fleet,
            ahead: Ahead::default(),
            headroom: Headroom::default(),
            spending: Spending::default(),
            agenda: Agenda::default(),
            bookings: BTreeMap::new(),
            placing: BTreeSet::new(),
            placing_by_ticket: BTreeMap::new(),
            booked_work: Arc::default(),
            heeds_work: false,
            missed_work: BTreeSet::new(),
            spots: Spots::default(),
            next_ticket: 0,
            random: seed,
            queue_pass_due: true,
            time_at: None,
            repairs: Repairs::default(),
            hunt: Hunt::new(ledger),
            moving: Moving::default(),
            refusals: Refusals::default(),
        }
    }

    /// Re-reads nodes that applied entries changed.
    pub fn sync(&mut self, ledger: &Ledger, nodes: impl IntoIterator<Item = NodeId>) {
        for node in nodes {
            let change = self.fleet.sync(ledger, node);
            self.ahead.node_changed(ledger, node);
            self.hunt.note_kept(ledger, node);
            if change.remade {
                self.refusals.clear();
            }
            self.queue_pass_due |= change.grew;
            if change.remade {
                self.hunt.note_change(ledger);
                // A device may have failed under a gang that wants another.
                self.queue_pass_due |= ledger.has_repairs();
            }
            // What comes free there may be kept for somebody, so that nothing grew.
            self.queue_pass_due |= ledger.usage(node).is_some_and(|usage| usage.kept.is_some());
            // What ends on a silent node gives back its quota and no room there; a gang that loses members there wants others.
            self.queue_pass_due |=
                (!ledger.quota().is_empty() || ledger.counts_usage() || ledger.has_repairs())
                    && ledger.node(node).is_none_or(|node| !node.is_eligible());
        }
    }

    /// Re-reads nodes that commands changed, but for those with a booking: what was booked may be among the changes and
    /// would count twice. Those are re-read when it is settled.
    pub fn sync_changed(&mut self, ledger: &Ledger, nodes: impl IntoIterator<Item = NodeId>) {
        let idle: Vec<NodeId> = nodes.into_iter().filter(|node| !self.fleet.is_booked(*node)).collect();
        self.sync(ledger, idle);
    }

    /// Puts no best effort of these classes on these nodes from now on, and on all others again: it would have to leave for what they measure.
    /// The ledger would admit it: what a node measures is not in the log.
    pub fn close(&mut self, closed: Closed) {
        self.queue_pass_due |= self.fleet.close(closed);
    }

    /// Re-reads everything: pools or node limits changed.
    pub fn sync_policies(&mut self, ledger: &Ledger) {
        self.fleet.rebuild(ledger);
        self.ahead.forget();
        self.headroom.forget();
        self.agenda.forget();
        self.refusals.clear();
        self.queue_pass_due = true;
        self.hunt.note_change(ledger);
    }

    /// What is planned from here on is proposed at `now`, by the leader's clock. Before each round: where a window of the calendar opened or ended
    /// since the last one, another walk over the queue is wanted.
    pub fn tick(&mut self, ledger: &Ledger, now: LedgerTime) {
        self.set_time(now);
        if self.agenda.tick(ledger, now) {
            self.queue_pass_due = true;
            self.hunt.note_window();
        }
        self.queue_pass_due |= self.time_at.take_if(|at| *at <= ledger.clock()).is_some();
        self.hunt.wake(ledger.clock());
    }

    /// True where capacity came free, or a strict queue grew behind a head that may be on its way, since the last walk over
    /// the queue.
    pub fn wants_queue_pass(&self) -> bool {
        self.queue_pass_due
    }

    /// A place for a request, or all that stands in the way. Books nothing. In large fleets the numbers of what stands in
    /// the way may be those of a little earlier: until one node in 256 has changed.
    pub fn place(&mut self, ledger: &Ledger, request: &Request) -> Verdict {
        self.place_for(ledger, request, "")
    }

    /// The same for somebody: limits and budgets go by who asks where the request names no tenant.
    pub fn place_for(&mut self, ledger: &Ledger, request: &Request, requester: &str) -> Verdict {
        let request = &*ledger.filled(request);
        self.read_quota(ledger);
        let short = self.unpayable(ledger, request, requester);
        let found = if short.is_empty() { self.find(ledger, request) } else { None };
        let found = found.and_then(|found| self.afford(ledger, request, requester, found));
        match found {
            Some(placement) => Verdict::Place(placement),
            None => self.refuse_for(ledger, request, requester, short),
        }
    }

    /// Plans new requests in the order that their pool's strategy wants and books what it finds. Verdicts come in the
    /// order of the requests.
    pub fn plan_batch(&mut self, ledger: &Ledger, requests: &[&Request]) -> Vec<(Verdict, Option<Ticket>)> {
        self.plan_batch_for(ledger, requests, &vec![""; requests.len()])
    }

    /// The same for those who ask, in the order of their requests.
    pub fn plan_batch_for(
        &mut self,
        ledger: &Ledger,
        requests: &[&Request],
        requesters: &[&str],
    ) -> Vec<(Verdict, Option<Ticket>)> {
        for request in requests {
            self.learn(request);
        }
        let filled: Vec<_> = requests.iter().map(|request| ledger.filled(request)).collect();
        let requests: Vec<&Request> = filled.iter().map(AsRef::as_ref).collect();
        let requests = requests.as_slice();
        self.read_quota(ledger);
        let requester_of = |index: usize| requesters.get(index).copied().unwrap_or_default();
        let mut together = self.plan_optimized(ledger, requests, &requester_of);
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|index| batch_rank(ledger, requests[*index], *index));
        self.begin_batch(ledger);
        let mut verdicts: Vec<Option<(Verdict, Option<Ticket>)>> = vec![None; requests.len()];
        let mut failed: BTreeMap<u64, Verdict> = BTreeMap::new();
        // Strict pools in which a request of this batch has to wait.
        let mut held_back: BTreeSet<(&str, &str)> = BTreeSet::new();
        for index in order {
            let request = requests[index];
            if let Some((placement, ticket)) = together.remove(&index) {
                verdicts[index] = Some((Verdict::Place(placement), Some(ticket)));
                continue;
            }
            let strict = ledger.pool(&request.pool).is_some_and(|pool| pool.is_strict());
            let line = (request.pool.as_str(), request.queue.as_str());
            let behind = if strict { ledger.pending_ahead(&request.queue, &request.pool) as u64 } else { 0 };
            if behind > 0 || held_back.contains(&line) {
                let name = if request.queue.is_empty() { line.0 } else { line.1 };
                let blocker = Blocker::new(Reason::BehindInQueue, name, 1, behind);
                verdicts[index] = Some((Verdict::Blocked(vec![blocker]), None));
                // What it waits behind may be on its way to its place, or wait for its hours: then only another walk finds room for this one.
                self.queue_pass_due |= !self.placing.is_empty() || ledger.awaits_hours();
                continue;
            }
            if request.start_at_ms > self.agenda.now().0 {
                // For later: the ledger keeps what it needs, or says what stands in the way.
                let verdict = match self.refuse(ledger, request, Vec::new()) {
                    Verdict::Infeasible(blockers) => Verdict::Infeasible(blockers),
                    _ => Verdict::Blocked(Vec::new()),
                };
                verdicts[index] = Some((verdict, None));
                continue;
            }
            let shape = self.shape(ledger, request);
            let requester = requester_of(index);
            // Limits and budgets go by who asks: of those, a shape says nothing.
            let counted = ledger.counts_usage();
            let behind = self.ahead.holds_back(&request.pool);
            let verdict = match failed.get(&shape).filter(|_| !counted && !behind) {
                Some(verdict) => verdict.clone(),
                None if behind => self.place_behind(ledger, request, requester),
                None => self.place_for(ledger, request, requester),
            };
            let ticket = match &verdict {
                Verdict::Place(placement) => Some(self.book_for(ledger, request, requester, placement)),
                Verdict::Blocked(_) | Verdict::Infeasible(_) => {
                    failed.insert(shape, verdict.clone());
                    if strict {
                        held_back.insert(line);
                    }
                    None
                }
            };
            verdicts[index] = Some((verdict, ticket));
        }
        self.end_batch();
        verdicts.into_iter().flatten().collect()
    }

    /// All that stands in the way of a request that found no place.
    pub(crate) fn refusal(&mut self, ledger: &Ledger, request: &Request, requester: &str) -> Verdict {
        let short = self.unpayable(ledger, request, requester);
        self.refuse_for(ledger, request, requester, short)
    }

    fn refuse_for(
        &mut self,
        ledger: &Ledger,
        request: &Request,
        requester: &str,
        short: Vec<Blocker>,
    ) -> Verdict {
        match self.refuse(ledger, request, short) {
            Verdict::Blocked(blockers) if blockers.is_empty() => {
                Verdict::Blocked(self.short_there(ledger, request, requester))
            }
            verdict => verdict,
        }
    }

    /// What is short at the place that it would have otherwise: how much of a device a share by memory is, and what its hour costs, is known of a
    /// place alone, and the least that it could be was there.
    fn short_there(&mut self, ledger: &Ledger, request: &Request, requester: &str) -> Vec<Blocker> {
        let bounds = (mem::take(&mut self.headroom), mem::take(&mut self.agenda));
        let found = self.find(ledger, request);
        (self.headroom, self.agenda) = bounds;
        let Some(mut place) = found else { return Vec::new() };
        place.members.truncate(request.gang.min_members.max(1) as usize);
        let Some(amounts) = request.charge(&place.members) else { return Vec::new() };
        let paid = self.spending.blockers_at(ledger, request, requester, &place, &amounts);
        [paid, self.headroom.blockers_of(request, &amounts), self.agenda.blockers_of(request, &amounts)]
            .concat()
    }

    /// What keeps a new request from a grant wherever there is room: its limits and budgets, its hours, and batches of its queue.
    pub(crate) fn unpayable(&self, ledger: &Ledger, request: &Request, requester: &str) -> Vec<Blocker> {
        let mut short = self.spending.blockers(ledger, request, requester);
        short.extend(ledger.time_blocker(request, ledger.clock(), 0));
        short
    }

    /// Books a place for one pending reservation, on `only` these nodes where they are named. O(nodes) where many are named.
    pub(crate) fn plan_one(
        &mut self,
        ledger: &Ledger,
        id: ReservationId,
        request: &Request,
        only: Option<&BTreeSet<NodeId>>,
    ) -> Option<(Placement, Ticket)> {
        if self.placing.contains(&id) {
            return None;
        }
        self.read_quota(ledger);
        let others: Vec<NodeId> = match only {
            None => Vec::new(),
            Some(only) => {
                let views = self.fleet.pool_views(&request.pool).map(|view| view.node.id);
                let open = |id: &NodeId| self.fleet.slot(*id).is_some_and(|slot| !slot.hidden);
                views.filter(|id| !only.contains(id)).filter(open).collect()
            }
        };
        self.set_aside(others.iter().copied(), true);
        let requester = requester_of(ledger, id);
        let found = self.find(ledger, request);
        self.set_aside(others, false);
        let placement = self.afford(ledger, request, requester, found?)?;
        let ticket = self.book_pending(ledger, id, request, &placement);
        Some((placement, ticket))
    }

    /// Books the place found for a pending reservation, which is on its way there until the ticket is settled.
    pub(crate) fn book_pending(
        &mut self,
        ledger: &Ledger,
        id: ReservationId,
        request: &Request,
        placement: &Placement,
    ) -> Ticket {
        let ticket = self.book_for(ledger, request, requester_of(ledger, id), placement);
        self.placing.insert(id);
        self.placing_by_ticket.insert(ticket, id);
        ticket
    }

    /// Leaves nodes out of searches, or takes them in again.
    pub(crate) fn set_aside(&mut self, nodes: impl IntoIterator<Item = NodeId>, aside: bool) {
        for node in nodes {
            self.fleet.hide(node, aside);
        }
    }

    /// The proposal of a booking was applied, refused or lost: drops the booking and re-reads its nodes.
    pub fn settle(&mut self, ledger: &Ledger, ticket: Ticket) {
        self.settle_all(ledger, [ticket]);
    }

    /// [`Planner::settle`] for many: a node that several were on is re-read once.
    pub fn settle_all(&mut self, ledger: &Ledger, tickets: impl IntoIterator<Item = Ticket>) {
        let mut changed = BTreeSet::new();
        for ticket in tickets {
            let Some(booking) = self.bookings.remove(&ticket) else { continue };
            let Booking { pool, nodes, charge, spending, taken, work, spots } = booking;
            if let Some(spots) = spots {
                self.unbook_spots(&spots);
            }
            if let Some(work) = work.filter(|_| self.heeds_work) {
                work.count(Arc::make_mut(&mut self.booked_work), false);
                // It is there now, and nothing came free: only another walk finds a place for who waited for it.
                self.queue_pass_due |= self.missed_work.iter().any(|label| work.carries(&pool, label));
            }
            self.spending.give_back(&spending);
            self.ahead.settled(&pool, ticket);
            if charge.is_some() {
                self.headroom.forget();
            }
            if taken.is_some() {
                self.agenda.forget();
            }
            if let Some(reservation) = self.placing_by_ticket.remove(&ticket) {
                self.placing.remove(&reservation);
            }
            self.fleet.unbook(ticket.0, &pool, nodes.iter().copied());
            changed.extend(nodes);
        }
        self.sync(ledger, changed);
    }

    /// Differences between this view and the ledger less bookings, as sentences; for tests.
    pub fn check(&self, ledger: &Ledger) -> Vec<String> {
        let mut wrong = Vec::new();
        for node in ledger.nodes() {
            let (Some(have), Some(should)) = (self.fleet.get(node.id), self.fleet.expected(ledger, node.id))
            else {
                wrong.push(format!("node {} is not in the planner", node.name()));
                continue;
            };
            if have.stock() != should.stock() {
                wrong.push(format!(
                    "node {}: planner {:?}, ledger less bookings {:?}",
                    node.name(),
                    have.free,
                    should.free
                ));
            }
        }
        wrong.extend(self.fleet.views.check(&self.fleet.slots));
        wrong
    }

    /// Quotas as the ledger has them now, less what is booked.
    pub(crate) fn read_quota(&mut self, ledger: &Ledger) {
        self.headroom.refresh(ledger, self.bookings.values().filter_map(|booking| booking.charge.as_ref()));
        self.agenda.refresh(ledger, self.bookings.values().filter_map(|booking| booking.taken.as_ref()));
    }

    /// A place by the strategy of the request's pool.
    pub(crate) fn find(&mut self, ledger: &Ledger, request: &Request) -> Option<Placement> {
        let found = self.find_by(ledger, request, strategy_of(ledger, request));
        if found.is_none() {
            let near = request.affinity.iter().filter(|rule| rule.is_required() && !rule.anti);
            let label = |rule: &Affinity| (request.pool.clone(), rule.key.clone(), rule.value.clone());
            self.missed_work.extend(near.map(label));
        }
        found
    }

    /// All members, greedily: as many as fit up to the maximum, or nothing below the minimum; on spot nodes no more than `room` has.
    pub(crate) fn find_within(
        &mut self,
        ledger: &Ledger,
        request: &Request,
        strategy: Strategy,
        room: Option<&SpotRoom>,
    ) -> Option<Placement> {
        if !request.roles.is_empty() {
            return self.find_roles(ledger, request, strategy);
        }
        self.heed_work_for(request);
        let pool = ledger.pool(&request.pool)?;
        let (amounts, in_pool) = split(ledger, request);
        let most = self.most_by_countables(ledger, pool, &in_pool, request.gang.max_members);
        let most = self.headroom.most_members(request, most);
        let most = self.agenda.most_members(request, most);
        if most < request.gang.min_members {
            return None;
        }
        let booked = Arc::clone(&self.booked_work);
        let gate = Gate::new(ledger, request, &booked);
        let bounds = (request.gang.min_members.max(1), most);
        let parts = self.fleet.parts(ledger, request, &amounts, bounds, gate.as_ref())?;
        let mut members: Vec<MemberPlacement> = Vec::new();
        // What the members found so far take while the others are being found; booking is the caller's.
        let mut taken = BTreeMap::new();
        let mut on_spot = SpotCount::default();
        let wanted = parts.iter().flat_map(|part| std::iter::repeat_n(part, part.members as usize));
        for part in wanted {
            let random = self.draw();
            let closed = room.and_then(|room| spot::closed(room, &on_spot));
            let narrowed: Option<Vec<Term>> =
                closed.map(|closed| part.terms.iter().cloned().chain([closed]).collect());
            let terms = narrowed.as_ref().unwrap_or(&part.terms);
            let scope = Scope { terms, node: part.node, gate: gate.as_ref() };
            let Some((node, devices)) = self.fleet.best(request, &amounts, strategy, random, scope) else {
                break;
            };
            if let (Some(_), Some(view)) = (room, self.fleet.get(node)) {
                on_spot.add_member(&view.node);
            }
            if most > 1 {
                if let Some(view) = self.fleet.get(node) {
                    taken.entry(node).or_insert_with(|| view.stock());
                }
                if request.gang.spread {
                    self.fleet.hide(node, true);
                } else {
                    self.fleet.take(node, &amounts, &devices, request.is_best_effort());
                }
            }
            members.push(MemberPlacement { node, devices, role: 0 });
        }
        for (node, stock) in taken {
            if request.gang.spread {
                self.fleet.hide(node, false);
            } else {
                self.fleet.restore(node, stock);
            }
        }
        let mut placement = Placement { members };
        self.headroom.trim(request, &mut placement);
        self.agenda.trim(request, &mut placement);
        keep_groups(request, &mut placement);
        (placement.members.len() as u32 >= request.gang.min_members.max(1)).then_some(placement)
    }

    /// From the first request on that minds other work, bookings count as such: those that were made before it, too.
    fn heed_work_for(&mut self, request: &Request) {
        if self.heeds_work || request.affinity.is_empty() {
            return;
        }
        self.heeds_work = true;
        let index = Arc::make_mut(&mut self.booked_work);
        self.bookings
            .values()
            .filter_map(|booking| booking.work.as_ref())
            .for_each(|work| work.count(index, true));
    }

    /// Members that the pool's countables are enough for, at most `wanted`.
    fn most_by_countables(&self, ledger: &Ledger, pool: &Pool, in_pool: &Resources, wanted: u32) -> u32 {
        if in_pool.is_zero() {
            return wanted;
        }
        let per_resource = in_pool.iter().map(|(name, amount)| {
            let free = self.fleet.countable_free(ledger, pool, name);
            u32::try_from(free / amount.0.max(1)).unwrap_or(u32::MAX)
        });
        per_resource.fold(wanted, u32::min)
    }

    /// What was asked says what will be: of each role by itself.
    fn learn(&mut self, request: &Request) {
        match request.roles.is_empty() {
            true => self.fleet.gradients.learn(request),
            false => request.by_role().iter().for_each(|role| self.fleet.gradients.learn(role)),
        }
    }

    /// Drops bookings that were never proposed.
    pub(crate) fn give_back(&mut self, ledger: &Ledger, tickets: Vec<Ticket>) {
        // What they took and give back is no news to the queue.
        let due = self.queue_pass_due;
        self.settle_all(ledger, tickets);
        self.queue_pass_due = due;
    }

    pub(crate) fn new_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    pub(crate) fn book(&mut self, ledger: &Ledger, request: &Request, placement: &Placement) -> Ticket {
        let ticket = self.new_ticket();
        let shares = ledger.shares_asked(request);
        self.fleet.book(ticket.0, &shares, placement, request.is_best_effort());
        let in_pool = shares.in_pool(&placement.members);
        if !in_pool.is_zero() {
            self.fleet.book_countables(ticket.0, &request.pool, in_pool);
        }
        let nodes = placement.members.iter().map(|member| member.node).collect();
        let charge = Charge::of(request, placement);
        if let Some(charge) = &charge {
            self.headroom.take(charge);
        }
        let taken = self.agenda.taken(request, placement);
        if let Some(taken) = &taken {
            self.agenda.take(taken);
        }
        self.heed_work_for(request);
        let work = BookedWork::of(ledger, request, placement);
        if let Some(work) = work.as_ref().filter(|_| self.heeds_work) {
            work.count(Arc::make_mut(&mut self.booked_work), true);
        }
        let pool = request.pool.clone();
        let spots = self.book_spots(ledger, request, placement);
        let booking = Booking { pool, nodes, charge, spending: Vec::new(), taken, work, spots };
        self.bookings.insert(ticket, booking);
        self.ahead.booked(ledger, ticket, request, placement);
        ticket
    }

    /// The same, with what it takes of limits and budgets.
    pub(crate) fn book_for(
        &mut self,
        ledger: &Ledger,
        request: &Request,
        requester: &str,
        placement: &Placement,
    ) -> Ticket {
        let ticket = self.book(ledger, request, placement);
        let spending = self.spending.take(ledger, request, requester, placement);
        if let Some(booking) = self.bookings.get_mut(&ticket) {
            booking.spending = spending;
        }
        ticket
    }

    /// The same draws for the same seed.
    fn draw(&mut self) -> u64 {
        self.random = splitmix64(self.random);
        self.random
    }

    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }
}

/// Drops the members of a group that is not whole.
pub(crate) fn keep_groups(request: &Request, placement: &mut Placement) {
    let group = request.topology.group() as usize;
    placement.members.truncate(placement.members.len() / group * group);
}

/// Place of a request in its batch: by class, then size, for the strategies that say so; else as it came.
fn batch_rank(
    ledger: &Ledger,
    request: &Request,
    index: usize,
) -> (i64, std::cmp::Reverse<(u64, u64, u64)>, usize) {
    let priority = priority_of(ledger, request);
    let none = std::cmp::Reverse((0, 0, 0));
    match strategy_of(ledger, request) {
        Strategy::Priority => (-priority, std::cmp::Reverse(size_of(request)), index),
        Strategy::FirstFitDecreasing => (0, std::cmp::Reverse(size_of(request)), index),
        _ => (-priority, none, index),
    }
}

fn strategy_of(ledger: &Ledger, request: &Request) -> Strategy {
    ledger.pool(&request.pool).map(|pool| pool.strategy).unwrap_or_default()
}

/// Priority of a request's class; higher goes first.
pub(crate) fn priority_of(ledger: &Ledger, request: &Request) -> i64 {
    ledger.class(&request.class).map_or(0, |class| i64::from(class.priority))
}

/// GPU thousandths that one member asks for.
pub(crate) fn gpu_milli_of(request: &Request) -> u64 {
    nominal_milli(&request.requirements)
}

fn nominal_milli(needs: &Requirements) -> u64 {
    needs.gpu.as_ref().map_or(0, GpuAsk::nominal_milli)
}

/// Size of a request: GPU thousandths of all members; where no GPU is asked, cpu, then memory.
pub(crate) fn size_of(request: &Request) -> (u64, u64, u64) {
    let sum = |of: &dyn Fn(&Requirements) -> u64| {
        let kinds = request.kinds_with_most();
        kinds.map(|(needs, most)| of(needs).saturating_mul(most.into())).fold(0, u64::saturating_add)
    };
    let gpu_milli = sum(&nominal_milli);
    if gpu_milli > 0 {
        // Among equal GPU asks the order of arrival stays: the heaviest cpu asks in a row would end up on the same
        // nodes and strand GPUs there.
        return (gpu_milli, 0, 0);
    }
    (0, sum(&|needs| needs.amounts.cpu_millis.0), sum(&|needs| needs.amounts.memory_bytes.0))
}

/// Who asked for a reservation.
pub(crate) fn requester_of(ledger: &Ledger, id: ReservationId) -> &str {
    ledger.reservation(id).map_or("", |reservation| reservation.requester.as_str())
}
