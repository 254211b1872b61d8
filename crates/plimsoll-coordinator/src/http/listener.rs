//! Connections for axum, with or without TLS: so many at once, so many of one source before it is known who that is, and
//! none that is silent for long. Handshakes run beside each other, so that a slow one holds up nobody.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_rustls::TlsAcceptor;

use crate::services::{FIRST_BYTES, ListenerLimits, Sources};
use crate::tls::HANDSHAKE_TIMEOUT;

/// Most open connections; more wait in the system's queue. Who reads pages needs few.
const MOST_OPEN: usize = 1_000;
/// Pause after a failed accept, such as one without file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes both ways.
trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// A connection that is closed when it is silent for too long, and gives its place back then.
pub(super) struct Watched {
    io: Box<dyn Bytes>,
    /// Longest silence after the first bytes; zero for no limit.
    rest: Duration,
    patience: Pin<Box<Sleep>>,
    last: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

/// A listener whose connections are bounded; with TLS, callers showed a certificate.
pub(super) struct BoundedListener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    rest: Duration,
    places: Arc<Semaphore>,
    sources: Arc<Sources>,
    handshakes: JoinSet<Option<(Watched, SocketAddr)>>,
}

impl BoundedListener {
    pub(super) fn new(
        tcp: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        limits: &ListenerLimits,
    ) -> BoundedListener {
        BoundedListener {
            tcp,
            tls: tls.map(TlsAcceptor::from),
            rest: Duration::from_millis(limits.connection_idle_ms),
            places: Arc::new(Semaphore::new(MOST_OPEN.min(limits.connections))),
            sources: Sources::new(limits.connections_per_source),
            handshakes: JoinSet::new(),
        }
    }

    /// The next connection by TCP, with its place.
    async fn next(
        tcp: &TcpListener,
        places: &Arc<Semaphore>,
    ) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match tcp.accept().await {
                Ok((stream, from)) => return (stream, from, place),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn shake_hands(
        &mut self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        from: SocketAddr,
        place: OwnedSemaphorePermit,
    ) {
        let Some(counted) = self.sources.take(Some(from.ip())) else {
            tracing::debug!(%from, "too many connections of one source before they showed who they are");
            return;
        };
        let rest = self.rest;
        self.handshakes.spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
            drop(counted);
            match shaken {
                Ok(Ok(stream)) => Some((Watched::new(Box::new(stream), rest, place), from)),
                Ok(Err(error)) => {
                    tracing::debug!(%from, %error, "a TLS handshake failed");
                    None
                }
                Err(_) => None,
            }
        });
    }
}

impl axum::serve::Listener for BoundedListener {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                (stream, from, place) = BoundedListener::next(&self.tcp, &self.places) => match self.tls.clone() {
                    Some(acceptor) => self.shake_hands(acceptor, stream, from, place),
                    None => return (Watched::new(Box::new(stream), self.rest, place), from),
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

impl Watched {
    fn new(io: Box<dyn Bytes>, rest: Duration, place: OwnedSemaphorePermit) -> Watched {
        Watched { io, rest, patience: Box::pin(sleep(FIRST_BYTES)), last: None, _place: place }
    }

    fn moved(&mut self) {
        self.last = Some(Instant::now());
    }

    /// Ready where it was silent for too long.
    fn poll_silent(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.patience.as_mut().poll(context));
            match self.last {
                Some(_) if self.rest.is_zero() => return Poll::Pending,
                Some(last) if last.elapsed() < self.rest => {
                    self.patience = Box::pin(sleep_until(last + self.rest))
                }
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let had = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > had {
            self.moved();
        } else if read.is_pending() && self.poll_silent(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it said nothing")));
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes));
        self.moved();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::serve::Listener;
    use rustls::RootCertStore;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::tls::tests::TestAuthority;
    use crate::tls::{COORDINATOR_NAME, TlsMaterial};

    #[tokio::test]
    async fn a_silent_caller_holds_up_nobody_and_one_without_a_certificate_is_not_let_in() {
        let authority = TestAuthority::new();
        let material = TlsMaterial::load(&authority.issue("c1", &[COORDINATOR_NAME])).expect("good");
        let client = authority.issue("ada", &["ada"]);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&client.ca).expect("PEM")).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots.clone())
        };
        let chain = vec![CertificateDer::from_pem_file(&client.cert).expect("PEM")];
        let key = PrivateKeyDer::from_pem_file(&client.key).expect("PEM");
        let known =
            TlsConnector::from(Arc::new(builder().with_client_auth_cert(chain, key).expect("a pair")));
        let unknown = TlsConnector::from(Arc::new(builder().with_no_client_auth()));

        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tcp.local_addr().expect("bound");
        let mut listener = BoundedListener::new(tcp, Some(material.http()), &ListenerLimits::default());
        let name = || ServerName::try_from(COORDINATOR_NAME).expect("a name");
        let _silent = TcpStream::connect(address).await.expect("connects");
        let calls = tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.expect("connects");
            let refused = match unknown.connect(name(), stream).await {
                // With TLS 1.3 the refusal may come after the client's part of the handshake.
                Ok(mut stream) => stream.read_u8().await.is_err(),
                Err(_) => true,
            };
            let stream = TcpStream::connect(address).await.expect("connects");
            let mut stream = known.connect(name(), stream).await.expect("let in");
            stream.write_all(b"hello").await.expect("sent");
            refused
        });
        let (mut stream, _) = listener.accept().await;
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.expect("read");
        assert_eq!(&said, b"hello");
        assert!(calls.await.expect("ran"), "no certificate, no connection");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_silent_for_long_is_closed() {
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).acquire_owned().await.expect("free");
        let (io, mut other) = tokio::io::duplex(64);
        let mut watched = Watched::new(Box::new(io), Duration::from_secs(300), place);
        other.write_all(b"one").await.expect("sent");
        watched.read_exact(&mut [0; 3]).await.expect("in time");
        let began = Instant::now();
        watched.write_all(b"answer").await.expect("sent");
        let error = watched.read_exact(&mut [0; 1]).await.expect_err("silent");
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 300));
        drop(watched);
        assert_eq!(places.available_permits(), 1);
    }
}
