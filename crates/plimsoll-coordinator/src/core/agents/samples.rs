//! What nodes measure, in the leader's memory: of each node the newest sample, with the moment at which it came.
//!
//! A sample comes with a heartbeat, and only from the session that speaks for the node. A new leader knows nothing until agents have found it,
//! which is within a heartbeat or two.

use plimsoll_proto::v1;
use plimsoll_types::NodeId;
use tokio::time::Instant;

use super::AgentHub;

/// A sample as it was received.
pub(super) struct Kept {
    sample: v1::NodeSample,
    received: Instant,
}

/// What a node measured last.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The readings, with their age now.
    pub sample: v1::NodeSample,
    /// Too old to say how the node is now.
    pub stale: bool,
}

impl AgentHub {
    /// Keeps a sample of a node whose heartbeat was seen. Readings of devices that the node does not have are left out: what is kept is bounded by
    /// what is registered.
    pub(super) fn keep_sample(&self, session: u64, node: NodeId, mut sample: v1::NodeSample) {
        let known: Vec<String> = {
            let ledger = self.shared.ledger.read();
            let Some(node) = ledger.node(node) else { return };
            node.registration.devices.iter().map(|device| device.uuid.clone()).collect()
        };
        sample.devices.retain(|device| known.contains(&device.uuid));
        sample.devices.dedup_by(|later, earlier| later.uuid == earlier.uuid);
        sample.devices.truncate(known.len());
        let mut state = self.shared.state.lock();
        if state.nodes.get(&node).is_some_and(|attached| attached.session == session) {
            state.samples.insert(node, Kept { sample, received: Instant::now() });
        }
    }

    /// What a node measured last, where this leader has heard of it.
    pub fn sample(&self, node: NodeId) -> Option<Sampled> {
        let state = self.shared.state.lock();
        let kept = state.samples.get(&node)?;
        let since_ms = u64::try_from(kept.received.elapsed().as_millis()).unwrap_or(u64::MAX);
        let age_ms = kept.sample.age_ms.saturating_add(since_ms);
        let sample = v1::NodeSample { age_ms, ..kept.sample.clone() };
        Some(Sampled { sample, stale: age_ms >= self.shared.suspect_after_ms })
    }
}
