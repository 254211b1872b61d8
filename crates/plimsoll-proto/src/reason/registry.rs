//! The table of reasons.

use tonic::Code;

use crate::v1::ErrorReason;

/// What is fixed about a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// gRPC code.
    pub code: Code,
    /// Exit code of the command line.
    pub exit_code: u8,
    /// What a caller may do next.
    pub retry: Retry,
    /// What it means, in one line.
    pub description: &'static str,
    /// What to do, in one line.
    pub advice: &'static str,
}

/// What a caller may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request will be refused again.
    Never,
    /// The same request may succeed later, after a back-off. Not done by the SDKs by themselves.
    Later,
    /// The SDKs ask again, with the same request id, at another coordinator if they know one.
    Again,
    /// The caller must look at the present state first.
    AfterRead,
}

/// Shorthand for one row of the table.
const fn row(
    code: Code,
    exit_code: u8,
    retry: Retry,
    description: &'static str,
    advice: &'static str,
) -> Entry {
    Entry { code, exit_code, retry, description, advice }
}

/// The row of a reason.
pub const fn entry(reason: ErrorReason) -> Entry {
    use Retry::{AfterRead, Again, Later, Never};
    match reason {
        ErrorReason::Unspecified => row(
            Code::Unknown,
            1,
            Never,
            "no reason was given",
            "look at the message; an older or newer coordinator may have sent it",
        ),
        ErrorReason::Infeasible => row(
            Code::FailedPrecondition,
            7,
            Never,
            "nothing that exists can ever hold the request",
            "ask for less, or add a node that can hold it; `plimsoll explain` names the smallest change",
        ),
        ErrorReason::NoCapacity => row(
            Code::ResourceExhausted,
            1,
            Later,
            "there is not enough free now",
            "wait in the queue, ask for less, or ask again later",
        ),
        ErrorReason::QueueFull => row(
            Code::ResourceExhausted,
            1,
            Later,
            "the queue of the pool is full",
            "ask again later, or raise the pool's max_pending",
        ),
        ErrorReason::InvalidArgument => row(
            Code::InvalidArgument,
            2,
            Never,
            "a field of the request makes no sense",
            "correct every field that is listed",
        ),
        ErrorReason::InvalidPolicy => row(
            Code::InvalidArgument,
            2,
            Never,
            "a policy object makes no sense",
            "correct every field that is listed; nothing was changed",
        ),
        ErrorReason::RevisionMoved => row(
            Code::Aborted,
            6,
            AfterRead,
            "something changed after the revision given",
            "read again, look at the difference, and repeat with the new revision",
        ),
        ErrorReason::Fenced => row(
            Code::FailedPrecondition,
            6,
            Never,
            "the token or incarnation is not the current one",
            "stop using the resources: somebody else may have them; ask for a new reservation",
        ),
        ErrorReason::NotLeader => row(
            Code::Unavailable,
            8,
            Again,
            "this coordinator does not lead and could not pass the call on",
            "ask again; metadata `leader` has the leader's address where it is known",
        ),
        ErrorReason::OutcomeUnknown => row(
            Code::Unknown,
            8,
            Again,
            "the request may have been applied",
            "ask again with the same request_id: it never has a second effect",
        ),
        ErrorReason::RateLimited => row(
            Code::ResourceExhausted,
            1,
            Again,
            "too many requests at once",
            "ask again after the delay given, and slow down",
        ),
        ErrorReason::NotFound => row(
            Code::NotFound,
            5,
            Never,
            "no such reservation, node, member or object",
            "list what there is; what has ended is forgotten after a while",
        ),
        ErrorReason::KeyConflict => row(
            Code::AlreadyExists,
            6,
            Never,
            "the request_id was used for another request",
            "use a new request_id for a new request",
        ),
        ErrorReason::WrongState => row(
            Code::FailedPrecondition,
            1,
            AfterRead,
            "the state does not allow it",
            "read the object and look at its state",
        ),
        ErrorReason::Expired => {
            row(Code::FailedPrecondition, 1, Never, "the deadline has passed", "ask for a new reservation")
        }
        ErrorReason::AlreadyExists => row(
            Code::AlreadyExists,
            6,
            AfterRead,
            "it exists already, with other content",
            "read it; choose another name or change it in place",
        ),
        ErrorReason::NodeNotAvailable => row(
            Code::FailedPrecondition,
            1,
            Later,
            "the node takes no new work",
            "uncordon it, wait until it is heard of again, or use another node",
        ),
        ErrorReason::ClusterUninitialized => row(
            Code::Unavailable,
            8,
            Again,
            "the coordinator is in no cluster yet",
            "bootstrap it, or add it to a cluster: `plimsoll cluster join`",
        ),
        ErrorReason::ChangeInProgress => row(
            Code::Aborted,
            6,
            Later,
            "another membership change is under way",
            "ask again when `plimsoll cluster status` shows that it is done",
        ),
        ErrorReason::Compacted => row(
            Code::OutOfRange,
            1,
            AfterRead,
            "that part of the history is no longer kept",
            "list the present state, then watch from its revision plus one",
        ),
        ErrorReason::Unavailable => row(
            Code::Unavailable,
            8,
            Again,
            "no quorum, or the coordinator is stopping or not ready",
            "ask again, at another coordinator if there is one",
        ),
        ErrorReason::Deadline => row(
            Code::DeadlineExceeded,
            8,
            Later,
            "the call's deadline passed",
            "ask again with the same request_id and more time",
        ),
        ErrorReason::TooLarge => row(
            Code::InvalidArgument,
            2,
            Never,
            "a message is above its limit",
            "send less at once; the limit is in the metadata",
        ),
        ErrorReason::UnsupportedVersion => row(
            Code::FailedPrecondition,
            1,
            Never,
            "the ledger version in force does not know this",
            "upgrade all coordinators, then raise the ledger version",
        ),
        ErrorReason::CountableExhausted => row(
            Code::ResourceExhausted,
            1,
            Later,
            "a countable of the pool is used up",
            "wait in the queue, or raise the pool's total",
        ),
        ErrorReason::ClassNotFound => {
            row(Code::NotFound, 5, Never, "no such class", "list the classes: `plimsoll get classes`")
        }
        ErrorReason::PoolNotFound => {
            row(Code::NotFound, 5, Never, "no such pool", "list the pools: `plimsoll get pools`")
        }
        ErrorReason::QueueNotFound => {
            row(Code::NotFound, 5, Never, "no such queue", "list the queues: `plimsoll get queues`")
        }
        ErrorReason::ServiceNotFound => {
            row(Code::NotFound, 5, Never, "no such service", "list the services: `plimsoll get services`")
        }
        ErrorReason::NoEndpoint => row(
            Code::Unavailable,
            1,
            Later,
            "no endpoint of the service may be given a request",
            "look who is there and why not: `plimsoll get endpoints SERVICE`; start replicas: `plimsoll run --service SERVICE --listen HOST:PORT -- CMD`",
        ),
        ErrorReason::QuotaExceeded => row(
            Code::ResourceExhausted,
            1,
            Later,
            "the queue, or one above it, has not enough quota left",
            "wait in the queue, ask for less, or raise its quota: `plimsoll describe queue NAME` shows what is taken",
        ),
        ErrorReason::NotPreemptible => row(
            Code::FailedPrecondition,
            1,
            Later,
            "the rules do not let it be taken back for that reservation, or not now",
            "wait, or change the pool's `preemption`, the class or the queue's quota",
        ),
        ErrorReason::AwaitsPreemption => row(
            Code::ResourceExhausted,
            1,
            Later,
            "another reservation was given notice and still has its place",
            "wait: the place is kept, and the notice ends",
        ),
        ErrorReason::AwaitsBatch => row(
            Code::ResourceExhausted,
            1,
            Later,
            "its queue decides in batches, and this one is full or began before it came",
            "wait in the queue: `plimsoll describe queue NAME` shows how many are granted at a time, and when",
        ),
        ErrorReason::AwaitsHours => row(
            Code::ResourceExhausted,
            1,
            Later,
            "it prefers hours that have not come, and has not waited long enough to start at others",
            "wait: `plimsoll get schedules` shows when they come; or ask without --prefer-hours, or with a shorter --longest-wait",
        ),
        ErrorReason::SpotShare => row(
            Code::ResourceExhausted,
            1,
            Later,
            "so much of the same work is on spot nodes, or in one spot pool, as may be",
            "wait until more of it is on other nodes, allow other nodes, or raise `spot.share` of the pool or queue",
        ),
        ErrorReason::Overflowed => row(
            Code::ResourceExhausted,
            1,
            Later,
            "others of its queue go before it and are set aside, or it is itself",
            "wait in the queue, or raise its `maxPending`: `plimsoll describe queue NAME` shows how many are set aside",
        ),
        ErrorReason::Preempted => row(
            Code::Aborted,
            1,
            Later,
            "its grant was taken back",
            "wait: it has its old place in the queue; a higher class or quota of its own would protect it",
        ),
        ErrorReason::LimitExceeded => row(
            Code::ResourceExhausted,
            1,
            Later,
            "a limit of a user, a run or a quota is reached",
            "wait in the queue, end what runs, or raise the limit: `plimsoll describe quota NAME` shows what is taken",
        ),
        ErrorReason::BudgetExhausted => row(
            Code::ResourceExhausted,
            1,
            Later,
            "a budget of resource-hours or money has too little left",
            "ask for less or for a shorter time, wait until it resets, or raise it: `plimsoll describe quota NAME` shows what is taken",
        ),
        ErrorReason::RateExceeded => row(
            Code::ResourceExhausted,
            1,
            Later,
            "a rate has no tokens left now",
            "ask again after the delay given",
        ),
        ErrorReason::KeptForAnother => row(
            Code::ResourceExhausted,
            1,
            Later,
            "there is room, and it is kept for another reservation",
            "wait until that one has started, or ask for less",
        ),
        ErrorReason::TopologyMismatch => row(
            Code::ResourceExhausted,
            1,
            Later,
            "the members are not, or cannot be, near enough to each other",
            "wait in the queue, ask for an outer level or for fewer members: `plimsoll explain` shows how many fit where",
        ),
        ErrorReason::AffinityConflict => row(
            Code::ResourceExhausted,
            1,
            Later,
            "other work that has to be near is not there, or such is that must not be",
            "wait in the queue, or make the rule a wish with a weight: `plimsoll explain` names the rule and where",
        ),
        ErrorReason::ValidationFailed => row(
            Code::FailedPrecondition,
            9,
            Never,
            "a validator of the cluster refuses it",
            "change what the rules name, or look at them: `plimsoll get validators`",
        ),
        ErrorReason::ReservedByCalendar => row(
            Code::ResourceExhausted,
            1,
            Later,
            "what is left is kept for a schedule or an advance reservation",
            "ask for a shorter time, wait in the queue, or see who has it: `plimsoll get schedules`",
        ),
        ErrorReason::Internal => {
            row(Code::Internal, 1, Never, "a fault of ours", "report it with the coordinator's log")
        }
        ErrorReason::InUse => {
            row(Code::FailedPrecondition, 1, Later, "the object is in use", "end what uses it first")
        }
        ErrorReason::LabelMismatch => row(
            Code::FailedPrecondition,
            1,
            Later,
            "the node's labels do not fit",
            "relax the required terms, or label a node",
        ),
        ErrorReason::DeviceMismatch => row(
            Code::FailedPrecondition,
            1,
            Later,
            "the device's model, memory, health or mode does not fit",
            "allow another model or less memory",
        ),
        ErrorReason::PoolMismatch => row(
            Code::FailedPrecondition,
            1,
            Never,
            "the node is in another pool",
            "ask in that pool, or move the node",
        ),
        ErrorReason::BehindInQueue => row(
            Code::ResourceExhausted,
            1,
            Later,
            "an earlier request in a strict queue goes first",
            "wait in the queue, or use a pool with a best-effort queue",
        ),
        ErrorReason::TableFull => row(
            Code::ResourceExhausted,
            1,
            Later,
            "a table of the ledger is full",
            "end or forget what is no longer needed",
        ),
        ErrorReason::FutureRevision => row(
            Code::OutOfRange,
            1,
            Later,
            "the revision lies ahead of the log",
            "check that this is the right cluster, or wait until it is reached",
        ),
        ErrorReason::WatcherTooSlow => row(
            Code::Aborted,
            1,
            AfterRead,
            "the watcher read too slowly",
            "read the present state and watch from there; read faster or filter more",
        ),
        ErrorReason::Unauthenticated => row(
            Code::Unauthenticated,
            4,
            Never,
            "no valid identity was given",
            "give a client certificate of this cluster's authority",
        ),
        ErrorReason::PermissionDenied => row(
            Code::PermissionDenied,
            4,
            Never,
            "the identity may not do this",
            "ask an administrator of the cluster",
        ),
        ErrorReason::Unimplemented => row(
            Code::Unimplemented,
            1,
            Never,
            "the method is not offered here",
            "ask a coordinator of a newer version",
        ),
        ErrorReason::DiskFull => row(
            Code::ResourceExhausted,
            1,
            Again,
            "the disk of the leading coordinator is nearly full",
            "make room on its disk, or let another coordinator lead; leases are kept and can be renewed and released",
        ),
    }
}

