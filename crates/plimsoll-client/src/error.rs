//! What can go wrong, told apart by what it means for the caller: refused, unknown, unreachable.

use std::collections::BTreeMap;

use plimsoll_proto::reason::{self as registry, Details};
use plimsoll_proto::v1::{Blocker, ErrorReason, Failure};
use tonic::{Code, Status};

/// Why a call did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The coordinators answered, and the answer is no.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// It may have been done or may yet be: ask again with the same request id to learn which.
    #[error("outcome of request {request_id} is unknown: {message}")]
    Unknown {
        /// Idempotency key of the request; the same key never has a second effect.
        request_id: String,
        /// What went wrong on the way.
        message: String,
    },
    /// No coordinator did it before the deadline, and none ever will: nothing was changed.
    #[error("no coordinator answered: {message}")]
    Unavailable {
        /// What went wrong on the way.
        message: String,
        /// Reason where a coordinator gave one.
        reason: Option<ErrorReason>,
    },
    /// The request makes no sense and was not sent.
    #[error("{0}")]
    Invalid(String),
    /// The lease is over: whatever ran under it must stop.
    #[error("lease of {reservation} is lost: {message}")]
    LeaseLost {
        /// Id of the reservation.
        reservation: String,
        /// How it was lost.
        message: String,
    },
}

/// A coordinator's "no", with everything that stands in the way.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// gRPC code.
    pub code: Code,
    /// What is wrong, in words.
    pub message: String,
    /// The first reason that applies; unspecified where the answer came from elsewhere, such as a proxy.
    pub reason: ErrorReason,
    /// Everything that stands in the way.
    pub blockers: Vec<Blocker>,
    /// Fields that are wrong, with what is wrong with each.
    pub violations: Vec<(String, String)>,
    /// Every number of the message.
    pub metadata: BTreeMap<String, String>,
    /// Not applied and never will be.
    pub definite: bool,
    /// Advice on when to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Error {
    /// The public reason, where there is one.
    pub fn reason(&self) -> Option<ErrorReason> {
        match self {
            Error::Refused(refused) if refused.reason != ErrorReason::Unspecified => Some(refused.reason),
            Error::Refused(_) | Error::Invalid(_) => None,
            Error::Unknown { .. } => Some(ErrorReason::OutcomeUnknown),
            Error::Unavailable { reason, .. } => Some(reason.unwrap_or(ErrorReason::Unavailable)),
            Error::LeaseLost { .. } => Some(ErrorReason::Fenced),
        }
    }

    /// The public reason's name without prefix, such as `NO_CAPACITY`.
    pub fn reason_name(&self) -> &'static str {
        self.reason().map_or("ERROR", reason_name)
    }

    /// What stands in the way; empty where that is not known.
    pub fn blockers(&self) -> &[Blocker] {
        match self {
            Error::Refused(refused) => &refused.blockers,
            _ => &[],
        }
    }

    /// True where nothing was changed and nothing will be; false where it may still be.
    pub fn is_definite(&self) -> bool {
        match self {
            Error::Refused(refused) => refused.definite,
            Error::Unknown { .. } => false,
            Error::Unavailable { .. } | Error::Invalid(_) | Error::LeaseLost { .. } => true,
        }
    }

    /// gRPC code that fits.
    pub fn code(&self) -> Code {
        match self {
            Error::Refused(refused) => refused.code,
            Error::Unknown { .. } => Code::Unknown,
            Error::Unavailable { .. } => Code::Unavailable,
            Error::Invalid(_) => Code::InvalidArgument,
            Error::LeaseLost { .. } => Code::FailedPrecondition,
        }
    }

    /// Process exit code that fits, as docs/exit-codes has it.
    pub fn exit_code(&self) -> u8 {
        match (self.reason(), self.code()) {
            (Some(reason), _) => registry::exit_code(reason),
            (None, Code::Unauthenticated | Code::PermissionDenied) => 4,
            (None, Code::NotFound) => 5,
            (None, Code::Aborted) => 6,
            (None, Code::Unavailable | Code::DeadlineExceeded) => 8,
            (None, _) if matches!(self, Error::Invalid(_)) => 2,
            (None, _) => 1,
        }
    }

    /// What to do about it, in one line.
    pub fn advice(&self) -> Option<&'static str> {
        self.reason().map(|reason| registry::entry(reason).advice)
    }
}

impl Refused {
    /// Reads a status and its details.
    pub fn from_status(status: &Status) -> Refused {
        match Details::from_status(status) {
            Some(details) => Refused::new(status.code(), details),
            None => Refused {
                code: status.code(),
                message: status.message().to_owned(),
                reason: ErrorReason::Unspecified,
                blockers: Vec::new(),
                violations: Vec::new(),
                metadata: BTreeMap::new(),
                definite: is_definite_code(status.code()),
                retry_after_ms: None,
            },
        }
    }

    /// Reads one answer of a batch or stream.
    pub fn from_failure(failure: Failure) -> Refused {
        let code = Code::from_i32(failure.code);
        Refused::new(code, Details::from_failure(failure))
    }

    fn new(code: Code, details: Details) -> Refused {
        Refused {
            code,
            message: details.message,
            reason: details.reason,
            blockers: details.blockers,
            violations: details.violations,
            metadata: details.metadata,
            definite: details.definite,
            retry_after_ms: Some(details.retry_after_ms).filter(|ms| *ms > 0),
        }
    }

    /// As a gRPC status with all details, for whoever passes it on.
    pub fn to_status(&self) -> Status {
        if self.reason == ErrorReason::Unspecified {
            return Status::new(self.code, self.message.clone());
        }
        self.details().into_status()
    }

    fn details(&self) -> Details {
        Details {
            reason: self.reason,
            message: self.message.clone(),
            definite: self.definite,
            blockers: self.blockers.clone(),
            violations: self.violations.clone(),
            metadata: self.metadata.clone(),
            retry_after_ms: self.retry_after_ms.unwrap_or(0),
        }
    }

    /// Address of the leader, where the one that answered is not it and knows.
    pub fn leader(&self) -> Option<&str> {
        self.metadata.get("leader").map(String::as_str).filter(|address| !address.is_empty())
    }
}

/// The name of a reason without its prefix, as `ErrorInfo.reason` carries it.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    registry::name(reason)
}

/// Codes that a service gives before it does anything.
fn is_definite_code(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_a_status_are_read_back() {
        let blocker = Blocker {
            reason: ErrorReason::NoCapacity.into(),
            subject: "cpu".into(),
            asked: 4,
            ..Blocker::default()
        };
        let details =
            Details { blockers: vec![blocker.clone()], ..Details::new(ErrorReason::Infeasible, "no") };
        let refused = Refused::from_status(&details.with("leader", "h:1").into_status());
        assert_eq!(refused.reason, ErrorReason::Infeasible);
        assert_eq!(refused.blockers, [blocker]);
        assert_eq!(refused.leader(), Some("h:1"));
        assert_eq!(Refused::from_status(&refused.to_status()), refused);
        let error = Error::Refused(Box::new(refused));
        assert_eq!((error.exit_code(), error.reason_name(), error.is_definite()), (7, "INFEASIBLE", true));
    }

    #[test]
    fn what_is_not_known_to_be_definite_is_not_called_so() {
        let unknown = Details::new(ErrorReason::OutcomeUnknown, "?").into_status();
        assert!(!Refused::from_status(&unknown).definite);
        assert!(!Refused::from_status(&Status::unavailable("gone")).definite);
        assert!(!Refused::from_status(&Status::internal("?")).definite);
        assert!(Refused::from_status(&Status::not_found("x")).definite);
    }
}
