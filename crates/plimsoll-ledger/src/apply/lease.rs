//! The life of a grant: confirm, renew, resize, release, cancel. All but cancel need the current fencing token.

use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{ReservationId, Resources, Revision};

use super::submit::{activate, cap_deadline};
use crate::ledger::Context;
use crate::limits::{MAX_TTL_MS, MIN_TTL_MS};
use crate::validate::validate_amounts;
use crate::{EndReason, FencePending, Ledger, NodeHealth, Outcome, Reason, Refusal, Reservation, State};

impl Ledger {
    pub(crate) fn apply_confirm(
        &mut self,
        context: &mut Context<'_>,
        id: ReservationId,
        token: Revision,
    ) -> Result<Outcome, Refusal> {
        let old = self.find_with_token(id, token)?;
        require(&old, &[State::Held])?;
        let end = self.lease_end(&old).unwrap_or(old.deadline);
        if context.now > end {
            return Err(Refusal::one(Reason::Expired, "confirm deadline", context.now.0, end.0));
        }
        let mut new = Reservation::clone(&old);
        activate(&mut new, context.now);
        Ok(self.store(context, "confirm", new, Some(old.state)))
    }

    pub(crate) fn apply_renew(
        &mut self,
        context: &mut Context<'_>,
        id: ReservationId,
        token: Revision,
        ttl_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let old = self.find_with_token(id, token)?;
        require(&old, &[State::Active, State::Partial, State::Preempting])
            .or_else(|no| mutant!("renew-resurrects").then_some(()).ok_or(no))?;
        if ttl_ms != 0 && !(MIN_TTL_MS..=MAX_TTL_MS).contains(&ttl_ms) {
            return Err(Refusal::one(Reason::InvalidArgument, "ttl_ms", ttl_ms, MIN_TTL_MS));
        }
        if old.hard_end.0 > 0 && context.now >= old.hard_end {
            return Err(Refusal::one(Reason::Expired, "max_duration_ms", context.now.0, old.hard_end.0));
        }
        if old.resume_state == State::Preempting {
            // It is answered, so that its holder hears of the notice, and buys no more time.
            return Ok(self.store(context, "renew", Reservation::clone(&old), Some(old.state)));
        }
        let mut new = Reservation::clone(&old);
        new.state =
            if mutant!("renew-resurrects") && old.state.is_final() { State::Active } else { old.state };
        new.ttl_ms = if ttl_ms == 0 { old.ttl_ms } else { ttl_ms };
        new.deadline = self.lease_end(&old).unwrap_or(old.deadline).max(context.now.plus_ms(new.ttl_ms));
        cap_deadline(&mut new);
        self.extend_tab(&mut new)?;
        Ok(self.store(context, "renew", new, Some(old.state)))
    }

    pub(crate) fn apply_resize(
        &mut self,
        context: &mut Context<'_>,
        id: ReservationId,
        token: Revision,
        amounts: &Resources,
    ) -> Result<Outcome, Refusal> {
        let old = self.find_with_token(id, token)?;
        require(&old, &[State::Held, State::Active, State::Partial])?;
        if !old.request.roles.is_empty() {
            let subject = format!("{id} has {} roles, each with amounts of its own", old.request.roles.len());
            return Err(Refusal::one(Reason::InvalidArgument, subject, 1, 0));
        }
        let bad = validate_amounts(amounts, old.request.gang.max_members.into());
        if !bad.is_empty() {
            return Err(Refusal { reason: Reason::InvalidArgument, blockers: bad });
        }
        let until = crate::calendar::end_of(&old);
        self.admit_resize(&old.request, &old.members, (&old.amounts, amounts), (context.now, until))?;
        let mut new = Reservation::clone(&old);
        new.amounts = amounts.clone();
        self.resize_tab(&mut new)?;
        Ok(self.store(context, "resize", new, Some(old.state)))
    }