/// gRPC code of a reason.
pub const fn code(reason: ErrorReason) -> Code {
    entry(reason).code
}

/// Exit code of a reason.
pub const fn exit_code(reason: ErrorReason) -> u8 {
    entry(reason).exit_code
}

/// What a caller may do next.
pub const fn retry(reason: ErrorReason) -> Retry {
    entry(reason).retry
}

/// What a reason means, in one line.
pub const fn describe(reason: ErrorReason) -> &'static str {
    entry(reason).description
}

/// Prefix of the enum's names in the .proto file.
const PREFIX: &str = "ERROR_REASON_";

/// The name in `ErrorInfo.reason`, such as `NO_CAPACITY`.
pub fn name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// The reason of a name such as `NO_CAPACITY`; `None` where this build does not know it.
pub fn from_name(name: &str) -> Option<ErrorReason> {
    ErrorReason::from_str_name(&format!("{PREFIX}{name}"))
}

/// No reason has a higher number.
const HIGHEST: i32 = 999;

/// Every reason but `Unspecified`, in the order of their numbers.
pub fn all() -> impl Iterator<Item = ErrorReason> {
    // Some numbers in between are reserved.
    (1..=HIGHEST).filter_map(|number| ErrorReason::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exit codes that `docs/exit-codes` gives to errors of calls.
    const EXIT_CODES: [u8; 8] = [1, 2, 4, 5, 6, 7, 8, 9];

    #[test]
    fn every_reason_has_a_code_an_exit_code_and_a_description() {
        let mut count = 0;
        for reason in all() {
            count += 1;
            let entry = entry(reason);
            assert_ne!(entry.code, Code::Ok, "{reason:?}");
            assert!(EXIT_CODES.contains(&entry.exit_code), "{reason:?}");
            for text in [entry.description, entry.advice] {
                assert!(
                    text.len() > 8 && !text.ends_with('.') && !text.contains('\n'),
                    "{reason:?}: {text:?}"
                );
            }
            assert_eq!(from_name(name(reason)), Some(reason));
        }
        assert!(count >= 39, "only {count} reasons");
        let unseen = (HIGHEST + 1..100_000).find(|number| ErrorReason::try_from(*number).is_ok());
        assert_eq!(unseen, None, "all() sees every reason");
    }

    #[test]
    fn only_unavailable_aborted_and_unknown_outcomes_or_overload_are_asked_again_by_sdks() {
        for reason in all().filter(|reason| retry(*reason) == Retry::Again) {
            let again = [Code::Unavailable, Code::Aborted, Code::Unknown, Code::ResourceExhausted];
            assert!(again.contains(&code(reason)), "{reason:?}");
        }
    }

    #[test]
    fn the_proto_file_names_the_code_of_each_reason() {
        let text = include_str!("../../../../proto/plimsoll/v1/errors.proto");
        let mut comment = "";
        for line in text.lines().map(str::trim) {
            if let Some(words) = line.strip_prefix("// ") {
                comment = words;
            } else if let Some((name, number)) = line.split_once(" = ").filter(|_| line.starts_with(PREFIX)) {
                let number: i32 = number.trim_end_matches(';').parse().unwrap();
                let reason = ErrorReason::try_from(number).unwrap();
                assert_eq!(reason.as_str_name(), name);
                if number > 0 {
                    let code = comment.trim_end_matches('.').rsplit(' ').next().unwrap();
                    let ours = format!("{:?}", entry(reason).code);
                    assert_eq!(code.replace('_', "").to_lowercase(), ours.to_lowercase(), "{name}");
                }
            }
        }
    }
}
