//! HTTP on one connection: the pages, by the same rules for connections as everywhere.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::services::{Guarded, Language, Talk};

/// The pages of a coordinator.
#[derive(Clone)]
pub(super) struct Pages(pub(super) Router);

impl Talk for Pages {
    const LANGUAGE: Language = Language::Questions;

    async fn talk<IO>(self, io: Guarded<IO>, end: impl Future<Output = ()> + Send + 'static)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let served = axum::serve(Only(Some(io)), self.0).with_graceful_shutdown(end).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection could not be served");
        }
    }
}

/// A listener with one connection.
struct Only<IO>(Option<IO>);

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> axum::serve::Listener for Only<IO> {
    type Io = IO;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (IO, SocketAddr) {
        match self.0.take() {
            Some(io) => (io, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    }
}
