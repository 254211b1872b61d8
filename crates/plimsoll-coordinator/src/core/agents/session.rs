//! One agent's session: what it may do and what it is told.

use std::collections::VecDeque;
use std::sync::Arc;

use plimsoll_ledger::{Node, Refusal, Registration, Reservation};
use plimsoll_types::{NodeEpoch, NodeId, ReservationId};
use tokio::sync::Notify;

use super::{AgentHub, MOST_NOTICES};
use crate::core::SubmitError;

/// What an agent is told.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentNotice {
    /// The node holds this grant: sent once for each after registration, then as grants come and change. The node's
    /// members are those of `reservation.members` with this node.
    Lease(NodeId, Arc<Reservation>),
    /// The node no longer holds it; the reservation as it is now.
    LeaseEnded(NodeId, ReservationId, Option<Arc<Reservation>>),
    /// Stored facts of the node changed: health, the operator's word, epoch.
    Node(Arc<Node>),
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionClosed {
    /// Leadership went elsewhere: connect again.
    #[error("this coordinator no longer leads")]
    NotLeader,
    /// The agent reads too slowly: connect and register again.
    #[error("the agent fell behind")]
    TooSlow,
    /// The coordinator stops.
    #[error("the coordinator is stopping")]
    Stopped,
}

/// A heartbeat that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeartbeatError {
    /// The node is not registered in this session, or by now has another incarnation.
    #[error("the node has another incarnation, or is not registered in this session")]
    Fenced,
    /// The node was declared lost or fenced: register with a new incarnation.
    #[error("the node was declared lost, register again")]
    Lost,
}

/// One agent's session. Its calls may be made from several tasks at once.
pub struct AgentSession {
    hub: AgentHub,
    id: u64,
    actor: String,
    wake: Arc<Notify>,
}

/// What the hub keeps of a session.
pub(super) struct SessionState {
    pub(super) queue: VecDeque<AgentNotice>,
    pub(super) closed: Option<SessionClosed>,
    pub(super) wake: Arc<Notify>,
}

impl AgentSession {
    pub(super) fn new(hub: AgentHub, id: u64, actor: String, wake: Arc<Notify>) -> AgentSession {
        AgentSession { hub, id, actor, wake }
    }

    /// Registers a node: proposes it where something changed, then queues a `Lease` notice for every grant on it.
    /// The outer result is about the proposal, the inner one is the ledger's word.
    ///
    /// # Errors
    /// As for `Core::submit`.
    pub async fn register(
        &self,
        registration: Registration,
    ) -> Result<Result<Arc<Node>, Refusal>, SubmitError> {
        self.hub.register(self.id, &self.actor, registration).await
    }

    /// The node is alive.
    ///
    /// # Errors
    /// Where the node has to register again.
    pub fn heartbeat(&self, node: NodeId, epoch: NodeEpoch) -> Result<(), HeartbeatError> {
        self.hub.heartbeat(self.id, node, epoch)
    }

    /// The node measured this. Taken only where its heartbeat was.
    pub fn sampled(&self, node: NodeId, sample: plimsoll_proto::v1::NodeSample) {
        self.hub.keep_sample(self.id, node, sample);
    }

    /// Notices since the last call, at least one and at most `limit`, waiting for one if need be. Safe to cancel.
    ///
    /// # Errors
    /// Where the session ended.
    pub async fn next(&self, limit: usize) -> Result<Vec<AgentNotice>, SessionClosed> {
        loop {
            {
                let mut state = self.hub.shared.state.lock();
                let Some(session) = state.sessions.get_mut(&self.id) else {
                    return Err(SessionClosed::Stopped);
                };
                if let Some(why) = session.closed {
                    return Err(why);
                }
                if !session.queue.is_empty() {
                    let count = session.queue.len().min(limit.max(1));
                    return Ok(session.queue.drain(..count).collect());
                }
            }
            self.wake.notified().await;
        }
    }
}

impl Drop for AgentSession {
    fn drop(&mut self) {
        self.hub.close(self.id);
    }
}

impl SessionState {
    pub(super) fn push(&mut self, notice: AgentNotice) {
        if self.queue.len() >= MOST_NOTICES {
            self.close(SessionClosed::TooSlow);
        } else if self.closed.is_none() {
            self.queue.push_back(notice);
            self.wake.notify_one();
        }
    }

    pub(super) fn close(&mut self, why: SessionClosed) {
        self.closed.get_or_insert(why);
        self.queue.clear();
        self.wake.notify_one();
    }
}
