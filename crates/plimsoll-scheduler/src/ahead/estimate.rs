//! When each that waits will start, as things are at a revision.
//!
//! The first that wait are put into the profile one after the other, each as early as it delays none before it; for those behind
//! them the pace of the first is reckoned with.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Blocker, ClassOrder, Ledger, Pool, Request, Reservation, State, Strategy, least};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

use super::PlannedStart;
use super::future::{FOREVER, Future};
use super::gangs;
use super::quota_ends::QuotaEnds;
use super::rank::RANKED;
use super::search::Search;
use crate::fleet::{Fleet, kinds, split};
use crate::headroom::Headroom;
use crate::points::by_points;
use crate::refusals::wants;
use crate::spending::Spending;
use crate::topology::Scope;

/// Requests of a pool whose start is worked out one by one.
const EXACT: usize = 256;
/// Most looks at nodes for all of them.
const LOOKS: u64 = 8_192;
/// Windows of preferred hours that are looked at for one request.
const MOST_WINDOWS: usize = 8;
/// Length that is reckoned with where a request declares none: an hour.
const SOFT_LENGTH_MS: u64 = 3_600_000;

/// When one that waits is expected to start, and what that rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartEstimate {
    /// Who waits.
    pub reservation: ReservationId,
    /// When it is expected to start; `None` where that cannot be said.
    pub start_at: Option<LedgerTime>,
    /// It is promised: every length that it rests on was declared, and nobody of its class or a lower one may delay it.
    pub is_hard: bool,
    /// The revision of the ledger that it was computed at.
    pub revision: Revision,
    /// What walks the queue.
    pub discipline: String,
    /// Why nothing can be said, where nothing can.
    pub why_none: Option<NoStart>,
}

/// Why there is no estimate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoStart {
    /// It waits for a quota that nobody who holds it said when to give back, for a limit, or for a budget that does not fade.
    Limited(Blocker),
    /// What holds the room that it needs declared no end; the first of it.
    NoEnd(ReservationId),
    /// No node that could hold it takes work.
    NoNode,
    /// It is further ahead than is looked.
    TooFar,
}

/// Estimates for all that wait for a pool, at one revision.
#[derive(Clone, Debug, Default)]
pub struct StartEstimates {
    exact: BTreeMap<ReservationId, StartEstimate>,
    revision: Revision,
    discipline: String,
    now: LedgerTime,
    /// The latest start among the exact ones.
    latest: Option<LedgerTime>,
    /// Why there was none, where none of them has one.
    why_none: Option<NoStart>,
}

impl StartEstimates {
    /// Works out when those who wait for a pool will start; `promised` are the starts that the leader keeps free. O(nodes log nodes), and a bounded number of looks at
    /// nodes.
    pub fn new(ledger: &Ledger, pool: &Pool, promised: &[PlannedStart]) -> StartEstimates {
        let mut estimates = StartEstimates {
            revision: ledger.revision(),
            discipline: pool.discipline_name(),
            now: ledger.clock(),
            ..StartEstimates::default()
        };
        if ledger.pending_len(&pool.name) == 0 {
            return estimates;
        }
        let mut outlook = Outlook::new(ledger, pool);
        let order = by_points(ledger, pool, ledger.clock(), RANKED);
        let order = order.unwrap_or_else(|| ledger.pending(&pool.name).take(EXACT).collect());
        for id in order.into_iter().take(EXACT) {
            let Some(waiting) = ledger.reservation(id) else { continue };
            let mut estimate = outlook.estimate(waiting);
            if outlook.looks == 0 && !estimates.exact.is_empty() {
                // That is as far as is looked: the others go by the pace of these.
                break;
            }
            if let Some(promise) = promised.iter().find(|promise| promise.reservation == id) {
                estimate.start_at = Some(promise.start_at.max(estimates.now));
                (estimate.is_hard, estimate.revision) = (true, promise.revision);
                estimate.why_none = None;
            }
            estimates.latest = estimates.latest.max(estimate.start_at);
            estimates.why_none = estimate.why_none.clone().or(estimates.why_none);
            estimates.exact.insert(id, estimate);
        }
        estimates
    }

