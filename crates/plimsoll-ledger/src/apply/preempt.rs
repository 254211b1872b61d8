//! `Preempt`: notice to those who have to leave, and a place kept for the one they leave for. What a preempted reservation comes to.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

use super::submit::cap_deadline;
use crate::ledger::Context;
use crate::limits::{DEFAULT_GRACE_MS, MAX_VICTIMS};
use crate::{
    Blocker, EndReason, Evicted, Ledger, Outcome, Placement, PolicyObject, Preempted, Preemption,
    PreemptionRule, Reason, Refusal, Reservation, Resolve, State, Wait,
};

/// First ledger version that knows preemption.
pub(crate) const SINCE_VERSION: u32 = 4;

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(super) fn is_of_preemption(object: &PolicyObject) -> bool {
    match object {
        PolicyObject::Pool(pool) => {
            pool.preemption != Preemption::default() || pool.max_preemptions_per_hour > 0
        }
        PolicyObject::Class(class) => class.grace_ms > 0 || class.min_run_ms > 0,
        PolicyObject::NodeLimits(_)
        | PolicyObject::Queue(_)
        | PolicyObject::Quota(_)
        | PolicyObject::Schedule(_)
        | PolicyObject::Service(_)
        | PolicyObject::ScalingPolicy(_)
        | PolicyObject::Validator(_) => false,
    }
}

/// What a grant is given notice for.
#[derive(Clone, Copy)]
pub(super) enum Notice {
    /// For this reservation, by this rule.
    For(ReservationId, PreemptionRule),
    /// To go to this node, against fragmentation.
    GoTo(NodeId),
    /// For nobody: its node measured fuller than its class stays for.
    TooFull(Evicted),
    /// For nobody: its node goes in so many milliseconds.
    Interrupted(u64),
}

