//! What clients saw: each call with its answer, which is a success, a definite refusal, or unknown.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use plimsoll_client::{Error, v1};

use crate::request::Request;

/// One call of one client.
#[derive(Clone, Debug)]
pub struct Call {
    /// Client that made it.
    pub worker: usize,
    /// What it asked for.
    pub request: Request,
    /// Simulated milliseconds when it was made.
    pub called_ms: u64,
    /// Simulated milliseconds when it was answered or given up.
    pub answered_ms: u64,
    /// What the client was told.
    pub answer: Answer,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most calls are done, so a box would only cost an allocation each"
)]
pub enum Answer {
    /// It was done.
    Done(Done),
    /// It was definitely not done, and why.
    Refused(String),
    /// Perhaps it was done.
    Unknown(String),
}

/// A success.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    /// Revision in the answer; 0 where it shows none.
    pub revision: u64,
    /// The reservation in the answer; absent for calls about nodes.
    pub reservation: Option<v1::Reservation>,
    /// Tokens that were taken; absent for all other calls.
    pub taken: Option<u64>,
}

/// All calls of a run, in the order of their answers.
#[derive(Debug, Default)]
pub struct History {
    calls: Mutex<Vec<Call>>,
}

impl Answer {
    /// From what the SDK returned.
    pub fn of(result: Result<Done, Error>) -> Answer {
        match result {
            Ok(done) => Answer::Done(done),
            Err(error) if error.is_definite() => Answer::Refused(error.reason_name().to_owned()),
            Err(error) => Answer::Unknown(error.reason_name().to_owned()),
        }
    }

    /// The success, where it is one.
    pub fn done(&self) -> Option<&Done> {
        match self {
            Answer::Done(done) => Some(done),
            Answer::Refused(_) | Answer::Unknown(_) => None,
        }
    }

    /// One word for it.
    pub fn word(&self) -> String {
        match self {
            Answer::Done(_) => "ok".to_owned(),
            Answer::Refused(reason) => format!("refused/{reason}"),
            Answer::Unknown(reason) => format!("unknown/{reason}"),
        }
    }
}

impl History {
    /// Adds an answered call.
    pub fn add(&self, call: Call) {
        self.calls.lock().push(call);
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    /// How many calls of each kind came to what.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for call in self.calls.lock().iter() {
            *counts.entry(format!("{} {}", call.request.kind(), call.answer.word())).or_default() += 1;
        }
        counts
    }
}
