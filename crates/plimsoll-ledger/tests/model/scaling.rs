//! Scaling of the model: `docs/semantics.md` 5.9, for pools.

use plimsoll_ledger::{ClassOrder, Fairness, IntentStep, ScaleDecided, ScalingPolicy, ScalingTarget};

use super::*;

/// What a target wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) desired: u64,
    pub(crate) changed_at: u64,
    pub(crate) reversed_at: u64,
    /// Which way it moved last.
    pub(crate) went_up: Option<bool>,
    pub(crate) pin: Option<(u64, u64)>,
    pub(crate) failures: u32,
    pub(crate) retry_at: u64,
    /// By template: failures one after another, and until when it rests.
    pub(crate) rests: BTreeMap<String, (u32, u64)>,
    /// Revision of its latest change.
    changed: u64,
}

/// How far an intent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    Wanted,
    Acting,
    Ready,
    Failed,
}

/// A machine to be started, or (with the intent that started it) removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) policy: String,
    pub(crate) removes: Option<u64>,
    pub(crate) node: String,
    pub(crate) template: String,
    pub(crate) stand: Stand,
    pub(crate) attempts: u32,
    pub(crate) not_before: u64,
    pub(crate) deadline: u64,
}

impl Wanted {
    fn open(&self) -> bool {
        matches!(self.stand, Stand::Wanted | Stand::Acting)
    }
}

fn declares(policy: &ScalingPolicy, template: &str) -> bool {
    match policy.templates.is_empty() {
        true => template.is_empty(),
        false => policy.templates.iter().any(|one| one.name == template),
    }
}

fn watts_of(policy: &ScalingPolicy, template: &str) -> u64 {
    policy.templates.iter().find(|one| one.name == template).map_or(0, |one| one.watts)
}

fn least_of(policy: &ScalingPolicy) -> u64 {
    if policy.rules.activation.is_some() { 0 } else { policy.rules.min }
}

impl Model {
    pub(super) fn scaling_reasons(&self, put: &[PolicyObject], delete: &[PolicyName]) -> Vec<Reason> {
        let puts: Vec<&ScalingPolicy> = put
            .iter()
            .filter_map(|object| if let PolicyObject::ScalingPolicy(p) = object { Some(p) } else { None })
            .collect();
        let deletes: Vec<&String> = delete
            .iter()
            .filter_map(|name| if let PolicyName::ScalingPolicy(n) = name { Some(n) } else { None })
            .collect();
        if self.version < 6 && !(puts.is_empty() && deletes.is_empty()) {
            return vec![Reason::UnsupportedVersion];
        }
        if self.version < 12 && puts.iter().any(|p| !p.templates.is_empty() || !p.expander.is_empty()) {
            return vec![Reason::UnsupportedVersion];
        }
        let mut reasons = Vec::new();
        if self.version < 12
            && put.iter().any(|object| matches!(object, PolicyObject::Pool(p) if p.power_budget_watts > 0))
        {
            reasons.push(Reason::UnsupportedVersion);
        }
        let over_time = |object: &PolicyObject| match object {
            PolicyObject::Pool(pool) => pool.fairness == Fairness::FairTree || pool.half_life_ms > 0,
            _ => false,
        };
        let weighted = |object: &PolicyObject| match object {
            PolicyObject::Pool(pool) => pool.class_order == ClassOrder::Weighted,
            PolicyObject::Class(class) => class.weight_milli.is_some(),
            _ => false,
        };
        if self.version < 14 && put.iter().any(weighted) {
            reasons.push(Reason::UnsupportedVersion);
        }
        let planned = |object: &PolicyObject| {
            let PolicyObject::Pool(pool) = object else { return false };
            !["", "strict", "skip"].contains(&pool.queueing.to_string().as_str()) && weighted(object)
        };
        if put.iter().any(planned) {
            reasons.push(Reason::InvalidArgument);
        }
        let by_points = |object: &PolicyObject| match object {
            PolicyObject::Pool(pool) => pool.priority_weights.as_ref().map(|_| pool.queueing.to_string()),
            _ => None,
        };
        if self.version < 15 && put.iter().any(|object| by_points(object).is_some()) {
            reasons.push(Reason::UnsupportedVersion);
        }
        if put.iter().filter_map(by_points).any(|queueing| queueing != "priority") {
            reasons.push(Reason::InvalidArgument);
        }
        if self.version < 13 && put.iter().any(over_time) {
            reasons.push(Reason::UnsupportedVersion);
        }
        let mut after = self.scaled.clone();
        for policy in puts {
            if policy.rules.min > policy.rules.max {
                reasons.push(Reason::InvalidArgument);
            }
            let other = self.scaled.get(&policy.name).is_some_and(|known| known.target != policy.target);
            if other && self.intents.values().any(|one| one.policy == policy.name) {
                reasons.push(Reason::InUse);
            }
            let names =
                policy.templates.iter().map(|one| &one.name).collect::<std::collections::BTreeSet<_>>();
            if names.len() < policy.templates.len() {
                reasons.push(Reason::InvalidArgument);
            }
            let coming = |one: &&Wanted| one.policy == policy.name && one.open() && one.removes.is_none();
            let known = self.scaled.contains_key(&policy.name);
            if known && self.intents.values().filter(coming).any(|one| !declares(policy, &one.template)) {
                reasons.push(Reason::InUse);
            }
            after.insert(policy.name.clone(), policy.clone());
        }
        for name in deletes {
            after.remove(name);
            if self.intents.values().any(|one| one.policy == *name && one.open()) {
                reasons.push(Reason::InUse);
            }
        }
        for (name, policy) in &after {
            if after.iter().any(|(other, known)| other < name && known.target == policy.target) {
                reasons.push(Reason::InvalidArgument);
            }
            let ScalingTarget::Pool(pool) = &policy.target else { unreachable!("pools alone are played") };
            let comes = put.iter().any(|object| object.name() == PolicyName::Pool(pool.clone()));
            if delete.contains(&PolicyName::Pool(pool.clone())) {
                reasons.push(Reason::InUse);
            } else if !self.pools.contains_key(pool) && !comes {
                reasons.push(Reason::PoolNotFound);
            }
        }
        reasons
    }

