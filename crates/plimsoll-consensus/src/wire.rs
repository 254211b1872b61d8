//! openraft's types to our own protobuf and back. Nothing of openraft's own encoding is ever stored or sent.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};
use openraft::vote::RaftVote as _;
use plimsoll_mutants::mutant;
use prost::Message as _;

use crate::internal as wire;
use crate::types::{
    Entry, EntryPayload, LeaderId, LogId, Membership, NodeInfo, Payload, SnapshotMeta, StoredMembership,
    TypeConfig, Vote,
};

/// Bytes that are no message of ours, or lack a part.
#[derive(Debug, thiserror::Error)]
#[error("{0} is missing or damaged")]
pub(crate) struct WireError(pub(crate) &'static str);

pub(crate) fn log_id(id: &LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
}

pub(crate) fn log_id_back(id: wire::LogId) -> LogId {
    LogId::new(LeaderId { term: id.term, node_id: id.node_id }, id.index)
}

pub(crate) fn vote(vote: &Vote) -> wire::BallotVote {
    let leader = vote.leader_id();
    wire::BallotVote { term: leader.term, node_id: leader.node_id, committed: vote.is_committed() }
}

pub(crate) fn vote_back(vote: Option<wire::BallotVote>) -> Result<Vote, WireError> {
    let vote = vote.ok_or(WireError("vote"))?;
    let leader = LeaderId { term: vote.term, node_id: vote.node_id };
    Ok(Vote::from_leader_id(leader, vote.committed))
}

pub(crate) fn membership(membership: &Membership) -> wire::Membership {
    let configs = membership.get_joint_config().iter();
    let configs = configs.map(|set| wire::VoterSet { node_ids: set.iter().copied().collect() }).collect();
    let nodes = membership.nodes().map(|(id, info)| wire::MemberInfo {
        node_id: *id,
        address: info.address.clone(),
        incarnation: info.incarnation.clone(),
    });
    wire::Membership { configs, nodes: nodes.collect() }
}

pub(crate) fn membership_back(message: wire::Membership) -> Result<Membership, WireError> {
    let configs: Vec<BTreeSet<u64>> =
        message.configs.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
    let one = || vec![configs.iter().flatten().copied().collect()];
    let configs = if mutant!("joint-as-one") && configs.len() > 1 { one() } else { configs };
    let nodes: BTreeMap<u64, NodeInfo> = message
        .nodes
        .into_iter()
        .map(|node| (node.node_id, NodeInfo { address: node.address, incarnation: node.incarnation }))
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| WireError("membership"))
}

pub(crate) fn stored_membership(stored: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id),
        membership: Some(membership(stored.membership())),
    }
}

pub(crate) fn stored_membership_back(stored: wire::StoredMembership) -> Result<StoredMembership, WireError> {
    let members = membership_back(stored.membership.ok_or(WireError("membership"))?)?;
    Ok(StoredMembership::new(stored.log_id.map(log_id_back), members))
}

pub(crate) fn snapshot_meta(meta: &SnapshotMeta, cluster_id: &str) -> wire::SnapshotMeta {
    wire::SnapshotMeta {
        cluster_id: cluster_id.to_owned(),
        last_log_id: meta.last_log_id.as_ref().map(log_id),
        membership: Some(stored_membership(&meta.last_membership)),
    }
}

pub(crate) fn snapshot_meta_back(meta: wire::SnapshotMeta) -> Result<SnapshotMeta, WireError> {
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.map(log_id_back),
        last_membership: stored_membership_back(meta.membership.ok_or(WireError("snapshot membership"))?)?,
    })
}

pub(crate) fn entry(entry: &Entry) -> wire::RaftEntry {
    use wire::raft_entry::Body;
    let body = match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(payload) => Some(Body::Payload(payload.bytes.clone())),
        EntryPayload::Membership(members) => Some(Body::Membership(membership(members))),
    };
    wire::RaftEntry { log_id: Some(log_id(&entry.log_id)), body }
}

