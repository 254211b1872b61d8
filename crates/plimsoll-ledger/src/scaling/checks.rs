//! I20, recomputed from scratch.

use super::{IntentAction, IntentState};
use crate::{Ledger, NodeAdmin, Violation};

impl Ledger {
    /// I20: what is wanted is within bounds, a machine leaves once at most, and nothing is held on one that is being removed.
    pub(crate) fn check_scaling(&self, found: &mut Vec<Violation>) {
        let mut violation = |detail: String| found.push(Violation { invariant: "I20", detail });
        for policy in self.scaling_policies() {
            let (least, most) = (policy.least(), policy.rules.max);
            match self.scaling(&policy.name) {
                Some(state) if (least..=most).contains(&state.desired) => {}
                Some(state) => violation(format!(
                    "scaling policy {}: {} wanted, {least} to {most} allowed",
                    policy.name, state.desired
                )),
                None => violation(format!("scaling policy {} has no state", policy.name)),
            }
        }
        if self.scalings.keys().any(|name| !self.scaling_policies.contains_key(name)) {
            violation("a scaling state has no policy".to_owned());
        }
        for intent in self.intents() {
            let Some(policy) = self.scaling_policy(&intent.policy) else {
                violation(format!("intent {} is of policy {}, which is gone", intent.id, intent.policy));
                continue;
            };
            match intent.action {
                IntentAction::Start { leaving: Some(by) } => {
                    let goes = self.intent(by).is_some_and(|other| {
                        other.is_open() && other.action == (IntentAction::Remove { machine: intent.id })
                    });
                    if !goes {
                        violation(format!("machine {} leaves by {by}, which does not remove it", intent.id));
                    }
                }
                IntentAction::Start { leaving: None } => {}
                IntentAction::Remove { machine } => {
                    let known = self.intent(machine).map(|machine| machine.action);
                    if intent.is_open() && known != Some(IntentAction::Start { leaving: Some(intent.id) }) {
                        violation(format!(
                            "intent {} removes machine {machine}, which is {known:?}",
                            intent.id
                        ));
                    }
                    let Some(node) = self.node_of(policy, intent) else { continue };
                    let open = intent.is_open() && node.admin == NodeAdmin::Schedulable;
                    let held = intent.state == IntentState::Acting && self.holders(node.id).next().is_some();
                    if open || held {
                        violation(format!(
                            "node {} is being removed by intent {} and is {:?} with {} holders",
                            node.name(),
                            intent.id,
                            node.admin,
                            self.holders(node.id).count()
                        ));
                    }
                }
            }
        }
    }
}
