//! What targets want: `SetDesired`, `PinScale`, and what keeps a scaling policy from being put or deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_autoscaler::Select;
use plimsoll_types::{LedgerTime, Revision};

use crate::ledger::Context;
use crate::limits::{MAX_SCALING, MAX_SCALING_INPUTS, MAX_SCALING_TEXT, MAX_TTL_MS, MIN_TTL_MS};
use crate::scaling::{SINCE_VERSION, TEMPLATES_SINCE_VERSION, is_of_power, is_of_templates};
use crate::{
    Blocker, EventObject, Intent, Ledger, Outcome, Pin, PolicyName, PolicyObject, Reason, Refusal, Resolve,
    Scaling, ScalingPolicy, ScalingTarget,
};

/// What the rule of a decision begins with that a contention asked for.
pub(crate) const OF_CONTENTION: &str = "contention";

/// True where an object is one of scaling.
pub(super) fn is_of_scaling(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::ScalingPolicy(_))
}

/// The leader's decision on what a target wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaleDecided {
    /// Policy that it is about.
    pub policy: String,
    /// How many are wanted from now on.
    pub desired: u64,
    /// Revision of the state that it was computed from.
    pub computed_from: Revision,
    /// Which rule moved it.
    pub rule: String,
    /// What it was computed from, as people read it.
    pub inputs: Vec<String>,
}

