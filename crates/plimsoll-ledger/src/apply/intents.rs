//! Machines that come and go: `OpenIntent` and `StepIntent`. What is to be done is in the log before anybody is asked to do it, so that the next
//! leader goes on under the same number.

use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, NodeId, Revision};

use crate::command::AdminChange;
use crate::ledger::Context;
use crate::limits::{MAX_FAILED_INTENTS, MAX_OPEN_INTENTS, MAX_SCALING_TEXT, MAX_TTL_MS};
use crate::scaling::{SINCE_VERSION, TEMPLATES_SINCE_VERSION};
use crate::{
    EventObject, Intent, IntentAction, IntentState, IntentStep, Ledger, NodeAdmin, Outcome, Reason, Refusal,
    Scaling, ScalingPolicy, ScalingTarget,
};

impl Ledger {
    /// A machine more (of a template, where the policy has several), or (with `machine`) that one less: only as far as the target wants it now.
    pub(crate) fn apply_open_intent(
        &mut self,
        context: &mut Context<'_>,
        name: &str,
        machine: Option<Revision>,
        template: &str,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "scaling")?;
        if !template.is_empty() {
            self.require_version(TEMPLATES_SINCE_VERSION, "several templates")?;
        }
        let policy = self.find_scaling(name)?;
        let state = self.state_of(&policy);
        if policy.provider.is_none() {
            let subject = format!("scaling policy {name} has no provider");
            return Err(Refusal::one(Reason::WrongState, subject, 1, 0));
        }
        let open = self.intents_of(name).filter(|intent| intent.is_open()).count();
        if open >= MAX_OPEN_INTENTS {
            let subject = format!("machines of {name} on their way");
            return Err(Refusal::one(Reason::TableFull, subject, open as u64, MAX_OPEN_INTENTS as u64));
        }
        let gone =
            machine.and_then(|id| self.intent(id)).is_some_and(|machine| self.is_gone(&policy, machine));
        if context.now < state.retry_at && !gone {
            let subject = format!("scaling of {name}: the last machine failed, tried again then");
            return Err(Refusal::one(Reason::WrongState, subject, context.now.0, state.retry_at.0));
        }
        let fleet = self.fleet(&policy);
        let id = context.revision;
        let mut intent = Intent {
            id,
            policy: name.to_owned(),
            template: template.to_owned(),
            action: IntentAction::Start { leaving: None },
            node: format!("{name}-i{}", id.0),
            state: IntentState::Wanted,
            attempts: 0,
            handle: String::new(),
            detail: String::new(),
            not_before: LedgerTime(0),
            deadline: LedgerTime(0),
            opened_at: context.now,
            changed: id,
        };
        let Some(machine) = machine else {
            self.require_template(&policy, &state, template, context.now)?;
            if fleet.counted() >= state.desired && !mutant!("buy-beyond-the-wish") {
                let subject = format!("machines of {}", policy.target.path());
                return Err(Refusal::one(Reason::WrongState, subject, fleet.counted() + 1, state.desired));
            }
            self.store_intent(context, "scale/start", intent);
            return Ok(Outcome::Done);
        };
        if !template.is_empty() {
            let subject = format!("template {template:?} of a machine that goes");
            return Err(Refusal::one(Reason::InvalidArgument, subject, 1, 0));
        }
        let leaves = self.find_leaving(&policy, machine)?;
        if !gone {
            if fleet.counted() <= state.desired {
                let subject = format!("machines of {}", policy.target.path());
                return Err(Refusal::one(Reason::WrongState, subject, fleet.counted(), state.desired));
            }
            if fleet.leaving >= policy.max_leaving.into() {
                let subject = format!("machines of {} that leave at once", policy.target.path());
                let most = policy.max_leaving.into();
                return Err(Refusal::one(Reason::LimitExceeded, subject, fleet.leaving + 1, most));
            }
        }
        intent.action = IntentAction::Remove { machine };
        intent.template.clone_from(&leaves.template);
        intent.node.clone_from(&leaves.node);
        intent.handle.clone_from(&leaves.handle);
        // Nothing new is put there from this entry on.
        if let Some(node) = self.node_of(&policy, &leaves).cloned() {
            let reason = format!("scaling policy {name}, intent {id}");
            let is_held = self.holders(node.id).next().is_some();
            let change = match node.admin {
                NodeAdmin::Draining { .. } => None,
                _ if is_held => Some(AdminChange::Drain { reason, deadline_ms: policy.drain_ms }),
                NodeAdmin::Cordoned { .. } => None,
                NodeAdmin::Schedulable => Some(AdminChange::Cordon { reason }),
            };
            if let Some(change) = change {
                self.apply_set_node_admin(context, node.id, &change)?;
            }
        }
        let going = IntentAction::Start { leaving: Some(id) };
        self.store_intent(context, "scale/leaving", Intent { action: going, ..Intent::clone(&leaves) });
        self.store_intent(context, "scale/remove", intent);
        Ok(Outcome::Done)
    }

    /// What came of the provider's work. `attempts` is the count that the reporter knew: what an earlier leader says late has no effect.
    pub(crate) fn apply_step_intent(
        &mut self,
        context: &mut Context<'_>,
        id: Revision,
        attempts: u32,
        step: &IntentStep,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "scaling")?;
        let Some(old) = self.intent(id).cloned() else {
            return Err(Refusal::one(Reason::NotFound, format!("intent {id}"), 1, 0));
        };
        let policy = self.find_scaling(&old.policy)?;
        if old.attempts != attempts && !mutant!("late-word-counts") {
            let subject = format!("attempts of intent {id}");
            return Err(Refusal::one(Reason::Fenced, subject, attempts.into(), old.attempts.into()));
        }
        let may = match step {
            IntentStep::Act | IntentStep::Failed { .. } => old.is_open(),
            IntentStep::Answered { .. } => old.state == IntentState::Acting && old.starts(),
            IntentStep::Later { .. } | IntentStep::Ready => old.state == IntentState::Acting,
        };
        if !may {
            let subject = format!("intent {id} is {}", old.state.name());
            return Err(Refusal::one(Reason::WrongState, subject, 1, 0));
        }
        let mut new = Intent::clone(&old);
        match step {
            IntentStep::Act => {
                if context.now < old.not_before {
                    let subject = format!("intent {id} is tried again then");
                    return Err(Refusal::one(Reason::WrongState, subject, context.now.0, old.not_before.0));
                }
                if !old.starts() && !mutant!("stop-a-busy-machine") {
                    self.require_empty(&policy, &old)?;
                    self.require_finished(&policy, &old, context.now)?;
                }
                new.state = IntentState::Acting;
                new.attempts = old.attempts.saturating_add(1);
                if old.deadline.0 == 0 {
                    new.deadline = context.now.plus_ms(policy.start_within_ms);
                }
                self.store_intent(context, "scale/act", new);
            }
            IntentStep::Answered { handle, node } => {
                bounded(handle)?;
                new.handle.clone_from(handle);
                if !node.is_empty() && *node != old.node {
                    self.rename(&mut new, node)?;
                }
                new.detail.clear();
                self.store_intent(context, "scale/answered", new);
            }
            IntentStep::Later { detail, after_ms } => {
                bounded(detail)?;
                if *after_ms > MAX_TTL_MS {
                    return Err(Refusal::one(Reason::InvalidArgument, "after_ms", *after_ms, MAX_TTL_MS));
                }
                new.detail.clone_from(detail);
                new.not_before = context.now.plus_ms(*after_ms);
                self.store_intent(context, "scale/later", new);
            }
            IntentStep::Ready => self.settle_intent(context, &policy, new)?,
            IntentStep::Failed { detail } => {
                bounded(detail)?;
                new.detail.clone_from(detail);
                self.fail_intent(context, &policy, new);
            }
        }
        Ok(Outcome::Done)
    }

    /// The machine registered, or is gone.
    fn settle_intent(
        &mut self,
        context: &mut Context<'_>,
        policy: &ScalingPolicy,
        mut new: Intent,
    ) -> Result<(), Refusal> {
        new.state = IntentState::Ready;
        new.detail.clear();
        let IntentAction::Remove { machine } = new.action else {
            if !self.is_present(policy, &new) {
                let subject = format!("{} has not registered for {}", new.node, policy.target.path());
                return Err(Refusal::one(Reason::WrongState, subject, 1, 0));
            }
            let template = new.template.clone();
            self.store_intent(context, "scale/ready", new);
            self.calm(context, policy, &template);
            return Ok(());
        };
        self.require_empty(policy, &new)?;
        if let Some(node) = self.node_of(policy, &new).map(|node| node.id) {
            self.apply_remove_node(context, node)?;
        }
        new.changed = context.revision;
        context.event("scale/removed", EventObject::Intent(Arc::new(new.clone())));
        self.remove_intent(machine);
        self.remove_intent(new.id);
        Ok(())
    }

    /// A machine came: failures of its template, or of the policy that has the one, are forgotten.
    fn calm(&mut self, context: &mut Context<'_>, policy: &ScalingPolicy, template: &str) {
        let state = self.state_of(policy);
        let mut calm = Scaling::clone(&state);
        calm.resting.retain(|one| one.template != template);
        (calm.failures, calm.retry_at) = (0, LedgerTime(0));
        if calm != *state {
            self.store_scaling(context, "scale/calm", calm);
        }
    }

    /// Given up. Of a machine that was to leave, the node takes work again.
    fn fail_intent(&mut self, context: &mut Context<'_>, policy: &ScalingPolicy, mut new: Intent) {
        new.state = IntentState::Failed;
        if let IntentAction::Remove { machine } = new.action {
            self.stays(context, policy, machine);
        }
        let is_of = if new.starts() { new.template.clone() } else { String::new() };
        self.store_intent(context, "scale/failed", new);
        let mut state = Scaling::clone(&self.state_of(policy));
        // One of several templates rests alone: another may do.
        match is_of.is_empty() {
            true => state.note_failure(context.now),
            false => state.note_failure_of(&is_of, context.now),
        }
        self.store_scaling(context, "scale/backoff", state);
        let failed: Vec<Revision> = self
            .intents_of(&policy.name)
            .filter(|intent| intent.state == IntentState::Failed)
            // One that came all the same and leaves now is still named by the intent that removes it.
            .filter(|intent| !matches!(intent.action, IntentAction::Start { leaving: Some(_) }))
            .map(|intent| intent.id)
            .collect();
        let many = failed.len().saturating_sub(MAX_FAILED_INTENTS);
        failed.into_iter().take(many).for_each(|id| self.remove_intent(id));
    }

    /// A machine does not leave after all.
    fn stays(&mut self, context: &mut Context<'_>, policy: &ScalingPolicy, machine: Revision) {
        let Some(leaves) = self.intent(machine).cloned() else { return };
        let staying = Intent { action: IntentAction::Start { leaving: None }, ..Intent::clone(&leaves) };
        self.store_intent(context, "scale/stays", staying);
        if let Some(node) = self.node_of(policy, &leaves).cloned()
            && node.admin != NodeAdmin::Schedulable
        {
            let free = crate::Node { admin: NodeAdmin::Schedulable, ..crate::Node::clone(&node) };
            self.store_node(context, "node/uncordon", free);
        }
    }

    /// An operator's word that a node takes work again ends an intent to remove it, unless the provider is at it already.
    pub(crate) fn keep_leaving(&mut self, context: &mut Context<'_>, id: NodeId) -> Result<(), Refusal> {
        let Some(name) = self.node(id).map(|node| node.name().to_owned()) else { return Ok(()) };
        let Some(intent) = self.removal_of(&name).cloned() else { return Ok(()) };
        if intent.state == IntentState::Acting {
            let subject = format!("node {name}: its provider is removing it (intent {})", intent.id);
            return Err(Refusal::one(Reason::InUse, subject, 1, 0));
        }
        if let IntentAction::Remove { machine } = intent.action
            && let Some(machine) = self.intent(machine).cloned()
        {
            let staying = Intent { action: IntentAction::Start { leaving: None }, ..Intent::clone(&machine) };
            self.store_intent(context, "scale/stays", staying);
        }
        self.remove_intent(intent.id);
        let dropped =
            Intent { state: IntentState::Failed, changed: context.revision, ..Intent::clone(&intent) };
        context.event("scale/dropped", EventObject::Intent(Arc::new(dropped)));
        Ok(())
    }

    /// The template is the policy's, does not rest, and has not as many machines as it may; and its power is left.
    fn require_template(
        &self,
        policy: &ScalingPolicy,
        state: &Scaling,
        template: &str,
        now: LedgerTime,
    ) -> Result<(), Refusal> {
        let Some(offer) = policy.offer(template) else {
            let subject = format!("template {template:?} of scaling policy {}", policy.name);
            return Err(Refusal::one(Reason::NotFound, subject, 1, 0));
        };
        if let Some(rest) = state.rest_of(template, now) {
            let subject =
                format!("template {template} of {}: it failed, and is tried again then", policy.name);
            return Err(Refusal::one(Reason::WrongState, subject, now.0, rest.retry_at.0));
        }
        if offer.max > 0 {
            let there = self.machines_of(policy, template);
            if there >= offer.max && !mutant!("buy-beyond-the-template") {
                let subject = format!("machines of {} of template {template}", policy.target.path());
                return Err(Refusal::one(Reason::LimitExceeded, subject, there + 1, offer.max));
            }
        }
        let ScalingTarget::Pool(pool) = &policy.target else { return Ok(()) };
        let watts = offer.watts();
        if let Some(power) = self.power(pool).filter(|power| watts > power.left())
            && !mutant!("buy-beyond-the-power")
        {
            let subject = format!("watts of pool {pool}, with a machine of {watts} W");
            let together = power.committed.saturating_add(watts);
            return Err(Refusal::one(Reason::LimitExceeded, subject, together, power.budget));
        }
        Ok(())
    }

    /// I20: nothing is held on what is about to be removed.
    fn require_empty(&self, policy: &ScalingPolicy, intent: &Intent) -> Result<(), Refusal> {
        let Some(node) = self.node_of(policy, intent) else { return Ok(()) };
        let holders = self.holders(node.id).count() as u64;
        if holders > 0 {
            return Err(Refusal::one(Reason::InUse, format!("leases on node {}", node.name()), 0, holders));
        }
        Ok(())
    }

    /// No replica is stopped before its clients can know that it leaves.
    fn require_finished(
        &self,
        policy: &ScalingPolicy,
        intent: &Intent,
        now: LedgerTime,
    ) -> Result<(), Refusal> {
        match self.finishes_until(policy, intent) {
            Some(until) if now < until => {
                let subject = format!(
                    "replica {} of {} finishes its requests until then",
                    intent.node,
                    policy.target.path()
                );
                Err(Refusal::one(Reason::WrongState, subject, now.0, until.0))
            }
            _ => Ok(()),
        }
    }

    /// The machine that is to leave: there, of this policy, not leaving yet, and empty unless the policy drains.
    fn find_leaving(&self, policy: &ScalingPolicy, id: Revision) -> Result<Arc<Intent>, Refusal> {
        let known = self.intent(id).filter(|machine| machine.policy == policy.name && machine.starts());
        let Some(machine) = known.cloned() else {
            return Err(Refusal::one(Reason::NotFound, format!("machine {id} of {}", policy.name), 1, 0));
        };
        let wrong = |subject: String| Err(Refusal::one(Reason::WrongState, subject, 1, 0));
        if let IntentAction::Start { leaving: Some(other) } = machine.action {
            return wrong(format!("machine {id} leaves already, by intent {other}"));
        }
        if !self.is_machine(policy, &machine) {
            return wrong(format!("machine {id} is {}", machine.state.name()));
        }
        if let Some(node) = self.node_of(policy, &machine) {
            let holders = self.holders(node.id).count() as u64;
            let kept = self.usage(node.id).is_some_and(|usage| usage.kept.is_some());
            if holders > 0 && policy.drain_ms == 0 {
                let subject = format!("leases on node {}", node.name());
                return Err(Refusal::one(Reason::InUse, subject, 0, holders));
            }
            if kept {
                return wrong(format!("node {} is kept for somebody", node.name()));
            }
        }
        Ok(machine)
    }

    /// The node has the name that the provider gave it.
    fn rename(&self, new: &mut Intent, node: &str) -> Result<(), Refusal> {
        if plimsoll_types::check_name(node).is_err() {
            return Err(Refusal::one(
                Reason::InvalidArgument,
                format!("node {node:?}"),
                node.len() as u64,
                63,
            ));
        }
        if let Some(other) = self.machine_of_node(node).filter(|other| other.state != IntentState::Failed) {
            let subject = format!("node {node} is the machine of intent {}", other.id);
            return Err(Refusal::one(Reason::InUse, subject, 1, 0));
        }
        node.clone_into(&mut new.node);
        Ok(())
    }
}

fn bounded(text: &str) -> Result<(), Refusal> {
    if text.len() <= MAX_SCALING_TEXT {
        return Ok(());
    }
    Err(Refusal::one(Reason::InvalidArgument, "text, in bytes", text.len() as u64, MAX_SCALING_TEXT as u64))
}
