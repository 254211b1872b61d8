//! Limits of what a listener takes.

use std::time::Duration;

pub(super) use plimsoll_proto::limits::MAX_REQUEST_BYTES as MOST_REQUEST;
use tonic::transport::Server;

use super::edge::PortKind;

/// Largest message of an agent, which may speak for many nodes, in bytes.
pub(super) const MOST_AGENT_MESSAGE: usize = 4 << 20;
/// Open connections of a listener.
pub(super) const MOST_CONNECTIONS: usize = 10_000;
/// Longest silence at the beginning of a connection: who says nothing for so long gives the place back.
pub(super) const FIRST_BYTES: Duration = Duration::from_secs(10);
/// Age at which a client's connection is asked to end. Calls on it go on; the client makes another one for the next.
/// Clients spread over all coordinators again that way, and certificates are checked again.
const MOST_AGE: Duration = Duration::from_secs(30 * 60);
/// Largest list of headers, in bytes.
const MOST_HEADERS: u32 = 16 << 10;
/// Streams of one connection at a port for clients.
const CLIENT_STREAMS: u32 = 100;
/// Streams of one connection at a port that coordinators use: they pass on calls of many clients over one connection.
const PEER_STREAMS: u32 = 16_384;
/// Streams that a client may reset while they wait to be accepted.
const MOST_RESETS: usize = 20;
/// Pause between pings on a connection, and longest wait for their answer.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes in flight before the other side has to wait.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A server with all limits set.
pub(super) fn server(port: PortKind) -> Server {
    let server = Server::builder()
        .max_concurrent_streams(if port.peers { PEER_STREAMS } else { CLIENT_STREAMS })
        .http2_max_pending_accept_reset_streams(Some(MOST_RESETS))
        .http2_max_header_list_size(MOST_HEADERS)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .tcp_nodelay(true);
    // Coordinators keep their connections: the messages of the group would only be held up.
    if port.peers { server } else { server.max_connection_age(MOST_AGE) }
}
