//! The bytes of one connection, watched: one that does not begin in time is closed, one whose client is rude or reads no
//! answers is told so and closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

use super::manners::{Heard, Language, Manners};
use super::{Connection, ConnectionInfo};
use crate::services::limits::{CALL_UNREAD, FIRST_BYTES, ListenerLimits};

/// What a client hears that does not read.
const UNREAD: &str = "answers_not_read";

/// A connection whose plain bytes pass through here.
pub(crate) struct Guarded<IO> {
    io: IO,
    connection: Arc<Connection>,
    /// Ends the wait for what must be complete soon: the beginning, or a question. Gone while there is nothing of the kind.
    patience: Option<Pin<Box<Sleep>>>,
    /// Ends the wait for a client that takes no bytes at all; gone while it does.
    stuck: Option<Pin<Box<Sleep>>>,
    manners: Manners,
    /// Dropped with this: then the connection is over.
    _open: oneshot::Sender<()>,
}

impl<IO> Guarded<IO> {
    pub(super) fn new(
        io: IO,
        connection: Arc<Connection>,
        language: Language,
        limits: &ListenerLimits,
        open: oneshot::Sender<()>,
    ) -> Guarded<IO> {
        let patience = Some(Box::pin(sleep(FIRST_BYTES)));
        let manners = Manners::new(language, Duration::from_millis(limits.client_ping_ms));
        Guarded { io, connection, patience, stuck: None, manners, _open: open }
    }

    /// What is known of it.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    fn note(&mut self, heard: Heard) {
        if heard.is_call {
            self.connection.used();
        }
        if heard.completes {
            self.patience = None;
        }
        if heard.begins && self.patience.is_none() {
            self.patience = Some(Box::pin(sleep(FIRST_BYTES)));
        }
    }

    fn note_sent(&mut self, bytes: &[u8]) {
        let heard = self.manners.says(bytes);
        self.note(heard);
    }
}

impl<IO: AsyncWrite + Unpin> Guarded<IO> {
    /// What a write came to, unless it has come to nothing for long.
    fn unless_stuck(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(CALL_UNREAD)));
        ready!(stuck.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it takes no bytes")))
    }

    /// Tells the client why it is cut off, where its connection takes a word without waiting.
    fn cut_off(&mut self, context: &mut Context<'_>, why: &str) -> io::Error {
        tracing::debug!(why, "a connection is cut off");
        if let Some(word) = self.manners.last_word(why)
            && let Poll::Ready(Ok(_)) = Pin::new(&mut self.io).poll_write(context, &word)
        {
            // It is closed either way.
            let _ = Pin::new(&mut self.io).poll_flush(context);
        }
        io::Error::new(io::ErrorKind::ConnectionAborted, why)
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
        if self.connection.unread.poll_overdue(context) {
            return Poll::Ready(Err(self.cut_off(context, UNREAD)));
        }
        let had = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let new = &buffer.filled()[had..];
        if !new.is_empty() {
            let is_trusted = self.connection.is_coordinators();
            match self.manners.hears(new, is_trusted) {
                Ok(heard) => self.note(heard),
                Err(rude) => return Poll::Ready(Err(self.cut_off(context, rude.word()))),
            }
        }
        // Also where bytes came: one at a time, they could go on for ever.
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it never came to the point")));
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
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        let written = ready!(self.unless_stuck(context, written))?;
        self.note_sent(bytes.get(..written).unwrap_or(bytes));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, parts);
        let written = ready!(self.unless_stuck(context, written))?;
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
    use tokio::time::Instant;

    use super::*;

    const PREFACE: [u8; 24] = [0; 24];
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const ANSWER: [u8; 10] = [0, 0, 1, 0, 1, 0, 0, 0, 1, 9];

    fn guarded(io: DuplexStream, language: Language) -> Guarded<DuplexStream> {
        let (open, _) = oneshot::channel();
        let connection = Arc::new(Connection::new(None));
        Guarded::new(io, connection, language, &ListenerLimits::default(), open)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_begin_is_closed_also_when_it_drips() {
        for drips in [0, 5, 24] {
            let (server, mut client) = duplex(64);
            let mut server = guarded(server, Language::Frames);
            let began = Instant::now();
            tokio::spawn(async move {
                for _ in 0..drips {
                    client.write_all(b"P").await.expect("sent");
                    sleep(Duration::from_secs(1)).await;
                }
                std::future::pending::<()>().await;
            });
            let error = loop {
                if let Err(error) = server.read_u8().await {
                    break error;
                }
            };
            assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10), "{drips}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_begun_may_be_silent() {
        let (server, mut client) = duplex(64);
        let mut server = guarded(server, Language::Frames);
        client.write_all(&[&PREFACE[..], &SETTINGS].concat()).await.expect("sent");
        server.read_exact(&mut [0; 33]).await.expect("in time");
        let later = tokio::time::timeout(Duration::from_secs(60), server.read_u8());
        assert!(later.await.is_err(), "it waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_has_to_come_to_its_end_and_silence_between_questions_is_fine() {
        let (server, mut client) = duplex(64);
        let mut server = guarded(server, Language::Questions);
        for _ in 0..3 {
            client.write_all(b"GET /").await.expect("sent");
            server.read_exact(&mut [0; 5]).await.expect("in time");
            server.write_all(b"page").await.expect("sent");
            assert!(tokio::time::timeout(Duration::from_secs(60), server.read_u8()).await.is_err());
        }
        client.write_all(b"GET /").await.expect("sent");
        server.read_exact(&mut [0; 5]).await.expect("in time");
        let began = Instant::now();
        let error = server.read_u8().await.expect_err("it never ends");
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_no_bytes_is_closed() {
        let (server, _client) = duplex(8);
        let mut server = guarded(server, Language::Questions);
        let began = Instant::now();
        let error = server.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
    }

    /// Sends pings `gap` apart, an answer after every `answered` of them; how many pings were read before the end.
    async fn pings(count: usize, gap: Duration, answered: usize) -> usize {
        let (server, mut client) = duplex(1 << 16);
        let mut server = guarded(server, Language::Frames);
        client.write_all(&[&PREFACE[..], &SETTINGS].concat()).await.expect("the beginning");
        server.read_exact(&mut [0; 33]).await.expect("read");
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