    /// The revision that they were worked out at.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The estimate for one that waits at this rank of the queue, from 1.
    pub fn of(&self, reservation: ReservationId, rank: impl FnOnce() -> u64) -> StartEstimate {
        if let Some(exact) = self.exact.get(&reservation) {
            return exact.clone();
        }
        // At the pace of the first: so many starts in so long.
        let exact = (self.exact.len() as u64).max(1);
        let start_at = self.latest.map(|latest| {
            let pace = u128::from(latest.ms_since(self.now)) * u128::from(rank()) / u128::from(exact);
            self.now.plus_ms(u64::try_from(pace).unwrap_or(u64::MAX))
        });
        let why_none =
            if start_at.is_some() { None } else { self.why_none.clone().or(Some(NoStart::TooFar)) };
        StartEstimate {
            reservation,
            start_at,
            is_hard: false,
            revision: self.revision,
            discipline: self.discipline.clone(),
            why_none,
        }
    }
}

/// The profile while those who wait are put into it.
struct Outlook<'a> {
    ledger: &'a Ledger,
    pool: &'a Pool,
    fleet: Fleet,
    future: Future,
    headroom: Headroom,
    quota_ends: QuotaEnds,
    looks: u64,
    /// All that was put in so far rests on declared lengths.
    is_hard: bool,
    /// Per shape, a length and where it found a place: what is put in later only makes it later for others as long.
    found: BTreeMap<u64, (u64, u64)>,
    /// Per queue, the latest start so far.
    lines: BTreeMap<String, u64>,
}

