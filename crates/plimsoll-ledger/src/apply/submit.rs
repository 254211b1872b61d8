//! From request to grant: `Submit` and `Place`.

use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, ReservationId, Revision};

use crate::ledger::Context;
use crate::limits::{MAX_LIVE, MAX_PENDING};
use crate::topology::{self, asks_for_topology};
use crate::validate::validate_request;
use crate::{
    Blocker, EventObject, Ledger, OnPreempt, Outcome, Placement, Reason, Refusal, Request, Reservation,
    State, Verdict, Wait,
};
use crate::{mig, qos, role};

impl Ledger {
    pub(crate) fn apply_submit(
        &mut self,
        context: &mut Context<'_>,
        request: &Request,
        verdict: &Verdict,
    ) -> Result<Outcome, Refusal> {
        self.check_submit(request)?;
        let mut reservation = self.new_reservation(context, request);
        self.check_submit_usage(&reservation.request, context.actor, verdict)?;
        if Ledger::is_for_later(request, context.now) {
            self.plan(context, verdict, &mut reservation)?;
            self.count_submission(&reservation.request, context.actor);
            return Ok(self.store(context, "plan", reservation, None));
        }
        match verdict {
            Verdict::Place(placement) => {
                let asked = &reservation.request;
                let admitted = self
                    .admit_order(&reservation)
                    .and_then(|()| self.admit_time(asked, context.now))
                    .and_then(|()| self.admit_at(asked, context.actor, placement, (context.now, None)));
                match (admitted, request.wait) {
                    (Err(_), _) if mutant!("trust-the-planner") => {
                        grant(&mut reservation, placement, None, context);
                    }
                    (Ok(cut), _) => grant(&mut reservation, placement, cut, context),
                    (Err(refusal), Wait::Refuse) => return Err(refusal),
                    (Err(refusal), Wait::Queue { .. }) => {
                        self.enqueue(&mut reservation, refusal.blockers, context)?
                    }
                }
            }
            Verdict::Blocked(blockers) => match request.wait {
                Wait::Refuse => {
                    return Err(Refusal { reason: Reason::NoCapacity, blockers: blockers.clone() });
                }
                Wait::Queue { .. } => self.enqueue(&mut reservation, blockers.clone(), context)?,
            },
            Verdict::Infeasible(blockers) => {
                return Err(Refusal { reason: Reason::Infeasible, blockers: blockers.clone() });
            }
        }
        self.count_submission(&reservation.request, context.actor);
        if reservation.state.is_occupying() {
            self.open_tab(&mut reservation);
        }
        Ok(self.store(context, "submit", reservation, None))
    }

    pub(crate) fn apply_place(
        &mut self,
        context: &mut Context<'_>,
        id: ReservationId,
        placement: &Placement,
    ) -> Result<Outcome, Refusal> {
        let old = Arc::clone(self.find(id)?);
        if old.repair().is_some() {
            return self.apply_repair(context, &old, placement);
        }
        let started = old.is_advance() && !Ledger::is_for_later(&old.request, context.now);
        if !old.is_waiting() && !started {
            let state = if old.aside.is_some() { "set aside" } else { old.state.name() };
            return Err(Refusal::one(Reason::WrongState, format!("{id} is {state}"), 1, 0));
        }
        if old.deadline.0 > 0 && context.now > old.deadline {
            return Err(Refusal::one(Reason::Expired, "wait deadline", context.now.0, old.deadline.0));
        }
        self.admit_time(&old.request, old.submitted_at)?;
        let own = [Arc::clone(&old)];
        let when = (context.now, started.then_some(id));
        let cut = self
            .without(&own, |ledger| ledger.admit_at(&old.request, &old.requester, placement, when))
            .or_else(|no| mutant!("trust-the-planner").then_some(None).ok_or(no))?;
        let mut new = Reservation::clone(&old);
        grant(&mut new, placement, cut, context);
        self.open_tab(&mut new);
        Ok(self.store(context, "place", new, Some(old.state)))
    }

