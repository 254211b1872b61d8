//! What can go wrong, and what the caller may conclude from it.

/// A failure to start, change or reach the group.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error("storage of the group failed")]
    Store(#[from] plimsoll_store::Error),
    /// Bytes on disk or wire that are not ours.
    #[error("{0} is missing or damaged")]
    Damaged(&'static str),
    /// The state machine refuses the rows.
    #[error("the state machine refuses the stored rows")]
    Machine(#[from] MachineError),
    /// Another change of members is under way.
    #[error("another membership change is in progress")]
    ChangeInProgress,
    /// The group has members already.
    #[error("the group was initialised before")]
    AlreadyInitialized,
    /// This node does not lead.
    #[error("node is not the leader")]
    NotLeader {
        /// Id and peer address of the leader, where one is known.
        leader: Option<(u64, String)>,
    },
    /// No such member.
    #[error("node {0} is no member of the group")]
    NoSuchMember(u64),
    /// The new member cannot be used.
    #[error("node {id} at {address} cannot join: {detail}")]
    Unusable {
        /// The new member.
        id: u64,
        /// Its peer address.
        address: String,
        /// What is wrong.
        detail: String,
    },
    /// The group refused or stopped.
    #[error("{0}")]
    Raft(String),
}

/// Rows that do not make a state.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MachineError(pub String);

/// Why a proposal has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not proposed: this node does not lead.
    #[error("node is not the leader")]
    NotLeader {
        /// Id and peer address of the leader, where one is known.
        leader: Option<(u64, String)>,
    },
    /// Proposed; whether it will be applied is not known.
    #[error("outcome of the proposal is unknown")]
    Unknown,
    /// Not proposed: the group has stopped.
    #[error("the group has stopped")]
    Stopped,
}

/// Why a linearizable read cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nobody leads, or the leader cannot reach a quorum.
    #[error("no leader with a quorum answered: {0}")]
    NoLeader(String),
    /// This node is no member any more, says the leader; the peer addresses of those that are, its own first.
    #[error("this node is no member of the group any more: ask {}", .0.join(", "))]
    NoMember(Vec<String>),
    /// The group has stopped.
    #[error("the group has stopped")]
    Stopped,
}

impl From<crate::wire::WireError> for Error {
    fn from(error: crate::wire::WireError) -> Error {
        Error::Damaged(error.0)
    }
}
