//! Exit codes: part of the interface, all in one place.

use std::process::ExitCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or no difference.
    Done,
    /// Refused, or failed for a reason that has no code of its own.
    Refused,
    /// Wrong usage.
    Usage,
    /// Accepted, but not placed within the time given.
    Pending,
    /// Not authenticated or not permitted.
    NotPermitted,
    /// Not found.
    NotFound,
    /// Conflict: a revision moved, a key was used twice, a token is old.
    Conflict,
    /// Nothing that exists can ever hold it.
    Infeasible,
    /// No coordinator answered, or there is no quorum.
    Unreachable,
    /// A validator of the cluster refuses it.
    Invalid,
    /// A plan or diff shows changes.
    Changes,
    /// A fault of ours: the process stopped rather than go on wrongly.
    Fault,
    /// A coordinator's storage failed for good.
    Storage,
    /// A wait ran out.
    TimedOut,
    /// `plimsoll run` itself failed, or lost its lease.
    RunFailed,
    /// The command is not executable.
    NotExecutable,
    /// The command was not found.
    CommandNotFound,
    /// The command's own code, or 128 and its signal.
    Command(u8),
}

impl Exit {
    /// Every code with its meaning, for manual and documentation.
    pub(crate) const TABLE: &[(Exit, &str)] = &[
        (Exit::Done, "done, or no difference"),
        (Exit::Refused, "refused, or failed for another reason"),
        (Exit::Usage, "wrong usage, or a field of the request makes no sense"),
        (Exit::Pending, "accepted, but not placed within the time given"),
        (Exit::NotPermitted, "not authenticated or not permitted"),
        (Exit::NotFound, "not found"),
        (Exit::Conflict, "conflict: a revision moved, a key was used twice, a token is old"),
        (Exit::Infeasible, "infeasible: nothing that exists can ever hold it"),
        (Exit::Unreachable, "unreachable: no coordinator answered, or there is no quorum"),
        (Exit::Invalid, "a validator of the cluster, or of the same files, refuses it"),
        (Exit::Changes, "diff --exit-code: there are changes"),
        (
            Exit::Fault,
            "coordinator: a fault of ours, or a ledger whose rules this build does not know; it stopped rather than go on \
             wrongly",
        ),
        (
            Exit::Storage,
            "coordinator: its storage failed for good; it must not be restarted before somebody looked. doctor, cluster \
             snapshot verify: what was looked at is damaged",
        ),
        (Exit::TimedOut, "wait: the time ran out"),
        (Exit::RunFailed, "run: plimsoll itself failed, or lost the lease"),
        (Exit::NotExecutable, "run: the command is not executable"),
        (Exit::CommandNotFound, "run: the command was not found"),
    ];

    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Usage => 2,
            Exit::Pending => 3,
            Exit::NotPermitted => 4,
            Exit::NotFound => 5,
            Exit::Conflict => 6,
            Exit::Infeasible => 7,
            Exit::Unreachable => 8,
            Exit::Invalid => 9,
            Exit::Changes => 10,
            Exit::Fault => 70,
            Exit::Storage => 74,
            Exit::TimedOut => 124,
            Exit::RunFailed => 125,
            Exit::NotExecutable => 126,
            Exit::CommandNotFound => 127,
            Exit::Command(code) => code,
        }
    }

    /// The exit of an error's code.
    pub(crate) fn of_code(code: u8) -> Exit {
        Exit::TABLE.iter().map(|(exit, _)| *exit).find(|exit| exit.code() == code).unwrap_or(Exit::Refused)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_all_reasons_lead_to_one() {
        let mut codes: Vec<u8> = Exit::TABLE.iter().map(|(exit, _)| exit.code()).collect();
        assert!(codes.is_sorted());
        codes.dedup();
        assert_eq!(codes.len(), Exit::TABLE.len());
        for reason in plimsoll_proto::reason::all() {
            let code = plimsoll_proto::reason::exit_code(reason);
            assert_eq!(Exit::of_code(code).code(), code, "{reason:?}");
        }
    }
}
