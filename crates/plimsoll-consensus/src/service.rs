//! The peer port: raft messages from other members of the same group, and nobody else's.

use futures_util::{Stream, StreamExt as _};
use openraft::raft::TransferLeaderRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::group::Group;
use crate::internal as wire_types;
use crate::internal::raft_service_server::RaftService;
use crate::snapshot::NoRoom;
use crate::types::Snapshot;
use crate::wire;

/// After so many bytes of a snapshot whose length is not known, the room that is left is looked at: a multiple of a chunk.
const LOOK_BYTES: u64 = 16 << 20;

/// Serves one member's peer port.
#[derive(Clone)]
pub struct PeerService {
    pub(crate) group: Group,
    /// Members call ten times a second: one line in the log is enough.
    pub(crate) told: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

type AnswerStream =
    std::pin::Pin<Box<dyn Stream<Item = Result<wire_types::StreamAppendResponse, Status>> + Send>>;

impl PeerService {
    /// Refuses what is meant for another group or member.
    fn admit(&self, peer: Option<wire_types::Peer>) -> Result<(), Status> {
        let peer = peer.ok_or_else(|| Status::invalid_argument("message does not say who sent it"))?;
        let (cluster_id, node_id) = (self.group.cluster_id(), self.group.node_id());
        if peer.cluster_id != cluster_id {
            return Err(Status::permission_denied(format!(
                "this is cluster {cluster_id:?}, not {:?}",
                peer.cluster_id
            )));
        }
        if peer.to != node_id {
            return Err(Status::permission_denied(format!("this is node {node_id}, not {}", peer.to)));
        }
        // A node that lost its disk comes back as another incarnation: it must neither vote nor be counted for the one
        // that the members know, until they have removed that one and added this one. Empty: not told.
        let differ = |one: &str, other: &str| !one.is_empty() && !other.is_empty() && one != other;
        if differ(&peer.to_incarnation, self.group.incarnation()) {
            let advice = format!(
                "this is another incarnation of node {node_id} than the one that the cluster knows: its data are gone, so \
                 it may not vote; start it with an empty data directory and a new node id, and run `plimsoll cluster \
                 replace {node_id} ADDRESS`"
            );
            if !self.told.swap(true, std::sync::atomic::Ordering::Relaxed) {
                tracing::error!("{advice}");
            }
            return Err(Status::permission_denied(advice));
        }
        let known = self.group.known_incarnation(peer.from);
        if differ(&peer.from_incarnation, &known) {
            return Err(Status::permission_denied(format!(
                "node {} is known in another incarnation",
                peer.from
            )));
        }
        Ok(())
    }
}

impl PeerService {
    /// Refuses to go on where this member lacks what it has acknowledged to the leader that calls.
    fn check_acknowledged(&self, index: u64) -> Result<(), Status> {
        let stored = self.group.last_stored();
        if index <= stored {
            return Ok(());
        }
        let lost = format!(
            "this member has acknowledged entries up to {index} to the leader, and its log ends at {stored}: its data are an \
             old copy, and what it promised is lost"
        );
        self.group.has_lost(&lost);
        Err(Status::data_loss(lost))
    }
}

fn invalid(error: wire::WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn no_room(error: NoRoom) -> Status {
    Status::resource_exhausted(error.to_string())
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl RaftService for PeerService {
    type StreamAppendStream = AnswerStream;

    async fn vote(
        &self,
        request: Request<wire_types::VoteRequest>,
    ) -> Result<Response<wire_types::VoteResponse>, Status> {
        let mut message = request.into_inner();
        self.admit(message.peer.take())?;
        let request = wire::vote_request_back(message).map_err(invalid)?;
        let response = self.group.scoped(self.group.raft().vote(request)).await.map_err(failed)?;
        Ok(Response::new(wire::vote_response(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<wire_types::PreVoteRequest>,
    ) -> Result<Response<wire_types::PreVoteResponse>, Status> {
        let mut message =
            request.into_inner().request.ok_or_else(|| Status::invalid_argument("empty pre-vote"))?;
        self.admit(message.peer.take())?;
        let request = wire::vote_request_back(message).map_err(invalid)?;
        let response = self.group.scoped(self.group.raft().pre_vote(request)).await.map_err(failed)?;
        Ok(Response::new(wire_types::PreVoteResponse { response: Some(wire::vote_response(&response)) }))
    }

    async fn stream_append(
        &self,
        request: Request<Streaming<wire_types::StreamAppendRequest>>,
    ) -> Result<Response<AnswerStream>, Status> {
        let mut incoming = request.into_inner();
        let mut first = incoming.message().await?.ok_or_else(|| Status::invalid_argument("empty stream"))?;
        self.admit(first.peer.take())?;
        self.check_acknowledged(first.acknowledged)?;
        let first = wire::append_back(first).map_err(invalid)?;
        let (answers, outgoing) = mpsc::channel(64);
        let group = self.group.clone();
        let rest = futures_util::stream::unfold(incoming, |mut incoming| async move {
            match incoming.message().await {
                Ok(Some(message)) => Some((wire::append_back(message).ok()?, incoming)),
                Ok(None) | Err(_) => None,
            }
        });
        let requests = futures_util::stream::once(async move { first }).chain(rest);
        tokio::spawn(self.group.scoped_owned(async move {
            let raft = group.raft().clone();
            let mut results = std::pin::pin!(raft.stream_append(requests));
            while let Some(result) = results.next().await {
                let answer = match result {
                    Ok(result) => Ok(wire::append_result(&result)),
                    Err(fatal) => Err(failed(fatal)),
                };
                if answers.send(answer).await.is_err() {
                    break;
                }
            }
        }));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire_types::InstallSnapshotRequest>>,
    ) -> Result<Response<wire_types::InstallSnapshotResponse>, Status> {
        use wire_types::install_snapshot_request::Part;
        let mut incoming = request.into_inner();
        let Some(Part::Head(head)) = incoming.message().await?.and_then(|message| message.part) else {
            return Err(Status::invalid_argument("a snapshot begins with its head"));
        };
        self.admit(head.peer)?;
        let vote = wire::vote_back(head.vote).map_err(invalid)?;
        let meta = head.meta.ok_or_else(|| Status::invalid_argument("snapshot without meta"))?;
        let meta = wire::snapshot_meta_back(meta).map_err(invalid)?;
        let (room, dir) = (self.group.room(), self.group.snapshots());
        room.takes_in(dir, head.bytes, 2).map_err(no_room)?;
        let mut received_bytes = 0;
        let mut receiver = self.group.snapshots().receiver().map_err(failed)?;
        let mut hasher = blake3::Hasher::new();
        loop {
            match incoming.message().await?.and_then(|message| message.part) {
                Some(Part::Chunk(chunk)) => {
                    // An older build does not say how much it sends.
                    received_bytes += chunk.len() as u64;
                    if head.bytes == 0 && received_bytes.is_multiple_of(LOOK_BYTES) {
                        room.takes_in(dir, received_bytes, 1).map_err(no_room)?;
                    }
                    hasher.update(&chunk);
                    receiver.push(&chunk).map_err(failed)?;
                }
                Some(Part::Blake3(hash)) if hash[..] == hasher.finalize().as_bytes()[..] => break,
                Some(Part::Blake3(_)) => return Err(Status::data_loss("the snapshot's hash does not match")),
                Some(Part::Head(_)) | None => return Err(Status::data_loss("the snapshot ended early")),
            }
        }
        let data = receiver.finish().map_err(failed)?;
        room.takes_in(dir, received_bytes, 1).map_err(no_room)?;
        let own =
            data.verify(self.group.cluster_id()).map_err(|error| Status::data_loss(error.to_string()))?;
        if own != meta {
            return Err(Status::data_loss("the snapshot is not the one that was announced"));
        }
        let snapshot = Snapshot { meta, snapshot: data };
        let install = self.group.raft().install_full_snapshot(vote, snapshot);
        let response = self.group.scoped(install).await.map_err(failed)?;
        Ok(Response::new(wire_types::InstallSnapshotResponse { vote: Some(wire::vote(&response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire_types::TransferLeaderRequest>,
    ) -> Result<Response<wire_types::TransferLeaderResponse>, Status> {
        let message = request.into_inner();
        self.admit(message.peer)?;
        let from = wire::vote_back(message.from_leader).map_err(invalid)?;
        let request =
            TransferLeaderRequest::new(from, message.to_node, message.last_log_id.map(wire::log_id_back));
        let handled =
            self.group.scoped(self.group.raft().handle_transfer_leader(request)).await.map_err(failed)?;
        let (accepted, detail) = match handled {
            Ok(()) => (true, String::new()),
            Err(refused) => (false, format!("{refused:?}")),
        };
        Ok(Response::new(wire_types::TransferLeaderResponse { accepted, detail }))
    }

    async fn read_index(
        &self,
        request: Request<wire_types::ReadIndexRequest>,
    ) -> Result<Response<wire_types::ReadIndexResponse>, Status> {
        let peer = request.into_inner().peer;
        let from = peer.as_ref().map_or(0, |peer| peer.from);
        self.admit(peer)?;
        let index = self.group.own_read_index().await.map_err(failed)?;
        // One that was taken out hears of no further change, this one included, unless it is told here.
        let mut all = self.group.metrics().members;
        let members = if all.contains_key(&from) {
            Vec::new()
        } else {
            let own = all.remove(&self.group.node_id());
            own.into_iter().chain(all.into_values()).map(|info| info.address).collect()
        };
        Ok(Response::new(wire_types::ReadIndexResponse { index, members }))
    }

    async fn identify(
        &self,
        _request: Request<wire_types::IdentifyRequest>,
    ) -> Result<Response<wire_types::IdentifyResponse>, Status> {
        let response = wire_types::IdentifyResponse {
            cluster_id: self.group.cluster_id().to_owned(),
            node_id: self.group.node_id(),
        };
        Ok(Response::new(response))
    }
}
