//! Limits of what a listener takes.

use std::time::Duration;

pub(super) use plimsoll_proto::limits::MAX_REQUEST_BYTES as MOST_REQUEST;
use tonic::transport::Server;

/// Largest message of an agent, which may speak for many nodes, in bytes.
pub(super) const MOST_AGENT_MESSAGE: usize = 4 << 20;
/// Longest time to the end of a connection's beginning: who is silent or slow for so long gives the place back. Who makes no
/// call for so long is asked to end.
pub(crate) const FIRST_BYTES: Duration = Duration::from_secs(10);
/// Largest list of headers, in bytes.
const MOST_HEADERS: u32 = 16 << 10;
/// A client takes something of an answer at least so often, or its connection is cut off: of a call's, and of a stream's.
pub(super) const CALL_UNREAD: Duration = Duration::from_secs(30);
pub(super) const STREAM_UNREAD: Duration = Duration::from_secs(300);
/// Streams of one connection of a client.
const CLIENT_STREAMS: u32 = 100;
/// Streams of one connection that may be a coordinator's: they pass on calls of many clients over one connection.
const PEER_STREAMS: u32 = 16_384;
/// Streams that a client may reset while they wait to be accepted.
const MOST_RESETS: usize = 20;
/// Pause between pings on a connection, and longest wait for their answer.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes in flight before the other side has to wait.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Limits of each listener that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Most open connections; more wait in the system's queue.
    pub connections: usize,
    /// Most connections of one source address that have not shown a certificate yet; 0 for no limit. Listeners without
    /// TLS, which are loopback ones, do not count them: nobody ever shows one there.
    pub connections_per_source: usize,
    /// A connection without calls for so long is asked to end; 0 for never, in milliseconds.
    pub connection_idle_ms: u64,
    /// Age at which a client's connection is asked to end, give or take a tenth; 0 for never, in milliseconds. Clients
    /// spread over all coordinators again that way, and certificates are checked again.
    pub connection_age_ms: u64,
    /// Shortest time between pings of a client, in milliseconds.
    pub client_ping_ms: u64,
}

impl Default for ListenerLimits {
    fn default() -> ListenerLimits {
        ListenerLimits {
            connections: 10_000,
            connections_per_source: 100,
            connection_idle_ms: 5 * 60_000,
            connection_age_ms: 30 * 60_000,
            client_ping_ms: 5_000,
        }
    }
}

/// A server with all limits set, for a connection of a client, or one that may be a coordinator's.
pub(super) fn server(peer: bool) -> Server {
    Server::builder()
        .max_concurrent_streams(if peer { PEER_STREAMS } else { CLIENT_STREAMS })
        .http2_max_pending_accept_reset_streams(Some(MOST_RESETS))
        .http2_max_header_list_size(MOST_HEADERS)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}
