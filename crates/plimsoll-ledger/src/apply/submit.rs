//! From request to grant: `Submit` and `Place`.

use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, ReservationId, Revision};

use crate::ledger::Context;
use crate::limits::{MAX_LIVE, MAX_PENDING};
use crate::validate::validate_request;
use crate::{
    Blocker, EventObject, Ledger, OnPreempt, Outcome, Placement, Reason, Refusal, Request, Reservation,
    State, Verdict, Wait,
};

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
        match verdict {
            Verdict::Place(placement) => {
                match (self.admit_for(&reservation.request, context.actor, placement), request.wait) {
                    (Err(_), _) if mutant!("trust-the-planner") => {
                        grant(&mut reservation, placement, context)
                    }
                    (Ok(()), _) => grant(&mut reservation, placement, context),
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
        if !old.state.is_waiting() {
            return Err(Refusal::one(Reason::WrongState, format!("{id} is {}", old.state.name()), 1, 0));
        }
        if old.deadline.0 > 0 && context.now > old.deadline {
            return Err(Refusal::one(Reason::Expired, "wait deadline", context.now.0, old.deadline.0));
        }
        let own = [Arc::clone(&old)];
        self.without(&own, |ledger| ledger.admit_for(&old.request, &old.requester, placement))
            .or_else(|no| mutant!("trust-the-planner").then_some(()).ok_or(no))?;
        let mut new = Reservation::clone(&old);
        grant(&mut new, placement, context);
        self.open_tab(&mut new);
        Ok(self.store(context, "place", new, Some(old.state)))
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
        if super::usage::asks_for_usage(request) && self.meta.version < super::usage::SINCE_VERSION {
            let (needed, have) = (super::usage::SINCE_VERSION.into(), self.meta.version.into());
            return Err(Refusal::one(Reason::UnsupportedVersion, "limits of cost", needed, have));
        }
        if !request.queue.is_empty() && self.meta.version < super::queues::SINCE_VERSION {
            let (needed, have) = (super::queues::SINCE_VERSION.into(), self.meta.version.into());
            return Err(Refusal::one(Reason::UnsupportedVersion, "queues", needed, have));
        }
        if request.on_preempt != OnPreempt::default() && self.meta.version < super::preempt::SINCE_VERSION {
            let (needed, have) = (super::preempt::SINCE_VERSION.into(), self.meta.version.into());
            return Err(Refusal::one(Reason::UnsupportedVersion, "on_preempt", needed, have));
        }
        if !request.queue.is_empty() && self.queue(&request.queue).is_none() {
            return Err(Refusal::one(Reason::QueueNotFound, request.queue.as_str(), 1, 0));
        }
        let bad = validate_request(request);
        if !bad.is_empty() {
            return Err(Refusal { reason: Reason::InvalidArgument, blockers: bad });
        }
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
            ..request.clone()
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
        if most > 0 && waiting >= most {
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
fn grant(reservation: &mut Reservation, placement: &Placement, context: &Context<'_>) {
    let request = &reservation.request;
    reservation.members = placement.members.clone();
    reservation.token = if mutant!("reuse-token") { Revision(reservation.id.0) } else { context.revision };
    reservation.granted_at = context.now;
    reservation.blockers = Vec::new();
    if request.max_duration_ms > 0 {
        reservation.hard_end = context.now.plus_ms(request.max_duration_ms);
    }
    if request.auto_confirm {
        activate(reservation, context.now);
    } else {
        reservation.state = State::Held;
        reservation.deadline = context.now.plus_ms(request.hold_ms);
    }
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
