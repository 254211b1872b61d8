//! How a member is, in our own words.

use std::collections::BTreeMap;

use openraft::ServerState;
use openraft::metrics::RaftMetrics;

use crate::types::{NodeInfo, TypeConfig};

/// What a member is to its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows without a vote.
    #[default]
    Learner,
    /// Follows.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Has stopped.
    Stopped,
}

/// One member's view of itself and its group. Indexes are raft's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// This member.
    pub node_id: u64,
    /// Its term.
    pub term: u64,
    /// What it is.
    pub role: Role,
    /// Id and peer address of the leader, where one is known.
    pub leader: Option<(u64, String)>,
    /// Latest entry known to be committed.
    pub committed: u64,
    /// Latest entry applied.
    pub applied: u64,
    /// Latest entry in the log.
    pub last_log: u64,
    /// Entry that the latest snapshot covers.
    pub snapshot: u64,
    /// Latest entry that the log let go of.
    pub purged: u64,
    /// Voters, of both sets during a change.
    pub voters: Vec<u64>,
    /// Members without a vote.
    pub learners: Vec<u64>,
    /// Every member's address.
    pub members: BTreeMap<u64, NodeInfo>,
    /// A change of voters is under way.
    pub joint: bool,
    /// Leader only: entries that each other member lacks; one that has none lacks more than `last_log`.
    pub lag: BTreeMap<u64, u64>,
}

/// Elected, and answered by a quorum since: before that openraft refuses proposals.
pub(crate) fn leads(metrics: &RaftMetrics<TypeConfig>) -> bool {
    metrics.state == ServerState::Leader && metrics.last_quorum_acked.is_some()
}

impl GroupStatus {
    pub(crate) fn of(metrics: &RaftMetrics<TypeConfig>) -> GroupStatus {
        let membership = metrics.membership_config.membership();
        let members: BTreeMap<u64, NodeInfo> =
            membership.nodes().map(|(id, info)| (*id, info.clone())).collect();
        let index = |id: &Option<crate::types::LogId>| id.map_or(0, |id| id.index);
        let last_log = metrics.last_log_index.unwrap_or(0);
        let lag =
            metrics.replication.iter().flatten().map(|(id, matched)| {
                (*id, matched.map_or(last_log + 1, |id| last_log.saturating_sub(id.index)))
            });
        let mut voters: Vec<u64> = membership.voter_ids().collect();
        voters.sort_unstable();
        voters.dedup();
        GroupStatus {
            node_id: metrics.id,
            term: metrics.current_term,
            role: match metrics.state {
                ServerState::Learner => Role::Learner,
                ServerState::Follower => Role::Follower,
                ServerState::Candidate => Role::Candidate,
                ServerState::Leader if leads(metrics) => Role::Leader,
                // A quorum elected it, and has not answered its first entry yet.
                ServerState::Leader => Role::Candidate,
                ServerState::Shutdown => Role::Stopped,
            },
            leader: metrics
                .current_leader
                // Nobody shall be sent to this member before it takes proposals.
                .filter(|id| *id != metrics.id || leads(metrics))
                // A member that is not in the group, or not yet, does not know where its leader is.
                .and_then(|id| members.get(&id).map(|info| (id, info.address.clone()))),
            committed: index(&metrics.local_committed),
            applied: index(&metrics.last_applied),
            last_log,
            snapshot: index(&metrics.snapshot),
            purged: index(&metrics.purged),
            learners: membership.learner_ids().collect(),
            joint: membership.get_joint_config().len() > 1,
            voters,
            members,
            lag: lag.collect(),
        }
    }
}