impl Ledger {
    pub(crate) fn apply_preempt(
        &mut self,
        context: &mut Context<'_>,
        id: ReservationId,
        placement: &Placement,
        victims: &[ReservationId],
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "preemption")?;
        let old = Arc::clone(self.find(id)?);
        let gives_up = placement.members.is_empty() && victims.is_empty();
        if !old.is_waiting() || gives_up && old.state != State::Planned {
            return Err(Refusal::one(Reason::WrongState, format!("{id} is {}", old.state.name()), 1, 0));
        }
        if gives_up {
            return Ok(self.keep_no_place(context, &old));
        }
        if old.deadline.0 > 0 && context.now > old.deadline {
            return Err(Refusal::one(Reason::Expired, "wait deadline", context.now.0, old.deadline.0));
        }
        let leaving = self.judge_victims(&old, placement, victims)?;
        for (victim, rule) in &leaving {
            self.give_notice(context, victim, Notice::For(old.id, *rule));
            self.note_resolved(context, &old.request.pool, Resolve::Preempt, &victim.id.to_string());
        }
        let mut new = Reservation::clone(&old);
        new.state = State::Planned;
        new.members = placement.members.clone();
        new.blockers = leaving.iter().map(|(victim, _)| awaited(victim)).collect();
        Ok(self.store(context, "preempt/plan", new, Some(old.state)))
    }

    /// All of them by the law, one after the other, and enough of them.
    fn judge_victims(
        &mut self,
        old: &Arc<Reservation>,
        placement: &Placement,
        victims: &[ReservationId],
    ) -> Result<Vec<(Arc<Reservation>, PreemptionRule)>, Refusal> {
        let many = victims.len() as u64;
        let distinct: BTreeSet<&ReservationId> = victims.iter().collect();
        if victims.is_empty() || victims.len() > MAX_VICTIMS || distinct.len() < victims.len() {
            return Err(Refusal::one(Reason::InvalidArgument, "victims", many, MAX_VICTIMS as u64));
        }
        let left = self.preemptions_left(&old.request.pool);
        if many > left {
            let subject = format!("preemptions of pool {} in an hour", old.request.pool);
            return Err(Refusal::one(Reason::NotPreemptible, subject, many, left));
        }
        let mut found = Vec::new();
        for victim in victims {
            found.push(Arc::clone(self.find(*victim)?));
        }
        let own_claim = [Arc::clone(old)];
        let rules = self.without(&own_claim, |ledger| ledger.preemption_rules(old, placement, &found))?;
        let leaving: Vec<_> = found.into_iter().zip(rules).collect();
        let gone: Vec<Arc<Reservation>> =
            leaving.iter().map(|(victim, _)| Arc::clone(victim)).chain(own_claim).collect();
        self.without(&gone, |ledger| ledger.admit_later(old, placement))?;
        Ok(leaving)
    }

    /// What `look` finds while these reservations take nothing, neither now nor later.
    pub(crate) fn without<T>(&mut self, gone: &[Arc<Reservation>], look: impl FnOnce(&Ledger) -> T) -> T {
        for reservation in gone {
            self.occupy(reservation, false);
            self.charge(reservation, false);
            self.calendar_looks_past(reservation, false);
        }
        let found = look(self);
        for reservation in gone {
            self.occupy(reservation, true);
            self.charge(reservation, true);
            self.calendar_looks_past(reservation, true);
        }
        found
    }

    /// Who was given notice has stopped: others need not wait for the rest of the grace.
    pub(crate) fn apply_requeue(
        &mut self,
        context: &mut Context<'_>,
        id: ReservationId,
        token: Revision,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "requeue")?;
        let old = self.find_with_token(id, token)?;
        // On a silent node nobody knows that it has stopped.
        if old.state != State::Preempting {
            return Err(Refusal::one(Reason::WrongState, format!("{id} is {}", old.state.name()), 1, 0));
        }
        if old.hard_end.0 > 0 && context.now >= old.hard_end {
            return Err(Refusal::one(Reason::Expired, "max_duration", context.now.0, old.hard_end.0));
        }
        Ok(self.take_back(context, &old))
    }

    /// The grace begins. Who never confirmed has nothing to stop and is out at once.
    pub(super) fn give_notice(
        &mut self,
        context: &mut Context<'_>,
        victim: &Arc<Reservation>,
        notice: Notice,
    ) -> Outcome {
        let class_grace_ms = self.class(&victim.request.class).map_or(0, |class| class.grace_ms);
        let grace_ms = match notice {
            Notice::Interrupted(in_ms) => in_ms,
            _ if class_grace_ms > 0 => class_grace_ms,
            _ => DEFAULT_GRACE_MS,
        };
        let mut new = Reservation::clone(victim);
        let (by, rule, event) = match notice {
            Notice::For(by, rule) => (by, rule, "preempt/notice"),
            Notice::GoTo(_) => (victim.id, PreemptionRule::Relocation, "relocate/notice"),
            Notice::TooFull(_) => (ReservationId(0), PreemptionRule::Threshold, "evict/threshold"),
            Notice::Interrupted(_) => (ReservationId(0), PreemptionRule::Interruption, "interrupt/notice"),
        };
        let preempted = Preempted {
            by,
            rule,
            at: context.now,
            revision: context.revision,
            grace_ms,
            to: if let Notice::GoTo(node) = notice { Some(node) } else { None },
            evicted: if let Notice::TooFull(evicted) = notice { Some(evicted) } else { None },
        };
        new.preempted = Some(Box::new(preempted));
        if victim.state == State::Held || mutant!("no-grace") {
            return self.take_back(context, &Arc::new(new));
        }
        new.state = State::Preempting;
        new.deadline = context.now.plus_ms(grace_ms);
        cap_deadline(&mut new);
        self.store(context, event, new, Some(victim.state))
    }

    /// The grace is over: a reservation that would wait for its grant waits again, in its old place in the queue; another ends.
    pub(crate) fn take_back(&mut self, context: &mut Context<'_>, old: &Arc<Reservation>) -> Outcome {
        if !self.waits_again(old) {
            return self.end(context, "preempt/end", old, State::Preempted, EndReason::Preempted);
        }
        let blockers = old.preempted().iter().map(|preempted| self.taken_back_for(preempted)).collect();
        self.requeue(context, old, "preempt/requeue", blockers)
    }

    /// What was granted waits again, in its old place in the queue.
    pub(super) fn requeue(
        &mut self,
        context: &mut Context<'_>,
        old: &Arc<Reservation>,
        rule: &'static str,
        blockers: Vec<Blocker>,
    ) -> Outcome {
        let deadline_ms = match old.request.wait {
            Wait::Queue { deadline_ms } => deadline_ms,
            Wait::Refuse => 0,
        };
        let mut new = Reservation::clone(old);
        new.state = State::Pending;
        new.members = Vec::new();
        new.forget_repair();
        new.endpoint = None;
        new.token = if mutant!("keep-token") { old.token } else { Revision(0) };
        new.amounts = old.request.requirements.amounts.clone();
        new.ttl_ms = old.request.ttl_ms;
        new.granted_at = LedgerTime(0);
        new.hard_end = LedgerTime(0);
        new.deadline = if deadline_ms > 0 { context.now.plus_ms(deadline_ms) } else { LedgerTime(0) };
        new.blockers = blockers;
        self.close_tab(&mut new);
        new.cost_micros = 0;
        self.store(context, rule, new, Some(old.state))
    }

    /// Why a grant that waits again was taken back.
    fn taken_back_for(&self, preempted: &Preempted) -> Blocker {
        if let Some(evicted) = preempted.evicted {
            let node = self.node(evicted.overload.node).map_or("", |node| node.name());
            let (measured, above) = (evicted.overload.measured_permille, evicted.above_permille);
            let subject = format!("node {node}: {evicted}");
            return Blocker::new(Reason::Preempted, subject, measured.into(), above.into());
        }
        if preempted.rule == PreemptionRule::Relocation {
            return Blocker::new(
                Reason::Preempted,
                "to go elsewhere in its pool, against fragmentation",
                1,
                0,
            );
        }
        if preempted.rule == PreemptionRule::Interruption {
            return Blocker::new(Reason::Preempted, "the provider took its node back", 1, 0);
        }
        let subject = format!("for {} by {}", preempted.by, preempted.rule.name());
        Blocker::new(Reason::Preempted, subject, 1, 0)
    }

    /// The place kept for a reservation is open to all again, and it waits on.
    fn keep_no_place(&mut self, context: &mut Context<'_>, old: &Arc<Reservation>) -> Outcome {
        let mut new = Reservation::clone(old);
        new.state = State::Pending;
        new.members = Vec::new();
        self.store(context, "preempt/unplan", new, Some(old.state))
    }

    /// A node is not what it was: whoever had a place kept there waits on.
    pub(crate) fn keep_no_places(&mut self, context: &mut Context<'_>, node: NodeId) {
        let kept = self.slot(node).and_then(|slot| slot.usage.kept.as_ref());
        let by: Vec<ReservationId> = kept.into_iter().flat_map(|kept| kept.by.iter().copied()).collect();
        for id in by {
            if let Some(planned) = self.reservations.get(&id).filter(|r| r.state == State::Planned).cloned() {
                self.keep_no_place(context, &planned);
            }
        }
    }
}

/// What a planned reservation waits for.
fn awaited(victim: &Reservation) -> Blocker {
    Blocker::new(Reason::AwaitsPreemption, format!("{} is leaving", victim.id), 1, 0)
}
