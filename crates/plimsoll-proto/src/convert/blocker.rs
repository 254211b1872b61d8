//! Reasons and blockers, and the sentence for people that goes with them.

use plimsoll_ledger::{Blocker, MICRO, Measure, Reason};

use crate::reason;
use crate::v1::{self, ErrorReason};

/// Both directions from one table.
macro_rules! reasons {
    ($($reason:ident),+ $(,)?) => {
        /// The public reason of one of the ledger's.
        pub fn reason_to_v1(from: Reason) -> ErrorReason {
            match from {
                $(Reason::$reason => ErrorReason::$reason,)+
            }
        }

        /// The ledger's reason of a public one; `None` for those that never come from the ledger.
        pub fn reason_from_v1(from: ErrorReason) -> Option<Reason> {
            match from {
                $(ErrorReason::$reason => Some(Reason::$reason),)+
                _ => None,
            }
        }
    };
}

reasons!(
    UnsupportedVersion,
    KeyConflict,
    NotFound,
    PoolNotFound,
    ClassNotFound,
    InvalidArgument,
    RevisionMoved,
    Fenced,
    WrongState,
    Expired,
    InUse,
    Infeasible,
    NodeNotAvailable,
    LabelMismatch,
    DeviceMismatch,
    PoolMismatch,
    CountableExhausted,
    NoCapacity,
    BehindInQueue,
    QueueFull,
    TableFull,
    QueueNotFound,
    QuotaExceeded,
    NotPreemptible,
    AwaitsPreemption,
    Preempted,
    LimitExceeded,
    BudgetExhausted,
    RateExceeded,
    ReservedByCalendar,
    TopologyMismatch,
    AffinityConflict,
    AwaitsBatch,
    AwaitsHours,
    SpotShare,
    Overflowed,
    ServiceNotFound,
    PermissionDenied,
);

/// A blocker as a message, with a sentence made of its numbers.
pub fn blocker_to_v1(from: &Blocker) -> v1::Blocker {
    v1::Blocker {
        reason: reason_to_v1(from.reason).into(),
        subject: from.subject.clone(),
        message: sentence(from),
        asked: from.asked,
        available: from.available,
        limit: from.limit,
        nodes: from.nodes,
    }
}

fn sentence(from: &Blocker) -> String {
    let Blocker { reason, subject, asked, available, limit, nodes } = from;
    let unit = unit(subject);
    let mut text = match reason {
        Reason::NoCapacity | Reason::CountableExhausted => {
            format!("{subject}: {asked}{unit} asked, {available}{unit} free")
        }
        Reason::QuotaExceeded => {
            format!("{subject}: {asked}{unit} asked, {available}{unit} left of the quota")
        }
        Reason::LimitExceeded | Reason::BudgetExhausted | Reason::RateExceeded => return limited(from),
        Reason::ReservedByCalendar => {
            format!("{subject}: {asked}{unit} asked, {available}{unit} left beside what is kept")
        }
        Reason::TopologyMismatch | Reason::InvalidArgument if subject.starts_with("level ") => {
            return format!("{subject}: there is none");
        }
        Reason::TopologyMismatch => {
            format!("{subject}: {asked} members asked, {available} fit there at most")
        }
        Reason::AffinityConflict if *asked > 0 => format!("{subject}: nobody there carries it"),
        Reason::AffinityConflict => format!("{subject}: {available} there"),
        Reason::Infeasible => {
            format!("{subject}: {asked}{unit} asked, {available}{unit} is the most there could be")
        }
        Reason::PermissionDenied if *asked > 1 => {
            format!(
                "{subject}: {asked} asked, {available} is what there was, and only who is above may give more"
            )
        }
        Reason::InvalidArgument => format!("{subject}: {asked} given, {available} expected"),
        Reason::RevisionMoved => format!("{subject}: revision {asked} given, it is at {available}"),
        Reason::Fenced => format!("{subject}: {asked} given, {available} is the current one"),
        Reason::SpotShare => {
            return format!("{subject}: {asked} members asked on spot nodes, {available} more may be there");
        }
        Reason::Overflowed => subject.clone(),
        Reason::QueueFull | Reason::TableFull => format!("{subject}: full with {available}"),
        Reason::UnsupportedVersion => format!("{subject}: version {asked} asked, {available} is in force"),
        Reason::KeyConflict
        | Reason::NotFound
        | Reason::PoolNotFound
        | Reason::ClassNotFound
        | Reason::QueueNotFound
        | Reason::ServiceNotFound
        | Reason::WrongState
        | Reason::Expired
        | Reason::InUse
        | Reason::NodeNotAvailable
        | Reason::LabelMismatch
        | Reason::DeviceMismatch
        | Reason::PoolMismatch
        | Reason::NotPreemptible
        | Reason::AwaitsPreemption
        | Reason::AwaitsBatch
        | Reason::AwaitsHours
        | Reason::Preempted
        | Reason::PermissionDenied
        | Reason::BehindInQueue => format!("{subject}: {}", reason::describe(reason_to_v1(*reason))),
    };
    if *limit > 0 && limit != available {
        text.push_str(&format!(", at most {limit}{unit}"));
    }
    if *nodes > 0 {
        text.push_str(&format!(" ({nodes} node{})", if *nodes == 1 { "" } else { "s" }));
    }
    text
}

