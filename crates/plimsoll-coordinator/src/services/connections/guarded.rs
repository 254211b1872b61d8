//! The bytes of one connection, watched: one that says nothing is closed, one that pings too often is told so and closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;

use super::frames::Frames;
use super::{Connection, ConnectionInfo};

/// Pings in a row that may come too early: networks bunch them up.
const FORGIVEN: u32 = 2;

/// A connection whose plain bytes pass through here.
pub(super) struct Guarded<IO> {
    io: IO,
    connection: Arc<Connection>,
    /// Ends the wait for the first bytes; gone once they came.
    patience: Option<Pin<Box<Sleep>>>,
    /// Shortest time between pings of the client.
    ping_after: Duration,
    last_ping: Option<Instant>,
    early_pings: u32,
    sent: Frames,
    received: Frames,
    /// Dropped with this: then the connection is over.
    _open: oneshot::Sender<()>,
}

impl<IO> Guarded<IO> {
    pub(super) fn new(
        io: IO,
        connection: Arc<Connection>,
        first_bytes: Duration,
        ping_after: Duration,
        open: oneshot::Sender<()>,
    ) -> Guarded<IO> {
        Guarded {
            io,
            connection,
            patience: Some(Box::pin(sleep(first_bytes))),
            ping_after,
            last_ping: None,
            early_pings: 0,
            sent: Frames::of_server(),
            received: Frames::of_client(),
            _open: open,
        }
    }

    /// True once too many pings in a row came too early.
    fn pings_too_often(&mut self, pings: u32) -> bool {
        let now = Instant::now();
        for _ in 0..pings {
            let is_early = self.last_ping.is_some_and(|last| now.duration_since(last) < self.ping_after);
            self.early_pings = if is_early { self.early_pings + 1 } else { 0 };
            self.last_ping = Some(now);
        }
        self.early_pings > FORGIVEN
    }

    fn note_sent(&mut self, bytes: &[u8]) {
        if self.sent.read(bytes).calls {
            self.connection.used();
            // A client may measure the line by a ping for each answer: only pings without answers are a nuisance.
            self.early_pings = 0;
            self.last_ping = None;
        }
    }
}

impl<IO: AsyncWrite + Unpin> Guarded<IO> {
    /// Tells the client why it is cut off, where its connection takes a word without waiting.
    fn refuse_pings(&mut self, context: &mut Context<'_>) -> io::Error {
        if self.sent.is_between() {
            let word = self.received.too_many_pings();
            if let Poll::Ready(Ok(_)) = Pin::new(&mut self.io).poll_write(context, &word) {
                // It is closed either way.
                let _ = Pin::new(&mut self.io).poll_flush(context);
            }
        }
        io::Error::new(io::ErrorKind::ConnectionAborted, "it pings too often")
    }
}

impl<IO> Connected for Guarded<IO> {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        ConnectionInfo(Arc::clone(&self.connection))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let had = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let new = &buffer.filled()[had..];
        if new.is_empty() {
            if let Some(patience) = &mut self.patience
                && read.is_pending()
                && patience.as_mut().poll(context).is_ready()
            {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it said nothing")));
            }
            return read;
        }
        self.patience = None;
        let seen = self.received.read(new);
        if seen.calls {
            self.connection.used();
        }
        if seen.pings > 0 && self.pings_too_often(seen.pings) {
            return Poll::Ready(Err(self.refuse_pings(context)));
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Guarded<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes))?;
        self.note_sent(bytes.get(..written).unwrap_or(bytes));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(context, parts))?;
        let mut left = written;
        for part in parts {
            let taken = left.min(part.len());
            self.note_sent(&part[..taken]);
            left -= taken;
            if left == 0 {
                break;
            }
        }
        Poll::Ready(Ok(written))
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const ANSWER: [u8; 10] = [0, 0, 1, 0, 1, 0, 0, 0, 1, 9];

    fn guarded(io: DuplexStream) -> Guarded<DuplexStream> {
        let (open, _) = oneshot::channel();
        let connection = Arc::new(Connection::new(None));
        Guarded::new(io, connection, Duration::from_secs(10), Duration::from_secs(5), open)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_closed() {
        let ((one, mut talks), (two, _silent)) = (duplex(8), duplex(8));
        let (mut first, mut second) = (guarded(one), guarded(two));
        talks.write_all(b"hi").await.expect("sent");
        let mut bytes = [0; 2];
        first.read_exact(&mut bytes).await.expect("in time");
        let error = second.read_exact(&mut bytes).await.expect_err("silent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let later = tokio::time::timeout(Duration::from_secs(60), first.read_exact(&mut bytes));
        assert!(later.await.is_err(), "one that has spoken may be silent");
    }

    /// Sends pings `gap` apart, an answer after every `answered` of them; how many pings were read before the end.
    async fn pings(count: usize, gap: Duration, answered: usize) -> usize {
        let (server, mut client) = duplex(1 << 16);
        let mut server = guarded(server);
        client.write_all(&[0; 24]).await.expect("the preface");
        server.read_exact(&mut [0; 24]).await.expect("read");
        for ping in 1..=count {
            client.write_all(&PING).await.expect("sent");
            if let Err(error) = server.read_exact(&mut [0; PING.len()]).await {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
                drop(server);
                let mut said = Vec::new();
                client.read_to_end(&mut said).await.expect("the last word");
                assert!(said.ends_with(b"too_many_pings"), "{said:?}");
                return ping - 1;
            }
            if answered > 0 && ping.is_multiple_of(answered) {
                server.write_all(&ANSWER).await.expect("sent");
            }
            tokio::time::sleep(gap).await;
        }
        count
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_pings_faster_than_it_may_is_told_and_closed() {
        assert_eq!(pings(20, Duration::from_secs(1), 0).await, 3, "the first, and two that are forgiven");
        assert_eq!(pings(20, Duration::from_secs(5), 0).await, 20, "as often as it may");
        assert_eq!(pings(20, Duration::from_millis(10), 2).await, 20, "with answers between");
    }
}
