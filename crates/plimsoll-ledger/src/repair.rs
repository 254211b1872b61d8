//! Gangs that lost members, and what they may have in their place (`docs/semantics.md` 5.10).
//!
//! Invariants: below its minimum a gang holds something only while it is being repaired, and for no longer than its request says; a member that
//! came by a repair has a token of its own, younger than the gang's; no node has members of both.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_types::{LedgerTime, NodeId, Operator, ReservationId, Revision, Term};

use crate::admit::{Sight, refuse_if_any};
use crate::calendar::{Ask, Room, end_of};
use crate::limits::{MAX_TTL_MS, MIN_TTL_MS, expiry_slack_ms};
use crate::{
    Blocker, Gang, Ledger, MemberPlacement, Placement, Reason, Refusal, Request, Reservation, State, Topology,
};

/// First ledger version that knows repairs.
pub(crate) const SINCE_VERSION: u32 = 7;
/// First ledger version in which roles that have fewer members than are of use come before others.
const ROLES_SINCE_VERSION: u32 = 10;

/// A gang that lost members: until when it has the first claim on what takes their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// When it lost members the latest time.
    pub since: LedgerTime,
    /// End of the claim, but for changes of leader. A gang below its minimum ends then.
    pub until: LedgerTime,
    /// Members that it had before it lost any of them.
    pub members: u32,
}

/// What is said of a gang that lost members. In a box of its own: hardly any reservation has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// What nothing has taken the place of; `None` where it is whole again.
    pub repair: Option<Repair>,
    /// Fencing token of each member, in their order; empty where all have the reservation's.
    pub member_tokens: Vec<Revision>,
}

impl Repaired {
    /// `None` where there is nothing to say.
    pub fn of(repair: Option<Repair>, member_tokens: Vec<Revision>) -> Option<Box<Repaired>> {
        (repair.is_some() || !member_tokens.is_empty()).then(|| Box::new(Repaired { repair, member_tokens }))
    }
}

/// Gangs of a pool that are being repaired: by class, then age.
pub(crate) type Repairing = BTreeSet<(Reverse<i32>, ReservationId)>;

impl Reservation {
    /// What it lost and nothing has taken the place of; `None` where it is whole.
    pub fn repair(&self) -> Option<Repair> {
        self.repaired.as_ref().and_then(|repaired| repaired.repair)
    }

    /// Fencing token of each member, in their order; empty where all have the reservation's.
    pub fn member_tokens(&self) -> &[Revision] {
        self.repaired.as_ref().map_or(&[], |repaired| &repaired.member_tokens)
    }

    /// Members that it lost and that nothing has taken the place of; 0 for all that are whole.
    pub fn missing_members(&self) -> u32 {
        let have = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        self.repair().map_or(0, |repair| repair.members.saturating_sub(have))
    }

    /// It holds fewer members than are of use, until it is repaired or its time for that is over.
    pub fn is_below_minimum(&self) -> bool {
        self.repair().is_some()
            && ((self.members.len() as u64) < u64::from(self.request.gang.min_members) || self.lacks_a_role())
    }

    /// True where a gang goes on when such members are gone: it asked for it, and has others.
    pub(crate) fn goes_on_without(&self, gone: impl Fn(&MemberPlacement) -> bool) -> bool {
        self.request.repair_within_ms > 0
            && matches!(self.resume_state, State::Active | State::Partial)
            && self.members.iter().any(|member| !gone(member))
    }

    /// Fencing token of a member: the gang's, or that of the repair by which it came.
    pub fn token_of(&self, member: usize) -> Revision {
        self.member_tokens().get(member).copied().unwrap_or(self.token)
    }

    /// Fencing token of its members on a node, all of which came together; the reservation's where it has none there.
    pub fn token_on(&self, node: NodeId) -> Revision {
        let on = self.members.iter().position(|member| member.node == node);
        on.map_or(self.token, |member| self.token_of(member))
    }

    /// Whole again, or over: what it lost is forgotten, and tokens of members with it where it holds none.
    pub(crate) fn forget_repair(&mut self) {
        self.repaired = None;
    }
}

