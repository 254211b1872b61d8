//! What nodes measure, in the leader's memory: of each node the newest sample, with the moment at which it came.
//!
//! A sample comes with a heartbeat, and only from the session that speaks for the node. A new leader knows nothing until agents have found it,
//! which is within a heartbeat or two.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_proto::v1;
use plimsoll_scheduler::Closed;
use plimsoll_types::{NodeEpoch, NodeId};
use tokio::time::Instant;

use super::AgentHub;

/// A sample as it was received.
pub(super) struct Kept {
    sample: v1::NodeSample,
    /// The incarnation that measured it.
    epoch: NodeEpoch,
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

/// The newest sample of a node, for the leader's own decisions.
#[derive(Clone, Debug)]
pub(in crate::core) struct Latest {
    /// When it was taken, as far as its agent says.
    pub(in crate::core) taken: Instant,
    /// The incarnation that measured it.
    pub(in crate::core) epoch: NodeEpoch,
    /// The readings of the node itself, without those of its devices.
    pub(in crate::core) sample: v1::NodeSample,
    /// Too old to say how the node is now.
    pub(in crate::core) stale: bool,
}

impl AgentHub {
    /// The newest sample of a node, with the moment at which it was taken.
    pub(in crate::core) fn latest(&self, node: NodeId) -> Option<Latest> {
        let state = self.shared.state.lock();
        let Kept { sample, epoch, received } = state.samples.get(&node)?;
        let taken = received.checked_sub(Duration::from_millis(sample.age_ms)).unwrap_or(*received);
        let stale = taken.elapsed() >= Duration::from_millis(self.shared.suspect_after_ms);
        let sample = v1::NodeSample { devices: Vec::new(), ..*sample };
        Some(Latest { taken, epoch: *epoch, sample, stale })
    }

    /// What the leader makes of samples: where no best effort of which classes is put for now.
    pub(in crate::core) fn close_to(&self, closed: Closed) {
        let mut state = self.shared.state.lock();
        // Of who stopped leading meanwhile nothing is kept.
        if state.leading_since.is_some() && (!closed.is_empty() || !state.closed.is_empty()) {
            state.closed = Arc::new(closed);
        }
    }

    /// Where no best effort of which classes is put for now; nothing on replicas that do not lead: they hear no samples.
    pub(in crate::core) fn closed(&self) -> Arc<Closed> {
        Arc::clone(&self.shared.state.lock().closed)
    }

    /// Keeps a sample of a node whose heartbeat was seen. Readings of devices that the node does not have are left out: what is kept is bounded by
    /// what is registered.
    pub(super) fn keep_sample(&self, session: u64, node: NodeId, mut sample: v1::NodeSample) {
        let (known, epoch): (Vec<String>, NodeEpoch) = {
            let ledger = self.shared.ledger.read();
            let Some(node) = ledger.node(node) else { return };
            (node.registration.devices.iter().map(|device| device.uuid.clone()).collect(), node.epoch)
        };
        sample.devices.retain(|device| known.contains(&device.uuid));
        sample.devices.dedup_by(|later, earlier| later.uuid == earlier.uuid);
        sample.devices.truncate(known.len());
        let mut state = self.shared.state.lock();
        if state.nodes.get(&node).is_some_and(|attached| attached.session == session) {
            state.samples.insert(node, Kept { sample, epoch, received: Instant::now() });
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
