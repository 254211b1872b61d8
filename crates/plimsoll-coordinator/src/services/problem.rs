//! What went wrong, once: as a gRPC status for a call, as a failure inside a batch or stream.

use std::time::Duration;

use plimsoll_ledger::Refusal;
use plimsoll_proto::reason::Details;
use plimsoll_proto::v1::ErrorReason;
use plimsoll_proto::{convert, v1};
use plimsoll_types::Revision;

use crate::core::{BodyError, HistoryError, ReadError, SubmitError};

/// What went wrong with one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem(Box<Details>);

/// Advice where a leader is being elected.
const RETRY_ELECTION_MS: u64 = 200;
/// Advice where memory is short.
const RETRY_MEMORY_MS: u64 = 1_000;
/// Advice where the disk is full: that takes somebody to make room.
const RETRY_DISK_MS: u64 = 5_000;
/// Characters of a caller's path that are repeated to it.
const LONGEST_PATH: usize = 200;

impl Problem {
    /// A definite problem without more to say.
    pub(crate) fn new(reason: ErrorReason, message: impl Into<String>) -> Problem {
        Problem(Box::new(Details { definite: true, ..Details::new(reason, message) }))
    }

    /// Its reason.
    pub(crate) fn reason(&self) -> ErrorReason {
        self.0.reason
    }

    /// One wrong field.
    pub(crate) fn invalid(field: &str, what: impl Into<String>) -> Problem {
        Problem::violations(vec![(field.to_owned(), what.into())])
    }

    /// Every wrong field of a request.
    pub(crate) fn violations(violations: Vec<(String, String)>) -> Problem {
        let violation = |(field, description)| convert::Violation { field, description };
        Problem(Box::new(Details::invalid(violations.into_iter().map(violation).collect())))
    }

    /// Every wrong field of policy objects.
    pub(crate) fn policy(violations: Vec<convert::Violation>) -> Problem {
        let mut problem = Problem(Box::new(Details::invalid(violations)));
        problem.0.reason = ErrorReason::InvalidPolicy;
        problem
    }

    /// Every rule of the cluster's validators that does not hold.
    pub(crate) fn refused_by_validators(violations: Vec<convert::Violation>) -> Problem {
        let details = Details::refused_by_validators(violations);
        Problem(Box::new(Details { definite: true, ..details }))
    }

    /// Every wrong field of a part of a request, given by its path.
    pub(crate) fn fields(prefix: &str, violations: Vec<convert::Violation>) -> Problem {
        let path =
            |field: String| if field.is_empty() { prefix.to_owned() } else { format!("{prefix}.{field}") };
        let violations =
            violations.into_iter().map(|violation| (path(violation.field), violation.description));
        Problem::violations(violations.collect())
    }

    /// Nothing of that name.
    pub(crate) fn not_found(what: &str, name: &str) -> Problem {
        Problem::new(ErrorReason::NotFound, format!("no {what} {name:?}")).with("name", name)
    }

    /// This coordinator does not lead; the leader's address where it is known.
    pub(crate) fn not_leader(leader: Option<&str>) -> Problem {
        let problem = Problem::new(ErrorReason::NotLeader, "this coordinator is not the leader")
            .after(RETRY_ELECTION_MS);
        match leader {
            Some(address) => problem.with("leader", address),
            None => problem.because("no leader is known"),
        }
    }

    /// It may have been applied, or may yet be.
    pub(crate) fn outcome_unknown(why: &str) -> Problem {
        let message = format!("the outcome is unknown: {why}; ask again with the same request_id");
        let mut problem = Problem::new(ErrorReason::OutcomeUnknown, message);
        problem.0.definite = false;
        problem
    }

    /// Time is up. Where the call changes something, it may still do so.
    pub(crate) fn deadline(after: Duration, changes: bool) -> Problem {
        let mut problem =
            Problem::new(ErrorReason::Deadline, format!("no answer within {} ms", after.as_millis()));
        problem.0.definite = !changes;
        problem.with("deadline_ms", after.as_millis().to_string())
    }

    /// A request above the limit.
    pub(crate) fn too_large(limit: usize) -> Problem {
        let message = format!("the request is larger than {limit} bytes");
        Problem::new(ErrorReason::TooLarge, message).with("limit", limit.to_string())
    }

