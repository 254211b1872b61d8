//! openraft's network over our own service: one channel a peer, every message with a deadline of ours.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::acknowledged::Acknowledged;
use crate::error::ReadError;
use crate::group::GroupConfig;
use crate::internal as wire_types;
use crate::internal::raft_service_client::RaftServiceClient;
use crate::snapshot::SnapshotData;
use crate::types::{NodeInfo, Snapshot, TypeConfig, Vote};
use crate::wire;

/// Makes channels to peers: with TLS, plain, or inside a simulation. Connections are made when first used.
pub trait Dialer: Send + Sync + 'static {
    /// A lazily connected channel to a peer's address.
    fn channel(&self, address: &str) -> Channel;
}

type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type BoxStream<'a, T> = std::pin::Pin<Box<dyn Stream<Item = T> + Send + 'a>>;

/// Largest message on the peer port, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// A follower that has not answered an append for so long is taken for gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked at whether an answer is due.
const ANSWER_CHECK: Duration = Duration::from_millis(250);
/// How long news of what is committed waits for entries to travel with. Under load the next ones are due sooner than that, and
/// one message in place of two is a third less work for a quiet group; followers apply that much later at most.
const COMMIT_LINGER: Duration = Duration::from_millis(1);
/// Channels kept at most.
const MOST_CHANNELS: usize = 64;
/// A snapshot takes as long as it takes, within reason.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(300);

/// Makes one connection for each target.
#[derive(Clone)]
pub(crate) struct Network {
    /// As it goes into every message; whom it is for is filled in.
    own: wire_types::Peer,
    dialer: Arc<dyn Dialer>,
    /// One a peer, shared by all its links.
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
    acknowledged: Arc<Acknowledged>,
}

/// The way to one peer.
pub(crate) struct PeerLink {
    peer: wire_types::Peer,
    client: RaftServiceClient<Channel>,
    acknowledged: Arc<Acknowledged>,
}

impl Network {
    pub(crate) fn new(config: &GroupConfig, dialer: Arc<dyn Dialer>) -> Network {
        let own = wire_types::Peer {
            cluster_id: config.cluster_id.clone(),
            from: config.node_id,
            from_incarnation: config.incarnation.clone(),
            ..wire_types::Peer::default()
        };
        Network { own, dialer, channels: Arc::default(), acknowledged: Arc::default() }
    }

    fn channel(&self, address: &str) -> Channel {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return channel.clone();
        }
        if channels.len() >= MOST_CHANNELS {
            // Addresses of members long gone. Links in use keep theirs.
            channels.clear();
        }
        let channel = self.dialer.channel(address);
        channels.insert(address.to_owned(), channel.clone());
        channel
    }

    pub(crate) fn link(&self, target: u64, info: &NodeInfo) -> PeerLink {
        let client = RaftServiceClient::new(self.channel(&info.address))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let peer =
            wire_types::Peer { to: target, to_incarnation: info.incarnation.clone(), ..self.own.clone() };
        PeerLink { peer, client, acknowledged: Arc::clone(&self.acknowledged) }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerLink;

    async fn new_client(&mut self, target: u64, info: &NodeInfo) -> PeerLink {
        self.link(target, info)
    }
}

impl PeerLink {
    /// Asks the leader for a read index.
    pub(crate) async fn read_index(&mut self, patience: Duration) -> Result<u64, ReadError> {
        let request = wire_types::ReadIndexRequest { peer: Some(self.peer.clone()) };
        match tokio::time::timeout(patience, self.client.read_index(request)).await {
            Err(_) => Err(ReadError::NoLeader("the leader did not answer in time".to_owned())),
            Ok(Err(status)) => Err(ReadError::NoLeader(status.message().to_owned())),
            Ok(Ok(response)) => match response.into_inner() {
                wire_types::ReadIndexResponse { index, members } if members.is_empty() => Ok(index),
                wire_types::ReadIndexResponse { members, .. } => Err(ReadError::NoMember(members)),
            },
        }
    }
}

impl PeerLink {
    /// Who answers at the address: cluster and node.
    pub(crate) async fn identify(&mut self, patience: Duration) -> Result<(String, u64), String> {
        match tokio::time::timeout(patience, self.client.identify(wire_types::IdentifyRequest {})).await {
            Err(_) => Err("it does not answer".to_owned()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Ok(Ok(response)) => {
                let response = response.into_inner();
                Ok((response.cluster_id, response.node_id))
            }
        }
    }
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn damaged(error: &wire::WireError) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

async fn in_time<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, RPCError<TypeConfig>> {
    match tokio::time::timeout(limit, call).await {
        Err(elapsed) => Err(unreachable(&elapsed)),
        Ok(Err(status)) => Err(unreachable(&status)),
        Ok(Ok(response)) => Ok(response.into_inner()),
    }
}

impl NetBackoff<TypeConfig> for PeerLink {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(100))))
    }
}

