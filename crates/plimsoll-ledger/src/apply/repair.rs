//! Gangs that lose members and get others in their place.

use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{DeviceIndex, NodeId, Revision};

use super::submit::cap_deadline;
use crate::ledger::Context;
use crate::{
    Ledger, MemberPlacement, NodeHealth, Outcome, Placement, Reason, Refusal, Repair, Repaired, Request,
    Reservation, State,
};

/// True for requests that ledgers before [`crate::repair::SINCE_VERSION`] do not know.
pub(super) fn asks_for_repair(request: &Request) -> bool {
    request.repair_within_ms > 0
}

impl Ledger {
    /// Members are gone with their node or device. A gang that asked for it, and has others, goes on without them; false where nothing was done.
    pub(crate) fn lose_members(
        &mut self,
        context: &mut Context<'_>,
        old: &Arc<Reservation>,
        gone: impl Fn(&MemberPlacement) -> bool,
        rule: &'static str,
    ) -> bool {
        if !old.goes_on_without(&gone) {
            return false;
        }
        let mut new = Reservation::clone(old);
        let kept = |index: &usize| !gone(&old.members[*index]);
        let stay: Vec<usize> = (0..old.members.len()).filter(kept).collect();
        new.members = stay.iter().map(|index| old.members[*index].clone()).collect();
        let tokens_of = |members: &[usize]| members.iter().map(|index| old.token_of(*index)).collect();
        let tokens = if old.member_tokens().is_empty() { Vec::new() } else { tokens_of(&stay) };
        let had = old.repair().map_or(0, |repair| repair.members).max(old.members.len() as u32);
        let until = context.now.plus_ms(old.request.repair_within_ms);
        new.repaired = Repaired::of(Some(Repair { since: context.now, until, members: had }), tokens);
        new.resume_state = State::Partial;
        let heard = |node: NodeId| self.node(node).is_some_and(|node| node.health == NodeHealth::Available);
        if new.members.iter().all(|member| heard(member.node)) {
            new.state = State::Partial;
            if old.state == State::Unknown {
                // As for one whose nodes are back.
                new.deadline = old.deadline.max(context.now.plus_ms(old.ttl_ms));
                cap_deadline(&mut new);
            }
        } else {
            new.state = State::Unknown;
        }
        // Less is never refused.
        let _ = self.resize_tab(&mut new);
        self.store(context, rule, new, Some(old.state));
        if !mutant!("free-early") {
            let there: Vec<usize> = (0..old.members.len()).filter(|index| !kept(index)).collect();
            let lost = Reservation {
                members: there.iter().map(|index| old.members[*index].clone()).collect(),
                repaired: Repaired::of(old.repair(), tokens_of(&there)),
                ..Reservation::clone(old)
            };
            self.keep_fence_pending(context, &lost);
        }
        true
    }

    /// Devices of a node failed: gangs that asked for it go on without their members there. Others keep what they have of them.
    pub(super) fn lose_members_on(
        &mut self,
        context: &mut Context<'_>,
        node: NodeId,
        failed: &[DeviceIndex],
    ) {
        if failed.is_empty() {
            return;
        }
        let on_failed = |member: &MemberPlacement| {
            member.node == node && member.devices.iter().any(|grant| failed.contains(&grant.device))
        };
        let holders: Vec<Arc<Reservation>> = self.holders(node).cloned().collect();
        for old in holders.iter().filter(|holder| holder.members.iter().any(on_failed)) {
            self.lose_members(context, old, on_failed, "device/failed");
        }
    }

    /// Members in the place of those that the gang lost, with a token of their own.
    pub(super) fn apply_repair(
        &mut self,
        context: &mut Context<'_>,
        old: &Arc<Reservation>,
        placement: &Placement,
    ) -> Result<Outcome, Refusal> {
        let id = old.id;
        if old.state != State::Partial {
            return Err(Refusal::one(Reason::WrongState, format!("{id} is {}", old.state.name()), 1, 0));
        }
        if !self.may_be_repaired(old, context.now) {
            let end = self.repair_end(old).unwrap_or_default();
            return Err(Refusal::one(Reason::Expired, "repair_within_ms", context.now.0, end.0));
        }
        self.admit_repair(old, placement)?;
        let mut new = Reservation::clone(old);
        let newest = if mutant!("repair-keeps-token") { old.token } else { context.revision };
        let tokens = (0..old.members.len()).map(|member| old.token_of(member));
        let tokens: Vec<Revision> = tokens.chain(placement.members.iter().map(|_| newest)).collect();
        new.members.extend(placement.members.iter().cloned());
        let repair = old.repair().filter(|_| new.missing_members() > 0);
        new.repaired = Repaired::of(repair, tokens);
        let full = new.members.len() as u64 >= u64::from(new.request.gang.max_members);
        new.state = if full { State::Active } else { State::Partial };
        self.resize_tab(&mut new)?;
        Ok(self.store(context, "repair", new, Some(old.state)))
    }
}
