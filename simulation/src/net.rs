//! The simulated network as tonic wants it: connections, and channels to hosts by name.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};
use turmoil::net::{TcpListener, TcpStream};

/// Port on which every coordinator listens, for clients and peers.
pub const PORT: u16 = 7420;

/// The simulated TCP never sends a lost segment again, so a connection that lived through a partition is dead. Pings
/// find that out, while anything waits for an answer, about as fast as a real connection would have recovered.
const PING_EVERY: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_millis(400);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Dials hosts of the simulation, for coordinators, clients and agents alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimNet;

impl SimNet {
    /// A channel to `HOST:PORT` that connects when first used.
    ///
    /// # Errors
    /// Where this is no address.
    pub fn lazy(self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let connect = tower::service_fn(|uri: http::Uri| async move {
            let host = uri.host().unwrap_or_default().to_owned();
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(PORT))).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        });
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        Ok(endpoint.connect_with_connector_lazy(connect))
    }
}

impl plimsoll_consensus::Dialer for SimNet {
    fn channel(&self, address: &str) -> Channel {
        self.lazy(address).unwrap_or_else(|_| {
            // As the real dialer does: a channel that only ever fails. A coordinator asks for it that restarts and knows
            // who leads before it knows the members again.
            let fails = tower::service_fn(|_: http::Uri| async {
                Err::<TokioIo<TcpStream>, _>(io::Error::other("an address that cannot be dialled"))
            });
            Endpoint::from_static("http://nowhere").connect_with_connector_lazy(fails)
        })
    }
}

impl plimsoll_client::Dialer for SimNet {
    fn channel(&self, address: &str) -> Result<Channel, plimsoll_client::Error> {
        self.lazy(address).map_err(|error| plimsoll_client::Error::Invalid(error.to_string()))
    }
}

/// A connection that a server accepted.
pub struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Connections as they come, for ever.
pub fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Accepted>> + Send {
    futures_util::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Accepted(stream));
        Some((accepted, listener))
    })
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