impl Ledger {
    /// The leader's decision, looked at again: bounds, cooldown and a person's word as they are now.
    pub(crate) fn apply_set_desired(
        &mut self,
        context: &mut Context<'_>,
        decided: &ScaleDecided,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "scaling")?;
        let policy = self.find_scaling(&decided.policy)?;
        let old = self.state_of(&policy);
        check_decided(&policy, &old, decided, context.now)?;
        let mut new = Scaling {
            computed_from: decided.computed_from,
            rule: decided.rule.clone(),
            inputs: decided.inputs.clone(),
            pin: old.pin.clone().filter(|pin| context.now < pin.until),
            ..Scaling::clone(&old)
        };
        new.move_to(context.now, decided.desired);
        if let ScalingTarget::Pool(pool) = &policy.target
            && decided.rule.starts_with(OF_CONTENTION)
        {
            let subject = format!("{} to {}", policy.target.path(), decided.desired);
            self.note_resolved(context, pool, Resolve::Scale, &subject);
        }
        Ok(self.store_scaling(context, "scale/decided", new))
    }

    /// A person's word on what a target has, for a time; `None` takes it back.
    pub(crate) fn apply_pin_scale(
        &mut self,
        context: &mut Context<'_>,
        target: &ScalingTarget,
        to: Option<u64>,
        for_ms: u64,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "scaling")?;
        let policy = self.scaling_policy_of(target).cloned().ok_or_else(|| {
            Refusal::one(Reason::NotFound, format!("scaling policy of {}", target.path()), 1, 0)
        })?;
        let mut new = Scaling::clone(&self.state_of(&policy));
        let Some(to) = to else {
            if new.pin.take().is_none() {
                let subject = format!("{} is not set by hand", target.path());
                return Err(Refusal::one(Reason::WrongState, subject, 1, 0));
            }
            new.rule = "manual/end".to_owned();
            new.inputs = vec![format!("{} took it back", context.actor)];
            return Ok(self.store_scaling(context, "scale/unpinned", new));
        };
        let mut bad = Vec::new();
        let bounds =
            [("to", to, policy.least(), policy.rules.max), ("for_ms", for_ms, MIN_TTL_MS, MAX_TTL_MS)];
        for (field, value, least, most) in bounds {
            if value < least || value > most {
                let expected = if value < least { least } else { most };
                bad.push(Blocker {
                    limit: most,
                    ..Blocker::new(Reason::InvalidArgument, field, value, expected)
                });
            }
        }
        if !bad.is_empty() {
            return Err(Refusal { reason: Reason::InvalidArgument, blockers: bad });
        }
        let until = context.now.plus_ms(for_ms);
        new.pin = Some(Pin { to, until, by: context.actor.to_owned() });
        new.computed_from = Revision(context.revision.0 - 1);
        new.rule = "manual".to_owned();
        new.inputs = vec![format!("set to {to} by {} for {} s", context.actor, for_ms / 1_000)];
        new.move_to(context.now, to);
        Ok(self.store_scaling(context, "scale/pinned", new))
    }

    /// Scaling policies by name, once all is put and deleted.
    pub(super) fn scaling_policies_after<'a>(
        &'a self,
        put: &'a [PolicyObject],
        delete: &[PolicyName],
    ) -> BTreeMap<&'a str, &'a ScalingPolicy> {
        let mut after: BTreeMap<&str, &ScalingPolicy> =
            self.scaling_policies.iter().map(|(name, policy)| (name.as_str(), policy.as_ref())).collect();
        for object in put {
            if let PolicyObject::ScalingPolicy(policy) = object {
                after.insert(&policy.name, policy);
            }
        }
        for name in delete {
            if let PolicyName::ScalingPolicy(name) = name {
                after.remove(name.as_str());
            }
        }
        after
    }

    /// Everything that keeps scaling policies from being put, or deleted, or what they scale from being deleted.
    pub(crate) fn check_scaling_policies(
        &self,
        put: &[PolicyObject],
        delete: &[PolicyName],
        blockers: &mut Vec<Blocker>,
    ) {
        if put.iter().any(is_of_power) {
            self.knows(TEMPLATES_SINCE_VERSION, "power budgets", blockers);
        }
        let touched = put.iter().any(is_of_scaling)
            || delete.iter().any(|name| matches!(name, PolicyName::ScalingPolicy(_)));
        if touched && !self.knows(SINCE_VERSION, "scaling", blockers) {
            return;
        }
        if put.iter().any(is_of_templates)
            && !self.knows(TEMPLATES_SINCE_VERSION, "several templates", blockers)
        {
            return;
        }
        for object in put {
            if let PolicyObject::ScalingPolicy(policy) = object {
                self.check_retargeted(policy, blockers);
            }
        }
        for name in delete {
            if let PolicyName::ScalingPolicy(name) = name {
                let open = self.intents_of(name).filter(|intent| intent.is_open()).count() as u64;
                if open > 0 {
                    let subject = format!("scaling policy {name}: machines on their way");
                    blockers.push(Blocker::new(Reason::InUse, subject, 0, open));
                }
            }
        }
        let after = self.scaling_policies_after(put, delete);
        if after.len() > MAX_SCALING {
            let (count, most) = (after.len() as u64, MAX_SCALING as u64);
            blockers.push(Blocker::new(Reason::TableFull, "scaling policies", count, most));
        }
        let mut by_target: BTreeMap<&ScalingTarget, &str> = BTreeMap::new();
        for (name, policy) in &after {
            if let Some(other) = by_target.insert(&policy.target, name) {
                let subject = format!("{}: scaled by {other} and by {name}", policy.target.path());
                blockers.push(Blocker::new(Reason::InvalidArgument, subject, 2, 1));
            }
            let (needed, missing) = match &policy.target {
                ScalingTarget::Pool(pool) => (PolicyName::Pool(pool.clone()), Reason::PoolNotFound),
                ScalingTarget::Service(service) => {
                    (PolicyName::Service(service.clone()), Reason::ServiceNotFound)
                }
            };
            let was_there = self.has_policy(&needed);
            let comes = put.iter().any(|object| object.name() == needed);
            if delete.contains(&needed) {
                let subject =
                    format!("{} {}: scaling policy {name} is about it", needed.kind(), needed.name());
                blockers.push(Blocker::new(Reason::InUse, subject, 0, 1));
            } else if !was_there && !comes {
                let subject = format!("{}, the {} of scaling policy {name}", needed.name(), needed.kind());
                blockers.push(Blocker::new(missing, subject, 1, 0));
            }
        }
    }

    /// The machines that there are belong to the target that they were started for.
    fn check_retargeted(&self, policy: &ScalingPolicy, blockers: &mut Vec<Blocker>) {
        let Some(known) = self.scaling_policies.get(&policy.name) else { return };
        let machines = self.intents_of(&policy.name).count() as u64;
        if known.target != policy.target && machines > 0 {
            let subject = format!("scaling policy {}: machines of {}", policy.name, known.target.path());
            blockers.push(Blocker::new(Reason::InUse, subject, 0, machines));
        }
        // The next leader has to ask for the same machine.
        let coming = self.intents_of(&policy.name).filter(|intent| intent.starts() && intent.is_open());
        let lost = coming.filter(|intent| policy.offer(&intent.template).is_none()).count() as u64;
        if lost > 0 {
            let subject =
                format!("scaling policy {}: machines on their way whose template it lacks", policy.name);
            blockers.push(Blocker::new(Reason::InUse, subject, 0, lost));
        }
    }

    /// Puts a scaling policy; what its target wants is brought within its bounds at once.
    pub(crate) fn store_scaling_policy(&mut self, context: &mut Context<'_>, policy: &ScalingPolicy) {
        let policy = Arc::new(ScalingPolicy { changed: context.revision, ..policy.clone() });
        self.put_scaling_policy(Arc::clone(&policy));
        context.event("policy/put", EventObject::ScalingPolicy(Arc::clone(&policy)));
        let bounds = format!("min {} and max {}", policy.rules.min, policy.rules.max);
        let Some(old) = self.scalings.get(&policy.name).cloned() else {
            let present = self.fleet(&policy).present;
            let new = Scaling {
                policy: policy.name.clone(),
                desired: policy.within(present),
                computed_from: Revision(context.revision.0 - 1),
                rule: "policy".to_owned(),
                inputs: vec![format!("{present} are there; {bounds}")],
                ..Scaling::default()
            };
            return drop(self.store_scaling(context, "scale/begun", new));
        };
        let (least, most) = (policy.least(), policy.rules.max);
        let mut new = Scaling::clone(&old);
        new.pin = new.pin.filter(|pin| (least..=most).contains(&pin.to));
        new.resting.retain(|one| policy.offer(&one.template).is_some());
        let within =
            if (least..=most).contains(&old.desired) { old.desired } else { policy.within(old.desired) };
        if within != old.desired || new.pin != old.pin {
            new.computed_from = Revision(context.revision.0 - 1);
            new.rule = "policy".to_owned();
            new.inputs = vec![format!("{} were wanted; {bounds}", old.desired)];
            new.move_to(context.now, within);
            self.store_scaling(context, "scale/bounds", new);
        } else if new.resting != old.resting {
            self.store_scaling(context, "scale/templates", new);
        }
    }

    pub(crate) fn store_scaling(
        &mut self,
        context: &mut Context<'_>,
        rule: &'static str,
        mut scaling: Scaling,
    ) -> Outcome {
        scaling.changed = context.revision;
        let scaling = Arc::new(scaling);
        self.put_scaling(Arc::clone(&scaling));
        context.event(rule, EventObject::Scaling(scaling));
        Outcome::Done
    }

    pub(crate) fn store_intent(&mut self, context: &mut Context<'_>, rule: &'static str, mut intent: Intent) {
        intent.changed = context.revision;
        let intent = Arc::new(intent);
        self.put_intent(Arc::clone(&intent));
        context.event(rule, EventObject::Intent(intent));
    }

    pub(crate) fn find_scaling(&self, name: &str) -> Result<Arc<ScalingPolicy>, Refusal> {
        let missing = || Refusal::one(Reason::NotFound, format!("scaling policy {name}"), 1, 0);
        self.scaling_policy(name).cloned().ok_or_else(missing)
    }

    /// Each policy has its state, from the entry that put it on.
    pub(crate) fn state_of(&self, policy: &ScalingPolicy) -> Arc<Scaling> {
        self.scalings.get(&policy.name).cloned().unwrap_or_default()
    }
}

