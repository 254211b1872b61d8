//! Answers of calls, as far as the client looks into them.

use plimsoll_proto::reason::{self as registry, Retry};
use plimsoll_proto::v1::{self as api, ErrorReason, Failure};

/// The answer of a call.
pub(crate) trait Answer {
    /// An earlier attempt may still be done: what says "not here, ask elsewhere" is no "no" then.
    fn doubt(&mut self) {}
}

/// Implements [`Answer`] for answers with one result for each part of the call.
macro_rules! batches {
    ($($response:ident, $result:ident;)*) => {
        $(impl Answer for api::$response {
            fn doubt(&mut self) {
                for result in &mut self.results {
                    if let Some(api::$result::Result::Failure(failure)) = &mut result.result {
                        doubt(failure);
                    }
                }
            }
        })*
    };
}

batches! {
    BatchCreateReservationsResponse, batch_create_reservations_result;
    BatchRenewReservationsResponse, batch_renew_reservations_result;
    BatchReleaseReservationsResponse, batch_release_reservations_result;
}

/// Turns a definite "try again" into an unknown outcome.
fn doubt(failure: &mut Failure) {
    let reason = failure.reason();
    if failure.definite && registry::retry(reason) == Retry::Again {
        let name = registry::name(reason);
        failure.message =
            format!("an earlier attempt may have been done; the last one said {name}: {}", failure.message);
        failure.definite = false;
        failure.code = tonic::Code::Unknown as i32;
        failure.set_reason(ErrorReason::OutcomeUnknown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refused;

    fn failure(reason: ErrorReason) -> api::BatchCreateReservationsResult {
        let mut failure = Failure { definite: true, ..Failure::default() };
        failure.set_reason(reason);
        let result = Some(api::batch_create_reservations_result::Result::Failure(failure));
        api::BatchCreateReservationsResult { result }
    }

    #[test]
    fn only_what_says_ask_again_becomes_unknown() {
        let results = vec![failure(ErrorReason::NotLeader), failure(ErrorReason::Infeasible)];
        let mut answer = api::BatchCreateReservationsResponse { results, ..Default::default() };
        answer.doubt();
        let refused: Vec<Refused> = answer
            .results
            .into_iter()
            .filter_map(|result| match result.result {
                Some(api::batch_create_reservations_result::Result::Failure(failure)) => Some(failure),
                _ => None,
            })
            .map(Refused::from_failure)
            .collect();
        assert_eq!((refused[0].reason, refused[0].definite), (ErrorReason::OutcomeUnknown, false));
        assert!(refused[0].message.contains("NOT_LEADER"), "{}", refused[0].message);
        assert_eq!((refused[1].reason, refused[1].definite), (ErrorReason::Infeasible, true));
    }
}