    pub(super) fn put_scaled(&mut self, policy: ScalingPolicy) {
        let (name, revision, now) = (policy.name.clone(), self.revision, self.clock);
        self.scaled.insert(name.clone(), policy.clone());
        self.scaled_at.insert(name.clone(), revision);
        let within = |wanted: u64| wanted.max(policy.rules.min).min(policy.rules.max);
        let allowed = |wanted: u64| (least_of(&policy)..=policy.rules.max).contains(&wanted);
        let present = self.present(&policy);
        match self.wishes.get_mut(&name) {
            None => {
                let wish = Wish { desired: within(present), changed: revision, ..Wish::default() };
                self.wishes.insert(name, wish);
            }
            Some(wish) => {
                let bad_pin = wish.pin.is_some_and(|(to, _)| !allowed(to));
                if bad_pin {
                    wish.pin = None;
                }
                let rests = wish.rests.len();
                wish.rests.retain(|template, _| declares(&policy, template));
                let forgets = wish.rests.len() < rests;
                let moves = !allowed(wish.desired);
                if moves {
                    wish.go(now, within(wish.desired));
                }
                if moves || bad_pin || forgets {
                    wish.changed = revision;
                }
            }
        }
    }

    pub(super) fn delete_scaled(&mut self, name: &str) {
        self.scaled.remove(name);
        self.wishes.remove(name);
        self.intents.retain(|_, one| one.policy != name);
    }

    pub(super) fn set_desired(&mut self, decided: &ScaleDecided) -> Result<(), Reason> {
        let policy = self.scaling(&decided.policy)?;
        let (wish, now) = (self.wishes[&policy.name].clone(), self.clock);
        let long = decided.inputs.iter().chain([&decided.rule]).any(|text| text.len() > 512);
        if decided.inputs.len() > 32 || long {
            return Err(Reason::InvalidArgument);
        }
        if self.scaled_at[&policy.name].max(wish.changed) > decided.computed_from.0 {
            return Err(Reason::RevisionMoved);
        }
        if wish.pin.is_some_and(|(_, until)| now < until) || decided.desired == wish.desired {
            return Err(Reason::WrongState);
        }
        if decided.desired < least_of(&policy) || decided.desired > policy.rules.max {
            return Err(Reason::InvalidArgument);
        }
        let up = decided.desired > wish.desired;
        let asleep = decided.desired == 0 && policy.rules.activation.is_some();
        let direction = if up { &policy.rules.up } else { &policy.rules.down };
        if !asleep {
            if direction.select == plimsoll_autoscaler::Select::Disabled {
                return Err(Reason::WrongState);
            }
            let turns = wish.went_up.is_some_and(|went| went != up);
            let since = if turns { wish.changed_at.max(wish.reversed_at) } else { wish.changed_at };
            if wish.went_up.is_some() && now < since + direction.cooldown_ms {
                return Err(Reason::WrongState);
            }
        }
        let revision = self.revision;
        let wish = self.wishes.get_mut(&policy.name).expect("looked up above");
        wish.pin = wish.pin.filter(|(_, until)| now < *until);
        wish.go(now, decided.desired);
        wish.changed = revision;
        Ok(())
    }

