//! Linearizable reads by ReadIndex: one round of the leader serves all that wait for it. No lease is ever trusted.

use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use plimsoll_mutants::mutant;

use super::Group;
use crate::error::ReadError;
use crate::types::NodeInfo;

impl Group {
    /// The raft index that a linearizable read must have applied. A follower asks the leader.
    ///
    /// # Errors
    /// No leader, or none with a quorum.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        if self.is_leader() {
            return self.own_read_index().await;
        }
        let Some((leader, address)) = self.leader() else {
            return Err(ReadError::NoLeader("no leader is known".to_owned()));
        };
        if leader == self.node_id() {
            return self.own_read_index().await;
        }
        let info = NodeInfo { address, incarnation: String::new() };
        let patience = Duration::from_millis(self.inner.config.election_ms.1);
        self.inner.network.link(leader, &info).read_index(patience).await
    }

    /// Waits until this member has applied a raft index.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ReadError> {
        let mut applied = self.inner.applied.clone();
        applied.wait_for(|have| *have >= index).await.map(drop).map_err(|_| ReadError::Stopped)
    }

    /// After this, reads of this member's state show everything acknowledged before the call.
    ///
    /// # Errors
    /// As `read_index`.
    pub async fn linearize(&self) -> Result<u64, ReadError> {
        let index = self.read_index().await?;
        self.wait_applied(index).await?;
        Ok(index)
    }

    pub(crate) async fn own_read_index(&self) -> Result<u64, ReadError> {
        if mutant!("local-read") {
            return Ok(*self.inner.applied.borrow());
        }
        let patience = Duration::from_millis(self.inner.config.election_ms.1);
        let read = self.scoped(self.raft().get_read_linearizer(ReadPolicy::ReadIndex));
        match tokio::time::timeout(patience, read).await {
            Err(_) => Err(ReadError::NoLeader("no quorum answered in time".to_owned())),
            Ok(Ok(linearizer)) => Ok(linearizer.read_log_id().index()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_)))) => {
                Err(ReadError::NoLeader("this node does not lead".to_owned()))
            }
            Ok(Err(RaftError::APIError(error))) => Err(ReadError::NoLeader(error.to_string())),
            Ok(Err(RaftError::Fatal(_))) => Err(ReadError::Stopped),
        }
    }
}