impl NetStreamAppend<TypeConfig> for PeerLink {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            // openraft sleeps its back-off inside this stream: take from it before dialing, or a refused dial never waits.
            let Some(first) = input.next().await else {
                let none: BoxStream<'s, _> = Box::pin(stream::empty());
                return Ok(none);
            };
            let outstanding = Arc::new(AtomicUsize::new(1));
            let sent = Arc::clone(&outstanding);
            let term = first.vote.leader_id().term;
            let mut head = wire::append(&first, Some(self.peer.clone()));
            head.acknowledged = self.acknowledged.latest(self.peer.to, &self.peer.to_incarnation, term);
            let (peer, acknowledged) = (&self.peer, &self.acknowledged);
            let rest = with_entries(input).map(move |request| {
                sent.fetch_add(1, Ordering::Relaxed);
                wire::append(&request, None)
            });
            let requests = stream::once(async move { head }).chain(rest);
            let limit = option.hard_ttl().max(ANSWER_TIMEOUT);
            let answers = in_time(limit, self.client.stream_append(requests)).await?;
            let results = stream::unfold(Some((answers, outstanding)), move |state| async move {
                let (mut answers, outstanding) = state?;
                // An idle stream is well; one that owes an answer for too long is not. The debt may be younger than the
                // last answer, so it counts from when it was first seen.
                let mut owed_since: Option<Instant> = None;
                loop {
                    match tokio::time::timeout(ANSWER_CHECK, answers.message()).await {
                        Err(_) if outstanding.load(Ordering::Relaxed) == 0 => owed_since = None,
                        Err(elapsed) => {
                            if owed_since.get_or_insert_with(Instant::now).elapsed() >= ANSWER_TIMEOUT {
                                return Some((Err(unreachable(&elapsed)), None));
                            }
                        }
                        Ok(Err(status)) => return Some((Err(unreachable(&status)), None)),
                        Ok(Ok(None)) => return None,
                        Ok(Ok(Some(answer))) => {
                            outstanding.fetch_sub(1, Ordering::Relaxed);
                            let result = wire::append_result_back(answer).map_err(|error| damaged(&error));
                            if let Ok(Ok(Some(flushed))) = &result {
                                acknowledged.note(peer.to, &peer.to_incarnation, term, flushed.index);
                            }
                            return Some((result, Some((answers, outstanding))));
                        }
                    }
                }
            });
            let results: BoxStream<'s, _> = Box::pin(results);
            Ok(results)
        })
    }
}

/// Appends in order. One without entries, which tells only how far the group has committed, is left out where another follows
/// soon: that one tells the same or more, and its answer stands for both, since openraft takes an answer for all up to its index.
fn with_entries<S>(input: S) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    stream::unfold(input.fuse(), |mut input| async move {
        let mut request = input.next().await?;
        while request.entries.is_empty()
            && let Ok(Some(next)) = tokio::time::timeout(COMMIT_LINGER, input.next()).await
        {
            request = next;
        }
        Some((request, input))
    })
}

impl NetVote<TypeConfig> for PeerLink {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = wire::vote_request(&rpc, self.peer.clone());
        let response = in_time(option.hard_ttl(), self.client.vote(request)).await?;
        wire::vote_response_back(response).map_err(|error| damaged(&error))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request =
            wire_types::PreVoteRequest { request: Some(wire::vote_request(&rpc, self.peer.clone())) };
        let response = in_time(option.hard_ttl(), self.client.pre_vote(request)).await?;
        let response = response.response.ok_or_else(|| damaged(&wire::WireError("pre-vote response")))?;
        wire::vote_response_back(response).map_err(|error| damaged(&error))
    }
}