    pub(super) fn pin_scale(
        &mut self,
        target: &ScalingTarget,
        to: Option<u64>,
        for_ms: u64,
    ) -> Result<(), Reason> {
        if self.version < 6 {
            return Err(Reason::UnsupportedVersion);
        }
        let policy = self.scaled.values().find(|p| p.target == *target).cloned().ok_or(Reason::NotFound)?;
        let (now, revision) = (self.clock, self.revision);
        let wish = self.wishes.get_mut(&policy.name).expect("each policy has one");
        match to {
            None if wish.pin.is_none() => return Err(Reason::WrongState),
            None => wish.pin = None,
            Some(to) => {
                let fits = (least_of(&policy)..=policy.rules.max).contains(&to);
                if !fits || !(1_000..=366 * 24 * HOUR_MS).contains(&for_ms) {
                    return Err(Reason::InvalidArgument);
                }
                wish.pin = Some((to, now + for_ms));
                wish.go(now, to);
            }
        }
        wish.changed = revision;
        Ok(())
    }

    pub(super) fn open_intent(
        &mut self,
        name: &str,
        machine: Option<u64>,
        template: &str,
    ) -> Result<(), Reason> {
        if self.version >= 6 && self.version < 12 && !template.is_empty() {
            return Err(Reason::UnsupportedVersion);
        }
        let policy = self.scaling(name)?;
        if policy.provider.is_none() {
            return Err(Reason::WrongState);
        }
        let wish = self.wishes[name].clone();
        let known = machine.and_then(|id| self.intents.get(&id).cloned());
        // Nothing will come of it any more.
        let gone = known.as_ref().is_some_and(|one| {
            let node = self.nodes.values().find(|n| n.reg.name == one.node);
            node.is_none_or(|n| !heard(n))
        });
        if self.clock < wish.retry_at && !gone {
            return Err(Reason::WrongState);
        }
        let counted = self.present(&policy) + self.coming(&policy);
        let id = self.revision;
        let mut new = Wanted {
            policy: name.to_owned(),
            removes: machine,
            node: format!("{name}-i{id}"),
            template: template.to_owned(),
            stand: Stand::Wanted,
            attempts: 0,
            not_before: 0,
            deadline: 0,
        };
        let Some(machine) = machine else {
            if !declares(&policy, template) {
                return Err(Reason::NotFound);
            }
            if wish.rests.get(template).is_some_and(|(_, until)| self.clock < *until) {
                return Err(Reason::WrongState);
            }
            let most = policy.templates.iter().find(|one| one.name == template).map_or(0, |one| one.max);
            if most > 0 && self.of_template(&policy, template) >= most {
                return Err(Reason::LimitExceeded);
            }
            let watts = watts_of(&policy, template);
            let ScalingTarget::Pool(pool) = &policy.target else { unreachable!("pools alone are played") };
            let budget = self.pools[pool].power_budget_watts;
            if budget > 0 && watts > 0 && self.committed_watts(pool, &policy) + watts > budget {
                return Err(Reason::LimitExceeded);
            }
            if counted >= wish.desired {
                return Err(Reason::WrongState);
            }
            self.intents.insert(id, new);
            return Ok(());
        };
        if !template.is_empty() {
            return Err(Reason::InvalidArgument);
        }
        let known =
            known.filter(|one| one.policy == name && one.removes.is_none()).ok_or(Reason::NotFound)?;
        let leaves = self.intents.values().any(|one| one.open() && one.removes == Some(machine));
        let is_there = known.stand == Stand::Ready
            || known.stand == Stand::Failed && self.machine_is_present(&policy, &known);
        if leaves || !is_there {
            return Err(Reason::WrongState);
        }
        let node = self.nodes.iter().find(|(_, n)| n.reg.name == known.node).map(|(id, _)| *id);
        let held = node.is_some_and(|node| !self.holders(node).is_empty());
        if held && policy.drain_ms == 0 {
            return Err(Reason::InUse);
        }
        if node.is_some_and(|node| self.keeps_for_somebody(node)) {
            return Err(Reason::WrongState);
        }
        if !gone {
            if counted <= wish.desired {
                return Err(Reason::WrongState);
            }
            let leaving = self.intents.values().filter(|one| one.open() && one.removes.is_some()).count();
            if leaving as u64 >= u64::from(policy.max_leaving) {
                return Err(Reason::LimitExceeded);
            }
        }
        new.node.clone_from(&known.node);
        new.template.clone_from(&known.template);
        self.intents.insert(id, new);
        if let Some(node) = node {
            let deadline = self.clock + policy.drain_ms;
            let n = self.nodes.get_mut(&node).expect("looked up above");
            if !n.drains && held {
                (n.drain, n.drains) = (deadline, true);
            }
            n.schedulable = false;
            self.keep_no_places(node);
        }
        Ok(())
    }

