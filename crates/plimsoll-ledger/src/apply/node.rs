//! Nodes: registration, health, the operator's word, devices, removal.

use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{DeviceIndex, LedgerTime, NodeEpoch, NodeId};

use super::submit::cap_deadline;
use crate::command::AdminChange;
use crate::ledger::Context;
use crate::removed::{self, RemovedNode};
use crate::validate::validate_registration;
use crate::{
    Blocker, DEFAULT_POOL, Device, EndReason, EventObject, Ledger, Node, NodeAdmin, NodeHealth, Outcome,
    Preempted, PreemptionRule, Reason, Refusal, Registration, Reservation, State, effective_labels,
};
use crate::{capacity, mig};

impl Ledger {
    pub(crate) fn apply_register_node(
        &mut self,
        context: &mut Context<'_>,
        registration: &Registration,
    ) -> Result<Outcome, Refusal> {
        if mig::has_slices(registration) {
            self.require_version(mig::SINCE_VERSION, "devices cut into slices")?;
        }
        let mut bad = validate_registration(registration);
        let says_capacity = self.meta.version >= capacity::SINCE_VERSION;
        if says_capacity {
            bad.extend(capacity::label_faults(registration));
        }
        if !bad.is_empty() {
            return Err(Refusal { reason: Reason::InvalidArgument, blockers: bad });
        }
        let old = self.node_by_name(&registration.name).cloned();
        let id = old.as_ref().map_or(NodeId(self.meta.next_node), |node| node.id);
        let mut stored = registration.clone();
        if says_capacity {
            capacity::fill_labels(&mut stored.labels);
        }
        if let Some(old) = &old {
            stored.devices = merge_devices(&old.registration.devices, &registration.devices);
        }
        // The label `gpu` is that of the first device that it ever had; older ledgers took that of the report, until policy changed.
        let seen = if self.meta.version >= crate::elastic::SINCE_VERSION { &stored } else { registration };
        let (pool, moved) = self.place_of(seen, old.as_deref());
        let allocatable = self.allocatable_of(seen);
        let mut node = Node {
            id,
            registration: stored,
            epoch: NodeEpoch(context.revision.0),
            pool,
            allocatable,
            admin: NodeAdmin::Schedulable,
            health: NodeHealth::Available,
            health_since: context.now,
            fence_pending: Vec::new(),
            moved,
            interruption: None,
            changed: context.revision,
        };
        let Some(old) = old else {
            self.meta.next_node += 1;
            // It came back while its provider removes it: nothing is put there any more.
            if let Some(leaving) = self.removal_of(&registration.name) {
                let reason = format!("scaling policy {}, intent {}", leaving.policy, leaving.id);
                node.admin = NodeAdmin::Cordoned { reason };
            }
            return Ok(self.store_node(context, "node/register", node));
        };
        node.admin = old.admin.clone();
        if old.registration.incarnation == registration.incarnation {
            node.epoch = old.epoch;
            node.interruption = old.interruption;
        }
        if old.health == NodeHealth::Available {
            node.health_since = old.health_since;
        }
        // The agent's own word: of what was fenced off, only what it says still runs stays so.
        let running = |id| registration.running.binary_search(&id).is_ok();
        node.fence_pending = old.fence_pending.iter().filter(|p| running(p.reservation)).cloned().collect();
        node.changed = old.changed;
        if node == *old {
            return Ok(Outcome::Node(old));
        }
        let failed = newly_failed(&old.registration.devices, &node.registration.devices);
        let outcome = self.store_node(context, "node/register", node);
        self.resume_holders(context, id);
        self.lose_members_on(context, id, &failed);
        Ok(outcome)
    }

    pub(crate) fn apply_set_node_health(
        &mut self,
        context: &mut Context<'_>,
        id: NodeId,
        epoch: NodeEpoch,
        health: NodeHealth,
    ) -> Result<Outcome, Refusal> {
        let old = Arc::clone(self.find_node(id)?);
        if old.epoch != epoch {
            return Err(Refusal::one(Reason::Fenced, old.name(), epoch.0, old.epoch.0));
        }
        let allowed = match health {
            NodeHealth::Available => old.health == NodeHealth::Suspect,
            NodeHealth::Suspect => old.health == NodeHealth::Available,
            NodeHealth::Lost => old.health == NodeHealth::Suspect,
            NodeHealth::Fenced => old.health != NodeHealth::Fenced,
            NodeHealth::Failed => !matches!(old.health, NodeHealth::Failed | NodeHealth::Fenced),
        };
        if !allowed {
            let subject = format!("node {} is {}", old.name(), old.state_name());
            return Err(Refusal::one(Reason::WrongState, subject, 1, 0));
        }
        if health == NodeHealth::Lost {
            let safe_end = self.safe_end(id).unwrap_or(old.health_since);
            if context.now < safe_end {
                let subject = format!("node {} has leases until then", old.name());
                return Err(Refusal::one(Reason::WrongState, subject, context.now.0, safe_end.0));
            }
        }
        let mut node = Node::clone(&old);
        node.health = health;
        node.health_since = context.now;
        if matches!(health, NodeHealth::Available | NodeHealth::Fenced) {
            node.fence_pending = Vec::new();
        }
        let rule = match health {
            NodeHealth::Available => "node/available",
            NodeHealth::Suspect => "node/suspect",
            NodeHealth::Lost => "node/lost",
            NodeHealth::Fenced => "node/fenced",
            NodeHealth::Failed => "node/failed",
        };
        self.store_node(context, rule, node);
        match health {
            NodeHealth::Available => self.resume_holders(context, id),
            NodeHealth::Suspect => self.suspend_holders(context, id),
            NodeHealth::Lost => self.fail_holders(context, id, rule, EndReason::NodeLost),
            NodeHealth::Fenced => self.fail_holders(context, id, rule, EndReason::NodeFenced),
            NodeHealth::Failed => self.fail_holders(context, id, rule, EndReason::NodeFailed),
        }
        Ok(Outcome::Node(Arc::clone(self.find_node(id)?)))
    }