    pub(crate) fn apply_release(
        &mut self,
        context: &mut Context<'_>,
        id: ReservationId,
        token: Revision,
    ) -> Result<Outcome, Refusal> {
        let old = self.find_with_token(id, token)?;
        require(&old, &[State::Held, State::Active, State::Partial, State::Preempting])?;
        Ok(self.end(context, "release", &old, State::Released, EndReason::Released))
    }

    pub(crate) fn apply_cancel(
        &mut self,
        context: &mut Context<'_>,
        id: ReservationId,
    ) -> Result<Outcome, Refusal> {
        let old = Arc::clone(self.find(id)?);
        self.check_cancel(context.actor, &old)?;
        if old.state.is_final() {
            return Err(Refusal::one(Reason::WrongState, format!("{id} is {}", old.state.name()), 1, 0));
        }
        let state = if old.state.is_occupying() { State::Released } else { State::Rejected };
        Ok(self.end(context, "cancel", &old, state, EndReason::Cancelled))
    }

    /// Ends a reservation. Amounts return at once where the node is heard of; on a silent or failed node they stay
    /// fence-pending, since the workload may still run.
    pub(crate) fn end(
        &mut self,
        context: &mut Context<'_>,
        rule: &'static str,
        old: &Arc<Reservation>,
        state: State,
        reason: EndReason,
    ) -> Outcome {
        let mut new = Reservation::clone(old);
        new.state = state;
        new.members = Vec::new();
        new.forget_repair();
        new.deadline = plimsoll_types::LedgerTime(0);
        new.blockers = Vec::new();
        if !mutant!("endpoint-outlives-lease") {
            new.endpoint = None;
        }
        new.ended_at = context.now;
        new.end_reason = Some(reason);
        self.close_tab(&mut new);
        let outcome = self.store(context, rule, new, Some(old.state));
        if old.state.is_occupying() && !mutant!("free-early") {
            self.keep_fence_pending(context, old);
        }
        outcome
    }

    pub(super) fn keep_fence_pending(&mut self, context: &mut Context<'_>, old: &Reservation) {
        let shares = self.shares(old);
        for (index, member) in old.members.iter().enumerate() {
            let Some(slot) = self.slot(member.node) else { continue };
            if !matches!(slot.node.health, NodeHealth::Suspect | NodeHealth::Lost | NodeHealth::Failed) {
                continue;
            }
            let mut node = (*slot.node).clone();
            node.fence_pending.push(FencePending {
                reservation: old.id,
                token: old.token_of(index),
                amounts: shares.on_node(member).clone(),
                devices: member.devices.clone(),
            });
            node.fence_pending.sort_by_key(|pending| pending.reservation);
            self.store_node(context, "node/fence-pending", node);
        }
    }

    pub(super) fn find_with_token(
        &self,
        id: ReservationId,
        token: Revision,
    ) -> Result<Arc<Reservation>, Refusal> {
        let reservation = self.find(id)?;
        let is_final = reservation.state.is_final() && !mutant!("renew-resurrects");
        if is_final || reservation.token != token || token.0 == 0 {
            // An ended reservation has no current token: whoever still holds one has been fenced off.
            let current = if reservation.state.is_final() { 0 } else { reservation.token.0 };
            if reservation.state.is_final() && reservation.token == token {
                let subject = format!("{id} is {}", reservation.state.name());
                return Err(Refusal::one(Reason::WrongState, subject, token.0, current));
            }
            return Err(Refusal::one(Reason::Fenced, id.to_string(), token.0, current));
        }
        Ok(Arc::clone(reservation))
    }
}

/// Refuses unless the reservation stands in one of `allowed`; an unknown one stands where it will resume.
pub(super) fn require(reservation: &Reservation, allowed: &[State]) -> Result<(), Refusal> {
    if allowed.contains(&reservation.resume_state) {
        return Ok(());
    }
    let subject = format!("{} is {}", reservation.id, reservation.state.name());
    Err(Refusal::one(Reason::WrongState, subject, 1, 0))
}
