//! Proposals: enqueued in call order, answered when applied.

use std::future::Future;

use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use tokio::sync::{mpsc, oneshot};

use super::{Group, RaftHandle};
use crate::error::ProposeError;
use crate::types::{Payload, Reply, TypeConfig};

impl Group {
    /// Proposes a payload and waits until it is applied here.
    ///
    /// # Errors
    /// See [`ProposeError`]; only `Unknown` may still be applied.
    pub async fn propose(&self, payload: Payload) -> Result<Reply, ProposeError> {
        self.propose_pipelined(payload).await
    }

    /// Enqueues a payload now and resolves when it is applied. The order of calls is the order in the log. The caller
    /// bounds how many are under way.
    pub fn propose_pipelined(
        &self,
        payload: Payload,
    ) -> impl Future<Output = Result<Reply, ProposeError>> + Send + 'static {
        let (answer, wait) = oneshot::channel();
        let refused = if self.is_leader() {
            self.inner.proposals.send((payload, answer)).err().map(|_| ProposeError::Stopped)
        } else {
            // Never back to this member: it has just lost its lead, or does not have it yet.
            let leader = self.leader().filter(|(id, _)| *id != self.node_id());
            Some(ProposeError::NotLeader { leader })
        };
        async move {
            match refused {
                Some(error) => Err(error),
                None => wait.await.unwrap_or(Err(ProposeError::Unknown)),
            }
        }
    }
}

pub(super) type Proposal = (Payload, oneshot::Sender<Result<Reply, ProposeError>>);

/// Hands proposals to raft one after the other, without waiting for their replies.
pub(super) async fn propose_in_order(raft: RaftHandle, mut queue: mpsc::UnboundedReceiver<Proposal>) {
    while let Some((payload, answer)) = queue.recv().await {
        let (responder, reply) = ProgressResponder::complete_only();
        if raft.client_write_ff(payload, Some(responder)).await.is_err() {
            drop(answer.send(Err(ProposeError::Stopped)));
            continue;
        }
        tokio::spawn(async move {
            let reply: Result<ClientWriteResult<TypeConfig>, _> = reply.await;
            let result = match reply {
                Ok(Ok(response)) => Ok(response.data),
                // Refused before it was in any log.
                Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                    let leader = forward.leader_id.zip(forward.leader_node.map(|node| node.address));
                    Err(ProposeError::NotLeader { leader })
                }
                // It was in our log, which gave way to another leader's: that one may have it too.
                Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
            };
            drop(answer.send(result));
        });
    }
}
