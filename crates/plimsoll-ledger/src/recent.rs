//! Recent requests, so that thousands of the same share one allocation.
//!
//! What is shared is equal, so nothing of this shows in the state: a cache, not a fact.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

use crate::Request;

/// Requests remembered; a power of two.
const SLOTS: usize = 256;

/// The latest request of each slot. O(1) in everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentRequests {
    slots: Vec<Option<Arc<Request>>>,
    hasher: DefaultHashBuilder,
}

impl RecentRequests {
    /// The request itself, or one like it that is there already.
    pub(crate) fn share(&mut self, request: Request) -> Arc<Request> {
        self.find(&request).unwrap_or_else(|| self.keep(Arc::new(request)))
    }

    fn find(&self, request: &Request) -> Option<Arc<Request>> {
        let known = self.slots.get(self.slot_of(request))?.as_ref()?;
        (**known == *request).then(|| Arc::clone(known))
    }

    fn keep(&mut self, request: Arc<Request>) -> Arc<Request> {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        let slot = self.slot_of(&request);
        self.slots[slot] = Some(Arc::clone(&request));
        request
    }

    fn slot_of(&self, request: &Request) -> usize {
        (self.hasher.hash_one(request) % SLOTS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_requests_share_and_others_do_not() {
        let mut recent = RecentRequests::default();
        let request = |name: &str| Request { name: name.to_owned(), ..Request::default() };
        let first = recent.share(request("a"));
        assert!(Arc::ptr_eq(&first, &recent.share(request("a"))));
        for number in 0..1_000 {
            let name = number.to_string();
            assert_eq!(recent.share(request(&name)).name, name);
        }
    }
}
