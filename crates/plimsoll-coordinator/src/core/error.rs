//! What can go wrong outside the ledger. Refusals by the ledger are values inside answers.

use plimsoll_types::Revision;

use super::identity::IdentityError;

/// A command was not, or perhaps not, applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Definite: this replica does not lead.
    #[error("this coordinator is not the leader")]
    NotLeader {
        /// Id and advertised peer address of the leader, where known.
        leader: Option<(u64, String)>,
    },
    /// Not definite: it was proposed, and leadership changed before its outcome was known.
    #[error("the outcome is unknown: leadership changed while the command was in flight")]
    Unknown,
    /// Definite: the intake is full.
    #[error("the intake is full: {waiting} commands wait, {limit} may; retry in {retry_after_ms} ms")]
    Overloaded {
        /// How many commands of its kind wait.
        waiting: u64,
        /// How many may, in number or by their bytes.
        limit: u64,
        /// When to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// Definite: more commands or bytes in one call than the intake takes at all.
    #[error("{given} {what} in one call, at most {limit} are taken")]
    TooLarge {
        /// `commands` or `bytes`.
        what: &'static str,
        /// How many were given.
        given: u64,
        /// How many are taken.
        limit: u64,
    },
    /// Definite for what was still waiting: the coordinator stops.
    #[error("the coordinator is stopping")]
    Stopped,
}

impl SubmitError {
    /// True where nothing was or will ever be applied.
    pub fn is_definite(&self) -> bool {
        !matches!(self, SubmitError::Unknown)
    }
}

/// A read could not be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed the read.
    #[error("no leader confirmed the read: {detail}")]
    NoLeader {
        /// What the group said.
        detail: String,
    },
    /// This replica was taken out of the cluster.
    #[error("this coordinator is no member of the cluster any more: ask {}", .members.join(", "))]
    NoMember {
        /// Peer addresses of the members, the leader first; they serve the client API too.
        members: Vec<String>,
    },
    /// This replica did not reach the revision in time.
    #[error("revision {wanted} is not applied here yet, {applied} is")]
    TimedOut {
        /// What was asked for.
        wanted: Revision,
        /// What is applied.
        applied: Revision,
    },
    /// What one asked that is set aside cannot be read.
    #[error(transparent)]
    Body(#[from] super::BodyError),
    /// The state at that revision is gone.
    #[error("the state is at revision {applied} already, {wanted} was asked")]
    Moved {
        /// What was asked for.
        wanted: Revision,
        /// What is applied.
        applied: Revision,
    },
    /// The coordinator stops.
    #[error("the coordinator is stopping")]
    Stopped,
}

/// Records of the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// No longer kept.
    #[error("revision {wanted} is no longer kept, the oldest is {first}")]
    Compacted {
        /// What was asked for.
        wanted: Revision,
        /// Oldest revision kept.
        first: Revision,
    },
    /// No record is kept of that time.
    #[error("that is before revision {first}, the oldest that is kept")]
    TooEarly {
        /// Oldest revision kept.
        first: Revision,
    },
    /// Ahead of what is applied here.
    #[error("revision {wanted} is ahead of this replica, which is at {applied}")]
    Future {
        /// What was asked for.
        wanted: Revision,
        /// What is applied.
        applied: Revision,
    },
    /// The store failed, or holds something damaged.
    #[error("history cannot be read: {detail}")]
    Damaged {
        /// What is wrong.
        detail: String,
    },
    /// The coordinator stops.
    #[error("the coordinator is stopping")]
    Stopped,
}

/// The coordinator's core did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A store did not open.
    #[error("cannot open the store in {place}")]
    Store {
        /// Which store.
        place: String,
        /// Why.
        source: plimsoll_store::Error,
    },
    /// The data directory is not this member's, or not whole.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data are those of a newer build.
    #[error(
        "the data here are of ledger version {found}, and this build knows up to {newest}: start a build that knows version \
         {found}; nothing was changed"
    )]
    TooOld {
        /// Ledger version of the data.
        found: u32,
        /// Newest that this build knows.
        newest: u32,
    },
    /// The group did not start.
    #[error("cannot start the consensus group")]
    Group(#[from] plimsoll_consensus::Error),
}
