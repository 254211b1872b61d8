//! A bound on open connections: past it, new ones wait in the system's queue. One that says nothing is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// Connections of a listener, at most so many open at once.
pub(super) struct Bounded<I> {
    incoming: Pin<Box<I>>,
    /// Longest silence of a new connection.
    first_bytes: Duration,
    places: Arc<Semaphore>,
    /// The next place: being waited for, or there.
    next: Option<BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>>,
    place: Option<OwnedSemaphorePermit>,
}

/// A connection that gives its place back when it ends.
pub(super) struct Placed<IO> {
    io: IO,
    /// Ends the wait for the first bytes; gone once they came.
    patience: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl<I> Bounded<I> {
    pub(super) fn new(incoming: I, most: usize, first_bytes: Duration) -> Bounded<I> {
        Bounded {
            incoming: Box::pin(incoming),
            first_bytes,
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
            Ok(Placed { io, patience: Some(Box::pin(sleep(self.first_bytes))), _place: place })
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
        let had = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let Some(patience) = &mut self.patience else { return read };
        if buffer.filled().len() > had {
            self.patience = None;
        } else if read.is_pending() && patience.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it said nothing")));
        }
        read
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
        let mut bounded = Bounded::new(connections, 2, Duration::from_secs(10));
        let first = bounded.next().await.expect("a connection").expect("good");
        let _second = bounded.next().await.expect("a connection").expect("good");
        assert!(bounded.next().now_or_never().is_none(), "two are open");
        drop(first);
        bounded.next().await.expect("a connection").expect("good");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_closed() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let ((one, mut talks), (two, _silent)) = (tokio::io::duplex(8), tokio::io::duplex(8));
        let connections = stream::iter([one, two].map(Ok::<_, io::Error>));
        let mut bounded = Bounded::new(connections, 2, Duration::from_secs(10));
        let mut first = bounded.next().await.expect("a connection").expect("good");
        let mut second = bounded.next().await.expect("a connection").expect("good");
        talks.write_all(b"hi").await.expect("sent");
        let mut bytes = [0; 2];
        first.read_exact(&mut bytes).await.expect("in time");
        let error = second.read_exact(&mut bytes).await.expect_err("silent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let later = tokio::time::timeout(Duration::from_secs(60), first.read_exact(&mut bytes));
        assert!(later.await.is_err(), "one that has spoken may be silent");
    }
}
