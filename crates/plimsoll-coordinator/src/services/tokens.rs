//! `TakeTokens`: many takes in one call, each a command of its own, together one entry of the log.

use plimsoll_ledger::{Answer, Command, Outcome, Tokens};
use plimsoll_proto::v1::{self, ErrorReason};

use super::api::Api;
use super::edge::Actor;
use super::intent::Intent;
use super::problem::Problem;

/// Most takes in one call.
const MOST_TAKES: usize = 1_000;

/// Does all takes of a call; results in their order.
pub(super) async fn take(
    api: &Api,
    actor: &Actor,
    request: v1::TakeTokensRequest,
) -> Result<Vec<v1::TokenResult>, Problem> {
    let many = request.takes.len();
    if many == 0 || many > MOST_TAKES {
        return Err(Problem::invalid("takes", format!("1 to {MOST_TAKES} are taken, {many} are given")));
    }
    let intent = |(place, take): (usize, &v1::TokenTake)| match request.request_id.as_str() {
        "" => intent(actor, String::new(), take),
        id => intent(actor, format!("{id}/{place}"), take),
    };
    let intents = request.takes.iter().enumerate().map(intent).collect();
    let answers = api.submit_many(intents).await;
    let results = answers.into_iter().zip(&request.takes).map(|(answer, take)| result(answer, take));
    Ok(results.collect())
}

/// Does one take, which nobody will ask for again.
pub(super) async fn take_one(api: &Api, actor: &Actor, take: &v1::TokenTake) -> Result<Tokens, Problem> {
    told(api.submit(intent(actor, String::new(), take)?).await)
}

fn intent(actor: &Actor, request_id: String, take: &v1::TokenTake) -> Result<Intent, Problem> {
    let command = Command::TakeTokens {
        quota: take.quota.clone(),
        rate: take.rate.clone(),
        scope: take.scope.clone(),
        tokens: take.tokens.max(1),
    };
    Intent::of_command(actor, "take-tokens", request_id, false, take, command)
}

fn told(answer: Result<Answer, Problem>) -> Result<Tokens, Problem> {
    match answer?.outcome {
        Outcome::Tokens(told) => Ok(told),
        _ => Err(Problem::internal("a take came to something else")),
    }
}

fn result(answer: Result<Answer, Problem>, take: &v1::TokenTake) -> v1::TokenResult {
    let told = match told(answer) {
        Ok(told) => told,
        Err(problem) => {
            return v1::TokenResult { failure: Some(problem.into_failure()), ..v1::TokenResult::default() };
        }
    };
    let failure = (told.taken == 0).then(|| empty(&told, take).into_failure());
    v1::TokenResult { taken: told.taken, left: told.left, failure }
}

/// No tokens now, and when there are.
fn empty(told: &Tokens, take: &v1::TokenTake) -> Problem {
    let asked = take.tokens.max(1);
    let rate = format!("{}/{}", take.quota, take.rate);
    if told.retry_after_ms == u64::MAX {
        let message = format!("{rate}: {asked} tokens asked, more than its burst: never so many at once");
        return Problem::new(ErrorReason::RateExceeded, message).with("left", told.left.to_string());
    }
    let message =
        format!("{rate}: {asked} tokens asked, {} left; again in {} ms", told.left, told.retry_after_ms);
    let problem = Problem::new(ErrorReason::RateExceeded, message).after(told.retry_after_ms);
    problem.with("left", told.left.to_string())
}
