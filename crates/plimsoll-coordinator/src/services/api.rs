//! What every service works with: the core, and the ways in which requests use it.

use plimsoll_ledger::{Answer, Outcome};
use plimsoll_proto::{convert, v1};
use plimsoll_types::Revision;
use tokio::time::Instant;

use super::intent::Intent;
use super::problem::Problem;
use crate::core::{Consistency, Core, LedgerView};
use crate::telemetry::Calls;

/// A handle that every service has a clone of.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) core: Core,
    pub(crate) calls: Calls,
}

impl Api {
    /// Does what a client wants, or only decides it. A refusal is a problem here.
    pub(crate) async fn submit(&self, intent: Intent) -> Result<Answer, Problem> {
        let answer = if intent.validate_only {
            self.core.validate_only(intent.entry).await
        } else {
            let began = Instant::now();
            let answer = self.core.submit(intent.entry).await;
            self.calls.granted(began.elapsed(), 1);
            answer
        };
        settle(answer.map_err(Problem::from)?)
    }

    /// Does many things together; answers in their order. Those that could not be read are answered too.
    pub(crate) async fn submit_many(
        &self,
        intents: Vec<Result<Intent, Problem>>,
    ) -> Vec<Result<Answer, Problem>> {
        let mut answers: Vec<Option<Result<Answer, Problem>>> = Vec::with_capacity(intents.len());
        let mut entries = Vec::with_capacity(intents.len());
        let mut places = Vec::with_capacity(intents.len());
        for intent in intents {
            match intent {
                Ok(intent) if intent.validate_only => {
                    let answer = self.core.validate_only(intent.entry).await;
                    answers.push(Some(answer.map_err(Problem::from).and_then(settle)));
                }
                Ok(intent) => {
                    places.push(answers.len());
                    entries.push(intent.entry);
                    answers.push(None);
                }
                Err(problem) => answers.push(Some(Err(problem))),
            }
        }
        if !entries.is_empty() {
            let (began, count) = (Instant::now(), entries.len());
            for (place, answer) in places.into_iter().zip(self.core.submit_many(entries).await) {
                answers[place] = Some(answer.map_err(Problem::from).and_then(settle));
            }
            self.calls.granted(began.elapsed(), count);
        }
        let missing = || Err(Problem::internal("the core left a command without an answer"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }

    /// The ledger as fresh as asked.
    pub(crate) async fn read(&self, consistency: i32, min_revision: u64) -> Result<LedgerView<'_>, Problem> {
        Ok(self.core.read(read_consistency(consistency)?, Revision(min_revision)).await?)
    }

    /// The reservation of an answer that must have one, as the API shows it.
    pub(crate) fn reservation_of(&self, answer: &Answer) -> Result<v1::Reservation, Problem> {
        match &answer.outcome {
            Outcome::Reservation(reservation) => {
                Ok(convert::reservation_to_v1(reservation, &self.core.local()))
            }
            other => Err(Problem::internal(format!("an answer without a reservation: {other:?}"))),
        }
    }
}

/// How fresh a read must be.
pub(crate) fn read_consistency(consistency: i32) -> Result<Consistency, Problem> {
    match v1::Consistency::try_from(consistency) {
        Ok(v1::Consistency::Unspecified | v1::Consistency::Linearizable) => Ok(Consistency::Linearizable),
        Ok(v1::Consistency::Stale) => Ok(Consistency::Stale),
        Err(_) => Err(Problem::invalid("consistency", format!("{consistency} is not a consistency"))),
    }
}

/// A refusal is a problem for the caller, with the revision that it was decided at.
fn settle(answer: Answer) -> Result<Answer, Problem> {
    match answer.outcome {
        Outcome::Refused(refusal) => {
            Err(Problem::from(refusal).with("revision", answer.revision.to_string()))
        }
        _ => Ok(answer),
    }
}
