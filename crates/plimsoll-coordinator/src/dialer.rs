//! Connections to other coordinators: lazy, kept alive, with TLS where there are certificates.

use std::time::Duration;

use plimsoll_consensus::Dialer;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// Longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between pings on a connection.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for the answer to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Dials other coordinators by TCP.
#[derive(Clone, Debug, Default)]
pub struct TcpDialer {
    tls: Option<ClientTlsConfig>,
}

impl TcpDialer {
    /// Without TLS for `None`.
    pub fn new(tls: Option<ClientTlsConfig>) -> TcpDialer {
        TcpDialer { tls }
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, tonic::transport::Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.clone()),
            None => Ok(endpoint),
        }
    }
}

impl Dialer for TcpDialer {
    fn channel(&self, address: &str) -> Channel {
        match self.endpoint(address) {
            Ok(endpoint) => endpoint.connect_lazy(),
            Err(error) => {
                tracing::error!(address, %error, "an address that cannot be dialled");
                // A channel that only ever fails: the caller treats it as an unreachable peer.
                Endpoint::from_static("http://[::]:0").connect_timeout(CONNECT_TIMEOUT).connect_lazy()
            }
        }
    }
}