/// Every way in which what a request says of repairs makes no sense.
pub(crate) fn validate_repair(request: &Request) -> Vec<Blocker> {
    let within_ms = request.repair_within_ms;
    if within_ms == 0 {
        return Vec::new();
    }
    let invalid = |field: &str, value: u64, expected: u64| {
        Blocker::new(Reason::InvalidArgument, field, value, expected)
    };
    let mut bad = Vec::new();
    if !(MIN_TTL_MS..=MAX_TTL_MS).contains(&within_ms) {
        let nearest = within_ms.clamp(MIN_TTL_MS, MAX_TTL_MS);
        bad.push(invalid("repair_within_ms", within_ms, nearest));
    }
    if request.gang.max_members < 2 {
        bad.push(invalid("gang.max_members with repair_within_ms", request.gang.max_members.into(), 2));
    }
    // Which group a newcomer belongs to, and which of its own work it has to be near, is not said of parts of a gang.
    if request.topology.slice_size > 0 {
        bad.push(invalid("topology.slice_size with repair_within_ms", request.topology.slice_size.into(), 0));
    }
    if !request.affinity.is_empty() {
        bad.push(invalid("affinity with repair_within_ms", request.affinity.len() as u64, 0));
    }
    bad
}

impl Ledger {
    /// When what a reservation has on a node that fell silent at `since` is safe to give up. The agent there has heard of no renewal since, so a
    /// gang that goes on without it, and is renewed, does not keep it from being lost.
    pub(crate) fn safe_end_on(
        &self,
        held: &Reservation,
        node: NodeId,
        since: LedgerTime,
    ) -> Option<LedgerTime> {
        let end = self.safe_end_of(held)?;
        if !held.goes_on_without(|member| member.node == node) {
            return Some(end);
        }
        Some(end.min(since.plus_ms(held.ttl_ms).plus_ms(expiry_slack_ms(held.ttl_ms))))
    }

    /// When the claim of a gang that is being repaired ends: a change of leader gives it its full time again. `None` where nothing is repaired.
    pub fn repair_end(&self, gang: &Reservation) -> Option<LedgerTime> {
        let repair = gang.repair()?;
        Some(repair.until.max(self.meta.rearmed_at.plus_ms(gang.request.repair_within_ms)))
    }

    /// When a gang ends because it is below its minimum and was not repaired in time; `None` where nothing of that runs.
    pub(crate) fn unrepaired_at(&self, gang: &Reservation) -> Option<LedgerTime> {
        let stands = gang.state != State::Preempting && gang.resume_state != State::Preempting;
        self.repair_end(gang).filter(|_| stands && gang.is_below_minimum())
    }

    /// True where a gang may have something in the place of members that it lost at `now`, as far as itself is concerned.
    pub fn may_be_repaired(&self, gang: &Reservation, now: LedgerTime) -> bool {
        gang.state == State::Partial
            && gang.missing_members() > 0
            && self.repair_end(gang).is_some_and(|end| now <= end)
            && (gang.hard_end.0 == 0 || now < gang.hard_end)
    }

    /// Gangs of a pool that lost members: priority descending, then age. Some may have no claim any more: [`Ledger::repair_claims`].
    pub fn repairing(&self, pool: &str) -> impl Iterator<Item = ReservationId> {
        self.repairing.get(pool).into_iter().flatten().map(|(_, id)| *id)
    }

    /// Those of them that may have something in the place of what they lost at `now`.
    pub fn repair_claims(&self, pool: &str, now: LedgerTime) -> impl Iterator<Item = &Arc<Reservation>> {
        let gangs = self.repairing(pool).filter_map(|id| self.reservation(id));
        gangs.filter(move |gang| self.may_be_repaired(gang, now))
    }

    /// True where any gang of any pool lost members.
    pub fn has_repairs(&self) -> bool {
        !self.repairing.is_empty()
    }

    /// What a gang lacks, as a request of its own: up to so many members as it lost, each as its members are now, in the domain that the others
    /// are in. Its places are those that [`Ledger::admit_repair`] lets it have, but for nodes of the other members and for limits. `None` where
    /// it lacks nothing, or its nodes have left their domain.
    pub fn lacking(&self, gang: &Reservation) -> Option<Request> {
        let missing = gang.missing_members();
        if missing == 0 {
            return None;
        }
        let mut request = asked_again(gang, missing, gang.lacks_a_role());
        request.requirements.required.terms.extend(self.domain_terms(gang)?);
        request.topology = Topology::default();
        request.max_duration_ms =
            if gang.hard_end.0 > 0 { gang.hard_end.ms_since(self.meta.clock) } else { 0 };
        request.start_at_ms = 0;
        request.max_cost_micros = 0;
        request.repair_within_ms = 0;
        Some(request)
    }

