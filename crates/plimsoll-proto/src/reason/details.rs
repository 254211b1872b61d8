//! One problem in full, and its forms: gRPC status with `google.rpc` details, failure inside a batch or stream.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_ledger::Refusal;
use prost::Message;
use tonic_types::{StatusExt, pb};

use super::registry;
use crate::convert;
use crate::v1::{Blocker, ErrorReason, Failure, FieldViolation};

/// Domain of every reason in `ErrorInfo`.
pub const DOMAIN: &str = "plimsoll.dev";

/// Page with a section for each reason, by its path in the repository.
pub const PAGE: &str = "docs/errors.md";

/// Key of the bit that says whether the outcome is known.
const DEFINITE: &str = "definite";
/// Keys of blockers in the metadata: this and a number.
const BLOCKER: &str = "blocker.";
/// Most blockers in a status. It travels in the trailers, which every HTTP/2 stack bounds (16 KiB here).
const MOST_BLOCKERS: usize = 24;
/// Most field violations in a status, for the same reason.
const MOST_VIOLATIONS: usize = 64;
/// Longest message in a status, in bytes, for the same reason.
const LONGEST_MESSAGE: usize = 2_048;

/// Everything that is said about a problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Details {
    /// The reason.
    pub reason: ErrorReason,
    /// One sentence for people. Every number in it is also in `blockers` or `metadata`.
    pub message: String,
    /// The request was not applied and never will be.
    pub definite: bool,
    /// Everything that stands in the way.
    pub blockers: Vec<Blocker>,
    /// Fields that make no sense: path and what is wrong.
    pub violations: Vec<(String, String)>,
    /// More values for machines.
    pub metadata: BTreeMap<String, String>,
    /// Ask again no sooner than after so many milliseconds; 0 for no advice.
    pub retry_after_ms: u64,
}

/// `google.rpc.ErrorInfo` with an ordered map, so that equal problems are equal bytes.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

