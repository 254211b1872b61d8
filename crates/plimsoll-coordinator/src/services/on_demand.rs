//! Answers of a stream that are made when they are asked for. What is made earlier lies in memory until its client reads, and
//! a client that never reads would have it lie there for good.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{FutureExt, Stream};
use tokio::sync::{Notify, mpsc};
use tonic::Status;

/// The answers. HTTP/2 asks for one where its client has granted room for some of it.
pub(super) struct OnDemand<T> {
    receiver: mpsc::Receiver<Result<T, Status>>,
    asked: Arc<Notify>,
}

/// Where they are made: one when it is asked for.
pub(super) struct Maker<T> {
    answers: mpsc::Sender<Result<T, Status>>,
    asked: Arc<Notify>,
}

/// A stream of answers and where they are made.
pub(super) fn on_demand<T>() -> (Maker<T>, OnDemand<T>) {
    // For one that was asked for, and one that ends the stream.
    let (answers, receiver) = mpsc::channel(2);
    let asked = Arc::new(Notify::new());
    (Maker { answers, asked: Arc::clone(&asked) }, OnDemand { receiver, asked })
}

impl<T> Stream for OnDemand<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = self.receiver.poll_recv(context);
        if answer.is_pending() {
            self.asked.notify_one();
        }
        answer
    }
}

impl<T> Maker<T> {
    /// Done when the client wants another answer, or has gone. Safe to cancel.
    pub(super) async fn asked(&self) {
        tokio::select! {
            biased;
            () = self.answers.closed() => {}
            () = self.asked.notified() => {}
        }
    }

    /// Done when the client has gone.
    pub(super) async fn closed(&self) {
        self.answers.closed().await;
    }

    /// Gives an answer that was asked for, or the last one. False where the client has gone.
    pub(super) async fn give(&self, answer: Result<T, Status>) -> bool {
        // It may have been asked for more than once; this is the answer to all of that.
        let _ = self.asked.notified().now_or_never();
        self.answers.send(answer).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_made_when_it_is_asked_for() {
        let (maker, mut answers) = on_demand();
        let made = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = Arc::clone(&made);
        tokio::spawn(async move {
            for number in 0..3 {
                maker.asked().await;
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                assert!(maker.give(Ok(number)).await);
            }
            maker.give(Err(Status::aborted("over"))).await;
        });
        let count = || made.load(std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(count(), 0, "nobody asked");
        for number in 0..3 {
            assert_eq!(answers.next().await.expect("open").expect("an answer"), number);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(count(), number + 1, "nobody asked for more");
        }
        assert!(answers.next().await.expect("open").is_err());
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn who_has_gone_is_waited_for_no_longer() {
        let (maker, answers) = on_demand::<u8>();
        drop(answers);
        maker.asked().await;
        maker.closed().await;
        assert!(!maker.give(Ok(1)).await);
    }
}