    pub(super) fn step_intent(&mut self, id: u64, attempts: u32, step: &IntentStep) -> Result<(), Reason> {
        if self.version < 6 {
            return Err(Reason::UnsupportedVersion);
        }
        let old = self.intents.get(&id).cloned().ok_or(Reason::NotFound)?;
        let policy = self.scaling(&old.policy)?;
        if old.attempts != attempts {
            return Err(Reason::Fenced);
        }
        let fits = match step {
            IntentStep::Act | IntentStep::Failed { .. } => old.open(),
            IntentStep::Answered { .. } => old.stand == Stand::Acting && old.removes.is_none(),
            IntentStep::Later { .. } | IntentStep::Ready => old.stand == Stand::Acting,
        };
        if !fits {
            return Err(Reason::WrongState);
        }
        let node = self.nodes.iter().find(|(_, n)| n.reg.name == old.node).map(|(id, _)| *id);
        let held = node.is_some_and(|node| !self.holders(node).is_empty());
        let now = self.clock;
        let mut new = old.clone();
        match step {
            IntentStep::Act => {
                if now < old.not_before {
                    return Err(Reason::WrongState);
                }
                if old.removes.is_some() && held {
                    return Err(Reason::InUse);
                }
                new.stand = Stand::Acting;
                new.attempts += 1;
                if new.deadline == 0 {
                    new.deadline = now + policy.start_within_ms;
                }
            }
            IntentStep::Answered { .. } => {}
            IntentStep::Later { after_ms, .. } => new.not_before = now + after_ms,
            IntentStep::Ready => match old.removes {
                None if !self.machine_is_present(&policy, &old) => return Err(Reason::WrongState),
                None => {
                    new.stand = Stand::Ready;
                    let revision = self.revision;
                    let wish = self.wishes.get_mut(&policy.name).expect("each policy has one");
                    if wish.rests.remove(&old.template).is_some() || wish.failures > 0 {
                        (wish.failures, wish.retry_at, wish.changed) = (0, 0, revision);
                    }
                }
                Some(_) if held => return Err(Reason::InUse),
                Some(machine) => {
                    if let Some(node) = node {
                        self.forget_node(node);
                    }
                    self.intents.remove(&machine);
                    self.intents.remove(&id);
                    return Ok(());
                }
            },
            IntentStep::Failed { .. } => {
                new.stand = Stand::Failed;
                if let Some(n) = node.filter(|_| old.removes.is_some()).and_then(|id| self.nodes.get_mut(&id))
                {
                    (n.schedulable, n.drains, n.drain) = (true, false, 0);
                }
                let revision = self.revision;
                let wish = self.wishes.get_mut(&policy.name).expect("each policy has one");
                let later = |failures: u32| now + (5_000 << (failures - 1).min(20)).min(600_000);
                if old.removes.is_none() && !old.template.is_empty() {
                    let rest = wish.rests.entry(old.template).or_default();
                    rest.0 += 1;
                    rest.1 = later(rest.0);
                } else {
                    wish.failures += 1;
                    wish.retry_at = later(wish.failures);
                }
                wish.changed = revision;
            }
        }
        self.intents.insert(id, new);
        let leaves = |id: u64| self.intents.values().any(|one| one.open() && one.removes == Some(id));
        let failed: Vec<u64> = self
            .intents
            .iter()
            .filter(|(id, one)| one.policy == policy.name && one.stand == Stand::Failed && !leaves(**id))
            .map(|(id, _)| *id)
            .collect();
        failed.iter().take(failed.len().saturating_sub(8)).for_each(|id| drop(self.intents.remove(id)));
        Ok(())
    }