    pub(crate) fn apply_set_node_admin(
        &mut self,
        context: &mut Context<'_>,
        id: NodeId,
        change: &AdminChange,
    ) -> Result<Outcome, Refusal> {
        if matches!(change, AdminChange::Uncordon) {
            self.keep_leaving(context, id)?;
        }
        let mut node = Node::clone(self.find_node(id)?);
        let (rule, admin) = match change {
            // The operator knows better than a notice.
            AdminChange::Uncordon => {
                node.interruption = None;
                ("node/uncordon", NodeAdmin::Schedulable)
            }
            AdminChange::Cordon { reason } => ("node/cordon", NodeAdmin::Cordoned { reason: reason.clone() }),
            AdminChange::Drain { reason, deadline_ms } => {
                let deadline =
                    if *deadline_ms == 0 { LedgerTime(0) } else { context.now.plus_ms(*deadline_ms) };
                ("node/drain", NodeAdmin::Draining { reason: reason.clone(), deadline })
            }
        };
        node.admin = admin;
        Ok(self.store_node(context, rule, node))
    }

    pub(crate) fn apply_set_device_health(
        &mut self,
        context: &mut Context<'_>,
        id: NodeId,
        index: DeviceIndex,
        failed: bool,
    ) -> Result<Outcome, Refusal> {
        let mut node = Node::clone(self.find_node(id)?);
        let Some(device) = node.registration.devices.get_mut(usize::from(index.0)) else {
            let subject = format!("device {} of node {}", index.0, node.name());
            return Err(Refusal::one(Reason::NotFound, subject, 1, 0));
        };
        let fails = failed && !device.failed;
        device.failed = failed;
        let outcome = self.store_node(context, if failed { "device/failed" } else { "device/healthy" }, node);
        if fails {
            self.lose_members_on(context, id, &[index]);
        }
        Ok(outcome)
    }

    pub(crate) fn apply_remove_node(
        &mut self,
        context: &mut Context<'_>,
        id: NodeId,
    ) -> Result<Outcome, Refusal> {
        let node = Arc::clone(self.find_node(id)?);
        let holders = self.usage(id).map_or(0, |usage| usage.holders.len()) as u64;
        if holders > 0 {
            return Err(Refusal::one(Reason::InUse, format!("leases on node {}", node.name()), 0, holders));
        }
        self.keep_no_places(context, id);
        self.remove_node(id);
        if self.meta.version >= removed::SINCE_VERSION {
            self.put_removed(Arc::new(RemovedNode::of(&node, context.now)));
        }
        context.event("node/remove", EventObject::NodeRemoved(id, node.name().to_owned()));
        Ok(Outcome::Done)
    }

    /// Replaces a node, notes the revision and tells the event.
    pub(crate) fn store_node(
        &mut self,
        context: &mut Context<'_>,
        rule: &'static str,
        mut node: Node,
    ) -> Outcome {
        node.changed = context.revision;
        let node = Arc::new(node);
        let before = self.node(node.id).cloned();
        self.put_node(Arc::clone(&node));
        context.event(rule, EventObject::Node(Arc::clone(&node)));
        let same = |old: Arc<Node>| old.registration == node.registration && old.pool == node.pool;
        if !node.is_eligible() || !before.is_none_or(same) {
            self.keep_no_places(context, node.id);
        }
        Outcome::Node(node)
    }

    /// The pool a node is in: the one its agent names, else the first by name that selects it, else the default.
    pub(crate) fn pool_of(&self, registration: &Registration) -> String {
        if !registration.pool.is_empty() {
            return registration.pool.clone();
        }
        let labels = effective_labels(registration);
        let selects =
            |pool: &&Arc<crate::Pool>| !pool.select.terms.is_empty() && pool.select.matches(&labels);
        self.pools.values().find(selects).map_or_else(|| DEFAULT_POOL.to_owned(), |pool| pool.name.clone())
    }

    /// What a node offers: its capacity, capped by every node limit that selects it.
    pub(crate) fn allocatable_of(&self, registration: &Registration) -> plimsoll_types::Resources {
        let labels = effective_labels(registration);
        let limits = self.node_limits.values().filter(|limits| limits.select.matches(&labels));
        limits.fold(registration.capacity.clone(), |amounts, limits| amounts.capped_by(&limits.max))
    }

