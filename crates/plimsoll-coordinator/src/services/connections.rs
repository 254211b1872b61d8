//! A bound on open connections: past it, new ones wait in the system's queue.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

/// Connections of a listener, at most so many open at once.
pub(super) struct Bounded<I> {
    incoming: Pin<Box<I>>,
    places: Arc<Semaphore>,
    /// The next place: being waited for, or there.
    next: Option<BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>>,
    place: Option<OwnedSemaphorePermit>,
}

/// A connection that gives its place back when it ends.
pub(super) struct Placed<IO> {
    io: IO,
    _place: OwnedSemaphorePermit,
}

impl<I> Bounded<I> {
    pub(super) fn new(incoming: I, most: usize) -> Bounded<I> {
        Bounded {
            incoming: Box::pin(incoming),
            places: Arc::new(Semaphore::new(most)),
            next: None,
            place: None,
        }
    }
}

impl<I, IO, IE> Stream for Bounded<I>
where
    I: Stream<Item = Result<IO, IE>>,
{
    type Item = Result<Placed<IO>, IE>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.place.is_none() {
            let places = Arc::clone(&self.places);
            let next = self.next.get_or_insert_with(|| Box::pin(places.acquire_owned()));
            let place = ready!(next.as_mut().poll(context));
            self.next = None;
            self.place = Some(place.expect("the semaphore is never closed"));
        }
        let connection = ready!(self.incoming.as_mut().poll_next(context));
        Poll::Ready(connection.map(|connection| {
            let io = connection?;
            let place = self.place.take().expect("a place was taken above");
            Ok(Placed { io, _place: place })
        }))
    }
}

impl<IO: Connected> Connected for Placed<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Placed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Placed<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
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
    use futures_util::{FutureExt, StreamExt, stream};

    use super::*;

    #[tokio::test]
    async fn the_next_connection_waits_for_one_to_end() {
        let connections = stream::iter((0..3).map(|_| Ok::<_, io::Error>(tokio::io::duplex(1).0)));
        let mut bounded = Bounded::new(connections, 2);
        let first = bounded.next().await.expect("a connection").expect("good");
        let _second = bounded.next().await.expect("a connection").expect("good");
        assert!(bounded.next().now_or_never().is_none(), "two are open");
        drop(first);
        bounded.next().await.expect("a connection").expect("good");
    }
}
