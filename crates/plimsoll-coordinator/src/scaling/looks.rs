//! What the leader saw when it last looked at a target: for those who ask why it did not move. Not in the ledger: a look that changes nothing
//! is no news.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// One look at a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How many it found to be right.
    pub desired: u64,
    /// What it saw, and the rules that shaped it, in their order.
    pub lines: Vec<String>,
    /// What stands in the way of its provider; empty for nothing.
    pub problem: String,
}

/// The latest look at each policy's target; empty where this coordinator does not lead.
#[derive(Debug, Default)]
pub struct Looks {
    latest: Mutex<BTreeMap<String, Look>>,
}

impl Looks {
    /// The latest look at a policy's target.
    pub fn get(&self, policy: &str) -> Option<Look> {
        self.latest.lock().get(policy).cloned()
    }

    pub(super) fn put(&self, policy: &str, look: Look) {
        self.latest.lock().insert(policy.to_owned(), look);
    }

    pub(super) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.latest.lock().retain(|name, _| keep(name));
    }

    pub(super) fn clear(&self) {
        self.latest.lock().clear();
    }
}