    pub(super) fn find_node(&self, id: NodeId) -> Result<&Arc<Node>, Refusal> {
        self.node(id).ok_or_else(|| Refusal::one(Reason::NotFound, format!("node #{}", id.0), 1, 0))
    }

    fn holders_of(&self, id: NodeId) -> Vec<Arc<Reservation>> {
        self.holders(id).cloned().collect()
    }

    /// The node fell silent: what it holds is unknown until it is back or lost. A gang moves as one.
    fn suspend_holders(&mut self, context: &mut Context<'_>, id: NodeId) {
        for old in self.holders_of(id) {
            if old.state != State::Unknown {
                let mut new = Reservation::clone(&old);
                new.state = State::Unknown;
                self.store(context, "node/suspect", new, Some(old.state));
            }
        }
    }

    /// The node is back: what it holds goes on, each lease a full length from now. A gang waits for all its nodes.
    fn resume_holders(&mut self, context: &mut Context<'_>, id: NodeId) {
        for old in self.holders_of(id) {
            let all_back = old.members.iter().all(|member| {
                self.node(member.node).is_some_and(|node| node.health == NodeHealth::Available)
            });
            if old.state != State::Unknown || !all_back {
                continue;
            }
            let mut new = Reservation::clone(&old);
            new.state = old.resume_state;
            let length_ms = match new.state {
                State::Held => old.request.hold_ms,
                State::Preempting => old.preempted().map_or(0, |preempted| preempted.grace_ms),
                _ => old.ttl_ms,
            };
            new.deadline = old.deadline.max(context.now.plus_ms(length_ms));
            if new.state == State::Preempting
                && let Some(goes_at) = self.goes_at(&old.members)
            {
                new.deadline = new.deadline.min(goes_at.max(context.now));
            }
            if new.state != State::Held {
                cap_deadline(&mut new);
            }
            self.store(context, "node/available", new, Some(old.state));
        }
    }

    fn fail_holders(&mut self, context: &mut Context<'_>, id: NodeId, rule: &'static str, reason: EndReason) {
        for old in self.holders_of(id) {
            if mutant!("partial-gang") && old.members.iter().any(|member| member.node != id) {
                let mut new = Reservation::clone(&old);
                new.members.retain(|member| member.node != id);
                self.store(context, rule, new, Some(old.state));
                continue;
            }
            if self.lose_members(context, &old, |member| member.node == id, rule) {
                continue;
            }
            if self.node(id).is_some_and(|node| node.interruption.is_some()) {
                self.interrupted_away(context, &old);
            } else if self.is_promised(&old) {
                self.process_again(context, &old, id);
            } else {
                self.end(context, rule, &old, State::Failed, reason);
            }
        }
    }

    /// A node went as its provider had said: what was still on it waits again or ends as it would have after its notice.
    fn interrupted_away(&mut self, context: &mut Context<'_>, old: &Arc<Reservation>) {
        let known = old.preempted().filter(|known| known.rule == PreemptionRule::Interruption);
        let noticed = known.map_or_else(
            || {
                let preempted = Some(Box::new(Preempted::by_provider(context.now, context.revision, 0)));
                Arc::new(Reservation { preempted, ..Reservation::clone(old) })
            },
            |_| Arc::clone(old),
        );
        let outcome = self.take_back(context, &noticed);
        // One that ends keeps what it had there by itself.
        if matches!(outcome, Outcome::Reservation(after) if !after.state.is_final()) {
            self.keep_fence_pending(context, old);
        }
    }

    /// A node took what a queue promised to process: it waits again, in its old place.
    fn process_again(&mut self, context: &mut Context<'_>, old: &Arc<Reservation>, lost: NodeId) {
        let name = self.node(lost).map(|node| node.name().to_owned()).unwrap_or_default();
        let lost = Blocker::new(Reason::NodeNotAvailable, format!("{name}, where it was"), 1, 0);
        self.requeue(context, old, "node/requeue", vec![lost]);
        self.keep_fence_pending(context, old);
    }
}

/// Devices that had not failed and have now.
fn newly_failed(old: &[Device], new: &[Device]) -> Vec<DeviceIndex> {
    let failed = old.iter().zip(new).enumerate().filter(|(_, (old, new))| !old.failed && new.failed);
    failed.filter_map(|(index, _)| u16::try_from(index).ok().map(DeviceIndex)).collect()
}

/// Keeps the index of every device that was ever reported: grants name devices by it. What is not reported any more
/// counts as failed; what is new goes to the end.
fn merge_devices(old: &[Device], reported: &[Device]) -> Vec<Device> {
    let report_of = |device: &Device| reported.iter().find(|new| new.uuid == device.uuid).cloned();
    let mut merged: Vec<Device> = old
        .iter()
        .map(|device| report_of(device).unwrap_or_else(|| Device { failed: true, ..device.clone() }))
        .collect();
    merged.extend(reported.iter().filter(|new| old.iter().all(|device| device.uuid != new.uuid)).cloned());
    merged
}
