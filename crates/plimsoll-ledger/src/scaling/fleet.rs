//! What there is of a target's machines, and the writers of the rows about scaling.

use std::sync::Arc;

use plimsoll_types::{LedgerTime, Revision};

use super::{
    DRAIN_SINCE_VERSION, Intent, IntentAction, IntentState, PROPAGATION_MS, Scaling, ScalingPolicy,
    ScalingTarget,
};
use crate::{EndpointState, Ledger, Node, Reservation, RowPlace};

/// How many of a target's machines are there, come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// There, and not leaving: nodes that are heard of, or replicas that listen.
    pub present: u64,
    /// Of these, those that take work.
    pub ready: u64,
    /// Of these, those on which something is held.
    pub busy: u64,
    /// On their way.
    pub starting: u64,
    /// Leaving.
    pub leaving: u64,
}

impl Fleet {
    /// There or on their way.
    pub fn counted(&self) -> u64 {
        self.present + self.starting
    }
}

impl Ledger {
    /// A scaling policy by name.
    pub fn scaling_policy(&self, name: &str) -> Option<&Arc<ScalingPolicy>> {
        self.scaling_policies.get(name)
    }

    /// All scaling policies, by name.
    pub fn scaling_policies(&self) -> impl Iterator<Item = &Arc<ScalingPolicy>> {
        self.scaling_policies.values()
    }

    /// The policy that scales a target. O(policies).
    pub fn scaling_policy_of(&self, target: &ScalingTarget) -> Option<&Arc<ScalingPolicy>> {
        self.scaling_policies.values().find(|policy| policy.target == *target)
    }

    /// What a policy's target wants.
    pub fn scaling(&self, policy: &str) -> Option<&Arc<Scaling>> {
        self.scalings.get(policy)
    }

    /// An intent by its number.
    pub fn intent(&self, id: Revision) -> Option<&Arc<Intent>> {
        self.intents.get(&id)
    }

    /// All intents, in the order in which they were opened.
    pub fn intents(&self) -> impl Iterator<Item = &Arc<Intent>> {
        self.intents.values()
    }

    /// Intents of a policy, in the order in which they were opened. O(intents).
    pub fn intents_of(&self, policy: &str) -> impl Iterator<Item = &Arc<Intent>> {
        self.intents.values().filter(move |intent| intent.policy == policy)
    }

    /// The machine that an intent started, by the name of its node, where it is not leaving for good already. O(intents).
    pub fn machine_of_node(&self, node: &str) -> Option<&Arc<Intent>> {
        self.intents.values().find(|intent| intent.starts() && intent.node == node)
    }

    /// The open intent that removes the machine of a node. O(intents).
    pub(crate) fn removal_of(&self, node: &str) -> Option<&Arc<Intent>> {
        self.intents.values().find(|intent| !intent.starts() && intent.is_open() && intent.node == node)
    }

    /// The node of a machine, whatever pool it is in by now; `None` for replicas.
    pub fn node_of(&self, policy: &ScalingPolicy, intent: &Intent) -> Option<&Arc<Node>> {
        let ScalingTarget::Pool(_) = &policy.target else { return None };
        self.node_by_name(&intent.node)
    }

    /// The replica of a machine: the endpoint of the service whose reservation has its name. O(endpoints).
    pub fn replica_of(&self, policy: &ScalingPolicy, intent: &Intent) -> Option<&Arc<Reservation>> {
        let ScalingTarget::Service(service) = &policy.target else { return None };
        self.endpoints(service).find(|replica| replica.request.name == intent.node)
    }