/// Why a decision does not count, by the policy and the state as they are now.
fn check_decided(
    policy: &ScalingPolicy,
    state: &Scaling,
    decided: &ScaleDecided,
    now: LedgerTime,
) -> Result<(), Refusal> {
    let text = decided.inputs.iter().chain([&decided.rule]).map(String::len).max().unwrap_or(0);
    for (field, given, most) in
        [("inputs", decided.inputs.len(), MAX_SCALING_INPUTS), ("inputs, in bytes", text, MAX_SCALING_TEXT)]
    {
        if given > most {
            return Err(Refusal::one(Reason::InvalidArgument, field, given as u64, most as u64));
        }
    }
    let newer = policy.changed.max(state.changed);
    if newer > decided.computed_from {
        let subject = format!("scaling of {}", policy.target.path());
        return Err(Refusal::one(Reason::RevisionMoved, subject, decided.computed_from.0, newer.0));
    }
    let wrong = |subject: String, asked: u64, available: u64| {
        Err(Refusal::one(Reason::WrongState, subject, asked, available))
    };
    let (desired, path) = (decided.desired, policy.target.path());
    if let Some(pin) = state.pinned(now) {
        return wrong(format!("{path} is set to {} by {} until then", pin.to, pin.by), now.0, pin.until.0);
    }
    if desired == state.desired {
        return wrong(format!("{path} wants that already"), desired, state.desired);
    }
    let (least, most) = (policy.least(), policy.rules.max);
    if desired < least || desired > most {
        let expected = if desired < least { least } else { most };
        let blocker = Blocker::new(Reason::InvalidArgument, format!("desired of {path}"), desired, expected);
        let blocker = Blocker { limit: most, ..blocker };
        return Err(Refusal { reason: Reason::InvalidArgument, blockers: vec![blocker] });
    }
    // Sleep waits for its own cooldown, which the leader counts from when it last saw something active.
    if desired == 0 && policy.rules.activation.is_some() {
        return Ok(());
    }
    let behavior = if desired > state.desired { &policy.rules.up } else { &policy.rules.down };
    if behavior.select == Select::Disabled {
        return wrong(format!("{path} does not go that way: select is disabled"), desired, state.desired);
    }
    if state.changes.is_empty() {
        return Ok(());
    }
    let mut rested = state.changed_at.plus_ms(behavior.cooldown_ms);
    if state.reverses(desired) && state.reversed_at.0 > 0 {
        rested = rested.max(state.reversed_at.plus_ms(behavior.cooldown_ms));
    }
    if now < rested {
        return wrong(format!("{path} changed a moment ago: cooldown until then"), now.0, rested.0);
    }
    Ok(())
}
