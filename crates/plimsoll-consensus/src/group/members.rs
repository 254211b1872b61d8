//! Changes of members: one at a time, each finished by whoever leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};

use super::{Group, Inner};
use crate::error::Error;
use crate::status::GroupStatus;
use crate::types::{NodeInfo, TypeConfig};

/// A new member must answer within this.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// A new member must catch up within this, snapshot included.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(120);
/// An interrupted change must be finished within this, or is tried again.
const FINISH_PATIENCE: Duration = Duration::from_secs(30);
/// A learner that lacks no more entries than this is as good as caught up.
const NEAR: u64 = 64;

impl Group {
    /// Makes this member the only voter of a new group.
    ///
    /// # Errors
    /// `AlreadyInitialized` where the group has members.
    pub async fn initialize(&self) -> Result<(), Error> {
        let own = BTreeMap::from([(self.node_id(), self.own_info())]);
        match self.scoped(self.raft().initialize(own)).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Err(Error::AlreadyInitialized),
            Err(error) => Err(Error::Raft(error.to_string())),
        }
    }

    /// Adds a member that follows the log without a vote, and waits until it has caught up.
    ///
    /// # Errors
    /// Not the leader, another change in progress, or the member cannot be reached.
    pub async fn add_learner(&self, id: u64, info: NodeInfo) -> Result<(), Error> {
        let _one = self.inner.changing.try_lock().map_err(|_| Error::ChangeInProgress)?;
        self.learn(id, info).await
    }

    /// Adds a voter: learner first, voter once it has caught up.
    ///
    /// # Errors
    /// As `add_learner`.
    pub async fn add_voter(&self, id: u64, info: NodeInfo) -> Result<(), Error> {
        let _one = self.inner.changing.try_lock().map_err(|_| Error::ChangeInProgress)?;
        self.learn(id, info).await?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Removes a member.
    ///
    /// # Errors
    /// Not the leader, no such member, or another change in progress.
    pub async fn remove(&self, id: u64) -> Result<(), Error> {
        let _one = self.inner.changing.try_lock().map_err(|_| Error::ChangeInProgress)?;
        let status = self.metrics();
        if status.voters.contains(&id) {
            self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await
        } else if status.learners.contains(&id) {
            self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await
        } else {
            Err(Error::NoSuchMember(id))
        }
    }

    /// Puts one member in another's place, in one change of voters.
    ///
    /// # Errors
    /// As `add_voter` and `remove`.
    pub async fn replace(&self, old: u64, new: u64, info: NodeInfo) -> Result<(), Error> {
        let _one = self.inner.changing.try_lock().map_err(|_| Error::ChangeInProgress)?;
        let mut voters: BTreeSet<u64> = self.metrics().voters.into_iter().collect();
        if !voters.remove(&old) {
            return Err(Error::NoSuchMember(old));
        }
        self.learn(new, info).await?;
        voters.insert(new);
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    /// Hands leadership to a member, or to the voter that lags least.
    ///
    /// # Errors
    /// Not the leader, or nobody to hand over to.
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<(), Error> {
        if !self.is_leader() {
            return Err(Error::NotLeader { leader: self.leader() });
        }
        let status = self.metrics();
        let others = status.voters.iter().filter(|id| **id != self.node_id());
        let best = || others.min_by_key(|id| status.lag.get(id).copied().unwrap_or(u64::MAX)).copied();
        let Some(target) = to.or_else(best) else { return Err(Error::NoSuchMember(0)) };
        if !status.voters.contains(&target) {
            return Err(Error::NoSuchMember(target));
        }
        let trigger = async { self.raft().trigger().transfer_leader(target).await };
        self.scoped(trigger).await.map_err(|error| Error::Raft(error.to_string()))
    }

    /// Makes a node a learner that has caught up. A node that does not answer, or belongs elsewhere, changes nothing;
    /// one that does not catch up stays a learner, which needs no quorum.
    async fn learn(&self, id: u64, info: NodeInfo) -> Result<(), Error> {
        if !self.is_leader() {
            return Err(Error::NotLeader { leader: self.leader() });
        }
        if self.metrics().voters.contains(&id) {
            return Ok(());
        }
        let unusable = |detail: String| Error::Unusable { id, address: info.address.clone(), detail };
        let (cluster, node) =
            self.inner.network.link(id, &info).identify(ANSWER_PATIENCE).await.map_err(unusable)?;
        if (cluster.as_str(), node) != (self.cluster_id(), id) {
            return Err(unusable(format!("node {node} of cluster {cluster:?} answers there")));
        }
        let added = self.scoped(self.raft().add_learner(id, info.clone(), false)).await;
        added.map(drop).map_err(|error| self.change_error(error))?;
        // One that has nothing at all lacks more entries than the last index.
        let caught_up = |status: &GroupStatus| {
            status.lag.get(&id).is_some_and(|lag| *lag <= NEAR && *lag <= status.last_log)
        };
        let mut status = self.watch();
        match tokio::time::timeout(CATCH_UP_PATIENCE, status.wait_for(caught_up)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Raft("the group has stopped".to_owned())),
            Err(_) => Err(unusable(format!("it did not catch up within {CATCH_UP_PATIENCE:?}"))),
        }
    }

    async fn change(&self, change: ChangeMembers<u64, NodeInfo>) -> Result<(), Error> {
        let changed = self.scoped(self.raft().change_membership(change, false)).await;
        changed.map(drop).map_err(|error| self.change_error(error))
    }

    fn change_error(&self, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Error {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
                Error::NotLeader { leader: self.leader() }
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_),
            )) => Error::ChangeInProgress,
            error => Error::Raft(error.to_string()),
        }
    }
}

/// Finishes a change of voters that its leader, or its caller, did not live to finish: a group must not stay with two sets
/// of voters.
pub(super) async fn finish_changes(group: Weak<Inner>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(inner) = group.upgrade() else { return };
        let group = Group { inner };
        if !group.is_leader() || !group.metrics().joint {
            continue;
        }
        let Ok(_one) = group.inner.changing.try_lock() else { continue };
        tracing::warn!(voters = ?group.metrics().voters, "finishing an interrupted change of voters");
        // No change to the newer set: from two sets that leads to the newer one.
        let finish = group.change(ChangeMembers::AddVoterIds(BTreeSet::new()));
        match tokio::time::timeout(FINISH_PATIENCE, finish).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the interrupted change is not finished yet"),
            Err(_) => tracing::warn!("the interrupted change is not finished yet"),
        }
    }
}