    /// Until when the replica of a removal is let finish: so long as it takes its clients to hear of it, and up to the policy's `drain_ms` while it says that
    /// it has requests. `None` where it has no replica, and before ledger version 12. O(endpoints).
    pub fn finishes_until(&self, policy: &ScalingPolicy, removal: &Intent) -> Option<LedgerTime> {
        let replica =
            self.replica_of(policy, removal).filter(|_| self.meta.version >= DRAIN_SINCE_VERSION)?;
        let report = self.load(replica.id).map(|load| &load.report);
        let is_busy = report.is_some_and(|report| report.in_flight > 0 || report.queue_depth > 0);
        let more_ms = if is_busy { policy.drain_ms } else { 0 };
        Some(removal.opened_at.plus_ms(PROPAGATION_MS.max(more_ms)))
    }

    /// True where the machine of an intent is there: in the pool, or a replica of the service.
    pub fn is_present(&self, policy: &ScalingPolicy, intent: &Intent) -> bool {
        let in_pool =
            |node: &Arc<Node>| matches!(&policy.target, ScalingTarget::Pool(pool) if *pool == node.pool);
        self.node_of(policy, intent).is_some_and(in_pool) || self.replica_of(policy, intent).is_some()
    }

    /// True where nothing will come of the machine of an intent any more: its node is not heard of, or there is no such replica.
    pub fn is_gone(&self, policy: &ScalingPolicy, intent: &Intent) -> bool {
        match &policy.target {
            ScalingTarget::Pool(_) => self.node_of(policy, intent).is_none_or(|node| !node.health.is_heard()),
            ScalingTarget::Service(_) => self.replica_of(policy, intent).is_none(),
        }
    }

    /// What there is of a policy's machines. O(nodes + intents), or O(endpoints x intents).
    pub fn fleet(&self, policy: &ScalingPolicy) -> Fleet {
        let mut fleet = Fleet::default();
        match &policy.target {
            ScalingTarget::Pool(pool) => {
                let heard = |node: &&Arc<Node>| node.pool == *pool && node.health.is_heard();
                for node in self.nodes().filter(heard) {
                    fleet.present += 1;
                    fleet.ready += u64::from(node.is_eligible());
                    fleet.busy += u64::from(self.holds_something(node));
                }
            }
            ScalingTarget::Service(service) => {
                for replica in self.endpoints(service) {
                    let state = self.endpoint_state(replica);
                    let stays = state != Some(EndpointState::Draining);
                    fleet.present += u64::from(stays);
                    fleet.ready += u64::from(state == Some(EndpointState::Serving));
                }
            }
        }
        for intent in self.intents_of(&policy.name) {
            match intent.action {
                IntentAction::Start { .. } => {
                    fleet.starting += u64::from(intent.is_open() && !self.is_present(policy, intent));
                }
                IntentAction::Remove { .. } if intent.is_open() => {
                    fleet.leaving += 1;
                    let node = self.node_of(policy, intent);
                    let heard =
                        self.is_present(policy, intent) && node.is_some_and(|node| node.health.is_heard());
                    let replica = self.replica_of(policy, intent).map(|one| self.endpoint_state(one));
                    let counted =
                        heard || replica.is_some_and(|state| state != Some(EndpointState::Draining));
                    fleet.present -= u64::from(counted);
                    fleet.busy -= u64::from(heard && node.is_some_and(|node| self.holds_something(node)));
                    fleet.ready -= u64::from(replica == Some(Some(EndpointState::Serving)));
                }
                IntentAction::Remove { .. } => {}
            }
        }
        fleet
    }

    /// True for a machine that is there: one that was started, or that was given up and came all the same.
    pub(crate) fn is_machine(&self, policy: &ScalingPolicy, intent: &Intent) -> bool {
        match intent.state {
            IntentState::Ready => intent.starts(),
            IntentState::Failed => intent.starts() && self.is_present(policy, intent),
            IntentState::Wanted | IntentState::Acting => false,
        }
    }

    /// True where something is held on a node, or kept there for somebody.
    pub fn holds_something(&self, node: &Node) -> bool {
        self.usage(node.id).is_some_and(|usage| !usage.holders.is_empty() || usage.kept.is_some())
    }