    /// A caller above its share.
    pub(crate) fn rate_limited(per_second: u64, retry_after_ms: u64) -> Problem {
        let message = format!("more than {per_second} calls per second from this caller");
        Problem::new(ErrorReason::RateLimited, message)
            .with("limit", per_second.to_string())
            .after(retry_after_ms)
    }

    /// The disk is nearly full.
    pub(crate) fn disk_short(free: u64) -> Problem {
        let message = format!("the disk is nearly full here: {free} bytes are free");
        let problem = Problem::new(ErrorReason::DiskFull, message).after(RETRY_DISK_MS);
        problem.with("disk_free_bytes", free.to_string())
    }

    /// More than this process may use of memory, nearly.
    pub(crate) fn memory_short(used: u64, budget: u64) -> Problem {
        let message = format!("memory is short here: {used} of {budget} bytes are used");
        let problem = Problem::new(ErrorReason::RateLimited, message).after(RETRY_MEMORY_MS);
        problem.with("memory_used_bytes", used.to_string()).with("memory_budget_bytes", budget.to_string())
    }

    /// Too much is kept for other watches that have just begun.
    pub(crate) fn watches_begin(objects: usize, limit: usize, retry_after_ms: u64) -> Problem {
        let message =
            format!("{objects} objects wait to be sent to watches that begin, at most {limit} are kept");
        let problem = Problem::new(ErrorReason::RateLimited, message).after(retry_after_ms);
        problem.with("objects", objects.to_string()).with("limit", limit.to_string())
    }

    /// As many dumps of the state as may be are being sent.
    pub(crate) fn dumps_unread(limit: usize, retry_after_ms: u64) -> Problem {
        let message = format!("{limit} dumps of the state are being read, and each keeps all of it");
        let problem = Problem::new(ErrorReason::RateLimited, message).after(retry_after_ms);
        problem.with("limit", limit.to_string())
    }

    /// Too much was answered that nobody has read yet.
    pub(crate) fn answers_unread(bytes: u64, limit: u64, retry_after_ms: u64) -> Problem {
        let message = format!("{bytes} bytes of pages wait to be read, at most {limit} are kept");
        let problem = Problem::new(ErrorReason::RateLimited, message).after(retry_after_ms);
        problem.with("unread_bytes", bytes.to_string()).with("limit", limit.to_string())
    }

    /// No cluster here yet.
    pub(crate) fn uninitialized() -> Problem {
        Problem::new(ErrorReason::ClusterUninitialized, "this coordinator is in no cluster yet")
            .after(RETRY_ELECTION_MS)
    }

    /// Not a method of this API, or not at this port.
    pub(crate) fn unimplemented(path: &str) -> Problem {
        let mut shown: String = path.chars().take(LONGEST_PATH).collect();
        if shown.len() < path.len() {
            shown.push_str("...");
        }
        Problem::new(ErrorReason::Unimplemented, format!("{shown} is not a method here"))
            .with("method", shown)
    }

    /// A running watch needs records that are gone.
    pub(crate) fn watcher_too_slow(wanted: Revision, first: Revision) -> Problem {
        let message = format!("the watch was at revision {wanted}, and the oldest that is kept is {first}");
        Problem::new(ErrorReason::WatcherTooSlow, message)
            .with("wanted", wanted.to_string())
            .with("first_revision", first.to_string())
    }

    /// A listener with TLS, and no certificate.
    pub(crate) fn no_certificate() -> Problem {
        Problem::new(
            ErrorReason::Unauthenticated,
            "a client certificate of this cluster's authority is needed",
        )
    }

    /// A call between coordinators by somebody else, or at the wrong port.
    pub(crate) fn not_a_coordinator() -> Problem {
        Problem::new(
            ErrorReason::PermissionDenied,
            "calls between coordinators are taken from coordinators only, at the peer port",
        )
    }

    /// A fault of ours.
    pub(crate) fn internal(message: impl Into<String>) -> Problem {
        let message = message.into();
        tracing::error!(%message, "internal error");
        Problem::new(ErrorReason::Internal, message)
    }

    /// The same with a reason added to the message.
    pub(crate) fn because(mut self, why: &str) -> Problem {
        self.0.message.push_str(": ");
        self.0.message.push_str(why);
        self
    }

