//! Connections to coordinators: by TCP with or without TLS, or by any connector that a simulation brings.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tower::{Service, ServiceExt as _};

use crate::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes channels to coordinators.
pub trait Dialer: Send + Sync + 'static {
    /// A channel to `HOST:PORT` that connects at first use.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the address or the certificates cannot be used.
    fn channel(&self, address: &str) -> Result<Channel, Error>;
}

/// DNS name that every coordinator's certificate carries, wherever it runs, and no other certificate of its authority.
pub const COORDINATOR_NAME: &str = "coordinator.plimsoll";

/// PEM texts for TLS.
#[derive(Clone, Default)]
pub struct Tls {
    /// Authorities that the coordinators' certificates come from.
    pub ca_pem: Option<Vec<u8>>,
    /// This client's certificate chain and private key, where the coordinators ask for one.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// Name that the coordinators' certificates must carry; [`COORDINATOR_NAME`] for `None`.
    pub server_name: Option<String>,
}

impl Tls {
    fn config(&self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new();
        if let Some(ca) = &self.ca_pem {
            config = config.ca_certificate(Certificate::from_pem(ca));
        }
        if let Some((certificate, key)) = &self.identity_pem {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        config.domain_name(self.server_name.as_deref().unwrap_or(COORDINATOR_NAME))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys stay out of logs.
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Dials by TCP.
#[derive(Clone, Debug, Default)]
pub struct TcpDialer {
    tls: Option<Tls>,
}

impl TcpDialer {
    /// Without TLS for `None`.
    pub fn new(tls: Option<Tls>) -> TcpDialer {
        TcpDialer { tls }
    }
}

impl Dialer for TcpDialer {
    fn channel(&self, address: &str) -> Result<Channel, Error> {
        let mut endpoint = endpoint(address, self.tls.is_some())?;
        if let Some(tls) = &self.tls {
            let bad = |error: tonic::transport::Error| {
                Error::Invalid(format!("the certificates cannot be used: {}", chain(&error)))
            };
            endpoint = endpoint.tls_config(tls.config()).map_err(bad)?;
        }
        Ok(endpoint.connect_lazy())
    }
}

/// Dials with a connector of the caller's, such as a simulated network.
#[derive(Clone, Debug)]
pub struct ConnectorDialer<C> {
    connector: C,
}

impl<C> ConnectorDialer<C> {
    /// Dials with `connector`, which is cloned for each connection.
    pub fn new(connector: C) -> ConnectorDialer<C> {
        ConnectorDialer { connector }
    }
}

impl<C> Dialer for ConnectorDialer<C>
where
    C: Service<http::Uri> + Clone + Send + Sync + 'static,
    C::Response: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C::Future: Send,
    C::Error: Into<BoxError>,
{
    fn channel(&self, address: &str) -> Result<Channel, Error> {
        let connector = self.connector.clone();
        let connect = tower::service_fn(move |uri: http::Uri| {
            let connector = connector.clone();
            async move { connector.oneshot(uri).await.map(TokioIo::new).map_err(Into::<BoxError>::into) }
        });
        Ok(endpoint(address, false)?.connect_with_connector_lazy(connect))
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn endpoint(address: &str, tls: bool) -> Result<Endpoint, Error> {
    let bare = address.trim_start_matches("http://").trim_start_matches("https://");
    let scheme = if tls { "https" } else { "http" };
    let bad =
        |_| Error::Invalid(format!("{address:?} is not an address: write HOST:PORT, as in 127.0.0.1:7420"));
    let usable =
        bare.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !usable {
        return Err(bad(()));
    }
    Ok(Endpoint::from_shared(format!("{scheme}://{bare}"))
        .map_err(|_| bad(()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20))
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let part = inner.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_checked() {
        let dialer = TcpDialer::default();
        for good in ["127.0.0.1:7420", "[::1]:7420", "lab.example:7420", "http://localhost:1"] {
            assert!(dialer.channel(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost", ":7420", "a b:1", "host:99999"] {
            assert!(dialer.channel(bad).is_err(), "{bad}");
        }
    }
}