    /// Refuses a grant while others of its queue go before it and are set aside: nobody looks for a place for those.
    fn admit_order(&self, coming: &Reservation) -> Result<(), Refusal> {
        let blocker = self.order_blocker(&coming.request.queue, coming.priority);
        blocker.map_or(Ok(()), |blocker| Err(Refusal { reason: blocker.reason, blockers: vec![blocker] }))
    }

    /// Replaces a reservation, notes the revision, tells the event, and answers with the new form.
    pub(crate) fn store(
        &mut self,
        context: &mut Context<'_>,
        rule: &'static str,
        mut reservation: Reservation,
        before: Option<State>,
    ) -> Outcome {
        reservation.changed = context.revision;
        if reservation.state != State::Unknown {
            reservation.resume_state = reservation.state;
        }
        if reservation.endpoint.is_none() {
            self.forget_load(reservation.id);
        }
        let reservation = Arc::new(reservation);
        let old = self.put_reservation(Arc::clone(&reservation));
        self.guard(old.as_deref(), &reservation);
        context.event(rule, EventObject::Reservation(Arc::clone(&reservation), before));
        Outcome::Reservation(reservation)
    }

    pub(crate) fn find(&self, id: ReservationId) -> Result<&Arc<Reservation>, Refusal> {
        self.reservations.get(&id).ok_or_else(|| Refusal::one(Reason::NotFound, id.to_string(), 1, 0))
    }

    fn check_submit(&self, request: &Request) -> Result<(), Refusal> {
        if self.pool(&request.pool).is_none() {
            return Err(Refusal::one(Reason::PoolNotFound, request.pool.as_str(), 1, 0));
        }
        if self.class(&request.class).is_none() {
            return Err(Refusal::one(Reason::ClassNotFound, request.class.as_str(), 1, 0));
        }
        if super::usage::asks_for_usage(request) {
            self.require_version(super::usage::SINCE_VERSION, "limits of cost")?;
        }
        if !request.queue.is_empty() {
            self.require_version(super::queues::SINCE_VERSION, "queues")?;
        }
        if request.on_preempt != OnPreempt::default() {
            self.require_version(super::preempt::SINCE_VERSION, "on_preempt")?;
        }
        if asks_for_topology(request) {
            self.require_version(topology::SINCE_VERSION, "topology and affinity")?;
        }
        if mig::asks_for_slices(request) {
            self.require_version(mig::SINCE_VERSION, "MIG profiles")?;
        }
        if qos::asks_for_qos(request) {
            self.require_version(qos::SINCE_VERSION, "quality of service")?;
        }
        if super::repair::asks_for_repair(request) {
            self.require_version(crate::repair::SINCE_VERSION, "repair_within_ms")?;
        }
        if role::asks_for_roles(request) {
            self.require_version(role::SINCE_VERSION, "roles of a gang")?;
        }
        self.check_interruption(request)?;
        self.check_hours_version(request)?;
        self.check_nice(request)?;
        if !request.queue.is_empty() && self.queue(&request.queue).is_none() {
            return Err(Refusal::one(Reason::QueueNotFound, request.queue.as_str(), 1, 0));
        }
        self.check_service(request)?;
        self.check_hours(request)?;
        if request.start_at_ms > 0 {
            self.require_version(crate::calendar::SINCE_VERSION, "start_at_ms")?;
        }
        let bad = validate_request(request);
        if !bad.is_empty() {
            return Err(Refusal { reason: Reason::InvalidArgument, blockers: bad });
        }
        self.check_levels(request)?;
        self.check_qos(request)?;
        let live = self.live();
        if live >= MAX_LIVE as u64 {
            return Err(Refusal::one(Reason::TableFull, "reservations", live, MAX_LIVE as u64));
        }
        Ok(())
    }

