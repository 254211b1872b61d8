//! Answers on their way to one client. One that takes nothing of an answer for long holds memory that others need: its
//! connection is cut off.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tonic::body::Body;

use super::pages::Sending;

/// How often answers are looked after.
const LOOK: Duration = Duration::from_secs(5);
/// Largest part of an answer that is handed on at once: HTTP/2 takes it whatever the client has granted, so it is what a
/// stream can cost once nobody reads.
const PART: usize = 16 << 10;

/// The answers of one connection.
#[derive(Debug, Default)]
pub(super) struct Unread {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<Answers>,
    is_overdue: AtomicBool,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct Answers {
    next: u64,
    /// When the client last took something, and how long it may take nothing, of those answers that it has to take from now.
    waiting: BTreeMap<u64, (Instant, Duration)>,
}

impl Unread {
    /// The same body, watched: its client has to take something of it every `patience`, if there is something. What is
    /// given with it is held until all of it was handed on.
    pub(super) fn watch(&self, body: Body, patience: Duration, sending: Option<Sending>) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let mut answers = self.shared.answers.lock();
        let id = answers.next;
        answers.next += 1;
        // HTTP/2 asks a body for nothing until its client has granted something.
        answers.waiting.insert(id, (Instant::now(), patience));
        drop(answers);
        Body::new(Watched {
            body,
            rest: Bytes::new(),
            id,
            patience,
            shared: Arc::clone(&self.shared),
            sending,
        })
    }

    /// True where the client has nothing left to take.
    pub(super) fn is_empty(&self) -> bool {
        self.shared.answers.lock().waiting.is_empty()
    }

    /// Nothing more is of use to this client.
    pub(super) fn is_cut_off(&self) -> bool {
        self.shared.is_overdue.load(Ordering::Acquire)
    }

    /// Who reads the connection is told now.
    pub(super) fn cut_off(&self) {
        self.shared.is_overdue.store(true, Ordering::Release);
        self.shared.reader.wake();
    }

    /// Never done: once an answer is overdue, who reads the connection is told.
    pub(super) async fn cut_off_when_overdue(&self) {
        loop {
            sleep(LOOK).await;
            let now = Instant::now();
            let is_overdue = |(since, patience): &(Instant, Duration)| now.duration_since(*since) > *patience;
            if self.shared.answers.lock().waiting.values().any(is_overdue) {
                self.cut_off();
            }
        }
    }

    /// True where an answer is overdue; wakes the caller when that comes.
    pub(super) fn poll_overdue(&self, context: &Context<'_>) -> bool {
        self.shared.reader.register(context.waker());
        self.is_cut_off()
    }
}

/// A body that is watched.
struct Watched {
    body: Body,
    /// What was not handed on yet of a part that is too large.
    rest: Bytes,
    id: u64,
    patience: Duration,
    shared: Arc<Shared>,
    sending: Option<Sending>,
}

impl Watched {
    fn is_end(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    /// Something is handed on: what comes next is for the client to ask for.
    fn hand_on(&mut self, mut data: Bytes) -> Frame<Bytes> {
        self.rest = if data.len() > PART { data.split_off(PART) } else { Bytes::new() };
        self.shared.answers.lock().waiting.insert(self.id, (Instant::now(), self.patience));
        if self.is_end() {
            self.sending = None;
        }
        Frame::data(data)
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            return Poll::Ready(Some(Ok(self.hand_on(rest))));
        }
        // The client has taken all that there was.
        self.shared.answers.lock().waiting.remove(&self.id);
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(match frame.into_data() {
                Ok(data) => self.hand_on(data),
                Err(other) => other,
            }))),
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.answers.lock().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn answer(bytes: usize) -> Body {
        Body::new(Full::new(Bytes::from(vec![7; bytes])).map_err(|never| match never {}))
    }

    async fn is_overdue(unread: &Unread, after: Duration) -> bool {
        let _ = tokio::time::timeout(after, unread.cut_off_when_overdue()).await;
        let waker = noop_waker();
        unread.poll_overdue(&Context::from_waker(&waker))
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_overdue() {
        let unread = Unread::default();
        let patience = Duration::from_secs(30);
        let mut body = unread.watch(answer(100_000), patience, None);
        assert!(!is_overdue(&unread, Duration::from_secs(25)).await, "it may take its time");
        let first = body.frame().await.expect("a part").expect("fine").into_data().expect("data");
        assert_eq!(first.len(), PART);
        assert!(!is_overdue(&unread, Duration::from_secs(25)).await, "it may take its time");
        body.frame().await.expect("a part").expect("fine");
        assert!(!is_overdue(&unread, Duration::from_secs(25)).await, "it took something");
        assert!(is_overdue(&unread, Duration::from_secs(15)).await);
        let never_asked = Unread::default();
        let _body = never_asked.watch(answer(10), patience, None);
        assert!(is_overdue(&never_asked, Duration::from_secs(40)).await, "no window was ever granted");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_to_its_end_or_given_up_is_never_overdue() {
        let unread = Unread::default();
        let patience = Duration::from_secs(30);
        let whole =
            unread.watch(answer(100_000), patience, None).collect().await.expect("all of it").to_bytes();
        assert_eq!(whole, vec![7; 100_000]);
        let mut body = unread.watch(answer(100_000), patience, None);
        body.frame().await.expect("a part").expect("fine");
        drop(body);
        assert!(!is_overdue(&unread, Duration::from_secs(120)).await);
        assert!(unread.shared.answers.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_with_nothing_to_say_is_never_overdue() {
        let unread = Unread::default();
        let parts =
            futures_util::stream::iter([Ok::<_, tonic::Status>(Frame::data(Bytes::from_static(b"one")))]);
        let silent = futures_util::StreamExt::chain(parts, futures_util::stream::pending());
        let mut body =
            unread.watch(Body::new(http_body_util::StreamBody::new(silent)), Duration::from_secs(30), None);
        body.frame().await.expect("a part").expect("fine");
        assert!(tokio::time::timeout(Duration::from_secs(1), body.frame()).await.is_err());
        assert!(!is_overdue(&unread, Duration::from_secs(300)).await, "it waits for us, not for the client");
    }
}