pub(crate) fn entry_back(message: wire::RaftEntry) -> Result<Entry, WireError> {
    use wire::raft_entry::Body;
    let payload = match message.body {
        None => EntryPayload::Blank,
        Some(Body::Payload(bytes)) => EntryPayload::Normal(Payload { bytes, decoded: None }),
        Some(Body::Membership(members)) => EntryPayload::Membership(membership_back(members)?),
    };
    let log_id = log_id_back(message.log_id.ok_or(WireError("log id"))?);
    Ok(Entry { log_id, payload })
}

pub(crate) fn encode_entry(value: &Entry) -> Bytes {
    entry(value).encode_to_vec().into()
}

pub(crate) fn decode_entry(bytes: Bytes) -> Result<Entry, WireError> {
    entry_back(wire::RaftEntry::decode(bytes).map_err(|_| WireError("log entry"))?)
}

pub(crate) fn encode_vote(value: &Vote) -> Bytes {
    vote(value).encode_to_vec().into()
}

pub(crate) fn decode_vote(bytes: Bytes) -> Result<Vote, WireError> {
    vote_back(Some(wire::BallotVote::decode(bytes).map_err(|_| WireError("stored vote"))?))
}

pub(crate) fn encode_log_id(value: &LogId) -> Bytes {
    log_id(value).encode_to_vec().into()
}

pub(crate) fn decode_log_id(bytes: Bytes) -> Result<LogId, WireError> {
    Ok(log_id_back(wire::LogId::decode(bytes).map_err(|_| WireError("stored log id"))?))
}

pub(crate) fn vote_request(request: &VoteRequest<TypeConfig>, peer: wire::Peer) -> wire::VoteRequest {
    wire::VoteRequest {
        peer: Some(peer),
        vote: Some(vote(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_back(message: wire::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    let mut request = VoteRequest::new(vote_back(message.vote)?, message.last_log_id.map(log_id_back));
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

pub(crate) fn vote_response(response: &VoteResponse<TypeConfig>) -> wire::VoteResponse {
    wire::VoteResponse {
        vote: Some(vote(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id),
    }
}

pub(crate) fn vote_response_back(message: wire::VoteResponse) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse {
        vote: vote_back(message.vote)?,
        vote_granted: message.granted,
        last_log_id: message.last_log_id.map(log_id_back),
    })
}

pub(crate) fn append(
    request: &AppendEntriesRequest<TypeConfig>,
    peer: Option<wire::Peer>,
) -> wire::StreamAppendRequest {
    wire::StreamAppendRequest {
        peer,
        vote: Some(vote(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id),
        entries: request.entries.iter().map(entry).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id),
        acknowledged: 0,
    }
}

pub(crate) fn append_back(
    message: wire::StreamAppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    Ok(AppendEntriesRequest {
        vote: vote_back(message.vote)?,
        prev_log_id: message.prev_log_id.map(log_id_back),
        entries: message.entries.into_iter().map(entry_back).collect::<Result<_, _>>()?,
        leader_commit: message.leader_commit.map(log_id_back),
    })
}

pub(crate) fn append_result(result: &StreamAppendResult<TypeConfig>) -> wire::StreamAppendResponse {
    use wire::stream_append_response::Result as Wire;
    let result = match result {
        Ok(flushed) => Wire::Flushed(wire::Flushed { log_id: flushed.as_ref().map(log_id) }),
        Err(StreamAppendError::Conflict(id)) => Wire::Conflict(log_id(id)),
        Err(StreamAppendError::HigherVote(higher)) => Wire::HigherVote(vote(higher)),
    };
    wire::StreamAppendResponse { result: Some(result) }
}

pub(crate) fn append_result_back(
    message: wire::StreamAppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    use wire::stream_append_response::Result as Wire;
    Ok(match message.result.ok_or(WireError("append result"))? {
        Wire::Flushed(flushed) => Ok(flushed.log_id.map(log_id_back)),
        Wire::Conflict(id) => Err(StreamAppendError::Conflict(log_id_back(id))),
        Wire::HigherVote(higher) => Err(StreamAppendError::HigherVote(vote_back(Some(higher))?)),
    })
}