    /// Judges members in the place of those that a gang lost: the rules of [`Ledger::admit`] for the newcomers, with its topology for all members,
    /// and never cut short. What limits and budgets say is asked of the whole grant, as for a resize. O(members).
    ///
    /// # Errors
    /// A refusal that lists all that stands in the way.
    pub fn admit_repair(&self, gang: &Reservation, placement: &Placement) -> Result<(), Refusal> {
        let missing = gang.missing_members();
        let given = placement.members.len() as u64;
        if given == 0 || given > missing.into() {
            let blocker = Blocker::new(Reason::InvalidArgument, "placement.members", given, 1);
            return Err(Refusal {
                reason: Reason::InvalidArgument,
                blockers: vec![Blocker { limit: missing.into(), ..blocker }],
            });
        }
        let needed_only = self.meta.version >= ROLES_SINCE_VERSION && gang.lacks_a_role();
        let asked = asked_again(gang, missing, needed_only);
        let mut blockers = Vec::new();
        let taken: BTreeSet<NodeId> = gang.members.iter().map(|member| member.node).collect();
        let nodes: BTreeSet<NodeId> = placement.members.iter().map(|member| member.node).collect();
        for node in nodes.intersection(&taken) {
            // A node is told of one token for each reservation on it.
            let name = self.node(*node).map_or("", |node| node.name());
            let subject = format!("{name} has members of {}", gang.id);
            blockers.push(Blocker { nodes: 1, ..Blocker::new(Reason::InvalidArgument, subject, 1, 0) });
        }
        let Some(pool) = self.pool(&asked.pool) else {
            return Err(Refusal::one(Reason::PoolNotFound, asked.pool.as_str(), 1, 0));
        };
        let mut whole = Reservation::clone(gang);
        whole.members.extend(placement.members.iter().cloned());
        self.check_places(pool, &asked, (&whole.members, placement), Sight::Both, &mut blockers);
        if self.calendar.has(&asked.pool)
            && let Some(amounts) = asked.charge(&placement.members)
        {
            let (from, until) = (self.meta.clock, end_of(gang));
            let ask = Ask { request: &asked, amounts: &amounts, from, until, plan: None, may_cut: false };
            if let Room::Short(found) = self.calendar.judge(&ask) {
                blockers.extend(found);
            }
        }
        refuse_if_any(blockers)?;
        self.judge_resized_tab(&whole)
    }

    /// Labels of the domain that the members of a gang have to stay in; `None` where they are in no such domain any more.
    fn domain_terms(&self, gang: &Reservation) -> Option<Vec<Term>> {
        let required = &gang.request.topology.required;
        if required.is_empty() {
            return Some(Vec::new());
        }
        let pool = self.pool(&gang.request.pool)?;
        let depth = pool.depth_of(required)?;
        let labels = self.node(gang.members.first()?.node)?.effective_labels();
        let term = |level: &String| {
            let value = labels.get(level)?.clone();
            Some(Term { key: level.clone(), operator: Operator::In, values: vec![value] })
        };
        pool.topology.iter().take(depth + 1).map(term).collect()
    }

    /// I7: what is said of repairs agrees with the members. The words for what does not.
    pub(crate) fn repair_faults(&self, r: &Reservation) -> Option<String> {
        let members = r.members.len();
        let tokens = r.member_tokens();
        if !r.state.is_occupying() {
            return (r.repair().is_some() || !tokens.is_empty())
                .then(|| format!("{} is {} and still being repaired", r.id, r.state.name()));
        }
        if !tokens.is_empty() && tokens.len() != members {
            return Some(format!("{} has {} tokens for {members} members", r.id, tokens.len()));
        }
        if tokens.iter().any(|token| *token < r.token || *token > self.meta.revision) {
            return Some(format!("{} has members with tokens {tokens:?}, its own is {}", r.id, r.token));
        }
        let alike = |(index, member): (usize, &MemberPlacement)| r.token_on(member.node) == r.token_of(index);
        if !tokens.is_empty() && !r.members.iter().enumerate().all(alike) {
            return Some(format!("{} has members of different tokens on one node", r.id));
        }
        (r.repair().is_some() && r.missing_members() == 0)
            .then(|| format!("{} is whole and still being repaired", r.id))
    }
}

/// A gang's request for members in the place of those that it lost: of each role what it may still have, or needs.
fn asked_again(gang: &Reservation, missing: u32, needed_only: bool) -> Request {
    let mut request = gang.request_as_held();
    request.roles = gang.roles_left(needed_only);
    let max_members = if needed_only { missing.min(gang.lacking_by_role()) } else { missing };
    request.gang = Gang { min_members: 1, max_members, ..gang.request.gang };
    request
}
