//! Rates of the cluster, spent in this process: tokens are taken in slices, ahead of their use, so that most decisions cost no call.
//!
//! All processes that spend of a rate together stay within it, give or take the second for which a slice is good.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_proto::v1::{ErrorReason, TakeTokensRequest, TokenResult, TokenTake};
use plimsoll_rates::{Ask, Slice, Step};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{Client, Error, Refused};

/// A rate of a quota, for one scope. Clones share what was taken.
#[derive(Clone)]
pub struct Rate {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    quota: String,
    rate: String,
    scope: String,
    began: Instant,
    slice: Mutex<Slice>,
    /// An ask was answered.
    answered: Notify,
}

/// An ask under way. Dropped without an answer it failed: whoever waits for it asks anew.
struct Asking<'a> {
    shared: &'a Shared,
    answered: bool,
}

impl Client {
    /// A rate of a quota. Who names another scope does not share. Nothing is asked before tokens are wanted.
    pub fn rate(&self, quota: &str, rate: &str, scope: &str) -> Rate {
        let shared = Shared {
            client: self.clone(),
            quota: quota.to_owned(),
            rate: rate.to_owned(),
            scope: scope.to_owned(),
            began: Instant::now(),
            slice: Mutex::default(),
            answered: Notify::new(),
        };
        Rate { shared: Arc::new(shared) }
    }
}

impl Rate {
    /// Spends tokens, all or none. Where the rate has too few it waits for more, for `patience` at most.
    ///
    /// # Errors
    /// [`Error::Refused`] with `RATE_EXCEEDED` and when to try again, where there are not enough in time; with `NOT_FOUND` where there is no such rate; and
    /// errors of the call that takes a slice.
    pub async fn spend(&self, tokens: u64, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        loop {
            let answered = self.shared.answered.notified();
            let (step, refill) = self.shared.try_spend(tokens);
            match step {
                Step::Ready => {
                    if let Some(ask) = refill {
                        let shared = Arc::clone(&self.shared);
                        // Nobody waits for it: whoever finds too few tokens later hears why.
                        tokio::spawn(async move { shared.ask(ask).await });
                    }
                    return Ok(());
                }
                Step::Wait(Some(ask)) => self.shared.ask(ask).await?,
                Step::Wait(None) => {
                    // The one who asks takes as long as its client's deadline allows, and so may this one.
                    let longest = Instant::now() + self.shared.client.options().timeout;
                    let _ = timeout_at(longest, answered).await;
                }
                Step::Dry { retry_after_ms } => {
                    let again = Instant::now() + Duration::from_millis(retry_after_ms);
                    if again > deadline {
                        return Err(self.shared.exceeded(tokens, retry_after_ms));
                    }
                    sleep_until(again).await;
                }
            }
        }
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn slice(&self) -> MutexGuard<'_, Slice> {
        self.slice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spends where there is enough; with the ask for those who come after.
    fn try_spend(&self, tokens: u64) -> (Step, Option<Ask>) {
        let now_ms = self.now_ms();
        let mut slice = self.slice();
        let step = slice.look(now_ms, tokens);
        let refill = if step == Step::Ready { slice.spend(now_ms, tokens) } else { None };
        (step, refill)
    }

    /// Takes from the cluster, and less where it has less.
    async fn ask(&self, ask: Ask) -> Result<(), Error> {
        let mut asking = Asking { shared: self, answered: false };
        let mut next = Some(ask);
        while let Some(ask) = next.take() {
            let told = self.take(ask.tokens).await?;
            let mut slice = self.slice();
            match told.failure {
                None => slice.taken(self.now_ms(), ask),
                Some(failure) if failure.reason() == ErrorReason::RateExceeded => {
                    let retry_after_ms = match failure.retry_after_ms {
                        // More than may ever be taken at once.
                        0 => u64::MAX,
                        advice => advice,
                    };
                    next = slice.refused(self.now_ms(), ask, told.left, retry_after_ms);
                }
                Some(failure) => return Err(Error::Refused(Box::new(Refused::from_failure(failure)))),
            }
        }
        asking.answered = true;
        Ok(())
    }

    async fn take(&self, tokens: u64) -> Result<TokenResult, Error> {
        let (quota, rate, scope) = (self.quota.clone(), self.rate.clone(), self.scope.clone());
        let takes = vec![TokenTake { quota, rate, scope, tokens }];
        let answer =
            self.client.take_tokens(TakeTokensRequest { takes, ..TakeTokensRequest::default() }).await?;
        Ok(answer.results.into_iter().next().unwrap_or_default())
    }

    fn exceeded(&self, tokens: u64, retry_after_ms: u64) -> Error {
        let rate = format!("{}/{}", self.quota, self.rate);
        let message =
            format!("{rate}: {tokens} tokens wanted, too few are left; again in {retry_after_ms} ms");
        let failure = plimsoll_proto::v1::Failure {
            code: tonic::Code::ResourceExhausted.into(),
            reason: ErrorReason::RateExceeded.into(),
            message,
            definite: true,
            retry_after_ms,
            ..Default::default()
        };
        Error::Refused(Box::new(Refused::from_failure(failure)))
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.shared.slice().failed();
        }
        self.shared.answered.notify_waiters();
    }
}
