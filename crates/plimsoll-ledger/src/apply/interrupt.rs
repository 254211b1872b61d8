//! `InterruptNode`: a provider takes a node back, and what is on it is given notice until then.

use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{NodeEpoch, NodeId};

use super::preempt::Notice;
use crate::capacity::{asks_for_interruption, is_of_spot};
use crate::interruption::{Interruption, SINCE_VERSION};
use crate::ledger::Context;
use crate::limits::MAX_INTERRUPTION_MS;
use crate::{
    Blocker, Ledger, Node, Outcome, PolicyObject, Preempted, Reason, Refusal, Request, Reservation, State,
};

impl Ledger {
    /// Nothing new is put on the node. A gang leaves as one, unless it goes on without these members. What is said again changes nothing, and an earlier
    /// end goes before a later one.
    pub(crate) fn apply_interrupt_node(
        &mut self,
        context: &mut Context<'_>,
        id: NodeId,
        epoch: NodeEpoch,
        in_ms: u64,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "interruption of a node")?;
        if in_ms > MAX_INTERRUPTION_MS {
            return Err(Refusal::one(Reason::InvalidArgument, "in_ms", in_ms, MAX_INTERRUPTION_MS));
        }
        let node = Arc::clone(self.find_node(id)?);
        if node.epoch != epoch {
            return Err(Refusal::one(Reason::Fenced, node.name(), epoch.0, node.epoch.0));
        }
        if !node.health.is_heard() {
            let subject = format!("node {} is {}", node.name(), node.state_name());
            return Err(Refusal::one(Reason::WrongState, subject, 1, 0));
        }
        let deadline = context.now.plus_ms(in_ms);
        if node.interruption.is_some_and(|known| known.deadline <= deadline) {
            return Ok(Outcome::Node(node));
        }
        let noticed_at = node.interruption.map_or(context.now, |known| known.noticed_at);
        let interruption = Some(Interruption { noticed_at, deadline });
        let outcome =
            self.store_node(context, "node/interrupted", Node { interruption, ..Node::clone(&node) });
        let holders: Vec<Arc<Reservation>> = self.holders(id).cloned().collect();
        let leaves = |holder: &&Arc<Reservation>| !holder.goes_on_without(|member| member.node == id);
        for holder in holders.iter().filter(leaves) {
            match holder.state {
                State::Held | State::Active | State::Partial if !mutant!("no-notice-of-interruption") => {
                    self.give_notice(context, holder, Notice::Interrupted(in_ms));
                }
                State::Preempting if holder.deadline > deadline => {
                    let new = Reservation { deadline, ..Reservation::clone(holder) };
                    self.store(context, "interrupt/sooner", new, Some(holder.state));
                }
                // On a silent node nobody hears of it before the node is back.
                State::Unknown if matches!(holder.resume_state, State::Active | State::Partial) => {
                    let mut new = Reservation::clone(holder);
                    new.resume_state = State::Preempting;
                    new.preempted =
                        Some(Box::new(Preempted::by_provider(context.now, context.revision, in_ms)));
                    self.store(context, "interrupt/notice", new, Some(holder.state));
                }
                _ => {}
            }
        }
        Ok(outcome)
    }

    pub(crate) fn check_spot_policy(&self, put: &[PolicyObject], blockers: &mut Vec<Blocker>) {
        if put.iter().any(is_of_spot) {
            self.knows(SINCE_VERSION, "spot capacity", blockers);
        }
    }

    pub(crate) fn check_interruption(&self, request: &Request) -> Result<(), Refusal> {
        match asks_for_interruption(request) {
            true => self.require_version(SINCE_VERSION, "on_interruption"),
            false => Ok(()),
        }
    }

    /// From this version on every node says how it is paid for.
    pub(crate) fn fill_capacity_labels(&mut self, context: &mut Context<'_>) {
        let nodes: Vec<Arc<Node>> = self.nodes().cloned().collect();
        for node in nodes {
            let mut new = Node::clone(&node);
            if crate::capacity::fill_labels(&mut new.registration.labels) {
                (new.pool, new.moved) = self.place_of(&new.registration, Some(&node));
                new.allocatable = self.allocatable_of(&new.registration);
                self.store_node(context, "node/capacity-type", new);
            }
        }
    }
}