    /// An operator's uncordon: whether it may be, and what becomes of an intent to remove the node.
    pub(super) fn keep_leaving(&mut self, node: u32) -> Result<(), Reason> {
        let Some(name) = self.nodes.get(&node).map(|n| n.reg.name.clone()) else { return Ok(()) };
        let leaving =
            self.intents.iter().find(|(_, one)| one.open() && one.removes.is_some() && one.node == name);
        let Some((id, stand)) = leaving.map(|(id, one)| (*id, one.stand)) else { return Ok(()) };
        if stand == Stand::Acting {
            return Err(Reason::InUse);
        }
        self.intents.remove(&id);
        Ok(())
    }

    pub(super) fn is_removed_by_intent(&self, node: &str) -> bool {
        self.intents.values().any(|one| one.open() && one.removes.is_some() && one.node == node)
    }

    fn scaling(&self, name: &str) -> Result<ScalingPolicy, Reason> {
        if self.version < 6 {
            return Err(Reason::UnsupportedVersion);
        }
        self.scaled.get(name).cloned().ok_or(Reason::NotFound)
    }

    /// Somebody was given notice on a node, or has a place there that others are leaving.
    fn keeps_for_somebody(&self, node: u32) -> bool {
        let on = |r: &Res| r.members.iter().any(|(n, _)| *n == node);
        let of = |r: &Res| occupies(r.state) && r.resume == State::Preempting || r.state == State::Planned;
        self.reservations.values().any(|r| on(r) && of(r))
    }

    fn machine_is_present(&self, policy: &ScalingPolicy, one: &Wanted) -> bool {
        let in_pool = |n: &&Nod| ScalingTarget::Pool(n.pool.clone()) == policy.target;
        self.nodes.values().find(|n| n.reg.name == one.node).filter(in_pool).is_some()
    }

    /// Nodes of the pool that are heard of, without those that leave.
    pub(super) fn present(&self, policy: &ScalingPolicy) -> u64 {
        let leaves = |n: &Nod| {
            let of = |one: &Wanted| one.open() && one.removes.is_some() && one.policy == policy.name;
            self.intents.values().any(|one| of(one) && one.node == n.reg.name)
        };
        let in_pool = |n: &&Nod| ScalingTarget::Pool(n.pool.clone()) == policy.target;
        self.nodes.values().filter(in_pool).filter(|n| heard(n) && !leaves(n)).count() as u64
    }

    /// What all nodes of the pool draw, and all that come.
    fn committed_watts(&self, pool: &str, policy: &ScalingPolicy) -> u64 {
        let nodes = self.nodes.values().filter(|n| n.pool == pool).map(|n| n.reg.capacity.get("power").0);
        let starts = self.intents.values().filter(|one| one.policy == policy.name && one.removes.is_none());
        let coming = starts.filter(|one| one.open() && !self.machine_is_present(policy, one));
        nodes.chain(coming.map(|one| watts_of(policy, &one.template))).sum()
    }

    /// Machines of a template that are there or will be.
    fn of_template(&self, policy: &ScalingPolicy, template: &str) -> u64 {
        let starts = self.intents.values().filter(|one| one.policy == policy.name && one.removes.is_none());
        let lives = |one: &&Wanted| one.stand != Stand::Failed || self.machine_is_present(policy, one);
        starts.filter(|one| one.template == template).filter(lives).count() as u64
    }

    pub(super) fn coming(&self, policy: &ScalingPolicy) -> u64 {
        let starts = self.intents.values().filter(|one| one.policy == policy.name && one.removes.is_none());
        starts.filter(|one| one.open() && !self.machine_is_present(policy, one)).count() as u64
    }
}

impl Wish {
    fn go(&mut self, now: u64, desired: u64) {
        if desired == self.desired {
            return;
        }
        let up = desired > self.desired;
        if self.went_up.is_some_and(|went| went != up) {
            self.reversed_at = now;
        }
        self.went_up = Some(up);
        self.changed_at = now;
        self.desired = desired;
    }
}

fn heard(node: &Nod) -> bool {
    matches!(node.health, NodeHealth::Available | NodeHealth::Suspect)
}
