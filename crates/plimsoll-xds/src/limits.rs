//! What one server takes, so that no client can use up its memory. A refusal says the number and the bound.

use std::time::Duration;

use tonic::Status;

use crate::resources::Kind;

/// Bounds of the servers of discovery and load reports, for each of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open streams.
    pub streams: usize,
    /// Of these, from one source address (of IPv6: one /64).
    pub streams_per_peer: usize,
    /// Names in one subscription; clusters in one load report.
    pub names: usize,
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Bytes of an answer with all clusters or listeners of a subscription.
    pub answer_bytes: usize,
    /// Bytes of an answer with endpoints or routes; more come in the next one. One resource always goes whole.
    pub part_bytes: usize,
    /// Time to a stream's first request.
    pub first_request_within: Duration,
}

impl Default for Limits {
    /// gRPC clients take answers of 4 MiB unless told otherwise.
    fn default() -> Limits {
        Limits {
            streams: 10_000,
            streams_per_peer: 100,
            names: 10_000,
            request_bytes: 1 << 20,
            answer_bytes: 4 << 20,
            part_bytes: 1 << 20,
            first_request_within: Duration::from_secs(10),
        }
    }
}

impl Limits {
    pub(crate) fn names(&self, names: usize) -> Result<(), Bound> {
        if names > self.names { Err(Bound::Names { names, bound: self.names }) } else { Ok(()) }
    }

    pub(crate) fn answer(&self, kind: Kind, bytes: usize) -> Result<(), Bound> {
        let bound = self.answer_bytes;
        if bytes > bound { Err(Bound::Answer { kind, bytes, bound }) } else { Ok(()) }
    }
}

/// A bound that was met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bound {
    #[error("{streams} streams are open, and {bound} is the bound; ask another coordinator")]
    Streams { streams: usize, bound: usize },
    #[error("{streams} streams of your address are open, and {bound} is the bound; share one channel")]
    PeerStreams { streams: usize, bound: usize },
    #[error("{names} names in one request, and {bound} is the bound")]
    Names { names: usize, bound: usize },
    #[error(
        "the answer with all resources of kind {kind:?} has {bytes} bytes, and {bound} is the bound; ask for them by name"
    )]
    Answer { kind: Kind, bytes: usize, bound: usize },
    #[error("no request within {seconds} s")]
    Silence { seconds: u64 },
}

impl From<Bound> for Status {
    fn from(bound: Bound) -> Status {
        match bound {
            Bound::Names { .. } => Status::invalid_argument(bound.to_string()),
            Bound::Silence { .. } => Status::deadline_exceeded(bound.to_string()),
            Bound::Streams { .. } | Bound::PeerStreams { .. } | Bound::Answer { .. } => {
                Status::resource_exhausted(bound.to_string())
            }
        }
    }
}
