//! Intents: each machine that is to be started or removed, in the log before anybody is asked to do it.

use plimsoll_types::{LedgerTime, Revision};

/// One machine to be started or removed. Its id is the revision of the entry that opened it: the key under which a provider does it once.
///
/// The row of a started machine stays for as long as the machine does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Its number.
    pub id: Revision,
    /// Policy that it acts for.
    pub policy: String,
    /// Which of the policy's templates the machine is of; empty where the policy has the one. From ledger version 12 on.
    pub template: String,
    /// What is to be done.
    pub action: IntentAction,
    /// Name of the node (or replica): given to the machine, or that it answered with.
    pub node: String,
    /// How far it is.
    pub state: IntentState,
    /// Calls of the provider so far, or under way.
    pub attempts: u32,
    /// What the provider calls the machine; empty before it answered.
    pub handle: String,
    /// What was last heard of it.
    pub detail: String,
    /// The provider is not called again before this.
    pub not_before: LedgerTime,
    /// When a machine that has not registered is given up; 0 before the first call.
    pub deadline: LedgerTime,
    /// When it was opened.
    pub opened_at: LedgerTime,
    /// Revision of the latest change.
    pub changed: Revision,
}

/// What an intent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntentAction {
    /// A new machine. `leaving` is the intent that removes it again.
    Start {
        /// The intent that removes it, once there is one.
        leaving: Option<Revision>,
    },
    /// The machine of an intent goes.
    Remove {
        /// The intent that started it.
        machine: Revision,
    },
}

/// How far an intent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntentState {
    /// Nobody was called yet.
    Wanted,
    /// The provider was, or is being called.
    Acting,
    /// The machine is there.
    Ready,
    /// It was given up.
    Failed,
}

impl IntentState {
    /// Lower-case name, as screens show it.
    pub fn name(self) -> &'static str {
        match self {
            IntentState::Wanted => "wanted",
            IntentState::Acting => "acting",
            IntentState::Ready => "ready",
            IntentState::Failed => "failed",
        }
    }
}

/// The next step of an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntentStep {
    /// The provider is about to be called.
    Act,
    /// It answered: the machine is on its way.
    Answered {
        /// What the provider calls the machine.
        handle: String,
        /// Name of its node, where the provider chose another one; empty for the intent's own.
        node: String,
    },
    /// It could not be done now.
    Later {
        /// Why.
        detail: String,
        /// Not before so many milliseconds from the entry.
        after_ms: u64,
    },
    /// The machine registered, or is gone.
    Ready,
    /// It is given up.
    Failed {
        /// Why.
        detail: String,
    },
}

impl Intent {
    /// True where something is still to be done for it.
    pub fn is_open(&self) -> bool {
        matches!(self.state, IntentState::Wanted | IntentState::Acting)
    }

    /// True where it starts a machine.
    pub fn starts(&self) -> bool {
        matches!(self.action, IntentAction::Start { .. })
    }
}