impl<'a> Outlook<'a> {
    fn new(ledger: &'a Ledger, pool: &'a Pool) -> Outlook<'a> {
        let (mut fleet, mut future, mut headroom) =
            (Fleet::default(), Future::default(), Headroom::default());
        fleet.rebuild(ledger);
        for node in ledger.nodes().filter(|node| node.pool == pool.name) {
            future.read(ledger, &pool.name, node.id);
        }
        headroom.refresh(ledger, std::iter::empty());
        let lines = BTreeMap::new();
        Outlook {
            ledger,
            pool,
            fleet,
            future,
            headroom,
            quota_ends: QuotaEnds::default(),
            looks: LOOKS,
            is_hard: true,
            found: BTreeMap::new(),
            lines,
        }
    }

    fn estimate(&mut self, waiting: &Reservation) -> StartEstimate {
        let found = if waiting.state == State::Planned { self.kept(waiting) } else { self.earliest(waiting) };
        // Planned starts are the leader's to promise; and a queue holds back nobody but its own.
        let may_be_promised = self.pool.is_strict()
            && self.ledger.quota().is_empty()
            && self.pool.class_order == ClassOrder::Strict;
        let (start_ms, why_none) = match found {
            Ok(start_ms) => (Some(start_ms), None),
            Err(why) => (None, Some(why)),
        };
        // Whoever waits for something else than room starts at any time, and may be in the way then.
        self.is_hard &= start_ms.is_some();
        StartEstimate {
            reservation: waiting.id,
            start_at: start_ms.map(LedgerTime),
            is_hard: self.is_hard && may_be_promised,
            revision: self.ledger.revision(),
            discipline: self.pool.discipline_name(),
            why_none,
        }
    }

    /// Once those who were given notice for it have left.
    fn kept(&self, waiting: &Reservation) -> Result<u64, NoStart> {
        let place = self.ledger.kept_place(waiting.id);
        let nodes: Vec<NodeId> = match &place {
            Some(place) => place.members.iter().map(|member| member.node).collect(),
            None => waiting.members.iter().map(|member| member.node).collect(),
        };
        let leaving = nodes.iter().flat_map(|node| self.ledger.holders(*node));
        let leaving = leaving.filter(|holder| holder.state == State::Preempting);
        let last = leaving.filter_map(|holder| self.ledger.leaves_by(holder)).max();
        Ok(last.unwrap_or_default().max(self.ledger.clock()).0)
    }

    fn earliest(&mut self, waiting: &Reservation) -> Result<u64, NoStart> {
        let request = &waiting.request;
        let now_ms = self.ledger.clock().0;
        let paid_from_ms = self.paid_from(waiting)?;
        let declared = self.ledger.would_leave_by(request, self.ledger.clock());
        self.is_hard &= declared.is_some();
        let length_ms = declared.map_or(SOFT_LENGTH_MS, |until| until.0.saturating_sub(now_ms));
        let line = &request.queue;
        let not_before_ms =
            if self.pool.is_strict() { self.lines.get(line).copied().unwrap_or(now_ms) } else { now_ms };
        let counts = |_| true;
        let open = self.open_node(request);
        let shape = wants(request);
        let is_single = request.gang.min_members <= 1
            && !gangs::is_for(request)
            && split(self.ledger, request).1.is_zero();
        let known = self.found.get(&shape).filter(|(length, _)| is_single && *length <= length_ms);
        let from_ms = known.map_or(0, |(_, start_ms)| *start_ms);
        let mut looks = self.looks;
        let mut at = self.ledger.may_start_from(waiting, LedgerTime(not_before_ms.max(paid_from_ms)));
        let mut spot = None;
        // Where its hours are over when there is room, the next ones may do.
        for _ in 0..MOST_WINDOWS {
            let search = Search {
                from_ms,
                ledger: self.ledger,
                fleet: &self.fleet,
                future: &self.future,
                request,
                now_ms: at.0,
                length_ms,
                counts: &counts,
            };
            spot = search.earliest_or_on(open, &mut looks);
            let Some(found) = &spot else { break };
            let found_at = LedgerTime(found.start_ms);
            at = self.ledger.may_start_from(waiting, found_at);
            if at == found_at {
                break;
            }
        }
        self.looks = looks;
        let Some(spot) = spot else { return Err(self.why_none(request)) };
        self.future.plan(self.ledger, waiting.id, request, &spot);
        self.quota_ends.plan(request, &spot);
        for member in &spot.placement.members {
            self.fleet.hide(member.node, true);
        }
        self.found.insert(shape, (length_ms, spot.start_ms));
        self.lines.insert(line.clone(), spot.start_ms);
        debug_assert!(spot.start_ms < FOREVER);
        Ok(spot.start_ms)
    }

    /// From when on quotas, limits and budgets are enough for it: as those leave who hold the quota, and as what fades does.
    fn paid_from(&mut self, waiting: &Reservation) -> Result<u64, NoStart> {
        let (ledger, request) = (self.ledger, &waiting.request);
        let mut from_ms = ledger.clock().0;
        if let Some(short) = self.headroom.blockers(request).into_iter().next() {
            let enough_at = self.quota_ends.enough_at(ledger, &self.headroom, request);
            from_ms = from_ms.max(enough_at.ok_or(NoStart::Limited(short))?);
            self.is_hard = false;
        }
        let spending = Spending::default().blockers(ledger, request, &waiting.requester);
        if let Some(short) = spending.into_iter().next() {
            let total = least(request);
            let cheapest = ledger.cheapest(&total, &request.pool);
            let fades_at = ledger.usage_fades_at(request, &waiting.requester, cheapest);
            from_ms = from_ms.max(fades_at.ok_or(NoStart::Limited(short))?.0);
            self.is_hard = false;
        }
        Ok(from_ms)
    }

    /// A node with room for a member now on which nobody is planned.
    fn open_node(&mut self, request: &Request) -> Option<NodeId> {
        let (amounts, _) = split(self.ledger, request);
        let found = self.fleet.best(request, &amounts, Strategy::FirstFit, 0, Scope::default());
        found.map(|(node, _)| node)
    }

    fn why_none(&self, request: &Request) -> NoStart {
        if self.looks == 0 {
            return NoStart::TooFar;
        }
        let mut could_hold: BTreeSet<NodeId> = BTreeSet::new();
        for (amounts, kind) in kinds(self.ledger, request) {
            let required = &kind.requirements.required;
            let views = self.fleet.pool_views(&request.pool).filter(|view| {
                view.node.is_eligible()
                    && (required.terms.is_empty() || required.matches(&view.labels))
                    && view.emptied().fit_amounts(&kind, &amounts).is_ok()
            });
            let nodes: BTreeSet<NodeId> = views.map(|view| view.node.id).collect();
            if nodes.is_empty() && kind.gang.min_members > 0 {
                return NoStart::NoNode;
            }
            could_hold.extend(nodes);
        }
        let held = Future::first_without_end(self.ledger, could_hold.into_iter());
        held.map_or(NoStart::TooFar, NoStart::NoEnd)
    }
}