impl Details {
    /// A definite problem without more to say.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Details {
        Details {
            reason,
            message: message.into(),
            definite: reason != ErrorReason::OutcomeUnknown,
            blockers: Vec::new(),
            violations: Vec::new(),
            metadata: BTreeMap::new(),
            retry_after_ms: 0,
        }
    }

    /// Every field of a request that makes no sense.
    pub fn invalid(violations: Vec<convert::Violation>) -> Details {
        let message = match &violations[..] {
            [] => "the request makes no sense".to_owned(),
            [one] => format!("{}: {}", one.field, one.description),
            [first, ..] => {
                format!(
                    "{} fields are wrong, the first is {}: {}",
                    violations.len(),
                    first.field,
                    first.description
                )
            }
        };
        let pairs =
            violations.into_iter().map(|violation| (violation.field, violation.description)).collect();
        Details { violations: pairs, ..Details::new(ErrorReason::InvalidArgument, message) }
    }

    /// Every rule of the cluster's validators that does not hold: the field that each is about, and what it says.
    pub fn refused_by_validators(violations: Vec<convert::Violation>) -> Details {
        let many = match violations.len() {
            0 | 1 => String::new(),
            count => format!("{count} rules do not hold, the first is "),
        };
        let first = violations.first().map(|first| format!("{}: {}", first.field, first.description));
        let message = format!("{many}{}", first.unwrap_or_else(|| "a rule does not hold".to_owned()));
        let pairs =
            violations.into_iter().map(|violation| (violation.field, violation.description)).collect();
        Details { violations: pairs, ..Details::new(ErrorReason::ValidationFailed, message) }
    }

    /// The same with one more value for machines.
    pub fn with(mut self, key: &str, value: impl ToString) -> Details {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// As a gRPC status. `ErrorInfo` is always there; `PreconditionFailure` for FAILED_PRECONDITION and PERMISSION_DENIED, and
    /// `QuotaFailure` for RESOURCE_EXHAUSTED have one violation per blocker; `BadRequest` has one per field; `RetryInfo` where there
    /// is such advice; `Help` says what to do. Very long lists are cut, and the metadata says how long they were.
    pub fn into_status(self) -> tonic::Status {
        let entry = registry::entry(self.reason);
        let mut details = vec![any("google.rpc.ErrorInfo", &self.error_info())];
        if let Some(detail) = self.retry_info() {
            details.push(any("google.rpc.RetryInfo", &detail));
        }
        let blockers = || self.blockers.iter().take(MOST_BLOCKERS);
        match entry.code {
            tonic::Code::FailedPrecondition | tonic::Code::PermissionDenied if !self.blockers.is_empty() => {
                let violation = |blocker: &Blocker| pb::precondition_failure::Violation {
                    r#type: registry::name(blocker.reason()).to_owned(),
                    subject: blocker.subject.clone(),
                    description: blocker.message.clone(),
                };
                let failure = pb::PreconditionFailure { violations: blockers().map(violation).collect() };
                details.push(any("google.rpc.PreconditionFailure", &failure));
            }
            tonic::Code::ResourceExhausted if !self.blockers.is_empty() => {
                let violation = |blocker: &Blocker| pb::quota_failure::Violation {
                    subject: blocker.subject.clone(),
                    description: blocker.message.clone(),
                    ..Default::default()
                };
                let failure = pb::QuotaFailure { violations: blockers().map(violation).collect() };
                details.push(any("google.rpc.QuotaFailure", &failure));
            }
            _ => {}
        }
        let bad_request = self.bad_request();
        if !bad_request.field_violations.is_empty() {
            details.push(any("google.rpc.BadRequest", &bad_request));
        }
        let link = pb::help::Link {
            description: entry.advice.to_owned(),
            url: format!("{PAGE}#{}", registry::name(self.reason)),
        };
        details.push(any("google.rpc.Help", &pb::Help { links: vec![link] }));

        let mut message = self.message;
        truncate(&mut message, LONGEST_MESSAGE);
        let status = pb::Status { code: entry.code as i32, message: message.clone(), details };
        tonic::Status::with_details(entry.code, message, status.encode_to_vec().into())
    }

    /// Reads a status of ours back; `None` where it carries no reason of [`DOMAIN`], such as one made by a proxy or by
    /// the transport. A reason that this build does not know reads as `Unspecified`.
    pub fn from_status(status: &tonic::Status) -> Option<Details> {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
        let mut metadata: BTreeMap<String, String> = info.metadata.into_iter().collect();
        let definite = metadata.remove(DEFINITE).is_some_and(|value| value == "true");
        let blockers = take_blockers(&mut metadata);
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        let delay = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
        Some(Details {
            reason: registry::from_name(&info.reason).unwrap_or(ErrorReason::Unspecified),
            message: status.message().to_owned(),
            definite,
            blockers,
            violations: violations.into_iter().map(|field| (field.field, field.description)).collect(),
            metadata,
            retry_after_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Inside a batch or stream.
    pub fn into_failure(self) -> Failure {
        let field = |(field, description)| FieldViolation { field, description };
        Failure {
            code: registry::code(self.reason) as i32,
            reason: self.reason.into(),
            message: self.message,
            definite: self.definite,
            blockers: self.blockers,
            field_violations: self.violations.into_iter().map(field).collect(),
            retry_after_ms: self.retry_after_ms,
            metadata: self.metadata,
        }
    }

    /// Reads a failure back.
    pub fn from_failure(failure: Failure) -> Details {
        let pair = |violation: FieldViolation| (violation.field, violation.description);
        Details {
            reason: failure.reason(),
            message: failure.message,
            definite: failure.definite,
            blockers: failure.blockers,
            violations: failure.field_violations.into_iter().map(pair).collect(),
            metadata: failure.metadata,
            retry_after_ms: failure.retry_after_ms,
        }
    }

    fn error_info(&self) -> ErrorInfo {
        let mut metadata = self.metadata.clone();
        metadata.insert(DEFINITE.to_owned(), self.definite.to_string());
        for (position, blocker) in self.blockers.iter().take(MOST_BLOCKERS).enumerate() {
            metadata.insert(format!("{BLOCKER}{position}"), blocker_text(blocker));
        }
        if self.blockers.len() > MOST_BLOCKERS {
            metadata.insert("blockers".to_owned(), self.blockers.len().to_string());
        }
        if self.violations.len() > MOST_VIOLATIONS {
            metadata.insert("violations".to_owned(), self.violations.len().to_string());
        }
        ErrorInfo { reason: registry::name(self.reason).to_owned(), domain: DOMAIN.to_owned(), metadata }
    }

    fn retry_info(&self) -> Option<pb::RetryInfo> {
        // A moved revision may be tried again at once: after reading.
        if self.retry_after_ms == 0 && self.reason != ErrorReason::RevisionMoved {
            return None;
        }
        let delay = Duration::from_millis(self.retry_after_ms);
        Some(pb::RetryInfo { retry_delay: prost_types::Duration::try_from(delay).ok() })
    }

    /// Fields of the request, or what the ledger itself found wrong with them.
    fn bad_request(&self) -> pb::BadRequest {
        let violation = |field: &str, description: &str| pb::bad_request::FieldViolation {
            field: field.to_owned(),
            description: description.to_owned(),
            ..Default::default()
        };
        let mut fields: Vec<_> =
            self.violations.iter().map(|(field, description)| violation(field, description)).collect();
        if registry::code(self.reason) == tonic::Code::InvalidArgument {
            fields.extend(self.blockers.iter().map(|blocker| violation(&blocker.subject, &blocker.message)));
        }
        fields.truncate(MOST_VIOLATIONS);
        pb::BadRequest { field_violations: fields }
    }
}

impl From<&Refusal> for Details {
    fn from(refusal: &Refusal) -> Details {
        let reason = convert::reason_to_v1(refusal.reason);
        let blockers: Vec<Blocker> = refusal.blockers.iter().map(convert::blocker_to_v1).collect();
        let message = match &blockers[..] {
            [] => registry::describe(reason).to_owned(),
            [one] => one.message.clone(),
            [first, rest @ ..] => format!("{} (and {} more)", first.message, rest.len()),
        };
        Details { blockers, ..Details::new(reason, message) }
    }
}

impl From<Details> for tonic::Status {
    fn from(details: Details) -> tonic::Status {
        details.into_status()
    }
}

fn any(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

/// A blocker on one line of metadata. The free texts come last: the subject to the tab, the message to the end.
fn blocker_text(blocker: &Blocker) -> String {
    format!(
        "{} asked={} available={} limit={} nodes={} {}\t{}",
        registry::name(blocker.reason()),
        blocker.asked,
        blocker.available,
        blocker.limit,
        blocker.nodes,
        blocker.subject,
        blocker.message
    )
}

/// Takes the blockers out of metadata again. What cannot be read is left where it is.
fn take_blockers(metadata: &mut BTreeMap<String, String>) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    while let Some(blocker) =
        metadata.get(&format!("{BLOCKER}{}", blockers.len())).and_then(|text| parse_blocker(text))
    {
        metadata.remove(&format!("{BLOCKER}{}", blockers.len()));
        blockers.push(blocker);
    }
    blockers
}

fn parse_blocker(text: &str) -> Option<Blocker> {
    let mut parts = text.splitn(6, ' ');
    let reason = registry::from_name(parts.next()?).unwrap_or(ErrorReason::Unspecified);
    let mut number = |key: &str| parts.next()?.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok();
    let (asked, available, limit) = (number("asked")?, number("available")?, number("limit")?);
    let nodes = u32::try_from(number("nodes")?).ok()?;
    let (subject, message) = parts.next()?.split_once('\t')?;
    Some(Blocker {
        reason: reason.into(),
        subject: subject.to_owned(),
        message: message.to_owned(),
        asked,
        available,
        limit,
        nodes,
    })
}

/// Cuts at a character's boundary.
fn truncate(text: &mut String, most: usize) {
    if text.len() > most {
        let cut = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Blocker as LedgerBlocker, Reason};
    use tonic::Code;

    use super::*;

    fn refusal(reason: Reason, count: u64) -> Refusal {
        let blocker = |n| LedgerBlocker {
            limit: 100,
            nodes: 3,
            ..LedgerBlocker::new(reason, format!("license/a b {n}"), 10 + n, n)
        };
        Refusal { reason, blockers: (0..count).map(blocker).collect() }
    }

    #[test]
    fn refusals_survive_the_way_through_a_status_with_every_number() {
        for reason in [Reason::NoCapacity, Reason::Infeasible, Reason::Fenced, Reason::InvalidArgument] {
            let details =
                Details { retry_after_ms: 1_500, ..Details::from(&refusal(reason, 3)).with("revision", 42) };
            let status = details.clone().into_status();
            let mut back = Details::from_status(&status).unwrap();
            if reason == Reason::InvalidArgument {
                assert_eq!(back.violations.len(), 3, "what the ledger found wrong is listed as fields too");
                back.violations.clear();
            }
            assert_eq!(back, details);
        }
    }

    #[test]
    fn the_details_are_those_of_the_table_in_the_conventions() {
        let status = Details::from(&refusal(Reason::Infeasible, 2)).into_status();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.get_details_precondition_failure().unwrap().violations.len(), 2);
        let help = status.get_details_help().unwrap();
        assert_eq!(help.links[0].url, "docs/errors.md#INFEASIBLE");

        let status = Details::from(&refusal(Reason::QueueFull, 1)).into_status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.get_details_quota_failure().unwrap().violations.len(), 1);

        let status = Details::from(&refusal(Reason::RevisionMoved, 1)).into_status();
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::ZERO));

        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("REVISION_MOVED", DOMAIN));
        assert_eq!(info.metadata["definite"], "true");
    }

    #[test]
    fn an_unknown_outcome_is_never_called_definite() {
        let status = Details::new(ErrorReason::OutcomeUnknown, "leadership changed").into_status();
        assert!(!Details::from_status(&status).unwrap().definite);
        assert_eq!(Details::from_status(&tonic::Status::unavailable("gone")), None);
    }

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let status = Details::from(&refusal(Reason::NoCapacity, 1_000)).into_status();
        assert!(status.details().len() < 12_000, "{}", status.details().len());
        let back = Details::from_status(&status).unwrap();
        assert_eq!((back.blockers.len(), back.metadata["blockers"].as_str()), (MOST_BLOCKERS, "1000"));
    }

    #[test]
    fn failures_read_back() {
        let details = Details::from(&refusal(Reason::NoCapacity, 2)).with("a", 1);
        assert_eq!(Details::from_failure(details.clone().into_failure()), details);
    }

    #[test]
    fn equal_problems_are_equal_bytes() {
        let make = || Details::from(&refusal(Reason::NoCapacity, 20)).into_status().details().to_vec();
        assert_eq!(make(), make());
    }
}
