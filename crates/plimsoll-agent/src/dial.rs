//! How an agent reaches a coordinator: one conversation at a time, whatever carries it.

use std::fmt;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use crate::message::{FromCoordinator, ToCoordinator};

/// A conversation, from its opening until either side ends it.
pub struct Conversation {
    /// To the coordinator. Bounded: a coordinator that reads nothing is as good as gone.
    pub outgoing: mpsc::Sender<ToCoordinator>,
    /// From the coordinator. Its end, or an error, ends the conversation.
    pub incoming: BoxStream<'static, Result<FromCoordinator, LinkError>>,
}

/// Opens conversations.
pub trait Dial: Send + Sync + 'static {
    /// Opens one. `attempt` counts up over tries, so that each may go to another coordinator.
    fn open(&self, attempt: u64) -> BoxFuture<'_, Result<Conversation, LinkError>>;
}

/// Why a conversation did not begin or has ended. A broken one is normal: the agent opens another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkError {
    message: String,
}

impl LinkError {
    /// An error in the words of whatever carries the conversation.
    pub fn new(message: impl Into<String>) -> LinkError {
        LinkError { message: message.into() }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LinkError {}