    fn new_reservation(&mut self, context: &Context<'_>, request: &Request) -> Reservation {
        let lengths = self.lengths(request);
        let request = Request {
            ttl_ms: lengths.ttl_ms,
            hold_ms: lengths.hold_ms,
            max_duration_ms: lengths.max_duration_ms,
            ..self.filled(request).into_owned()
        };
        let request = self.recent.share(request);
        Reservation {
            id: ReservationId(context.revision.0),
            requester: context.actor.to_owned(),
            priority: self.priority_of(&request.class),
            state: State::Pending,
            resume_state: State::Pending,
            amounts: request.requirements.amounts.clone(),
            members: Vec::new(),
            token: Revision(0),
            ttl_ms: request.ttl_ms,
            submitted_at: context.now,
            granted_at: LedgerTime(0),
            deadline: LedgerTime(0),
            hard_end: LedgerTime(0),
            ended_at: LedgerTime(0),
            end_reason: None,
            changed: context.revision,
            blockers: Vec::new(),
            preempted: None,
            tab: None,
            cost_micros: 0,
            endpoint: None,
            repaired: None,
            aside: None,
            request,
        }
    }

    fn enqueue(
        &self,
        reservation: &mut Reservation,
        blockers: Vec<Blocker>,
        context: &Context<'_>,
    ) -> Result<(), Refusal> {
        let pool = &reservation.request.pool;
        let own_bound = self.pool(pool).map_or(0, |pool| pool.max_pending as usize);
        let most = if own_bound > 0 { own_bound } else { MAX_PENDING };
        let waiting = self.pending_len(pool);
        if waiting >= most {
            let blocker = Blocker::new(Reason::QueueFull, pool.as_str(), waiting as u64 + 1, most as u64);
            return Err(Refusal { reason: Reason::QueueFull, blockers: [vec![blocker], blockers].concat() });
        }
        let queue = &reservation.request.queue;
        let most = self.queue(queue).map_or(0, |queue| queue.max_pending as usize);
        let waiting = if most > 0 { self.pending_of_queue(queue) } else { 0 };
        let sets_aside = self.bound_of(queue).is_some();
        if most > 0 && waiting >= most && !sets_aside {
            let blocker = Blocker::new(Reason::QueueFull, queue.as_str(), waiting as u64 + 1, most as u64);
            return Err(Refusal { reason: Reason::QueueFull, blockers: [vec![blocker], blockers].concat() });
        }
        if let Wait::Queue { deadline_ms: wait_ms @ 1.. } = reservation.request.wait {
            reservation.deadline = context.now.plus_ms(wait_ms);
        }
        reservation.blockers = blockers;
        Ok(())
    }
}

/// Gives the reservation its place: held, or active at once. The token is the revision of this entry.
/// The grant ends at `cut` at the latest, where a schedule says so.
fn grant(
    reservation: &mut Reservation,
    placement: &Placement,
    cut: Option<LedgerTime>,
    context: &Context<'_>,
) {
    // What was planned for then ends when it was planned to.
    if !reservation.is_advance() {
        reservation.hard_end = cut.unwrap_or_else(|| hard_end(&reservation.request, context.now));
    }
    let request = &reservation.request;
    reservation.members = placement.members.clone();
    reservation.token = if mutant!("reuse-token") { Revision(reservation.id.0) } else { context.revision };
    reservation.granted_at = context.now;
    reservation.blockers = Vec::new();
    if request.auto_confirm {
        activate(reservation, context.now);
    } else {
        reservation.state = State::Held;
        reservation.deadline = context.now.plus_ms(request.hold_ms);
    }
}

/// When a grant of the request made at `now` ends at the latest; 0 where it has no such end.
pub(crate) fn hard_end(request: &Request, now: LedgerTime) -> LedgerTime {
    if request.max_duration_ms > 0 { now.plus_ms(request.max_duration_ms) } else { LedgerTime(0) }
}

/// Active, or partial where members are missing; the lease runs a full length from `now`.
pub(crate) fn activate(reservation: &mut Reservation, now: LedgerTime) {
    let full = reservation.members.len() as u64 >= u64::from(reservation.request.gang.max_members);
    let standing = if full { State::Active } else { State::Partial };
    if reservation.state != State::Unknown {
        reservation.state = standing;
    }
    reservation.resume_state = standing;
    reservation.deadline = now.plus_ms(reservation.ttl_ms);
    cap_deadline(reservation);
}

/// No lease runs past the reservation's hard end.
pub(crate) fn cap_deadline(reservation: &mut Reservation) {
    if reservation.hard_end.0 > 0 {
        reservation.deadline = reservation.deadline.min(reservation.hard_end);
    }
}
