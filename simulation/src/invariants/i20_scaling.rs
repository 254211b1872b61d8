//! I20: what is decided about nodes is within its policy's bounds and of a state that was there, no node goes that holds something, and no machine
//! is left behind.

use std::collections::BTreeSet;

use plimsoll_ledger::{Command, Intent, IntentAction, IntentState, IntentStep};
use plimsoll_types::{NodeId, Revision};

use super::{Findings, Invariant};
use crate::oracle::{Case, Picture, Step};

/// See the module.
#[derive(Default)]
pub(super) struct ScalingHolds;

impl Invariant for ScalingHolds {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        if !step.has_effect() {
            return;
        }
        let mut wrong = |what: String| findings.add("I20", step.revision, what);
        match &step.entry.command {
            Command::SetDesired(decided) => {
                let most = step.before.scaling_policies.get(&decided.policy).map(|policy| policy.rules.max);
                if most.is_none_or(|most| decided.desired > most) {
                    wrong(format!("{} wants {} of {most:?} at most", decided.policy, decided.desired));
                }
                if decided.computed_from >= step.revision {
                    wrong(format!("{} decided by a revision to come", decided.policy));
                }
            }
            Command::MoveNode { node, .. } => {
                if let Some(holder) = holder(&step.before, *node) {
                    wrong(format!("node {node:?} moves under {holder}"));
                }
            }
            Command::StepIntent { intent, step: IntentStep::Ready, .. } => {
                let intent = step.before.intents.get(intent);
                let leaves = intent.filter(|intent| matches!(intent.action, IntentAction::Remove { .. }));
                let node = leaves.and_then(|intent| node_named(&step.before, &intent.node));
                if let Some(holder) = node.and_then(|node| holder(&step.before, node)) {
                    wrong(format!("a machine is gone under {holder}"));
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        let removed: BTreeSet<Revision> = case.last.intents.values().filter_map(|one| removed(one)).collect();
        for number in &case.evidence.machines {
            let id = Revision(*number);
            let wanted = case.last.intents.get(&id).is_some_and(|intent| {
                // What a provider would not stop when it was asked often enough is said there, for people to look at.
                let is_given_up =
                    intent.state == IntentState::Failed && !intent.detail.contains("may still run");
                !is_given_up && !removed.contains(&id)
            });
            if !wanted {
                findings.add("I20", id, "its machine runs, and nobody knows of it any more".to_owned());
            }
        }
    }
}

/// The machine that this intent removed.
fn removed(intent: &Intent) -> Option<Revision> {
    match intent.action {
        IntentAction::Remove { machine } if intent.state == IntentState::Ready => Some(machine),
        _ => None,
    }
}

fn node_named(picture: &Picture, name: &str) -> Option<NodeId> {
    picture.nodes.values().find(|node| node.name() == name).map(|node| node.id)
}

/// Somebody who has something on a node.
fn holder(picture: &Picture, node: NodeId) -> Option<String> {
    let holds = |one: &&std::sync::Arc<plimsoll_ledger::Reservation>| {
        one.members.iter().any(|member| member.node == node)
    };
    picture.occupying().find(holds).map(|one| one.id.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plimsoll_ledger::ScaleDecided;
    use plimsoll_types::LedgerTime;

    use super::*;
    use crate::invariants::fixture::{Good, found, node, reservation, step};

    fn intent(id: u64, action: IntentAction, state: IntentState) -> Intent {
        Intent {
            id: Revision(id),
            policy: "sim".to_owned(),
            template: String::new(),
            action,
            node: "n".to_owned(),
            state,
            attempts: 1,
            handle: String::new(),
            detail: String::new(),
            not_before: LedgerTime(0),
            deadline: LedgerTime(0),
            opened_at: LedgerTime(0),
            changed: Revision(id),
        }
    }

    #[test]
    fn a_decision_beyond_the_bounds_or_of_the_future_is_found() {
        let mut over = step(&[node(0)], &[]);
        let (policy, desired, computed_from) = ("sim".to_owned(), 9, Revision(10));
        over.entry.command =
            Command::SetDesired(ScaleDecided { policy, desired, computed_from, ..ScaleDecided::default() });
        assert_eq!(found(&mut ScalingHolds, &over), ["I20", "I20"], "there is no such policy");
    }

    #[test]
    fn a_node_that_moves_or_is_removed_under_somebody_is_found() {
        let mut moved = step(&[node(0)], &[reservation(1)]);
        moved.before = Arc::clone(&moved.after);
        let (from, to) = ("default".to_owned(), "side".to_owned());
        moved.entry.command = Command::MoveNode { node: NodeId(0), from, to };
        assert_eq!(found(&mut ScalingHolds, &moved), ["I20"]);
        let remove = intent(5, IntentAction::Remove { machine: Revision(4) }, IntentState::Acting);
        moved.before_mut().intents.insert(Revision(5), Arc::new(remove));
        moved.entry.command =
            Command::StepIntent { intent: Revision(5), attempts: 1, step: IntentStep::Ready };
        assert_eq!(found(&mut ScalingHolds, &moved), ["I20"]);
        moved.before_mut().reservations.clear();
        moved.before_mut().occupying = None;
        assert_eq!(found(&mut ScalingHolds, &moved), Vec::<&str>::new());
    }

    #[test]
    fn a_machine_that_nobody_knows_of_is_found() {
        let mut good = Good::new();
        good.evidence.machines = vec![4];
        assert_eq!(good.judge(), ["I20"]);
    }
}
