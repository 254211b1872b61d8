//! What the head of every answer says: how far the ledger is, and who leads.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

use crate::core::Core;
use crate::services::api::Shown;

/// A revision that is applied at the coordinator that answered, not below any in the answer. Ask for it as
/// `min_revision`, and no coordinator shows anything older.
const REVISION: HeaderName = HeaderName::from_static("plimsoll-revision");
/// Address of the leader, where one is known.
const LEADER: HeaderName = HeaderName::from_static("plimsoll-leader");

/// Writes the heads of answers. Clones share what they remember.
#[derive(Clone)]
pub(in crate::services) struct Heads {
    core: Core,
    shown: Arc<Shown>,
    /// This coordinator's own address; `None` where it does not fit into a header.
    own: Option<HeaderValue>,
    /// The latest leader elsewhere.
    other: Arc<Mutex<Option<(String, HeaderValue)>>>,
}

impl Heads {
    pub(in crate::services) fn new(core: Core, shown: Arc<Shown>) -> Heads {
        let own = HeaderValue::from_str(&core.config().peer_address).ok();
        Heads { core, shown, own, other: Arc::default() }
    }

    /// Adds what is not there yet: an answer that was passed on has the leader's own head.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(REVISION) {
            headers.insert(REVISION, HeaderValue::from(self.revision()));
        }
        if !headers.contains_key(LEADER)
            && let Some(leader) = self.leader()
        {
            headers.insert(LEADER, leader);
        }
    }

    fn revision(&self) -> u64 {
        // Kept as answers are made, so that no call waits for the ledger once more.
        match self.shown.revision() {
            0 => self.core.local().revision().0,
            revision => revision,
        }
    }

    fn leader(&self) -> Option<HeaderValue> {
        if self.core.is_leader() {
            return self.own.clone();
        }
        let (_, address) = self.core.leader_address()?;
        let mut other = self.other.lock();
        match &*other {
            Some((known, value)) if *known == address => Some(value.clone()),
            _ => {
                let value = HeaderValue::from_str(&address).ok()?;
                *other = Some((address, value.clone()));
                Some(value)
            }
        }
    }
}
