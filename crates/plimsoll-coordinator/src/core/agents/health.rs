//! Who is silent, and what to propose about it.

use std::time::Duration;

use plimsoll_ledger::{Command, Entry, Ledger, Node, NodeHealth};
use plimsoll_types::{LedgerTime, NodeId};
use tokio::time::Instant;

use super::{AgentHub, HubState};

/// From this many nodes on, silence of all of them is taken for a fault of ours.
const OUR_FAULT_FROM: usize = 3;

impl AgentHub {
    /// Changes of health to propose now, at most `most`. Each node is left alone until [`AgentHub::judged`].
    pub(in crate::core) fn due(&self, ledger: &Ledger, now_ms: u64, most: usize) -> Vec<(NodeId, Entry)> {
        let period = Duration::from_millis(self.shared.suspect_after_ms);
        let mut state = self.shared.state.lock();
        let Some(since) = state.leading_since else { return Vec::new() };
        let now = Instant::now();
        if now.duration_since(since) < period {
            return Vec::new();
        }
        let heard = |state: &HubState, id: NodeId| {
            state.heard.get(&id).is_some_and(|heard| now.duration_since(*heard) < period)
        };
        let nodes = ledger.nodes().take(OUR_FAULT_FROM).count();
        let our_fault = nodes >= OUR_FAULT_FROM && !ledger.nodes().any(|node| heard(&state, node.id));
        let time = LedgerTime(now_ms).max(ledger.clock());
        let mut due = Vec::new();
        for node in ledger.nodes() {
            if due.len() >= most {
                break;
            }
            if state.judging.contains(&node.id) {
                continue;
            }
            let health = match node.health {
                NodeHealth::Available if !heard(&state, node.id) => NodeHealth::Suspect,
                NodeHealth::Suspect if heard(&state, node.id) => NodeHealth::Available,
                NodeHealth::Suspect if !our_fault && is_safe(ledger, node, time) => NodeHealth::Lost,
                _ => continue,
            };
            state.judging.insert(node.id);
            let command = Command::SetNodeHealth { node: node.id, epoch: node.epoch, health };
            due.push((node.id, Entry::system(command)));
        }
        due
    }

    /// The proposal about a node is settled, one way or another.
    pub(in crate::core) fn judged(&self, node: NodeId) {
        self.shared.state.lock().judging.remove(&node);
    }
}

/// True where all leases on the node are past their safe end, and it has been suspect for a while.
fn is_safe(ledger: &Ledger, node: &Node, time: LedgerTime) -> bool {
    ledger.safe_end(node.id).is_some_and(|end| time >= end && time > node.health_since)
}