    /// The same with one more value for machines.
    pub(crate) fn with(mut self, key: &str, value: impl Into<String>) -> Problem {
        self.0.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// The same with advice when to ask again.
    pub(crate) fn after(mut self, retry_after_ms: u64) -> Problem {
        self.0.retry_after_ms = retry_after_ms;
        self
    }

    /// What went wrong, for an answer about several things of which this is one; `None` where nobody knows what came of it, or another
    /// coordinator should be asked: that is for the whole call to say.
    pub(crate) fn of_one_thing(&self) -> Option<String> {
        (self.0.definite && !self.is_not_leader()).then(|| self.0.message.clone())
    }

    /// True where another coordinator, or this one a little later, may do it: nothing was or will be done here.
    pub(crate) fn is_not_leader(&self) -> bool {
        self.0.reason == ErrorReason::NotLeader && self.0.definite
    }

    /// The problem in the head of an answer, where it is one of ours.
    pub(crate) fn in_headers(headers: &http::HeaderMap) -> Option<Problem> {
        let status = tonic::Status::from_header_map(headers)?;
        Details::from_status(&status).map(|details| Problem(Box::new(details)))
    }

    /// As a gRPC status with all details.
    pub(crate) fn into_status(self) -> tonic::Status {
        self.0.into_status()
    }

    /// Inside a batch or stream.
    pub(crate) fn into_failure(self) -> v1::Failure {
        self.0.into_failure()
    }
}

impl From<Problem> for tonic::Status {
    fn from(problem: Problem) -> tonic::Status {
        problem.into_status()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        Problem(Box::new(Details::from(&refusal)))
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Problem {
        match error {
            SubmitError::NotLeader { leader } => {
                Problem::not_leader(leader.as_ref().map(|(_, address)| address.as_str()))
            }
            SubmitError::Unknown => {
                Problem::outcome_unknown("leadership changed while the command was in flight")
            }
            SubmitError::Overloaded { waiting, limit, retry_after_ms } => {
                let message = format!("the intake is full: {waiting} commands wait, {limit} may");
                let problem = Problem::new(ErrorReason::RateLimited, message).after(retry_after_ms);
                problem.with("waiting", waiting.to_string()).with("limit", limit.to_string())
            }
            SubmitError::TooLarge { what, given, limit } => {
                let message = format!("{given} {what} in one call, at most {limit} are taken");
                let problem = Problem::new(ErrorReason::TooLarge, message);
                problem.with("given", given.to_string()).with("limit", limit.to_string())
            }
            SubmitError::Stopped => Problem::new(ErrorReason::Unavailable, "the coordinator is stopping"),
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Problem {
        Problem::internal(error.to_string()).with("reservation", error.reservation.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Problem {
        let message = error.to_string();
        match error {
            ReadError::NoLeader { .. } | ReadError::Stopped => {
                Problem::new(ErrorReason::Unavailable, message).after(RETRY_ELECTION_MS)
            }
            ReadError::NoMember { members } => Problem::new(ErrorReason::Unavailable, message)
                .with("leader", members.first().cloned().unwrap_or_default())
                .with("members", members.join(",")),
            ReadError::TimedOut { wanted, applied } => Problem::new(ErrorReason::Unavailable, message)
                .with("wanted", wanted.to_string())
                .with("applied", applied.to_string()),
            ReadError::Body(error) => Problem::from(error),
            ReadError::Moved { wanted, applied } => Problem::new(ErrorReason::RevisionMoved, message)
                .with("wanted", wanted.to_string())
                .with("applied", applied.to_string()),
        }
    }
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Problem {
        let message = error.to_string();
        match error {
            HistoryError::Compacted { wanted, first } => Problem::new(ErrorReason::Compacted, message)
                .with("wanted", wanted.to_string())
                .with("first_revision", first.to_string()),
            HistoryError::TooEarly { first } => {
                Problem::new(ErrorReason::Compacted, message).with("first_revision", first.to_string())
            }
            HistoryError::Future { wanted, applied } => Problem::new(ErrorReason::FutureRevision, message)
                .with("wanted", wanted.to_string())
                .with("applied", applied.to_string()),
            HistoryError::Damaged { .. } => Problem::internal(message),
            HistoryError::Stopped => Problem::new(ErrorReason::Unavailable, message),
        }
    }
}
