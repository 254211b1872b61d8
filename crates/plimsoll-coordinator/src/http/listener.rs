//! Accepts TLS connections for axum. Handshakes run beside each other, so that a slow one holds up nobody.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::HANDSHAKE_TIMEOUT;

/// Most handshakes at once; more connections wait in the system's queue.
const MOST_HANDSHAKES: usize = 100;
/// Pause after a failed accept, such as one without file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener whose connections are encrypted and whose callers showed a certificate.
pub(super) struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl TlsListener {
    pub(super) fn new(tcp: TcpListener, config: Arc<rustls::ServerConfig>) -> TlsListener {
        TlsListener { tcp, acceptor: TlsAcceptor::from(config), handshakes: JoinSet::new() }
    }

    fn begin(&mut self, stream: TcpStream, from: SocketAddr) {
        let acceptor = self.acceptor.clone();
        self.handshakes.spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => Some((stream, from)),
                Ok(Err(error)) => {
                    tracing::debug!(%from, %error, "a TLS handshake failed");
                    None
                }
                Err(_) => None,
            }
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
                accepted = self.tcp.accept(), if self.handshakes.len() < MOST_HANDSHAKES => match accepted {
                    Ok((stream, from)) => self.begin(stream, from),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
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
        let mut listener = TlsListener::new(tcp, material.http());
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
}