    /// Machines that may leave, best first: those that are gone or lost, then the empty ones, then (where the policy drains) the least loaded; of those that
    /// are alike the dearest.
    /// O(intents + nodes).
    pub fn may_leave(&self, policy: &ScalingPolicy) -> Vec<Revision> {
        let mut ranked: Vec<((u8, u64, u64, u64), Revision)> = Vec::new();
        for intent in self.intents_of(&policy.name) {
            let stays = intent.action == (IntentAction::Start { leaving: None });
            if !stays || !self.is_machine(policy, intent) {
                continue;
            }
            let rank = match (&policy.target, self.node_of(policy, intent)) {
                (ScalingTarget::Service(_), _) => {
                    let replica = self.replica_of(policy, intent);
                    let load = replica.and_then(|replica| self.load(replica.id));
                    (
                        u8::from(replica.is_some()),
                        load.map_or(0, |load| load.report.utilization_permille.into()),
                    )
                }
                (ScalingTarget::Pool(_), None) => (0, 0),
                (ScalingTarget::Pool(_), Some(node)) if !node.health.is_heard() => (0, 0),
                (ScalingTarget::Pool(_), Some(node)) => {
                    let holders = self.usage(node.id).map_or(0, |usage| usage.holders.len() as u64);
                    let busy = self.holds_something(node);
                    if busy && policy.drain_ms == 0 {
                        continue;
                    }
                    (1 + u8::from(busy), holders)
                }
            };
            // The youngest first: it has the least that is worth keeping.
            let cost = self.node_of(policy, intent).map_or(0, |node| self.node_cost(node));
            ranked.push(((rank.0, rank.1, u64::MAX - cost, u64::MAX - intent.id.0), intent.id));
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, id)| id).collect()
    }

    /// What a node costs, as [`Ledger::machine_cost`] counts it.
    fn node_cost(&self, node: &Node) -> u64 {
        let registration = &node.registration;
        let gpus = registration.devices.len() as u64;
        self.machine_cost(&node.pool, &registration.capacity, gpus, node.price_permille())
    }

    pub(crate) fn put_scaling_policy(&mut self, policy: Arc<ScalingPolicy>) {
        self.touched.row(RowPlace::ScalingPolicy(policy.name.clone()));
        self.scaling_policies.insert(policy.name.clone(), policy);
    }

    /// The policy with its state and its intents.
    pub(crate) fn remove_scaling_policy(&mut self, name: &str) {
        self.touched.row(RowPlace::ScalingPolicy(name.to_owned()));
        self.scaling_policies.remove(name);
        if self.scalings.remove(name).is_some() {
            self.touched.row(RowPlace::Scaling(name.to_owned()));
        }
        let ids: Vec<Revision> = self.intents_of(name).map(|intent| intent.id).collect();
        ids.into_iter().for_each(|id| self.remove_intent(id));
    }

    pub(crate) fn put_scaling(&mut self, scaling: Arc<Scaling>) {
        self.touched.row(RowPlace::Scaling(scaling.policy.clone()));
        self.scalings.insert(scaling.policy.clone(), scaling);
    }

    pub(crate) fn put_intent(&mut self, intent: Arc<Intent>) {
        self.note_replicas_of(&intent.policy);
        self.touched.row(RowPlace::Intent(intent.id));
        self.intents.insert(intent.id, intent);
    }

    pub(crate) fn remove_intent(&mut self, id: Revision) {
        self.touched.row(RowPlace::Intent(id));
        if let Some(gone) = self.intents.remove(&id) {
            self.note_replicas_of(&gone.policy);
        }
    }

    /// Whether replicas of a service drain follows from its intents.
    fn note_replicas_of(&mut self, policy: &str) {
        let target = self.scaling_policies.get(policy).map(|policy| &policy.target);
        if target.is_none_or(|target| matches!(target, ScalingTarget::Service(_))) {
            self.note_endpoints();
        }
    }
}