/// Numbers against a limit, in the unit that people write it in.
fn limited(from: &Blocker) -> String {
    let Blocker { subject, asked, available, limit, .. } = from;
    let measure = subject.split(' ').next().unwrap_or_default();
    let timed = Measure::NAMED.iter().any(|(name, measure_)| *name == measure && measure_.is_timed());
    let shown = |amount: &u64| if timed { decimal(*amount) } else { amount.to_string() };
    let unit = match measure {
        "cpu-hours" => " core-hours",
        "gpu-hours" => " GPU-hours",
        "memory-hours" => " GiB-hours",
        "storage" => " bytes",
        _ => "",
    };
    let (asked, available, limit) = (shown(asked), shown(available), shown(limit));
    format!("{subject}: {asked}{unit} asked, {available} of {limit} left")
}

/// Millionths as a decimal number: `12.5`.
pub fn decimal(micros: u64) -> String {
    let (whole, part) = (micros / MICRO, micros % MICRO);
    if part == 0 {
        return whole.to_string();
    }
    format!("{whole}.{part:06}").trim_end_matches('0').to_owned()
}

/// The unit of a resource's amounts, with a space in front.
fn unit(subject: &str) -> &'static str {
    // Quotas name the queue behind the resource.
    match subject.split(' ').next().unwrap_or_default() {
        // Quotas and the calendar count devices in parts; both say more than the resource.
        "gpu" if subject.contains(' ') => " thousandths",
        "cpu" => " millicores",
        "memory" => " bytes",
        resource if resource.starts_with("storage/") => " bytes",
        resource if resource.starts_with("network/") => " bit/s",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_carry_the_numbers() {
        let blocker =
            Blocker { limit: 8000, nodes: 2, ..Blocker::new(Reason::NoCapacity, "cpu", 4000, 1500) };
        let text = "cpu: 4000 millicores asked, 1500 millicores free, at most 8000 millicores (2 nodes)";
        assert_eq!(blocker_to_v1(&blocker).message, text);
        let blocker = Blocker::new(Reason::NotFound, "r-7k2m", 1, 0);
        assert_eq!(blocker_to_v1(&blocker).message, "r-7k2m: no such reservation, node, member or object");
    }

    #[test]
    fn budgets_are_told_in_the_units_that_people_write() {
        let subject = "cost (USD) of user ada in quota research, resets 2026-11-22 00:00 UTC";
        let blocker = Blocker {
            limit: 10_000_000,
            ..Blocker::new(Reason::BudgetExhausted, subject, 2_500_000, 40_000)
        };
        assert_eq!(blocker_to_v1(&blocker).message, format!("{subject}: 2.5 asked, 0.04 of 10 left"));
        let blocker =
            Blocker { limit: 5, ..Blocker::new(Reason::LimitExceeded, "concurrent in quota a", 1, 0) };
        assert_eq!(blocker_to_v1(&blocker).message, "concurrent in quota a: 1 asked, 0 of 5 left");
    }

    #[test]
    fn ledger_reasons_are_public_and_come_back() {
        let known = reason::all().filter_map(|public| Some((public, reason_from_v1(public)?)));
        assert_eq!(known.map(|(public, ledger)| assert_eq!(reason_to_v1(ledger), public)).count(), 38);
    }
}
