//! Slices of rates that this leader holds for proxies: one command of the log for many decisions.
//!
//! Invariants:
//! - A decision spends of every rate that it is about, or of none.
//! - What is spent was taken from the ledger before. A leader that is followed by another leaves its slices to nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_proto::v1;
use plimsoll_rates::{Ask, Slice, Step};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::api::Api;
use super::edge::Actor;
use super::problem::Problem;
use super::tokens;

/// Most slices that are held. Past them those that hold nothing are forgotten.
const MOST_SLICES: usize = 100_000;
/// Longest time that a decision waits for the ledger: a proxy waits no longer.
const MOST_WAIT: Duration = Duration::from_secs(2);

/// A rate of a quota, for one scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RateKey {
    pub(super) quota: String,
    pub(super) rate: String,
    pub(super) scope: String,
}

/// What came of wanting tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spent {
    /// All of them.
    All,
    /// None: this rate has too few, and will have enough after so many milliseconds.
    None { rate: usize, retry_after_ms: u64 },
}

/// The slices. Clones share them.
#[derive(Clone)]
pub(super) struct Slices {
    shared: Arc<Shared>,
}

struct Shared {
    api: Api,
    began: Instant,
    held: Mutex<BTreeMap<RateKey, Held>>,
    /// An ask was answered.
    answered: Notify,
}

/// What a look at the slices came to.
struct Look {
    /// `None` where the ledger has to be asked first.
    spent: Option<Spent>,
    asks: Vec<(RateKey, Ask)>,
}

#[derive(Default)]
struct Held {
    slice: Slice,
    /// Why the latest ask that failed did, and how many have.
    trouble: (u64, Option<Problem>),
}

impl Slices {
    pub(super) fn new(api: Api) -> Slices {
        let (held, answered) = (Mutex::default(), Notify::new());
        Slices { shared: Arc::new(Shared { api, began: Instant::now(), held, answered }) }
    }

    /// Spends tokens of several rates, all or none. No rate is named twice, and each has been looked up: it is there.
    pub(super) async fn spend(&self, actor: &Actor, wanted: &[(RateKey, u64)]) -> Result<Spent, Problem> {
        let deadline = Instant::now() + MOST_WAIT;
        // Only who waits has to know what went wrong before.
        let mut troubles = None;
        loop {
            let answered = self.shared.answered.notified();
            let Look { spent, asks } = self.shared.try_spend(wanted)?;
            if spent.is_none() {
                troubles.get_or_insert_with(|| self.shared.troubles(wanted));
            }
            for (key, ask) in asks {
                let (shared, actor) = (Arc::clone(&self.shared), actor.clone());
                tokio::spawn(async move { shared.ask(&actor, key, ask).await });
            }
            if let Some(spent) = spent {
                return Ok(spent);
            }
            let waited = timeout_at(deadline, answered).await;
            let before = troubles.as_deref().unwrap_or_default();
            if let Some(trouble) = self.shared.new_trouble(wanted, before) {
                return Err(trouble);
            }
            if waited.is_err() {
                return Err(Problem::deadline(MOST_WAIT, false));
            }
        }
    }

    /// Tokens of a rate that are here.
    pub(super) fn left(&self, key: &RateKey) -> u64 {
        self.shared.held.lock().get(key).map_or(0, |held| held.slice.left())
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn try_spend(&self, wanted: &[(RateKey, u64)]) -> Result<Look, Problem> {
        let now_ms = self.now_ms();
        let mut held = self.held.lock();
        if held.len() + wanted.len() > MOST_SLICES {
            held.retain(|_, one| !one.slice.is_idle(now_ms));
        }
        if held.len() + wanted.len() > MOST_SLICES {
            let message = format!("{MOST_SLICES} scopes of rates are in use");
            let reason = plimsoll_proto::v1::ErrorReason::RateExceeded;
            return Err(Problem::new(reason, message).after(plimsoll_rates::VALID_MS));
        }
        let mut asks = Vec::new();
        let mut is_ready = true;
        for (rate, (key, tokens)) in wanted.iter().enumerate() {
            if !held.contains_key(key) {
                held.insert(key.clone(), Held::default());
            }
            match held.get_mut(key).expect("is there").slice.look(now_ms, *tokens) {
                Step::Ready => {}
                Step::Wait(ask) => {
                    is_ready = false;
                    asks.extend(ask.map(|ask| (key.clone(), ask)));
                }
                Step::Dry { retry_after_ms } => {
                    return Ok(Look { spent: Some(Spent::None { rate, retry_after_ms }), asks });
                }
            }
        }
        if !is_ready {
            return Ok(Look { spent: None, asks });
        }
        for (key, tokens) in wanted {
            let ask = held.get_mut(key).and_then(|one| one.slice.spend(now_ms, *tokens));
            asks.extend(ask.map(|ask| (key.clone(), ask)));
        }
        Ok(Look { spent: Some(Spent::All), asks })
    }

    /// Takes from the ledger, and less where it has less.
    async fn ask(&self, actor: &Actor, key: RateKey, ask: Ask) {
        let mut next = Some(ask);
        while let Some(ask) = next.take() {
            let take = v1::TokenTake {
                quota: key.quota.clone(),
                rate: key.rate.clone(),
                scope: key.scope.clone(),
                tokens: ask.tokens,
            };
            let told = tokens::take_one(&self.api, actor, &take).await;
            let now_ms = self.now_ms();
            let mut held = self.held.lock();
            let one = held.entry(key.clone()).or_default();
            match told {
                Ok(told) if told.taken > 0 => one.slice.taken(now_ms, ask),
                Ok(told) => next = one.slice.refused(now_ms, ask, told.left, told.retry_after_ms),
                Err(problem) => {
                    one.slice.failed();
                    one.trouble = (one.trouble.0 + 1, Some(problem));
                }
            }
        }
        self.answered.notify_waiters();
    }

    fn troubles(&self, wanted: &[(RateKey, u64)]) -> Vec<u64> {
        let held = self.held.lock();
        wanted.iter().map(|(key, _)| held.get(key).map_or(0, |one| one.trouble.0)).collect()
    }

    fn new_trouble(&self, wanted: &[(RateKey, u64)], before: &[u64]) -> Option<Problem> {
        let held = self.held.lock();
        let mut pairs = wanted.iter().zip(before);
        pairs.find_map(|((key, _), before)| {
            let (count, problem) = &held.get(key)?.trouble;
            problem.clone().filter(|_| count > before)
        })
    }
}