impl NetSnapshot<TypeConfig> for PeerLink {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let body = snapshot_parts(&self.peer, &vote, &snapshot)
            .map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
        let mut client = self.client.clone();
        let mut call = tokio::spawn(async move { client.install_snapshot(body).await });
        let answer = tokio::select! {
            biased;
            closed = cancel => {
                call.abort();
                return Err(StreamingError::Closed(closed));
            }
            answer = tokio::time::timeout(SNAPSHOT_TIMEOUT, &mut call) => answer,
        };
        let response = match answer {
            Err(elapsed) => {
                call.abort();
                return Err(StreamingError::Unreachable(Unreachable::new(&elapsed)));
            }
            Ok(Err(stopped)) => return Err(StreamingError::Unreachable(Unreachable::new(&stopped))),
            Ok(Ok(Err(status))) => return Err(StreamingError::Unreachable(Unreachable::new(&status))),
            Ok(Ok(Ok(response))) => response.into_inner(),
        };
        let vote = wire::vote_back(response.vote)
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        Ok(SnapshotResponse::new(vote))
    }
}

/// A snapshot as the messages of one call: head, chunks, hash.
fn snapshot_parts(
    peer: &wire_types::Peer,
    vote: &Vote,
    snapshot: &Snapshot,
) -> std::io::Result<ReceiverStream<wire_types::InstallSnapshotRequest>> {
    use wire_types::install_snapshot_request::Part;
    let message = |part| wire_types::InstallSnapshotRequest { part: Some(part) };
    let head = message(Part::Head(wire_types::SnapshotHead {
        peer: Some(peer.clone()),
        vote: Some(wire::vote(vote)),
        meta: Some(wire::snapshot_meta(&snapshot.meta, &peer.cluster_id)),
        bytes: snapshot.snapshot.bytes()?,
    }));
    let mut chunks = snapshot.snapshot.chunks()?;
    let mut hasher = Some(blake3::Hasher::new());
    let body = std::iter::from_fn(move || match chunks.next() {
        Some(Ok(chunk)) => {
            hasher.as_mut()?.update(&chunk);
            Some(message(Part::Chunk(chunk)))
        }
        // The stream then ends without its hash, and the receiver refuses all of it.
        Some(Err(error)) => {
            tracing::error!(%error, "cannot read the snapshot that is being sent");
            hasher = None;
            None
        }
        None => {
            let hash = hasher.take()?.finalize();
            Some(message(Part::Blake3(bytes::Bytes::copy_from_slice(hash.as_bytes()))))
        }
    });
    // A few chunks ahead of the wire, no more: a snapshot need not fit in memory.
    let (parts, stream) = mpsc::channel(4);
    tokio::spawn(async move {
        for part in std::iter::once(head).chain(body) {
            if parts.send(part).await.is_err() {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(stream))
}

impl NetTransferLeader<TypeConfig> for PeerLink {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = wire_types::TransferLeaderRequest {
            peer: Some(self.peer.clone()),
            from_leader: Some(wire::vote(req.from_leader())),
            to_node: *req.to_node_id(),
            last_log_id: req.last_log_id().map(wire::log_id),
        };
        let response = in_time(option.hard_ttl(), self.client.transfer_leader(request)).await?;
        if response.accepted {
            return Ok(Ok(()));
        }
        let refused = std::io::Error::other(response.detail);
        Err(unreachable(&refused))
    }
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry as _;

    use super::*;
    use crate::types::{Entry, LeaderId, LogId};

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, node_id: 1 }, index)
    }

    /// An append that tells of a commit, with so many entries.
    fn append(commit: u64, entries: u64) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(id(commit)),
            entries: (1..=entries).map(|offset| Entry::new_blank(id(commit + offset))).collect(),
            leader_commit: Some(id(commit)),
        }
    }

    /// What is sent, by commit and number of entries, where each comes so many milliseconds after the one before.
    async fn sent(input: Vec<(u64, AppendEntriesRequest<TypeConfig>)>) -> Vec<(u64, usize)> {
        let input = stream::iter(input).then(|(after_ms, request)| async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            request
        });
        let all: Vec<_> = with_entries(Box::pin(input)).collect().await;
        let shown = |request: &AppendEntriesRequest<TypeConfig>| {
            (request.leader_commit.map_or(0, |id| id.index), request.entries.len())
        };
        all.iter().map(shown).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn news_of_a_commit_travels_with_entries_that_follow_soon_and_alone_otherwise() {
        assert_eq!(sent(vec![(0, append(1, 0)), (0, append(2, 0)), (0, append(2, 3))]).await, [(2, 3)]);
        assert_eq!(sent(vec![(0, append(1, 0)), (50, append(1, 2))]).await, [(1, 0), (1, 2)]);
        assert_eq!(
            sent(vec![(0, append(1, 1)), (0, append(2, 0))]).await,
            [(1, 1), (2, 0)],
            "the last is sent too"
        );
        assert_eq!(sent(vec![(0, append(1, 1)), (0, append(2, 1))]).await, [(1, 1), (2, 1)]);
    }
}
